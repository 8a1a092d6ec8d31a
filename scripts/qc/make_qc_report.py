"""Write the quality-control report of one screen: one HTML file with everything in it."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import atomic, read_checked_json
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.qc.report.focus import FocusScale
from hcsqc.qc.report.page import render_report
from hcsqc.qc.report.results import read_results, read_truth


def main() -> None:
    """Read the flags and the screen's results, write the page."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the screen's tables")
    parser.add_argument("--crops", type=Path, nargs="+", required=True, help="shards")
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="of a random sample")
    parser.add_argument("--composite", nargs="+", required=True, help="channels to show")
    parser.add_argument("--detector", type=Path, required=True, help="detector.json")
    parser.add_argument("--truth", type=Path, help="what was planted into a simulated screen")
    parser.add_argument("--labels", type=Path, help="of the screen")
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, FocusScale)
    cli.run(report, parser.parse_args())


def report(args, record) -> None:
    """Render the screen that the arguments describe."""
    page = render_report(
        args.screen,
        read_results(args.folder),
        Shards(args.crops),
        args.composite,
        read_checked_json(args.detector),
        cli.settings_from(args, FocusScale),
        args.features,
        read_truth(args.truth) if args.truth else None,
        read_table(args.labels, "labels") if args.labels else None,
    )
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"report: {args.output} ({len(page.encode()) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
