"""Crops to look at: which ones."""

import numpy as np
import pandas as pd

from hcsqc.core.schema import ARTEFACTS
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.report.results import Results

PER_ARTEFACT, PER_SIDE, PER_COMPOUND, MOST_COMPOUNDS = 8, 8, 6, 10  # crops
PER_WELL = 2  # crops of one well that are shown before those of others
UNKNOWN = "of no known kind"
NEAR = 1000  # cells by score, among which those nearest the threshold are looked for


def worst_of_each_artefact(cells: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return artefact -> its `count` flagged cells with the highest scores, highest first.

    The artefacts come in the order of `schema.ARTEFACTS`, then others by name; cells flagged
    without one are UNKNOWN. One bad well does not fill a row: see PER_WELL.
    """
    flagged = cells[_flagged(cells)]
    kinds = flagged["artefact"].fillna(UNKNOWN).astype(str)
    others = sorted(set(kinds) - set(ARTEFACTS) - {UNKNOWN})
    order = [kind for kind in (*ARTEFACTS, *others, UNKNOWN) if (kinds == kind).any()]
    return {kind: _first(flagged[kinds == kind], count, highest=True) for kind in order}


def borderline(cells: pd.DataFrame, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the `count` flagged and the `count` passed cells whose scores lie nearest each other.

    Both begin at the threshold.
    """
    flagged = _flagged(cells)
    passed = cells["score"].notna() & ~flagged
    return (
        _nearest(cells, flagged, count, highest=False),
        _nearest(cells, passed, count, highest=True),
    )


def worst_of_treatment(
    cells: pd.DataFrame, fields: pd.DataFrame, treatment: pd.Series, count: int
) -> pd.DataFrame:
    """Return the `count` flagged cells with the highest scores in the wells of a treatment.

    `treatment` has compound and concentration_um, NaN where it is not known; `fields` says in
    which wells they are.
    """
    own = fields[fields["compound"] == treatment["compound"]]
    concentration = own["concentration_um"].astype(float)
    if pd.isna(treatment["concentration_um"]):
        own = own[concentration.isna()]
    else:
        own = own[np.isclose(concentration, float(treatment["concentration_um"]))]
    wells = pd.MultiIndex.from_frame(own[["Metadata_Plate", "Metadata_Well"]].drop_duplicates())
    inside = pd.MultiIndex.from_frame(cells[["Metadata_Plate", "Metadata_Well"]]).isin(wells)
    return _first(cells[_flagged(cells) & inside], count, highest=True)


def _flagged(cells: pd.DataFrame) -> pd.Series:
    return is_flagged(cells) & cells["score"].notna()


def _nearest(cells: pd.DataFrame, chosen: pd.Series, count: int, highest: bool) -> pd.DataFrame:
    """Return `_first` of the `chosen` cells, without sorting all of a large screen."""
    rows = np.flatnonzero(chosen)
    if len(rows) > NEAR:
        scores = cells["score"].to_numpy(float)[rows]
        signed = -scores if highest else scores
        near = cells.iloc[rows[signed <= np.partition(signed, NEAR)[NEAR]]]
        # All cells that come before these are among them, so their turns are what they are in all.
        turns = near.groupby(["Metadata_Plate", "Metadata_Well"]).size().clip(upper=PER_WELL)
        if turns.sum() >= count:
            return _first(near, count, highest)
    return _first(cells[chosen], count, highest)


def _first(rows: pd.DataFrame, count: int, highest: bool) -> pd.DataFrame:
    """Return `count` rows by score; of each well a few before more of it."""
    rows = rows.sort_values(["score", "crop_id"], ascending=[not highest, True])
    turn = rows.groupby(["Metadata_Plate", "Metadata_Well"]).cumcount() // PER_WELL
    chosen = rows.assign(turn=turn).sort_values("turn", kind="stable").head(count)
    return chosen.drop(columns="turn").sort_values(
        ["score", "crop_id"], ascending=[not highest, True]
    )


def galleries(results: Results) -> list[dict]:
    """Return kind, title, rows of cells (a table) and total, or the treatment, of each gallery.

    Kinds are `artefact`, `borderline` (first just flagged, then just passed) and `compound`: those
    that are warned of, the highest flag rate first, of which MOST_COMPOUNDS have crops.
    """
    cells = results.cells
    totals = cells.loc[_flagged(cells), "artefact"].fillna(UNKNOWN).astype(str).value_counts()
    found: list[dict] = [
        {"kind": "artefact", "title": kind, "rows": rows, "total": int(totals[kind])}
        for kind, rows in worst_of_each_artefact(cells, PER_ARTEFACT).items()
    ]
    for title, rows in zip(
        ("just flagged", "just passed"), borderline(cells, PER_SIDE), strict=True
    ):
        found.append({"kind": "borderline", "title": title, "rows": rows})
    warned = results.compounds[results.compounds["warned"]].sort_values(
        "flagged_share", ascending=False, na_position="last", kind="stable"
    )
    for place, (_, row) in enumerate(warned.iterrows()):
        rows = cells.head(0)
        if place < MOST_COMPOUNDS:
            rows = worst_of_treatment(cells, results.fields, row, PER_COMPOUND)
        found.append(
            {"kind": "compound", "title": row["compound"], "rows": rows, "row": row.to_dict()}
        )
    return found
