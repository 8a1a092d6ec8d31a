"""Show the nuclei found in some fields of a plate, around the picture of its DNA channel."""

from pathlib import Path

import numpy as np

from hcsqc.core import cli
from hcsqc.core.schema import read_table
from hcsqc.figures.nuclei import plot_nuclei
from hcsqc.screens.images.read import UnreadableField, read_field
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.scale import spread


def main() -> None:
    """Read the flags and the plate's tables; write the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--scale", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--nucleus-channel", required=True)
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--pictured", type=int, required=True, help="fields, evenly over the plate")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(plot, parser.parse_args())


def plot(args, record) -> None:
    """Draw the plate that the arguments name."""
    scale = read_table(args.scale, "scale")
    channel = scale["channel"].tolist().index(args.nucleus_channel)
    nuclei = read_table(args.nuclei, "nuclei")
    summary = read_table(args.summary, "summary")
    failed = summary[summary["status"] == "failed"].set_index("field_id")["reason"]
    fields = [
        (
            f"{row.well} s{row.site}",
            failed[row.field_id]
            if row.field_id in failed
            else read_channel(args, row, scale["channel"].tolist(), channel),
            nuclei[nuclei["field_id"] == row.field_id],
        )
        for row in spread(read_table(args.fields, "fields"), args.pictured)
    ]
    plot_nuclei(fields, tuple(scale.loc[channel, ["low", "high"]]), args.output)


def read_channel(args, row, channels: list[str], channel: int) -> np.ndarray | str:
    """Return one channel of a row of the `fields` table, or why it cannot be read."""
    try:
        return read_field(
            folder_at(args.images),
            row.image_path,
            row.image_page,
            args.z_projection,
            channels,
            [channel],
        ).planes[0]
    except UnreadableField as error:
        return str(error)


if __name__ == "__main__":
    main()
