"""Quality flags by field that others published: CSV, Parquet or SQLite, on disk or at a URL."""

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import Kind, column_names, each, plates_among, read_rows
from hcsqc.core.places import as_text, parse_plate, parse_well, whole_number, why_other
from hcsqc.qc.agreement.sqlite_table import ENDINGS, image_table
from hcsqc.qc.profiles import PLACE
from hcsqc.screens.images.remote import Folder, RemoteFolder, connections, folder_at
from hcsqc.screens.layouts.base import first_few, on_disk

KIND = Kind("no such table of published flags; correct published_flags.table of the screen")
# CellProfiler's files of images have the first prefix, LoadData tables the second.
_PREFIXES = re.compile("^(Image_)?(Metadata_)?")
# CellProfiler writes nan for what it could not measure, and databases export NULL as a word.
_MISSING = ("", "nan", "null", "none")
_FLAGS = {"1": True, "true": True, "0": False, "false": False} | dict.fromkeys(_MISSING)


@dataclass(frozen=True)
class Published:
    """Published flags: a row per field with the columns of `PLACE` and a boolean one per flag.

    A flag is missing where its cell is empty or says nan, null or none. `without_place` counts
    the rows that are left out because their well or site is missing; `bytes_read` came from
    servers.
    """

    fields: pd.DataFrame
    without_place: int
    bytes_read: int


def read_published(
    template: str, plates: Sequence[str], flags: Sequence[str], ours: pd.DataFrame
) -> Published:
    """Return what a table, or one per plate where its name holds `{plate}`, flags of the plates.

    `flags` are its columns of flags, `ours` the columns of `PLACE` of the fields that the screen
    has. Rows of other plates are left out. Raises InputError if a table is missing or cannot be
    read, if it lacks a column, for a place or flag that is none, for a field that is listed twice,
    and if no row is of a field of `ours`.
    """
    tables = [folder_at(template)]
    if "{plate}" in template:
        tables = [folder_at(template.replace("{plate}", plate)) for plate in plates]
    with ThreadPoolExecutor(connections()) as pool:  # servers are slow to answer, not we to read
        read = list(pool.map(lambda table: _read(table, plates, flags), tables))
    fields = pd.concat([table.fields for table in read], ignore_index=True)
    _check_some_match(template, fields, ours)
    fields = fields[fields[PLACE[0]].isin(plates)].reset_index(drop=True)
    twice = fields.duplicated(PLACE)
    if twice.any():
        raise InputError(
            f"{template}: field {_text(fields[twice].iloc[0])} is listed twice; keep one row of it"
        )
    without_place = sum(table.without_place for table in read)
    return Published(fields, without_place, sum(table.bytes_read for table in read))


def _read(table: Folder, plates: Collection[str], flags: Sequence[str]) -> Published:
    """Return the places and flags of one table."""
    try:
        if PurePosixPath(str(table)).suffix.lower() in ENDINGS:
            with image_table(table) as (image, blocks):
                places = _place_columns(image.column_names(), flags, image.shown)
                rows = image.read([*places, *flags])
            bytes_read = blocks.bytes_read if blocks else 0
        else:
            with on_disk(table) as path:
                places = _place_columns(column_names(path, KIND), flags, str(path))
                rows = read_rows(path, KIND, [*places, *flags], leave_out_beyond=True)
                bytes_read = path.stat().st_size if isinstance(table, RemoteFolder) else 0
    except FileNotFoundError as error:
        raise InputError(f"{table}: {KIND.gone}") from error
    return Published(*_parsed(table, rows, places, plates, flags), bytes_read)


def _place_columns(names: Sequence[str], flags: Sequence[str], shown: str) -> list[str]:
    """Return the columns of plate, well and site; raises InputError if one, or a flag, is none."""
    found = {_PREFIXES.sub("", name).casefold(): name for name in reversed(names)}
    for key in PLACE:
        bare = key.removeprefix("Metadata_")
        if bare.casefold() not in found:
            raise InputError(
                f"{shown}: has no column of the {bare.lower()}: Image_{key}, {key} or {bare}; its "
                f"columns begin with {', '.join(names[:8])}"
            )
    for flag in flags:
        if flag not in names:
            near = [name for name in names if "qc" in name.casefold()] or list(names)
            raise InputError(
                f"{shown}: has no column {flag}; it has {first_few(near, 8)}; correct "
                "published_flags.columns of the screen"
            )
    return [found[key.removeprefix("Metadata_").casefold()] for key in PLACE]


def _parsed(
    table: Folder,
    rows: pd.DataFrame,
    places: Sequence[str],
    plates: Collection[str],
    flags: Sequence[str],
) -> tuple[pd.DataFrame, int]:
    """Return the rows with places and flags as ours are; an unknown plate stays as it is written.

    Values are only checked in rows of the screen's plates. Those without a well or a site are left
    out, and counted.
    """
    own = plates_among(rows[places[0]], plates)
    missing = [each(rows[name], _is_missing).to_numpy(bool) for name in places[1:]]
    placeless = own.notna().to_numpy(bool) & np.any(missing, axis=0)
    rows, own = rows[~placeless], own[~placeless]
    given = dict(zip(PLACE, (rows[name] for name in places), strict=True))
    known = own.notna().to_numpy(bool)
    made = {PLACE[0]: own.where(known, each(given[PLACE[0]], parse_plate))}
    for key, read, why_not in (
        (PLACE[1], parse_well, "not a well such as A01"),
        (PLACE[2], whole_number, "not a whole number"),
    ):
        made[key] = each(given[key], read)
        _check(table, given[key], made[key].notna().to_numpy(bool) | ~known, why_not)
    for flag in flags:
        read_flags = each(rows[flag], _flag)
        bad = (read_flags == "?").to_numpy(bool)
        _check(table, rows[flag], ~bad | ~known, "neither 0, 1, true, false nor empty")
        made[flag] = read_flags.mask(bad, None).astype("boolean")
    return pd.DataFrame(made), int(placeless.sum())


def _is_missing(value: object) -> bool:
    return as_text(value).lower() in _MISSING


def _flag(value: object) -> object:
    text = parse_plate(as_text(value)).lower()  # 1.0 as 1
    return _FLAGS.get(text, "?")


def _check(table: Folder, given: pd.Series, good: np.ndarray, why_not: str) -> None:
    if not good.all():
        place = int(good.argmin())
        raise InputError(
            f"{table}: row {given.index[place] + 1}: {given.name} is '{as_text(given.iloc[place])}'"
            f", {why_not}; correct the table"
        )


def _check_some_match(template: str, fields: pd.DataFrame, ours: pd.DataFrame) -> None:
    """Raise InputError if no published field is one of ours; it says how both are spelt."""
    own = set(ours[PLACE].itertuples(index=False, name=None))
    if any(place in own for place in fields[PLACE].itertuples(index=False, name=None)):
        return
    if fields.empty:
        raise InputError(
            f"{template}: has no row with a well and a site; give a table with a row per field"
        )
    raise InputError(
        f"{template}: no row is of a field of the screen; the first row is of plate, well, site "
        f"'{_text(fields.iloc[0])}', the first field of the screen is '{_text(ours.iloc[0])}': use "
        f"the same names{why_other(set(fields[PLACE[0]]), ours[PLACE[0]].unique())}"
    )


def _text(row: pd.Series) -> str:
    return " ".join(as_text(row[key]) for key in PLACE)
