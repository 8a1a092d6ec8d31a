"""Write the paper's tables 1 to 3 with ours beside them, and every metric."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.files import read_checked_json
from hcsqc.core.schema import read_table, write_csv
from hcsqc.report.tables import make_tables, metrics_table


def main() -> None:
    """Read the flags and scores, write table1.csv to table3.csv and metrics.csv."""
    parser = cli.parser(__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--replicates", type=Path, nargs="+", required=True)
    parser.add_argument("--config", type=Path, required=True, help="the resolved config.json")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    cli.run(tabulate, parser.parse_args())


def tabulate(args, record) -> None:
    """Make the tables of the study that the arguments name."""
    scores = pd.concat([read_table(path, "scores") for path in args.scores], ignore_index=True)
    replicates = pd.concat([read_table(path, "replicates") for path in args.replicates])
    config = read_checked_json(args.config)["config"]
    tables = {f"table{n}": table for n, table in make_tables(scores, replicates, config).items()}
    tables["metrics"] = metrics_table(scores, replicates, config)
    for name, table in tables.items():
        write_csv(table.round(4), args.output / f"{name}.csv")


if __name__ == "__main__":
    main()
