"""Diagnose the domain shift of an encoder: scores on other screens with possible causes undone."""

from functools import partial
from pathlib import Path

import pandas as pd

from hcsqc.analyses.shift import DIAGNOSIS, diagnose
from hcsqc.analyses.shift_images import MATCHED_PIXEL_SIZE, PERMUTED_CHANNELS, read_variants
from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.groups import GROUPINGS, read_labels
from hcsqc.labels.splits import largest_budget
from hcsqc.probes.frozen.logistic import LogisticSettings, logistic_scores
from hcsqc.probes.task import read_features, tasks

NO_IMAGES = "the encoder is a table of features, which sees no changed images"


def main() -> None:
    """Read the flags, features and labels; write the scores of the diagnosis."""
    parser = cli.parser(__doc__)
    parser.add_argument("--source-features", type=Path, required=True)
    parser.add_argument("--splits", type=Path, required=True, help="of the training screen")
    parser.add_argument(
        "--target-features", type=Path, nargs="+", required=True, help="{screen}.parquet files"
    )
    parser.add_argument(
        "--target-labels", type=Path, nargs="+", required=True, help="{screen}.parquet files"
    )
    parser.add_argument(
        "--variants", type=Path, nargs="*", default=[], help="{screen}.parquet files"
    )
    parser.add_argument(
        "--budgets", type=int, nargs="+", required=True, help="trained on: the largest possible"
    )
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--label-counts", type=int, nargs="*", required=True, help="of a target")
    parser.add_argument("--group-by", choices=GROUPINGS, required=True, help="target crops")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, LogisticSettings)
    cli.run(diagnose_screens, parser.parse_args())


def diagnose_screens(args, record) -> None:
    """Diagnose the shift to each screen that the arguments name."""
    source = read_features([args.source_features])
    carried = largest_budget(read_table(args.splits, "splits"))
    budget = max((n for n in args.budgets if n <= carried), default=min(args.budgets))
    record.parameters = {"budget": budget}
    draws = list(tasks(args.splits, [], args.draws, budget))
    settings = cli.settings_from(args, LogisticSettings)
    features = {path.stem: path for path in args.target_features}
    variants = {path.stem: path for path in args.variants}
    found = []
    for path in args.target_labels:
        screen = path.stem
        if screen not in features:
            raise InputError(f"{path}: no file of --target-features is named {screen}.parquet")
        changed, not_made = {}, dict.fromkeys((PERMUTED_CHANNELS, MATCHED_PIXEL_SIZE), NO_IMAGES)
        if screen in variants:
            changed, not_made = read_variants(variants[screen])
        rows = diagnose(
            source,
            draws,
            read_features([features[screen]]),
            read_labels(path, args.group_by),
            changed,
            not_made,
            args.label_counts,
            partial(logistic_scores, settings=settings, seed=args.seed),
            args.seed,
        )
        found.append(rows.assign(encoder=args.encoder, seed=args.seed))
    write_table(pd.concat(found), args.output, DIAGNOSIS)


if __name__ == "__main__":
    main()
