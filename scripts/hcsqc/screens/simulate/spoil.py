"""Artefacts of a simulated field: of the whole field or of its cells."""

import math

import cv2
import numpy as np

from hcsqc.screens.artefacts import CORE_RADII, REACH_RADII, SIMULATED, Optics, degrade
from hcsqc.screens.simulate.model import Cell

STRENGTHS = (0.25, 1.0)
VISIBLE = 0.25  # of a normal signal, that dirt adds
TRACE = 0.05  # of a normal signal: smaller changes drown in the camera's noise
State = tuple[str, float, str]  # a cell's artefact, strength and scope
CLEAN: State = ("none", 0.0, "cell")


def draw_artefact(rng: np.random.Generator) -> tuple[str, float]:
    """Return the kind of an artefact, one of SIMULATED, and its strength."""
    return SIMULATED[rng.integers(len(SIMULATED))], rng.uniform(*STRENGTHS)


def spoil_field(
    levels: np.ndarray,
    cells: list[Cell],
    artefact: str,
    strength: float,
    rng: np.random.Generator,
    optics: Optics,
) -> tuple[np.ndarray, list[State]]:
    """Give a field of grey levels, C x H x W, an artefact; return it and each cell's state.

    `cells` are those whose nucleus is inside the field.
    """
    spoilt = degrade(levels, artefact, strength, rng, optics)
    states = [(artefact, strength, "field")] * len(cells)
    if artefact == "debris":
        states = _with_dirt_in_reach(states, cells, spoilt - levels, optics)
    return spoilt, states


def _with_dirt_in_reach(
    states: list[State], cells: list[Cell], dirt: np.ndarray, optics: Optics
) -> list[State]:
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


def artefact_distances(changes: np.ndarray, cells: list[Cell], optics: Optics) -> list[int | None]:
    """Return how far each nucleus is from the nearest pixel that an artefact changed, in pixels.

    `changes` are the grey levels that artefacts made of their field, C x H x W, less those before.
    The distance is the larger of columns and rows, so that a square window around the nucleus
    holds such a pixel if half its side reaches as far. None where no pixel is changed.
    """
    changed = (np.abs(changes) > TRACE * optics.signal[:, None, None]).any(axis=0)
    if not changed.any():
        return [None] * len(cells)
    away = cv2.distanceTransform((~changed).astype(np.uint8), cv2.DIST_C, cv2.DIST_MASK_3)
    return [int(away[round(cell.y), round(cell.x)]) for cell in cells]


def spoil_cells(
    levels: np.ndarray,
    cells: list[Cell],
    share: float,
    rng: np.random.Generator,
    optics: Optics,
) -> tuple[np.ndarray, list[State]]:
    """Give a share of the cells an artefact of their own; return the levels and each cell's state.

    `levels` are grey levels, C x H x W; `cells` are those whose nucleus is inside the field.
    A neighbour whose nucleus the artefact covers by half or more has the same state, unless it
    has its own. Debris is a small object beside one nucleus; a dead cell leaves its neighbour
    faded.
    """
    covered_px = (CORE_RADII + REACH_RADII) / 2 * optics.nucleus_radius_px
    states = [CLEAN] * len(cells)
    chosen = [i for i in range(len(cells)) if rng.random() < share]
    for i in chosen:
        artefact, strength = draw_artefact(rng)
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
