"""Flag every nucleus found on a plate, its fields and wells, and the plate itself."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import read_checked_json
from hcsqc.qc.detector_files import ABOUT
from hcsqc.qc.flags import FlagSettings
from hcsqc.qc.screen_flags import (
    DriftSettings,
    counts,
    flag_plates,
    plates_told,
    read_scored,
    write_plates,
)


def main() -> None:
    """Read the flags, scores, nuclei and fields; write the tables of flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--threshold", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--scale", type=Path, required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    cli.add_settings(parser, FlagSettings)
    cli.add_settings(parser, DriftSettings)
    cli.run(flag, parser.parse_args())


def flag(args, record) -> None:
    """Flag the plate that the arguments describe."""
    flags = flag_plates(
        read_scored([args.scores], [args.nuclei], [args.summary], [args.fields], [args.scale]),
        read_checked_json(args.threshold),
        read_checked_json(args.detector / ABOUT),
        args.composite,
        cli.settings_from(args, FlagSettings),
        cli.settings_from(args, DriftSettings),
    )
    write_plates(flags, args.output)
    for line in plates_told(args.screen, flags):
        print(line)
    record.metrics = counts(flags.plates)


if __name__ == "__main__":
    main()
