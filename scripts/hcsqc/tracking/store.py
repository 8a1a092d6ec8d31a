"""Making a tracking store of MLflow hold the runs of a study, each once.

A run is found by its `job_key`; the digest of what it was made from is a tag that is written last,
so that an import killed in the middle leaves runs that the next one replaces. Parameters of a run
cannot change, so a changed job gets a new run, and the old one is deleted. Every kind of store is
told by the same few calls of MLflow's client: those that it documents, with all values of a run at
once.
"""

import math
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlparse

# A server that does not answer else holds up each call for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Two lines per run that nobody reads, and of a server each run would be read for them.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine

from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress
from hcsqc.tracking.runs import TrackedRun

# MLflow takes 1000 values at once, of them 100 parameters.
METRICS_PER_BATCH = 900
PARAMS_PER_BATCH = 100
# MLflow's limits of one parameter, tag and dataset digest.
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_DIGEST = 36
CONNECT_S = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def is_server(uri: str) -> bool:
    """Return whether a tracking URI is an http server's."""
    return urlparse(uri).scheme in ("http", "https")


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
            f"tracking store {_without_password(uri)} does not respond ({reason}); start it, or "
            "set another in tracking.uri or MLFLOW_TRACKING_URI"
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
    for run, found in changed:
        for old in found:
            _forget(client, old)
        _log_run(client, experiments[run.experiment], run)
        progress.update()
    for left in known.values():
        for old in left:
            counts["stale"] += 1
            if "stale" not in old.data.tags:
                client.set_tag(old.info.run_id, "stale", "true")
    progress.close()
    return counts


def _forget(client: MlflowClient, run: Run) -> None:
    """Delete a run; if its import was killed, the folder of its files too, which nothing names."""
    uri = urlparse(run.info.artifact_uri)
    folder = Path(unquote(uri.path)).parent
    if (
        "record_digest" not in run.data.tags
        and uri.scheme == "file"
        and folder.name == run.info.run_id
    ):
        shutil.rmtree(folder, ignore_errors=True)
    client.delete_run(run.info.run_id)


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


def _log_run(client: MlflowClient, experiment: str, run: TrackedRun) -> None:
    """Log one run, its digest last.

    Each call reads what there is of the run, so its metrics, the most, come as late as they can.
    """
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
    tags = {name: value[:LONGEST_TAG] for name, value in run.tags.items()}
    tags |= {"mlflow.user": user, "mlflow.source.type": "JOB"}
    made = client.create_run(experiment, run.started_ms, tags, run.key).info.run_id
    _log_artifacts(client, made, run)
    if run.datasets:
        client.log_inputs(made, [_dataset(*one) for one in run.datasets])
    client.set_terminated(made, run.status, run.ended_ms)
    _log_values(client, made, run)
    # A call of its own: MLflow does not promise in which order it writes the parts of a batch.
    client.set_tag(made, "record_digest", run.digest)


def _log_artifacts(client: MlflowClient, made: str, run: TrackedRun) -> None:
    found = run.artifacts()
    if found:
        with TemporaryDirectory() as folder:
            _write(found, Path(folder))
            client.log_artifacts(made, folder)


def _dataset(name: str, digest: str, path: str) -> DatasetInput:
    return DatasetInput(Dataset(name, digest[:LONGEST_DIGEST], "local", path))


def _log_values(client: MlflowClient, made: str, run: TrackedRun) -> None:
    metrics = [Metric(name, value, run.ended_ms, step) for name, value, step in run.points]
    params = [Param(name, value[:LONGEST_PARAM]) for name, value in run.params.items()]
    while metrics or params:
        client.log_batch(made, metrics[:METRICS_PER_BATCH], params[:PARAMS_PER_BATCH])
        metrics, params = metrics[METRICS_PER_BATCH:], params[PARAMS_PER_BATCH:]


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
