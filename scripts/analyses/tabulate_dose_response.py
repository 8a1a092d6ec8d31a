"""Tabulate which artefacts each encoder detects, by kind and strength."""

import json
from pathlib import Path

import pandas as pd

from hcsqc.analyses.dose_response import AT_FALSE_ALARMS, COLUMNS, detection
from hcsqc.core import cli
from hcsqc.core.schema import read_table, write_csv
from hcsqc.figures.dose_response import plot_dose_response
from hcsqc.figures.words import Words
from hcsqc.probes.task import largest_predictions

PATHS = "{encoder}/seed{n}/{probe}/budget{n}.parquet files; the largest budget counts"


def main() -> None:
    """Read the flags, predictions and labels; write the table and the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help=PATHS)
    parser.add_argument("--labels", type=Path, nargs="+", required=True, help="of every screen")
    parser.add_argument("--train-screen", required=True, help="the one that the figure shows")
    parser.add_argument("--replicates", type=int, required=True, help="resamples of the groups")
    parser.add_argument("--seed", type=int, required=True, help="of the resamples")
    parser.add_argument("--output", type=Path, required=True, help="dose_response.csv")
    parser.add_argument("--words", type=json.loads, required=True, help="JSON, for the figure")
    parser.add_argument("--figure", type=Path, required=True)
    cli.run(tabulate, parser.parse_args())


def tabulate(args, record) -> None:
    """Tabulate the detection of the encoders and probes that the arguments name."""
    labels = pd.concat([read_table(path, "labels") for path in args.labels], ignore_index=True)
    parts = []
    for (encoder, probe), predictions in largest_predictions(args.predictions).items():
        part = detection(predictions, labels, args.replicates, args.seed)
        parts.append(part.assign(encoder=encoder, probe=probe))
    columns = ["encoder", "probe", *COLUMNS]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    write_csv(table[columns], args.output, "%.6g")
    shown = (table["threshold"] == AT_FALSE_ALARMS) & (table["screen"] == args.train_screen)
    plot_dose_response(Words(**args.words).table(table[shown]), args.figure)
    record.metrics = {"rows": len(table)}


if __name__ == "__main__":
    main()
