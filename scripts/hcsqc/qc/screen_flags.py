"""The flags of a whole screen: its tables read, flagged, warned of and counted.

Nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import union_categoricals

from hcsqc.core.schema import (
    join_csv,
    join_tables,
    read_metadata,
    read_table,
    write_csv,
    write_table,
)
from hcsqc.qc.cells import cells_of, drift_warnings, probabilities
from hcsqc.qc.corrections import correction_warnings, corrections
from hcsqc.qc.flags import PLATE, WELL, FlagSettings, field_flags, plate_flags, well_flags
from hcsqc.qc.phenotypes import compound_warnings, reference_text

OF_PLATES = ("fields", "wells", "plates", "corrections")  # tables of a folder, beside cells.parquet
DIGITS = "%.6g"


@dataclass(frozen=True)
class DriftSettings:
    """What to warn beyond: shifts of features and scores, corrections of light."""

    drift_features: float  # standard deviations
    drift_scores: float  # 0 to 1
    drift_gain: float  # a factor above 1, either way


@dataclass(frozen=True)
class ScoredScreen:
    """The tables `crop_scores`, `nuclei`, `summary` and `fields` of all plates of a screen.

    `shifts` has feature_shift and score_shift by Metadata_Plate, `scales` the table `scale` of each
    plate.
    """

    scores: pd.DataFrame
    nuclei: pd.DataFrame
    summary: pd.DataFrame
    fields: pd.DataFrame
    shifts: pd.DataFrame
    scales: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class PlateFlags:
    """The table `cells` of some plates, and their fields, wells and plates with what is bad.

    Columns are those of `flags.FIELD_COLUMNS`, `WELL_COLUMNS`, `PLATE_COLUMNS` and, of how each
    plate's light was corrected, `corrections.COLUMNS`. Nothing of a plate depends on another.
    """

    cells: pd.DataFrame
    fields: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    corrections: pd.DataFrame


@dataclass(frozen=True)
class ScreenFlags(PlateFlags):
    """The flags of all plates of a screen, and its compounds with `phenotypes.COLUMNS`."""

    compounds: pd.DataFrame


def read_scored(
    scores: Sequence[Path],
    nuclei: Sequence[Path],
    summaries: Sequence[Path],
    fields: Sequence[Path],
    scales: Sequence[Path],
) -> ScoredScreen:
    """Read the tables of all plates; `scores` are {plate}.parquet files, which hold the shifts.

    `scales` are {plate}.scale.parquet files.
    """
    return ScoredScreen(
        _all_rows(scores, "crop_scores"),
        _all_rows(nuclei, "nuclei"),
        _all_rows(summaries, "summary"),
        _all_rows(fields, "fields"),
        pd.DataFrame([{"Metadata_Plate": path.stem} | read_metadata(path) for path in scores]),
        {path.name.removesuffix(".scale.parquet"): read_table(path, "scale") for path in scales},
    )


def _all_rows(paths: Sequence[Path], schema: str) -> pd.DataFrame:
    return pd.concat([read_table(path, schema) for path in paths], ignore_index=True)


def flag_plates(
    screen: ScoredScreen,
    threshold: Mapping,
    detector: Mapping,
    composite: Sequence[str],
    settings: FlagSettings,
    drift: DriftSettings,
) -> PlateFlags:
    """Flag the cells, fields, wells and plates of a screen, or of one of its plates.

    `threshold` is `threshold.json`, `detector` is `detector.json`, of whose composite the screen's
    is alike. Raises InputError if a nucleus that was cropped has no score, or lies in no field.
    """
    cells = cells_of(screen.nuclei, screen.scores, threshold)
    fields = field_flags(cells, screen.fields, screen.summary, settings)
    wells = well_flags(cells, fields, settings)
    plates = plate_flags(wells, fields, cells, settings, screen.shifts)
    known = detector["screen"]
    drifted = drift_warnings(plates, drift.drift_features, drift.drift_scores, known)
    corrected = corrections(screen.scales, composite, detector["levels"])
    beyond = correction_warnings(corrected, plates["Metadata_Plate"], drift.drift_gain, known)
    warnings = zip(plates["warning"], drifted, beyond, strict=True)
    plates["warning"] = ["; ".join(filter(None, of_plate)) for of_plate in warnings]
    return PlateFlags(cells, fields, wells, plates, corrected)


def flag_screen(
    screen: ScoredScreen,
    threshold: Mapping,
    detector: Mapping,
    composite: Sequence[str],
    settings: FlagSettings,
    drift: DriftSettings,
) -> ScreenFlags:
    """Flag all plates of a screen, as `flag_plates` does, and look at its compounds."""
    found = flag_plates(screen, threshold, detector, composite, settings, drift)
    compounds = compound_warnings(found.wells, settings.confidence, settings.well_share)
    return ScreenFlags(**vars(found), compounds=compounds)


def write_plates(flags: PlateFlags, folder: Path) -> None:
    """Write `cells.parquet`, and the other tables as CSV with six digits, into a folder."""
    write_table(flags.cells, folder / "cells.parquet", "cells")
    for name in OF_PLATES:
        write_csv(getattr(flags, name), folder / f"{name}.csv", DIGITS)


def scores_of(folders: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the cells that plates' folders have, and numbers of their wells.

    The wells are numbered in the order of their names.
    """
    scores, wells = [], []
    for folder in folders:
        cells = read_table(folder / "cells.parquet", "cells", ["score", PLATE, WELL])
        cells = cells[cells["score"].notna()]
        scores.append(cells["score"].to_numpy())
        wells.append(cells[PLATE].str.cat(cells[WELL], sep="/").astype("category"))
    if not wells:
        return np.empty(0), np.empty(0, int)
    names = union_categoricals(wells, sort_categories=True)
    return np.concatenate(scores), names.codes


def join_plates(folders: Sequence[Path], threshold: Mapping, output: Path) -> None:
    """Write the tables of all plates of a screen from those of each: the same below each other.

    `folders` are those of `write_plates`. `threshold` is what `read_threshold` returns: with the
    prevalence, which only the screen as a whole has, each cell gets its probability.
    """
    for name in OF_PLATES:
        join_csv([folder / f"{name}.csv" for folder in folders], output / f"{name}.csv")

    def with_probability(cells: pa.Table) -> pa.Table:
        values = probabilities(cells["score"].to_numpy(), threshold)
        place = cells.column_names.index("probability")
        return cells.set_column(place, "probability", pa.array(values, from_pandas=True))

    parts = [folder / "cells.parquet" for folder in folders]
    join_tables(parts, output / "cells.parquet", "cells", with_probability)


def plates_told(name: str, flags: PlateFlags) -> list[str]:
    """Return in lines what plates of screen `name` are warned of."""
    plates = zip(flags.plates["Metadata_Plate"], flags.plates["warning"], strict=True)
    return [f"warning: {name}, plate {plate}: {warning}" for plate, warning in plates if warning]


def compounds_told(name: str, wells: pd.DataFrame, compounds: pd.DataFrame) -> list[str]:
    """Return in lines what the compounds of screen `name` are compared with and warned of."""
    warned = compounds.loc[compounds["warned"], "compound"].unique()
    return [f"{name}: {reference_text(wells)}"] + [
        f"warning: {name}: cells of {compound} are flagged far more often than those of "
        "control wells; is this an effect of the compound rather than an artefact?"
        for compound in warned
    ]


def counts(plates: pd.DataFrame) -> dict[str, float]:
    """Return the numbers that a screener asks for first, from the table of plates."""
    names = ("nuclei", "scored", "flagged", "bad_fields", "bad_wells")
    return {name: int(plates[name].sum()) for name in names}
