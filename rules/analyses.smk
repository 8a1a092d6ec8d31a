"""What the labels support: the ranking, how many labels are enough and which, what is missed, and
what causes the loss on screens that were not trained on.

in   scores, replicates, predictions; labels, splits, features; encoders and crops
out  tables/ranking.csv and others, figures, analyses/{unseen,selection}/{encoder}/seed{seed}.csv,
     shift/{encoder}/seed{seed}/{screen}.parquet, shift/{encoder}/seed{seed}.parquet
"""


include: "functions/analyses.smk"


SCORES = [f"{STUDY}/scores/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]
REPLICATES = [f"{STUDY}/replicates/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]
LEFT_OUT = [f"{STUDY}/left_out/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]
JUDGED_JOBS = [job for encoder, seed in ENCODER_SEEDS for job in probe_jobs(encoder, seed, JUDGED)]
UNSEEN = [f"{STUDY}/analyses/unseen/{encoder}/seed{seed}.csv" for encoder, seed in ENCODER_SEEDS]
SELECTIONS = [
    f"{STUDY}/analyses/selection/{encoder}/seed{seed}.csv" for encoder, seed in ENCODER_SEEDS
]
DIAGNOSES = [f"{STUDY}/shift/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]


rule rank_encoders:
    """Compare the encoders in pairs: who is best, and who cannot be told from the best."""
    input:
        scores=SCORES,
        replicates=REPLICATES,
        left_out=LEFT_OUT,
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
    output:
        pairs=f"{STUDY}/tables/pairs.csv",
        ranking=report(
            f"{STUDY}/tables/ranking.csv",
            category="Tables",
            caption="../docs/captions/ranking.rst",
        ),
        figure=report(
            f"{STUDY}/figures/ranking.png",
            category="Figures",
            caption="../docs/captions/ranking.rst",
        ),
        record=f"{STUDY}/runs/ranking/run.json",
    log:
        f"{STUDY}/logs/ranking.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        train=TRAIN,
        probes=JUDGED,
        words=words,
        code=code_digest("analyses/rank_encoders.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/rank_encoders.py --scores {input.scores:q} --replicates {input.replicates:q}'
        " --left-out {input.left_out:q} --splits {input.splits:q}"
        " --train-screen {params.train:q} --probes {params.probes:q} --pairs {output.pairs:q}"
        " --ranking {output.ranking:q} --words {params.words:q} --figure {output.figure:q}"
        " --record {output.record:q}"


rule fit_learning_curves:
    """Fit how scores grow with labels, and say what the next 50 would bring."""
    input:
        scores=SCORES,
        replicates=REPLICATES,
        config=f"{STUDY}/config.json",
    output:
        curves=report(
            f"{STUDY}/tables/learning_curves.csv",
            category="Tables",
            caption="../docs/captions/learning_curves.rst",
        ),
        drops=f"{STUDY}/tables/drops.csv",
        figure=report(
            f"{STUDY}/figures/learning_curves.png",
            category="Figures",
            caption="../docs/captions/learning_curves.rst",
        ),
        record=f"{STUDY}/runs/learning_curves/run.json",
    log:
        f"{STUDY}/logs/learning_curves.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        train=TRAIN,
        probes=JUDGED,
        words=words,
        code=code_digest("analyses/fit_learning_curves.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/fit_learning_curves.py --scores {input.scores:q}'
        " --replicates {input.replicates:q} --config {input.config:q}"
        " --train-screen {params.train:q} --probes {params.probes:q}"
        " --words {params.words:q}"
        " --curves {output.curves:q} --drops {output.drops:q} --figure {output.figure:q}"
        " --record {output.record:q}"


rule tabulate_dose_response:
    """Tabulate which artefacts each encoder detects, by kind and strength."""
    input:
        predictions=[PREDICTIONS.format(**job) for job in JUDGED_JOBS],
        labels=[f"{STUDY}/labels/{screen}.parquet" for screen in LABELLED],
    output:
        table=report(
            f"{STUDY}/tables/dose_response.csv",
            category="Tables",
            caption="../docs/captions/dose_response.rst",
        ),
        figure=report(
            f"{STUDY}/figures/dose_response.png",
            category="Figures",
            caption="../docs/captions/dose_response.rst",
        ),
        record=f"{STUDY}/runs/dose_response/run.json",
    log:
        f"{STUDY}/logs/dose_response.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        train=TRAIN,
        replicates=config["evaluation"]["replicates"],
        words=words,
        code=code_digest("analyses/tabulate_dose_response.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/tabulate_dose_response.py --predictions {input.predictions:q}'
        " --labels {input.labels:q} --train-screen {params.train:q}"
        " --replicates {params.replicates} --seed 0 --output {output.table:q}"
        " --words {params.words:q} --figure {output.figure:q}"
        " --record {output.record:q}"


rule probe_unseen_artefacts:
    """Train without each family of artefacts in turn: is what was never seen found?"""
    input:
        features=f"{STUDY}/features/{{encoder}}/seed{{seed}}/{TRAIN}.parquet",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        labels=f"{STUDY}/labels/{TRAIN}.parquet",
    output:
        table=f"{STUDY}/analyses/unseen/{{encoder}}/seed{{seed}}.csv",
        record=f"{STUDY}/runs/unseen/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/unseen/{{encoder}}/seed{{seed}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(60),
    params:
        budgets=config["study"]["budgets"],
        draws=DIAGNOSTIC_DRAWS,
        settings=DIAGNOSTIC_PROBE,
        code=code_digest("analyses/probe_unseen_artefacts.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/probe_unseen_artefacts.py --features {input.features:q}'
        " --splits {input.splits:q} --labels {input.labels:q} --budgets {params.budgets}"
        " --draws {params.draws} --seed {wildcards.seed} {params.settings}"
        " --output {output.table:q} --record {output.record:q}"


rule compare_label_selection:
    """Compare random, diverse, typical and uncertain training labels at equal budget."""
    input:
        features=f"{STUDY}/features/{{encoder}}/seed{{seed}}/{TRAIN}.parquet",
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
    output:
        scores=f"{STUDY}/analyses/selection/{{encoder}}/seed{{seed}}.csv",
        differences=f"{STUDY}/analyses/selection/{{encoder}}/seed{{seed}}.to_random.csv",
        record=f"{STUDY}/runs/selection/{{encoder}}/seed{{seed}}/run.json",
    log:
        f"{STUDY}/logs/selection/{{encoder}}/seed{{seed}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(120),
    params:
        budgets=config["study"]["budgets"],
        draws=DIAGNOSTIC_DRAWS,
        replicates=config["evaluation"]["replicates"],
        settings=DIAGNOSTIC_PROBE,
        code=code_digest("analyses/compare_label_selection.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/compare_label_selection.py --features {input.features:q}'
        " --splits {input.splits:q} --budgets {params.budgets} --draws {params.draws}"
        " --replicates {params.replicates} --seed {wildcards.seed} {params.settings}"
        " --output {output.scores:q} --differences {output.differences:q}"
        " --record {output.record:q}"


rule embed_shift_variants:
    """Embed the labelled crops of a screen as they would look on the training screen."""
    input:
        encoder=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
        about=f"{STUDY}/encoders/{{encoder}}/seed{{seed}}/encoder.json",
        labels=f"{STUDY}/labels/{{screen}}.parquet",
        crops=lambda wc: labelled_crops(wc.screen, "parquet"),
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
        roles=lambda wc: channel_roles(wc.screen, wc.encoder),
        settings=flags(pick(config["features"], "batch_size", "precision")),
        most_channels=config["evaluation"]["shift_channels"],
        factor=pixel_factor_flag,
        code=code_digest("analyses/embed_shift_variants.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/embed_shift_variants.py --encoder {input.encoder:q}'
        " --labels {input.labels:q} --crops {input.crops:q} --composite {params.composite:q}"
        " --channel-roles {params.roles:q}"
        " --most-channels {params.most_channels} {params.factor} {params.settings}"
        " --threads {threads} --output {output.variants:q} --record {output.record:q}"


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
        group_by=GROUP_BY,
        settings=DIAGNOSTIC_PROBE,
        code=code_digest("analyses/diagnose_shift.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/diagnose_shift.py --source-features {input.source:q}'
        " --splits {input.splits:q} --target-features {input.targets:q}"
        " --target-labels {input.labels:q} {params.group_by} --variants {input.variants:q}"
        " --budgets {params.budgets} --draws {params.draws} --label-counts {params.labels}"
        " --encoder {wildcards.encoder:q} --seed {wildcards.seed} {params.settings}"
        " --output {output.scores:q} --record {output.record:q}"


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
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        screens=LABELLED,
        words=encoder_words,
        code=code_digest("analyses/report_shift.py"),
    shell:
        '"$HCSQC" --log {log:q} analyses/report_shift.py --scores {input.scores:q}'
        " --predictions {input.predictions:q} --screens {params.screens:q} --words {params.words:q}"
        " --table {output.table:q} --causes {output.causes:q} --diagnosis {output.diagnosis:q}"
        " --histograms {output.histograms:q} --record {output.record:q}"
