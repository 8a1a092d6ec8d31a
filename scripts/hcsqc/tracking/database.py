"""Runs put into a database of MLflow's, many in one transaction, through MLflow's own tables.

MLflow's client reads before each thing it writes, which is three times as slow. What the client
reads afterwards is the same (tests/tracking/test_tracking.py).
"""

import uuid
from collections.abc import Iterable

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Param, RunStatus, RunTag, SourceType
from mlflow.store.tracking.dbmodels.models import (
    SqlDataset,
    SqlInput,
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from sqlalchemy import insert, select


def insert_runs(client: MlflowClient, runs: Iterable[dict]) -> None:
    """Put whole runs into the database of a client, all of them or, if it fails, none.

    Each is a dict of `run_id`, `experiment_id`, `artifact_uri`, `name`, `user`, `status`,
    `start_time`, `end_time` (ms), and lists of MLflow's `metrics`, `params`, `tags`, `datasets`.
    """
    store = client._tracking_client.store
    rows: dict[type, list[dict]] = {
        table: [] for table in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric)
    }
    runs = list(runs)
    for run in runs:
        rows[SqlRun].append(_run_row(run))
        tags = [*run["tags"], RunTag("mlflow.runName", run["name"])]
        rows[SqlTag] += [_pair(run, tag) for tag in tags]
        rows[SqlParam] += [_pair(run, param) for param in run["params"]]
        metrics = [_metric_row(store, run, metric) for metric in run["metrics"]]
        rows[SqlMetric] += {tuple(row.items()): row for row in metrics}.values()
        rows[SqlLatestMetric] += _latest(metrics)
    with store.ManagedSessionMaker(read_only=False) as session:
        for table, found in rows.items():
            if found:
                session.execute(insert(table), found)
        for run in runs:
            _insert_datasets(session, run)


def _run_row(run: dict) -> dict:
    return {
        "run_uuid": run["run_id"],
        "experiment_id": int(run["experiment_id"]),
        "name": run["name"],
        "artifact_uri": run["artifact_uri"],
        "source_type": SourceType.to_string(SourceType.UNKNOWN),
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": run["user"],
        "status": RunStatus.to_string(RunStatus.from_string(run["status"])),
        "start_time": run["start_time"],
        "end_time": run["end_time"],
        "lifecycle_stage": "active",
    }


def _pair(run: dict, pair: RunTag | Param) -> dict:
    return {"run_uuid": run["run_id"], "key": pair.key, "value": pair.value}


def _metric_row(store, run: dict, metric: Metric) -> dict:
    is_nan, value = store.sanitize_metric_value(metric.value)
    return {
        "run_uuid": run["run_id"],
        "key": metric.key,
        "value": value,
        "timestamp": metric.timestamp,
        "step": metric.step,
        "is_nan": is_nan,
    }


def _latest(metrics: list[dict]) -> list[dict]:
    """Return of each metric the row that MLflow shows: of the last step."""
    latest: dict[str, dict] = {}
    for row in metrics:
        other = latest.get(row["key"])
        if other is None or _order(row) > _order(other):
            latest[row["key"]] = row
    return list(latest.values())


def _order(row: dict) -> tuple:
    return row["step"], row["timestamp"], row["value"]


def _insert_datasets(session, run: dict) -> None:
    inputs: list[DatasetInput] = run["datasets"]
    named = {(one.dataset.name, one.dataset.digest): one.dataset for one in inputs}
    for (name, digest), dataset in named.items():
        where = {"experiment_id": int(run["experiment_id"]), "name": name, "digest": digest}
        found = session.scalar(select(SqlDataset.dataset_uuid).filter_by(**where))
        if found is None:
            found = uuid.uuid4().hex
            source = {"dataset_source_type": dataset.source_type, "dataset_source": dataset.source}
            session.execute(insert(SqlDataset), [where | source | {"dataset_uuid": found}])
        link = {"source_type": "DATASET", "source_id": found}
        link |= {"destination_type": "RUN", "destination_id": run["run_id"], "step": 0}
        session.execute(insert(SqlInput), [link | {"input_uuid": uuid.uuid4().hex}])
