"""Published nuclei: their centres from a table, instead of finding them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.core.errors import InputError
from hcsqc.crops.nuclei import Nuclei
from hcsqc.screens.layouts.base import parse_well

# What each column is called: by CellProfiler's database, by its Nuclei.csv, by our label files.
NAMES = {
    "plate": ("Metadata_Plate", "Image_Metadata_Plate", "plate"),
    "well": ("Metadata_Well", "Image_Metadata_Well", "well"),
    "site": ("Metadata_Site", "Image_Metadata_Site", "site"),
    "x_px": ("Nuclei_Location_Center_X", "Location_Center_X", "x_px"),
    "y_px": ("Nuclei_Location_Center_Y", "Location_Center_Y", "y_px"),
    "area_px": ("Nuclei_AreaShape_Area", "AreaShape_Area", "area_px"),
}
OPTIONAL = ("plate", "area_px")
LARGEST = 2**31 - 1  # of the type in which places are kept


def read_locations(table: Path, plate: str) -> dict[tuple[str, int], Nuclei]:
    """Return the nuclei of a plate by well and site, from a CSV or Parquet table of centres.

    Coordinates are pixels of the source image, counted from 0 at the first pixel's centre as
    CellProfiler does. Without a column for the plate every row is this plate's; without areas
    they are 0. A centre that is listed twice counts once.
    Raises InputError if the table lacks a column, has no row of the plate or bad values.
    """
    rows = _read(table)
    columns = {key: _column(rows, names) for key, names in NAMES.items()}
    missing = [key for key, name in columns.items() if name is None and key not in OPTIONAL]
    if missing:
        raise InputError(
            f"{table}: has no column {' or '.join(NAMES[missing[0]])}; "
            f"its columns begin with {', '.join(rows.columns[:8])}"
        )
    if columns["plate"]:
        rows = rows[rows[columns["plate"]].astype(str) == plate]
    if rows.empty:
        raise InputError(f"{table}: lists no nucleus of plate {plate}")
    wells = rows[columns["well"]].fillna("").astype(str).map(parse_well)
    _check(table, rows[columns["well"]], wells.notna(), "which is no well")
    numbers = {}
    for key in ("site", "x_px", "y_px", "area_px"):
        if columns[key] is None:
            numbers[key] = pd.Series(0.0, rows.index)
            continue
        given = rows[columns[key]]
        numbers[key] = pd.to_numeric(given, errors="coerce").astype(float)
        if key == "area_px":
            numbers[key] = numbers[key].mask(given.isna(), 0.0)
        usable = numbers[key].abs() < LARGEST  # not so for what is no number
        _check(table, given, usable, "which is no usable number")
    _check(table, rows[columns["site"]], numbers["site"] % 1 == 0, "which is no whole number")
    nuclei = pd.DataFrame(numbers).round().astype(np.int32).assign(well=wells)
    nuclei = nuclei.drop_duplicates(["well", "site", "x_px", "y_px"])
    return {
        (group["well"].iloc[0], int(group["site"].iloc[0])): Nuclei(
            group["x_px"].to_numpy(),
            group["y_px"].to_numpy(),
            group["area_px"].to_numpy(),
        )
        for _, group in nuclei.groupby(["well", "site"])
    }


def _check(table: Path, given: pd.Series, good: pd.Series, why_not: str) -> None:
    if not good.all():
        place = int(good.argmin())
        row, value = given.index[place] + 1, given.iloc[place]
        raise InputError(f"{table}: row {row}: {given.name} is '{value}', {why_not}")


def _read(table: Path) -> pd.DataFrame:
    try:
        if table.suffix.lower() == ".parquet":
            # What pandas took for an index is a column here.
            return pq.read_table(table).to_pandas(ignore_metadata=True)
        return pd.read_csv(table, dtype=str)
    except FileNotFoundError as error:
        raise InputError(f"{table}: no such table of nuclei; correct locations") from error
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"{table}: cannot be read as a table of nuclei ({error})") from error


def _column(rows: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in rows), None)
