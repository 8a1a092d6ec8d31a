"""What the quality control of a screen found, read from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json
from hcsqc.core.schema import as_written, check_columns, read_table
from hcsqc.qc.cells import is_flagged

# Columns of the tables that are read; all else is ignored.
TEXT = {"Metadata_Plate", "Metadata_Well", "role", "compound", "artefact", "reason", "warning"}
TEXT |= {"channel", "found"}
BOOLEAN = {"empty", "out_of_focus", "saturated", "bad", "warned"}
COLUMNS = {
    "fields": "Metadata_Plate Metadata_Well Metadata_Site role compound concentration_um nuclei "
    "scored flagged flagged_share edge empty out_of_focus saturated bad reason",
    "wells": "Metadata_Plate Metadata_Well role compound concentration_um fields nuclei scored "
    "flagged flagged_share low high expected focus artefact bad reason",
    "plates": "Metadata_Plate wells bad_wells fields bad_fields nuclei scored flagged "
    "flagged_share low high feature_shift score_shift warning",
    "compounds": "compound concentration_um wells scored flagged_share control_share p_value "
    "adjusted_p warned artefact",
    "corrections": "Metadata_Plate channel background cell gain offset found",
}
TRUTH_COLUMNS = ["what", "planted", "found", "low", "high"]


@dataclass(frozen=True)
class Results:
    """What the quality control of a screen found: the tables of its folder, and the threshold."""

    cells: pd.DataFrame
    fields: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    compounds: pd.DataFrame
    corrections: pd.DataFrame
    threshold: Mapping


def read_results(folder: Path, plate: str | None = None) -> Results:
    """Read the tables of results/{study}/qc/{screen}, or what they have of one plate.

    A plate has no compounds: these are of the whole screen. Raises InputError if a table is missing
    or is no such table, if they are not of the same cells, or if there is no such plate.
    """
    only = None if plate is None else [("Metadata_Plate", "=", plate)]
    cells = read_table(folder / "cells.parquet", "cells", filters=only)
    tables = {name: _read_csv(folder / f"{name}.csv", columns) for name, columns in COLUMNS.items()}
    if plate is not None:
        tables = _of_plate(tables, plate)
    for name in ("fields", "wells", "plates"):
        for column, count in cell_counts(cells).items():
            if int(tables[name][column].sum()) != count:
                raise InputError(
                    f"{folder / name}.csv: {int(tables[name][column].sum())} cells {column}, but "
                    f"cells.parquet has {count}; make all tables of the screen again"
                )
    return Results(cells=cells, **tables, threshold=read_checked_json(folder / "threshold.json"))


def of_plate(results: Results, plate: str) -> Results:
    """Return the results of one plate; compounds are of the whole screen, so there are none.

    Raises InputError if there is no such plate.
    """
    tables = {name: getattr(results, name) for name in ("cells", *COLUMNS)}
    return Results(**_of_plate(tables, plate), threshold=results.threshold)


def _of_plate(tables: Mapping[str, pd.DataFrame], plate: str) -> dict[str, pd.DataFrame]:
    if plate not in set(tables["plates"]["Metadata_Plate"]):
        raise InputError(
            f"plates.csv: there is no plate {plate}; make all tables of the screen again"
        )
    return {
        name: table.head(0)
        if name == "compounds"
        else table[table["Metadata_Plate"] == plate].reset_index(drop=True)
        for name, table in tables.items()
    }


def _read_csv(path: Path, columns: str) -> pd.DataFrame:
    try:
        # Plates may be called 0042 or NA: no text is guessed to be a number or missing.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    check_columns(table, columns.split(), str(path))
    table = table[columns.split()].copy()
    for column in table.columns:
        if column in BOOLEAN:
            known = table[column].dropna().str.lower()
            if not known.isin(["true", "false"]).all():
                raise InputError(f"{path}: '{column}' must be True or False; make it again")
            table[column] = table[column].str.lower().eq("true").fillna(False).astype(bool)
        elif column not in TEXT:
            try:
                table[column] = pd.to_numeric(table[column])
            except ValueError as error:
                raise InputError(f"{path}: '{column}' must be numbers ({error})") from error
        else:
            table[column] = as_written(table[column])
    return table


def read_truth(path: Path) -> pd.DataFrame:
    """Read what was planted into a simulated screen: TRUTH_COLUMNS; raises InputError."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    check_columns(table, TRUTH_COLUMNS, str(path))
    return table[TRUTH_COLUMNS]


def cell_counts(cells: pd.DataFrame) -> dict[str, int]:
    """Return how many nuclei there are, and how many of them are scored and flagged."""
    scored = cells["score"].notna()
    return {
        "nuclei": len(cells),
        "scored": int(scored.sum()),
        "flagged": int(is_flagged(cells).sum()),
    }
