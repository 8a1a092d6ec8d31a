"""Draw score against label budget, and score on the training and the shift screens."""

import json
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.figures.scores import plot_budgets, plot_shift
from hcsqc.figures.words import Words


def main() -> None:
    """Read the flags and tables, write the figures."""
    parser = cli.parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs=3, required=True, help="tables 1, 2, 3")
    parser.add_argument("--probes", nargs="+", required=True, help="to draw")
    parser.add_argument("--words", type=json.loads, required=True, help="JSON, for the figures")
    parser.add_argument("--budget-figure", type=Path, required=True)
    parser.add_argument("--shift-figure", type=Path, required=True)
    cli.run(plot, parser.parse_args())


def plot(args, record) -> None:
    """Draw the tables that the arguments name."""
    tables = [pd.read_csv(path) for path in args.tables]
    words = Words(**args.words)
    tables = [words.table(table[table["probe"].isin(args.probes)]) for table in tables]
    plot_budgets(tables[1], args.budget_figure)
    plot_shift(tables[1], tables[2], args.shift_figure)


if __name__ == "__main__":
    main()
