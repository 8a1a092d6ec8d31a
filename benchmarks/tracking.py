"""Runs per second that the import puts into MLflow, against MLflow's usual calls.

Records are made like those of probes: 20 draws on two screens, with a table of intervals and
predictions. `mlflow import` is `scripts/tracking/track_runs.py` into SQLite, start of Python apart:
six calls of MLflow's client per run, one of them with all its values. The baseline logs the same
parameters, tags and metrics by `mlflow.start_run` and a `log_metric` per value, of fewer runs, and
without their artifacts. `nothing new` is the same import once more.
"""

import json
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from benchmarks import common
from hcsqc.core.schema import TABLES, write_table
from hcsqc.probes.metrics import METRICS
from hcsqc.tracking.runs import tracked_runs
from hcsqc.tracking.store import connect, fast_sqlite, mirror
from tests.tracking.made_records import made_record

DRAWS, CROPS = 20, 40
BUDGETS = (10, 25, 50, 100, 350)
PROBES = ("knn", "linear_paper", "linear_searched", "logistic")
SCORES = TABLES["scores"].columns.names
BY_HAND = 40  # runs of the baseline


def main() -> None:
    """Read the flags, make a study's records, import them both ways."""
    parser = common.parser(__doc__, rounds=False)
    parser.add_argument("--runs", type=int, default=600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        make_study(study, args.runs)
        uri = f"sqlite:///{folder}/mlflow.db"
        with fast_sqlite():  # MLflow keeps the connection
            connect(uri)  # makes the tables
        first, counts = imported(study, uri)
        again, unchanged = imported(study, uri)
        assert counts["new"] == unchanged["unchanged"] >= args.runs
        by_hand = logged_by_hand(study, f"sqlite:///{folder}/by_hand.db")
    rates = {"ours": counts["new"] / first, "baseline": by_hand}
    quality = f"{counts['new']} runs in {first:.0f} s, none twice"
    rows = [common.row("mlflow import", "runs/s", rates, quality)]
    rates = {"ours": counts["new"] / again, "baseline": by_hand}
    rows.append(common.row("nothing new", "runs/s", rates, f"{again:.1f} s"))
    common.report(rows, args.json)


def make_study(folder: Path, runs: int) -> None:
    """Write records, scores, predictions and the table of metrics of that many probe jobs."""
    rng = np.random.default_rng(0)
    encoders = -(-runs // (len(BUDGETS) * len(PROBES)))
    table = []
    for number in range(encoders):
        encoder, scores = f"encoder{number:03d}", []
        for probe in PROBES:
            for budget in BUDGETS:
                job = f"{encoder}/seed0/{probe}/budget{budget}"
                write_job(folder, f"probes/{job}", budget)
                rows = pd.DataFrame(
                    [
                        (encoder, 0, probe, budget, draw, screen, metric, value, 130)
                        for screen in ("one", "two")
                        for metric in METRICS
                        for draw, value in enumerate(rng.uniform(0.5, 1, DRAWS))
                    ],
                    columns=SCORES,
                )
                scores.append(rows)
                means = rows.groupby(["screen", "metric"])["value"].mean().reset_index()
                about = {"encoder": encoder, "kind": "ssl", "probe": probe, "budget": budget}
                about |= {"data": "made", "draws": DRAWS, "seeds": 1, "n_test": 130}
                bounds = {"low": means["value"] - 0.1, "high": means["value"] + 0.1}
                table.append(means.assign(**about, **bounds))
                predictions = folder / f"predictions/{job}.parquet"
                predictions.parent.mkdir(parents=True, exist_ok=True)
                write_table(made_predictions(rng), predictions, "predictions")
        path = folder / f"scores/{encoder}/seed0.parquet"
        path.parent.mkdir(parents=True)
        whole = dict.fromkeys(("seed", "budget", "draw", "n_test"), "int32")
        write_table(pd.concat(scores, ignore_index=True).astype(whole), path, "scores")
    (folder / "tables").mkdir()
    pd.concat(table).to_csv(folder / "tables/metrics.csv", index=False)


def write_job(folder: Path, key: str, budget: int) -> None:
    path = folder / "runs" / key / "run.json"
    path.parent.mkdir(parents=True)
    parameters = {"budget": budget, "draws": DRAWS, "seed": 0, "neighbours": 5}
    path.write_text(json.dumps(made_record(key, parameters=parameters, metrics={})))


def made_predictions(rng: np.random.Generator) -> pd.DataFrame:
    n = DRAWS * CROPS
    table = {
        "draw": np.repeat(np.arange(DRAWS, dtype=np.int32), CROPS),
        "screen": np.tile(["one", "two"], n // 2),
        "crop_id": [f"crop{i}" for i in range(n)],
        "group": "p/B02",
        "label": np.tile(["normal", "normal", "abnormal", "abnormal"], n // 4),
        "score": rng.uniform(size=n),
    }
    return pd.DataFrame(table)


def imported(study: Path, uri: str) -> tuple[float, dict]:
    """Return the seconds that an import takes, and what it did."""
    began = time.perf_counter()
    with fast_sqlite():
        runs = tracked_runs(study, "one")
        counts = mirror(runs, connect(uri), "study", (study / "artifacts").as_uri())
    return time.perf_counter() - began, counts


def logged_by_hand(study: Path, uri: str) -> float:
    """Return runs per second of MLflow's own calls, one per value."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("by hand")
    runs = [run for run in tracked_runs(study, "one") if run.experiment in PROBES][:BY_HAND]
    began = time.perf_counter()
    for run in runs:
        with mlflow.start_run(run_name=run.key):
            mlflow.log_params(dict(run.params))
            mlflow.set_tags({name: value[:500] for name, value in run.tags.items()})
            for name, value, step in run.points:
                mlflow.log_metric(name, value, step=step)
    return len(runs) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
