"""Share of nuclei found, by brightness, size and state, on simulated fields."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks import common
from benchmarks.crops import FAST, MATCH_PX, SHAPE, inside
from hcsqc.crops.nuclei import find_nuclei
from hcsqc.screens.artefacts import degrade
from hcsqc.screens.simulate.camera import CAMERA_OFFSET, expose, make_shading
from hcsqc.screens.simulate.cell_lines import CELL_LINES, optics_of
from hcsqc.screens.simulate.cells import place_cells
from hcsqc.screens.simulate.model import Cell, SimulationSettings
from hcsqc.screens.simulate.paint import paint_field
from hcsqc.screens.simulate.textures import make_textures

SEGMENTATION_METHODS = ("fast", "watershed")
FIELDS = 24
LINE = CELL_LINES["u2os"]
# Every third cell of a field is changed, so that it lies among typical ones.
EVERY = 3
DEAD = 0.7  # strength of the artefact model of a condensed nucleus
# A fragmented nucleus: so many balls of such a radius, and as far from its centre, in pixels.
FRAGMENTS, FRAGMENT_PX, SCATTER_PX = 4, 5.5, 10.0


def dimmed(factor: float) -> Callable[[Cell], list[Cell]]:
    """Return what gives a cell so many times its DNA's brightness."""
    return lambda cell: [replace(cell, brightness=cell.brightness * [factor, 1, 1, 1, 1])]


def resized(factor: float) -> Callable[[Cell], list[Cell]]:
    """Return what gives a cell's nucleus so many times its diameter."""
    along, across = LINE.nucleus
    return lambda cell: [replace(cell, nucleus=(factor * along, factor * across))]


def mitotic(cell: Cell) -> list[Cell]:
    """Return the cell with its chromosomes lined up as a plate, as the simulator paints it."""
    along, across = LINE.nucleus
    made = replace(
        cell,
        nucleus=(0.8 * along, 0.5 * across),
        body=(1.35 * along,) * 2,
        shift=(0.0, 0.0),
        pointed=0.0,
        mitotic=True,
    )
    return [made]


def fragmented(cell: Cell) -> list[Cell]:
    """Return the pieces of the cell's nucleus, each painted as a cell of its own."""
    turns = cell.angle + 2 * math.pi * np.arange(FRAGMENTS) / FRAGMENTS
    return [
        replace(
            cell,
            nucleus=(FRAGMENT_PX, FRAGMENT_PX),
            y=cell.y + SCATTER_PX * math.sin(turn),
            x=cell.x + SCATTER_PX * math.cos(turn),
        )
        for turn in turns
    ]


KINDS: dict[str, Callable[[Cell], list[Cell]]] = {
    "typical": lambda cell: [cell],
    "half as bright": dimmed(0.5),
    "a quarter as bright": dimmed(0.25),
    "an eighth as bright": dimmed(0.125),
    "three times as bright": dimmed(3.0),
    "0.6 of the diameter": resized(0.6),
    "1.5 times the diameter": resized(1.5),
    "twice the diameter": resized(2.0),
    "mitotic": mitotic,
    "condensed (dead)": lambda cell: [cell],  # by the artefact model, after painting
    "in four fragments": fragmented,
}
# These have no common centre: one piece within the nucleus is enough.
IN_PIECES = ("condensed (dead)", "in four fragments")


def main() -> None:
    """Read the flags, print a row per kind of nucleus."""
    args = common.parser(__doc__, rounds=False).parse_args()
    textures = make_textures()
    rows = []
    for number, kind in enumerate(KINDS):
        fields = [make_field(kind, textures, 1000 * number + n) for n in range(FIELDS)]
        shares = {name: recall(fields, name) for name in SEGMENTATION_METHODS}
        rows.append({"nuclei": kind, "count": sum(len(c) for _, c, _ in fields), **shares})
    common.report(rows, args.json)


def make_field(kind: str, textures, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a field's DNA channel, the centres of its changed nuclei, and how near counts."""
    rng = np.random.default_rng((7, seed))
    simulation = SimulationSettings("u2os", ("B02",), 1, *SHAPE, 30, 0.0, 0.0, 0.0, 7)
    cells = place_cells(simulation, LINE, textures, rng)
    changed = range(0, len(cells), EVERY)
    centres = np.array([(cells[n].x, cells[n].y) for n in changed])
    painted = [
        piece
        for n, cell in enumerate(cells)
        for piece in (KINDS[kind](cell) if n in changed else [cell])
    ]
    levels = paint_field(painted, LINE, SHAPE, textures, rng)
    shading = make_shading(simulation, "20001", len(LINE.channels))
    levels = CAMERA_OFFSET + (levels - CAMERA_OFFSET) * shading
    centres = centres[inside(centres)]
    if kind == "condensed (dead)":
        for x, y in centres:
            levels = degrade(levels, "dead", DEAD, rng, optics_of("u2os"), (y, x))
    near = math.sqrt(LINE.nucleus[0] * LINE.nucleus[1]) if kind in IN_PIECES else MATCH_PX
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
