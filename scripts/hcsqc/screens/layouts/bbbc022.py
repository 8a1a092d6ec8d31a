"""BBBC022: a folder per plate and channel, treatments in one image CSV."""

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
    rf"IXMtest_(?P<well>[A-P]\d\d)_s(?P<site>\d+)_w(?P<channel>[1-5]){UUID}\.tif"
)
PLATE_FOLDER = re.compile(r"BBBC022_v1_images_(?P<plate>.+)w[1-5]")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the images of a plate and the treatments of its wells; raises InputError."""
    images = of_plate(source.images, plate)
    folders = [images / f"BBBC022_v1_images_{plate}{channel}" for channel in source.channels]
    found = find_by_name(FILE_NAME, images, folders, plate)
    found.treatments = _treatments(of_plate(source.image_csv, plate), plate)
    return found


def list_plates(source: Source) -> list[str]:
    """Return the plates whose folders lie below the images' folder, sorted."""
    return folder_names(source.images, PLATE_FOLDER)


def list_channels(source: Source) -> list[str]:
    """Return the channels that every plate of BBBC022 has."""
    return list(CHANNELS["bbbc022"])


def _treatments(image_csv: Path, plate: str) -> dict[str, Treatment]:
    rows = csv_rows(image_csv)
    plate_column, well_column = PREFIX + "PlateID", PREFIX + "CPD_WELL_POSITION"
    require_columns(rows, image_csv, plate_column, well_column, PREFIX + "ASSAY_WELL_ROLE")
    require_columns(rows, image_csv, PREFIX + "SOURCE_COMPOUND_NAME", PREFIX + "CPD_MMOL_CONC")
    # The column says MMOL, but its values (about 2 to 10) can only be micromolar in a well.
    return {
        well: Treatment(
            row[PREFIX + "ASSAY_WELL_ROLE"].lower() or None,
            row[PREFIX + "SOURCE_COMPOUND_NAME"] or None,
            number(row[PREFIX + "CPD_MMOL_CONC"]),
        )
        for well, row in of_plate_and_well(rows, image_csv, plate, plate_column, well_column)
    }
