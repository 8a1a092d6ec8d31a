"""Flags joined to single-cell profiles of other programs, by the nearest nucleus."""

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
JOINED = ["score", "probability", "flagged", "artefact"]


def with_flags(profiles: pd.DataFrame, cells: pd.DataFrame, match_px: float) -> pd.DataFrame:
    """Return profiles with `JOINED` of the cell whose nucleus is nearest in the same field.

    `cells` is cells.parquet. `profiles` have the columns of `PLACE`, or these with CellProfiler's
    prefix `Image_` (CytoTable keeps some so), and of `CENTRE`, in pixels of the source image.
    Places are read as `core.places` reads them: plates may be numbers, wells A1. A profile of
    another field, without a centre or without a nucleus within `match_px`, has none of the joined
    values. Rows, their order and all other columns stay. Raises InputError if a
    column is missing, or if no profile is of a field of `cells`.
    """
    check_columns(cells, [*PLACE, *CENTRE, *JOINED], "cells")
    check_columns(profiles, CENTRE, "profiles")
    cell_place = pd.DataFrame(
        {name: each(cells[name], read) for name, read in zip(PLACE, _READ, strict=True)}
    ).reset_index(drop=True)
    plates = sorted(set(cell_place[PLACE[0]]))
    given = _place(profiles)
    own_place = given.assign(
        **{
            PLACE[0]: plates_among(given[PLACE[0]], plates),
            PLACE[1]: each(given[PLACE[1]], parse_well),
            PLACE[2]: each(given[PLACE[2]], whole_number),
        }
    )
    nearest = np.full(len(profiles), -1)
    fields = cell_place.groupby(PLACE).indices
    centres = cells[CENTRE].to_numpy(float)
    own_centres = profiles[CENTRE].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    placed = np.isfinite(own_centres).all(axis=1)
    known = False
    for place, rows in own_place.groupby(PLACE).indices.items():
        own = fields.get(place)
        if own is None:
            continue
        known = True
        rows = rows[placed[rows]]
        distance, found = cKDTree(centres[own]).query(own_centres[rows])
        nearest[rows] = np.where(distance <= match_px, own[np.minimum(found, len(own) - 1)], -1)
    if len(profiles) and len(cells) and not known:
        told = [" ".join(map(as_text, table.iloc[0])) for table in (given, cell_place)]
        raise InputError(
            f"profiles: none is of a field of cells; the first is of plate, well, site {told[0]}, "
            f"that of cells of {told[1]}: name plates, wells and sites alike"
            f"{why_other(set(each(given[PLACE[0]], as_text)), plates)}"
        )
    joined = cells[JOINED].reset_index(drop=True).reindex(nearest)
    return profiles.assign(**{name: joined[name].array for name in JOINED})


def _place(profiles: pd.DataFrame) -> pd.DataFrame:
    """Return plate, well and site, as they are written, under the names of `PLACE`."""
    found = [name if name in profiles else f"Image_{name}" for name in PLACE]
    check_columns(profiles.rename(columns=dict(zip(found, PLACE, strict=True))), PLACE, "profiles")
    return profiles[found].set_axis(PLACE, axis=1).reset_index(drop=True)
