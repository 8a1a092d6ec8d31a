"""Set what was planted into a simulated screen beside what quality control has found."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_csv
from hcsqc.qc.agreement.planted import planted_and_found
from hcsqc.qc.calibration import read_threshold


def main() -> None:
    """Read the flags, truth and flags; write the comparison."""
    parser = cli.parser(__doc__)
    parser.add_argument("--truth", type=Path, nargs="+", required=True)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--wells", type=Path, required=True)
    parser.add_argument("--threshold", type=Path, required=True, help="folder of threshold.json")
    parser.add_argument("--match-px", type=float, required=True)
    parser.add_argument("--window-px", type=float, required=True, help="of a crop, source pixels")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(check, parser.parse_args())


def check(args, record) -> None:
    """Compare the screen that the arguments describe with its truth."""
    table = planted_and_found(
        pd.concat([read_table(path, "truth") for path in args.truth]),
        read_table(args.cells, "cells"),
        *(pd.read_csv(path, dtype={"Metadata_Plate": str}) for path in (args.fields, args.wells)),
        read_threshold(args.threshold),
        args.match_px,
        args.window_px,
    )
    write_csv(table, args.output, "%.6g")
    print(table.to_string(index=False))
    record.metrics = dict(zip(table["what"], table["found"], strict=True))


if __name__ == "__main__":
    main()
