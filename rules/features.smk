"""Features of the labelled crops and a fixed random sample; or of all crops, plate by plate.

in   encoder.safetensors, labels, crops
out  features/{encoder}/seed{seed}/{screen}.parquet
     features/{encoder}/seed{seed}/{screen}/{plate}.parquet
"""


rule screen_features:
    """Every crop of every screen by every encoder that embeds; the study itself needs only few."""
    input:
        [
            f"{STUDY}/features/{encoder}/seed{seed}/{screen}/{plate}.parquet"
            for encoder, seed in ENCODER_SEEDS
            if encoder in EMBEDDING
            for screen in SCREENS
            for plate in config["screens"][screen]["plates"]
        ],
    localrule: True


rule extract_features:
    """Embed the labelled crops of a screen with one frozen encoder."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        labels=f"{STUDY}/labels/{{screen}}.parquet",
        crops=lambda wc: labelled_crops(wc.screen, "parquet"),
    output:
        features=f"{STUDY}/features/{{encoder}}/seed{{seed}}/{{screen}}.parquet",
        record=f"{STUDY}/runs/features/{{encoder}}/seed{{seed}}/{{screen}}/run.json",
    log:
        f"{STUDY}/logs/features/{{encoder}}/seed{{seed}}/{{screen}}.log",
    wildcard_constraints:
        encoder=one_of(EMBEDDING),
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        composite=lambda wc: screen_entry(wc)["composite"],
        roles=lambda wc: channel_roles(wc.screen, wc.encoder),
        settings=flags(pick(config["features"], "batch_size", "precision", "sample")),
        code=code_digest("features/extract_features.py"),
    shell:
        '"$HCSQC" --log {log:q} features/extract_features.py --encoder {input.encoder:q}'
        " --labels {input.labels:q} --crops {input.crops:q} --composite {params.composite:q} --channel-roles {params.roles:q}"
        " {params.settings} --threads {threads}"
        " --output {output.features:q} --record {output.record:q}"


rule extract_plate_features:
    """Embed every crop of one plate with one frozen encoder."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        crops=f"{STUDY}/crops/{{screen}}/{{plate}}.parquet",
    output:
        features=f"{STUDY}/features/{{encoder}}/seed{{seed}}/{{screen}}/{{plate}}.parquet",
        record=f"{STUDY}/runs/features/{{encoder}}/seed{{seed}}/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/features/{{encoder}}/seed{{seed}}/{{screen}}/{{plate}}.log",
    wildcard_constraints:
        encoder=one_of(EMBEDDING),
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=minutes(120),
    params:
        composite=lambda wc: screen_entry(wc)["composite"],
        roles=lambda wc: channel_roles(wc.screen, wc.encoder),
        settings=flags(pick(config["features"], "batch_size", "precision")),
        code=code_digest("features/extract_features.py"),
    shell:
        '"$HCSQC" --log {log:q} features/extract_features.py --encoder {input.encoder:q}'
        " --crops {input.crops:q} --composite {params.composite:q} --channel-roles {params.roles:q}"
        " {params.settings} --threads {threads}"
        " --output {output.features:q} --record {output.record:q}"


rule import_features:
    """Take the features of the labelled crops from a table of one's own."""
    input:
        table=lambda wc: given(features_table(wc.encoder, wc.screen)),
        labels=f"{STUDY}/labels/{{screen}}.parquet",
    output:
        features=f"{STUDY}/features/{{encoder}}/seed{{seed}}/{{screen}}.parquet",
        record=f"{STUDY}/runs/features/{{encoder}}/seed{{seed}}/{{screen}}/run.json",
    log:
        f"{STUDY}/logs/features/{{encoder}}/seed{{seed}}/{{screen}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_with("features")),
        seed="0",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("features/import_features.py"),
    shell:
        '"$HCSQC" --log {log:q} features/import_features.py --table {input.table:q} --labels {input.labels:q}'
        " --output {output.features:q} --record {output.record:q}"
