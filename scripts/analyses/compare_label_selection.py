"""Compare ways to choose the crops to label: random, diverse, typical and uncertain ones."""

from functools import partial
from pathlib import Path

from hcsqc.analyses.label_selection import compare_selections, compare_to_random
from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_csv
from hcsqc.probes.frozen.logistic import LogisticSettings, logistic_scores
from hcsqc.probes.task import read_features


def main() -> None:
    """Read the flags, features and splits; write the scores and the differences to random."""
    parser = cli.parser(__doc__)
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--replicates", type=int, required=True, help="resamples of the draws")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="CSV of scores")
    parser.add_argument("--differences", type=Path, required=True, help="CSV, to random labels")
    cli.add_settings(parser, LogisticSettings)
    cli.run(compare, parser.parse_args())


def compare(args, record) -> None:
    """Compare the strategies with the logistic probe."""
    settings = cli.settings_from(args, LogisticSettings)
    fit_scores = partial(logistic_scores, settings=settings, seed=args.seed)
    splits = read_table(args.splits, "splits")
    index, features = read_features(args.features)
    table = compare_selections(
        splits, index, features, args.budgets, args.draws, fit_scores, args.seed
    )
    differences = compare_to_random(table, args.replicates, args.seed)
    for rows, path in ((table, args.output), (differences, args.differences)):
        write_csv(rows, path, "%.6g")
    record.metrics = {"selections": len(table), "one_class": int(table["one_class"].sum())}


if __name__ == "__main__":
    main()
