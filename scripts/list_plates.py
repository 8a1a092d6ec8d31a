"""Print the plates that lie below a folder of images, to put into screens.*.plates."""

import argparse
import json
import sys
from pathlib import Path

from hcsqc.layouts import LAYOUTS, list_plates


def main() -> None:
    """Read the flags, print the list as YAML takes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--images", type=Path, required=True)
    args = parser.parse_args()
    plates = list_plates(args.layout, args.images)
    if not plates:
        sys.exit(f"error: no folder below {args.images} is named as a plate of {args.layout}")
    print("plates:", json.dumps(plates))


if __name__ == "__main__":
    main()
