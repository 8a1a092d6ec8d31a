"""Compare the encoders in pairs: which are best, and which do not differ from the best."""

import json
from pathlib import Path

import pandas as pd

from hcsqc.analyses.ranking import CELL, compare_encoders, rank
from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_csv
from hcsqc.figures.ranking import plot_ranking
from hcsqc.figures.words import Words
from hcsqc.labels.splits import training_overlaps
from hcsqc.probes.metrics import LOWER_IS_BETTER


def main() -> None:
    """Read the flags, scores and replicates; write the comparisons, the ranking and its figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--replicates", type=Path, nargs="+", required=True)
    parser.add_argument("--left-out", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--train-screen", required=True, help="the one that the figure shows")
    parser.add_argument("--probes", nargs="+", required=True, help="to rank encoders under")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--ranking", type=Path, required=True)
    parser.add_argument("--words", type=json.loads, required=True, help="JSON, for the figure")
    parser.add_argument("--figure", type=Path, required=True)
    cli.run(compare, parser.parse_args())


def compare(args, record) -> None:
    """Rank the encoders that the arguments name."""
    scores, replicates, left_out = (
        _ranked_rows(paths, table, args.probes)
        for paths, table in (
            (args.scores, "scores"),
            (args.replicates, "replicates"),
            (args.left_out, "left_out"),
        )
    )
    splits = read_table(args.splits, "splits")
    pairs = compare_encoders(scores, left_out, training_overlaps(splits, set(scores["budget"])))
    ranked = rank(pairs, scores, replicates)
    for table, path in ((pairs, args.pairs), (ranked, args.ranking)):
        write_csv(table, path, "%.6g")
    shown = ranked[(ranked["screen"] == args.train_screen) & (ranked["metric"] == "f1")]
    shown = shown[shown["budget"] == shown["budget"].max()]
    plot_ranking(Words(**args.words).table(shown), args.figure)
    record.metrics = {"rankings": len(ranked.groupby(CELL)), "comparisons": len(pairs) // 2}


def _ranked_rows(paths: list[Path], table: str, probes: list[str]) -> pd.DataFrame:
    rows = pd.concat([read_table(path, table) for path in paths])
    return rows[rows["probe"].isin(probes) & ~rows["metric"].isin(LOWER_IS_BETTER)]


if __name__ == "__main__":
    main()
