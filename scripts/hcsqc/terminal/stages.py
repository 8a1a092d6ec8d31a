"""Which stage a rule belongs to, in the words of the terminal."""

# In the order of the workflow. A rule of the workflow is in one of these or a target.
STAGES = {
    "settings": ("save_config",),
    "downloads": ("plan_downloads", "download_file", "unpack_plate"),
    "simulated images": ("simulate_plate",),
    "images of plates": ("index_plate", "refresh_plate"),
    "intensity range": ("measure_scale",),
    "crops": ("crop_plate", "derive_plate"),
    "pictures of nuclei": ("plot_nuclei",),
    "labels": ("label_screen", "split_labels"),
    "encoders": (
        "fetch_weights",
        "import_encoder",
        "import_module",
        "describe_features",
        "random_encoder",
        "fit_measures",
        "pool_encoder",
        "join_encoders",
    ),
    "pretraining": ("pretrain_trial", "choose_pretraining", "pretrain"),
    "courses of pretraining": ("plot_pretraining", "score_epochs"),
    "features": (
        "screen_features",
        "extract_features",
        "extract_plate_features",
        "import_features",
    ),
    "probes": ("probe",),
    "fine-tuning": ("search_finetuning", "finetune"),
    "scores": ("score_predictions",),
    "analyses": (
        "rank_encoders",
        "fit_learning_curves",
        "tabulate_dose_response",
        "probe_unseen_artefacts",
        "compare_label_selection",
    ),
    "shift between screens": ("embed_shift_variants", "diagnose_shift", "report_shift"),
    "report": (
        "make_tables",
        "recommend",
        "plot_crops",
        "plot_scores",
        "plot_epochs",
        "make_audit",
        "make_report",
    ),
    "detector": ("fit_detector", "package_detector"),
    "scores of cells": ("score_plate",),
    "flags": (
        "set_threshold",
        "flag_plate",
        "flag_screen",
        "check_planted",
        "compare_published_flags",
        "filter_load_data",
    ),
    "pages to label": ("write_label_page",),
    "suspicious labels": ("find_suspicious_labels",),
    "quality-control pages": ("make_qc_report", "make_qc_plate_page"),
    "runs in MLflow": ("track_runs", "track_qc"),
}
# They only name what is to be made.
TARGETS = (
    "all",
    "download",
    "crops",
    "refresh",
    "nuclei_figures",
    "encoders",
    "tables",
    "qc",
    "label_pages",
    "suspicious_labels",
)
# Whose end is when there is something to look at.
SHOWN = ("report", "flags", "pages to label", "suspicious labels", "quality-control pages")

_STAGE = {rule: stage for stage, rules in STAGES.items() for rule in rules}


def stage_of(rule: str) -> str | None:
    """Return the stage of a rule, or None of a target; an unknown rule is a stage of its own."""
    return None if rule in TARGETS else _STAGE.get(rule, rule.replace("_", " "))
