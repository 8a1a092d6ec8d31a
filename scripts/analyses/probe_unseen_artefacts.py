"""Train a probe without each family of artefacts in turn, and test whether it finds the family."""

from functools import partial
from pathlib import Path

from hcsqc.analyses.unseen_artefacts import leave_families_out
from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_csv
from hcsqc.labels.splits import largest_budget
from hcsqc.probes.frozen.logistic import LogisticSettings, logistic_scores
from hcsqc.probes.task import read_features


def main() -> None:
    """Read the flags, features, splits and labels; write the table."""
    parser = cli.parser(__doc__)
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="of the screen trained on")
    parser.add_argument(
        "--budgets", type=int, nargs="+", required=True, help="the largest that is carried counts"
    )
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="CSV")
    cli.add_settings(parser, LogisticSettings)
    cli.run(probe, parser.parse_args())


def probe(args, record) -> None:
    """Run the logistic probe with and without each family."""
    settings = cli.settings_from(args, LogisticSettings)
    fit_scores = partial(logistic_scores, settings=settings, seed=args.seed)
    splits, labels = read_table(args.splits, "splits"), read_table(args.labels, "labels")
    index, features = read_features(args.features)
    carried = [budget for budget in args.budgets if budget <= largest_budget(splits)]
    budget = max(carried, default=min(args.budgets))
    table = leave_families_out(splits, labels, index, features, budget, args.draws, fit_scores)
    write_csv(table, args.output, "%.6g")
    record.metrics = {"families": table["artefact"].nunique(), "rows": len(table), "budget": budget}


if __name__ == "__main__":
    main()
