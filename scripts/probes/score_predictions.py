"""Compute the metrics of every prediction of an encoder, and how sure they are."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.ids import probe_job
from hcsqc.core.progress import Progress
from hcsqc.core.schema import read_table, write_table
from hcsqc.probes.metrics import METRICS, score_predictions
from hcsqc.probes.resampling import bootstrap_scores, scores_without_groups


def main() -> None:
    """Read the flags and predictions, write the scores."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--predictions", type=Path, nargs="+", required=True, help="{probe}/budget{n}.parquet files"
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--replicates", type=int, required=True, help="of the bootstrap")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--output-replicates", type=Path, required=True)
    parser.add_argument("--output-left-out", type=Path, required=True)
    cli.run(score, parser.parse_args())


def score(args, record) -> None:
    """Score the predictions that the arguments name."""
    scores, replicates, left_out = [], [], []
    progress = Progress(len(args.predictions), "predictions", f"score {args.encoder}")
    for path in args.predictions:
        predictions = read_table(path, "predictions")
        job = probe_job(path)
        about = job._replace(encoder=args.encoder, seed=args.seed)._asdict()
        scores.append(score_predictions(predictions).assign(**about))
        resampled = bootstrap_scores(predictions, list(METRICS), args.replicates, seed=0)
        replicates.append(resampled.assign(**about))
        left_out.append(scores_without_groups(predictions, list(METRICS)).assign(**about))
        progress.update()
    progress.close()
    write_table(pd.concat(scores), args.output, "scores")
    write_table(pd.concat(replicates), args.output_replicates, "replicates")
    write_table(pd.concat(left_out), args.output_left_out, "left_out")


if __name__ == "__main__":
    main()
