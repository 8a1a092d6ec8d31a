"""Mirror the records and scores of a study into the MLflow tracking store.

It reads whatever the study has so far, and nothing is ever there twice: run it again after a lost
database, a killed import or a failed study.
"""

import argparse
import html
import logging
import sys
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.files import alone, atomic, write_json
from hcsqc.tracking.runs import SUMMARY, tracked_runs
from hcsqc.tracking.store import connect, experiments_of, fast_sqlite, is_server, mirror


def main() -> None:
    """Read the flags and records, import what is new, write the receipt and the links."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the study's folder")
    parser.add_argument("--study", required=True)
    parser.add_argument("--train-screen", required=True)
    parser.add_argument("--uri", required=True, help="MLflow tracking URI")
    parser.add_argument("--ui", required=True, help="address of the UI of a database")
    parser.add_argument("--receipt", type=Path, help="default: mlflow.receipt.json of the study")
    args = parser.parse_args()
    # Creating a database prints a line per migration, which nobody needs.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    served = is_server(args.uri)
    artifacts = None if served else (args.results.resolve() / "mlartifacts").as_uri()
    try:
        # One import at a time: two would both import what is new.
        with alone(args.results / ".mlflow.lock"), fast_sqlite():
            runs = tracked_runs(args.results, args.train_screen)
            client = connect(args.uri)
            counts = mirror(runs, client, args.study, artifacts)
            ids = experiments_of(client, args.study)
    except InputError as error:
        sys.exit(f"error: {error}")
    ui = (args.uri if served else args.ui).rstrip("/")
    links = {name: f"{ui}/#/experiments/{one}/runs?{LIST}" for name, one in ids.items()}
    if SUMMARY in links:
        links[SUMMARY] = f"{ui}/#/experiments/{ids[SUMMARY]}/runs?{CHARTS}"
    start = "" if served else f"mlflow ui --backend-store-uri {args.uri}"
    with atomic(args.results / "mlflow.html") as page:
        page.write_text(_page(args.study, links, start), encoding="utf-8")
    write_json(
        {"uri": args.uri, "runs": len(runs), "links": links} | counts,
        args.receipt or args.results / "mlflow.receipt.json",
    )
    print(f"mlflow: {counts}; see them with: {start or ui}")


# Of the UI: its list of runs, and charts of the runs.
LIST = "workflowType=machine_learning&compareRunsMode=TABLE"
CHARTS = "workflowType=machine_learning&compareRunsMode=CHART"


def _page(study: str, links: dict[str, str], start: str) -> str:
    """Return a page that leads into the UI, experiment by experiment."""
    rows = "\n".join(
        f'<li><a href="{html.escape(link)}">{html.escape(name)}</a></li>'
        for name, link in sorted(links.items(), key=lambda pair: (pair[0] != SUMMARY, pair[0]))
    )
    first = f"<p>Start the UI first: <code>{html.escape(start)}</code></p>" if start else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(study)}'
        f" in MLflow</title></head>\n<body>\n<h1>{html.escape(study)} in MLflow</h1>\n{first}\n"
        f'<ul>\n{rows}\n</ul>\n<p><a href="report/index.html">The report</a></p>\n</body></html>\n'
    )


if __name__ == "__main__":
    main()
