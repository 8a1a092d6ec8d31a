"""Painting a field: the pixels of each cell, where neighbours meet, and the lens."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from hcsqc.screens.simulate.model import Cell, CellLine
from hcsqc.screens.simulate.textures import Textures, cut


@dataclass(frozen=True)
class Patch:
    """The pixels a cell can cover: views and coordinates that its painter works on."""

    rows: slice
    columns: slice
    along: np.ndarray  # pixels from the nucleus' centre, along its long axis
    across: np.ndarray
    nucleus_radii: np.ndarray  # distance: 0 at the nucleus' centre, 1 at its edge
    body_radii: np.ndarray  # distance: 0 at the body's centre, 1 at its edge


def paint_field(
    cells: list[Cell],
    line: CellLine,
    shape: tuple[int, int],
    textures: Textures,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the noise-free grey levels of a field, C x H x W float32, evenly lit.

    `shape` is H x W. Each cell is painted by `line.paint`, which is given the cell, its patch, the
    `body_radii` `near` and `far` of the nearest and second nearest cell at the patch's pixels, the
    textures and the generator.
    """
    bend = [5 * cut(textures.coarse, shape, rng) + cut(textures.medium, shape, rng) for _ in "yx"]
    dent = [0.5 * cut(textures.coarse, shape, rng) for _ in "yx"]
    patches = [_make_patch(cell, shape, bend, dent) for cell in cells]
    # The two cells nearest to each pixel, in units of their own radius: neighbours meet halfway.
    first = np.full(shape, 9, dtype=np.float32)
    second = np.full(shape, 9, dtype=np.float32)
    for patch in patches:
        near, far = first[patch.rows, patch.columns], second[patch.rows, patch.columns]
        np.minimum(far, np.maximum(near, patch.body_radii), out=far)
        np.minimum(near, patch.body_radii, out=near)
    light = np.zeros((len(line.channels), *shape), dtype=np.float32)
    for cell, patch in zip(cells, patches, strict=True):
        near, far = first[patch.rows, patch.columns], second[patch.rows, patch.columns]
        if near.size:
            painted = line.paint(cell, patch, near, far, textures, rng)
            light[:, patch.rows, patch.columns] += painted
    background = np.array(line.background, dtype=np.float32)
    return np.stack(
        [level + _through_lens(plane) for level, plane in zip(background, light, strict=True)]
    )


def _through_lens(light: np.ndarray) -> np.ndarray:
    """Return `light` with a little blur and the glow of what lies out of focus."""
    small = cv2.resize(light, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    glow = cv2.GaussianBlur(small, (0, 0), 2)
    glow = cv2.resize(glow, light.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return 0.92 * cv2.GaussianBlur(light, (0, 0), 0.8) + 0.08 * glow


def _make_patch(
    cell: Cell, shape: tuple[int, int], bend: list[np.ndarray], dent: list[np.ndarray]
) -> Patch:
    """Return a cell's patch; `bend` and `dent` (px, y and x) make outlines irregular."""
    half_y, half_x = _half_extent(cell)
    y, x = round(cell.y), round(cell.x)
    rows = slice(max(y - half_y, 0), max(min(y + half_y + 1, shape[0]), 0))
    columns = slice(max(x - half_x, 0), max(min(x + half_x + 1, shape[1]), 0))
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(cell.y))[:, None]
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(cell.x))[None, :]
    along, across = _turn(dy + dent[0][rows, columns], dx + dent[1][rows, columns], cell.angle)
    a, b = cell.nucleus
    nucleus_radii = np.sqrt((along / a) ** 2 + (across / b) ** 2)
    bend = dent if cell.mitotic else bend
    u, v = _turn(dy + bend[0][rows, columns], dx + bend[1][rows, columns], cell.angle)
    u, v = np.abs(u - cell.shift[0]) / cell.body[0], np.abs(v - cell.shift[1]) / cell.body[1]
    body_radii = (1 - cell.pointed) * np.sqrt(u * u + v * v) + cell.pointed * (u + v)
    if cell.mitotic:
        # It lies on top of its flat neighbours instead of meeting them halfway.
        body_radii **= 4
    return Patch(rows, columns, along, across, nucleus_radii, body_radii)


def _half_extent(cell: Cell) -> tuple[int, int]:
    """Return how far the body can reach from the nucleus, down and across, pixels."""
    along, across = (r + abs(shift) for r, shift in zip(cell.body, cell.shift, strict=True))
    cosine, sine = math.cos(cell.angle), math.sin(cell.angle)
    bent = 8
    return (
        math.ceil(math.hypot(along * sine, across * cosine)) + bent,
        math.ceil(math.hypot(along * cosine, across * sine)) + bent,
    )


def _turn(dy: np.ndarray, dx: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cosine * dx + sine * dy, cosine * dy - sine * dx
