"""Maps of a plate: a square per well in the colour of a number; bad ones crossed, empty hatched."""

import re
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from hcsqc.qc.report.figures import png

# Rows and columns of plates with 24, 96, 384, 1536 and 3456 wells.
SHAPES = ((4, 6), (8, 12), (16, 24), (32, 48), (48, 72))
COLOURS = "cividis"
WIDTH_INCHES = 4.4
# Numbers beyond these shares of all wells do not stretch the scale.
SCALE_LOW, SCALE_HIGH = 0.01, 0.99
NOT_IMAGED = {"facecolor": "white", "edgecolor": "0.85", "hatch": "////", "linewidth": 0.0}
NO_VALUE = {"facecolor": "0.93", "edgecolor": "0.35", "hatch": "....", "linewidth": 0.0}


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


def draw_plate_map(
    wells: Iterable[str],
    values: Iterable[float],
    bad: Iterable[bool],
    shape: tuple[int, int],
    limits: tuple[float, float],
    title: str,
) -> bytes:
    """Return the map of one plate as PNG.

    `wells`, `values` (NaN: hatched) and `bad` (outlined and crossed) belong together; `shape` is
    rows and columns of the plate, `limits` the numbers at the ends of the colours.
    """
    found = places(wells)
    grid, imaged = np.full(shape, np.nan), np.zeros(shape, bool)
    crossed = []
    for row, column, value, is_bad in zip(found["row"], found["column"], values, bad, strict=True):
        if row < 0:
            continue
        grid[row, column], imaged[row, column] = value, True
        if is_bad:
            crossed.append((row, column))
    height = WIDTH_INCHES * 0.80 * shape[0] / shape[1] + 0.62
    figure = plt.figure(figsize=(WIDTH_INCHES, height))
    axis = figure.add_axes((0.075, 0.08 / height, 0.80, (height - 0.62) / height))
    shown = axis.pcolormesh(
        np.arange(shape[1] + 1) - 0.5,
        np.arange(shape[0] + 1) - 0.5,
        np.ma.masked_invalid(grid),
        cmap=COLOURS,
        norm=Normalize(*limits),
        edgecolors="white",
        linewidth=0.6 if shape[1] <= 24 else 0.25,
    )
    _hatch(axis, ~imaged, NOT_IMAGED)
    _hatch(axis, imaged & np.isnan(grid), NO_VALUE)
    _name_rows_and_columns(axis, shape)
    _cross(axis, crossed, shape)
    axis.set_title(title, fontsize=10, pad=16, loc="left")
    bar = figure.add_axes((0.895, 0.08 / height, 0.025, (height - 0.62) / height))
    beyond = (
        np.nanmax(grid, initial=-np.inf) > limits[1],
        np.nanmin(grid, initial=np.inf) < limits[0],
    )
    extend = {(True, True): "both", (True, False): "max", (False, True): "min"}.get(beyond)
    figure.colorbar(shown, cax=bar, extend=extend or "neither")
    bar.tick_params(labelsize=7, length=2)
    return png(figure, tight=False)


def _hatch(axis, where: np.ndarray, style: dict) -> None:
    squares = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in np.argwhere(where)]
    if squares:
        axis.add_collection(PatchCollection(squares, **style))


def _name_rows_and_columns(axis, shape: tuple[int, int]) -> None:
    rows, columns = shape
    axis.set_xlim(-0.5, columns - 0.5)
    axis.set_ylim(rows - 0.5, -0.5)
    step = max(1, columns // 24)
    size = 7 if columns <= 12 else 5.5
    letters = [("A" if row >= 26 else "") + chr(ord("A") + row % 26) for row in range(rows)]
    axis.set_xticks(range(0, columns, step), range(1, columns + 1, step), fontsize=size)
    axis.set_yticks(range(0, rows, step), letters[::step], fontsize=size)
    axis.tick_params(length=0, pad=1.5, top=True, labeltop=True, labelbottom=False)
    for spine in axis.spines.values():
        spine.set_color("0.5")


def _cross(axis, crossed: Sequence[tuple[int, int]], shape: tuple[int, int]) -> None:
    """Outline and cross wells in black on white, which stands out from every colour below."""
    width = {6: 2.2, 12: 1.8, 24: 1.1}.get(shape[1], 0.6)
    halo = [withStroke(linewidth=2.4 * width, foreground="white")]
    for row, column in crossed:
        left, right, top, bottom = column - 0.4, column + 0.4, row - 0.4, row + 0.4
        xs = [left, right, np.nan, left, right, np.nan, left, right, right, left, left]
        ys = [top, bottom, np.nan, bottom, top, np.nan, top, top, bottom, bottom, top]
        axis.plot(xs, ys, color="black", linewidth=width, path_effects=halo, clip_on=False)
