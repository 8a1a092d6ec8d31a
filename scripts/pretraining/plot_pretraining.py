"""Draw the course of a pretraining: loss, learning rate, and the spread and rank of features.

It runs when the pretraining's outputs are in place, and so removes its checkpoints.
"""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.files import read_checked_json
from hcsqc.core.ids import names_of
from hcsqc.figures.pretraining import plot_course
from hcsqc.figures.words import pretraining_words
from hcsqc.pretraining import checkpoint_folder


def main() -> None:
    """Read the flags and the job's record, write the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--pretraining", type=Path, required=True, help="run.json of the job")
    parser.add_argument("--checkpoints", type=Path, required=True, help="of the job, removed")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(plot, parser.parse_args())


def plot(args, record) -> None:
    """Draw the curves of the record that the arguments name."""
    pretraining = read_checked_json(args.pretraining)
    names = names_of(pretraining["key"])
    settings = pretraining["parameters"]
    title = pretraining_words(settings["method"], settings["epochs"])
    title = f"{title}, seed {names['seed']} ({names['encoder']})"
    plot_course(pd.DataFrame(pretraining["curves"]), title, args.output)
    checkpoint_folder.remove(args.checkpoints)


if __name__ == "__main__":
    main()
