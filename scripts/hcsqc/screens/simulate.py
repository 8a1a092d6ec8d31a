"""Simulated plates in the layout of BBBC022 and BBBC021, with the truth about each nucleus.

Shapes, grey levels and noise imitate the eight open fields of BBBC022 plate 20585 (measured
there: variance = 0.4 x (level - 120) + 2^2 grey levels). MCF7 follows published pictures of
BBBC021 and is a looser likeness. Simulated data try the workflow out; they say nothing about
how well an encoder does on real screens.
"""

import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic, text_digest
from hcsqc.core.progress import Progress
from hcsqc.core.schema import TABLES
from hcsqc.screens.artefacts import CORE_RADII, REACH_RADII, SIMULATED, Optics, degrade

TOP = 4095.0  # 12-bit cameras in 16-bit files
CAMERA_OFFSET = 120.0  # grey levels without light
GREY_LEVELS_PER_ELECTRON = 0.4
READ_NOISE = 2.0  # grey levels
STRENGTHS = (0.25, 1.0)
VISIBLE = 0.25  # of a normal signal, that dirt adds
CLEAN = ("none", 0.0, "cell")  # a cell's artefact, strength, scope
SHADING = 0.15  # loss of light from the brightest place of a field to the darkest
MITOTIC_SHARE = 0.03
TILE = 512  # pixels; textures repeat beyond
BODY_OVERLAP = 0.12  # of a cell's radius, over which two neighbours share a border
CROWDING = 0.6  # share of the area that the spaces around all nuclei may take


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate; shares run from 0 to 1."""

    cell_line: str  # u2os: five channels as BBBC022; mcf7: three channels as BBBC021
    wells: tuple[str, ...]  # such as B02
    sites: int  # fields per well
    height_px: int
    width_px: int
    cells_per_field: int  # mean number of nuclei whose centre is inside the field
    touching_share: float  # of the nuclei, that touch another
    artefact_cell_share: float  # of the cells, that have an artefact of their own
    artefact_field_share: float  # of the fields, that have an artefact as a whole
    seed: int


@dataclass(frozen=True)
class Cell:
    """Where a cell lies and how it looks; lengths in pixels, angle in radians."""

    y: float
    x: float
    angle: float
    nucleus: tuple[float, float]  # semi-axes along and across
    body: tuple[float, float]
    shift: tuple[float, float]  # of the body's centre from the nucleus', along and across
    pointed: float  # 0: the body is an ellipse, 1: a rhombus
    side: float  # direction in which organelles gather
    brightness: np.ndarray  # (C,) factor
    mitotic: bool


@dataclass(frozen=True)
class Textures:
    """Periodic noise tiles of mean 0 and deviation 1, from fine to wide grain."""

    fine: np.ndarray
    medium: np.ndarray
    coarse: np.ndarray
    wide: np.ndarray
    fibres: np.ndarray  # elongated along x


@dataclass(frozen=True)
class Patch:
    """The pixels a cell can cover: views and coordinates that its painter works on."""

    rows: slice
    columns: slice
    along: np.ndarray  # pixels from the nucleus' centre, along its long axis
    across: np.ndarray
    nucleus_radii: np.ndarray  # distance: 0 at the nucleus' centre, 1 at its edge
    body_radii: np.ndarray  # distance: 0 at the body's centre, 1 at its edge


@dataclass(frozen=True)
class CellLine:
    """What differs between the cell lines: sizes in pixels, grey levels of the channels."""

    channels: tuple[int, ...]  # digits in the file names
    background: tuple[float, ...]
    signal: tuple[float, ...]
    nucleus: tuple[float, float]  # mean semi-axes
    body: tuple[float, float]  # mean semi-axes
    pointed: float  # the most that a body is
    spacing: float  # between the centres of nuclei that do not touch
    clustering: float  # 0: anywhere; higher: islands with gaps between
    paint: Callable[..., np.ndarray]


def simulate_plate(
    settings: SimulationSettings,
    plate: str,
    images: str | Path,
    image_csv: str | Path,
    progress_label: str,
) -> pd.DataFrame:
    """Write a plate's TIFFs below `images` and its image CSV, and return the truth.

    One row per nucleus that is in a field, with the columns of schema.TABLES["truth"]. A field
    depends only on the seed, the plate, its well and its site.
    """
    check_settings(settings, plate)
    line = CELL_LINES[settings.cell_line]
    textures = make_textures()
    shading = make_shading(settings, plate, len(line.channels))
    names_of_field, row_of_field = LAYOUTS[settings.cell_line]
    progress = Progress(len(settings.wells) * settings.sites, "fields", progress_label)
    truths, rows = [], []
    for well in settings.wells:
        for site in range(1, settings.sites + 1):
            image, truth = simulate_field(settings, plate, well, site, textures, shading)
            names = names_of_field(settings, plate, well, site)
            for name, plane in zip(names, image, strict=True):
                with atomic(Path(images) / name) as temporary:
                    tifffile.imwrite(temporary, plane)
            truths.append(truth)
            rows.append(row_of_field(plate, well, site, len(rows) + 1, names))
            progress.update()
    progress.close()
    with atomic(image_csv) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return pd.concat(truths, ignore_index=True)


def check_settings(settings: SimulationSettings, plate: str) -> None:
    """Raise InputError if the settings or the plate's name make no sense."""
    if settings.cell_line not in CELL_LINES:
        raise InputError(
            f"cell_line '{settings.cell_line}' is not known; choose one of {list(CELL_LINES)}"
        )
    for name in ("touching_share", "artefact_cell_share", "artefact_field_share"):
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"{name} is {getattr(settings, name)}, but must be from 0 to 1")
    for name in ("height_px", "width_px", "cells_per_field"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} is {getattr(settings, name)}, but must be at least 1")
    if not 1 <= settings.sites <= 9:
        raise InputError(f"sites is {settings.sites}, but the file names have one digit: 1 to 9")
    if not settings.wells or len(set(settings.wells)) < len(settings.wells):
        raise InputError(f"wells {list(settings.wells)} must be at least one and all different")
    for well in settings.wells:
        if not WELL_NAMES[settings.cell_line].fullmatch(well):
            raise InputError(f"well '{well}' is none of {settings.cell_line}: {WELL_RANGE}")
    if not PLATE_NAMES[settings.cell_line].fullmatch(plate):
        raise InputError(
            f"plate '{plate}' does not fit {settings.cell_line}: u2os wants letters, digits and "
            "_ or -, mcf7 wants a name like Week1_22123"
        )
    line = CELL_LINES[settings.cell_line]
    fit = int(CROWDING * settings.height_px * settings.width_px / line.spacing**2)
    if settings.cells_per_field > fit:
        raise InputError(
            f"cells_per_field is {settings.cells_per_field}, but only {fit} fit into "
            f"{settings.height_px} x {settings.width_px} px"
        )


def simulate_field(
    settings: SimulationSettings,
    plate: str,
    well: str,
    site: int,
    textures: Textures,
    shading: np.ndarray,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return one field's image, C x H x W uint16, and its truth, a row per nucleus inside."""
    line = CELL_LINES[settings.cell_line]
    optics = optics_of(settings.cell_line)
    rng = _random(settings.seed, plate, well, site)
    shape = settings.height_px, settings.width_px
    cells = place_cells(settings, line, textures, rng)
    field_artefact = rng.random() < settings.artefact_field_share
    artefact, strength = SIMULATED[rng.integers(len(SIMULATED))], rng.uniform(*STRENGTHS)
    if field_artefact and artefact == "empty":
        # An empty field has lost its cells; the few that are left are ghosts.
        cells = [cell for cell in cells if rng.random() > strength]
    levels = paint_field(cells, line, shape, textures, rng)
    levels = CAMERA_OFFSET + (levels - CAMERA_OFFSET) * shading
    inside = [cell for cell in cells if _is_inside(cell, shape)]
    if field_artefact:
        clean, levels = levels, degrade(levels, artefact, strength, rng, optics)
        states = [(artefact, strength, "field")] * len(inside)
        if artefact == "debris":
            states = _with_dirt_in_reach(states, inside, levels - clean, optics)
    else:
        levels, states = _spoil_cells(levels, inside, settings, rng, optics)
    truth = pd.DataFrame(
        [
            (plate, well, site, round(cell.x), round(cell.y), *state)
            for cell, state in zip(inside, states, strict=True)
        ],
        columns=TABLES["truth"].columns.names,
    ).astype({"site": "int32", "x_px": "int32", "y_px": "int32", "strength": "float64"})
    return expose(levels, rng), truth


def _with_dirt_in_reach(
    states: list[tuple[str, float, str]], cells: list[Cell], dirt: np.ndarray, optics: Optics
) -> list[tuple[str, float, str]]:
    """Return the cells' states, those that no dirt of their field comes near as clean.

    `dirt` are the grey levels that it adds, C x H x W. Nobody would call a crop without any dirty.
    """
    seen = (dirt > VISIBLE * optics.signal[:, None, None]).any(axis=0)
    away = cv2.distanceTransform((~seen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    reach = REACH_RADII * optics.nucleus_radius_px
    return [
        state if away[round(cell.y), round(cell.x)] <= reach else CLEAN
        for cell, state in zip(cells, states, strict=True)
    ]


def optics_of(cell_line: str) -> Optics:
    """Return what the artefact models must know about a simulated cell line."""
    line = CELL_LINES[cell_line]
    radius = math.sqrt(line.nucleus[0] * line.nucleus[1])
    return Optics(np.array(line.background), np.array(line.signal), TOP, radius)


def expose(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what the camera records of noise-free grey levels: uint16, 12 bits.

    Shot noise is drawn as a normal deviate, since a pixel collects a hundred electrons or more.
    A level at the top stands for any light beyond it, so that it stays there.
    """
    shot_variance = GREY_LEVELS_PER_ELECTRON * np.maximum(levels - CAMERA_OFFSET, 0)
    noisy = rng.standard_normal(levels.shape, dtype=np.float32)
    noisy *= np.sqrt(shot_variance + READ_NOISE**2)
    noisy += levels
    noisy[levels >= TOP] = TOP
    return np.clip(np.rint(noisy), 0, TOP).astype(np.uint16)


def _spoil_cells(
    levels: np.ndarray,
    cells: list[Cell],
    settings: SimulationSettings,
    rng: np.random.Generator,
    optics: Optics,
) -> tuple[np.ndarray, list[tuple[str, float, str]]]:
    """Give some cells an artefact of their own; return the levels and each cell's state.

    A neighbour whose nucleus the artefact covers by half or more has the same state, unless it
    has its own. Debris is a small object beside one nucleus; a dead cell leaves its neighbour
    faded.
    """
    covered_px = (CORE_RADII + REACH_RADII) / 2 * optics.nucleus_radius_px
    states = [CLEAN] * len(cells)
    chosen = [i for i in range(len(cells)) if rng.random() < settings.artefact_cell_share]
    for i in chosen:
        artefact, strength = SIMULATED[rng.integers(len(SIMULATED))], rng.uniform(*STRENGTHS)
        centre = cells[i].y, cells[i].x
        levels = degrade(levels, artefact, strength, rng, optics, centre)
        states[i] = artefact, strength, "cell"
        if artefact == "debris":
            continue
        for j, other in enumerate(cells):
            near = math.dist(centre, (other.y, other.x)) < covered_px
            if near and j not in chosen:
                states[j] = ("empty" if artefact == "dead" else artefact), strength, "cell"
    return levels, states


# Where the cells are


def place_cells(
    settings: SimulationSettings, line: CellLine, textures: Textures, rng: np.random.Generator
) -> list[Cell]:
    """Return the cells of a field and of a margin around it, from which bodies reach in."""
    margin = line.body[0]
    height, width = settings.height_px + 2 * margin, settings.width_px + 2 * margin
    mean = settings.cells_per_field * height * width / (settings.height_px * settings.width_px)
    count = int(rng.poisson(mean))
    # Two touching nuclei are placed as one, so the pairs are half of the touching nuclei.
    pairs = int(rng.binomial(count, settings.touching_share / 2))
    candidates = _candidates(40 * (count - pairs), height, width, line, textures, rng)
    cells: list[Cell] = []
    positions = np.zeros((0, 2))
    for i, options in enumerate(candidates.reshape(-1, 40, 2)):
        position = _first_free(options, positions, line.spacing)
        cell = _make_cell(position - margin, line, rng)
        group = [cell]
        if i < pairs:
            group.append(_make_neighbour(cell, positions - margin, line, rng))
        cells += group
        positions = np.vstack([positions, [(c.y + margin, c.x + margin) for c in group]])
    return cells


def _candidates(
    count: int,
    height: float,
    width: float,
    line: CellLine,
    textures: Textures,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return random positions (y, x), `count` x 2, denser where a smooth random field is high."""
    step = 8
    wide = _cut(textures.wide, (math.ceil(height / step), math.ceil(width / step)), rng, step // 2)
    weight = 1 / (1 + np.exp(-line.clustering * (wide + 0.5)))
    chosen = rng.choice(wide.size, count, p=(weight / weight.sum()).ravel())
    corners = np.stack(np.unravel_index(chosen, wide.shape), axis=1)
    return (corners + rng.random((count, 2))) * step


def _first_free(options: np.ndarray, taken: np.ndarray, spacing: float) -> np.ndarray:
    """Return the first of `options` that is `spacing` from all `taken`, or else the farthest."""
    if not len(taken):
        return options[0]
    nearest = np.linalg.norm(options[:, None] - taken[None], axis=2).min(axis=1)
    return options[np.argmax(np.minimum(nearest, spacing))]


def _make_cell(position: np.ndarray, line: CellLine, rng: np.random.Generator) -> Cell:
    """Return a cell of random size, shape and brightness with its nucleus at `position`."""
    size, stretch = rng.lognormal(0, 0.12), rng.lognormal(0, 0.12)
    nucleus = line.nucleus[0] * size * stretch, line.nucleus[1] * size / stretch
    growth = rng.lognormal(0, 0.15)
    body = line.body[0] * growth * stretch, line.body[1] * growth / stretch
    shift = rng.uniform(-0.2, 0.2) * body[0], rng.uniform(-0.2, 0.2) * body[1]
    mitotic = rng.random() < MITOTIC_SHARE
    if mitotic:
        # The chromosomes line up as a plate in a cell that has rounded up.
        nucleus = 0.8 * line.nucleus[0], 0.5 * line.nucleus[1]
        body, shift = (1.35 * line.nucleus[0],) * 2, (0.0, 0.0)
    return Cell(
        y=float(position[0]),
        x=float(position[1]),
        angle=rng.uniform(0, math.pi),
        nucleus=nucleus,
        body=body,
        shift=shift,
        pointed=0.0 if mitotic else rng.uniform(0, line.pointed),
        side=rng.uniform(0, 2 * math.pi),
        brightness=rng.lognormal(0, 0.2) * rng.lognormal(0, 0.15, len(line.channels)),
        mitotic=mitotic,
    )


def _make_neighbour(
    cell: Cell, others: np.ndarray, line: CellLine, rng: np.random.Generator
) -> Cell:
    """Return a cell whose nucleus touches that of `cell`, on the side with the most room."""
    neighbour = _make_cell(np.zeros(2), line, rng)
    directions = rng.uniform(0, 2 * math.pi, 12)
    spots = np.array([_touching_spot(cell, neighbour, direction) for direction in directions])
    y, x = _first_free(spots, others, math.inf)
    return Cell(**{**vars(neighbour), "y": float(y), "x": float(x)})


def _touching_spot(cell: Cell, neighbour: Cell, direction: float) -> tuple[float, float]:
    """Return the (y, x) at which `neighbour` touches `cell` in `direction`."""
    apart = 0.95 * (_nucleus_radius(cell, direction) + _nucleus_radius(neighbour, direction))
    return cell.y + apart * math.sin(direction), cell.x + apart * math.cos(direction)


def _nucleus_radius(cell: Cell, direction: float) -> float:
    """Return the radius of the nucleus' ellipse in `direction`, pixels."""
    along, across = cell.nucleus
    turn = direction - cell.angle
    return along * across / math.hypot(across * math.cos(turn), along * math.sin(turn))


def _is_inside(cell: Cell, shape: tuple[int, int]) -> bool:
    return 0 <= round(cell.y) < shape[0] and 0 <= round(cell.x) < shape[1]


# What the cells look like


def make_textures() -> Textures:
    """Return the noise tiles, the same for every plate; what is cut from them differs."""
    rng = np.random.default_rng(0)
    return Textures(
        fine=_noise_tile(rng, 0.9, 0.9),
        medium=_noise_tile(rng, 2.0, 2.0),
        coarse=_noise_tile(rng, 7.0, 7.0),
        wide=_noise_tile(rng, 22.0, 22.0),
        fibres=_noise_tile(rng, 16.0, 1.2),
    )


def _noise_tile(rng: np.random.Generator, grain_x: float, grain_y: float) -> np.ndarray:
    """Return periodic Gaussian noise whose grains have deviations of `grain_x`, `grain_y` px."""
    noise = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]
    noise *= np.exp(-2 * math.pi**2 * ((grain_x * fx) ** 2 + (grain_y * fy) ** 2))
    noise[0, 0] = 0
    tile = np.fft.irfft2(noise, (TILE, TILE))
    return (tile / tile.std()).astype(np.float32)


def _cut(
    tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, step: int = 1
) -> np.ndarray:
    """Return a piece of a periodic tile at a random place, taking every `step`-th pixel."""
    top, left = rng.integers(0, TILE, 2)
    rows = (top + step * np.arange(shape[0])) % TILE
    columns = (left + step * np.arange(shape[1])) % TILE
    return tile.take(rows, axis=0).take(columns, axis=1)


def _cut_turned(
    tile: np.ndarray, shape: tuple[int, int], angle: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a piece of a periodic tile, turned by `angle` radians."""
    offset = rng.uniform(0, TILE, 2)
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, sine, offset[0]], [-sine, cosine, offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, turn, shape[::-1], flags=flags, borderMode=cv2.BORDER_WRAP)


def make_shading(settings: SimulationSettings, plate: str, channels: int) -> np.ndarray:
    """Return a plate's uneven illumination, C x H x W: 1 at the brightest place."""
    rng = _random(settings.seed, plate)
    y = np.linspace(-1, 1, settings.height_px, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, settings.width_px, dtype=np.float32)[None, :]
    planes = []
    for _ in range(channels):
        top, left = rng.uniform(-0.3, 0.3, 2)
        fall = (y - np.float32(top)) ** 2 + (x - np.float32(left)) ** 2
        planes.append(1 - SHADING * (fall - fall.min()) / max(np.ptp(fall), 1e-6))
    return np.stack(planes).astype(np.float32)


def paint_field(
    cells: list[Cell],
    line: CellLine,
    shape: tuple[int, int],
    textures: Textures,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the noise-free grey levels of a field, C x H x W float32, evenly lit."""
    bend = [5 * _cut(textures.coarse, shape, rng) + _cut(textures.medium, shape, rng) for _ in "yx"]
    dent = [0.5 * _cut(textures.coarse, shape, rng) for _ in "yx"]
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


def _ramp(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1)


@dataclass(frozen=True)
class Parts:
    """Masks H x W, 0 to 1, from which the channels of a cell are mixed."""

    nucleus: np.ndarray
    nucleoli: np.ndarray
    body: np.ndarray
    outside_px: np.ndarray  # distance from the nucleus' edge, 0 inside
    towards: np.ndarray  # -1 to 1: on the side where organelles gather
    fine: np.ndarray  # textures
    medium: np.ndarray


def _parts(
    cell: Cell,
    patch: Patch,
    near: np.ndarray,
    far: np.ndarray,
    textures: Textures,
    rng: np.random.Generator,
) -> Parts:
    shape = near.shape
    fine, medium = _cut(textures.fine, shape, rng), _cut(textures.medium, shape, rng)
    mean_radius = math.sqrt(cell.nucleus[0] * cell.nucleus[1])
    edge_px = (patch.nucleus_radii - 1) * mean_radius
    nucleus = _ramp(0.5 - edge_px / 1.5)
    nucleoli = _ramp(1.6 * medium - 1.2) * _ramp(0.2 - edge_px / 4) * (not cell.mitotic)
    rival = np.where(patch.body_radii <= near, far, near)
    body = _ramp(0.6 + (rival - patch.body_radii) / BODY_OVERLAP) * _ramp(
        (1 - patch.body_radii) / 0.06
    )
    away = np.sqrt(patch.along**2 + patch.across**2) + 1
    towards = (math.cos(cell.side) * patch.along + math.sin(cell.side) * patch.across) / away
    return Parts(nucleus, nucleoli, body, np.maximum(edge_px, 0), towards, fine, medium)


def _paint_dna(parts: Parts, cell: Cell, level: float) -> np.ndarray:
    if cell.mitotic:
        return 2.6 * level * parts.nucleus * (1 + 0.1 * parts.fine)
    chromatin = 1 + 0.10 * parts.fine + 0.06 * parts.medium - 0.2 * parts.nucleoli
    return level * parts.nucleus * chromatin


def _paint_u2os(
    cell: Cell,
    patch: Patch,
    near: np.ndarray,
    far: np.ndarray,
    textures: Textures,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the light of a U2OS cell in DNA, ER, RNA, actin and Golgi, mitochondria."""
    parts = _parts(cell, patch, near, far, textures, rng)
    nucleus, nucleoli, body = parts.nucleus, parts.nucleoli, parts.body
    cytoplasm = body * (1 - 0.8 * nucleus)
    thickness = 0.55 + 0.45 * _ramp(1.2 - 1.2 * patch.body_radii)
    rounded = 2.2 if cell.mitotic else 1.0
    sided = 1 + 0.75 * parts.towards
    around = np.exp(-parts.outside_px / 9) * cytoplasm * sided
    reticulum = 1 + 0.25 * parts.medium + 0.12 * parts.fine
    envelope = np.exp(-((parts.outside_px - 0.5) ** 2) / 3) * _ramp(2 * patch.nucleus_radii - 1)
    er = cytoplasm * thickness * 75 * rounded + around * reticulum * 330 + envelope * body * 60
    er += 170 * nucleus + 110 * nucleoli
    rna = cytoplasm * thickness * 100 * rounded + around * 190 * (1 + 0.1 * parts.fine)
    rna += 330 * nucleus * (1 + 0.05 * parts.medium) + 420 * nucleoli
    fibres = _cut_turned(textures.fibres, near.shape, -cell.angle, rng)
    rim = np.exp(-(((far - near) / 0.06) ** 2)) * _ramp(2 * patch.body_radii)
    actin = cytoplasm * thickness * (165 * rounded + 22 * fibres + 20 * parts.medium + 45 * rim)
    golgi = _ramp(0.8 * parts.medium + 3 * parts.towards - 2.9) * np.exp(-parts.outside_px / 7)
    actin += around * 70 + 330 * nucleus * (1 + 0.04 * parts.fine) + 350 * golgi * cytoplasm
    grains = _ramp(_cut(textures.fine, near.shape, rng) + 0.3 * parts.medium - 0.5)
    reach = np.exp(-parts.outside_px / (6 + 4 * (1 + parts.towards))) * sided
    mito = cytoplasm * (45 * thickness * rounded + reach * (170 + 520 * grains * (1 - nucleus)))
    mito += 120 * nucleus
    dna = _paint_dna(parts, cell, 520) + 12 * body
    return _brightened([dna, er, rna, actin, mito], cell)


def _paint_mcf7(
    cell: Cell,
    patch: Patch,
    near: np.ndarray,
    far: np.ndarray,
    textures: Textures,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the light of an MCF7 cell in DNA, tubulin and actin."""
    parts = _parts(cell, patch, near, far, textures, rng)
    cytoplasm = parts.body * (1 - 0.6 * parts.nucleus)
    thickness = 0.4 + 0.6 * _ramp(1.3 - 1.3 * patch.body_radii)
    rounded = 2.2 if cell.mitotic else 1.0
    crossed = _cut_turned(textures.fibres, near.shape, cell.side, rng)
    fibres = np.maximum(crossed, _cut_turned(textures.fibres, near.shape, cell.side + 1, rng))
    around = np.exp(-parts.outside_px / 10) * cytoplasm
    tubulin = cytoplasm * thickness * (240 * rounded + 150 * _ramp(0.7 * fibres)) + around * 330
    tubulin += 120 * parts.nucleus
    # The ring: where two cells meet, and the free edge.
    rim = np.exp(-(((far - near) / 0.10) ** 2)) + np.exp(-(((patch.body_radii - 0.95) / 0.06) ** 2))
    dots = _ramp(_cut(textures.medium, near.shape, rng) - 1.3)
    actin = cytoplasm * (130 * rounded + 20 * parts.medium + 260 * dots) + 70 * parts.nucleus
    actin += parts.body * _ramp(2 * patch.body_radii) * 330 * rim * (1 + 0.2 * parts.medium)
    dna = _paint_dna(parts, cell, 750) + 15 * parts.body
    return _brightened([dna, tubulin, actin], cell)


def _brightened(planes: list[np.ndarray], cell: Cell) -> np.ndarray:
    painted = np.stack(planes)
    painted *= cell.brightness[:, None, None].astype(np.float32)
    return painted


# BBBC022: sizes and levels from its open fields. BBBC021: about 0.33 um per pixel (ours: 20x and
# a 6.45 um camera pixel), so that its smaller nuclei cover more pixels.
CELL_LINES = {
    "u2os": CellLine(
        channels=(1, 2, 3, 4, 5),
        background=(160.0, 200.0, 160.0, 225.0, 240.0),
        signal=(550.0, 500.0, 750.0, 550.0, 500.0),
        nucleus=(18.0, 11.5),
        body=(70.0, 46.0),
        pointed=0.8,
        spacing=42.0,
        clustering=2.0,
        paint=_paint_u2os,
    ),
    "mcf7": CellLine(
        channels=(1, 2, 4),
        background=(210.0, 260.0, 230.0),
        signal=(950.0, 800.0, 650.0),
        nucleus=(17.0, 14.5),
        body=(50.0, 45.0),
        pointed=0.3,
        spacing=42.0,
        clustering=9.0,
        paint=_paint_mcf7,
    ),
}


# Names and the image CSV

WELL_NAMES = {
    "u2os": re.compile(r"[A-P](0[1-9]|1\d|2[0-4])"),
    "mcf7": re.compile(r"[A-H](0[1-9]|1[0-2])"),
}
WELL_RANGE = "u2os has A01 to P24, mcf7 has A01 to H12"
PLATE_NAMES = {"u2os": re.compile(r"[A-Za-z0-9_-]+"), "mcf7": re.compile(r"(Week\d+)_\d+")}
MCF7_DATE = "150607"  # as in the names of BBBC021's first week
BBBC022_CHANNELS = {"ER": 2, "Hoechst": 1, "Mito": 5, "Ph_golgi": 4, "Syto": 3}  # the CSV's order
CONCENTRATIONS_UM = (0.3, 1.0, 3.0, 10.0)


def _random(seed: int, *place: str | int) -> np.random.Generator:
    """Return a generator that depends on nothing but the seed and the place."""
    return np.random.default_rng(int(_place_digest(seed, *place)[:32], 16))


def _place_digest(seed: int, *place: str | int) -> str:
    return text_digest("/".join(str(part) for part in (seed, *place)))


def _uuid(settings: SimulationSettings, *place: str | int) -> str:
    digest = _place_digest(settings.seed, *place)
    return str(uuid.UUID(hex=digest[:32], version=4)).upper()


def _names_bbbc022(settings: SimulationSettings, plate: str, well: str, site: int) -> list[str]:
    return [
        f"BBBC022_v1_images_{plate}w{channel}/IXMtest_{well}_s{site}_w{channel}"
        f"{_uuid(settings, plate, well, site, channel)}.tif"
        for channel in CELL_LINES["u2os"].channels
    ]


def _names_bbbc021(settings: SimulationSettings, plate: str, well: str, site: int) -> list[str]:
    week = plate.split("_")[0]
    return [
        f"{week}/{plate}/{week}_{MCF7_DATE}_{well}_s{site}_w{channel}"
        f"{_uuid(settings, plate, well, site, channel)}.tif"
        for channel in CELL_LINES["mcf7"].channels
    ]


def _is_control(well: str) -> bool:
    """Return whether a well has no compound: every fourth, along the diagonals of the plate."""
    return (ord(well[0]) - ord("A") + int(well[1:])) % 4 == 3


def _treatment(well: str) -> tuple[str, float]:
    """Return the made-up compound of a well and its concentration, micromolar."""
    number = (ord(well[0]) - ord("A")) * 24 + int(well[1:])
    return f"SIMULATED COMPOUND {number:02d}", CONCENTRATIONS_UM[number % len(CONCENTRATIONS_UM)]


def _row_bbbc022(
    plate: str, well: str, site: int, number: int, names: list[str]
) -> dict[str, str | int | float]:
    """Return a field's row of BBBC022_v1_image.csv."""
    control = _is_control(well)
    compound, concentration = ("", "") if control else _treatment(well)
    name_of = dict(zip(CELL_LINES["u2os"].channels, names, strict=True))
    return {
        "ImageNumber": number,
        **{
            f"Image_FileName_Orig{stain}": Path(name_of[channel]).name
            for stain, channel in BBBC022_CHANNELS.items()
        },
        "Image_Metadata_ASSAY_WELL_ROLE": "mock" if control else "compound",
        "Image_Metadata_BROAD_ID": "" if control else f"SIM-{well}",
        "Image_Metadata_CPD_MMOL_CONC": concentration,
        "Image_Metadata_CPD_PLATE_MAP_NAME": "SIMULATED",
        "Image_Metadata_CPD_WELL_POSITION": well,
        "Image_Metadata_PlateID": plate,
        "Image_Metadata_SOURCE_COMPOUND_NAME": compound,
        "Image_Metadata_SOURCE_NAME": "" if control else "simulated",
        "Image_Metadata_Site": site,
    }


def _row_bbbc021(
    plate: str, well: str, site: int, number: int, names: list[str]
) -> dict[str, str | int | float]:
    """Return a field's row of BBBC021_v1_image.csv."""
    compound, concentration = ("DMSO", 0.0) if _is_control(well) else _treatment(well)
    stained = {}
    for stain, name in zip(("DAPI", "Tubulin", "Actin"), names, strict=True):
        stained[f"Image_FileName_{stain}"] = Path(name).name
        stained[f"Image_PathName_{stain}"] = str(Path(name).parent)
    return {
        "TableNumber": 0,
        "ImageNumber": number,
        **stained,
        "Image_Metadata_Plate_DAPI": plate,
        "Image_Metadata_Well_DAPI": well,
        "Replicate": 1,
        "Image_Metadata_Compound": compound,
        "Image_Metadata_Concentration": concentration,
    }


LAYOUTS = {
    "u2os": (_names_bbbc022, _row_bbbc022),
    "mcf7": (_names_bbbc021, _row_bbbc021),
}
