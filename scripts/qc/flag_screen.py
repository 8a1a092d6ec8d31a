"""Flag every nucleus found in a screen, its fields, wells and plates, and look at its compounds."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import read_checked_json
from hcsqc.qc.detector_files import ABOUT
from hcsqc.qc.flags import FlagSettings
from hcsqc.qc.screen_flags import (
    DriftSettings,
    counts,
    flag_screen,
    read_scored,
    told,
    write_flags,
)


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
    parser.add_argument("--scales", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    cli.add_settings(parser, FlagSettings)
    cli.add_settings(parser, DriftSettings)
    cli.run(flag, parser.parse_args())


def flag(args, record) -> None:
    """Flag the screen that the arguments describe."""
    threshold = read_checked_json(args.threshold)
    about = read_checked_json(args.detector / ABOUT)
    flags = flag_screen(
        read_scored(args.scores, args.nuclei, args.summaries, args.fields, args.scales),
        threshold,
        about,
        args.composite,
        cli.settings_from(args, FlagSettings),
        cli.settings_from(args, DriftSettings),
    )
    write_flags(flags, args.output)
    for line in told(args.screen, flags):
        print(line)
    record.metrics = counts(flags)
    numbers = ", ".join(f"{value:g} {name}" for name, value in record.metrics.items())
    print(f"flags of {args.screen}: {numbers}")


if __name__ == "__main__":
    main()
