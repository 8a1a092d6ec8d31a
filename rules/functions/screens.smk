"""Where the images of a plate lie and how they are named."""


def source_tables(screen, plate):
    """Return the tables that say of a plate's images what their names do not, by config key."""
    if screen in SIMULATED:
        return {"image_csv": f"{STUDY}/simulated/{screen}/{plate}.image.csv"}
    entry = config["screens"][screen]
    keys = [key for key in ("image_csv", "table") if key in entry]
    return {key: entry[key].replace("{plate}", plate) for key in keys}


def source_tables_input(wildcards):
    """Return these tables as inputs, unless they are missing: a dry run needs no images."""
    paths = source_tables(wildcards.screen, wildcards.plate).values()
    if wildcards.screen in SIMULATED:
        return [local(path) for path in paths]
    return those_here(paths)


def load_data_table(wildcards):
    """Return the path or URL of a plate's LoadData table."""
    return source_tables(wildcards.screen, wildcards.plate)["table"]


def load_data_input(wildcards):
    """Return this table as an input, unless it is at a URL, where nobody sees that it changes."""
    table = load_data_table(wildcards)
    return [] if "://" in table else local(table)


def source_flags(wildcards):
    """Return the flags that say where a plate's images lie and how they are named."""
    screen, entry = wildcards.screen, screen_entry(wildcards)
    given = pick_given(
        entry, "layout", "table_prefix", "pattern", "acquisition", "project", "source", "batch"
    )
    given |= source_tables(screen, wildcards.plate)
    given |= {"images": image_folder(screen), "channels": settings.channels(config, screen)}
    return flags(given)


def refreshed_plates(wildcards):
    """Return the receipts of a refresh of all plates that are indexed."""
    if BUCKET:
        raise WorkflowError(
            f"snakemake refresh: it rewrites indices in place, which those in {BUCKET} do not "
            "allow; make them again with --forcerun index_plate"
        )
    return [
        plate_file("screens", screen, plate, "refreshed.json")
        for screen in SCREENS
        if screen not in DERIVED
        for plate in config["screens"][screen]["plates"]
        if Path(plate_file("screens", screen, plate, "fields.parquet")).exists()
    ]


def illumination_input(wildcards):
    """Return a plate's illumination functions as inputs, unless they are missing: as for images."""
    template = screen_entry(wildcards).get("illumination", "retrospective")
    if template == "retrospective":
        return []
    channels = settings.channels(config, wildcards.screen)
    paths = [template.format(plate=wildcards.plate, channel=channel) for channel in channels]
    return those_here(paths)
