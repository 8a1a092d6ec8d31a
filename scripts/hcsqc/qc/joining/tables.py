"""Tables of profiles as other programs wrote them, and the same tables with flags.

CSV is kept to the letter, Parquet column by column with its types and metadata.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.given_tables import Kind, column_names, is_parquet, read_rows, read_whole

KIND = Kind("no such table of profiles; correct the path")
PREFIX = "hcsqc_"
_NAMELESS = "Unnamed: "  # as pandas calls columns without a name
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}
_TYPES = {
    "score": pa.float64(),
    "flagged": pa.bool_(),
    "artefact": pa.string(),
    "nuclei": pa.int64(),
    "scored": pa.int64(),
    "flagged_cells": pa.int64(),
    "flagged_share": pa.float64(),
    "bad": pa.bool_(),
    "few_cells": pa.bool_(),
}


def names_of(path: Path) -> list[str]:
    """Return the columns of a table of profiles; raises InputError if it cannot be read."""
    return column_names(path, KIND)


def read_columns(path: Path, names: list[str]) -> pd.DataFrame:
    """Return some columns, each row under its number from 0; blank rows are left out.

    Raises InputError if there is no other row.
    """
    rows = read_rows(path, KIND, names, leave_out_beyond=True)
    if rows.empty:
        raise InputError(f"{path}: has no row with {', '.join(names)}; give a table of profiles")
    return rows


def output_of(path: Path, given: Path | None) -> Path:
    """Return where the table with flags goes: what is given, or `_flagged` beside the profiles.

    Raises InputError if it would be of another format.
    """
    if given is None:
        name, dot, endings = path.name.partition(".")
        return path.with_name(f"{name}_flagged{dot}{endings}")
    if is_parquet(given) != is_parquet(path):
        wanted = "Parquet (.parquet)" if is_parquet(path) else "CSV (.csv or .csv.gz)"
        raise InputError(f"{given}: the profiles are {wanted}; give the output the same ending")
    return given


def check_free(path: Path, output: Path, force: bool) -> None:
    """Raise InputError if something would be overwritten, unless that is asked for."""
    if force:
        return
    if output.exists():
        raise InputError(f"{output}: exists; name another file with --out, or add --force")
    taken = [name for name in names_of(path) if name.startswith(PREFIX)]
    if taken:
        raise InputError(
            f"{path}: has a column {taken[0]} already; give the table without it, or replace it "
            "with --force"
        )


def write_joined(path: Path, flags: pd.DataFrame, output: Path) -> None:
    """Write the profiles with flags, whole or not at all.

    `flags` have the row numbers of `read_columns`, and columns of `_TYPES`, which are written with
    `PREFIX`. Columns of that prefix that the profiles have are left out.
    """
    if is_parquet(path):
        table = pq.read_table(path, partitioning=None)
        table = table.select([name for name in table.column_names if not name.startswith(PREFIX)])
        own = flags.reindex(range(table.num_rows))
        for name in flags.columns:
            values = pa.array(own[name], _TYPES[name], from_pandas=True)
            table = table.append_column(PREFIX + name, values)
        with atomic(output) as temporary:
            pq.write_table(table, temporary)
        return
    rows = read_whole(path, KIND)
    rows = rows[[name for name in rows.columns if not name.startswith(PREFIX)]]
    rows = rows.join(flags.add_prefix(PREFIX))
    header = ["" if name.startswith(_NAMELESS) else name for name in rows.columns]
    compression: Any = _COMPRESSIONS.get(output.suffix.lower())
    with atomic(output) as temporary:
        rows.to_csv(temporary, index=False, header=header, compression=compression)
