"""Mirror the records of all jobs, and their scores, into the MLflow tracking store."""

import argparse
import logging
import sys
from pathlib import Path

import pandas as pd

from hcsqc.errors import InputError
from hcsqc.files import write_json
from hcsqc.schema import read_table
from hcsqc.tracking import MlflowClient, mirror, read_records


def main() -> None:
    """Read the flags and records, import what is new, write the receipt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the records")
    parser.add_argument("--scores", type=Path, nargs="*", required=True)
    parser.add_argument("--study", required=True)
    parser.add_argument("--train-screen", required=True)
    parser.add_argument("--uri", required=True, help="MLflow tracking URI")
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--receipt", type=Path, required=True)
    args = parser.parse_args()
    # Creating a database prints a line per migration, which nobody needs.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        scores = pd.concat([read_table(path, "scores") for path in args.scores])
        records = read_records(args.runs, scores, args.train_screen)
        client = MlflowClient(args.uri)
        counts = mirror(records, client, args.study, args.artifacts.resolve().as_uri())
    except InputError as error:
        sys.exit(f"error: {error}")
    write_json({"uri": args.uri, "runs": len(records)} | counts, args.receipt)
    print(f"mlflow: {counts}; see them with: mlflow ui --backend-store-uri {args.uri}")


if __name__ == "__main__":
    main()
