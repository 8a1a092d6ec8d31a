"""Probes: classifiers per label budget; all draws of one (encoder, probe, budget) in one job.

in   features (frozen probes) or encoder and crops (fine-tuning); splits; labels of the shift screens
out  predictions/{encoder}/seed{seed}/{probe}/budget{budget}.parquet, scores/{encoder}/seed{seed}.parquet
"""

PROBE_RECORD = f"{STUDY}/runs/probes/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}/run.json"
PROBE_LOG = f"{STUDY}/logs/probes/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}.log"


rule probe_knn:
    """Classify by the nearest neighbours among the training labels."""
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
        probe=one_of(probes_of("knn")),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=lambda wc: flags(settings.probe_settings(config, wc.probe)),
        draws=lambda wc: settings.probe_draws(config, wc.probe),
        shuffle=shuffle_flag,
        code=code_digest("probe_knn.py"),
    shell:
        "python scripts/probe_knn.py --features {input.features:q} --splits {input.splits:q}"
        " --shift-labels {input.shift:q} --budget {wildcards.budget} --draws {params.draws} {params.shuffle}"
        " {params.settings} --output {output.predictions:q} --record {output.record:q}"
        " 2>&1 | tee {log:q}"


rule probe_linear:
    """Train a linear layer on frozen features."""
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
        probe=one_of(probes_of("linear")),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=lambda wc: flags(settings.probe_settings(config, wc.probe)),
        draws=lambda wc: settings.probe_draws(config, wc.probe),
        shuffle=shuffle_flag,
        code=code_digest("probe_linear.py"),
    shell:
        "python scripts/probe_linear.py --features {input.features:q} --splits {input.splits:q}"
        " --shift-labels {input.shift:q} --budget {wildcards.budget} --draws {params.draws} {params.shuffle}"
        " --seed {wildcards.seed} {params.settings}"
        " --output {output.predictions:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule finetune:
    """Train encoder and linear layer together."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        shift=[f"{STUDY}/labels/{screen}.parquet" for screen in TEST],
        crops=[crop_files(screen, "parquet") for screen in LABELLED],
    output:
        predictions=PREDICTIONS,
        record=PROBE_RECORD,
    log:
        PROBE_LOG,
    wildcard_constraints:
        probe=one_of(probes_of("finetune")),
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        # Channels that encoders see of each screen: BBBC022:w4,w5,w1.
        composites=[
            f"{screen}:{','.join(config['screens'][screen]['composite'])}" for screen in LABELLED
        ],
        settings=lambda wc: flags(settings.probe_settings(config, wc.probe)),
        draws=lambda wc: settings.probe_draws(config, wc.probe),
        shuffle=shuffle_flag,
        code=code_digest("finetune.py"),
    shell:
        "python scripts/finetune.py --encoder {input.encoder:q} --splits {input.splits:q}"
        " --shift-labels {input.shift:q} --crops {input.crops:q}"
        " --composites {params.composites:q} --budget {wildcards.budget} --draws {params.draws} {params.shuffle}"
        " --seed {wildcards.seed} {params.settings} --threads {threads}"
        " --output {output.predictions:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule score_predictions:
    """Compute the metrics of every prediction of an encoder."""
    input:
        predictions=lambda wc: predictions_of(wc.encoder, wc.seed),
    output:
        scores=f"{STUDY}/scores/{{encoder}}/seed{{seed}}.parquet",
        record=f"{STUDY}/runs/scores/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/scores/{{encoder}}/seed{{seed}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_digest("score_predictions.py"),
    shell:
        "python scripts/score_predictions.py --predictions {input.predictions:q}"
        " --encoder {wildcards.encoder:q} --seed {wildcards.seed}"
        " --output {output.scores:q} --record {output.record:q} 2>&1 | tee {log:q}"
