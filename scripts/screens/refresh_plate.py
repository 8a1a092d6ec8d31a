"""Look at a plate's images again; rewrite its index if one was replaced, added or deleted."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import write_json
from hcsqc.core.progress import Progress
from hcsqc.core.schema import read_table, write_table
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.layouts import LAYOUTS, Source, index_plate
from hcsqc.screens.refresh import other_images, other_listing

SHOWN = 10


def main() -> None:
    """Read the flags, look at the folder, write the receipt and, if need be, the index."""
    parser = cli.parser(__doc__, threads=True)
    cli.add_source(parser, LAYOUTS)
    parser.add_argument("--plate-images", required=True, help="of the plate")
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--fields", type=Path, required=True, help="the index")
    parser.add_argument(
        "--summary", type=Path, required=True, help="summary of the crops, which may be missing"
    )
    parser.add_argument("--receipt", type=Path, required=True)
    cli.run(refresh, parser.parse_args())


def refresh(args, record) -> None:
    """Refresh the plate that the arguments describe."""
    indexed = read_table(args.fields, "fields")
    found, _ = index_plate(cli.settings_from(args, Source), args.screen, args.plate)
    changed, read = other_listing(indexed, found), 0
    checked = _earlier(args.receipt)
    if args.summary.exists():
        progress = Progress(len(found), "fields", f"refresh {args.plate}")
        images, same, read = other_images(
            found[~found["field_id"].isin(changed)],
            read_table(args.summary, "summary"),
            folder_at(args.plate_images),
            args.z_projection,
            args.channels,
            checked,
            args.threads,
            progress.update,
        )
        changed |= images
        checked |= same
    if changed:
        # The rows may be the same as before, and Snakemake compares the contents of small files.
        now = datetime.now(UTC).isoformat()
        write_table(found, args.fields, "fields", {"refreshed": now})
    for field, how in sorted(changed.items())[:SHOWN]:
        print(f"{field}: {how}", file=sys.stderr)
    print(
        f"refresh {args.plate}: {len(changed)} of {len(found)} fields changed"
        f"{f', the first {SHOWN} are listed' if len(changed) > SHOWN else ''}; {read} were read"
    )
    record.metrics = {"fields": len(found), "changed": len(changed), "read": read}
    receipt = {"fields": len(found), "changed": changed, "read": read, "checked": checked}
    write_json(receipt, args.receipt)


def _earlier(receipt: Path) -> dict[str, list]:
    """Return what an earlier receipt says of images that were read and had not changed."""
    try:
        return json.loads(receipt.read_text(encoding="utf-8")).get("checked", {})
    except (FileNotFoundError, ValueError, AttributeError):
        return {}  # none or damaged: the images are read again


if __name__ == "__main__":
    main()
