"""List the fields of a plate, with each well's treatment where an image CSV tells it."""

import sys
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.schema import write_table
from hcsqc.screens.images.remote import is_remote
from hcsqc.screens.layouts import LAYOUTS, Source, index_plate


def main() -> None:
    """Read the flags, look at the folder, write the fields."""
    parser = cli.parser(__doc__)
    cli.add_source(parser, LAYOUTS)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(index, parser.parse_args())


def index(args, record) -> None:
    """Index the plate that the arguments describe."""
    fields, strangers = index_plate(cli.settings_from(args, Source), args.screen, args.plate)
    if strangers:
        print(
            f"warning: {len(strangers)} image files of plate {args.plate} do not match the "
            f"names of layout {args.layout} and are ignored, first {strangers[0]}",
            file=sys.stderr,
        )
    for row in fields[fields["problem"].notna()].itertuples():
        print(f"warning: {row.field_id}: {row.problem}", file=sys.stderr)
    untreated = int(fields["role"].isna().sum()) if args.image_csv else 0
    if untreated:
        print(
            f"warning: {untreated} of {len(fields)} fields have no row in {args.image_csv}",
            file=sys.stderr,
        )
    write_table(fields, args.output, "fields")
    if is_remote(args.images):
        images = fields[["image_path", "image_bytes"]].explode(["image_path", "image_bytes"])
        sizes = images.dropna().drop_duplicates("image_path")["image_bytes"]
        print(
            f"plate {args.plate}: {len(sizes)} images, {sizes.sum() / 1e9:.2f} GB, will be read "
            f"from {args.images}"
        )
    record.metrics = {
        "fields": len(fields),
        "fields_with_problem": int(fields["problem"].notna().sum()),
        "strangers": len(strangers),
    }


if __name__ == "__main__":
    main()
