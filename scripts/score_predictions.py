"""Compute the metrics of every prediction of an encoder."""

from pathlib import Path

import pandas as pd

import cli
from hcsqc.metrics import score_predictions
from hcsqc.schema import read_table, write_table


def main() -> None:
    """Read the flags and predictions, write the scores."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--predictions", type=Path, nargs="+", required=True, help="{probe}/budget{n}.parquet files"
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(score, parser.parse_args())


def score(args, record) -> None:
    """Score the predictions that the arguments name."""
    scores = []
    for path in args.predictions:
        rows = score_predictions(read_table(path, "predictions"))
        scores.append(
            rows.assign(
                encoder=args.encoder,
                seed=args.seed,
                probe=path.parent.name,
                budget=int(path.stem.removeprefix("budget")),
            )
        )
    write_table(pd.concat(scores), args.output, "scores")


if __name__ == "__main__":
    main()
