"""Maps of a plate: where its wells lie, how large it is, and the ends of a map's colours."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

# Rows and columns of plates with 24, 96, 384, 1536 and 3456 wells.
SHAPES = ((4, 6), (8, 12), (16, 24), (32, 48), (48, 72))
# Numbers beyond these shares of all wells do not stretch the scale.
SCALE_LOW, SCALE_HIGH = 0.01, 0.99


def places(wells: Iterable[str]) -> pd.DataFrame:
    """Return row and column, from 0, of wells named like B02 or AF48; -1 for any other name."""
    found = [_place(well) for well in wells]
    return pd.DataFrame(found, columns=["row", "column"], dtype=int)


def _place(well: str) -> tuple[int, int]:
    match = re.fullmatch(r"(A?)([A-Z])(\d{1,2})", str(well))
    if not match or not int(match[3]):
        return -1, -1
    return (26 if match[1] else 0) + ord(match[2]) - ord("A"), int(match[3]) - 1


def plate_shape(wells: Iterable[str]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate of 96 wells or more that has these wells.

    A plate of 24 wells is one of which at least half occur and no other well does.
    """
    found = places(sorted({str(well) for well in wells}))
    found = found[found["row"] >= 0]
    rows, columns = (int(found[name].max()) + 1 if len(found) else 1 for name in found)
    small = SHAPES[0]
    if rows <= small[0] and columns <= small[1] and 2 * len(found) >= small[0] * small[1]:
        return small
    for shape in SHAPES[1:]:
        if rows <= shape[0] and columns <= shape[1]:
            return shape
    return max(rows, SHAPES[-1][0]), max(columns, SHAPES[-1][1])


def shown_part(wells: Iterable[str], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first row, the end of rows, the first column and the end of columns of a map.

    They hold all wells, and around them a row and a column of others where the plate has them.
    `shape` is rows and columns of the plate; without any well all of it is shown.
    """
    found = places(wells)
    found = found[found["row"] >= 0]
    if found.empty:
        return 0, shape[0], 0, shape[1]
    (top, left), (bottom, right) = found.min() - 1, found.max() + 2
    return (
        max(0, int(top)),
        min(shape[0], int(bottom)),
        max(0, int(left)),
        min(shape[1], int(right)),
    )


def edge_distance(wells: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """Return how many wells lie between each well and the plate's edge: 0 at the edge, else more.

    `shape` is rows and columns of the plate. A name that is no well's has -1.
    """
    found = places(wells)
    row, column = found["row"].to_numpy(), found["column"].to_numpy()
    distance = np.minimum.reduce([row, shape[0] - 1 - row, column, shape[1] - 1 - column])
    return np.where(row < 0, -1, distance)


def colour_limits(values: pd.Series, from_zero: bool) -> tuple[float, float]:
    """Return where the colours of a map begin and end, the same for all plates of a screen."""
    known = values[np.isfinite(values.astype(float))].astype(float)
    if not len(known):
        return 0.0, 1.0
    low, high = known.quantile([SCALE_LOW, SCALE_HIGH])
    low = 0.0 if from_zero else float(low)
    return low, float(high) if high > low else low + 1.0
