"""A simulated plate: its settings checked, its fields made, its files written."""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.progress import Progress
from hcsqc.core.schema import TABLES, write_csv
from hcsqc.screens.simulate.camera import CAMERA_OFFSET, expose, make_shading
from hcsqc.screens.simulate.cell_lines import CELL_LINES, optics_of
from hcsqc.screens.simulate.cells import is_inside, place_cells
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.names import LAYOUTS, PLATE_NAMES, WELL_NAMES, WELL_RANGE
from hcsqc.screens.simulate.paint import paint_field
from hcsqc.screens.simulate.seeds import random_generator
from hcsqc.screens.simulate.spoil import (
    artefact_distances,
    draw_artefact,
    spoil_cells,
    spoil_field,
)
from hcsqc.screens.simulate.textures import Textures, make_textures

CROWDING = 0.6  # share of the area that the spaces around all nuclei may take


def simulate_plate(
    settings: SimulationSettings,
    plate: str,
    images: str | Path,
    image_csv: str | Path,
    progress_label: str,
) -> pd.DataFrame:
    """Write a plate's TIFFs below `images` and its image CSV, and return the truth.

    One row per nucleus that is in a field, with the columns of schema.TABLES["truth"]. A field
    depends only on the seed, the plate, its well and its site. Raises InputError as
    `check_settings` does.
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
    write_csv(pd.DataFrame(rows), image_csv)
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
    if not settings.light > 0:
        raise InputError(f"light is {settings.light}, but must be above 0")
    for name in ("height_px", "width_px", "cells_per_field"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} is {getattr(settings, name)}, but must be at least 1")
    if not 1 <= settings.sites <= 9:
        raise InputError(f"sites is {settings.sites}, but the file names have one digit: 1 to 9")
    if not settings.wells or len(set(settings.wells)) < len(settings.wells):
        raise InputError(f"wells {list(settings.wells)} must be at least one and all different")
    for well in settings.wells:
        if not WELL_NAMES[settings.cell_line].fullmatch(well):
            raise InputError(f"well '{well}' is not a well of {settings.cell_line}: {WELL_RANGE}")
    if not PLATE_NAMES[settings.cell_line].fullmatch(plate):
        raise InputError(
            f"plate '{plate}' does not fit {settings.cell_line}: u2os needs letters, digits and "
            "_ or -, mcf7 needs a name like Week1_22123"
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
    """Return one field's image, C x H x W uint16, and its truth, a row per nucleus inside.

    `shading` is the plate's, C x H x W: see `make_shading`.
    """
    line = CELL_LINES[settings.cell_line]
    optics = optics_of(settings.cell_line)
    rng = random_generator(settings.seed, plate, well, site)
    shape = settings.height_px, settings.width_px
    cells = place_cells(settings, line, textures, rng)
    field_artefact = rng.random() < settings.artefact_field_share
    artefact, strength = draw_artefact(rng)
    if field_artefact and artefact == "empty":
        # An empty field has lost its cells; the few that are left are ghosts.
        cells = [cell for cell in cells if rng.random() > strength]
    levels = paint_field(cells, line, shape, textures, rng)
    levels = CAMERA_OFFSET + (levels - CAMERA_OFFSET) * (settings.light * shading)
    inside = [cell for cell in cells if is_inside(cell, shape)]
    if field_artefact:
        spoilt, states = spoil_field(levels, inside, artefact, strength, rng, optics)
    else:
        spoilt, states = spoil_cells(levels, inside, settings.artefact_cell_share, rng, optics)
    away = artefact_distances(spoilt - levels, inside, optics)
    truth = pd.DataFrame(
        [
            (plate, well, site, round(cell.x), round(cell.y), *state, distance)
            for cell, state, distance in zip(inside, states, away, strict=True)
        ],
        columns=TABLES["truth"].columns.names,
    ).astype(
        {"site": "int32", "x_px": "int32", "y_px": "int32", "strength": "float64"}
        | {"artefact_px": "Int32"}
    )
    return expose(spoilt, rng), truth
