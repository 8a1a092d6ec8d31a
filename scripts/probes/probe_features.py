"""Classify frozen features by one kind of probe, on all draws of one label budget."""

import argparse
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from hcsqc.core import cli
from hcsqc.core.schema import write_table
from hcsqc.labels.groups import GROUPINGS, read_labels
from hcsqc.probes import frozen
from hcsqc.probes.task import all_predictions, read_features, tasks

KINDS = [module.name for module in iter_modules(frozen.__path__)]


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    # The kind decides which further flags there are, so it is looked up first.
    kind = argparse.ArgumentParser(add_help=False)
    kind.add_argument("--kind", choices=KINDS)
    chosen, _ = kind.parse_known_args()
    parser = cli.parser(__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--shift-labels", type=Path, nargs="*", required=True)
    parser.add_argument(
        "--group-by", choices=GROUPINGS, required=True, help="crops of --shift-labels"
    )
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--shuffle-labels", action="store_true", help="table of the training crops")
    parser.add_argument("--seed", type=int, required=True, help="kNN needs none")
    parser.add_argument("--output", type=Path, required=True)
    if chosen.kind:
        cli.add_settings(parser, module_of(chosen.kind).Settings)
    args = parser.parse_args()
    cli.run(probe, args, plugin=f"hcsqc/probes/frozen/{args.kind}.py")


def module_of(kind: str) -> ModuleType:
    """Return the module of a kind, it alone: a job imports no other probe's libraries."""
    return import_module(f"{frozen.__name__}.{kind}")


def probe(args, record) -> None:
    """Run the probe that the arguments describe; record what it chose."""
    module = module_of(args.kind)
    settings = cli.settings_from(args, module.Settings)
    crops, features = read_features(args.features)
    shift_labels = [read_labels(path, args.group_by) for path in args.shift_labels]
    draws = list(tasks(args.splits, shift_labels, args.draws, args.budget, args.shuffle_labels))
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
