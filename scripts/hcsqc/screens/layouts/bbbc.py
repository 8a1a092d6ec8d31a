"""What the layouts of the Broad Bioimage Benchmark Collection share."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import SAVE_AS
from hcsqc.core.places import match_plate, parse_plate, parse_well, why_other
from hcsqc.screens.images.remote import Folder, RemoteFolder, read_remote
from hcsqc.screens.layouts.base import (
    FoundImages,
    Image,
    entries,
    folders_below,
    is_hidden,
    one_of,
)

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
    file_name: re.Pattern, images: Folder, folders: list[Folder], plate: str
) -> FoundImages:
    """Place the files of some folders below `images` by their names.

    Raises InputError if not one of them is named as the pattern says.
    """
    found = FoundImages()
    for folder in folders:
        below = folder.relative_to(images).as_posix()
        for entry in entries(folder):
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


def folder_names(images: Folder, plate_folder: re.Pattern) -> list[str]:
    """Return the plates whose folders lie below `images`, sorted."""
    matches = [plate_folder.fullmatch(name) for name in folders_below(images)]
    return sorted({match["plate"] for match in matches if match})


def csv_rows(image_csv: Folder) -> list[dict[str, str]]:
    """Return the well-formed rows of an image CSV; BBBC022's has rows of another length.

    Blank rows and commas at the ends of rows say nothing. Letters that are not in UTF-8 are taken
    for Windows-1252, as the compounds of a published file may be written.
    Raises InputError if there is no such file, or it is no text of single bytes.
    """
    try:
        remote = isinstance(image_csv, RemoteFolder)
        content = read_remote(image_csv)[0] if remote else image_csv.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{image_csv}: no such image CSV; correct image_csv of the screen"
        ) from error
    except OSError as error:
        raise InputError(f"{image_csv}: cannot be read ({error.strerror})") from error
    if b"\0" in content:
        raise InputError(f"{image_csv}: is in UTF-16, or is not text; {SAVE_AS}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise InputError(f"{image_csv}: cannot be read as CSV ({error}); {SAVE_AS}") from error
    header = _without_empty_end(rows[0], 0) if rows else []
    cells = [_without_empty_end(row, len(header)) for row in rows[1:] if any(row)]
    return [dict(zip(header, row, strict=True)) for row in cells if len(row) == len(header)]


def _without_empty_end(row: list[str], least: int) -> list[str]:
    """Return a row without the empty cells at its end that are beyond so many."""
    filled = max((number for number, cell in enumerate(row, 1) if cell.strip()), default=0)
    return row[: max(filled, min(least, len(row)))]


def require_columns(rows: list[dict[str, str]], image_csv: Path, *names: str) -> None:
    """Raise InputError if an image CSV lacks a column."""
    for name in names:
        if rows and name not in rows[0]:
            raise InputError(f"{image_csv}: no column '{name}'; is it this screen's image CSV?")


def of_plate_and_well(
    rows: list[dict[str, str]], image_csv: Path, plate: str, plate_column: str, well_column: str
) -> list[tuple[str, dict[str, str]]]:
    """Return the well and the row of each row of a plate.

    Raises InputError for a row without a well, and if there is no row of the plate but one whose
    plate is spelt in another way: without any, treatments are not known.
    """
    own = [row for row in rows if match_plate(row[plate_column], [plate])]
    others = {parse_plate(row[plate_column]) for row in rows}
    reason = "" if own else why_other(others, [plate])
    if reason:
        raise InputError(
            f"{image_csv}: no row of plate {plate} in {plate_column}; {one_of(plate, others)}"
            f"{reason}"
        )
    wells = [parse_well(row[well_column]) for row in own]
    if None in wells:
        written = own[wells.index(None)][well_column]
        raise InputError(
            f"{image_csv}: '{written}' of plate {plate} in {well_column} is not a well such as A01"
        )
    return list(zip(wells, own, strict=True))


def number(text: str) -> float | None:
    """Return a number, or None if the text is none."""
    try:
        return float(text)
    except ValueError:
        return None
