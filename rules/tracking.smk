"""Every run in MLflow: one local rule mirrors records and scores; never an input of anything.

in   what the study has: runs/**/run.json, scores, tables/metrics.csv, predictions, encoders, figures
out  mlflow.receipt.json, mlflow.html: links into the UI (the database is no output: Snakemake would delete it)
"""

TRACKING = flags(
    {
        "results": STUDY,
        "study": config["study"]["name"],
        "train_screen": TRAIN,
        "uri": TRACKING_URI,
        "ui": config["tracking"]["ui"],
    }
)


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
    localrule: True
    conda:
        "../envs/tracking.yaml"
    params:
        settings=TRACKING,
        code=code_digest("tracking/track_runs.py"),
    shell:
        '"$HCSQC" --log {log:q} tracking/track_runs.py {params.settings}'
