"""Beside each real crop of a plate, put copies that artefact models have degraded."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import atomic
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.derive import derive_plate, derived_tables


def main() -> None:
    """Read the flags and the parent's crops, write those of the derived screen."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--parent-crops", type=Path, required=True)
    parser.add_argument("--scale", type=Path, required=True, help="of the parent's plate")
    parser.add_argument("--scale-knee", type=float, required=True)
    parser.add_argument("--nucleus-channel", required=True)
    parser.add_argument("--nucleus-diameter-px", type=float, required=True)
    parser.add_argument("--copies", type=int, required=True, help="of each crop")
    for name in ("crops", "nuclei", "summary", "truth"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    cli.run(derive, parser.parse_args())


def derive(args, record) -> None:
    """Derive the plate that the arguments describe."""
    label = f"derive {args.screen} {args.parent_crops.stem}"
    with atomic(args.crops) as temporary:
        crops, truth = derive_plate(
            args.screen,
            args.parent_crops,
            read_table(args.scale, "scale"),
            args.scale_knee,
            args.nucleus_channel,
            args.nucleus_diameter_px,
            args.copies,
            temporary,
            label,
        )
    nuclei, summary = derived_tables(crops)
    write_table(nuclei, args.nuclei, "nuclei")
    write_table(summary, args.summary, "summary")
    write_table(truth, args.truth, "crop_truth")
    record.metrics = {"crops": len(crops)}


if __name__ == "__main__":
    main()
