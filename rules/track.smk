"""Every run in MLflow: one local rule mirrors records and scores; never an input of anything.

in   runs/**/run.json, scores
out  mlflow.receipt.json (the database is no output: Snakemake would delete it)
"""

TRACKING_URI = config["tracking"]["uri"] or f"sqlite:///{STUDY}/mlflow.db"


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
    log:
        f"{STUDY}/logs/track.log",
    conda:
        "../envs/tracking.yaml"
    params:
        runs=lambda wildcards, output: str(Path(output.receipt).parent / "runs"),
        uri=TRACKING_URI,
        artifacts=lambda wildcards, output: str(Path(output.receipt).parent / "mlartifacts"),
        study=config["study"]["name"],
        train=TRAIN,
        code=code_digest("track_runs.py"),
    shell:
        "python scripts/track_runs.py --runs {params.runs:q} --scores {input.scores:q}"
        " --study {params.study:q} --train-screen {params.train:q} --uri {params.uri:q} --artifacts {params.artifacts:q}"
        " --receipt {output.receipt:q} 2>&1 | tee {log:q}"
