"""A table with the columns of CellProfiler's LoadData, as the Cell Painting Gallery publishes them.

A row per field: `FileName_<channel>` and perhaps `PathName_<channel>` (or `URL_<channel>`),
`Metadata_Plate`, `Metadata_Well`, `Metadata_Site`; perhaps `Metadata_Compound`, `Metadata_Role` and
`Metadata_Concentration_uM`. Exported Image.csv files write `Image_` before each name.
"""

import posixpath
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import pandas as pd

from hcsqc.core.config import refuse_secret
from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import Kind, column_names, each, plates_among, read_rows
from hcsqc.core.places import as_text, parse_plate, parse_well, whole_number, why_other
from hcsqc.screens.images.remote import Folder, RemoteFolder
from hcsqc.screens.layouts.base import (
    FoundImages,
    Image,
    Source,
    Treatment,
    of_plate,
    on_disk,
    one_of,
    plates_by_path,
)
from hcsqc.screens.layouts.bbbc import number as number_of

_PLATE, _WELL, _SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
_COMPOUND, _ROLE, _DOSE = "Metadata_Compound", "Metadata_Role", "Metadata_Concentration_uM"
_FILE, _PATH, _URL = "FileName_", "PathName_", "URL_"
# CellProfiler hands Frame_<channel> to its readers as the index of the plane in the file, counted
# from 0, and Series_<channel> as that of the image in files that hold several images.
_FRAME, _SERIES = "Frame_", "Series_"
KIND = Kind("no such table; correct table of the screen")
# cpg0030 has the well in a column of this name.
_OTHER_WELL = "Metadata_CPD_WELL_POSITION"
# Starts of paths in the tables of the Cell Painting Gallery, which its images stand for.
_GALLERY = ("s3://cellpainting-gallery", "/home/ubuntu/bucket")
# The site in names of ImageXpress, Phenix and Yokogawa.
_SITE_IN_NAME = re.compile(
    r"_s(?P<imagexpress>\d+)_w\d|r\d\dc\d\df(?P<phenix>\d+)p\d|_T\d+F(?P<yokogawa>\d+)L\d"
)
_ELSEWHERE = re.compile(r"/|[A-Za-z]:/|[A-Za-z0-9]+://")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the images of a plate in the table; raises InputError naming row and column."""
    table = of_plate(source.table, plate)
    with on_disk(table) as path:
        return _find(source, plate, path, str(table))


def _find(source: Source, plate: str, table: Path, shown: str) -> FoundImages:
    """Find the images of a plate in a table on disk, which warnings call `shown`."""
    found = FoundImages(channels=_channels(_column_names(table)))
    rows, warnings = plate_rows(table, plate, source.channels)
    for warning in warnings:
        print(f"warning: {shown}: {warning}", file=sys.stderr)
    below = _paths_below(source, table, of_plate(source.images, plate))
    places: dict[Image, tuple[int, tuple[str, int]]] = {}
    for number, row in rows.to_dict("index").items():
        where = f"{table}: row {number + 1} after the header"
        place, images = _place(found, where, row, source.channels, below)
        _treat(found, where, place[0], row)
        _check_distinct(images, where)
        for image in images.values():
            first, other = places.setdefault(image, (number, place))
            if other != place:
                raise InputError(
                    f"{where}: {image.path} is an image of {' site '.join(map(str, other))} too "
                    f"(row {first + 1}); correct the wrong one"
                )
    return found


def plate_rows(table: Path, plate: str, channels: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return a plate's rows, each under its number from 0, and what to warn of.

    The columns are texts without `Image_`: places, treatments, and the files of `channels`. What
    indexes a table and what filters it take well and site from here. Raises InputError if the
    plate has no row, or the table no column of plate, well or site.
    """
    names = _column_names(table)
    if _WELL not in names and _OTHER_WELL in names:
        names[_WELL] = names[_OTHER_WELL]
    _require(table, names, (_PLATE, _WELL, _SITE))
    parts = [
        prefix + channel for channel in channels for prefix in (_FILE, _PATH, _URL, _FRAME, _SERIES)
    ]
    rows = _read(table, names, [_PLATE, _WELL, _SITE, _COMPOUND, _ROLE, _DOSE, *parts])
    of_this = rows[(plates_among(rows[_PLATE], [plate]) == plate).to_numpy(bool)]
    if of_this.empty:
        plates = set(each(rows[_PLATE], parse_plate))
        raise InputError(
            f"{table}: no row of plate {plate} in {_PLATE}; {one_of(plate, plates)}"
            f"{why_other(plates, [plate])}"
        )
    return _with_sites(of_this, channels)


def list_plates(source: Source) -> list[str]:
    """Return the plates that have a table or stand in the table, sorted."""
    if "{plate}" in str(source.table):
        return plates_by_path(source.table)
    with on_disk(source.table) as table:
        names = _column_names(table)
        _require(table, names, (_PLATE,))
        plates = _read(table, names, [_PLATE])[_PLATE]
    return sorted(set(each(plates, parse_plate)))


def list_channels(source: Source) -> list[str]:
    """Return the channels of the (first plate's) table, sorted."""
    plates = list_plates(source)
    return plate_channels(source, plates[0]) if plates else []


def plate_channels(source: Source, plate: str) -> list[str]:
    """Return the channels of a plate's table, sorted."""
    with on_disk(of_plate(source.table, plate)) as table:
        return sorted(_channels(_column_names(table)))


def _with_sites(rows: pd.DataFrame, channels: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return rows whose site is a number: where it is not, as in cpg0030, the file names' one.

    The warnings say so, and how many rows have another site than the names of their files.
    """
    warnings = []
    named = pd.Series(
        [_site_in_name(row, channels) for row in rows.to_dict("records")], rows.index, dtype=object
    )
    known = each(rows[_SITE], whole_number)
    replaced = known.isna() & named.notna()
    if replaced.any():
        warnings.append(
            f"{int(replaced.sum())} of {len(rows)} rows have a {_SITE} such as "
            f"'{rows[_SITE][replaced].iloc[0]}', which is not a number; the site in the names of "
            "their files is used"
        )
        rows = rows.assign(**{_SITE: rows[_SITE].mask(replaced, named.map(str))})
    differs = known.notna() & named.notna() & (known != named)
    if differs.any():
        first = differs.index[int(differs.argmax())]
        warnings.append(
            f"{int(differs.sum())} of {len(rows)} rows have another {_SITE} than "
            f"the names of their files, first row {first + 1} after the header: {known[first]}, "
            f"but {named[first]} in the name; are sites counted otherwise, or is the table wrong?"
        )
    return rows, warnings


def _site_in_name(row: dict[str, str], channels: Sequence[str]) -> int | None:
    """Return the site that the names of a row's files say; None if they say none or several."""
    found = set()
    for channel in channels:
        match = _SITE_IN_NAME.search(_file(row, channel))
        if match:
            found.add(int(next(filter(None, match.groups()))))
    return found.pop() if len(found) == 1 else None


def _place(
    found: FoundImages,
    where: str,
    row: dict[str, str],
    channels: tuple[str, ...],
    below: Callable[[str], str],
) -> tuple[tuple[str, int], dict[str, Image]]:
    """Add the images of one row; return its well and site, and its images by channel."""
    well, site = parse_well(row[_WELL]), whole_number(row[_SITE])
    if well is None:
        raise InputError(f"{where}: {_WELL} '{row[_WELL]}' is not a well such as A01")
    if site is None:
        raise InputError(f"{where}: {_SITE} '{row[_SITE]}' is not a whole number")
    images = {}
    for channel in channels:
        file = _file(row, channel)
        if not file:
            continue
        frame, series = row.get(_FRAME + channel, ""), row.get(_SERIES + channel, "")
        if frame and whole_number(frame) is None:
            raise InputError(f"{where}: {_FRAME}{channel} '{frame}' is not a whole number")
        if series and whole_number(series) != 0:
            found.problems[well, site] = (
                f"{_SERIES}{channel} is {series}, but only the first image of a file can be read"
            )
        images[channel] = Image(below(file), whole_number(frame))
        found.images[well, site][channel].append(images[channel])
    found.images[well, site]  # a field without any image is one too
    return (well, site), images


def _treat(found: FoundImages, where: str, well: str, row: dict[str, str]) -> None:
    """Add what a row says was done to its well; raises InputError where rows contradict it."""
    compound, role, dose = (row.get(name, "").strip() for name in (_COMPOUND, _ROLE, _DOSE))
    told = Treatment(role.lower() or None, compound or None, number_of(dose))
    if told == Treatment():
        return
    first = found.treatments.setdefault(well, told)
    if first != told:
        raise InputError(
            f"{where}: well {well} has {_in_words(told)}, but {_in_words(first)} in a row before; "
            "correct the wrong one"
        )


def _in_words(treatment: Treatment) -> str:
    told = (treatment.role, treatment.compound, treatment.concentration_um)
    return ", ".join(str(value) for value in told if value is not None)


def _check_distinct(images: dict[str, Image], where: str) -> None:
    """Raise InputError if two channels are one image: the same page, or a file without pages."""
    named: dict[str, dict[int | None, str]] = {}
    for channel, image in images.items():
        pages = named.setdefault(image.path, {})
        if pages and (image.page is None or image.page in pages or None in pages):
            other = pages.get(image.page) or next(iter(pages.values()))
            raise InputError(
                f"{where}: channels {other} and {channel} are one image, {image.path}; correct the "
                f"row, or name their pages in {_FRAME}{other} and {_FRAME}{channel}"
            )
        pages[image.page] = channel


def _file(row: dict[str, str], channel: str) -> str:
    """Return the path that a row gives for a channel, as it is written; empty if it has none."""
    name = row.get(_FILE + channel, "")
    if name:
        return posixpath.join(_slashes(row.get(_PATH + channel, "")), _slashes(name))
    return _slashes(unquote(re.sub(r"^file:(//)?", "", row.get(_URL + channel, ""))))


def _paths_below(source: Source, table: Path, folder: Folder) -> Callable[[str], str]:
    """Return a function from a path of the table to one below the images' folder."""
    prefix = _slashes(source.table_prefix or "").rstrip("/")
    if isinstance(folder, RemoteFolder):
        starts = [prefix, folder.url]
    else:
        starts = [prefix, folder.absolute().as_posix(), folder.resolve().as_posix()]

    if source.layout == "cell_painting_gallery":
        starts += _GALLERY

    def below(path: str) -> str:
        refuse_secret(path, table)
        for start in starts:
            if start and path.startswith(start + "/"):
                path = path[len(start) :].lstrip("/")
                break
        below = posixpath.normpath(path)
        if _ELSEWHERE.match(path) or below.startswith("../"):
            told = (
                f"does not start with table_prefix '{source.table_prefix}' and " if prefix else ""
            )
            raise InputError(
                f"{table}: '{path}' {told}does not lie below {folder}; set table_prefix of the "
                "screen to the start of the table's paths that its images stands for"
            )
        return below

    return below


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _channels(names: dict[str, str]) -> set[str]:
    return {
        name.removeprefix(prefix)
        for name in names
        for prefix in (_FILE, _URL)
        if name.startswith(prefix)
    }


def _require(table: Path, names: dict[str, str], columns: tuple[str, ...]) -> None:
    for column in columns:
        if column not in names:
            raise InputError(
                f"{table}: no column '{column}'; {one_of(column, names)}. Is it a LoadData table?"
            )


def _column_names(table: Path) -> dict[str, str]:
    """Return the columns by their names without `Image_`, as the file writes them."""
    return {re.sub("^Image_", "", name): name for name in reversed(column_names(table, KIND))}


def _read(table: Path, names: dict[str, str], columns: list[str]) -> pd.DataFrame:
    """Return some columns as text, those that there are, with empty text for null.

    Raises InputError for a row that names no plate.
    """
    stored = {names[column]: column for column in columns if column in names}
    rows = read_rows(table, KIND, stored, leave_out_beyond=True).rename(columns=stored)
    for name in rows:
        of_place = name in (_PLATE, _WELL, _SITE)
        rows[name] = each(rows[name], as_text if of_place else _as_written)
    nameless = (rows[_PLATE] == "").to_numpy(bool)
    if nameless.any():
        number = rows.index[int(nameless.argmax())] + 1
        raise InputError(f"{table}: row {number} after the header: {_PLATE} is empty")
    return rows


def _as_written(value: object) -> str:
    return value if isinstance(value, str) else as_text(value)
