"""What causes the loss on screens that were not trained on: changed images, features and labels.

in   encoder, labels, crops; features, splits
out  shift/{encoder}/seed{seed}/{screen}.parquet, shift/{encoder}/seed{seed}.parquet,
     tables/shift.csv, figures/shift_diagnosis.png, figures/score_histograms.png
"""

DIAGNOSES = [f"{STUDY}/shift/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]


localrules:
    report_shift,


rule embed_shift_variants:
    """Embed the labelled crops of a screen as they would look on the training screen."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        labels=f"{STUDY}/labels/{{screen}}.parquet",
        crops=lambda wc: crop_files(wc.screen, "parquet"),
    output:
        variants=f"{STUDY}/shift/{{encoder}}/seed{{seed}}/{{screen}}.parquet",
        record=f"{STUDY}/runs/shift_variants/{{encoder}}/seed{{seed}}/{{screen}}/run.json",
    log:
        f"{STUDY}/logs/shift_variants/{{encoder}}/seed{{seed}}/{{screen}}.log",
    wildcard_constraints:
        screen=one_of(TEST),
        encoder=one_of(EMBEDDING),
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=minutes(120),
    params:
        composite=lambda wc: screen_entry(wc)["composite"],
        settings=flags(pick(config["features"], "batch_size", "precision")),
        most_channels=config["evaluation"]["shift_channels"],
        factor=pixel_factor_flag,
        code=code_digest("embed_shift_variants.py"),
    shell:
        "python scripts/embed_shift_variants.py --encoder {input.encoder:q}"
        " --labels {input.labels:q} --crops {input.crops:q} --composite {params.composite}"
        " --most-channels {params.most_channels} {params.factor} {params.settings}"
        " --threads {threads} --output {output.variants:q} --record {output.record:q}"
        " 2>&1 | tee {log:q}"


rule diagnose_shift:
    """Test an encoder on the other screens with one thing changed at a time."""
    input:
        source=f"{STUDY}/features/{{encoder}}/seed{{seed}}/{TRAIN}.parquet",
        targets=[f"{STUDY}/features/{{encoder}}/seed{{seed}}/{screen}.parquet" for screen in TEST],
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        labels=[f"{STUDY}/labels/{screen}.parquet" for screen in TEST],
        variants=lambda wc: (
            [f"{STUDY}/shift/{wc.encoder}/seed{wc.seed}/{screen}.parquet" for screen in TEST]
            if wc.encoder in EMBEDDING
            else []
        ),
    output:
        scores=f"{STUDY}/shift/{{encoder}}/seed{{seed}}.parquet",
        record=f"{STUDY}/runs/shift/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/shift/{{encoder}}/seed{{seed}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(60),
    params:
        budgets=config["study"]["budgets"],
        draws=DIAGNOSTIC_DRAWS,
        labels=config["evaluation"]["shift_labels"],
        settings=DIAGNOSTIC_PROBE,
        code=code_digest("diagnose_shift.py"),
    shell:
        "python scripts/diagnose_shift.py --source-features {input.source:q}"
        " --splits {input.splits:q} --target-features {input.targets:q}"
        " --target-labels {input.labels:q} --variants {input.variants:q}"
        " --budgets {params.budgets} --draws {params.draws} --label-counts {params.labels}"
        " --encoder {wildcards.encoder:q} --seed {wildcards.seed} {params.settings}"
        " --output {output.scores:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule report_shift:
    """Say what causes the loss of each encoder, and draw it."""
    input:
        scores=DIAGNOSES,
        # One probe is enough to see scores shift.
        predictions=[PREDICTIONS.format(**job) for job in JUDGED_JOBS if job["probe"] == JUDGED[0]],
    output:
        table=f"{STUDY}/tables/shift.csv",
        causes=f"{STUDY}/tables/shift_causes.csv",
        diagnosis=report(
            f"{STUDY}/figures/shift_diagnosis.png",
            category="Figures",
            caption="../docs/captions/shift_diagnosis.rst",
        ),
        histograms=report(
            f"{STUDY}/figures/score_histograms.png",
            category="Figures",
            caption="../docs/captions/score_histograms.rst",
        ),
        record=f"{STUDY}/runs/figures/shift/run.json",
    log:
        f"{STUDY}/logs/figures/shift.log",
    conda:
        "../envs/core.yaml"
    params:
        screens=LABELLED,
        code=code_digest("report_shift.py"),
    shell:
        "python scripts/report_shift.py --scores {input.scores:q}"
        " --predictions {input.predictions:q} --screens {params.screens:q}"
        " --table {output.table:q} --causes {output.causes:q} --diagnosis {output.diagnosis:q}"
        " --histograms {output.histograms:q} --record {output.record:q} 2>&1 | tee {log:q}"
