"""Add the plates that came since to a study's file; the next `snakemake qc` flags them.

Comments in the file stay. Nothing is trained again if screens.NAME.labelled_plates says on which
plates the labels lie.
"""

import argparse
import sys
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.start.more_plates import add_plates

DEFAULTS = Path(__file__).resolve().parents[2] / "config.yaml"


def main() -> None:
    """Read the flags, look for plates, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="the study's YAML file")
    parser.add_argument("--screen", help="look for plates of this screen only")
    args = parser.parse_args()
    try:
        found = add_plates(args.study, DEFAULTS, args.screen)
    except InputError as error:
        sys.exit(f"error: {error}")
    for screen, new in found.items():
        print(f"{screen}: {', '.join(new.added) or 'no new plate'}")
        if new.skipped:
            skipped = (f"'{name}' ({reason})" for name, reason in new.skipped.items())
            print(f"{screen}: skipped {', '.join(skipped)}")


if __name__ == "__main__":
    main()
