"""BBBC021: a folder per plate, flat or by week, treatments in one image CSV."""

import re
from pathlib import Path

from hcsqc.core.config import CHANNELS
from hcsqc.screens.layouts.base import FoundImages, Source, Treatment, of_plate
from hcsqc.screens.layouts.bbbc import (
    PREFIX,
    UUID,
    csv_rows,
    find_by_name,
    folder_names,
    number,
    of_plate_and_well,
    require_columns,
)

FILE_NAME = re.compile(
    rf"(?:(?:.+?)_)?(?P<well>[A-H]\d\d)_s(?P<site>\d)_w(?P<channel>[124]){UUID}\.tif"
)
PLATE_FOLDER = re.compile(r"(?P<plate>Week\d+_\d+)")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the images of a plate and the treatments of its wells; raises InputError."""
    images = of_plate(source.images, plate)
    folders = [images / plate, images / plate.split("_")[0] / plate]
    found = find_by_name(FILE_NAME, images, folders, plate)
    found.treatments = _treatments(of_plate(source.image_csv, plate), plate)
    return found


def list_plates(source: Source) -> list[str]:
    """Return the plates whose folders lie below the images' folder, sorted."""
    return folder_names(source.images, PLATE_FOLDER)


def list_channels(source: Source) -> list[str]:
    """Return the channels that every plate of BBBC021 has."""
    return list(CHANNELS["bbbc021"])


def _treatments(image_csv: Path, plate: str) -> dict[str, Treatment]:
    rows = csv_rows(image_csv)
    plate_column, well_column = PREFIX + "Plate_DAPI", PREFIX + "Well_DAPI"
    require_columns(rows, image_csv, plate_column, well_column)
    require_columns(rows, image_csv, PREFIX + "Compound", PREFIX + "Concentration")
    of_wells = of_plate_and_well(
        rows, image_csv, plate, PREFIX + "Plate_DAPI", PREFIX + "Well_DAPI"
    )
    treatments = {}
    for well, row in of_wells:
        compound = row[PREFIX + "Compound"]
        treatments[well] = Treatment(
            "mock" if compound == "DMSO" else "compound",
            compound or None,
            number(row[PREFIX + "Concentration"]),
        )
    return treatments
