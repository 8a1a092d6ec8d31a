"""The quality-control report of a screen: one page to look at, with every picture inside."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hcsqc.errors import InputError
from hcsqc.feature_tables import read_feature_table
from hcsqc.qc.figures import (
    plain,
    plot_map,
    plot_rates,
    plot_scores,
    plot_shift,
    project,
    rates,
)
from hcsqc.qc.gallery import (
    borderline,
    crop_pictures,
    worst_of_each_artefact,
    worst_of_treatment,
)
from hcsqc.qc.phenotypes import MOCK
from hcsqc.qc.plate_maps import colour_limits, draw_plate_map, edge_distance, plate_shape
from hcsqc.schema import check_columns, read_table
from hcsqc.shards import Shards

TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "qc.html"
SIMULATED = "simulated artefacts"  # what detector.json says it was trained on without labels

MOST_PLATES = 24  # with maps
OPEN_PLATES = 4  # whose maps are seen at once
MOST_ROWS = 50  # of a table
OPEN_ROWS = 10  # of them that are seen at once
PER_ARTEFACT, PER_SIDE, PER_COMPOUND, MOST_COMPOUNDS = 8, 8, 6, 10  # crops
MOST_POINTS = 5000  # of the map of features
MOST_NAMED = 8  # compounds on it, as many as there are markers
ROLE_NAMES = {MOCK: "mock (control)"}
NO_COMPOUND, OTHERS = "no compound", "other compounds"

# Columns of the tables that are read; all else is ignored.
TEXT = {"Metadata_Plate", "Metadata_Well", "role", "compound", "artefact", "reason", "warning"}
BOOLEAN = {"empty", "out_of_focus", "saturated", "bad", "warned"}
COLUMNS = {
    "fields": "Metadata_Plate Metadata_Well Metadata_Site role compound concentration_um nuclei "
    "scored flagged flagged_share empty out_of_focus saturated bad reason",
    "wells": "Metadata_Plate Metadata_Well role compound concentration_um fields nuclei scored "
    "flagged flagged_share low high expected focus artefact bad reason",
    "plates": "Metadata_Plate wells bad_wells fields bad_fields nuclei scored flagged "
    "flagged_share low high feature_shift score_shift warning",
    "compounds": "compound concentration_um wells scored flagged_share control_share p_value "
    "adjusted_p warned artefact",
}
TRUTH_COLUMNS = ["what", "planted", "found", "low", "high"]


@dataclass(frozen=True)
class Results:
    """What the quality control of a screen found: the tables of its folder, and the threshold."""

    cells: pd.DataFrame
    fields: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    compounds: pd.DataFrame
    threshold: Mapping


def read_results(folder: Path) -> Results:
    """Read the tables of results/{study}/qc/{screen}.

    Raises InputError if one is missing or is no such table, or if they are not of the same cells.
    """
    cells = read_table(folder / "cells.parquet", "cells")
    tables = {name: _read_csv(folder / f"{name}.csv", columns) for name, columns in COLUMNS.items()}
    for name in ("fields", "wells", "plates"):
        for column, count in _counts(cells).items():
            if int(tables[name][column].sum()) != count:
                raise InputError(
                    f"{folder / name}.csv: {int(tables[name][column].sum())} cells {column}, but "
                    f"cells.parquet has {count}; make all tables of the screen anew"
                )
    return Results(cells=cells, **tables, threshold=read_json(folder / "threshold.json"))


def _read_csv(path: Path, columns: str) -> pd.DataFrame:
    try:
        # Plates may be called 0042 or NA: no text is guessed to be a number or missing.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    check_columns(table, columns.split(), str(path))
    table = table[columns.split()].copy()
    for column in table.columns:
        if column in BOOLEAN:
            known = table[column].dropna().str.lower()
            if not known.isin(["true", "false"]).all():
                raise InputError(f"{path}: '{column}' must be True or False; make it anew")
            table[column] = table[column].str.lower().eq("true").fillna(False).astype(bool)
        elif column not in TEXT:
            try:
                table[column] = pd.to_numeric(table[column])
            except ValueError as error:
                raise InputError(f"{path}: '{column}' must be numbers ({error})") from error
    return table


def read_json(path: Path) -> dict:
    """Read a JSON object; raises InputError if the file holds none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); make it anew") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: must be an object of JSON, not a {type(found).__name__}")
    return found


def read_truth(path: Path) -> pd.DataFrame:
    """Read what was planted into a simulated screen: TRUTH_COLUMNS; raises InputError."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    check_columns(table, TRUTH_COLUMNS, str(path))
    return table[TRUTH_COLUMNS]


def render_report(
    template: Path,
    screen: str,
    results: Results,
    shards: Shards,
    composite: Sequence[str],
    detector: Mapping,
    features: Sequence[Path] = (),
    truth: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
) -> str:
    """Return the report as one HTML page with its pictures inside; all text is escaped.

    `shards` hold the crops of all scored cells, of which `composite` are shown; `detector` is
    what detector.json says; `features` are tables of vectors of some of the crops; `labels` is a
    table of labels. Raises InputError for crops or channels that are not in the shards.
    """
    cells, threshold = results.cells, results.threshold
    shape = plate_shape(results.wells["Metadata_Well"])
    chosen = _galleries(results)
    crops = crop_pictures(
        shards,
        [crop for gallery in chosen for rows in gallery["rows"] for crop in rows["crop_id"]],
        composite,
    )
    for gallery in chosen:
        gallery["rows"] = [_crops(rows, crops) for rows in gallery["rows"]]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "count": _count}
    environment.globals["is_missing"] = _missing
    simulated = str(detector.get("trained_on", "")).strip().lower() == SIMULATED
    bad_fields = results.fields[results.fields["bad"]]
    bad_wells = results.wells[results.wells["bad"]].sort_values(
        "flagged_share", ascending=False, na_position="last", kind="stable"
    )
    plates = _worst_plates(results.plates)
    return environment.from_string(template.read_text()).render(
        screen=screen,
        composite=composite,
        simulated=simulated,
        headline=headline(results),
        promise=promise(threshold),
        threshold=threshold,
        estimates=estimates(threshold),
        truth=[] if truth is None else truth.to_dict("records"),
        detector=definition_list(detector),
        warnings=_records(results.plates[results.plates["warning"].fillna("").ne("")]),
        maps=plate_maps(results.wells, plates, shape),
        shape=shape,
        open_plates=OPEN_PLATES,
        plates=_records(plates),
        not_drawn=[str(name) for name in plates["Metadata_Plate"].iloc[MOST_PLATES:]],
        bad_wells=_records(bad_wells.head(MOST_ROWS)),
        bad_wells_total=len(bad_wells),
        bad_fields=_records(bad_fields.head(MOST_ROWS)),
        bad_fields_total=len(bad_fields),
        field_kinds=field_kinds(results.fields),
        most_rows=MOST_ROWS,
        open_rows=OPEN_ROWS,
        worst=[gallery for gallery in chosen if gallery["kind"] == "artefact"],
        border=[gallery for gallery in chosen if gallery["kind"] == "borderline"],
        compounds=[gallery for gallery in chosen if gallery["kind"] == "compound"],
        most_compounds=MOST_COMPOUNDS,
        compounds_total=int(results.compounds["warned"].sum()),
        compounds_tested=len(results.compounds),
        drift=drift(results),
        edge=edge_effect(results.wells, shape),
        histogram=score_histogram(cells, threshold, labels),
        map_of_features=map_of_features(features, results),
        not_scored=not_scored(cells),
        steps=next_steps(results, simulated),
    )


# Words and numbers.


def percent(share: float | None) -> str:
    """Return a share, 0 to 1, as percent: `3.1%`; a dash where there is none."""
    return "–" if _missing(share) else f"{100 * share:.1f}%"


def number(value: object) -> str:
    """Return a number of any size in few digits, a dash where there is none."""
    if _missing(value):
        return "–"
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}"


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value))


def _count(value: int, noun: str, plural: str | None = None) -> str:
    return f"{int(value):,} {noun if value == 1 else plural or noun + 's'}"


def _counts(cells: pd.DataFrame) -> dict[str, int]:
    scored = cells["score"].notna()
    flagged = cells["flagged"].astype("boolean").fillna(False).astype(bool)
    return {"nuclei": len(cells), "scored": int(scored.sum()), "flagged": int(flagged.sum())}


def headline(results: Results) -> list[dict]:
    """Return the numbers at the top: what, how many, of how many, and whether it is bad."""
    counts = _counts(results.cells)
    found, scored, flagged = counts["nuclei"], counts["scored"], counts["flagged"]
    share = flagged / scored if scored else None
    tiles = [
        {
            "name": "cells flagged",
            "value": f"{flagged:,}",
            "detail": f"{percent(share)} of {scored:,} scored; {found:,} nuclei found",
            "bad": False,
        }
    ]
    for name, table, bad in (
        ("bad fields", results.fields, results.fields["bad"]),
        ("bad wells", results.wells, results.wells["bad"]),
        ("plates with a warning", results.plates, results.plates["warning"].fillna("").ne("")),
    ):
        tiles.append(
            {
                "name": name,
                "value": f"{int(bad.sum()):,}",
                "detail": f"of {len(table):,}",
                "bad": bool(bad.any()),
            }
        )
    return tiles


def promise(threshold: Mapping) -> str:
    """Return in one sentence what the threshold promises of normal cells, or that it does not."""
    level = number(threshold.get("threshold"))
    if not threshold.get("promise"):
        why = str(threshold.get("note") or "").removeprefix("No promise: ").rstrip(".")
        why = why or "there are no random labels of this screen to hold it to"
        return f"No promise is made for the threshold of {level}: {why}."
    asked = _short_percent(threshold.get("promised"))
    sure = _short_percent(threshold.get("confidence"))
    labels = (
        f"{_count(threshold.get('n_normal') or 0, 'normal label')} in "
        f"{_count(threshold.get('wells') or 0, 'well')}"
    )
    text = (
        f"At most {asked} of this screen's normal cells are flagged at the threshold of {level}, "
        f"with {sure} confidence: {labels} bound the share at {percent(threshold.get('bound'))}"
    )
    if not _missing(threshold.get("supported")):
        text += f", and could promise {_short_percent(threshold['supported'])} at the strictest"
    return text + "."


def _short_percent(share: float | None) -> str:
    return "–" if _missing(share) else f"{100 * share:.3g}%"


def estimates(threshold: Mapping) -> list[dict]:
    """Return what is estimated of the screen, with intervals; nothing where it is not known."""
    names = {
        "recall": "of abnormal cells are flagged"
        if threshold.get("promise")
        else "of the abnormal crops that the threshold was set on are flagged",
        "prevalence": "of the screen's cells are abnormal",
        "precision": "of flagged cells are abnormal",
    }
    found = []
    for key, name in names.items():
        value = threshold.get(key)
        if value is not None and not _missing(value[0]):
            interval = (
                ""
                if _missing(value[1]) or _missing(value[2])
                else f"{percent(value[1])} to {percent(value[2])}"
            )
            found.append({"name": name, "value": percent(value[0]), "interval": interval})
    return found


def definition_list(items: Mapping) -> list[tuple[str, str]]:
    """Return the items of a JSON object as name and text, whatever they are, in their order."""
    return [(str(key).replace("_", " "), _as_text(value)) for key, value in items.items()]


def _as_text(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_as_text(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple) and any(isinstance(inner, list | tuple) for inner in value):
        return "; ".join(_as_text(inner) for inner in value)
    if isinstance(value, list | tuple):
        return ", ".join(_as_text(inner) for inner in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value)


def field_kinds(fields: pd.DataFrame) -> list[dict]:
    """Return how many fields are empty, out of focus and saturated."""
    return [
        {"name": column.replace("_", " "), "value": int(fields[column].sum())}
        for column in ("empty", "out_of_focus", "saturated")
    ]


def not_scored(cells: pd.DataFrame) -> dict[str, int]:
    """Return reason -> number of cells that were found but not scored, most common first."""
    reasons = cells.loc[cells["score"].isna(), "reason"].fillna("no reason given")
    return {str(reason): int(count) for reason, count in reasons.value_counts().items()}


def next_steps(results: Results, simulated: bool) -> list[str]:
    """Return what to do next, most urgent first."""
    threshold = results.threshold
    counts = _counts(results.cells)
    if not counts["scored"]:
        return ["Nothing was scored: look at why, under “Not scored”, before anything else."]
    steps = []
    if simulated:
        steps.append(
            "Look through the galleries above: are these the artefacts that you want to be rid of?"
        )
    if not threshold.get("promise"):
        steps.append(
            "Label random crops of this screen, normal and abnormal, and make the flags again: "
            "without them nothing is promised."
        )
    warned = int(results.plates["warning"].fillna("").ne("").sum())
    if warned:
        steps.append(
            f"Look at {_count(warned, 'plate')} with a warning: labels of other plates may "
            "not hold there. Label some of theirs."
        )
    wells, fields = int(results.wells["bad"].sum()), int(results.fields["bad"].sum())
    if wells or fields:
        steps.append(
            f"Look at the images of {_count(wells, 'bad well')} and {_count(fields, 'bad field')}, "
            "and leave them out or image them again: column bad of wells.csv and fields.csv."
        )
    compounds = int(results.compounds["warned"].sum())
    if compounds:
        steps.append(
            f"Decide for {_count(compounds, 'warned treatment')} whether its flagged cells are "
            "artefacts (a compound that glows or precipitates) or the phenotype itself: do not "
            "drop a phenotype as an artefact."
        )
    stricter = threshold.get("more_for_stricter") or {}
    if threshold.get("promise") and stricter:
        wanted = "; ".join(
            f"{_short_percent(float(share))} takes {_count(more, 'more normal label')}"
            for share, more in stricter.items()
            if not _missing(more) and more > 0
        )
        carried = [float(share) for share, more in stricter.items() if more == 0]
        if carried:
            steps.append(
                f"These labels would carry a stricter promise: {_short_percent(min(carried))} of "
                f"good cells lost (qc.good_cells_lost: {min(carried):g})."
            )
        if wanted:
            steps.append(f"For a stricter promise, label more random crops: {wanted}.")
    if counts["flagged"]:
        steps.append(
            "Look at the borderline crops: if many on the wrong side are plain to you, label them "
            "and train again."
        )
    steps.append(
        "Leave flagged cells out: join cells.parquet to your profiles by plate, well, site and "
        "nucleus centre, and keep the rows that are not flagged."
    )
    return steps


def _records(table: pd.DataFrame) -> list[dict]:
    return table.astype(object).where(table.notna(), None).to_dict("records")


# Pictures.


def _picture(png: bytes, alt: str, title: str = "", text: str = "") -> dict:
    return {"png": _base64(png), "alt": alt, "title": title, "text": text}


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _worst_plates(plates: pd.DataFrame) -> pd.DataFrame:
    keys = ["bad_wells", "flagged_share"]
    return plates.sort_values(keys, ascending=False, na_position="last", kind="stable")


def plate_maps(wells: pd.DataFrame, plates: pd.DataFrame, shape: tuple[int, int]) -> list[dict]:
    """Return the maps of the first MOST_PLATES of `plates`: flag rate, cells, focus."""
    measures = {
        "flagged cells (%)": (100 * wells["flagged_share"], True),
        "nuclei found": (wells["nuclei"], True),
        "focus (log sharpness)": (wells["focus"], False),
    }
    limits = {
        name: colour_limits(values, from_zero) for name, (values, from_zero) in measures.items()
    }
    drawn = []
    for plate in plates.head(MOST_PLATES).itertuples():
        own = wells["Metadata_Plate"] == plate.Metadata_Plate
        names, bad = wells.loc[own, "Metadata_Well"], wells.loc[own, "bad"]
        listed = ", ".join(names[bad]) or "none"
        pictures = []
        for name, (values, _) in measures.items():
            values = values[own].astype(float)
            known = values.dropna()
            extremes = (
                f"from {known.min():.3g} in {names[known.idxmin()]} to {known.max():.3g} in "
                f"{names[known.idxmax()]}"
                if len(known)
                else "no well has a value"
            )
            image = draw_plate_map(names, values, bad, shape, limits[name], name)
            alt = f"Plate {plate.Metadata_Plate}, {name} by well: {extremes}; bad wells: {listed}"
            pictures.append(_picture(image, alt))
        drawn.append(
            {
                "plate": plate.Metadata_Plate,
                "share": percent(plate.flagged_share),
                "bad_wells": list(names[bad]),
                "warning": "" if _missing(plate.warning) else plate.warning,
                "pictures": pictures,
            }
        )
    return drawn


def _galleries(results: Results) -> list[dict]:
    """Return kind, title, text and rows of cells of every row of crops."""
    cells = results.cells
    galleries = [
        {"kind": "artefact", "title": kind, "rows": [rows]}
        for kind, rows in worst_of_each_artefact(cells, PER_ARTEFACT).items()
    ]
    flagged = cells["flagged"].astype("boolean").fillna(False).astype(bool)
    totals = cells.loc[flagged, "artefact"].fillna("of no known kind").astype(str).value_counts()
    for gallery in galleries:
        gallery["total"] = int(totals[gallery["title"]])
    above, below = borderline(cells, PER_SIDE)
    galleries.append({"kind": "borderline", "title": "just flagged", "rows": [above]})
    galleries.append({"kind": "borderline", "title": "just passed", "rows": [below]})
    warned = results.compounds[results.compounds["warned"]].sort_values(
        "flagged_share", ascending=False, na_position="last", kind="stable"
    )
    for treatment, row in zip(
        _records(warned)[:MOST_ROWS], warned.to_dict("records"), strict=False
    ):
        shown = sum(gallery["kind"] == "compound" for gallery in galleries) < MOST_COMPOUNDS
        crops = (
            worst_of_treatment(cells, results.fields, pd.Series(row), PER_COMPOUND)
            if shown
            else cells.head(0)
        )
        galleries.append(
            {"kind": "compound", "title": treatment["compound"], "rows": [crops], "row": treatment}
        )
    return galleries


def _crops(rows: pd.DataFrame, pictures: Mapping[str, bytes]) -> list[dict]:
    return [
        {
            "crop_id": row.crop_id,
            "place": f"{row.Metadata_Plate} {row.Metadata_Well} s{row.Metadata_Site}",
            "cell": row.crop_id.rsplit("/", 1)[-1],
            "score": f"{row.score:.3f}",
            "artefact": "" if _missing(row.artefact) else row.artefact,
            "png": _base64(pictures[row.crop_id]),
        }
        for row in rows.itertuples()
    ]


def drift(results: Results) -> list[dict]:
    """Return the figures of drift: over plates in their order, and over sites."""
    counts = _counts(results.cells)
    if not counts["scored"]:
        return []
    overall = counts["flagged"] / counts["scored"]
    plates = results.plates
    names = [plain(name) for name in plates["Metadata_Plate"]]
    by_plate = plates.rename(columns={"flagged_share": "share"})
    warned = plates["warning"].fillna("").ne("")
    highest = plates.loc[plates["flagged_share"].idxmax(), "Metadata_Plate"]
    figures = [
        _picture(
            plot_rates(
                by_plate,
                names,
                "plate, in order",
                overall,
                special=warned,
                special_name="plate with a warning",
                joined=True,
            ),
            f"Share of flagged cells of {_count(len(plates), 'plate')} in order, with intervals; "
            f"highest on plate {highest} ({percent(plates['flagged_share'].max())})",
            "Flag rate over plates",
        )
    ]
    if len(plates) > 1 and plates[["feature_shift", "score_shift"]].notna().any(axis=None):
        figures.append(
            _picture(
                plot_shift(plates, names),
                "Shift of features and of scores of each plate, in order; plates with a warning: "
                f"{', '.join(plates.loc[warned, 'Metadata_Plate']) or 'none'}",
                "Shift of features and scores over plates",
            )
        )
    sites = rates(results.fields, "Metadata_Site")
    figures.append(
        _picture(
            plot_rates(
                sites,
                [str(int(site)) for site in sites["Metadata_Site"]],
                "site: position of the field in the well",
                overall,
            ),
            "Share of flagged cells by site with 95% intervals: " + _rates_in_words(sites),
            "Flag rate over sites",
        )
    )
    return figures


def _rates_in_words(table: pd.DataFrame) -> str:
    return ", ".join(
        f"{int(row[0])}: {percent(row.share)}" for row in table.head(16).itertuples(index=False)
    )


def edge_effect(wells: pd.DataFrame, shape: tuple[int, int]) -> dict | None:
    """Return the figure of flag rate by distance from the plate's edge, and what it says."""
    distance = edge_distance(wells["Metadata_Well"], shape)
    placed = wells.assign(distance=distance)[distance >= 0]
    table = rates(placed, "distance")
    if not len(table):
        return None
    overall = table["flagged"].sum() / table["scored"].sum()
    ticks = [
        f"{row.distance}{' (edge)' if row.distance == 0 else ''}\n{_count(row.clusters, 'well')}"
        for row in table.itertuples()
    ]
    image = plot_rates(table, ticks, "wells between it and the plate's edge", overall)
    inner = rates(placed.assign(edge=placed["distance"] == 0), "edge").set_index("edge")
    text = ""
    if len(inner) == 2:
        edge, rest = inner.loc[True], inner.loc[False]
        apart = edge["low"] > rest["high"] or edge["high"] < rest["low"]
        text = (
            f"{percent(edge['share'])} of cells are flagged in wells at the edge, "
            f"{percent(rest['share'])} in the others: "
            + ("the two differ." if apart else "no clear difference.")
        )
    alt = "Share of flagged cells by distance from the edge, with 95% intervals: "
    return _picture(
        image, alt + _rates_in_words(table), "Flag rate by distance from the edge", text
    )


def score_histogram(
    cells: pd.DataFrame, threshold: Mapping, labels: pd.DataFrame | None
) -> dict | None:
    """Return the histogram of scores, with that of labelled crops where there are labels."""
    scores = cells["score"].dropna().astype(float)
    if not len(scores):
        return None
    labelled = None
    if labels is not None:
        labelled = labels[["crop_id", "label"]].merge(
            cells[["crop_id", "score"]].dropna(), on="crop_id", validate="one_to_one"
        )
    level = threshold.get("threshold")
    image = plot_scores(scores, None if _missing(level) else float(level), labelled)
    quantiles = scores.quantile([0.05, 0.5, 0.95])
    alt = (
        f"Histogram of {len(scores):,} scores: median {quantiles[0.5]:.2f}, 90% between "
        f"{quantiles[0.05]:.2f} and {quantiles[0.95]:.2f}; threshold {number(level)}"
    )
    return _picture(image, alt)


def map_of_features(paths: Sequence[Path], results: Results) -> dict | None:
    """Return the features of a sample of crops on a plane, by flag, plate, role and compound.

    Raises InputError if a table is none of features, or they are of other crops.
    """
    if not paths:
        return None
    crops, vectors = _read_features(paths)
    sample = pd.DataFrame({"crop_id": crops, "row": np.arange(len(crops))})
    keys = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    cells = results.cells[["crop_id", "flagged", *keys]]
    sample = sample.merge(cells, on="crop_id", how="inner", validate="one_to_one")
    if len(crops) and not len(sample):
        raise InputError(f"{paths[0]}: none of its crops is in cells.parquet; give this screen's")
    finite = np.isfinite(vectors[sample["row"]]).all(axis=1)
    left_out = int((~finite).sum())
    sample = sample[finite]
    if len(sample) > MOST_POINTS:
        sample = sample.sample(MOST_POINTS, random_state=0)
    if len(sample) < 3:
        return {"pictures": [], "shown": len(sample), "left_out": left_out}
    points, shares = project(vectors[sample["row"]].astype(np.float64))
    treatment = sample.merge(
        results.fields[[*keys, "role", "compound"]], on=keys, how="left", validate="many_to_one"
    )
    flags = sample["flagged"].astype("boolean").map({True: "flagged", False: "not flagged"})
    plates = list(dict.fromkeys(results.plates["Metadata_Plate"]))
    groups = {
        "by flag": pd.Categorical(
            flags.astype(object).fillna("not scored"), ["not flagged", "flagged", "not scored"]
        ).remove_unused_categories(),
        "by plate": pd.Categorical(
            sample["Metadata_Plate"].astype(object), plates
        ).remove_unused_categories(),
        "by role": pd.Categorical(
            treatment["role"]
            .astype(object)
            .map(lambda role: ROLE_NAMES.get(role, role))
            .fillna("not known")
        ),
        "by compound": compound_groups(treatment, results.compounds),
    }
    pictures = [
        _picture(
            plot_map(
                points,
                shares,
                group,
                name.capitalize(),
                stands_out="flagged" if name == "by flag" else None,
                backdrop=(OTHERS,),
            ),
            f"Principal components of {len(sample):,} crops {name}: "
            f"{_count(len(group.categories), 'group')}",
        )
        for name, group in groups.items()
    ]
    return {"pictures": pictures, "shown": len(sample), "left_out": left_out}


def compound_groups(crops: pd.DataFrame, compounds: pd.DataFrame) -> pd.Categorical:
    """Return the group of each crop for a map on which few can be told apart.

    `crops` has role and compound, `compounds` is the table of that name. Controls are one group.
    Places go to compounds that are warned of, then to those with most crops, all concentrations
    together; the others share a group.
    """
    mock = crops["role"] == MOCK
    names = crops["compound"].astype(object).fillna(NO_COMPOUND).mask(mock, ROLE_NAMES[MOCK])
    warned = set(compounds.loc[compounds["warned"], "compound"])
    by_crops = names[~mock & (names != NO_COMPOUND)].value_counts().index
    named = sorted(by_crops, key=lambda name: name not in warned)[:MOST_NAMED]
    groups = [*named, ROLE_NAMES[MOCK], NO_COMPOUND]
    return pd.Categorical(
        names.where(names.isin(groups), OTHERS), [*groups, OTHERS]
    ).remove_unused_categories()


def _read_features(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    # A plate without a crop has a table without rows.
    paths = [path for path in paths if pq.read_metadata(path).num_rows]
    if not paths:
        return np.empty(0, object), np.empty((0, 0), np.float32)
    tables = [read_feature_table(path) for path in paths]
    widths = [vectors.shape[1] for _, vectors in tables]
    for path, width in zip(paths, widths, strict=True):
        if width != widths[0]:
            raise InputError(
                f"{path}: features of {width} values, but {paths[0]} has {widths[0]}; give tables "
                "of one encoder"
            )
    crops = np.concatenate([np.asarray(crops, object) for crops, _ in tables])
    repeated = pd.Series(crops).duplicated()
    if repeated.any():
        raise InputError(f"crop {crops[repeated.argmax()]} is in more than one table of features")
    return crops, np.concatenate([vectors for _, vectors in tables])
