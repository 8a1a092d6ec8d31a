"""Flags for a table of profiles: of single cells, or of wells; and what is said of the join."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import each, plates_among
from hcsqc.core.places import as_text, parse_plate, parse_well, why_other
from hcsqc.core.schema import as_written, check_columns
from hcsqc.qc.profiles import (
    CENTRE,
    IDS,
    PLACE,
    Matches,
    centre_columns,
    match_cells,
    place_columns,
    places_as_given,
)
from hcsqc.screens.layouts.base import first_few

# Nuclei_Number_Object_Number of a profile of wells is a mean, like any feature.
_OF_OBJECT = re.compile(r"^(Metadata_.*)?Object_?Number$")
_WELL = PLACE[:2]
_COUNTS = {
    "nuclei": "nuclei",
    "scored": "scored",
    "flagged": "flagged_cells",
    "flagged_share": "flagged_share",
    "bad": "bad",
}


@dataclass(frozen=True)
class Joined:
    """Flags under the row numbers of the profiles, and lines that say how the join went."""

    flags: pd.DataFrame
    told: list[str]


def is_of_cells(names: list[str]) -> bool:
    """Return whether a table with these columns has a row per cell rather than per well.

    A profile of wells may hold mean centres, but it has no site and no number of an object. Raises
    InputError if there is a row per cell, but nothing to find the cells by.
    """
    if any(name in names for name in IDS):
        return True
    number = next((name for name in names if _OF_OBJECT.search(name)), None)
    if centre_columns(names):
        return bool(number) or place_columns(names, PLACE[2:])[0] in names
    if number:
        raise InputError(
            f"profiles: there is a row per cell ({number}), but no centre of its nucleus; keep "
            f"{CENTRE[0]} and _Y in the table"
        )
    return False


def key_columns(names: list[str], of_cells: bool) -> list[str]:
    """Return the columns of a table of profiles that the join needs.

    Raises InputError if one is missing.
    """
    ids = [name for name in IDS if name in names] if of_cells else []
    centre = (centre_columns(names) or []) if of_cells and not ids else []
    keys = PLACE if centre else _WELL
    found = place_columns(names, keys)
    missing = [key for key, name in zip(keys, found, strict=True) if name not in names]
    if missing:
        raise InputError(
            f"profiles: column '{missing[0]}' is missing; a table of "
            f"{'cells' if of_cells else 'wells'} needs {', '.join(keys)} (CellProfiler: 'Add image "
            "metadata columns to your object data file')"
        )
    return [*ids, *found, *centre]


def read_wells(path: Path) -> pd.DataFrame:
    """Read wells.csv; a plate may be called 0042, NA or, with an apostrophe, @1.

    Raises InputError if it is not there, or is another table.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; flags of wells lie beside cells.parquet")
    wells = pd.read_csv(path, dtype={_WELL[0]: str}, keep_default_na=False)
    check_columns(wells, [*_WELL, *_COUNTS], str(path))
    numbers = {name: pd.to_numeric(wells[name], errors="coerce") for name in _COUNTS}
    numbers["bad"] = wells["bad"].astype(str) == "True"
    return wells.assign(Metadata_Plate=as_written(wells[_WELL[0]]), **numbers)


def join_cells(
    profiles: pd.DataFrame, cells: pd.DataFrame, match_px: float, min_cells: int | None
) -> Joined:
    """Return score, flag and artefact of the cell that each profile is.

    `profiles` have the columns of `key_columns`, `cells` is cells.parquet. With `min_cells` the
    column few_cells marks profiles of wells that have fewer profiles whose cell was scored and not
    flagged. Raises InputError if no profile is a cell.
    """
    found = match_cells(profiles, cells, match_px)
    if len(profiles) and (found.cell < 0).all():
        raise InputError(_nothing_near(profiles, cells, found, match_px))
    own = cells[["score", "flagged", "artefact"]].reset_index(drop=True).reindex(found.cell)
    flags = own.set_axis(profiles.index).astype({"flagged": "boolean"})
    joined = found.cell >= 0
    told = [_how_many("single cells", joined)]
    if np.isfinite(found.distance_px).any():
        median = np.median(found.distance_px[joined])
        told.append(
            f"matched by plate, well, site and the nearest nucleus within {match_px:g} px; "
            f"median distance {median:.1f} px"
        )
        told.append(_spelling(profiles, cells, found))
    told += _not_joined(profiles, found, match_px)
    repeated = pd.Series(found.cell[joined]).duplicated(keep=False).sum()
    if repeated:
        told.append(f"rows that share their cell with another: {repeated}; they may be repeated")
    unscored = int((flags["flagged"].isna().to_numpy() & joined).sum())
    if unscored:
        told.append(
            f"joined, but not scored (cells.parquet says why): {unscored}, which have no flag"
        )
    told.append(f"flagged: {int(flags['flagged'].sum())} of {int(flags['flagged'].count())}")
    if min_cells is None:
        return Joined(flags, told)
    wells = _wells_as_read(profiles)
    left = (flags["flagged"] == False).fillna(False).astype(int)  # noqa: E712
    counts = left.groupby([wells[name] for name in _WELL], dropna=False).transform("sum")
    per_well = wells.assign(left=counts.astype(int)).drop_duplicates(_WELL)
    told += _few(per_well, min_cells)
    return Joined(flags.assign(few_cells=counts < min_cells), told)


def join_wells(profiles: pd.DataFrame, wells: pd.DataFrame, min_cells: int | None) -> Joined:
    """Return the counts of the well of each profile, its flagged share and whether it is bad.

    `profiles` have the columns of `key_columns`, `wells` is what `read_wells` returned. With
    `min_cells` the column few_cells marks wells with fewer cells that were scored and not flagged.
    Raises InputError if no profile is of a well of `wells`.
    """
    given = _wells_as_read(profiles, set(wells[_WELL[0]]))
    known = pd.MultiIndex.from_frame(wells[_WELL])
    place = known.get_indexer(pd.MultiIndex.from_frame(given))
    as_given = places_as_given(profiles, _WELL)
    joined = place >= 0
    if len(profiles) and not joined.any():
        told = [" ".join(map(as_text, table.iloc[0])) for table in (as_given, wells[_WELL])]
        raise InputError(
            f"profiles: no row is of a well in wells.csv; the first row is of plate, well "
            f"'{told[0]}', the first well is '{told[1]}': use the same names"
            f"{why_other(set(each(as_given[_WELL[0]], as_text)), wells[_WELL[0]])}"
        )
    own = wells[list(_COUNTS)].rename(columns=_COUNTS).reset_index(drop=True).reindex(place)
    whole = dict.fromkeys(("nuclei", "scored", "flagged_cells"), "Int64")
    flags = own.set_axis(profiles.index).astype(whole | {"bad": "boolean"})
    told = [_how_many("wells", joined)]
    told.append(
        _spelled(as_given[joined].iloc[0], wells[_WELL].iloc[place[joined][0]], "wells.csv")
    )
    if not joined.all():
        first = int(np.argmin(joined))
        told.append(
            f"not joined, of a well that is not in wells.csv: {int((~joined).sum())}, first row "
            f"{profiles.index[first] + 1}, '{_text(as_given.iloc[first])}'"
        )
    repeated = int(given[joined].duplicated(keep=False).sum())
    if repeated:
        told.append(f"rows that share their well with another: {repeated}; they may be repeated")
    bad = flags[joined]["bad"].fillna(False).astype(bool)
    told.append(f"rows of bad wells: {int(bad.sum())} of {int(joined.sum())}")
    if min_cells is None:
        return Joined(flags, told)
    left = (flags["scored"] - flags["flagged_cells"]).fillna(0).astype(int)
    per_well = given.assign(left=left)[joined].drop_duplicates(_WELL)
    told += _few(per_well, min_cells)
    return Joined(flags.assign(few_cells=(left < min_cells).where(joined).astype("boolean")), told)


def _wells_as_read(profiles: pd.DataFrame, plates: set[str] | None = None) -> pd.DataFrame:
    """Return plate and well of each row, written alike; a plate that is not known stays."""
    given = places_as_given(profiles, _WELL).set_index(profiles.index)
    own = each(given[_WELL[0]], parse_plate)
    if plates is not None:
        named = plates_among(given[_WELL[0]], plates)
        own = named.where(named.notna(), own)
    return pd.DataFrame({_WELL[0]: own, _WELL[1]: each(given[_WELL[1]], parse_well)})


def _how_many(what: str, joined: np.ndarray) -> str:
    return f"{what}: {int(joined.sum())} of {len(joined)} rows joined, {int((~joined).sum())} not"


def _text(place: pd.Series) -> str:
    return " ".join(map(as_text, place))


def _spelled(given: pd.Series, own: pd.Series, called: str) -> str:
    names = ", ".join(name.removeprefix("Metadata_").lower() for name in own.index)
    return f"spelling: {names} '{_text(given)}' of the profiles is '{_text(own)}' of {called}"


def _spelling(profiles: pd.DataFrame, cells: pd.DataFrame, found: Matches) -> str:
    first = int(np.argmax(found.cell >= 0))
    own = cells[PLACE].iloc[found.cell[first]]
    return _spelled(places_as_given(profiles).iloc[first], own, "cells.parquet")


def _not_joined(profiles: pd.DataFrame, found: Matches, match_px: float) -> list[str]:
    """Return a line for each reason for which rows were not joined, with its first row."""
    lost = found.cell < 0
    by_place = np.isfinite(found.distance_px).any()
    far = lost & np.isfinite(found.distance_px)
    reasons: Mapping[str, np.ndarray] = {
        "of a field that is not in cells.parquet"
        if by_place
        else "whose id is not in cells.parquet": lost & ~found.known,
        "without a centre": lost & found.known & ~far,
        f"without a nucleus within {match_px:g} px": far,
    }
    keys = PLACE if by_place else _WELL
    told = []
    for why, rows in reasons.items():
        if rows.any():
            first = int(np.argmax(rows))
            place = _text(places_as_given(profiles, keys).iloc[first])
            told.append(
                f"not joined, {why}: {int(rows.sum())}, first row {profiles.index[first] + 1}, "
                f"'{place}'"
            )
    return told


def _nothing_near(
    profiles: pd.DataFrame, cells: pd.DataFrame, found: Matches, match_px: float
) -> str:
    """Return why no profile is a cell, though some are of a field of the cells."""
    centre = centre_columns(list(profiles.columns)) or CENTRE
    rows = np.isfinite(found.distance_px)
    if not rows.any():
        return f"profiles: no row has a centre in {centre[0]} and _Y that is a number"
    first = int(np.argmax(rows))
    x, y = profiles[centre].iloc[first]
    place = _text(places_as_given(profiles).iloc[first])
    return (
        f"profiles: no row has a nucleus of cells.parquet within {match_px:g} px; the first, "
        f"'{place}', is at {as_text(x)}, {as_text(y)}, the nearest nucleus "
        f"{found.distance_px[first]:.1f} px away: give centres in pixels of the source image, or a "
        "larger --match-px"
    )


def _few(per_well: pd.DataFrame, min_cells: int) -> list[str]:
    few = per_well[per_well["left"] < min_cells]
    told = f"wells with fewer than {min_cells} cells left: {len(few)} of {len(per_well)}"
    if len(few):
        names = [f"{_text(row[_WELL])} ({row['left']})" for _, row in few.iterrows()]
        told += f", {first_few(names)}"
    return [told]
