"""What the quality control of a screen found, read from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json
from hcsqc.core.schema import as_written, check_columns, read_table
from hcsqc.qc.calibration import THRESHOLD, read_threshold
from hcsqc.qc.cells import is_flagged

# Columns of the tables that are read; all else is ignored.
TEXT = {"Metadata_Plate", "Metadata_Well", "role", "compound", "artefact", "reason", "warning"}
TEXT |= {"channel", "found", "date", "dated_by", "measure", "unit", "outside"}
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
    "trend": "Metadata_Plate order date dated_by measure unit value centre low high band_plates "
    "outside",
}
# Of a screen as a whole: a plate has none.
OF_SCREEN = ("compounds", "trend")
FLAGS = tuple(name for name in COLUMNS if name not in OF_SCREEN)
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
    trend: pd.DataFrame
    threshold: Mapping


def read_results(folder: Path, plate: str | None = None) -> Results:
    """Read the tables of results/{study}/qc/{screen}, or those of one plate in its `plates`.

    A plate has no compounds and no trend: these are of the whole screen. Raises InputError if a
    table is missing or is no such table, or if they are not of the same cells.
    """
    own, names = folder, tuple(COLUMNS)
    if plate is not None:
        own, names = folder / "plates" / plate, FLAGS
        if not own.is_dir():
            raise InputError(f"{own}: there is no plate {plate}; make its flags again")
    # Once, because all that reads flags needs the type that may be null.
    cells = read_table(own / "cells.parquet", "cells").astype({"flagged": "boolean"})
    tables = read_flags(own, names)
    for name in ("fields", "wells", "plates"):
        for column, count in cell_counts(cells).items():
            if int(tables[name][column].sum()) != count:
                raise InputError(
                    f"{own / name}.csv: {int(tables[name][column].sum())} cells {column}, but "
                    f"cells.parquet has {count}; make all tables of the screen again"
                )
    rest = {
        name: _typed(pd.DataFrame(columns=COLUMNS[name].split(), dtype=str), own, COLUMNS[name])
        for name in OF_SCREEN
    }
    # That of a plate is without the prevalence, which changes with each plate that is added.
    of_labels = read_checked_json(folder / THRESHOLD)
    threshold = of_labels if plate is not None else read_threshold(folder)
    return Results(cells=cells, **(rest | tables), threshold=threshold)


def read_flags(folder: Path, names: Sequence[str] = FLAGS) -> dict[str, pd.DataFrame]:
    """Read tables of flags that are CSV files of a folder, by name; raises InputError."""
    return {name: _read_csv(folder / f"{name}.csv", COLUMNS[name]) for name in names}


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
        if name in OF_SCREEN
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
    return _typed(table, path, columns)


def _typed(table: pd.DataFrame, path: Path, columns: str) -> pd.DataFrame:
    """Return some columns of a table of texts, with their types."""
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
