"""Fix the intensity range of each channel of a plate, and its illumination if that is corrected."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_table
from hcsqc.screens.illumination import COLUMNS
from hcsqc.screens.scale import PlateImages, ScaleSettings, measure_scale


def main() -> None:
    """Read the flags and a sample of the plate, write its scale."""
    parser = cli.parser(__doc__)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--channels", nargs="+", required=True)
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--bits", type=int, help="of the camera, instead of finding them")
    parser.add_argument(
        "--illumination", help="retrospective, or a path with {plate} and {channel}"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--illumination-output", type=Path, required=True)
    cli.add_settings(parser, ScaleSettings)
    cli.run(measure, parser.parse_args())


def measure(args, record) -> None:
    """Measure the plate that the arguments describe."""
    fields = read_table(args.fields, "fields")
    settings = cli.settings_from(args, ScaleSettings)
    images = PlateImages(
        args.fields.name.removesuffix(".fields.parquet"),
        args.images,
        args.channels,
        args.z_projection,
        args.bits,
        args.illumination,
    )
    scale, shape, illumination = measure_scale(fields, images, settings)
    found = "stated" if args.bits else "found"
    for row in scale.itertuples():
        print(
            f"{row.channel}: {row.bits}-bit data ({found}), {row.low:.0f} to {row.high:.0f}, "
            f"saturation at {row.top:.0f}"
        )
    record.metrics = {"bits": int(scale["bits"].iloc[0])}
    if illumination:
        uneven = illumination.functions.max(axis=(1, 2))
        for channel, most in zip(args.channels, uneven, strict=True):
            print(f"{channel}: brightest place {most:.2f} times the weakest; corrected")
            record.metrics[f"illumination_{channel}"] = float(most)
    write_table(scale, args.output, "scale", {"shape": [int(side) for side in shape]})
    rows = illumination.table(args.channels) if illumination else pd.DataFrame(columns=COLUMNS)
    write_table(rows, args.illumination_output, "illumination")


if __name__ == "__main__":
    main()
