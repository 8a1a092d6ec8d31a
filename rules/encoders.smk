"""Encoders: given weights, random weights, measures; one form for all.

in   crops of the pretraining plates (measures); weights, networks or features of one's own
out  ../weights/{weights}.safetensors; encoders/{encoder}/seed{seed}/encoder.safetensors, encoder.json
"""

import re


include: "functions/encoders.smk"


rule fetch_weights:
    """Find the weights of a trained network once: in a file, a package or the model hub.

    No digest of code, and nothing deleted before it runs: what all studies share may not be had
    again.
    """
    input:
        file=weights_file,
    output:
        weights=update("results/weights/{weights}.safetensors"),
        about=update("results/weights/{weights}.safetensors.json"),
        record="results/weights/{weights}/run.json",
    log:
        "results/weights/{weights}/fetch.log",
    wildcard_constraints:
        weights=one_of(map(re.escape, WEIGHTS)),
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        source=lambda wc, input: weights_source(WEIGHTS[wc.weights], input.file),
        # What else the file holds of a registered model.
        published=lambda wc: published_input(WEIGHTS[wc.weights]),
    shell:
        'HCSQC_HUB_OFFLINE=0 "$HCSQC" --log {log:q} encoders/fetch_weights.py {params.source}'
        " --output {output.weights:q} --record {output.record:q}"


rule import_encoder:
    """Make an encoder of the weights of a trained network."""
    input:
        weights=kept_weights,
        about=lambda wc: f"{kept_weights(wc)}.json",
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
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        input_px=lambda wc: encoder_settings(wc)["input_px"],
        mode=lambda wc: settings.channel_mode(encoder_settings(wc)),
        channels=lambda wc: settings.seen_channels(config, wc.encoder),
        sight=lambda wc: flags(sight(wc) | pick_given(encoder_settings(wc), "pool")),
        code=code_digest("encoders/import_encoder.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/import_encoder.py --weights {input.weights:q} --input-px {params.input_px}'
        " --mode {params.mode} --channels {params.channels} {params.sight}"
        " --output {output.weights:q} --record {output.record:q}"


rule import_module:
    """Make an encoder of a network of one's own."""
    input:
        source=module_file,
        weights=own_weights,
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_with("module")),
        seed="0",
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        settings=lambda wc, input: flags(
            pick_given(encoder_settings(wc), "module", "input_px")
            | ({"file": input.weights} if input.weights else {})
        ),
        channels=lambda wc: settings.seen_channels(config, wc.encoder),
        sight=lambda wc: flags(sight(wc)),
        code=code_digest("encoders/import_module.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/import_module.py {params.settings} --channels {params.channels}'
        " {params.sight}"
        " --output {output.weights:q} --record {output.record:q}"


rule describe_features:
    """Say of features that come in a table what encoder.json says of any encoder."""
    input:
        table=lambda wc: given(features_table(wc.encoder, TRAIN)),
    output:
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_with("features")),
        seed="0",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("encoders/describe_features.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/describe_features.py --table {input.table:q}'
        " --output {output.about:q} --record {output.record:q}"


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
        code=code_digest("encoders/random_encoder.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/random_encoder.py {params.settings} --channels {params.channels}'
        " --seed {wildcards.seed}"
        " --output {output.weights:q} --record {output.record:q}"


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
        code=code_digest("encoders/fit_measures.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/fit_measures.py {params.settings} --crops {input.crops:q}'
        " --composite {params.composite:q} --without-wells {params.wells:q}"
        " --at-most-crops {params.standardised}"
        " --output {output.weights:q} --record {output.record:q}"


rule pool_encoder:
    """Make an encoder with the network of another and other features of it."""
    input:
        encoder=part_encoders,
        about=about_parts,
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_of("pooled")),
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        settings=lambda wc: flags(pick(encoder_settings(wc), "pool", "region")),
        code=code_digest("encoders/pool_encoder.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/pool_encoder.py --encoder {input.encoder:q} {params.settings}'
        " --output {output.weights:q} --record {output.record:q}"


rule join_encoders:
    """Make an encoder of several, whose features stand side by side."""
    input:
        encoders=part_encoders,
        about=about_parts,
    output:
        weights=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        record=f"{STUDY}/runs/encoders/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/encoders/{{encoder}}/seed{{seed}}.log",
    wildcard_constraints:
        encoder=one_of(encoders_of("joined")),
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        code=code_digest("encoders/join_encoders.py"),
    shell:
        '"$HCSQC" --log {log:q} encoders/join_encoders.py --encoders {input.encoders:q}'
        " --output {output.weights:q} --record {output.record:q}"
