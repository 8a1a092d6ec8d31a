"""Fix the intensity range of each channel of a plate."""

from pathlib import Path

import cli
from hcsqc.scale import ScaleSettings, measure_scale
from hcsqc.schema import read_table, write_table


def main() -> None:
    """Read the flags and a sample of the plate, write its scale."""
    parser = cli.parser(__doc__)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--channels", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, ScaleSettings)
    cli.run(measure, parser.parse_args())


def measure(args, record) -> None:
    """Measure the plate that the arguments describe."""
    fields = read_table(args.fields, "fields")
    settings = cli.settings_from(args, ScaleSettings)
    scale, shape = measure_scale(fields, args.images, args.channels, settings)
    for row in scale.itertuples():
        print(
            f"{row.channel}: {row.bits}-bit data, {row.low:.0f} to {row.high:.0f}, "
            f"saturation at {row.top:.0f}"
        )
    write_table(scale, args.output, "scale", {"shape": [int(side) for side in shape]})
    record.metrics = {"bits": int(scale["bits"].iloc[0])}


if __name__ == "__main__":
    main()
