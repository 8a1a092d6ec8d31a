"""Tables that others wrote, CSV or Parquet, read in one way.

CSV is in UTF-8, with or without a byte-order mark. Blank rows, rows of commas and commas at the
ends of rows say nothing.
"""

import bz2
import gzip
import lzma
import warnings
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.places import match_plate

SAVE_AS = "save it as CSV in UTF-8 with commas between the columns and decimal points"
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}
_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_FIRST_BYTES = 2**16
_NAMELESS = "Unnamed: "  # as pandas calls them
_BEYOND = "more cells than columns"


class Kind(NamedTuple):
    """What is said of a table that is not there, and what one that cannot be read is called."""

    gone: str
    called: str = ""  # else CSV or Parquet


def is_parquet(table: Path) -> bool:
    """Return whether a table is Parquet by its name."""
    return table.suffix.lower() in (".parquet", ".pq")


def column_names(table: Path, kind: Kind) -> list[str]:
    """Return the columns of a table; `kind` says what it should be.

    Raises InputError if it cannot be read, or is not in UTF-8 with commas.
    """
    if is_parquet(table):
        return _reading(table, kind, lambda: pq.read_schema(table).names)
    _check_text(table, kind)
    return _reading(table, kind, lambda: list(_csv(table, nrows=0).columns))


def read_rows(
    table: Path, kind: Kind, columns: Iterable[str], leave_out_beyond: bool = False
) -> pd.DataFrame:
    """Return some columns of a table without its blank rows, each row under its number from 0.

    Values of CSV are text, empty where there are none; those of Parquet are as they are stored.
    Raises InputError as `column_names` does, and for a row of CSV with more cells than the table
    has columns, as of a decimal comma, unless these are to be left out.
    """
    names = list(columns)
    if is_parquet(table):
        # What pandas took for an index is a column here.
        read = lambda: pq.read_table(table, columns=names, partitioning=None)  # noqa: E731
        rows = _reading(table, kind, read).to_pandas(ignore_metadata=True)
        return rows[~_blank(rows)]
    header = column_names(table, kind)
    rows = _reading(table, kind, lambda: _csv_with_beyond(table, header, names)).fillna("")
    more = rows.pop(_BEYOND) != ""
    if more.any() and not leave_out_beyond:
        raise InputError(
            f"{table}: row {more.index[int(more.argmax())] + 1} has more values than columns: a "
            f"decimal comma, or a comma in a name without quotes; {SAVE_AS}"
        )
    return rows[names][~_blank(rows)]


def read_whole(table: Path, kind: Kind) -> pd.DataFrame:
    """Return all columns as `read_rows` does; cells beyond the columns are left out.

    So are columns of CSV without a name and without values, as commas at the ends of rows make.
    """
    rows = read_rows(table, kind, column_names(table, kind), leave_out_beyond=True)
    if is_parquet(table):
        return rows
    nameless = [name for name in rows.columns if name.startswith(_NAMELESS)]
    return rows.drop(columns=[name for name in nameless if (rows[name].str.strip() == "").all()])


def each(values: pd.Series, read: Callable[[object], object]) -> pd.Series:
    """Return what `read` makes of each value, of type object; `read` sees equal ones once."""
    codes, distinct = pd.factorize(values)
    found = np.empty(len(distinct) + 1, object)
    found[:] = [*map(read, distinct), read(None)]  # missing values have the code -1
    return pd.Series(found[codes], values.index, dtype=object, name=values.name)


def plates_among(values: pd.Series, known: Collection[str]) -> pd.Series:
    """Return which of the known plates each value names, None where it names none."""
    return each(values, lambda value: match_plate(value, known))


def _blank(rows: pd.DataFrame) -> np.ndarray:
    blank = np.ones(len(rows), bool)
    for name in rows:
        if blank.any():
            column = rows[name]
            empty = column.isna()
            if not pd.api.types.is_numeric_dtype(column):
                empty |= column.astype(str).str.strip() == ""
            blank &= empty.to_numpy()
    return blank


def _csv_with_beyond(table: Path, header: list[str], names: list[str]) -> pd.DataFrame:
    """Return columns of a CSV, and what stands in the first place after the last column."""
    wanted = [header.index(name) for name in names]
    try:
        more = {"names": [*header, _BEYOND], "usecols": [*wanted, len(header)]}
        return _csv(table, header=0, low_memory=False, **more)
    except pd.errors.ParserError:  # no row has so many values
        rows = _csv(table, header=0, low_memory=False, names=header, usecols=wanted)
        return rows.assign(**{_BEYOND: ""})


def _csv(table: Path, **more: Any) -> pd.DataFrame:
    with warnings.catch_warnings():
        # Of cells beyond the columns, which the callers look at.
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        return pd.read_csv(
            table,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
            **more,
        )


def _check_text(table: Path, kind: Kind) -> None:
    """Raise InputError for what the first bytes show not to be UTF-8 with commas."""

    def first() -> bytes:
        with _OPEN.get(table.suffix.lower(), open)(table, "rb") as file:
            return file.read(_FIRST_BYTES)

    content = _reading(table, kind, first)
    called = f"{table}: cannot be read as {kind.called or 'CSV'}"
    if b"\0" in content:  # as every second byte of plain letters is in UTF-16
        raise InputError(f"{called}: is in UTF-16, or is not text; {SAVE_AS}")
    header = content.partition(b"\n")[0].decode("utf-8", "replace")
    for separator, name in OTHER_SEPARATORS.items():
        if separator in header and "," not in header:
            raise InputError(f"{called}: has {name} between the columns; {SAVE_AS}")


def _reading(table: Path, kind: Kind, read: Any) -> Any:
    """Return what reading gives, with one message for every way it fails."""
    called = kind.called or ("Parquet" if is_parquet(table) else "CSV")
    try:
        return read()
    except FileNotFoundError as error:
        raise InputError(f"{table}: {kind.gone}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{table}: cannot be read as {called}: is not in UTF-8 ({error}); {SAVE_AS}"
        ) from error
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{table}: cannot be read as {called} ({in_one_line(error)})") from error
