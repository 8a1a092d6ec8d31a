"""Which encoder finds the aberrant cells of a screen with the fewest labels?

images -> fields -> crops -> labels, splits -> encoders -> features -> probes -> scores -> report
"""

from snakemake.utils import min_version

min_version("9.0")


include: "rules/common.smk"


# For `--sdm apptainer`; Snakemake refuses blanks in its path even where nothing uses it.
if DeploymentMethod.APPTAINER in DEPLOYED:

    container: str(PROJECT / "envs" / "hcsqc.sif")


include: "rules/download.smk"
include: "rules/screens.smk"
include: "rules/crops.smk"
include: "rules/labels.smk"
include: "rules/encoders.smk"
include: "rules/pretraining.smk"
include: "rules/features.smk"
include: "rules/probes.smk"
include: "rules/analyses.smk"
include: "rules/report.smk"
include: "rules/tracking.smk"
include: "rules/qc.smk"


rule all:
    """The whole study: tables, figures, report, and every run in MLflow."""
    default_target: True
    input:
        f"{STUDY}/report/index.html",
        f"{STUDY}/report/audit.html",
        COURSES,
        [] if BUCKET else f"{STUDY}/mlflow.receipt.json",
    localrule: True


rule download:
    """The images of every screen that has archives; the study itself waits for none of them."""
    input:
        DOWNLOADED,
    localrule: True


rule crops:
    """The crops of every screen."""
    input:
        [crop_files(screen, "parquet") for screen in SCREENS],
    localrule: True


rule refresh:
    """Look at the images of all indexed plates again: what was replaced, added or deleted?"""
    input:
        refreshed_plates,
    localrule: True


rule nuclei_figures:
    """The nuclei found in some fields of every plate, to look at."""
    input:
        [
            f"{STUDY}/figures/nuclei/{screen}/{plate}.png"
            for screen in SCREENS
            if screen not in DERIVED
            for plate in config["screens"][screen]["plates"]
        ],
    localrule: True


rule encoders:
    """Every encoder, and the course of every pretraining, without any label."""
    input:
        [about_encoder(encoder, seed) for encoder, seed in ENCODER_SEEDS],
        COURSES,
    localrule: True


rule tables:
    """The paper's tables 1 to 3, ours beside them, and every metric."""
    input:
        TABLES,
        METRICS,
    localrule: True


# The study's own job of this waits for all others: of a study that fails, MLflow shows what there is.
onerror:
    # By the Python that runs Snakemake: this is no job, and in no environment of one. Of records in
    # a bucket this disk has only some.
    if not BUCKET:
        shell(
            'HCSQC_PYTHON={sys.executable:q} "$HCSQC" --log {STUDY:q}/logs/track_failed_study.log'
            " tracking/track_runs.py {TRACKING}"
            " || echo 'warning: MLflow does not show this run: {STUDY}/logs/track_failed_study.log' >&2"
        )
