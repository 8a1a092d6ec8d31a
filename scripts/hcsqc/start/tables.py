"""Tables in a folder of images, on disk or at a URL: which are LoadData tables, what they list."""

import posixpath
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.core.errors import InputError
from hcsqc.core.places import parse_plate
from hcsqc.screens.images.remote import Folder, RemoteFolder
from hcsqc.screens.layouts.base import on_disk

TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet")
LOADDATA = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
# Other tables at a URL, as those of measurements, may be too large to be downloaded for a look.
_NAME_AT_A_URL = re.compile(r"(?i).*(load[ _-]?data|image)")


def may_be_table(table: Folder) -> bool:
    """Return whether a table that nobody has named is worth a look."""
    return not isinstance(table, RemoteFolder) or bool(_NAME_AT_A_URL.match(table.name))


def is_loaddata(columns: list[str]) -> bool:
    """Return whether a table of these columns lists images."""
    names_images = any(name.startswith(("FileName_", "URL_")) for name in columns)
    return names_images and {"Metadata_Plate", "Metadata_Well"} <= set(columns)


def image_paths(table: Folder) -> list[str]:
    """Return the paths or URLs of images in a LoadData table; empty where a row has none."""
    found, paths = rows(table), []
    channels = [name.split("_", 1)[1] for name in found if name.startswith(("FileName_", "URL_"))]
    for row in found.to_dict("records"):
        for channel in channels:
            name, above = row.get(f"FileName_{channel}", ""), row.get(f"PathName_{channel}", "")
            url = unquote(re.sub(r"^file:(//)?", "", row.get(f"URL_{channel}", "")))
            path = posixpath.join(above.replace("\\", "/"), name) if name else url
            paths.append(path.replace("\\", "/"))
    return paths


def rows(table: Folder) -> pd.DataFrame:
    """Return a LoadData table as text, by column names without `Image_`."""
    wanted = re.compile(r"(Image_)?(Metadata_Plate$|FileName_|PathName_|URL_)")

    def read(path) -> pd.DataFrame:
        if path.suffix == ".parquet":
            names = [name for name in pq.read_schema(path).names if wanted.match(name)]
            found = pq.read_table(path, columns=names, partitioning=None).to_pandas()
            return found.map(lambda value: "" if pd.isna(value) else str(value))
        return pd.read_csv(
            path,
            usecols=lambda name: bool(wanted.match(name)),
            index_col=False,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )

    found = _reading(table, read).rename(columns=lambda name: re.sub("^Image_", "", name))
    found = found.assign(Metadata_Plate=found["Metadata_Plate"].map(parse_plate))
    return found[found["Metadata_Plate"] != ""]


def columns_if_any(table: Folder) -> list[str]:
    """Return a table's columns; none of one that is not to be read, as folders hold many things."""
    try:
        return columns(table)
    except InputError:
        return []


def columns(table: Folder) -> list[str]:
    """Return a table's columns by their names without `Image_`; raises InputError."""
    names = _reading(
        table,
        lambda path: (
            pq.read_schema(path).names
            if path.suffix == ".parquet"
            else list(pd.read_csv(path, nrows=0, dtype=str, encoding="utf-8-sig").columns)
        ),
    )
    return [re.sub("^Image_", "", name) for name in names]


def _reading(table: Folder, read: Callable[..., Any]) -> Any:
    with on_disk(table) as path:
        try:
            return read(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            text = str(error).strip()
            reason = text.splitlines()[0] if text else type(error).__name__
            raise InputError(
                f"{table}: cannot be read as a table ({reason}); remove or correct it"
            ) from error
