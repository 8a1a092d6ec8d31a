"""What the layouts of the Broad Bioimage Benchmark Collection share."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.patience import list_folder
from hcsqc.screens.layouts.base import FoundImages, Image, is_hidden, walk

UUID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}"
PREFIX = "Image_Metadata_"


@dataclass(frozen=True)
class ImageName:
    """What a file name says."""

    well: str
    site: int
    channel: str


def parse_name(file_name: re.Pattern, name: str) -> ImageName | None:
    """Return what an image's file name says, or None if it is not named so."""
    match = file_name.fullmatch(name)
    if not match:
        return None
    return ImageName(match["well"], int(match["site"]), "w" + match["channel"])


def find_by_name(
    file_name: re.Pattern, images: Path, folders: list[Path], plate: str
) -> FoundImages:
    """Place the files of some folders below `images` by their names.

    Raises InputError if not one of them is named as the pattern says.
    """
    found = FoundImages()
    for folder in folders:
        below = folder.relative_to(images).as_posix()
        for entry in list_folder(folder):
            if is_hidden(entry):
                continue
            name = parse_name(file_name, entry)
            if name:
                image = Image(f"{below}/{entry}")
                found.images[name.well, name.site][name.channel].append(image)
            elif entry.lower().endswith((".tif", ".tiff")):
                found.strangers.append(entry)
    if not found.images:
        looked = ", ".join(str(folder) for folder in folders)
        raise InputError(
            f"plate {plate} has no images; looked for names like {file_name.pattern} in {looked}. "
            "Correct images of the screen or take the plate out of its plates"
        )
    return found


def folder_names(images: Path, plate_folder: re.Pattern) -> list[str]:
    """Return the plates whose folders lie below `images`, sorted."""
    matches = [plate_folder.fullmatch(folder.name) for folder, _, _ in walk(images)]
    return sorted({match["plate"] for match in matches if match})


def csv_rows(image_csv: Path) -> list[dict[str, str]]:
    """Return the well-formed rows of an image CSV; BBBC022's has rows of another length.

    Raises InputError if there is no such file.
    """
    try:
        with open(image_csv, newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError as error:
        raise InputError(
            f"{image_csv}: no such image CSV; correct image_csv of the screen"
        ) from error
    header = rows[0] if rows else []
    return [dict(zip(header, row, strict=True)) for row in rows[1:] if len(row) == len(header)]


def require_columns(rows: list[dict[str, str]], image_csv: Path, *names: str) -> None:
    """Raise InputError if an image CSV lacks a column."""
    for name in names:
        if rows and name not in rows[0]:
            raise InputError(f"{image_csv}: no column '{name}'; is it this screen's image CSV?")


def number(text: str) -> float | None:
    """Return a number, or None if the text is none."""
    try:
        return float(text)
    except ValueError:
        return None
