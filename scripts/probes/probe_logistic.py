"""Fit a logistic regression to frozen features, its penalty chosen by inner cross-validation."""

from hcsqc.core import cli
from hcsqc.core.schema import wells_of, write_table
from hcsqc.probes.logistic import LogisticSettings, fit_logistic
from hcsqc.probes.task import all_predictions, read_features, select, tasks


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    cli.run(probe, cli.probe_parser(__doc__, LogisticSettings).parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe; record each draw's penalty and losses."""
    settings = cli.settings_from(args, LogisticSettings)
    crops, features = read_features(args.features)
    predictions, trials = [], {}
    for task in tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels):
        train = select(crops, features, task.train_crops)
        wells = wells_of(task.train_crops)
        fitted = fit_logistic(train, task.train_targets, wells, settings, args.seed)
        test = select(crops, features, task.test["crop_id"])
        predictions.append(task.predictions(fitted.scores(test)))
        record.curves.append({"step": task.draw, "penalty": fitted.penalty})
        trials[str(task.draw)] = {str(value): loss for value, loss in fitted.trials.items()}
    record.parameters["trials"] = trials
    write_table(all_predictions(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
