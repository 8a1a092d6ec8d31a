"""Join the flags of a screen's plates, and look at what only all of them show.

These are the prevalence, the compounds, and the trend over plates.
"""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import read_checked_json, write_checked_json
from hcsqc.core.schema import read_table, write_csv
from hcsqc.qc.calibration import (
    PREVALENCE,
    THRESHOLD,
    estimate_prevalence,
    held_out_of,
    prevalence_table,
)
from hcsqc.qc.detector_files import ABOUT, HELD_OUT
from hcsqc.qc.phenotypes import compound_warnings
from hcsqc.qc.report.results import read_flags
from hcsqc.qc.screen_flags import DIGITS, compounds_told, counts, join_plates, scores_of
from hcsqc.qc.trend import (
    TrendSettings,
    changed_on,
    measures,
    ordered,
    read_dates,
    trend,
    trend_told,
)


def main() -> None:
    """Read the flags of plates; write the tables of the screen."""
    parser = cli.parser(__doc__)
    parser.add_argument("--study", required=True)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--plates", nargs="+", required=True, help="in the order of the config")
    parser.add_argument("--summaries", type=Path, nargs="+", required=True, help="in that order")
    parser.add_argument("--dates", type=Path, help="table of dates")
    parser.add_argument("--confidence", type=float, required=True, help="in warning of a compound")
    parser.add_argument("--well-share", type=float, required=True, help="lowest, of a raised well")
    parser.add_argument("--output", type=Path, required=True, help="folder of the screen")
    cli.add_settings(parser, TrendSettings)
    cli.run(flag, parser.parse_args())


def flag(args, record) -> None:
    """Join the flags of the screen that the arguments describe."""
    folders = [args.output / "plates" / plate for plate in args.plates]
    threshold = read_checked_json(args.output / THRESHOLD)
    about = read_checked_json(args.detector / ABOUT)
    labels = None
    if not threshold["prevalence"]:
        held_out = read_table(args.detector / HELD_OUT, "held_out")
        labels, _ = held_out_of(args.study, args.screen, about, held_out)
    by_people = about["trained_on"] == "labels"
    found = estimate_prevalence(threshold, labels, *scores_of(folders), by_people)
    write_checked_json(found, args.output / PREVALENCE)
    write_csv(prevalence_table(found), args.output / "prevalence.csv", DIGITS)
    join_plates(folders, threshold | found, args.output)
    tables = read_flags(args.output)
    wells = tables["wells"]
    # With the digits that the file leaves out, so that no compound is judged by them.
    wells["flagged_share"] = wells["flagged"] / wells["scored"].where(wells["scored"] > 0)
    compounds = compound_warnings(wells, args.confidence, args.well_share)
    write_csv(compounds, args.output / "compounds.csv", DIGITS)
    course = _trend(args, tables)
    write_csv(course, args.output / "trend.csv", DIGITS)
    for line in compounds_told(args.screen, wells, compounds):
        print(line)
    for line in trend_told(args.screen, course):
        print(line)
    record.metrics = counts(tables["plates"])
    record.metrics["warned_compounds"] = int(compounds.query("warned")["compound"].nunique())
    record.metrics["plates_outside"] = int(
        course.query("outside != ''")["Metadata_Plate"].nunique()
    )
    numbers = ", ".join(f"{value:g} {name}" for name, value in record.metrics.items())
    if found["flagged_share"] is not None:
        record.metrics["flagged_share"] = found["flagged_share"]
    print(f"flags of {args.screen}: {numbers}")


def _trend(args, tables):
    """Return the table of the trend."""
    changes = {
        plate: read_table(path, "summary", ["image_changed_ns"])
        for plate, path in zip(args.plates, args.summaries, strict=True)
    }
    given = read_dates(args.dates, args.screen, args.plates) if args.dates else {}
    dated = ordered(args.plates, given, changed_on(changes))
    found = measures(tables["plates"], tables["fields"], tables["corrections"])
    return trend(dated, found, cli.settings_from(args, TrendSettings))


if __name__ == "__main__":
    main()
