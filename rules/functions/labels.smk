"""Where the labels of a screen come from."""


def treated_fields(wildcards):
    """Return the fields of a screen's plates, which name their compounds."""
    entry = screen_entry(wildcards)
    source = entry.get("derived_from", wildcards.screen)
    return [plate_file("screens", source, plate, "fields.parquet") for plate in entry["plates"]]


def truth_files(wildcards):
    """Return the truth of a screen's plates, where the config says that labels come from it."""
    if screen_entry(wildcards)["labels"] != "truth":
        return []
    if wildcards.screen in DERIVED:
        return crop_files(wildcards.screen, "truth.parquet")
    return [
        f"{STUDY}/simulated/{wildcards.screen}/{plate}.truth.parquet"
        for plate in screen_entry(wildcards)["plates"]
    ]


def label_files(wildcards):
    """Return the label files of a screen."""
    labels = screen_entry(wildcards)["labels"]
    return [] if labels == "truth" else [given(path) for path in labels]
