"""Flag every nucleus found in a screen, its fields, wells and plates, and look at its compounds."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.files import atomic
from hcsqc.core.schema import read_metadata, read_table, write_table
from hcsqc.qc.cells import cells_of, drift_warnings
from hcsqc.qc.detector_files import ABOUT
from hcsqc.qc.flags import FlagSettings, field_flags, plate_flags, well_flags
from hcsqc.qc.phenotypes import compound_warnings, reference_text


@dataclass(frozen=True)
class DriftSettings:
    """Shifts of features (standard deviations) and of scores (0 to 1) to warn beyond."""

    drift_features: float
    drift_scores: float


def main() -> None:
    """Read the flags, scores, nuclei and fields; write the tables of flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--threshold", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="a file per plate")
    parser.add_argument("--nuclei", type=Path, nargs="+", required=True)
    parser.add_argument("--summaries", type=Path, nargs="+", required=True)
    parser.add_argument("--fields", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    cli.add_settings(parser, FlagSettings)
    cli.add_settings(parser, DriftSettings)
    cli.run(flag, parser.parse_args())


def flag(args, record) -> None:
    """Flag the screen that the arguments describe."""
    settings = cli.settings_from(args, FlagSettings)
    threshold = json.loads(args.threshold.read_text())
    about = json.loads((args.detector / ABOUT).read_text())
    scores, nuclei, summary, imaged = (
        pd.concat([read_table(path, schema) for path in paths], ignore_index=True)
        for paths, schema in (
            (args.scores, "crop_scores"),
            (args.nuclei, "nuclei"),
            (args.summaries, "summary"),
            (args.fields, "fields"),
        )
    )
    cells = cells_of(nuclei, scores, threshold)
    of_fields = field_flags(cells, imaged, summary, settings)
    of_wells = well_flags(cells, of_fields, settings)
    shifts = pd.DataFrame(
        [{"Metadata_Plate": path.stem} | read_metadata(path) for path in args.scores]
    )
    of_plates = plate_flags(of_wells, of_fields, cells, settings, shifts)
    drift = cli.settings_from(args, DriftSettings)
    told = drift_warnings(of_plates, drift.drift_features, drift.drift_scores, about["screen"])
    of_plates["warning"] = [
        "; ".join(filter(None, pair)) for pair in zip(of_plates["warning"], told, strict=True)
    ]
    compounds = compound_warnings(of_wells, settings.confidence, settings.well_share)
    write_table(cells, args.output / "cells.parquet", "cells")
    for name, table in (
        ("fields", of_fields),
        ("wells", of_wells),
        ("plates", of_plates),
        ("compounds", compounds),
    ):
        with atomic(args.output / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    for plate, warning in zip(of_plates["Metadata_Plate"], of_plates["warning"], strict=True):
        if warning:
            print(f"warning: {args.screen}, plate {plate}: {warning}")
    print(f"{args.screen}: {reference_text(of_wells)}")
    warned = compounds[compounds["warned"]]
    for name in dict.fromkeys(warned["compound"]):
        print(
            f"warning: {args.screen}: cells of {name} are flagged far more often than those of "
            "control wells: an effect of the compound, not an artefact?"
        )
    record.metrics = counts(cells, of_fields, of_wells, compounds)
    told = ", ".join(f"{value:g} {name}" for name, value in record.metrics.items())
    print(f"flags of {args.screen}: {told}")


def counts(cells, of_fields, of_wells, compounds) -> dict[str, float]:
    """Return the numbers that a screener asks for first."""
    return {
        "nuclei": len(cells),
        "scored": int(cells["score"].notna().sum()),
        "flagged": int(cells["flagged"].fillna(False).sum()),
        "bad_fields": int(of_fields["bad"].sum()),
        "bad_wells": int(of_wells["bad"].sum()),
        "warned_compounds": int(compounds.loc[compounds["warned"], "compound"].nunique()),
    }


if __name__ == "__main__":
    main()
