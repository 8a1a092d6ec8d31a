"""The sentences and numbers of the page."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hcsqc.qc.report.results import Results, cell_counts
from hcsqc.qc.report.words import counted, is_missing, number, percent

# By `benchmarks.statistics.promises`: points of good cells lost, among eleven equal encoders.
CHOICE_COST = 0.6
# A threshold that flags less than this share of the cells that are abnormal misses most of them.
SHORTFALL = 0.5


def headline(results: Results) -> list[dict]:
    """Return the numbers at the top: what, how many, of how many, and whether it is bad."""
    counts = cell_counts(results.cells)
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
    for one, many, table, bad in (
        ("bad field", "bad fields", results.fields, results.fields["bad"]),
        ("bad well", "bad wells", results.wells, results.wells["bad"]),
        (
            "plate with a warning",
            "plates with a warning",
            results.plates,
            results.plates["warning"].fillna("").ne(""),
        ),
    ):
        tiles.append(
            {
                "name": one if bad.sum() == 1 else many,
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
        why = why or "there are no random labels of this screen to test it on"
        return f"No promise is made for the threshold of {level}: {why}."
    asked = _short_percent(threshold.get("promised"))
    sure = _short_percent(threshold.get("confidence"))
    labels = (
        f"{counted(threshold.get('n_normal') or 0, 'normal label')} in "
        f"{_counted_units(threshold, threshold.get('wells') or 0)}"
    )
    text = (
        f"At most {asked} of this screen's normal cells are flagged at the threshold of {level}, "
        f"with {sure} confidence: {labels} bound the share at {percent(threshold.get('bound'))}"
    )
    if not is_missing(threshold.get("supported")):
        text += (
            f", and support a promise of {_short_percent(threshold['supported'])} at the strictest"
        )
    compared = threshold.get("encoders_compared") or 0
    if compared > 1:
        text += (
            f". The encoder was chosen among {compared} on labels of the same wells, which the "
            f"bound does not count: in simulations this cost up to {CHOICE_COST} percentage points "
            "of good cells more"
        )
    return text + "."


def _units(threshold: Mapping) -> str:
    """Return what is independent: wells, unless the study groups labels in another way."""
    return threshold.get("units") or "wells"


def _counted_units(threshold: Mapping, count: int, more: str = "") -> str:
    units = _units(threshold)
    return counted(count, f"{more}well") if units == "wells" else f"{count:,} {more}{units}"


def shortfall(threshold: Mapping) -> str:
    """Return in a sentence that the threshold flags far fewer cells than are abnormal, or nothing.

    That is less than half of the estimated share, and less than its interval.
    """
    flagged, common = threshold.get("flagged_share"), threshold.get("prevalence")
    if flagged is None or is_missing(flagged) or not common or is_missing(common[0]):
        return ""
    if flagged >= SHORTFALL * common[0] or flagged >= common[1]:
        return ""
    found = "no cell" if flagged == 0 else f"{percent(flagged)} of the cells"
    return (
        f"The threshold flags {found}, but by the random labels {percent(common[0])} are abnormal "
        f"({percent(common[1])} to {percent(common[2])}): most of the abnormal cells are missed. "
        "Label more crops, in more wells, or name another encoder in qc.encoder."
    )


def _short_percent(share: float | None) -> str:
    return "–" if share is None or is_missing(share) else f"{100 * share:.3g}%"


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
        if value is not None and not is_missing(value[0]):
            interval = (
                ""
                if is_missing(value[1]) or is_missing(value[2])
                else f"{percent(value[1])} to {percent(value[2])}"
            )
            found.append({"name": name, "value": percent(value[0]), "interval": interval})
    return found + _without_labels(threshold)


def _without_labels(threshold: Mapping) -> list[dict]:
    """Return the prevalence by the first method that needs no labels of the screen, if any."""
    rows = threshold.get("prevalence_by_method")
    if not rows or threshold.get("prevalence"):
        return []
    used, *others = rows
    beside = ", ".join(f"{row['method']} {percent(row['estimate'])}" for row in others)
    return [
        {
            "name": "of the screen's cells are abnormal, if they look like the labelled ones",
            "value": percent(used["estimate"]),
            "interval": f"{percent(used['low'])} to {percent(used['high'])} "
            f"by {used['method']}; {beside}",
        }
    ]


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


def corrected_plates(corrections: pd.DataFrame) -> dict:
    """Return the channels, and for each plate how its light was corrected in each, as text."""
    channels = list(dict.fromkeys(corrections["channel"]))
    told = [
        f"×{row.gain:.2f}, {row.offset:+.0f}" if not is_missing(row.gain) else "not known"
        for row in corrections.itertuples()
    ]
    table = corrections.assign(told=told).pivot(
        index="Metadata_Plate", columns="channel", values="told"
    )
    rows = [(plate, list(row)) for plate, row in table[channels].fillna("–").iterrows()]
    far = np.abs(np.log(corrections["gain"])).groupby(corrections["Metadata_Plate"]).max()
    rows.sort(key=lambda row: -np.nan_to_num(far[row[0]], nan=np.inf))
    return {"channels": channels, "rows": rows}


def not_scored(cells: pd.DataFrame) -> dict[str, int]:
    """Return reason -> number of cells that were found but not scored, most common first."""
    reasons = cells.loc[cells["score"].isna(), "reason"].fillna("no reason given")
    return {str(reason): int(count) for reason, count in reasons.value_counts().items()}


def next_steps(results: Results, simulated: bool) -> list[str]:
    """Return what to do next, most urgent first."""
    threshold = results.threshold
    counts = cell_counts(results.cells)
    if not counts["scored"]:
        return ["Nothing was scored: first see why, under “Not scored”."]
    steps = []
    if simulated:
        steps.append(
            "Look through the galleries above: are these the artefacts that you want to remove?"
        )
    if not threshold.get("promise"):
        wanted = ""
        # Only labels of the screen itself could support a promise.
        if not is_missing(threshold.get("supported")):
            more = (threshold.get("wells_needed") or 0) - (threshold.get("wells") or 0)
            wanted = f" in {_counted_units(threshold, more, 'more ')}" if more > 0 else ""
        steps.append(
            f"Label random crops of this screen{wanted}, normal and abnormal, and run again: "
            "without such labels, nothing can be promised."
        )
    warned = int(results.plates["warning"].fillna("").ne("").sum())
    if warned:
        steps.append(
            f"Look at {counted(warned, 'plate')} with a warning: labels of other plates may "
            "not hold there. Label some of theirs."
        )
    wells, fields = int(results.wells["bad"].sum()), int(results.fields["bad"].sum())
    if wells or fields:
        steps.append(
            f"Look at the images of {counted(wells, 'bad well')} and "
            f"{counted(fields, 'bad field')}, and leave them out or image them again: column bad "
            "of wells.csv and fields.csv."
        )
    compounds = int(results.compounds["warned"].sum())
    if compounds:
        steps.append(
            f"Decide for {counted(compounds, 'warned treatment')} whether its flagged cells are "
            "artefacts (a compound that glows or precipitates) or the phenotype itself: do not "
            "drop a phenotype as an artefact."
        )
    stricter = threshold.get("wells_for_stricter") or {}
    if threshold.get("promise") and stricter:
        wanted = "; ".join(
            f"{_short_percent(float(share))} needs {_counted_units(threshold, more, 'more ')}"
            for share, more in stricter.items()
            if not is_missing(more) and more > 0
        )
        carried = [float(share) for share, more in stricter.items() if more == 0]
        if carried:
            steps.append(
                f"These labels would support a stricter promise: {_short_percent(min(carried))} of "
                f"good cells lost (qc.good_cells_lost: {min(carried):g})."
            )
        if wanted:
            steps.append(
                f"For a stricter promise, label random crops in more {_units(threshold)}: {wanted}."
            )
    if counts["flagged"]:
        steps.append(
            "Look at the borderline crops: if many are clearly on the wrong side, label them and "
            "train again."
        )
    steps.append(
        "Leave flagged cells out: join cells.parquet to your profiles by plate, well, site and "
        "nucleus centre, and keep the rows that are not flagged."
    )
    return steps


def treatment(row: Mapping) -> str:
    """Return what a well was treated with, in words."""
    if is_missing(row["compound"]) or not row["compound"]:
        role = row.get("role")
        return "–" if is_missing(role) or not role else str(role)
    amount = row["concentration_um"]
    return str(row["compound"]) + ("" if is_missing(amount) else f" at {number(amount)} µM")
