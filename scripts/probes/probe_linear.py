"""Train a linear layer on frozen features, all draws side by side."""

import numpy as np

from hcsqc.core import cli
from hcsqc.core.schema import write_table
from hcsqc.probes.linear import linear_scores
from hcsqc.probes.sgd import SgdSettings
from hcsqc.probes.task import all_predictions, read_features, select, tasks


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    cli.run(probe, cli.probe_parser(__doc__, SgdSettings).parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe."""
    crops, features = read_features(args.features)
    draws = list(
        tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels)
    )
    scores = []
    if draws:
        scores = linear_scores(
            [select(crops, features, task.train_crops) for task in draws],
            [task.train_targets for task in draws],
            [select(crops, features, task.test["crop_id"]) for task in draws],
            cli.settings_from(args, SgdSettings),
            [np.random.default_rng([args.seed, task.draw]) for task in draws],
        )
    predictions = [task.predictions(values) for task, values in zip(draws, scores, strict=True)]
    write_table(all_predictions(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
