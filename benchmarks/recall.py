"""Share of nuclei found, by brightness, size and state, on simulated fields."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "scripts")]

import common
from crops import FAST, MATCH_PX, SHAPE, inside

from hcsqc.artefacts import degrade
from hcsqc.nuclei import find_nuclei
from hcsqc.simulate import (
    CAMERA_OFFSET,
    CELL_LINES,
    Cell,
    SimulationSettings,
    expose,
    make_shading,
    make_textures,
    optics_of,
    paint_field,
    place_cells,
)

METHODS = ("fast", "watershed")
FIELDS = 24
LINE = CELL_LINES["u2os"]
# Every third cell of a field is changed, so that it lies among typical ones.
EVERY = 3
DEAD = 0.7  # strength of the artefact model that breaks a nucleus into bright fragments


def dimmed(factor: float) -> Callable[[Cell], Cell]:
    """Return what gives a cell so many times its DNA's brightness."""
    return lambda cell: replace(cell, brightness=cell.brightness * [factor, 1, 1, 1, 1])


def resized(factor: float) -> Callable[[Cell], Cell]:
    """Return what gives a cell's nucleus so many times its diameter."""
    along, across = LINE.nucleus
    return lambda cell: replace(cell, nucleus=(factor * along, factor * across))


def mitotic(cell: Cell) -> Cell:
    """Return the cell with its chromosomes lined up as a plate, as the simulator paints it."""
    along, across = LINE.nucleus
    return replace(
        cell,
        nucleus=(0.8 * along, 0.5 * across),
        body=(1.35 * along,) * 2,
        shift=(0.0, 0.0),
        pointed=0.0,
        mitotic=True,
    )


# What is changed in a cell, and whether its nucleus then breaks into fragments.
KINDS: dict[str, tuple[Callable[[Cell], Cell], bool]] = {
    "typical": (lambda cell: cell, False),
    "half as bright": (dimmed(0.5), False),
    "a quarter as bright": (dimmed(0.25), False),
    "an eighth as bright": (dimmed(0.125), False),
    "three times as bright": (dimmed(3.0), False),
    "0.6 of the diameter": (resized(0.6), False),
    "1.5 times the diameter": (resized(1.5), False),
    "twice the diameter": (resized(2.0), False),
    "mitotic": (mitotic, False),
    "fragmented (dead)": (lambda cell: cell, True),
}


def main() -> None:
    """Read the flags, print a row per kind of nucleus."""
    args = common.parser(__doc__, rounds=False).parse_args()
    textures = make_textures()
    rows = []
    for number, kind in enumerate(KINDS):
        fields = [make_field(kind, textures, 1000 * number + n) for n in range(FIELDS)]
        shares = {name: recall(fields, name) for name in METHODS}
        rows.append({"nuclei": kind, "count": sum(len(c) for _, c, _ in fields), **shares})
    common.report(rows, args.json)


def make_field(kind: str, textures, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a field's DNA channel, the centres of its changed nuclei, and how near counts."""
    change, fragmented = KINDS[kind]
    rng = np.random.default_rng((7, seed))
    simulation = SimulationSettings("u2os", ("B02",), 1, *SHAPE, 30, 0.0, 0.0, 0.0, 7)
    cells = place_cells(simulation, LINE, textures, rng)
    changed = range(0, len(cells), EVERY)
    cells = [change(cell) if n in changed else cell for n, cell in enumerate(cells)]
    levels = paint_field(cells, LINE, SHAPE, textures, rng)
    shading = make_shading(simulation, "20001", len(LINE.channels))
    levels = CAMERA_OFFSET + (levels - CAMERA_OFFSET) * shading
    centres = np.array([(cells[n].x, cells[n].y) for n in changed])
    centres = centres[inside(centres)]
    if fragmented:
        for x, y in centres:
            levels = degrade(levels, "dead", DEAD, rng, optics_of("u2os"), (y, x))
    # Fragments have no common centre: one of them within the nucleus is enough.
    near = math.sqrt(LINE.nucleus[0] * LINE.nucleus[1]) if fragmented else MATCH_PX
    return expose(levels, rng)[0], centres, near


def recall(fields, method: str) -> float:
    """Return the share of the planted centres that have a found one near."""
    settings = replace(FAST, nucleus_method=method)
    hits = planted = 0
    for dna, centres, near in fields:
        nuclei = find_nuclei(dna, settings)
        found = np.stack([nuclei.x_px, nuclei.y_px], axis=1)
        apart = np.linalg.norm(centres[:, None] - found[None], axis=2)
        hits += (apart <= near).any(axis=1).sum()
        planted += len(centres)
    return hits / planted


if __name__ == "__main__":
    main()
