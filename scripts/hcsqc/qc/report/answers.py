"""The two first answers of the page: can the screen be used, and what is to be dropped."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hcsqc.core.schema import for_spreadsheets
from hcsqc.qc.flags import BLURRED, FEWEST_BLURRED, MANY, focus_warning
from hcsqc.qc.report.plate_maps import plate_shape
from hcsqc.qc.report.rates import differ, edge_and_inner
from hcsqc.qc.report.results import Results, cell_counts
from hcsqc.qc.report.words import counted, is_missing, number, percent

CHECKS = ("cells flagged", "focus", "saturation", "counts", "drift", "edge effect")
# From best to worst; what is not known says nothing against a plate.
PASS, UNKNOWN, LOOK, FAIL = LEVELS = ("pass", "not known", "look", "fail")
DROP_COLUMNS = ["drop", "Metadata_Plate", "Metadata_Well", "Metadata_Site", "nuclei", "scored"]
DROP_COLUMNS += ["flagged", "flagged_share", "reason"]


@dataclass(frozen=True)
class Limits:
    """Where a plate fails: as the warnings of plates.csv."""

    well_share: float  # flagged cells, 0 to 1
    drift_features: float  # standard deviations
    drift_scores: float  # 0 to 1
    drift_gain: float  # a factor above 1, either way


@dataclass(frozen=True)
class Light:
    """What a check says of a plate: one of LEVELS, and why."""

    check: str
    level: str
    text: str

    @property
    def rank(self) -> int:
        """Return the level as a number, to sort by."""
        return LEVELS.index(self.level)


def lights(results: Results, limits: Limits, focus_edge: float) -> dict[str, list[Light]]:
    """Return plate -> its light of each of CHECKS, for all plates in their order.

    `focus_edge` is the widest edge that is in focus, in typical nucleus diameters.
    """
    shape = plate_shape(results.wells["Metadata_Well"])
    found = {}
    for row in results.plates.to_dict("records"):
        plate = row["Metadata_Plate"]
        fields, wells, corrections = (
            table[table["Metadata_Plate"] == plate]
            for table in (results.fields, results.wells, results.corrections)
        )
        found[plate] = [
            _flagged(row, limits),
            _focus(fields, focus_edge),
            _fields(fields, "saturated", CHECKS[2], "saturated"),
            _fields(fields, "empty", CHECKS[3], "empty or nearly so"),
            _drift(row, corrections, limits),
            _edge(wells, shape, limits),
        ]
    return found


def worst(of_plate: Sequence[Light]) -> str:
    """Return the worst level among lights."""
    return max(of_plate, key=lambda light: light.rank).level


def _flagged(row: dict, limits: Limits) -> Light:
    check = CHECKS[0]
    if is_missing(row["flagged_share"]):
        return Light(check, FAIL, "no cell was scored")
    bad, wells = int(row["bad_wells"]), int(row["wells"])
    text = f"{percent(row['flagged_share'])} of the cells; {bad:,} of {counted(wells, 'well')} bad"
    bad_fields, fields = int(row["bad_fields"]), int(row["fields"])
    if bad_fields > MANY * fields:  # also those that could not be read
        return Light(check, FAIL, f"{text}; {bad_fields:,} of {counted(fields, 'field')} bad")
    if row["flagged_share"] >= limits.well_share or bad > MANY * wells:
        return Light(check, FAIL, text)
    return Light(check, LOOK if bad else PASS, text)


def _fields(fields: pd.DataFrame, column: str, check: str, what: str) -> Light:
    if fields.empty:
        return Light(check, UNKNOWN, "no field")
    bad, total = int(fields[column].sum()), len(fields)
    text = f"{bad:,} of {counted(total, 'field')} {what}"
    if bad >= max(FEWEST_BLURRED, BLURRED * total) or bad == total:
        return Light(check, FAIL, text)
    return Light(check, LOOK if bad else PASS, text)


def _focus(fields: pd.DataFrame, limit: float) -> Light:
    light = _fields(fields, "out_of_focus", CHECKS[1], "out of focus")
    known = fields["edge"].dropna()
    if known.empty and light.level != FAIL:
        return Light(light.check, UNKNOWN, "no edge of a nucleus could be measured")
    warning = focus_warning(known, limit) if len(known) else ""
    return Light(light.check, FAIL, warning) if warning else light


def _drift(row: dict, corrections: pd.DataFrame, limits: Limits) -> Light:
    gains = corrections["gain"].dropna()
    measured = [
        (
            f"features {number(row['feature_shift'])} SD",
            row["feature_shift"],
            limits.drift_features,
        ),
        (f"scores {number(row['score_shift'])}", row["score_shift"], limits.drift_scores),
    ]
    if len(gains):
        farthest = float(gains.iloc[int(np.abs(np.log(gains)).argmax())])
        far = abs(np.log(farthest))
        measured.append((f"light ×{farthest:.2f}", far, np.log(limits.drift_gain)))
    measured = [item for item in measured if not is_missing(item[1])]
    if not measured:
        return Light(CHECKS[4], UNKNOWN, "not measured")
    text = ", ".join(name for name, _, _ in measured)
    beyond = any(value > limit for _, value, limit in measured)
    return Light(CHECKS[4], FAIL if beyond else PASS, text)


def _edge(wells: pd.DataFrame, shape: tuple[int, int], limits: Limits) -> Light:
    both = edge_and_inner(wells, shape)
    if both is None:
        return Light(
            CHECKS[5], UNKNOWN, "cannot be compared: all wells are at the edge, or none is"
        )
    edge, inner = both
    text = f"{percent(edge['share'])} flagged at the edge, {percent(inner['share'])} elsewhere"
    if not differ(edge, inner):
        return Light(CHECKS[5], PASS, text)
    far = abs(edge["share"] - inner["share"]) >= limits.well_share
    return Light(CHECKS[5], FAIL if far else LOOK, text)


def drops(results: Results) -> pd.DataFrame:
    """Return what to leave out, with DROP_COLUMNS: bad wells, then bad fields of the other wells.

    drop is `well` or `field`; wells have no site. Those with most flagged cells come first.
    """
    keys = ["Metadata_Plate", "Metadata_Well"]
    wells = results.wells[results.wells["bad"]].assign(drop="well", Metadata_Site=None)
    fields = results.fields[results.fields["bad"]].assign(drop="field")
    whole = pd.MultiIndex.from_frame(wells[keys])
    fields = fields[~pd.MultiIndex.from_frame(fields[keys]).isin(whole)]
    parts = [
        part.sort_values("flagged_share", ascending=False, na_position="last", kind="stable")[
            DROP_COLUMNS
        ].astype({"Metadata_Site": "Int64"})
        for part in (wells, fields)
    ]
    return pd.concat(parts, ignore_index=True)


def flagged_elsewhere(results: Results, dropped: pd.DataFrame) -> int:
    """Return how many flagged cells lie outside of the wells and fields that are `drops`."""
    wells, fields = (dropped[dropped["drop"] == what] for what in ("well", "field"))
    inside = int(wells["flagged"].sum()) + int(fields["flagged"].sum())
    return cell_counts(results.cells)["flagged"] - inside


def drops_csv(table: pd.DataFrame) -> str:
    """Return `drops` as CSV that no spreadsheet program runs."""
    text = io.StringIO()
    for_spreadsheets(table).to_csv(text, index=False, float_format="%.6g")
    return text.getvalue()


def answer(results: Results, of_plates: dict[str, list[Light]], dropped: pd.DataFrame) -> dict:
    """Return the level and the sentence that answer: can I use this screen (or this plate)?"""
    counts = cell_counts(results.cells)
    if not counts["scored"]:
        return {"level": FAIL, "text": "No: no cell was scored. See “Not scored” for the reasons."}
    failed = [plate for plate, own in of_plates.items() if worst(own) == FAIL]
    left_out = _listed(results, dropped)
    if not failed:
        if len(dropped) or flagged_elsewhere(results, dropped):
            text = f"Yes, once you leave out {left_out}."
            return {"level": LOOK if len(dropped) else PASS, "text": text}
        return {"level": PASS, "text": "Yes: nothing is bad and no cell is flagged."}
    checks = list(
        dict.fromkeys(
            light.check for plate in failed for light in of_plates[plate] if light.level == FAIL
        )
    )
    if len(of_plates) == 1:
        start = "Not yet: this plate fails"
    elif len(failed) == len(of_plates):
        every = "both plates" if len(failed) == 2 else f"all {len(failed)} plates"
        start = f"Not yet: {every} fail"
    else:
        good = len(of_plates) - len(failed)
        others = "the other fails" if len(failed) == 1 else "the others fail"
        start = f"Partly: {good} of {len(of_plates)} plates can be used; {others}"
    return {
        "level": FAIL,
        "text": f"{start} on {_and(checks)}. If you keep the data, leave out {left_out}.",
    }


def _listed(results: Results, dropped: pd.DataFrame) -> str:
    wells, fields = (int((dropped["drop"] == what).sum()) for what in ("well", "field"))
    cells = flagged_elsewhere(results, dropped)
    parts = []
    if wells:
        parts.append(counted(wells, "bad well"))
    if fields:
        parts.append(counted(fields, "other bad field" if wells else "bad field"))
    parts.append(counted(cells, "flagged cell") + (" elsewhere" if parts else ""))
    return _and(parts)


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
