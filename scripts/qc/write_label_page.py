"""Choose crops of a screen and write the page on which people label them in a browser."""

import json
import sys
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.qc.label_page import (
    ContextSource,
    Counts,
    choose_crops,
    context_pictures,
    page_crops,
    render_label_page,
)

MOST_PICKED = 0.01  # of the crops, labelled for another reason than chance


def main() -> None:
    """Read the flags, the crops and what is known of them; write the page."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--labels", type=Path, help="labelled crops, not to be chosen again")
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="for diverse crops")
    parser.add_argument("--cells", type=Path, help="the detector's, for uncertain crops")
    parser.add_argument("--threshold", type=Path, help="the detector's JSON, for uncertain crops")
    parser.add_argument("--fields", type=Path, nargs="*", default=[], help="for the context")
    parser.add_argument("--images", type=Path, help="folder; may hold {plate}; for the context")
    parser.add_argument("--window-px", type=float, help="side of a crop, source pixels")
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="HTML")
    cli.add_settings(parser, Counts)
    cli.run(write_page, parser.parse_args())


def write_page(args, record) -> None:
    """Write the page that the arguments describe."""
    shards = Shards(args.crops)
    crops = shards.index
    if crops.duplicated(["field_id", "x_px", "y_px"]).any():
        raise InputError(
            f"screen {args.screen} has several crops at one place, as derived screens have: labels "
            "are by place, so label the screen that it was derived from"
        )
    labelled = labelled_crops(args, len(crops))
    chosen = choose_crops(
        crops["crop_id"][~crops["crop_id"].isin(labelled)],
        cli.settings_from(args, Counts),
        args.seed,
        read_table(args.cells, "cells").set_index("crop_id")["score"] if args.cells else None,
        read_threshold(args.threshold) if args.threshold else None,
        args.features,
    )
    pictures = contexts(args, shards, chosen)
    page = render_label_page(
        args.screen,
        shards.format.channels,
        args.composite,
        shards.format.size_px,
        list(page_crops(shards, chosen, pictures)),
    )
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    counts = chosen["selection"].value_counts()
    record.metrics = {f"crops_{way}": int(count) for way, count in counts.items()}
    record.metrics |= {"contexts": sum(picture is not None for picture in pictures)}
    record.metrics |= {"page_mb": len(page) / 1e6}
    told = ", ".join(f"{count} {way}" for way, count in counts.items())
    print(f"{args.output}: {len(chosen)} crops ({told}), {len(page) / 1e6:.1f} MB")


def read_threshold(path: Path) -> float:
    """Return the detector's threshold."""
    try:
        return float(json.loads(path.read_text())["threshold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: has no number 'threshold' ({error!r})") from error


def labelled_crops(args, count: int) -> list[str]:
    """Return the crops that have a label; warn where those not chosen at random are many."""
    if not args.labels:
        return []
    labels = read_table(args.labels, "labels")
    picked = (labels["selection"] != "random").sum()
    if picked > MOST_PICKED * count:
        print(
            f"warning: {picked} of {count} crops of {args.screen} were labelled because they were "
            "diverse or uncertain; without them random crops are no longer a sample of the screen. "
            "Use the random ones of earlier pages to calibrate, or label random crops alone "
            "(qc.label_diverse: 0, qc.label_uncertain: 0) from the beginning",
            file=sys.stderr,
        )
    return labels["crop_id"].tolist()


def contexts(args, shards: Shards, chosen: pd.DataFrame) -> list[bytes | None]:
    """Return the picture around each crop; none without fields, images or their files."""
    if not args.fields or args.images is None:
        return [None] * len(chosen)
    if args.window_px is None:
        raise InputError("the context of crops needs --window-px, their side in source pixels")
    fields = pd.concat([read_table(path, "fields") for path in args.fields], ignore_index=True)
    source = ContextSource(fields, args.images, args.window_px, args.z_projection)
    pictures = context_pictures(shards, chosen, args.composite, source)
    missing = sum(picture is None for picture in pictures)
    if missing:
        print(f"{missing} of {len(pictures)} crops have no context: no image in {args.images}")
    return pictures


if __name__ == "__main__":
    main()
