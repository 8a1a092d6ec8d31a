"""Where the labels of a screen come from."""


def treated_fields(wildcards):
    """Return the fields of a screen's labelled plates, which name their compounds."""
    source = screen_entry(wildcards).get("derived_from", wildcards.screen)
    plates = labelled_plates(wildcards.screen)
    return [plate_file("screens", source, plate, "fields.parquet") for plate in plates]


def truth_files(wildcards):
    """Return the truth of a screen's labelled plates, where labels come from it."""
    if screen_entry(wildcards)["labels"] != "truth":
        return []
    if wildcards.screen in DERIVED:
        return labelled_crops(wildcards.screen, "truth.parquet")
    return [
        f"{STUDY}/simulated/{wildcards.screen}/{plate}.truth.parquet"
        for plate in labelled_plates(wildcards.screen)
    ]


def unlabelled_plates(screen):
    """Return the plates of a screen that its `labelled_plates` leave out: no label may be on one."""
    labelled = labelled_plates(screen)
    return [plate for plate in config["screens"][screen]["plates"] if plate not in labelled]


def label_files(wildcards):
    """Return the label files of a screen."""
    labels = screen_entry(wildcards)["labels"]
    return [] if labels == "truth" else [given(path) for path in labels]
