"""Encoders: given weights, random weights, or self-supervised pretraining; one form for all.

in   crops of the pretraining plates (ssl only)
out  encoders/{encoder}/seed{seed}/encoder.safetensors, encoder.json
"""


localrules:
    import_encoder,


rule import_encoder:
    """Take trained weights from a file, an installed package or the model hub."""
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_of("transfer")),
        seed="0",
    conda:
        "../envs/torch.yaml"
    params:
        settings=lambda wc: flags({k: v for k, v in encoder_settings(wc).items() if k != "kind"}),
        code=code_digest("import_encoder.py"),
    shell:
        "python scripts/import_encoder.py {params.settings}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule random_encoder:
    """The control: random weights."""
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_of("control")),
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        settings=lambda wc: flags(pick(encoder_settings(wc), "architecture", "input_px")),
        channels=len(config["screens"][TRAIN]["composite"]),
        code=code_digest("random_encoder.py"),
    shell:
        "python scripts/random_encoder.py {params.settings} --channels {params.channels}"
        " --seed {wildcards.seed}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule pretrain:
    """Train a backbone on unlabelled crops by a self-supervised method."""
    input:
        crops=lambda wc: crop_files(TRAIN, "parquet", config["screens"][TRAIN]["pretrain_plates"]),
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
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
        mem_mb=lambda wildcards, attempt: 24000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        settings=lambda wc: flags({k: v for k, v in encoder_settings(wc).items() if k != "kind"}),
        composite=config["screens"][TRAIN]["composite"],
        wells=config["screens"][TRAIN]["evaluation_wells"],
        checkpoints=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/checkpoints",
        code=pretraining_digest,
    shell:
        "python scripts/pretrain.py {params.settings} --seed {wildcards.seed}"
        " --crops {input.crops:q} --composite {params.composite}"
        " --without-wells {params.wells:q} --checkpoints {params.checkpoints:q}"
        " --limit-minutes {resources.runtime} --threads {threads}"
        " --output {output.weights:q} --record {output.record:q} 2>&1 | tee {log:q}"
