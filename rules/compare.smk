"""What the labels support: who is best, how many labels are enough and which, what is missed.

in   scores, replicates, predictions; labels, splits, features
out  tables/ranking.csv and others, figures, analyses/{unseen,selection}/{encoder}/seed{seed}.csv
"""

SCORES = [f"{STUDY}/scores/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]
REPLICATES = [f"{STUDY}/replicates/{encoder}/seed{seed}.parquet" for encoder, seed in ENCODER_SEEDS]
JUDGED_JOBS = [job for encoder, seed in ENCODER_SEEDS for job in probe_jobs(encoder, seed, JUDGED)]
UNSEEN = [f"{STUDY}/analyses/unseen/{encoder}/seed{seed}.csv" for encoder, seed in ENCODER_SEEDS]
SELECTIONS = [
    f"{STUDY}/analyses/selection/{encoder}/seed{seed}.csv" for encoder, seed in ENCODER_SEEDS
]


localrules:
    rank_encoders,
    fit_learning_curves,
    tabulate_dose_response,


rule rank_encoders:
    """Compare the encoders in pairs: who is best, and who cannot be told from the best."""
    input:
        scores=SCORES,
        replicates=REPLICATES,
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
    conda:
        "../envs/core.yaml"
    params:
        train=TRAIN,
        probes=JUDGED,
        code=code_digest("rank_encoders.py"),
    shell:
        "python scripts/rank_encoders.py --scores {input.scores:q} --replicates {input.replicates:q}"
        " --train-screen {params.train:q} --probes {params.probes:q} --pairs {output.pairs:q}"
        " --ranking {output.ranking:q} --figure {output.figure:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


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
    conda:
        "../envs/core.yaml"
    params:
        train=TRAIN,
        probes=JUDGED,
        code=code_digest("fit_learning_curves.py"),
    shell:
        "python scripts/fit_learning_curves.py --scores {input.scores:q}"
        " --replicates {input.replicates:q} --config {input.config:q}"
        " --train-screen {params.train:q} --probes {params.probes:q}"
        " --curves {output.curves:q} --drops {output.drops:q} --figure {output.figure:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


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
        misses=f"{STUDY}/tables/misses.txt",
        figure=report(
            f"{STUDY}/figures/dose_response.png",
            category="Figures",
            caption="../docs/captions/dose_response.rst",
        ),
        record=f"{STUDY}/runs/dose_response/run.json",
    log:
        f"{STUDY}/logs/dose_response.log",
    conda:
        "../envs/core.yaml"
    params:
        train=TRAIN,
        replicates=config["evaluation"]["replicates"],
        code=code_digest("tabulate_dose_response.py"),
    shell:
        "python scripts/tabulate_dose_response.py --predictions {input.predictions:q}"
        " --labels {input.labels:q} --train-screen {params.train:q}"
        " --replicates {params.replicates} --seed 0 --output {output.table:q}"
        " --misses {output.misses:q} --figure {output.figure:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


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
        code=code_digest("probe_unseen_artefacts.py"),
    shell:
        "python scripts/probe_unseen_artefacts.py --features {input.features:q}"
        " --splits {input.splits:q} --labels {input.labels:q} --budgets {params.budgets}"
        " --draws {params.draws} --seed {wildcards.seed} {params.settings}"
        " --output {output.table:q} --record {output.record:q} 2>&1 | tee {log:q}"


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
        code=code_digest("compare_label_selection.py"),
    shell:
        "python scripts/compare_label_selection.py --features {input.features:q}"
        " --splits {input.splits:q} --budgets {params.budgets} --draws {params.draws}"
        " --replicates {params.replicates} --seed {wildcards.seed} {params.settings}"
        " --output {output.scores:q} --differences {output.differences:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"
