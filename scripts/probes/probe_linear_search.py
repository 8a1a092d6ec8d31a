"""Train a linear layer on frozen features, its settings chosen by inner cross-validation."""

import numpy as np

from hcsqc.core import cli
from hcsqc.core.schema import wells_of, write_table
from hcsqc.probes.linear import linear_scores
from hcsqc.probes.linear_search import search_linear
from hcsqc.probes.sgd import SgdSearchSettings
from hcsqc.probes.task import all_predictions, read_features, select, tasks


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    cli.run(probe, cli.probe_parser(__doc__, SgdSearchSettings).parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe; record each draw's choice and all trials."""
    settings = cli.settings_from(args, SgdSearchSettings)
    crops, features = read_features(args.features)
    predictions, trials = [], {}
    for task in tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels):
        train, targets = select(crops, features, task.train_crops), task.train_targets
        wells = wells_of(task.train_crops)
        chosen, trials[str(task.draw)] = search_linear(train, targets, wells, settings, args.seed)
        test = select(crops, features, task.test["crop_id"])
        rng = np.random.default_rng([args.seed, task.draw])
        (scores,) = linear_scores([train], [targets], [test], chosen, [rng])
        predictions.append(task.predictions(scores))
        record.curves.append(
            {
                "step": task.draw,
                "learning_rate": chosen.learning_rate,
                "weight_decay": chosen.weight_decay,
                "epochs": chosen.epochs,
            }
        )
    record.parameters["trials"] = trials
    write_table(all_predictions(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
