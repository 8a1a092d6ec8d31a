"""Write a table of profiles again, with the flags of its cells or wells.

Run it yourself, after `snakemake qc`. The profiles are CellProfiler's CSV, CytoTable's Parquet, or
pycytominer's tables of single cells or of wells.
"""

import argparse
import sys
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table
from hcsqc.qc.joining import tables
from hcsqc.qc.joining.join import is_of_cells, join_cells, join_wells, key_columns, read_wells

CELLS, WELLS = "cells.parquet", "wells.csv"
MATCH_PX = 5.0


def main() -> None:
    """Read the flags, join, write, and say how it went."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python scripts/qc/join_flags.py profiles.parquet "
        "--flags results/my_study/qc/my_screen/cells.parquet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profiles", type=Path, help="CSV (.csv, .csv.gz) or Parquet")
    parser.add_argument(
        "--flags",
        type=Path,
        required=True,
        help="cells.parquet of a screen, or its folder; wells.csv lies beside it",
    )
    parser.add_argument("--out", type=Path, help="default: _flagged beside the profiles")
    parser.add_argument(
        "--match-px",
        type=float,
        default=MATCH_PX,
        help="largest distance from a cell's centre to its nucleus, in pixels of the source image "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--min-cells",
        type=int,
        metavar="N",
        help="mark wells with fewer than N cells that are not flagged",
    )
    parser.add_argument("--force", action="store_true", help="overwrite what exists")
    args = parser.parse_args()
    try:
        join(args)
    except InputError as error:
        sys.exit(f"error: {error}")


def join(args) -> None:
    """Join what the arguments describe; raises InputError."""
    if not args.match_px > 0:
        raise InputError(f"--match-px is {args.match_px:g}; give a distance above 0")
    if args.min_cells is not None and args.min_cells < 1:
        raise InputError(f"--min-cells is {args.min_cells}; give at least 1")
    output = tables.output_of(args.profiles, args.out)
    names = tables.names_of(args.profiles)
    tables.check_free(args.profiles, output, args.force)
    of_cells = is_of_cells(names)
    profiles = tables.read_columns(args.profiles, key_columns(names, of_cells))
    folder = args.flags if args.flags.is_dir() else args.flags.parent
    if of_cells:
        path = folder / CELLS if args.flags.is_dir() else args.flags
        if not path.exists():
            raise InputError(f"{path}: no such file; run snakemake qc, or correct --flags")
        joined = join_cells(profiles, read_table(path, "cells"), args.match_px, args.min_cells)
    else:
        joined = join_wells(profiles, read_wells(folder / WELLS), args.min_cells)
    tables.write_joined(args.profiles, joined.flags, output)
    print("\n".join([*joined.told, f"written: {output}"]))


if __name__ == "__main__":
    main()
