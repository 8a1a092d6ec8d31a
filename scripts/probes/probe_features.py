"""Classify frozen features by one kind of probe, on all draws of one label budget."""

import argparse
from importlib import import_module
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.schema import write_table
from hcsqc.probes.task import all_predictions, read_features, tasks


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    # The kind decides which further flags there are, so it is looked up first.
    kind = argparse.ArgumentParser(add_help=False)
    kind.add_argument("--kind", required=True, help="a module of hcsqc.probes.frozen")
    chosen, _ = kind.parse_known_args()
    # This one alone: a job then imports no other probe's libraries.
    module = import_module(f"hcsqc.probes.frozen.{chosen.kind}")
    parser = cli.parser(__doc__)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--shift-labels", type=Path, nargs="*", required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--shuffle-labels", action="store_true", help="of the training crops")
    parser.add_argument("--seed", type=int, required=True, help="kNN needs none")
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, module.Settings)
    cli.run(lambda args, record: probe(args, record, module), parser.parse_args())


def probe(args, record, module) -> None:
    """Run the probe that the arguments describe; record what it chose."""
    settings = cli.settings_from(args, module.Settings)
    crops, features = read_features(args.features)
    draws = list(
        tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels)
    )
    made = module.classify(crops, features, draws, settings, args.seed)
    record.curves += made.curves
    if made.trials is not None:
        record.parameters["trials"] = made.trials
    predictions = [
        task.predictions(values) for task, values in zip(draws, made.scores, strict=True)
    ]
    write_table(all_predictions(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
