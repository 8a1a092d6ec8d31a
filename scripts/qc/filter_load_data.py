"""Write a plate's LoadData table again, without its bad wells and fields."""

import re
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.given_tables import read_whole
from hcsqc.core.schema import as_written, write_csv
from hcsqc.qc.flags import without_bad_wells
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.layouts.base import on_disk
from hcsqc.screens.layouts.loaddata import KIND, plate_rows

# Columns that CellProfiler opens files by.
PATH_COLUMN = re.compile(r"(Image_)?(FileName|PathName|ObjectsFileName|ObjectsPathName)_")


def main() -> None:
    """Read the flags and tables; write what is left."""
    parser = cli.parser(__doc__)
    parser.add_argument("--table", required=True, help="LoadData, CSV or Parquet, or its URL")
    parser.add_argument("--plate", required=True)
    parser.add_argument("--channels", nargs="+", required=True, help="that the screen lists")
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--wells", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(keep_good, parser.parse_args())


def keep_good(args, record) -> None:
    """Filter the table that the arguments name; what is left is as it was.

    To the letter, except for texts that a spreadsheet program would take for a formula.
    """
    with on_disk(folder_at(args.table)) as path:
        table = read_whole(path, KIND)
        rows, _ = plate_rows(path, args.plate, args.channels)  # indexing has warned
    kept = rows
    for path in (args.wells, args.fields):
        kept = without_bad_wells(kept, _flags(path))
    paths = [name for name in table.columns if PATH_COLUMN.match(name)]
    write_csv(table.loc[kept.index], args.output, paths=paths)
    print(f"{args.plate}: {len(kept)} of {len(rows)} rows of {args.table} are left")
    record.metrics = {"rows": len(rows), "rows_left": len(kept)}


def _flags(path: Path) -> pd.DataFrame:
    """Return a table of flags; a plate may be called 0042, NA or, with an apostrophe, @1."""
    flags = pd.read_csv(path, dtype={"Metadata_Plate": str}, keep_default_na=False)
    return flags.assign(Metadata_Plate=as_written(flags["Metadata_Plate"]))


if __name__ == "__main__":
    main()
