"""Print a table of a study's runs from the MLflow tracking store: a metric with its interval.

python scripts/tracking/compare_runs.py --by encoder --metric test/f1 --uri sqlite:///results/demo/mlflow.db
"""

import argparse
import logging
import os
import sys

import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.tracking.store import compared_runs, connect


def main() -> None:
    """Read the flags and the store, print the table, best first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--by", default="encoder", help="parameter that defines groups of runs")
    parser.add_argument("--metric", default="test/f1")
    parser.add_argument(
        "--where", nargs="*", default=[], help="filter, such as budget=350 probe=knn"
    )
    parser.add_argument("--study", default="", help="of a store with several")
    parser.add_argument(
        "--uri", default=os.environ.get("MLFLOW_TRACKING_URI"), help="else MLFLOW_TRACKING_URI"
    )
    args = parser.parse_args()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if not args.uri:
            raise InputError("no tracking store: give --uri or set MLFLOW_TRACKING_URI")
        where = dict(_pair(word) for word in args.where)
        table = compared_runs(connect(args.uri), args.by, args.metric, where, args.study)
    except InputError as error:
        sys.exit(f"error: {error}")
    with pd.option_context("display.max_rows", None, "display.width", 200):
        print(table.to_string(index=False, float_format="%.4f", na_rep="-"))


def _pair(word: str) -> tuple[str, str]:
    name, separator, value = word.partition("=")
    if not separator:
        raise InputError(f"--where {word}: write it as name=value, such as budget=350")
    return name, value


if __name__ == "__main__":
    main()
