"""Making a tracking store of MLflow hold the runs of a study, each once.

A run is found by its `job_key`; the digest of what it was made from is a tag that is written last,
so that an import killed in the middle leaves runs that the next one replaces. Parameters of a run
cannot change, so a changed job gets a new run, and the old one is deleted. A server is told run by
run; a database gets many runs in one transaction.
"""

import math
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlparse

# A server that does not answer else holds up each call for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event
from sqlalchemy.engine import Engine

from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress
from hcsqc.tracking.database import insert_runs
from hcsqc.tracking.runs import TrackedRun

# MLflow's limits per batch, and of one parameter, tag and dataset digest.
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_DIGEST = 36
# Runs per transaction of a database: an import that is killed has lost no more.
RUNS_PER_TRANSACTION = 50
CONNECT_S = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def is_server(uri: str) -> bool:
    """Return whether a tracking URI is an http server's."""
    return urlparse(uri).scheme in ("http", "https")


def is_database(client: MlflowClient) -> bool:
    """Return whether a client writes into a database itself."""
    return isinstance(client._tracking_client.store, SqlAlchemyStore)


def connect(uri: str) -> MlflowClient:
    """Return a client of a store that answers; raises InputError if it does not."""
    place = urlparse(uri)
    try:
        if place.hostname:
            # MLflow itself would go on trying for minutes.
            port = place.port or DEFAULT_PORTS.get(place.scheme.partition("+")[0])
            socket.create_connection((place.hostname, port), timeout=CONNECT_S).close()
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # each kind of store has its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"tracking store {_without_password(uri)} does not answer ({reason}); start it, or "
            "name another in tracking.uri or MLFLOW_TRACKING_URI"
        ) from error
    return client


def _without_password(uri: str) -> str:
    password = urlparse(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


@contextmanager
def fast_sqlite() -> Iterator[None]:
    """Let SQLite leave flushing to the operating system meanwhile.

    The store is rebuilt from the records in a minute, so it need not survive a power cut; a killed
    import loses nothing by it.
    """

    def unsafe(connection, _) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", unsafe)
    try:
        yield
    finally:
        event.remove(Engine, "connect", unsafe)


def mirror(runs: list[TrackedRun], client: MlflowClient, study: str, artifacts: str | None) -> dict:
    """Make the tracking store hold these runs of a study, and mark others of it as stale.

    `artifacts` is the URI of the folder of artifacts; None leaves their place to the server.
    Returns how many were unchanged, new, replaced and stale.
    """
    counts = {"unchanged": 0, "new": 0, "replaced": 0, "stale": 0}
    experiments = _experiments(client, study, {run.experiment for run in runs}, artifacts)
    known: dict[str | None, list[Run]] = {}
    for experiment in experiments.values():
        for found in _runs(client, experiment):
            known.setdefault(found.data.tags.get("job_key"), []).append(found)
    progress = Progress(len(runs), "runs", "mlflow")
    changed = []
    for run in runs:
        found = known.pop(run.key, [])
        if len(found) == 1 and found[0].data.tags.get("record_digest") == run.digest:
            counts["unchanged"] += 1
            if "stale" in found[0].data.tags:
                client.delete_tag(found[0].info.run_id, "stale")
            progress.update()
        else:
            changed.append((run, found))
            counts["replaced" if found else "new"] += 1
    _import(client, experiments, changed, progress)
    for left in known.values():
        for old in left:
            counts["stale"] += 1
            if "stale" not in old.data.tags:
                client.set_tag(old.info.run_id, "stale", "true")
    progress.close()
    return counts


def experiments_of(client: MlflowClient, study: str) -> dict[str, str]:
    """Return the ids of a study's experiments by their names, without the study's."""
    found = client.search_experiments(filter_string=f"name LIKE '{study}/%'", max_results=1000)
    # In LIKE an underscore stands for any character, and a store may hold other studies.
    return {
        one.name.removeprefix(f"{study}/"): one.experiment_id
        for one in found
        if one.name.startswith(f"{study}/")
    }


def _experiments(client, study: str, wanted: set[str], artifacts: str | None) -> dict[str, str]:
    """Return the ids of a study's experiments, with those that are wanted and were not there."""
    found = experiments_of(client, study)
    for name in sorted(wanted - set(found)):
        place = f"{artifacts}/{name}" if artifacts else None
        try:
            found[name] = client.create_experiment(f"{study}/{name}", artifact_location=place)
        except MlflowException as error:
            if "RESOURCE_ALREADY_EXISTS" not in str(error.error_code):
                raise
            deleted = client.get_experiment_by_name(f"{study}/{name}")
            client.restore_experiment(deleted.experiment_id)
            found[name] = deleted.experiment_id
    return found


def _runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(
            [experiment], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _import(
    client: MlflowClient,
    experiments: dict[str, str],
    changed: list[tuple[TrackedRun, list[Run]]],
    progress: Progress,
) -> None:
    """Import runs, each in place of those that were found of it."""
    in_bulk = is_database(client)
    at_once = RUNS_PER_TRANSACTION if in_bulk else 1
    places = {}
    for name in {run.experiment for run, _ in changed}:
        places[name] = client.get_experiment(experiments[name]).artifact_location
    for first in range(0, len(changed), at_once):
        batch = changed[first : first + at_once]
        for _, found in batch:
            for old in found:
                client.delete_run(old.info.run_id)
        if not in_bulk:
            for run, _ in batch:
                _log_run(client, _told(run, experiments[run.experiment]), run)
        else:
            told = []
            for run, _ in batch:
                made = uuid.uuid4().hex
                place = f"{places[run.experiment]}/{made}/artifacts"
                _keep_artifacts(client, place, run)
                told.append(_told(run, experiments[run.experiment]))
                told[-1] |= {"run_id": made, "artifact_uri": place}
            insert_runs(client, told)
        progress.update(len(batch))


def _told(run: TrackedRun, experiment: str) -> dict:
    """Return what MLflow is told of a run, in its terms and within its limits."""
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
    tags = {name: value[:LONGEST_TAG] for name, value in run.tags.items()}
    tags |= {"mlflow.user": user, "mlflow.source.type": "JOB", "record_digest": run.digest}
    return {
        "experiment_id": experiment,
        "name": run.key,
        "user": user,
        "status": run.status,
        "start_time": run.started_ms,
        "end_time": run.ended_ms,
        "metrics": [Metric(name, value, run.ended_ms, step) for name, value, step in run.points],
        "params": [Param(name, value[:LONGEST_PARAM]) for name, value in run.params.items()],
        "tags": [RunTag(name, value) for name, value in tags.items()],
        "datasets": [
            DatasetInput(Dataset(name, digest[:LONGEST_DIGEST], "local", path))
            for name, digest, path in run.datasets
        ],
    }


def _log_run(client: MlflowClient, told: dict, run: TrackedRun) -> None:
    """Log one run by MLflow's calls, its digest last."""
    *tags, digest = told["tags"]
    begun = {tag.key: tag.value for tag in tags}
    info = client.create_run(told["experiment_id"], told["start_time"], begun, told["name"]).info
    if told["datasets"]:
        client.log_inputs(info.run_id, told["datasets"])
    _keep_artifacts(client, info.artifact_uri, run)
    client.set_terminated(info.run_id, told["status"], told["end_time"])
    metrics, params = told["metrics"], told["params"]
    while len(metrics) > METRICS_PER_BATCH or len(params) > PARAMS_PER_BATCH:
        client.log_batch(info.run_id, metrics[:METRICS_PER_BATCH], params[:PARAMS_PER_BATCH])
        metrics, params = metrics[METRICS_PER_BATCH:], params[PARAMS_PER_BATCH:]
    # Of a batch the tags are written last.
    client.log_batch(info.run_id, metrics, params, [digest])


def _keep_artifacts(client: MlflowClient, place: str, run: TrackedRun) -> None:
    found = run.artifacts()
    if not found:
        return
    repository = get_artifact_repository(place, client.tracking_uri)
    if isinstance(repository, LocalArtifactRepository):
        Path(repository.artifact_dir).mkdir(parents=True, exist_ok=True)
        _write(found, Path(repository.artifact_dir))
        return
    with TemporaryDirectory() as folder:
        _write(found, Path(folder))
        repository.log_artifacts(folder)


def _write(artifacts: Mapping[str, str | Path], folder: Path) -> None:
    for name, content in artifacts.items():
        if isinstance(content, Path):
            content = content.read_bytes()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def compared_runs(
    client: MlflowClient, by: str, metric: str, where: dict[str, str], study: str
) -> pd.DataFrame:
    """Return a table of the finished runs that have a metric: a row per `by`, probe and budget.

    Runs of one row (several seeds) are averaged, and their interval is from the lowest lower to
    the highest upper bound. Only runs whose parameters are as `where` says count, and those of
    `study` if it is named. Best first within a probe and budget. Raises InputError if there is
    none, naming metrics that there are.
    """
    experiments = {
        one.experiment_id: one.name
        for one in client.search_experiments(max_results=1000)
        if one.name.startswith(f"{study}/") or not study
    }
    rows, seen = [], set()
    for experiment, name in experiments.items():
        for run in _runs(client, experiment):
            told, found = run.data.params, run.data.metrics
            seen |= {key.removesuffix("_mean") for key in found if key.endswith("_mean")}
            middle = found.get(f"{metric}_mean")
            fits = all(told.get(key) == value for key, value in where.items())
            if middle is None or not fits or by not in told or run.info.status != "FINISHED":
                continue
            if "stale" in run.data.tags:
                continue
            row = {"study": name.rpartition("/")[0], by: told[by]}
            row |= {key: told.get(key, "") for key in ("probe", "budget") if key != by}
            bounds = [found.get(f"{metric}_{end}", math.nan) for end in ("low", "high")]
            rows.append(row | {"mean": middle, "low": bounds[0], "high": bounds[1]})
    if not rows:
        raise InputError(
            f"no finished run has parameter '{by}' and metric '{metric}' where {where or 'asked'}; "
            f"there are: {', '.join(sorted(seen)) or 'no metrics with a mean'}"
        )
    table = pd.DataFrame(rows)
    keys = [name for name in table if name not in ("mean", "low", "high")]
    grouped = table.groupby(keys, sort=False, as_index=False).agg(
        mean=("mean", "mean"), low=("low", "min"), high=("high", "max"), runs=("mean", "size")
    )
    if "budget" in grouped:
        grouped["budget"] = pd.to_numeric(grouped["budget"])
    first = [name for name in ("study", "probe", "budget") if name in grouped and name != by]
    order = [True] * len(first) + [False]
    return grouped.sort_values([*first, "mean"], ascending=order, ignore_index=True)
