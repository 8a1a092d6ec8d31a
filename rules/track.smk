"""Every run in MLflow: one local rule mirrors records and scores; never an input of anything.

in   what the study has: runs/**/run.json, scores, tables/metrics.csv, predictions, encoders, figures
out  mlflow.receipt.json, mlflow.html: links into the UI (the database is no output: Snakemake would delete it)
"""

TRACK_RUNS = (
    f"python scripts/track_runs.py --results {STUDY} --study {config['study']['name']} --train-screen {TRAIN}"
    f" --uri {shlex.quote(TRACKING_URI)} --ui {shlex.quote(config['tracking']['ui'])}"
)


localrules:
    track_runs,


rule track_runs:
    """Mirror the records of all jobs into the tracking store; nothing is ever there twice."""
    input:
        records=[
            rules.make_report.output.record,
            rules.plot_scores.output.record,
            rules.make_tables.output.record,
        ],
        scores=SCORES,
        courses=COURSES,
    output:
        receipt=f"{STUDY}/mlflow.receipt.json",
        links=f"{STUDY}/mlflow.html",
    log:
        f"{STUDY}/logs/track.log",
    conda:
        "../envs/tracking.yaml"
    params:
        command=TRACK_RUNS,
        code=code_digest("track_runs.py"),
    shell:
        "{params.command} 2>&1 | tee {log:q}"
