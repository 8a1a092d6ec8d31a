"""What is simulated: the settings, a cell, and what a cell line is like."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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
    light: float = 1.0  # of the lamp, times that of a screen with 1


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
    # Cell, Patch, near, far, Textures, generator -> light, C x H x W: see `paint.paint_field`.
    paint: Callable[..., np.ndarray]
