"""The flags of a whole screen: its tables read, flagged, warned of and counted.

Nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.schema import read_metadata, read_table, write_csv, write_table
from hcsqc.qc.cells import cells_of, drift_warnings
from hcsqc.qc.corrections import correction_warnings, corrections
from hcsqc.qc.flags import FlagSettings, field_flags, plate_flags, well_flags
from hcsqc.qc.phenotypes import compound_warnings, reference_text


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
class ScreenFlags:
    """The table `cells` of a screen, and its fields, wells, plates and compounds with what is bad.

    Columns are those of `flags.FIELD_COLUMNS`, `WELL_COLUMNS`, `PLATE_COLUMNS`,
    `phenotypes.COLUMNS` and, of how each plate's light was corrected, `corrections.COLUMNS`.
    """

    cells: pd.DataFrame
    fields: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    compounds: pd.DataFrame
    corrections: pd.DataFrame


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


def flag_screen(
    screen: ScoredScreen,
    threshold: Mapping,
    detector: Mapping,
    composite: Sequence[str],
    settings: FlagSettings,
    drift: DriftSettings,
) -> ScreenFlags:
    """Flag the cells, fields, wells and plates of a screen, and look at its compounds.

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
    compounds = compound_warnings(wells, settings.confidence, settings.well_share)
    return ScreenFlags(cells, fields, wells, plates, compounds, corrected)


def write_flags(flags: ScreenFlags, folder: Path) -> None:
    """Write `cells.parquet`, and the other tables as CSV with six digits, into a folder."""
    write_table(flags.cells, folder / "cells.parquet", "cells")
    for name in ("fields", "wells", "plates", "compounds", "corrections"):
        write_csv(getattr(flags, name), folder / f"{name}.csv", "%.6g")


def told(name: str, flags: ScreenFlags) -> list[str]:
    """Return in lines what screen `name` is warned of, and what its compounds are compared with."""
    plates = zip(flags.plates["Metadata_Plate"], flags.plates["warning"], strict=True)
    lines = [f"warning: {name}, plate {plate}: {warning}" for plate, warning in plates if warning]
    lines.append(f"{name}: {reference_text(flags.wells)}")
    compounds = flags.compounds.loc[flags.compounds["warned"], "compound"].unique()
    return lines + [
        f"warning: {name}: cells of {compound} are flagged far more often than those of "
        "control wells; is this an effect of the compound rather than an artefact?"
        for compound in compounds
    ]


def counts(flags: ScreenFlags) -> dict[str, float]:
    """Return the numbers that a screener asks for first."""
    cells, compounds = flags.cells, flags.compounds
    return {
        "nuclei": len(cells),
        "scored": int(cells["score"].notna().sum()),
        "flagged": int(cells["flagged"].fillna(False).sum()),
        "bad_fields": int(flags.fields["bad"].sum()),
        "bad_wells": int(flags.wells["bad"].sum()),
        "warned_compounds": int(compounds.loc[compounds["warned"], "compound"].nunique()),
    }
