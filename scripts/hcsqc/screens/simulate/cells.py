"""The cells of a field: where they lie, and how large and bright each is."""

import math

import numpy as np

from hcsqc.screens.simulate.model import Cell, CellLine, SimulationSettings
from hcsqc.screens.simulate.textures import Textures, cut

MITOTIC_SHARE = 0.03


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
    wide = cut(textures.wide, (math.ceil(height / step), math.ceil(width / step)), rng, step // 2)
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


def is_inside(cell: Cell, shape: tuple[int, int]) -> bool:
    """Return whether a nucleus' centre is a pixel of a field of `shape`, H x W."""
    return 0 <= round(cell.y) < shape[0] and 0 <= round(cell.x) < shape[1]
