"""Write the quality-control page of a screen, or of one of its plates: everything in one file."""

import json
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import atomic, read_checked_json
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.qc.field_view.images import field_source
from hcsqc.qc.report.answers import Limits
from hcsqc.qc.report.focus import FocusScale
from hcsqc.qc.report.multiqc import multiqc_sections
from hcsqc.qc.report.page import Screen, render_report
from hcsqc.qc.report.published import read_agreement
from hcsqc.qc.report.results import read_results, read_truth


def main() -> None:
    """Read the flags and the screen's results, write the page."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--plate", help="of which to write the page; else that of the screen")
    parser.add_argument("--folder", type=Path, required=True, help="of the screen's tables")
    parser.add_argument("--crops", type=Path, nargs="+", required=True, help="shards")
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="of a random sample")
    parser.add_argument("--composite", nargs="+", required=True, help="channels to show")
    parser.add_argument("--detector", type=Path, required=True, help="detector.json")
    parser.add_argument("--truth", type=Path, help="what was planted into a simulated screen")
    parser.add_argument("--published", type=Path, nargs=2, help="agreement with published flags")
    parser.add_argument("--labels", type=Path, help="of the screen")
    parser.add_argument("--fields", type=Path, nargs="*", default=[], help="for pictures of fields")
    parser.add_argument("--images", help="folder or URL, may hold {plate}")
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--multiqc", type=Path, nargs=2, help="table and bar graph, *_mqc.json")
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, FocusScale)
    cli.add_settings(parser, Limits)
    cli.run(report, parser.parse_args())


def report(args, record) -> None:
    """Render the page that the arguments describe."""
    results = read_results(args.folder, args.plate)
    screen = Screen(
        args.screen,
        results,
        Shards(args.crops),
        args.composite,
        read_checked_json(args.detector),
        cli.settings_from(args, FocusScale),
        cli.settings_from(args, Limits),
        args.features,
        read_truth(args.truth) if args.truth else None,
        read_agreement(*args.published) if args.published else None,
        read_table(args.labels, "labels") if args.labels else None,
        field_source(args.fields, args.images, args.z_projection),
        args.threads,
    )
    page = render_report(screen, args.plate)
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    if args.multiqc:
        for path, section in zip(args.multiqc, multiqc_sections(args.screen, results), strict=True):
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(section, indent=1), encoding="utf-8")
    record.metrics = {"page_mb": len(page.encode()) / 1e6}
    print(f"report: {args.output} ({record.metrics['page_mb']:.1f} MB)")


if __name__ == "__main__":
    main()
