"""Tables, figures and the report.

in   scores, labels, crops, encoders' descriptions
out  config.json, tables/table{1,2,3}.csv, figures/*.png, report/index.html
"""

import json

# What this study does otherwise than the paper's, for the report to say.
CHANGED = list(settings.differences(config, DEFAULTS))
FIGURES = {
    **{f"crops_{screen}": f"{STUDY}/figures/crops_{screen}.png" for screen in LABELLED},
    "budget": f"{STUDY}/figures/score_against_budget.png",
    "shift": f"{STUDY}/figures/shift.png",
    "recommendation": f"{STUDY}/figures/recommendation.png",
    "ranking": f"{STUDY}/figures/ranking.png",
    "learning_curves": f"{STUDY}/figures/learning_curves.png",
    "dose_response": f"{STUDY}/figures/dose_response.png",
}
if TEST:
    FIGURES["shift_diagnosis"] = f"{STUDY}/figures/shift_diagnosis.png"
    FIGURES["score_histograms"] = f"{STUDY}/figures/score_histograms.png"
PRETRAINED = [(encoder, seed) for encoder, seed in ENCODER_SEEDS if encoder in encoders_of("ssl")]
COURSES = [f"{STUDY}/figures/pretraining/{encoder}/seed{seed}.png" for encoder, seed in PRETRAINED]
if PRETRAINED:
    FIGURES["epochs"] = f"{STUDY}/figures/knn_along_epochs.png"

# Records that say what the encoders cost: their features of the training screen, and pretraining.
COSTS = [
    f"{STUDY}/runs/features/{encoder}/seed{seed}/{TRAIN}/run.json"
    for encoder, seed in ENCODER_SEEDS
    if encoder in EMBEDDING
] + [
    f"{STUDY}/runs/pretrain/{encoder}/seed{seed}/run.json"
    for encoder in encoders_of("ssl")
    for seed in (config["study"]["seeds"] if encoder in SEEDED else [0])
]


rule save_config:
    """Keep the resolved config with the results."""
    output:
        config=f"{STUDY}/config.json",
        record=f"{STUDY}/runs/config/run.json",
    log:
        f"{STUDY}/logs/config.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        # A function, because Snakemake would take braces in a plain value for wildcards.
        config=lambda wildcards: json.dumps({"config": config, "changed": CHANGED}, sort_keys=True),
        code=code_digest("report/save_config.py"),
    shell:
        '"$HCSQC" --log {log:q} report/save_config.py --config {params.config:q}'
        " --output {output.config:q} --record {output.record:q}"


rule make_tables:
    """Write the paper's tables with ours beside them, and every metric."""
    input:
        scores=SCORES,
        replicates=REPLICATES,
        config=f"{STUDY}/config.json",
    output:
        tables=report(TABLES, category="Tables", caption="../docs/captions/tables.rst"),
        metrics=report(METRICS, category="Tables", caption="../docs/captions/tables.rst"),
        record=f"{STUDY}/runs/tables/run.json",
    log:
        f"{STUDY}/logs/tables.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        folder=lambda wildcards, output: str(Path(output.tables[0]).parent),
        code=code_digest("report/make_tables.py"),
    shell:
        '"$HCSQC" --log {log:q} report/make_tables.py --scores {input.scores:q} --replicates {input.replicates:q}'
        " --config {input.config:q} --output {params.folder:q} --record {output.record:q}"


rule plot_crops:
    """Show normal and abnormal crops of a screen, as the paper's figures 1 and 2."""
    input:
        labels=f"{STUDY}/labels/{{screen}}.parquet",
        crops=lambda wc: labelled_crops(wc.screen, "parquet"),
    output:
        figure=report(
            f"{STUDY}/figures/crops_{{screen}}.png",
            category="Figures",
            caption="../docs/captions/crops.rst",
        ),
        record=f"{STUDY}/runs/figures/crops_{{screen}}/run.json",
    log:
        f"{STUDY}/logs/figures/crops_{{screen}}.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        composite=lambda wc: screen_entry(wc)["composite"],
        code=code_digest("report/plot_crops.py"),
    shell:
        '"$HCSQC" --log {log:q} report/plot_crops.py --labels {input.labels:q} --crops {input.crops:q}'
        " --composite {params.composite:q}"
        " --output {output.figure:q} --record {output.record:q}"


rule plot_scores:
    """Draw score against label budget, and score on the training and the shift screens."""
    input:
        tables=TABLES,
    output:
        budget=report(FIGURES["budget"], category="Figures", caption="../docs/captions/budget.rst"),
        shift=report(FIGURES["shift"], category="Figures", caption="../docs/captions/shift.rst"),
        record=f"{STUDY}/runs/figures/scores/run.json",
    log:
        f"{STUDY}/logs/figures/scores.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        probes=JUDGED,
        words=words,
        code=code_digest("report/plot_scores.py"),
    shell:
        '"$HCSQC" --log {log:q} report/plot_scores.py --tables {input.tables:q} --probes {params.probes:q}'
        " --words {params.words:q} --budget-figure {output.budget:q} --shift-figure {output.shift:q}"
        " --record {output.record:q}"


rule plot_epochs:
    """Draw nearest-neighbour accuracy along the epochs of every pretraining."""
    input:
        scores=[
            f"{STUDY}/scores/epochs/{encoder}/seed{seed}.parquet" for encoder, seed in PRETRAINED
        ],
    output:
        figure=report(
            f"{STUDY}/figures/knn_along_epochs.png",
            category="Figures",
            caption="../docs/captions/epochs.rst",
        ),
        record=f"{STUDY}/runs/figures/epochs/run.json",
    log:
        f"{STUDY}/logs/figures/epochs.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        words=encoder_words,
        code=code_digest("report/plot_epochs.py"),
    shell:
        '"$HCSQC" --log {log:q} report/plot_epochs.py --scores {input.scores:q}'
        " --words {params.words:q} --output {output.figure:q} --record {output.record:q}"


rule recommend:
    """Say which encoder to use, with which classifier and how many labels, and what that costs."""
    input:
        ranking=f"{STUDY}/tables/ranking.csv",
        scores=SCORES,
        replicates=REPLICATES,
        costs=COSTS,
        encoders=[about_encoder(encoder, seed) for encoder, seed in ENCODER_SEEDS],
        config=f"{STUDY}/config.json",
    output:
        recommendation=f"{STUDY}/tables/recommendation.json",
        figure=report(
            FIGURES["recommendation"],
            category="Figures",
            caption="../docs/captions/recommendation.rst",
        ),
        record=f"{STUDY}/runs/recommendation/run.json",
    log:
        f"{STUDY}/logs/recommendation.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("report/recommend.py"),
    shell:
        '"$HCSQC" --log {log:q} report/recommend.py --ranking {input.ranking:q} --scores {input.scores:q}'
        " --replicates {input.replicates:q} --costs {input.costs:q} --encoders {input.encoders:q}"
        " --config {input.config:q} --output {output.recommendation:q} --figure {output.figure:q}"
        " --record {output.record:q}"


rule make_audit:
    """Set the paper's figures and claims beside ours, and check the paper's own arithmetic."""
    input:
        tables=TABLES,
        scores=SCORES,
        left_out=LEFT_OUT,
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        records=[PROBE_RECORD.format(**job) for job in JUDGED_JOBS],
        config=f"{STUDY}/config.json",
    output:
        page=f"{STUDY}/report/audit.html",
        record=f"{STUDY}/runs/audit/run.json",
    log:
        f"{STUDY}/logs/audit.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("report/make_audit.py"),
    shell:
        '"$HCSQC" --log {log:q} report/make_audit.py --tables {input.tables:q} --scores {input.scores:q}'
        " --left-out {input.left_out:q} --splits {input.splits:q} --records {input.records:q} --config {input.config:q}"
        " --output {output.page:q} --record {output.record:q}"


rule make_report:
    """Write the study's report: one HTML file with everything in it."""
    input:
        tables=TABLES,
        metrics=METRICS,
        recommendation=f"{STUDY}/tables/recommendation.json",
        curves=f"{STUDY}/tables/learning_curves.csv",
        detection=f"{STUDY}/tables/dose_response.csv",
        causes=f"{STUDY}/tables/shift_causes.csv" if TEST else [],
        unseen=UNSEEN,
        selections=[path.replace(".csv", ".to_random.csv") for path in SELECTIONS],
        splits=f"{STUDY}/splits/{TRAIN}.parquet",
        figures=list(FIGURES.values()),
        labels=[f"{STUDY}/labels/{screen}.parquet" for screen in LABELLED],
        summaries=[crop_files(screen, "summary.parquet") for screen in SCREENS],
        encoders=[about_encoder(encoder, seed) for encoder, seed in ENCODER_SEEDS],
        config=f"{STUDY}/config.json",
    output:
        page=f"{STUDY}/report/index.html",
        record=f"{STUDY}/runs/report/run.json",
    log:
        f"{STUDY}/logs/report.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        code=code_digest("report/make_report.py"),
    shell:
        '"$HCSQC" --log {log:q} report/make_report.py --tables {input.tables:q} --metrics {input.metrics:q}'
        " --recommendation {input.recommendation:q}"
        " --curves {input.curves:q} --detection {input.detection:q} --causes {input.causes:q}"
        " --unseen {input.unseen:q} --selections {input.selections:q} --splits {input.splits:q}"
        " --figures {input.figures:q}"
        " --labels {input.labels:q} --summaries {input.summaries:q} --encoders {input.encoders:q}"
        " --config {input.config:q}"
        " --output {output.page:q} --record {output.record:q}"
