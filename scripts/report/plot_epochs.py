"""Draw nearest-neighbour accuracy along the epochs of every pretraining."""

import json
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.schema import read_table
from hcsqc.figures.pretraining import plot_epochs
from hcsqc.figures.words import Words


def main() -> None:
    """Read the flags and the scores, write the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--words", type=json.loads, required=True, help="JSON, for the figure")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(plot, parser.parse_args())


def plot(args, record) -> None:
    """Draw the scores that the arguments name."""
    scores = pd.concat([read_table(path, "epoch_scores") for path in args.scores])
    plot_epochs(Words(**args.words).table(scores), args.output)


if __name__ == "__main__":
    main()
