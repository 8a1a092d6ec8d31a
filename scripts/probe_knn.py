"""Classify frozen features by the nearest neighbours among the training labels."""

from pathlib import Path

import pandas as pd

import cli
from hcsqc.probes.knn import KnnSettings, knn_scores
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
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, KnnSettings)
    cli.run(probe, parser.parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe."""
    settings = cli.settings_from(args, KnnSettings)
    crops, features = read_features(args.features)
    predictions = []
    for task in tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels):
        train = select(crops, features, task.train_crops)
        test = select(crops, features, task.test["crop_id"])
        predictions.append(task.predictions(knn_scores(train, task.train_targets, test, settings)))
    write_table(pd.concat(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
