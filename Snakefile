"""Which encoder finds the aberrant cells of a screen with the fewest labels?

images -> fields -> crops -> labels, splits -> encoders -> features -> probes -> scores -> report
"""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


# Used by `--sdm apptainer` alone.
container: "envs/hcsqc.sif"


include: "rules/common.smk"
include: "rules/download.smk"
include: "rules/screens.smk"
include: "rules/crops.smk"
include: "rules/labels.smk"
include: "rules/encoders.smk"
include: "rules/features.smk"
include: "rules/evaluate.smk"
include: "rules/compare.smk"
include: "rules/shift.smk"
include: "rules/report.smk"
include: "rules/track.smk"
include: "rules/qc.smk"


localrules:
    all,
    download,
    crops,
    refresh,
    nuclei_figures,
    encoders,
    tables,


rule all:
    """The whole study: tables, figures, report, and every run in MLflow."""
    default_target: True
    input:
        f"{STUDY}/report/index.html",
        f"{STUDY}/report/audit.html",
        COURSES,
        f"{STUDY}/mlflow.receipt.json",


rule download:
    """The images of every screen that has archives; the study itself waits for none of them."""
    input:
        DOWNLOADED,


rule crops:
    """The crops of every screen."""
    input:
        [crop_files(screen, "parquet") for screen in SCREENS],


rule refresh:
    """Look at the images of all indexed plates again: what was replaced, added or deleted?"""
    input:
        [
            plate_file("screens", screen, plate, "refreshed.json")
            for screen in SCREENS
            if screen not in DERIVED
            for plate in config["screens"][screen]["plates"]
            if Path(plate_file("screens", screen, plate, "fields.parquet")).exists()
        ],


rule nuclei_figures:
    """The nuclei found in some fields of every plate, to look at."""
    input:
        [
            f"{STUDY}/figures/nuclei/{screen}/{plate}.png"
            for screen in SCREENS
            if screen not in DERIVED
            for plate in config["screens"][screen]["plates"]
        ],


rule encoders:
    """Every encoder, and the course of every pretraining, without any label."""
    input:
        [about_encoder(encoder, seed) for encoder, seed in ENCODER_SEEDS],
        COURSES,


rule tables:
    """The paper's tables 1 to 3, ours beside them, and every metric."""
    input:
        TABLES,
        METRICS,


# The study's own job of this waits for all others: of a study that fails, MLflow shows what there is.
onerror:
    shell(f"{TRACK_RUNS} || true")
