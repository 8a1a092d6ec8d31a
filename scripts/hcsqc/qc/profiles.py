"""Flags joined to single-cell profiles of other programs, by the nearest nucleus."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from hcsqc.core.errors import InputError
from hcsqc.core.schema import check_columns

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
CENTRE = ["Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"]
JOINED = ["score", "probability", "flagged", "artefact"]


def with_flags(profiles: pd.DataFrame, cells: pd.DataFrame, match_px: float) -> pd.DataFrame:
    """Return profiles with `JOINED` of the cell whose nucleus is nearest in the same field.

    `cells` is cells.parquet. `profiles` have the columns of `PLACE`, or these with CellProfiler's
    prefix `Image_` (CytoTable keeps some so), and of `CENTRE`, in pixels of the source image.
    Plates may be numbers. A profile of another field, or without a nucleus within `match_px`, has
    none of the joined values. Rows, their order and all other columns stay. Raises InputError if a
    column is missing, or if no profile is of a field of `cells`.
    """
    check_columns(cells, [*PLACE, *CENTRE, *JOINED], "cells")
    own_place = _place(profiles)
    check_columns(profiles, CENTRE, "profiles")
    nearest = np.full(len(profiles), -1)
    fields = cells.groupby(PLACE).indices
    centres = cells[CENTRE].to_numpy(float)
    known = False
    for place, rows in own_place.groupby(PLACE).indices.items():
        own = fields.get(place)
        if own is None:
            continue
        known = True
        distance, found = cKDTree(centres[own]).query(profiles[CENTRE].to_numpy(float)[rows])
        nearest[rows] = np.where(distance <= match_px, own[np.minimum(found, len(own) - 1)], -1)
    if len(profiles) and len(cells) and not known:
        told = [" ".join(map(str, table[PLACE].iloc[0])) for table in (own_place, cells)]
        raise InputError(
            f"profiles: none is of a field of cells; the first is of plate, well, site {told[0]}, "
            f"that of cells of {told[1]}: name plates, wells and sites alike"
        )
    joined = cells[JOINED].reset_index(drop=True).reindex(nearest)
    return profiles.assign(**{name: joined[name].array for name in JOINED})


def _place(profiles: pd.DataFrame) -> pd.DataFrame:
    """Return plate, well and site under the names of `PLACE`, as cells.parquet has them.

    Plates that were read as numbers are text again. What is no place of a field is missing.
    """
    found = [name if name in profiles else f"Image_{name}" for name in PLACE]
    check_columns(profiles.rename(columns=dict(zip(found, PLACE, strict=True))), PLACE, "profiles")
    place = profiles[found].set_axis(PLACE, axis=1)
    plate, site = place[PLACE[0]], pd.to_numeric(place[PLACE[2]], errors="coerce").astype(float)
    if pd.api.types.is_numeric_dtype(plate):
        # A column of whole numbers with a gap in it is one of decimals.
        plate = plate.where(plate % 1 == 0).astype("Int64")
    return place.assign(
        **{
            PLACE[0]: plate.astype("string").astype(object),
            PLACE[2]: site.where(site % 1 == 0).astype("Int64"),
        }
    )
