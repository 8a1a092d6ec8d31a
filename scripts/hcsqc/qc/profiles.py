"""Flags joined to single-cell profiles of other programs, by the nearest nucleus."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import each, plates_among
from hcsqc.core.places import as_text, parse_plate, parse_well, whole_number, why_other
from hcsqc.core.schema import check_columns

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
_READ = (parse_plate, parse_well, whole_number)
CENTRE = ["Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"]
# What else holds the centre: CytoTable's metadata, CellProfiler's file of one kind of object.
_CENTRES = [
    CENTRE,
    *(
        [f"{name}_{axis}" for axis in "XY"]
        for name in (
            "Metadata_Nuclei_Location_Center",
            "Nuclei_AreaShape_Center",
            "Location_Center",
            "AreaShape_Center",
        )
    ),
]
# CytoTable puts the name of the table before a column of it.
_PREFIXES = ("", "Image_", "Nuclei_", "Cells_", "Cytoplasm_")
IDS = ("crop_id", "Metadata_crop_id")
JOINED = ["score", "probability", "flagged", "artefact"]


@dataclass(frozen=True)
class Matches:
    """The cell that each of n profiles is, and why not.

    `cell` is its row number in the table of cells, -1 for none. `distance_px` is that to the
    nearest nucleus of its field, nan where the profile has no centre, its field is not among the
    cells, or ids were compared. `known` tells which profiles are of a field of the cells.
    """

    cell: np.ndarray
    distance_px: np.ndarray
    known: np.ndarray


def with_flags(profiles: pd.DataFrame, cells: pd.DataFrame, match_px: float) -> pd.DataFrame:
    """Return profiles with `JOINED` of the cell that each one is.

    Arguments and errors are those of `match_cells`. A profile without a cell has none of the joined
    values. Rows, their order and all other columns stay.
    """
    found = match_cells(profiles, cells, match_px)
    joined = cells[JOINED].reset_index(drop=True).reindex(found.cell)
    return profiles.assign(**{name: joined[name].array for name in JOINED})


def match_cells(profiles: pd.DataFrame, cells: pd.DataFrame, match_px: float) -> Matches:
    """Return which cell each profile is: the nearest nucleus of its field within `match_px`.

    `cells` is cells.parquet. `profiles` have the columns of `PLACE`, or these with a prefix of
    CytoTable (`Image_`, `Nuclei_`), and the centre of the nucleus in pixels of the source
    image. Places are read as `core.places` reads them: plates may be numbers, wells A1. Where
    profiles have a column of `IDS`, it alone decides. Raises InputError if a column is missing, or
    if no profile is of a field (or has an id) of `cells`.
    """
    check_columns(cells, [*PLACE, *CENTRE, *JOINED], "cells")
    for name in IDS:
        if name in profiles:
            check_columns(cells, ["crop_id"], "cells")
            return _match_ids(profiles[name], cells["crop_id"], name)
    centre = centre_columns(list(profiles.columns)) or CENTRE
    check_columns(profiles, centre, "profiles")
    cell_place = pd.DataFrame(
        {name: each(cells[name], read) for name, read in zip(PLACE, _READ, strict=True)}
    ).reset_index(drop=True)
    plates = sorted(set(cell_place[PLACE[0]]))
    given = places_as_given(profiles)
    own_place = given.assign(
        **{
            PLACE[0]: plates_among(given[PLACE[0]], plates),
            PLACE[1]: each(given[PLACE[1]], parse_well),
            PLACE[2]: each(given[PLACE[2]], whole_number),
        }
    )
    nearest, distances = np.full(len(profiles), -1), np.full(len(profiles), np.nan)
    fields = cell_place.groupby(PLACE).indices
    centres = cells[CENTRE].to_numpy(float)
    own_centres = profiles[centre].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    placed = np.isfinite(own_centres).all(axis=1)
    known = np.zeros(len(profiles), bool)
    for place, rows in own_place.groupby(PLACE).indices.items():
        own = fields.get(place)
        if own is None:
            continue
        known[rows] = True
        rows = rows[placed[rows]]
        distance, found = cKDTree(centres[own]).query(own_centres[rows])
        nearest[rows] = np.where(distance <= match_px, own[np.minimum(found, len(own) - 1)], -1)
        distances[rows] = distance
    if len(profiles) and len(cells) and not known.any():
        told = [" ".join(map(as_text, table.iloc[0])) for table in (given, cell_place)]
        raise InputError(
            f"profiles: no row is of a field of the cells; the first row is of plate, well, site "
            f"{told[0]}, the first cell is of {told[1]}: use the same names"
            f"{why_other(set(each(given[PLACE[0]], as_text)), plates)}"
        )
    return Matches(nearest, distances, known)


def centre_columns(names: list[str]) -> list[str] | None:
    """Return the two columns of a table of profiles that hold the nucleus' centre, or None."""
    return next((pair for pair in _CENTRES if set(pair) <= set(names)), None)


def place_columns(names: list[str], keys: list[str]) -> list[str]:
    """Return what a table calls each of some keys of `PLACE`: perhaps with a prefix of `_PREFIXES`.

    A key that it does not have keeps its own name.
    """
    return [
        next((name for prefix in _PREFIXES if (name := prefix + key) in names), key) for key in keys
    ]


def places_as_given(profiles: pd.DataFrame, keys: list[str] = PLACE) -> pd.DataFrame:
    """Return plate, well and perhaps site, as they are written, under the names of `keys`.

    Raises InputError if a column is missing.
    """
    found = place_columns(list(profiles.columns), keys)
    named = profiles.rename(columns=dict(zip(found, keys, strict=True)))
    check_columns(named, keys, "profiles")
    return profiles[found].set_axis(keys, axis=1).reset_index(drop=True)


def _match_ids(ids: pd.Series, crop_ids: pd.Series, name: str) -> Matches:
    given = each(ids, as_text)
    cell = pd.Index(crop_ids).get_indexer(pd.Index(given))
    if len(ids) and len(crop_ids) and (cell < 0).all():
        raise InputError(
            f"profiles: no {name} is that of a cell; the first is '{given.iloc[0]}', the first "
            f"cell is '{crop_ids.iloc[0]}': join the profiles of the same screen"
        )
    return Matches(cell, np.full(len(ids), np.nan), cell >= 0)
