"""Find the nuclei of a plate and cut a crop around each."""

from pathlib import Path

import cli
from hcsqc.crops import CropSettings, Plate, crop_plate
from hcsqc.nuclei import NucleusSettings
from hcsqc.schema import read_metadata, read_table, write_table


def main() -> None:
    """Read the flags and the plate's tables, write crops, nuclei and summary."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--scale", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--nucleus-channel", required=True)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    cli.add_settings(parser, CropSettings)
    cli.add_settings(parser, NucleusSettings)
    cli.run(crop, parser.parse_args())


def crop(args, record) -> None:
    """Crop the plate that the arguments describe."""
    scale = read_table(args.scale, "scale")
    plate = Plate(
        read_table(args.fields, "fields"),
        args.images,
        scale["channel"].tolist(),
        args.nucleus_channel,
        scale,
        tuple(read_metadata(args.scale)["shape"]),
    )
    nuclei, summary = crop_plate(
        plate,
        cli.settings_from(args, CropSettings),
        cli.settings_from(args, NucleusSettings),
        args.crops,
        args.threads,
        f"crop {args.fields.name.split('.')[0]}",
    )
    write_table(nuclei, args.nuclei, "nuclei")
    write_table(summary, args.summary, "summary")
    record.metrics = {
        "fields": len(summary),
        "fields_failed": int((summary["status"] == "failed").sum()),
        "nuclei_found": int(summary["found"].sum()),
        "crops": int(summary["kept"].sum()),
    }


if __name__ == "__main__":
    main()
