"""Mirroring the records of jobs into MLflow: one run per job, never twice.

A run is found by its `job_key`; the digest of what it was made from is a tag that is written last,
so that an import killed in the middle leaves runs that the next one replaces.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType

from hcsqc.errors import InputError
from hcsqc.files import sha256, text_digest
from hcsqc.progress import Progress

# MLflow's limits per batch, and for one parameter.
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
LONGEST_PARAM = 6000
# What this module reads of a record.
RECORD_KEYS = (
    "key",
    "stage",
    "script",
    "status",
    "started",
    "parameters",
    "metrics",
    "curves",
    "cost",
    "git",
    "code_digest",
    "config_digest",
    "node",
    "slurm_job_id",
)
SECTIONS = {"pretrain": "train", "search": "train", "probes": "test"}


@dataclass(frozen=True)
class JobRecord:
    """One record: what a run in MLflow is to hold."""

    key: str
    content: Mapping
    digest: str
    scores: pd.DataFrame | None
    train_screen: str


def read_records(runs: Path, scores: pd.DataFrame, train_screen: str) -> list[JobRecord]:
    """Return the records below `runs`; a failed attempt counts where no job has ended well.

    The scores of a probe's job go with its record; `train_screen` tells test from shift.
    Raises InputError for a damaged record.
    """
    records = []
    by_job = dict(tuple(scores.groupby(["encoder", "seed", "probe", "budget"])))
    for path in sorted(runs.rglob("*.json")):
        if path.name == "failed.json" and path.with_name("run.json").exists():
            continue
        try:
            content = json.loads(path.read_text())
            missing = [name for name in RECORD_KEYS if name not in content]
            if missing:
                raise ValueError(f"no '{missing[0]}'")
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}: damaged record ({error}); delete it and run again"
            ) from error
        own = by_job.get(_probe_job(content["key"]))
        digest = sha256(path)
        if own is not None:
            digest = text_digest(digest + own.to_csv(index=False))
        records.append(JobRecord(content["key"], content, digest, own, train_screen))
    return records


def mirror(records: list[JobRecord], client: MlflowClient, study: str, artifacts: str) -> dict:
    """Make the tracking store hold one run per record; return how many were new, changed, gone."""
    counts = {"unchanged": 0, "new": 0, "replaced": 0, "stale": 0}
    known: dict[str, list[Run]] = {}
    experiments = {
        found.name: found.experiment_id
        for found in client.search_experiments(filter_string=f"name LIKE '{study}/%'")
        # In LIKE an underscore stands for any character, and a store may hold other studies.
        if found.name.startswith(f"{study}/")
    }
    for name in sorted({experiment_name(study, record.key) for record in records}):
        if name not in experiments:
            experiments[name] = client.create_experiment(
                name, artifact_location=f"{artifacts}/{name}"
            )
    for experiment in experiments.values():
        for run in _runs(client, experiment):
            known.setdefault(run.data.tags.get("job_key"), []).append(run)
    progress = Progress(len(records), "runs", "mlflow")
    for record in records:
        found = known.pop(record.key, [])
        if len(found) == 1 and found[0].data.tags.get("record_digest") == record.digest:
            counts["unchanged"] += 1
            if "stale" in found[0].data.tags:
                client.delete_tag(found[0].info.run_id, "stale")
        else:
            for run in found:
                client.delete_run(run.info.run_id)
            _import(client, experiments[experiment_name(study, record.key)], record)
            counts["replaced" if found else "new"] += 1
        progress.update()
    for runs in known.values():
        for run in runs:
            counts["stale"] += 1
            if "stale" not in run.data.tags:
                client.set_tag(run.info.run_id, "stale", "true")
    progress.close()
    return counts


def experiment_name(study: str, key: str) -> str:
    """Return the experiment of a job: probes have one per probe, other stages one each."""
    parts = key.split("/")
    stage = parts[3] if parts[0] == "probes" else parts[0]
    return f"{study}/{stage}"


def _probe_job(key: str) -> tuple[str, int, str, int] | None:
    parts = key.split("/")
    if parts[0] != "probes":
        return None
    _, encoder, seed, probe, budget = parts
    return encoder, int(seed.removeprefix("seed")), probe, int(budget.removeprefix("budget"))


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


def _import(client: MlflowClient, experiment: str, record: JobRecord) -> None:
    content = record.content
    started = int(pd.Timestamp(content["started"]).timestamp() * 1000)
    ended = started + int(1000 * content["cost"]["wall_s"])
    tags = {
        "job_key": record.key,
        "stage": content["stage"],
        "mlflow.source.name": content["script"],
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": content["git"]["commit"] or "unknown",
        "mlflow.note.content": f"Job `{record.key}`, written by `{content['script']}`.",
        "code_digest": content["code_digest"],
        "config_digest": content["config_digest"],
        "node": content["node"],
        "slurm_job_id": content["slurm_job_id"] or "none",
    }
    tags |= _names(record.key)
    if "error" in content:
        tags["error"] = content["error"]
    run = client.create_run(experiment, start_time=started, tags=tags, run_name=record.key)
    metrics = list(_metrics(record, ended))
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
    params = [
        Param(name, str(value)[:LONGEST_PARAM])
        for name, value in (content["parameters"] | _names(record.key)).items()
        if value is not None and not isinstance(value, dict)
    ]
    for start in range(0, len(params), PARAMS_PER_BATCH):
        client.log_batch(run.info.run_id, params=params[start : start + PARAMS_PER_BATCH])
    client.set_terminated(run.info.run_id, content["status"], ended)
    client.log_batch(run.info.run_id, tags=[RunTag("record_digest", record.digest)])


def _names(key: str) -> dict[str, str]:
    """Return what a job's key says: encoder, seed, probe, budget, or screen and plate."""
    parts = key.split("/")
    names = {"stage": parts[0]}
    if parts[0] in ("probes", "encoders", "pretrain", "epochs", "features", "scores"):
        names |= {"encoder": parts[1], "seed": parts[2].removeprefix("seed")}
    if parts[0] == "search":
        names |= {"encoder": parts[1], "trial": parts[2]}
    if parts[0] == "probes":
        names |= {"probe": parts[3], "budget": parts[4].removeprefix("budget")}
    if parts[0] == "features":
        names |= dict(zip(("screen", "plate"), parts[3:], strict=False))
    if parts[0] in ("simulate", "index", "scale", "crops"):
        names |= {"screen": parts[1], "plate": parts[2]}
    return names


def _metrics(record: JobRecord, time_ms: int) -> Iterator[Metric]:
    content = record.content
    section = SECTIONS.get(content["stage"], content["stage"])
    for name, value in content["metrics"].items():
        if value is None:
            continue
        yield Metric(f"{section}/{name}", float(value), time_ms, 0)
    for name, value in content["cost"].items():
        if isinstance(value, int | float):
            yield Metric(f"cost/{name}", float(value), time_ms, 0)
    for point in content["curves"]:
        for name, value in point.items():
            if name != "step" and value is not None:
                yield Metric(f"train/{name}", float(value), time_ms, int(point["step"]))
    if record.scores is None:
        return
    for (screen, metric), rows in record.scores.groupby(["screen", "metric"], sort=False):
        name = f"test/{metric}" if screen == record.train_screen else f"shift/{screen}/{metric}"
        yield Metric(f"{name}_mean", float(rows["value"].mean()), time_ms, 0)
        for draw, value in zip(rows["draw"], rows["value"], strict=True):
            yield Metric(name, float(value), time_ms, int(draw))
