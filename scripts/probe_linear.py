"""Train a linear layer on frozen features, all draws side by side."""

from pathlib import Path

import numpy as np
import pandas as pd

import cli
from hcsqc.probes.linear import LinearSettings, linear_scores
from hcsqc.probes.task import read_features, select, tasks
from hcsqc.schema import write_table


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    parser = cli.parser(__doc__)
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--shift-labels", type=Path, nargs="*", required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--shuffle-labels", action="store_true", help="of the training crops")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, LinearSettings)
    cli.run(probe, parser.parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe."""
    crops, features = read_features(args.features)
    draws = list(
        tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels)
    )
    scores = linear_scores(
        [select(crops, features, task.train_crops) for task in draws],
        [task.train_targets for task in draws],
        [select(crops, features, task.test["crop_id"]) for task in draws],
        cli.settings_from(args, LinearSettings),
        [np.random.default_rng([args.seed, task.draw]) for task in draws],
    )
    predictions = [task.predictions(values) for task, values in zip(draws, scores, strict=True)]
    write_table(pd.concat(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
