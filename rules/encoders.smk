"""Encoders: given weights, random weights, or self-supervised pretraining; one form for all.

in   crops of the pretraining plates (ssl and measures); weights, networks or features of one's own
out  encoders/{encoder}/seed{seed}/encoder.safetensors, encoder.json; of ssl encoders also epochs/,
     scores/epochs/{encoder}/seed{seed}.parquet and figures/pretraining/{encoder}/seed{seed}.png;
     search/{encoder}/choice.json of those with a line search
"""

import re


localrules:
    fetch_weights,
    import_encoder,
    import_module,
    describe_features,
    choose_pretraining,
    plot_pretraining,


rule fetch_weights:
    """Find the weights of a trained network once: in a file, a package or the model hub.

    No digest of code: an edit must not delete what all studies share and may not be had again.
    """
    input:
        file=weights_file,
    output:
        weights="results/weights/{weights}.safetensors",
        about="results/weights/{weights}.safetensors.json",
        record="results/weights/{weights}/run.json",
    log:
        "results/weights/{weights}/fetch.log",
    wildcard_constraints:
        weights=one_of(map(re.escape, WEIGHTS)),
    conda:
        "../envs/torch.yaml"
    params:
        source=lambda wc: flags(pick_given(WEIGHTS[wc.weights], "architecture", "file", "package")),
    shell:
        "HF_HUB_OFFLINE=0 python scripts/fetch_weights.py {params.source}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule import_encoder:
    """Make an encoder of the weights of a trained network."""
    input:
        weights=lambda wc: (
            f"results/weights/{settings.weights_name(encoder_settings(wc))}.safetensors"
        ),
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(
            name for name in encoders_of("transfer") if name in encoders_with("architecture")
        ),
        seed="0",
    conda:
        "../envs/torch.yaml"
    params:
        input_px=lambda wc: encoder_settings(wc)["input_px"],
        mode=lambda wc: settings.channel_mode(encoder_settings(wc)),
        channels=len(config["screens"][TRAIN]["composite"]),
        code=code_digest("import_encoder.py"),
    shell:
        "python scripts/import_encoder.py --weights {input.weights:q} --input-px {params.input_px}"
        " --mode {params.mode} --channels {params.channels}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule import_module:
    """Make an encoder of a network of one's own."""
    input:
        source=module_file,
        weights=lambda wc: encoder_settings(wc).get("file", []),
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_with("module")),
        seed="0",
    conda:
        "../envs/torch.yaml"
    params:
        settings=lambda wc: flags(pick_given(encoder_settings(wc), "module", "input_px", "file")),
        channels=len(config["screens"][TRAIN]["composite"]),
        code=code_digest("import_module.py"),
    shell:
        "python scripts/import_module.py {params.settings} --channels {params.channels}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule describe_features:
    """Say of features that come in a table what encoder.json says of any encoder."""
    input:
        table=lambda wc: features_table(wc.encoder, TRAIN),
    output:
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_with("features")),
        seed="0",
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("describe_features.py"),
    shell:
        "python scripts/describe_features.py --table {input.table:q}"
        " --output {output.about:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule random_encoder:
    """The control: random weights."""
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of([name for name in encoders_of("control") if name not in MEASURED]),
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=minutes(20),
    params:
        settings=lambda wc: flags(pick(encoder_settings(wc), "architecture", "input_px")),
        channels=len(config["screens"][TRAIN]["composite"]),
        code=code_digest("random_encoder.py"),
    shell:
        "python scripts/random_encoder.py {params.settings} --channels {params.channels}"
        " --seed {wildcards.seed}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule fit_measures:
    """Standardise measures of crops over unlabelled ones: an encoder that is not trained."""
    input:
        crops=pretraining_crops,
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(MEASURED),
        seed="0",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=minutes(30),
    params:
        settings=lambda wc: flags(encoder_settings(wc)),
        composite=config["screens"][TRAIN]["composite"],
        wells=config["screens"][TRAIN]["evaluation_wells"],
        standardised=config["features"]["standardised"],
        code=code_digest("fit_measures.py"),
    shell:
        "python scripts/fit_measures.py {params.settings} --crops {input.crops:q}"
        " --composite {params.composite} --without-wells {params.wells:q}"
        " --at-most-crops {params.standardised}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


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
        code=pretraining_code,
    shell:
        "python scripts/pretrain.py {params.settings} --seed {params.seed}"
        " --crops {input.crops:q} --composite {params.composite}"
        " --without-wells {params.wells:q} --at-most-crops {params.crops}"
        " --checkpoints {params.checkpoints:q}"
        " --limit-minutes {resources.runtime} --scratch={resources.scratch:q} --threads {threads}"
        f" --tracking-uri={{resources.tracking:q}} --study {config['study']['name']}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


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
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("choose_pretraining.py"),
    shell:
        "python scripts/choose_pretraining.py --trials {input.trials:q}"
        " --output {output.choice:q} --record {output.record:q} 2>&1 | tee {log:q}"


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
        code=pretraining_code,
    shell:
        "python scripts/pretrain.py {params.settings} {params.choice} --seed {wildcards.seed}"
        " --crops {input.crops:q} --composite {params.composite}"
        " --without-wells {params.wells:q} --checkpoints {params.checkpoints:q}"
        " --limit-minutes {resources.runtime} --scratch={resources.scratch:q} --threads {threads}"
        f" --tracking-uri={{resources.tracking:q}} --study {config['study']['name']}"
        " --output {output.weights:q} --snapshots-output {output.snapshots:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


rule plot_pretraining:
    """Draw the course of a pretraining: loss, learning rate, and the spread and rank of features."""
    input:
        record=f"{STUDY}/runs/pretrain/{{encoder}}/seed{{seed}}/run.json",
    output:
        figure=f"{STUDY}/figures/pretraining/{{encoder}}/seed{{seed}}.png",
        record=f"{STUDY}/runs/figures/pretraining/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/figures/pretraining/{{encoder}}/seed{{seed}}.log",
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("plot_pretraining.py"),
    shell:
        "python scripts/plot_pretraining.py --pretraining {input.record:q}"
        " --output {output.figure:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule score_epochs:
    """Classify by nearest neighbours with the encoders kept along the epochs of a pretraining."""
    input:
        snapshots=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/epochs",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        crops=crop_files(TRAIN, "parquet"),
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
        code=code_digest("score_epochs.py"),
    shell:
        "python scripts/score_epochs.py --snapshots {input.snapshots:q}"
        " --splits {input.splits:q} --crops {input.crops:q} --composite {params.composite}"
        " {params.reading} --budget {params.budget} --draws {params.draws}"
        " {params.knn} --threads {threads}"
        " --output {output.scores:q} --record {output.record:q} 2>&1 | tee {log:q}"
