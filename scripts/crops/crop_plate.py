"""Find the nuclei of a plate and cut a crop around each."""

import time
from pathlib import Path

import cv2

from hcsqc.core import cli
from hcsqc.core.schema import read_metadata, read_table, write_table
from hcsqc.crops.cut import CropSettings, Plate, crop_plate
from hcsqc.crops.locations import read_locations
from hcsqc.crops.nuclei import NucleusSettings
from hcsqc.screens.illumination import from_table
from hcsqc.screens.images.remote import folder_at


def main() -> None:
    """Read the flags and the plate's tables, write crops, nuclei and summary."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--scale", type=Path, required=True)
    parser.add_argument("--illumination", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--nucleus-channel", required=True)
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--locations", type=Path, help="table of nuclei instead of finding them")
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    cli.add_settings(parser, CropSettings)
    cli.add_settings(parser, NucleusSettings)
    cli.run(crop, parser.parse_args())


def crop(args, record) -> None:
    """Crop the plate that the arguments describe."""
    cv2.setNumThreads(1)  # a thread per field is enough
    name = args.fields.name.removesuffix(".fields.parquet")
    scale = read_table(args.scale, "scale")
    plate = Plate(
        read_table(args.fields, "fields"),
        folder_at(args.images),
        scale["channel"].tolist(),
        args.nucleus_channel,
        scale,
        tuple(read_metadata(args.scale)["shape"]),
        args.z_projection,
        from_table(read_table(args.illumination, "illumination")),
        read_locations(args.locations, name) if args.locations else None,
    )
    began = time.monotonic()
    nuclei, summary, fields = crop_plate(
        plate,
        cli.settings_from(args, CropSettings),
        cli.settings_from(args, NucleusSettings),
        args.crops,
        args.threads,
        f"crop {name}",
    )
    seconds = time.monotonic() - began
    write_table(nuclei, args.nuclei, "nuclei")
    write_table(summary, args.summary, "summary")
    status = summary["status"].value_counts()
    record.metrics = {
        "fields": len(summary),
        "fields_odd": int(status.get("odd", 0)),
        "fields_failed": int(status.get("failed", 0)),
        "nuclei_found": int(summary["found"].sum()),
        "crops": int(summary["kept"].sum()),
        "ms_per_field": 1000 * seconds / max(1, fields),
    }
    print(
        f"crop {name}: {len(summary)} fields ({status.get('failed', 0)} failed, "
        f"{status.get('odd', 0)} odd), {summary['found'].sum()} nuclei, "
        f"{summary['kept'].sum()} crops, {record.metrics['ms_per_field']:.1f} ms a field"
    )


if __name__ == "__main__":
    main()
