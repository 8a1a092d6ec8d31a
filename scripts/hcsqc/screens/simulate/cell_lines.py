"""The cell lines: their sizes and grey levels, and how their channels are painted."""

import math
from dataclasses import dataclass

import numpy as np

from hcsqc.screens.artefacts import Optics
from hcsqc.screens.simulate.camera import TOP
from hcsqc.screens.simulate.model import Cell, CellLine
from hcsqc.screens.simulate.paint import Patch
from hcsqc.screens.simulate.textures import Textures, cut, cut_turned

BODY_OVERLAP = 0.12  # of a cell's radius, over which two neighbours share a border


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
    fine, medium = cut(textures.fine, shape, rng), cut(textures.medium, shape, rng)
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
    """Return the light of a U2OS cell in DNA, ER, RNA, actin and Golgi, mitochondria: 5 x H x W."""
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
    fibres = cut_turned(textures.fibres, near.shape, -cell.angle, rng)
    rim = np.exp(-(((far - near) / 0.06) ** 2)) * _ramp(2 * patch.body_radii)
    actin = cytoplasm * thickness * (165 * rounded + 22 * fibres + 20 * parts.medium + 45 * rim)
    golgi = _ramp(0.8 * parts.medium + 3 * parts.towards - 2.9) * np.exp(-parts.outside_px / 7)
    actin += around * 70 + 330 * nucleus * (1 + 0.04 * parts.fine) + 350 * golgi * cytoplasm
    grains = _ramp(cut(textures.fine, near.shape, rng) + 0.3 * parts.medium - 0.5)
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
    """Return the light of an MCF7 cell in DNA, tubulin and actin: 3 x H x W."""
    parts = _parts(cell, patch, near, far, textures, rng)
    cytoplasm = parts.body * (1 - 0.6 * parts.nucleus)
    thickness = 0.4 + 0.6 * _ramp(1.3 - 1.3 * patch.body_radii)
    rounded = 2.2 if cell.mitotic else 1.0
    crossed = cut_turned(textures.fibres, near.shape, cell.side, rng)
    fibres = np.maximum(crossed, cut_turned(textures.fibres, near.shape, cell.side + 1, rng))
    around = np.exp(-parts.outside_px / 10) * cytoplasm
    tubulin = cytoplasm * thickness * (240 * rounded + 150 * _ramp(0.7 * fibres)) + around * 330
    tubulin += 120 * parts.nucleus
    # The ring: where two cells meet, and the free edge.
    rim = np.exp(-(((far - near) / 0.10) ** 2)) + np.exp(-(((patch.body_radii - 0.95) / 0.06) ** 2))
    dots = _ramp(cut(textures.medium, near.shape, rng) - 1.3)
    actin = cytoplasm * (130 * rounded + 20 * parts.medium + 260 * dots) + 70 * parts.nucleus
    actin += parts.body * _ramp(2 * patch.body_radii) * 330 * rim * (1 + 0.2 * parts.medium)
    dna = _paint_dna(parts, cell, 750) + 15 * parts.body
    return _brightened([dna, tubulin, actin], cell)


def _brightened(planes: list[np.ndarray], cell: Cell) -> np.ndarray:
    painted = np.stack(planes)
    painted *= cell.brightness[:, None, None].astype(np.float32)
    return painted


def _ramp(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1)


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


def optics_of(cell_line: str) -> Optics:
    """Return what the artefact models must know about a simulated cell line."""
    line = CELL_LINES[cell_line]
    radius = math.sqrt(line.nucleus[0] * line.nucleus[1])
    return Optics(np.array(line.background), np.array(line.signal), TOP, radius, dna=0)
