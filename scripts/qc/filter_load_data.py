"""Write a plate's LoadData table again, without its bad wells and fields."""

import re
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.schema import check_columns, write_csv
from hcsqc.qc.flags import without_bad_wells
from hcsqc.screens.layouts.loaddata import as_text, is_parquet

# Columns that CellProfiler opens files by.
PATH_COLUMN = re.compile(r"(Image_)?(FileName|PathName|ObjectsFileName|ObjectsPathName)_")


def main() -> None:
    """Read the flags and tables; write what is left."""
    parser = cli.parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="LoadData, CSV or Parquet")
    parser.add_argument("--plate", required=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--wells", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(keep_good, parser.parse_args())


def keep_good(args, record) -> None:
    """Filter the table that the arguments name; what is left is as it was.

    To the letter, but for texts that a spreadsheet program would take for a formula.
    """
    if is_parquet(args.table):
        table = pd.read_parquet(args.table)
    else:
        table = pd.read_csv(args.table, dtype=str, keep_default_na=False)
    # Exported Image.csv files write Image_ before each name.
    plain = table.rename(columns=lambda name: name.removeprefix("Image_"))
    check_columns(plain, ["Metadata_Plate", "Metadata_Well"], str(args.table))
    for name in ("Metadata_Plate", "Metadata_Well"):
        plain[name] = plain[name].map(as_text)
    plain = plain[plain["Metadata_Plate"] == args.plate]
    if plain.empty:
        raise InputError(f"{args.table}: has no row of plate {args.plate}; correct table or plates")
    kept = plain
    for path in (args.wells, args.fields):
        kept = without_bad_wells(kept, pd.read_csv(path, dtype={"Metadata_Plate": str}))
    paths = [name for name in table.columns if PATH_COLUMN.match(name)]
    write_csv(table.loc[kept.index], args.output, paths=paths)
    print(f"{args.plate}: {len(kept)} of {len(plain)} rows of {args.table} are left")
    record.metrics = {"rows": len(plain), "rows_left": len(kept)}


if __name__ == "__main__":
    main()
