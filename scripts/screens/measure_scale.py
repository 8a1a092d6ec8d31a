"""Fix the intensity range of each channel of a plate, and its illumination if that is corrected."""

import re
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.nuclei import nuclei_shown
from hcsqc.screens.illumination import COLUMNS
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.scale import BIT_DEPTHS, BY_CELLS, PlateImages, ScaleSettings, measure_scale


def main() -> None:
    """Read the flags and a sample of the plate, write its scale."""
    parser = cli.parser(__doc__)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--channels", nargs="+", required=True)
    parser.add_argument("--nucleus-channel", required=True)
    parser.add_argument("--nucleus-diameter-px", type=float, required=True)
    parser.add_argument("--nucleus-smallest-px", type=int, required=True, help="area")
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--bits", type=int, help="bits of the camera, instead of detecting them")
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
        folder_at(args.images),
        args.channels,
        args.z_projection,
        args.bits,
        args.illumination,
    )
    nuclei = nuclei_shown(args.nucleus_channel, args.nucleus_diameter_px, args.nucleus_smallest_px)
    scale, shape, illumination = measure_scale(fields, images, settings, nuclei)
    found = "stated" if args.bits else "found"
    bits, top = scale["bits"].iloc[0], scale["top"].iloc[0]
    if not args.bits and (bits not in BIT_DEPTHS or top < 2.0**bits - 1):
        found = f"found: pixels pile up at {top:.0f}; bits of the screen sets another range"
    for row in scale.itertuples():
        cell = f"typical nucleus {row.cell:.0f}, " if row.found == BY_CELLS else ""
        print(
            f"{row.channel}: {row.bits}-bit data ({found}), {row.low:.0f} to {row.high:.0f}, "
            f"{cell}saturation at {row.top:.0f}"
        )
    counted = int(scale["nuclei"].iloc[0])
    other = scale.loc[scale["found"] != BY_CELLS, "channel"]
    if len(other):
        print(
            f"warning: plate {images.plate}: {counted} nuclei in the sampled fields do not give "
            f"a typical level of {', '.join(other)}; the range is based on percentiles, which "
            "artefacts shift. Is nucleus_channel right, and nucleus_diameter_px?"
        )
    record.metrics = {"bits": int(scale["bits"].iloc[0]), "nuclei": counted}
    if illumination:
        uneven = illumination.functions.max(axis=(1, 2))
        for channel, most in zip(args.channels, uneven, strict=True):
            print(f"{channel}: brightest place {most:.2f} times the weakest; corrected")
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", channel)
            record.metrics[f"illumination_{name}"] = float(most)
    write_table(scale, args.output, "scale", {"shape": [int(side) for side in shape]})
    rows = illumination.table(args.channels) if illumination else pd.DataFrame(columns=COLUMNS)
    write_table(rows, args.illumination_output, "illumination")


if __name__ == "__main__":
    main()
