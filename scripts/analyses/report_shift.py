"""Say what causes the loss on other screens, and draw it for every encoder."""

import json
from pathlib import Path

import pandas as pd

from hcsqc.analyses.shift import causes
from hcsqc.core import cli
from hcsqc.core.parquet import read_parquet
from hcsqc.core.schema import write_csv
from hcsqc.figures.shift import plot_diagnosis, plot_score_histograms
from hcsqc.figures.words import Words
from hcsqc.probes.task import largest_predictions


def main() -> None:
    """Read the flags, diagnoses and predictions; write the tables and figures."""
    parser = cli.parser(__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="diagnoses")
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        required=True,
        help="of one probe: {encoder}/seed{n}/{probe}/budget{n}.parquet; the largest counts",
    )
    parser.add_argument("--screens", nargs="+", required=True, help="trained on, then the others")
    parser.add_argument("--words", type=json.loads, required=True, help="JSON, for the figures")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--causes", type=Path, required=True)
    parser.add_argument("--diagnosis", type=Path, required=True)
    parser.add_argument("--histograms", type=Path, required=True)
    cli.run(report, parser.parse_args())


def report(args, record) -> None:
    """Summarise and draw what the arguments name."""
    scores = pd.concat(
        [read_parquet(path, ours=True).to_pandas() for path in args.scores], ignore_index=True
    )
    keys = ["encoder", "screen", "condition", "metric"]
    grouped = scores.groupby(keys, sort=False)
    table = grouped.agg(
        value=("value", "mean"),
        low=("value", lambda values: values.quantile(0.025)),
        high=("value", lambda values: values.quantile(0.975)),
        reference=("reference", "mean"),
        n_test=("n_test", "max"),
        reason=("reason", "first"),
    )
    found = pd.DataFrame({"finding": causes(scores, args.screens[0])})
    for rows, path in ((table.reset_index(), args.table), (found, args.causes)):
        write_csv(rows, path, "%.6g")
    found = largest_predictions(args.predictions)
    predictions = pd.concat([rows.assign(encoder=encoder) for (encoder, _), rows in found.items()])
    words = Words(**args.words)
    plot_diagnosis(words.table(scores), args.diagnosis)
    plot_score_histograms(words.table(predictions), args.screens, args.histograms)


if __name__ == "__main__":
    main()
