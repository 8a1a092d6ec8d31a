"""Flags joined to single-cell profiles of other programs, by the nearest nucleus."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from hcsqc.schema import check_columns

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
CENTRE = ["Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"]
JOINED = ["score", "probability", "flagged", "artefact"]


def with_flags(profiles: pd.DataFrame, cells: pd.DataFrame, match_px: float) -> pd.DataFrame:
    """Return profiles with `JOINED` of the cell whose nucleus is nearest in the same field.

    Both tables have the columns of `PLACE` and `CENTRE`, in pixels of the source image. A profile
    without a nucleus within `match_px` has none of the joined values. Rows, their order and all
    other columns stay. Raises InputError if a column is missing.
    """
    check_columns(profiles, [*PLACE, *CENTRE], "profiles")
    check_columns(cells, [*PLACE, *CENTRE, *JOINED], "cells")
    nearest = np.full(len(profiles), -1)
    fields = cells.groupby(PLACE).indices
    centres = cells[CENTRE].to_numpy(float)
    for place, rows in profiles.groupby(PLACE).indices.items():
        own = fields.get(place)
        if own is None:
            continue
        distance, found = cKDTree(centres[own]).query(profiles[CENTRE].to_numpy(float)[rows])
        nearest[rows] = np.where(distance <= match_px, own[np.minimum(found, len(own) - 1)], -1)
    joined = cells[JOINED].reset_index(drop=True).reindex(nearest)
    return profiles.assign(**{name: joined[name].array for name in JOINED})
