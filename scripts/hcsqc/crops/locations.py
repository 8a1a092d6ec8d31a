"""Published nuclei: their centres from a table, instead of finding them."""

from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import Kind, column_names, each, plates_among, read_rows
from hcsqc.core.places import as_text, parse_well, whole_number, why_other
from hcsqc.crops.nuclei import Nuclei
from hcsqc.screens.layouts.base import first_few

# What each column is called: by CellProfiler's database, by its Nuclei.csv, by our label files.
NAMES = {
    "plate": ("Metadata_Plate", "Image_Metadata_Plate", "plate"),
    "well": ("Metadata_Well", "Image_Metadata_Well", "well"),
    "site": ("Metadata_Site", "Image_Metadata_Site", "site"),
    "x_px": ("Nuclei_Location_Center_X", "Location_Center_X", "x_px"),
    "y_px": ("Nuclei_Location_Center_Y", "Location_Center_Y", "y_px"),
    "area_px": ("Nuclei_AreaShape_Area", "AreaShape_Area", "area_px"),
}
KIND = Kind("no such table of nuclei; correct locations", "a table of nuclei")
_TAKE_OUT = "; list them, or take the plate out of the screen's plates"
OPTIONAL = ("plate", "area_px")
LARGEST = 2**31 - 1  # of the type in which places are kept


def read_locations(table: Path, plate: str) -> dict[tuple[str, int], Nuclei]:
    """Return the nuclei of a plate by well and site, from a CSV or Parquet table of centres.

    Coordinates are pixels of the source image, counted from 0 at the first pixel's centre as
    CellProfiler does. Without a column for the plate every row is this plate's; without areas
    they are 0. A centre that is listed twice counts once.
    Raises InputError if the table lacks a column, has no row of the plate or bad values.
    """
    stored = column_names(table, KIND)
    columns = {key: next((n for n in names if n in stored), None) for key, names in NAMES.items()}
    missing = [key for key, name in columns.items() if name is None and key not in OPTIONAL]
    if missing:
        raise InputError(
            f"{table}: has no column {' or '.join(NAMES[missing[0]])}; "
            f"its columns begin with {', '.join(stored[:8])}"
        )
    rows = read_rows(table, KIND, [name for name in columns.values() if name])
    if columns["plate"]:
        rows = _of_plate(rows, columns["plate"], table, plate)
    if rows.empty:
        raise InputError(f"{table}: lists no nucleus of plate {plate}{_TAKE_OUT}")
    wells = each(rows[columns["well"]], parse_well)
    _check(table, rows[columns["well"]], wells.notna(), "which is not a well")
    numbers = {}
    for key in ("x_px", "y_px", "area_px"):
        if columns[key] is None:
            numbers[key] = pd.Series(0.0, rows.index)
            continue
        given = rows[columns[key]]
        numbers[key] = pd.to_numeric(given, errors="coerce").astype(float)
        if key == "area_px":
            numbers[key] = numbers[key].mask(given.isna() | (given == ""), 0.0)
        usable = numbers[key].abs() < LARGEST  # not so for what is no number
        _check(table, given, usable, "which is not a usable number")
    sites = each(rows[columns["site"]], whole_number)
    _check(table, rows[columns["site"]], sites.notna(), "which is not a whole number")
    numbers["site"] = sites.astype(float)
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
        row, value = given.index[place] + 1, as_text(given.iloc[place])
        told = f"is '{value}', {why_not}" if value else "is empty"
        raise InputError(f"{table}: row {row}: {given.name} {told}")


def _of_plate(rows: pd.DataFrame, column: str, table: Path, plate: str) -> pd.DataFrame:
    """Return the rows of a plate; raises InputError for a row without one, and if there is none."""
    given = rows[column]
    _check(table, given, each(given, as_text) != "", "no plate")
    own = (plates_among(given, [plate]) == plate).to_numpy(bool)
    if not own.any() and len(rows):
        others = sorted(set(each(given, as_text)))
        raise InputError(
            f"{table}: lists no nucleus of plate {plate}; it has {first_few(others)}"
            f"{why_other(others, [plate]) or _TAKE_OUT}"
        )
    return rows[own]
