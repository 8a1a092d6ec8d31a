"""How a screen's images are named and laid out on disk: from files to a table of fields."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.config import CHANNELS
from hcsqc.errors import InputError

_UUID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}"


@dataclass(frozen=True)
class ImageName:
    """What a file name says."""

    well: str
    site: int
    channel: str


@dataclass(frozen=True)
class Treatment:
    """What was done to a well; None where the image CSV does not say."""

    role: str | None = None
    compound: str | None = None
    concentration_um: float | None = None


@dataclass(frozen=True)
class Layout:
    """How one make of screen names folders, files and treatments."""

    file_name: re.Pattern
    folders: Callable[[Path, str], list[Path]]
    plate_folder: re.Pattern
    treatments: Callable[[Path, str], dict[str, Treatment]]


def parse_name(layout: str, name: str) -> ImageName | None:
    """Return what an image's file name says, or None if it is not named as `layout` does."""
    match = LAYOUTS[layout].file_name.fullmatch(name)
    if not match:
        return None
    return ImageName(match["well"], int(match["site"]), "w" + match["channel"])


def index_plate(
    layout: str, screen: str, plate: str, images: Path, image_csv: Path
) -> tuple[pd.DataFrame, list[str]]:
    """List the fields of a plate by file name, with the wells' treatment from the image CSV.

    Returns the rows of the `fields` table and the names of TIFF files that could not be placed.
    A field with a missing or doubled channel is listed with its problem.
    Raises InputError if the plate has no images.
    """
    folders = LAYOUTS[layout].folders(images, plate)
    found: dict[tuple[str, int], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    strangers = []
    for folder in folders:
        if not folder.is_dir():
            continue
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = parse_name(layout, entry.name)
            if name:
                found[name.well, name.site][name.channel].append(Path(entry.path))
            elif entry.name.lower().endswith((".tif", ".tiff")):
                strangers.append(entry.name)
    if not found:
        looked = ", ".join(str(folder) for folder in folders)
        raise InputError(
            f"screen {screen}: plate {plate} has no images; looked for names like "
            f"{LAYOUTS[layout].file_name.pattern} in {looked}. Correct screens.{screen}.images or "
            f"take the plate out of screens.{screen}.plates"
        )
    treatments = LAYOUTS[layout].treatments(image_csv, plate)
    rows = [
        _field_row(layout, screen, plate, images, well, site, files, treatments)
        for (well, site), files in sorted(found.items())
    ]
    return pd.DataFrame(rows), strangers


def list_plates(layout: str, images: Path) -> list[str]:
    """Return the plates whose folders lie below `images`, sorted."""
    pattern = LAYOUTS[layout].plate_folder
    names = [folder for folder, _, _ in os.walk(images, followlinks=True)]
    matches = [pattern.fullmatch(os.path.basename(name)) for name in names]
    return sorted({match["plate"] for match in matches if match})


def _field_row(layout, screen, plate, images, well, site, files, treatments) -> dict:
    paths, sizes, problems = [], [], []
    for channel in CHANNELS[layout]:
        candidates = files.get(channel, [])
        if len(candidates) == 1:
            paths.append(candidates[0].relative_to(images).as_posix())
            sizes.append(candidates[0].stat().st_size)
        else:
            paths.append(None)
            sizes.append(None)
            count = "no image" if not candidates else f"{len(candidates)} images"
            problems.append(f"{count} of channel {channel}")
    treatment = treatments.get(well, Treatment())
    return {
        "field_id": f"{screen}/{plate}/{well}/s{site}",
        "plate": plate,
        "well": well,
        "site": site,
        "role": treatment.role,
        "compound": treatment.compound,
        "concentration_um": treatment.concentration_um,
        "image_path": paths,
        "image_bytes": sizes,
        "problem": "; ".join(problems) or None,
    }


def _csv_rows(image_csv: Path) -> list[dict[str, str]]:
    """Return the well-formed rows of an image CSV; BBBC022's has rows of another length."""
    try:
        with open(image_csv, newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError as error:
        raise InputError(
            f"{image_csv}: no such image CSV; correct image_csv of the screen"
        ) from error
    header = rows[0] if rows else []
    return [dict(zip(header, row, strict=True)) for row in rows[1:] if len(row) == len(header)]


def _column(rows: list[dict[str, str]], image_csv: Path, *names: str) -> None:
    for name in names:
        if rows and name not in rows[0]:
            raise InputError(f"{image_csv}: no column '{name}'; is it this screen's image CSV?")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bbbc022_treatments(image_csv: Path, plate: str) -> dict[str, Treatment]:
    rows = _csv_rows(image_csv)
    prefix = "Image_Metadata_"
    plate_column, well_column = prefix + "PlateID", prefix + "CPD_WELL_POSITION"
    _column(rows, image_csv, plate_column, well_column, prefix + "ASSAY_WELL_ROLE")
    _column(rows, image_csv, prefix + "SOURCE_COMPOUND_NAME", prefix + "CPD_MMOL_CONC")
    # The column says MMOL, but its values (about 2 to 10) can only be micromolar in a well.
    return {
        row[well_column].upper(): Treatment(
            row[prefix + "ASSAY_WELL_ROLE"].lower() or None,
            row[prefix + "SOURCE_COMPOUND_NAME"] or None,
            _number(row[prefix + "CPD_MMOL_CONC"]),
        )
        for row in rows
        if row[plate_column] == plate
    }


def _bbbc021_treatments(image_csv: Path, plate: str) -> dict[str, Treatment]:
    rows = _csv_rows(image_csv)
    prefix = "Image_Metadata_"
    _column(rows, image_csv, prefix + "Plate_DAPI", prefix + "Well_DAPI", prefix + "Compound")
    treatments = {}
    for row in rows:
        if row[prefix + "Plate_DAPI"] == plate:
            compound = row[prefix + "Compound"]
            treatments[row[prefix + "Well_DAPI"]] = Treatment(
                "mock" if compound == "DMSO" else "compound",
                compound or None,
                _number(row[prefix + "Concentration"]),
            )
    return treatments


LAYOUTS = {
    "bbbc022": Layout(
        file_name=re.compile(
            rf"IXMtest_(?P<well>[A-P]\d\d)_s(?P<site>\d+)_w(?P<channel>[1-5]){_UUID}\.tif"
        ),
        folders=lambda images, plate: [
            images / f"BBBC022_v1_images_{plate}{channel}" for channel in CHANNELS["bbbc022"]
        ],
        plate_folder=re.compile(r"BBBC022_v1_images_(?P<plate>.+)w[1-5]"),
        treatments=_bbbc022_treatments,
    ),
    "bbbc021": Layout(
        file_name=re.compile(
            rf"(?:(?:.+?)_)?(?P<well>[A-H]\d\d)_s(?P<site>\d)_w(?P<channel>[124]){_UUID}\.tif"
        ),
        folders=lambda images, plate: [images / plate, images / plate.split("_")[0] / plate],
        plate_folder=re.compile(r"(?P<plate>Week\d+_\d+)"),
        treatments=_bbbc021_treatments,
    ),
}
