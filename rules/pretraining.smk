"""Encoders by self-supervised pretraining on unlabelled crops.

in   crops of the pretraining plates
out  encoders/{encoder}/seed{seed}/encoder.safetensors, encoder.json, epochs/;
     search/{encoder}/choice.json of those with a line search;
     scores/epochs/{encoder}/seed{seed}.parquet and figures/pretraining/{encoder}/seed{seed}.png
"""


include: "functions/pretraining.smk"


rule pretrain_trial:
    """Train a backbone for a short while, with one learning rate and weight decay of a search."""
    input:
        crops=pretraining_crops,
    output:
        record=f"{STUDY}/runs/search/{{encoder}}/{{trial}}/run.json",
    log:
        f"{STUDY}/logs/search/{{encoder}}/{{trial}}.log",
    wildcard_constraints:
        encoder=one_of(SEARCHED),
        trial="lr[^_/]+_wd[^_/]+",
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(12000),
        runtime=minutes(120),
        # Folder of the node's own disk to copy the crops to; empty: read where they lie.
        scratch="",
        tracking=TRACKING_SERVER,
    params:
        settings=lambda wc: pretraining_flags(wc, wc.trial),
        seed=config["study"]["seeds"][0],
        crops=lambda wc: config["encoders"][wc.encoder]["search"]["crops"],
        composite=config["screens"][TRAIN]["composite"],
        wells=config["screens"][TRAIN]["evaluation_wells"],
        checkpoints=f"{STUDY}/search/{{encoder}}/{{trial}}",
        study=config["study"]["name"],
        code=pretraining_code,
    shell:
        '"$HCSQC" --log {log:q} pretraining/pretrain.py {params.settings} --seed {params.seed}'
        " --crops {input.crops:q} --composite {params.composite:q}"
        " --without-wells {params.wells:q} --at-most-crops {params.crops}"
        " --checkpoints {params.checkpoints:q}"
        " --limit-minutes {resources.runtime} --scratch={resources.scratch:q} --threads {threads}"
        " --tracking-uri={resources.tracking:q} --study {params.study:q}"
        " --record {output.record:q}"


rule choose_pretraining:
    """Choose the trial of a search by the rank of its features, which needs no label."""
    input:
        trials=lambda wc: [
            f"{STUDY}/runs/search/{wc.encoder}/{trial}/run.json"
            for trial in settings.search_trials(config, wc.encoder)
        ],
    output:
        choice=f"{STUDY}/search/{{encoder}}/choice.json",
        record=f"{STUDY}/runs/search/{{encoder}}/choice/run.json",
    log:
        f"{STUDY}/logs/search/{{encoder}}/choice.log",
    wildcard_constraints:
        encoder=one_of(SEARCHED),
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        checkpoints=lambda wc: [
            f"{STUDY}/search/{wc.encoder}/{trial}"
            for trial in settings.search_trials(config, wc.encoder)
        ],
        code=code_digest("pretraining/choose_pretraining.py"),
    shell:
        '"$HCSQC" --log {log:q} pretraining/choose_pretraining.py --trials {input.trials:q}'
        " --checkpoints {params.checkpoints:q}"
        " --output {output.choice:q} --record {output.record:q}"


rule pretrain:
    """Train a backbone on unlabelled crops by a self-supervised method."""
    input:
        crops=pretraining_crops,
        choice=lambda wc: (
            f"{STUDY}/search/{wc.encoder}/choice.json" if wc.encoder in SEARCHED else []
        ),
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        snapshots=directory(f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/epochs"),
        record=f"{STUDY}/runs/pretrain/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/pretrain/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_of("ssl")),
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(12000),
        runtime=minutes(720),
        scratch="",
        tracking=TRACKING_SERVER,
    params:
        settings=pretraining_flags,
        choice=lambda wc, input: flags({"choice": input.choice} if input.choice else {}),
        composite=config["screens"][TRAIN]["composite"],
        wells=config["screens"][TRAIN]["evaluation_wells"],
        checkpoints=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/checkpoints",
        study=config["study"]["name"],
        code=pretraining_code,
    shell:
        '"$HCSQC" --log {log:q} pretraining/pretrain.py {params.settings} {params.choice} --seed {wildcards.seed}'
        " --crops {input.crops:q} --composite {params.composite:q}"
        " --without-wells {params.wells:q} --checkpoints {params.checkpoints:q}"
        " --limit-minutes {resources.runtime} --scratch={resources.scratch:q} --threads {threads}"
        " --tracking-uri={resources.tracking:q} --study {params.study:q}"
        " --output {output.weights:q} --snapshots-output {output.snapshots:q}"
        " --record {output.record:q}"


rule plot_pretraining:
    """Draw the course of a pretraining: loss, learning rate, and the spread and rank of features."""
    input:
        record=f"{STUDY}/runs/pretrain/{{encoder}}/seed{{seed}}/run.json",
    output:
        figure=f"{STUDY}/figures/pretraining/{{encoder}}/seed{{seed}}.png",
        record=f"{STUDY}/runs/figures/pretraining/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/figures/pretraining/{{encoder}}/seed{{seed}}.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        checkpoints=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/checkpoints",
        code=code_digest("pretraining/plot_pretraining.py"),
    shell:
        '"$HCSQC" --log {log:q} pretraining/plot_pretraining.py --pretraining {input.record:q}'
        " --checkpoints {params.checkpoints:q}"
        " --output {output.figure:q} --record {output.record:q}"


rule score_epochs:
    """Classify by nearest neighbours with the encoders kept along the epochs of a pretraining."""
    input:
        snapshots=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/epochs",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        crops=labelled_crops(TRAIN, "parquet"),
    output:
        scores=f"{STUDY}/scores/epochs/{{encoder}}/seed{{seed}}.parquet",
        record=f"{STUDY}/runs/epochs/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/epochs/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_of("ssl")),
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        composite=config["screens"][TRAIN]["composite"],
        reading=flags(pick(config["features"], "batch_size", "precision")),
        budget=max(config["study"]["budgets"]),
        draws=config["study"]["draws"],
        knn=flags(settings.probe_settings(config, "knn")),
        code=code_digest("pretraining/score_epochs.py"),
    shell:
        '"$HCSQC" --log {log:q} pretraining/score_epochs.py --snapshots {input.snapshots:q}'
        " --splits {input.splits:q} --crops {input.crops:q} --composite {params.composite:q}"
        " {params.reading} --budget {params.budget} --draws {params.draws}"
        " {params.knn} --threads {threads}"
        " --output {output.scores:q} --record {output.record:q}"
