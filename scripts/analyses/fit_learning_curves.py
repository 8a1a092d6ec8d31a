"""Fit how each encoder's score grows with labels, and say what the next 50 would bring."""

import json
from pathlib import Path

import pandas as pd

from hcsqc.analyses.learning_curves import drops, learning_curves, points
from hcsqc.core import cli
from hcsqc.core.files import read_checked_json
from hcsqc.core.schema import read_table, write_csv
from hcsqc.figures.learning_curves import plot_learning_curves
from hcsqc.figures.words import Words


def main() -> None:
    """Read the flags and scores; write the curves, the drops and the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--config", type=Path, required=True, help="the resolved config.json")
    parser.add_argument("--train-screen", required=True, help="the one that is tested on")
    parser.add_argument("--probes", nargs="+", required=True, help="to fit curves for")
    parser.add_argument("--replicates", type=Path, nargs="+", required=True)
    parser.add_argument("--curves", type=Path, required=True, help="learning_curves.csv")
    parser.add_argument("--drops", type=Path, required=True, help="drops.csv")
    parser.add_argument("--words", type=json.loads, required=True, help="JSON, for the figure")
    parser.add_argument("--figure", type=Path, required=True)
    cli.run(fit, parser.parse_args())


def fit(args, record) -> None:
    """Fit the curves of the encoders and probes that the arguments name."""
    scores = pd.concat([read_table(path, "scores") for path in args.scores], ignore_index=True)
    scores = scores[scores["probe"].isin(args.probes)]
    replicates = pd.concat([read_table(path, "replicates") for path in args.replicates])
    config = read_checked_json(args.config)["config"]
    words = Words(**args.words)
    kinds = {words.encoder(name): entry["kind"] for name, entry in config["encoders"].items()}
    evidence = (scores, replicates, args.train_screen)
    curves = learning_curves(*evidence)
    for table, path in ((curves, args.curves), (drops(*evidence), args.drops)):
        write_csv(table, path, "%.6g")
    plot_learning_curves(words.table(points(*evidence)), words.table(curves), kinds, args.figure)
    record.metrics = {"curves": int(curves["reason"].isna().sum()), "without": len(curves)}
    record.metrics["without"] -= record.metrics["curves"]


if __name__ == "__main__":
    main()
