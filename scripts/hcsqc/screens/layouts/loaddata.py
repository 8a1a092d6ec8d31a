"""A table with the columns of CellProfiler's LoadData, as the Cell Painting Gallery publishes them.

A row per field: `FileName_<channel>` and perhaps `PathName_<channel>` (or `URL_<channel>`),
`Metadata_Plate`, `Metadata_Well`, `Metadata_Site`. Exported Image.csv files write `Image_` before
each name.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.core.errors import InputError
from hcsqc.screens.layouts.base import (
    FoundImages,
    Image,
    Source,
    of_plate,
    one_of,
    parse_well,
    plates_by_path,
)

_PLATE, _WELL, _SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
_FILE, _PATH, _URL = "FileName_", "PathName_", "URL_"
# CellProfiler hands Frame_<channel> to its readers as the index of the plane in the file, counted
# from 0, and Series_<channel> as that of the image in files that hold several images.
_FRAME, _SERIES = "Frame_", "Series_"
_ELSEWHERE = re.compile(r"/|[A-Za-z]:/|[a-z0-9]+://")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the images of a plate in the table; raises InputError naming row and column."""
    table = of_plate(source.table, plate)
    names = _column_names(table)
    _require(table, names, (_PLATE, _WELL, _SITE))
    found = FoundImages(channels=_channels(names))
    parts = [
        prefix + channel
        for channel in source.channels
        if channel in found.channels
        for prefix in (_FILE, _PATH, _URL, _FRAME, _SERIES)
    ]
    rows = _read(table, names, [_PLATE, _WELL, _SITE, *parts])
    of_this = rows[rows[_PLATE] == plate]
    if of_this.empty:
        raise InputError(
            f"{table}: no row of plate {plate} in {_PLATE}; {one_of(plate, set(rows[_PLATE]))}"
        )
    below = _paths_below(source, table, of_plate(source.images, plate))
    for row in of_this.to_dict("index").items():
        _place(found, table, row, source.channels, below)
    return found


def list_plates(source: Source) -> list[str]:
    """Return the plates that have a table or stand in the table, sorted."""
    if "{plate}" in str(source.table):
        return plates_by_path(source.table)
    names = _column_names(source.table)
    _require(source.table, names, (_PLATE,))
    return sorted(set(_read(source.table, names, [_PLATE])[_PLATE]))


def list_channels(source: Source) -> list[str]:
    """Return the channels of the (first plate's) table, sorted."""
    plates = list_plates(source)
    return sorted(_channels(_column_names(of_plate(source.table, plates[0])))) if plates else []


def _place(
    found: FoundImages,
    table: Path,
    numbered: tuple[int, dict[str, str]],
    channels: tuple[str, ...],
    below: Callable[[str], str],
) -> None:
    """Add the images of one row."""
    number, row = numbered
    well, site = parse_well(row[_WELL]), _whole(row[_SITE])
    where = f"{table}: row {number + 1} after the header"
    if well is None:
        raise InputError(f"{where}: {_WELL} '{row[_WELL]}' is no well such as A01")
    if site is None:
        raise InputError(f"{where}: {_SITE} '{row[_SITE]}' is no whole number")
    images = found.images[well, site]
    for channel in channels:
        file = _file(row, channel)
        if not file:
            continue
        frame, series = row.get(_FRAME + channel, ""), row.get(_SERIES + channel, "")
        if frame and _whole(frame) is None:
            raise InputError(f"{where}: {_FRAME}{channel} '{frame}' is no whole number")
        if series and _whole(series) != 0:
            found.problems[well, site] = (
                f"{_SERIES}{channel} is {series}, but only the first image of a file can be read"
            )
        images[channel].append(Image(below(file), _whole(frame)))


def _file(row: dict[str, str], channel: str) -> str:
    """Return the path that a row gives for a channel, as it is written; empty if it has none."""
    name = row.get(_FILE + channel, "")
    if name:
        return posixpath.join(_slashes(row.get(_PATH + channel, "")), _slashes(name))
    return _slashes(unquote(re.sub(r"^file:(//)?", "", row.get(_URL + channel, ""))))


def _paths_below(source: Source, table: Path, folder: Path) -> Callable[[str], str]:
    """Return a function from a path of the table to one below the images' folder."""
    prefix = _slashes(source.table_prefix or "").rstrip("/")
    starts = [prefix, folder.absolute().as_posix(), folder.resolve().as_posix()]

    def below(path: str) -> str:
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


def _whole(text: str) -> int | None:
    """Return `1` or `1.0` as a whole number, None if it is none."""
    match = re.fullmatch(r"(\d+)(\.0*)?", text.strip())
    return int(match[1]) if match else None


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
    stored = _reading(table, _parquet_columns if is_parquet(table) else _csv_columns)
    return {re.sub("^Image_", "", name): name for name in reversed(stored)}


def _read(table: Path, names: dict[str, str], columns: list[str]) -> pd.DataFrame:
    """Return some columns as text, those that there are, with empty text for null."""
    stored = {names[column]: column for column in columns if column in names}
    if is_parquet(table):
        rows = _reading(
            table,
            lambda path: _parquet_rows(path, list(stored)),
        )
        rows = rows.map(as_text)
    else:
        rows = _reading(
            table,
            lambda path: pd.read_csv(
                path,
                usecols=list(stored),
                index_col=False,  # more cells than columns are no index: they are left out
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
            ),
        )
    return rows.rename(columns=stored)


def as_text(value: object) -> str:
    """Return a value of a table as it names a plate or well: 1001.0 is 1001, null is empty."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_parquet(table: Path) -> bool:
    """Return whether a table is Parquet by its name."""
    return table.suffix.lower() in (".parquet", ".pq")


def _parquet_rows(table: Path, columns: list[str]) -> pd.DataFrame:
    rows = pq.read_table(table, columns=columns, partitioning=None)
    return rows.to_pandas(ignore_metadata=True)  # what pandas took for an index is a column here


def _parquet_columns(table: Path) -> list[str]:
    return pq.read_schema(table).names


def _csv_columns(table: Path) -> list[str]:
    return list(pd.read_csv(table, nrows=0, dtype=str, encoding="utf-8-sig").columns)


def _reading(table: Path, read: Callable) -> object:
    """Return what reading the table gives, with one message for every way it fails."""
    try:
        return read(table)
    except FileNotFoundError as error:
        raise InputError(f"{table}: no such table; correct table of the screen") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        kind = "Parquet" if is_parquet(table) else "CSV"
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{table}: cannot be read as {kind} ({reason})") from error
