"""Published nuclei: their centres from a table, instead of finding them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.errors import InputError
from hcsqc.nuclei import Nuclei
from hcsqc.schema import well_name

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
    numbers = {}
    for key in ("site", "x_px", "y_px"):
        numbers[key] = pd.to_numeric(rows[columns[key]], errors="coerce")
        bad = ~np.isfinite(numbers[key])
        if bad.any():
            raise InputError(
                f"{table}: row {bad.idxmax() + 1}: {columns[key]} is "
                f"'{rows[columns[key]][bad.idxmax()]}', which is no number"
            )
    area = pd.to_numeric(rows[columns["area_px"]]) if columns["area_px"] else 0
    nuclei = pd.DataFrame(
        {
            "well": rows[columns["well"]].map(well_name),
            "site": numbers["site"].astype(int),
            "x_px": np.rint(numbers["x_px"]).astype(np.int32),
            "y_px": np.rint(numbers["y_px"]).astype(np.int32),
            "area_px": area,
        }
    ).drop_duplicates(["well", "site", "x_px", "y_px"])
    return {
        place: Nuclei(
            group["x_px"].to_numpy(),
            group["y_px"].to_numpy(),
            group["area_px"].fillna(0).round().to_numpy(np.int32),
        )
        for place, group in nuclei.groupby(["well", "site"])
    }


def _read(table: Path) -> pd.DataFrame:
    try:
        if table.suffix.lower() == ".parquet":
            return pq.read_table(table).to_pandas()
        return pd.read_csv(table, dtype=str)
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"{table}: cannot be read as a table of nuclei ({error})") from error


def _column(rows: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in rows), None)
