"""Inputs of quality control: the detector, labels and scores of a screen."""


def detector_encoders():
    """Return the encoders that the detector's is one of: those that see crops, of the first seed."""
    names = EMBEDDING if config["qc"]["encoder"] == "best" else [config["qc"]["encoder"]]
    seeds = {name: seed for name, seed in reversed(ENCODER_SEEDS)}
    return [
        f"{STUDY}/encoders/{name}/seed{seeds[name]}/encoder.safetensors"
        for name in names
        if name in seeds
    ]


def judged_at():
    """Return the share of good cells that encoders and classifiers are compared at.

    That of the metric nearest to the promise, so that another promise scores nothing again.
    """
    return min((0.01, 0.05), key=lambda share: abs(share - config["qc"]["good_cells_lost"]))


def has_labels(screen):
    """Return whether a screen's labels can be looked up: from files or from its truth."""
    return bool(config["screens"][screen]["labels"])


def screen_labels(wildcards):
    """Return the labels of a screen that may set its threshold, if it has any."""
    if not has_labels(wildcards.screen):
        return []
    return [
        f"{STUDY}/labels/{wildcards.screen}.parquet",
        f"{STUDY}/labels/{wildcards.screen}.random.parquet",
    ]


def screen_fields(screen, plates=None):
    """Return the tables of fields of a screen's plates, or of some of them."""
    plates = config["screens"][screen]["plates"] if plates is None else plates
    return [plate_file("screens", screen, plate, "fields.parquet") for plate in plates]


def plate_scores(screen, plates=None):
    """Return the scores of a screen's plates, or of some of them."""
    plates = config["screens"][screen]["plates"] if plates is None else plates
    return [f"{STUDY}/qc/{screen}/scores/{plate}.parquet" for plate in plates]


def scores_of_labels(wildcards):
    """Return the scores of a screen's labelled plates, where its own labels set its threshold.

    Those that the detector was fitted to have held-out scores.
    """
    screen = wildcards.screen
    if not has_labels(screen) or (screen == TRAIN and not config["qc"]["detector"]):
        return []
    return plate_scores(screen, labelled_plates(screen))


def plate_tables(screen):
    """Return the tables of flags of a screen's plates."""
    plates = config["screens"][screen]["plates"]
    return [
        f"{STUDY}/qc/{screen}/plates/{plate}/{name}" for plate in plates for name in PLATE_TABLES
    ]


def plate_scales(screen, plates):
    """Return the scales of some plates of a screen; those of a derived screen are its parent's."""
    source = config["screens"][screen].get("derived_from", screen)
    return [plate_file("screens", source, plate, "scale.parquet") for plate in plates]


def sampled_features(screen):
    """Return the features of some random crops of each of a screen's plates."""
    return [path.replace(".parquet", ".features.parquet") for path in plate_scores(screen)]


def plate_pages(screen):
    """Return the pages of a screen's plates; of a single plate the screen's page has everything."""
    plates = config["screens"][screen]["plates"]
    return [f"{STUDY}/qc/{screen}/report/{plate}.html" for plate in plates if len(plates) > 1]


def page_images(wildcards):
    """Return the flags that say where the images of a screen's fields are."""
    given = pick_given(screen_entry(wildcards), "z_projection")
    return flags({"images": image_folder(wildcards.screen)} | given)


def page_limits(wildcards):
    """Return the flags that say when a plate fails a check, and how long its edges are."""
    return flags(
        pick(
            config["qc"], "focus_edge", "well_share", "drift_features", "drift_scores", "drift_gain"
        )
        | pick(settings.nucleus_size(config, wildcards.screen), "nucleus_diameter_px")
        | {"pixel_um": screen_entry(wildcards).get("pixel_um", 0)}
    )


def filtered_tables(screen):
    """Return a screen's LoadData tables without the bad wells, where it came as such tables."""
    entry = config["screens"][screen]
    if entry.get("layout") != "loaddata":
        return []
    return [f"{STUDY}/qc/{screen}/load_data/{plate}.csv" for plate in entry["plates"]]


def published_tables(wildcards):
    """Return the tables of published flags that are on this machine, unless they are missing."""
    template = screen_entry(wildcards)["published_flags"]["table"]
    paths = {template.replace("{plate}", plate) for plate in screen_entry(wildcards)["plates"]}
    return those_here(path for path in sorted(paths) if "://" not in path)


def published_columns(wildcards):
    """Return the columns of published flags and what they mean, for a command."""
    columns = screen_entry(wildcards)["published_flags"]["columns"]
    return [f"{column}={words}" for column, words in columns.items()]
