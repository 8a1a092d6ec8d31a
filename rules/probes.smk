"""Probes: classifiers per label budget; all draws of one (encoder, probe, budget) in one job.

in   features (frozen probes) or encoder and crops (fine-tuning); splits; labels of the shift screens
out  predictions/{encoder}/seed{seed}/{probe}/budget{budget}.parquet,
     {scores,replicates,left_out}/{encoder}/seed{seed}.parquet
"""


include: "functions/probes.smk"


PROBE_LOG = f"{STUDY}/logs/probes/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}.log"


rule probe:
    """Classify frozen features by one kind of probe, on all draws."""
    input:
        features=all_features,
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        shift=[f"{STUDY}/labels/{screen}.parquet" for screen in TEST],
    output:
        predictions=PREDICTIONS,
        record=PROBE_RECORD,
    log:
        PROBE_LOG,
    wildcard_constraints:
        probe=one_of(FROZEN),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(20),
    params:
        kind=probe_kind,
        settings=lambda wc: flags(settings.probe_settings(config, wc.probe)),
        draws=lambda wc: settings.probe_draws(config, wc.probe),
        shuffle=shuffle_flag,
        group_by=GROUP_BY,
        code=probe_code,
    shell:
        '"$HCSQC" --log {log:q} probes/probe_features.py --kind {params.kind} --features {input.features:q} --splits {input.splits:q}'
        " --shift-labels {input.shift:q} {params.group_by} --budget {wildcards.budget} --draws {params.draws} {params.shuffle}"
        " --seed {wildcards.seed} {params.settings}"
        " --output {output.predictions:q} --record {output.record:q}"


rule search_finetuning:
    """Choose the settings of fine-tuning by inner folds of the first draw's training labels."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        crops=labelled_crops(TRAIN, "parquet"),
    output:
        choice=f"{STUDY}/search/finetuning/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}.json",
        record=f"{STUDY}/runs/probe_search/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}/run.json",
    log:
        f"{STUDY}/logs/probe_search/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}.log",
    wildcard_constraints:
        probe=one_of(probes_of("finetune_search")),
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=minutes(480),
    params:
        composite=config["screens"][TRAIN]["composite"],
        roles=lambda wc: channel_roles(TRAIN, wc.encoder),
        settings=lambda wc: flags(settings.probe_settings(config, wc.probe)),
        code=code_digest("probes/search_finetuning.py"),
    shell:
        '"$HCSQC" --log {log:q} probes/search_finetuning.py --encoder {input.encoder:q} --splits {input.splits:q}'
        " --crops {input.crops:q} --composite {params.composite:q} --budget {wildcards.budget}"
        " --channel-roles {params.roles:q}"
        " --seed {wildcards.seed} {params.settings} --threads {threads}"
        " --output {output.choice:q} --record {output.record:q}"


rule finetune:
    """Train encoder and linear layer together."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        shift=[f"{STUDY}/labels/{screen}.parquet" for screen in TEST],
        crops=[labelled_crops(screen, "parquet") for screen in LABELLED],
        choice=finetuning_choice,
    output:
        predictions=PREDICTIONS,
        record=PROBE_RECORD,
    log:
        PROBE_LOG,
    wildcard_constraints:
        probe=one_of(name for kind in settings.FINETUNING for name in probes_of(kind)),
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=minutes(240),
    params:
        # Channels that encoders see of each screen: BBBC022:w4,w5,w1.
        composites=[
            f"{screen}:{','.join(config['screens'][screen]['composite'])}" for screen in LABELLED
        ],
        roles=lambda wc: [
            f"{screen}:{role}" for screen in LABELLED for role in channel_roles(screen, wc.encoder)
        ],
        settings=finetuning_flags,
        draws=lambda wc: settings.probe_draws(config, wc.probe),
        shuffle=shuffle_flag,
        group_by=GROUP_BY,
        code=code_digest("probes/finetune.py"),
    shell:
        '"$HCSQC" --log {log:q} probes/finetune.py --encoder {input.encoder:q} --splits {input.splits:q}'
        " --shift-labels {input.shift:q} {params.group_by} --crops {input.crops:q}"
        " --composites {params.composites:q} --channel-roles {params.roles:q} --budget {wildcards.budget} --draws {params.draws} {params.shuffle}"
        " --seed {wildcards.seed} {params.settings} --threads {threads}"
        " --output {output.predictions:q} --record {output.record:q}"


rule score_predictions:
    """Compute the metrics of every prediction of an encoder, and resample groups and draws."""
    input:
        predictions=lambda wc: [
            PREDICTIONS.format(**job)
            for job in probe_jobs(wc.encoder, wc.seed, config["study"]["probes"])
        ],
    output:
        scores=f"{STUDY}/scores/{{encoder}}/seed{{seed}}.parquet",
        replicates=f"{STUDY}/replicates/{{encoder}}/seed{{seed}}.parquet",
        left_out=f"{STUDY}/left_out/{{encoder}}/seed{{seed}}.parquet",
        record=f"{STUDY}/runs/scores/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/scores/{{encoder}}/seed{{seed}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(30),
    params:
        replicates=config["evaluation"]["replicates"],
        code=code_digest("probes/score_predictions.py"),
    shell:
        '"$HCSQC" --log {log:q} probes/score_predictions.py --predictions {input.predictions:q}'
        " --encoder {wildcards.encoder:q} --seed {wildcards.seed}"
        " --replicates {params.replicates} --output {output.scores:q}"
        " --output-replicates {output.replicates:q} --output-left-out {output.left_out:q}"
        " --record {output.record:q}"
