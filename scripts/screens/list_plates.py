"""Print the plates and channels that are there, to put into an entry of screens."""

import argparse
import json
import sys

from hcsqc.core import cli
from hcsqc.core.config import GALLERY
from hcsqc.core.errors import InputError
from hcsqc.screens.layouts import LAYOUTS, Source, list_channels, list_plates


def main() -> None:
    """Read the flags, print the lists as YAML takes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--images", help="folder or URL; may contain {plate}")
    parser.add_argument(
        "--table", help="file or URL of the table, of layout loaddata; may contain {plate}"
    )
    parser.add_argument(
        "--pattern", help="of layout files: regular expression for a path relative to --images"
    )
    for name in ("project", "source", "batch"):
        parser.add_argument(f"--{name}", help="of layout cell_painting_gallery")
    parser.set_defaults(channels=(), image_csv=None, table_prefix=None, acquisition=None)
    args = parser.parse_args()
    if args.images is None and args.layout == "cell_painting_gallery":
        args.images = GALLERY
    for layout, flag in (
        (args.layout, "images"),
        ("loaddata", "table"),
        ("files", "pattern"),
        ("cell_painting_gallery", "project"),
        ("cell_painting_gallery", "source"),
    ):
        if args.layout == layout and getattr(args, flag) is None:
            parser.error(f"layout {layout} needs --{flag}")
    try:
        source = cli.settings_from(args, Source)
        plates, channels = list_plates(source), list_channels(source)
    except InputError as error:
        sys.exit(f"error: {error}")
    if not plates:
        sys.exit(f"error: no plate of layout {args.layout} at {args.table or args.images}")
    print("plates:", json.dumps(plates))
    # The channels of the BBBC layouts are no choice, and pages of a file have no names.
    if channels and not args.layout.startswith("bbbc"):
        print("channels:", json.dumps(channels))


if __name__ == "__main__":
    main()
