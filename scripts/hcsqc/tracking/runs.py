"""What MLflow is to show of a study: a run per job, from its record and scores, and a summary.

Nothing here knows MLflow; `hcsqc.tracking` makes a store hold these runs.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json, sha256, text_digest
from hcsqc.core.ids import ProbeJob, names_of, probe_job
from hcsqc.core.schema import for_spreadsheets, read_table
from hcsqc.probes.metrics import METRICS, THRESHOLD

# What is read of a record.
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
    "inputs",
    "versions",
    "git",
    "code_digest",
    "config_digest",
    "node",
    "slurm_job_id",
)
# Experiments by stage; a probe's is its own name.
EXPERIMENTS = {
    "simulate": "crops",
    "index": "crops",
    "scale": "crops",
    "crops": "crops",
    "labels": "crops",
    "splits": "crops",
    "encoders": "pretraining",
    "search": "pretraining",
    "pretrain": "pretraining",
    "epochs": "pretraining",
    "features": "pretraining",
    "shift_variants": "shift",
    "shift": "shift",
    "qc": "qc",
}
OTHER_EXPERIMENT = "analyses"
DETECTOR = "qc/detector"
SUMMARY = "summary"
SECTIONS = {"pretrain": "train", "search": "train", "epochs": "val", "probes": "test"}
# Metrics of which MLflow gets every draw; of the others mean and interval.
DRAWN_METRICS = ("f1",)
# Of the summary, whose charts are looked at one by one.
SUMMARY_METRICS = ("accuracy", "f1", "auc")
UNENDED = "did not end: killed (memory, time limit, scancel, node failure), or still running"

Point = tuple[str, float, int]  # name, value, step


@dataclass(frozen=True)
class TrackedRun:
    """One run: what a tracking store is to hold of it.

    `datasets` are (name, digest, path) of files; `artifacts` makes the texts and files to keep
    with the run, by name, when they are wanted; `made_from` changes with what they are made from.
    """

    key: str
    experiment: str
    status: str
    started_ms: int
    ended_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...]
    datasets: tuple[tuple[str, str, str], ...] = ()
    artifacts: Callable[[], Mapping[str, str | Path]] = field(default=dict, compare=False)
    made_from: str = ""

    @property
    def digest(self) -> str:
        """A digest of all of it: another one, and the run has to be made again."""
        told = [
            getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("artifacts", "params", "tags")
        ]
        return text_digest(repr([told, sorted(self.params.items()), sorted(self.tags.items())]))


def tracked_runs(results: Path, train_screen: str) -> list[TrackedRun]:
    """Return the runs of the study in folder `results`, of what there is of it.

    A failed attempt counts where no job has ended well; one that is recorded as running counts as
    failed. `train_screen` distinguishes test and shift. Raises InputError for a damaged record.
    """
    records = list(_records(results / "runs"))
    by_job = _scores(results)
    summary = _table(results / "tables/metrics.csv")
    intervals = defaultdict(list)
    for row in summary.itertuples():
        if row.seeds == 1:  # over several they are not those of one job
            intervals[row.encoder, row.probe, int(row.budget)].append(row)
    about = _encoders(records, summary)
    runs = []
    for record in records:
        names = names_of(record["key"])
        own, of_job = by_job.get(_scored_job(record)), None
        if own is not None:
            of_job = intervals.get((names["encoder"], names["probe"], int(names["budget"])))
        runs.append(_run(record, names, results, own, of_job, about, train_screen))
    return runs + list(_summaries(summary, records, about, results, train_screen))


def _records(folder: Path) -> Iterator[dict]:
    for path in sorted(folder.rglob("*.json")):
        if path.name == "failed.json" and path.with_name("run.json").exists():
            continue
        try:
            content = read_checked_json(path)
            missing = [name for name in RECORD_KEYS if name not in content]
            if missing:
                raise ValueError(f"no '{missing[0]}'")
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}: damaged record ({error}); delete it and run again"
            ) from error
        if content["status"] == "RUNNING":
            content |= {"status": "FAILED", "error": UNENDED}
        yield content


def _scores(results: Path) -> dict[tuple, dict[tuple[str, str], list[tuple[int, float]]]]:
    """Return draws and values by job, then by screen and metric.

    Plain lists: a group of pandas per job would take longer than all else.
    """
    columns = ["encoder", "seed", "probe", "budget", "screen", "metric", "draw", "value"]
    jobs = defaultdict(lambda: defaultdict(list))
    for path in sorted(results.glob("scores/*/*.parquet")):
        rows = read_table(path, "scores")
        for *job, screen, metric, draw, value in zip(
            *(rows[name].to_list() for name in columns), strict=True
        ):
            jobs[tuple(job)][screen, metric].append((draw, value))
    return jobs


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _encoders(records: list[dict], summary: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return kind and method of each encoder, where they are known."""
    about: dict[str, dict[str, str]] = {}
    if len(summary):
        for encoder, kind in summary.groupby("encoder")["kind"].first().items():
            about.setdefault(encoder, {})["kind"] = kind
    for record in records:
        if record["stage"] == "pretrain" and "method" in record["parameters"]:
            about.setdefault(names_of(record["key"])["encoder"], {})["method"] = record[
                "parameters"
            ]["method"]
    return about


def _run(record, names, results, scores, intervals, about, train_screen) -> TrackedRun:
    key = record["key"]
    started = int(pd.Timestamp(record["started"]).timestamp() * 1000)
    known = names | about.get(names.get("encoder"), {})
    params = {
        name: str(value)
        for name, value in (record["parameters"] | known).items()
        if value is not None and not isinstance(value, dict)
    }
    tags = known | {
        "job_key": key,
        "mlflow.source.name": record["script"],
        "mlflow.source.git.commit": record["git"]["commit"] or "unknown",
        "dirty": str(record["git"]["dirty"]).lower(),
        "code_digest": record["code_digest"],
        "config_digest": record["config_digest"],
        "node": record["node"] or "unknown",
        "device": record["cost"]["device"],
        "slurm_job_id": record["slurm_job_id"] or "none",
        "versions": " ".join(f"{name}=={number}" for name, number in record["versions"].items()),
        "mlflow.note.content": _note(record, results),
    }
    if "error" in record:
        tags["error"] = record["error"]
    artifacts, made_from = _artifacts(record, names, results, scores)
    return TrackedRun(
        key,
        names["probe"] if "probe" in names else EXPERIMENTS.get(names["stage"], OTHER_EXPERIMENT),
        record["status"],
        started,
        started + int(1000 * record["cost"]["wall_s"]),
        params,
        tags,
        tuple(_points(record, scores, intervals, train_screen)),
        tuple(
            (Path(path).name, file["sha256"], path)
            for path, file in record["inputs"].items()
            if file["sha256"] and path.endswith(".parquet")
        ),
        artifacts,
        made_from,
    )


def _note(record: dict, results: Path) -> str:
    lines = [f"Job `{record['key']}`, by `{record['script']}`."]
    lines += [f"Record: `{results / 'runs' / record['key']}`"]
    lines += [f"Report: `{results / 'report' / 'index.html'}`"]
    if "error" in record:
        lines += ["", "```", record["error"].strip(), "```"]
    return "  \n".join(lines)


def _scored_job(record: Mapping) -> ProbeJob | None:
    return probe_job(record["key"]) if record["stage"] == "probes" else None


def _points(record, scores, intervals, train_screen) -> Iterator[Point]:
    section = SECTIONS.get(record["stage"], record["stage"])
    drawn = {name for point in record["curves"] for name in point}
    for name, value in record["metrics"].items():
        # The end of a curve is its last point already.
        if value is not None and name not in drawn:
            yield f"{section}/{name}", float(value), 0
    for name, value in record["cost"].items():
        if isinstance(value, int | float):
            yield f"cost/{name}", float(value), 0
    curves = "val" if record["stage"] == "epochs" else "train"
    for point in record["curves"]:
        for name, value in point.items():
            if name != "step" and value is not None:
                yield f"{curves}/{name}", float(value), int(point["step"])
    if scores is None:
        return
    for (screen, metric), draws in scores.items():
        name = _metric_name(screen, train_screen, metric)
        if metric in DRAWN_METRICS:
            for draw, value in draws:
                yield name, value, draw
        if intervals is None and metric in METRICS:  # the tables come later than the scores
            yield f"{name}_mean", fmean(value for _, value in draws), 0
    for row in intervals or ():
        if row.metric in METRICS:
            name = _metric_name(row.screen, train_screen, row.metric)
            ends = ("_mean", "_low", "_high")
            yield from _with_interval([f"{name}{end}" for end in ends], row, 0)


def _metric_name(screen: str, train_screen: str, metric: str) -> str:
    return f"test/{metric}" if screen == train_screen else f"shift/{screen}/{metric}"


def _with_interval(names: list[str], row, step: int) -> Iterator[Point]:
    """Yield value and bounds under these names, those that there are."""
    for name, value in zip(names, (row.value, row.low, row.high), strict=True):
        if not pd.isna(value):
            yield name, float(value), step


def _artifacts(record, names, results, scores):
    """Return what makes the artifacts of a run, and a text that changes with what it makes."""
    if scores is not None:
        predictions = results / "predictions" / f"{probe_job(record['key']).path}.parquet"
        if predictions.exists():
            # Predictions are written together with the record, whose start and cost stand for them.
            made_from = text_digest(repr(list(scores.values())))
            return partial(_probe_artifacts, predictions, scores), made_from
    if record["stage"] == "pretrain" and record["status"] == "FINISHED":
        folder = f"{names['encoder']}/seed{names['seed']}"
        encoder = results / "encoders" / folder / "encoder.safetensors"
        curve = results / "figures/pretraining" / f"{folder}.png"
        found = [path for path in (encoder, curve) if path.exists()]
        state = [(path.stat().st_size, path.stat().st_mtime_ns) for path in found]
        return partial(_pretraining_artifacts, encoder, curve), repr(state)
    if record["key"] == DETECTOR and record["status"] == "FINISHED":
        model = results / "qc/model"
        found = sorted(path for path in model.rglob("*") if path.is_file())
        state = [(path.stat().st_size, path.stat().st_mtime_ns) for path in found]
        return partial(_model_artifacts, model, found), repr(state)
    return dict, ""


def _model_artifacts(model: Path, files: list[Path]) -> dict[str, Path]:
    """Return an MLflow model as artifacts: `mlflow.pyfunc.load_model("runs:/<run>/model")`."""
    return {f"model/{path.relative_to(model)}": path for path in files}


def _probe_artifacts(predictions: Path, scores: dict) -> dict[str, str]:
    rows = read_table(predictions, "predictions", ["screen", "label", "score"])
    said = np.where(rows["score"] > THRESHOLD, "abnormal", "normal")
    counts = Counter(zip(rows["screen"], rows["label"], said, strict=True))
    crops = [f"{','.join(names)},{count}\n" for names, count in sorted(counts.items())]
    draws = [
        f"{screen},{metric},{draw},{value}\n"
        for (screen, metric), values in scores.items()
        for draw, value in values
    ]
    return {
        "confusion_matrix.csv": "screen,label,said,crops\n" + "".join(crops),
        "draws.csv": "screen,metric,draw,value\n" + "".join(draws),
    }


def _pretraining_artifacts(encoder: Path, curve: Path) -> dict[str, str | Path]:
    kept: dict[str, str | Path] = {}
    if encoder.exists():
        link = {"path": str(encoder), "sha256": sha256(encoder), "bytes": encoder.stat().st_size}
        kept["encoder.json"] = json.dumps(link, indent=1)
    if curve.exists():
        kept["curves.png"] = curve
    return kept


def _summaries(summary, records, about, results, train_screen) -> Iterator[TrackedRun]:
    """Yield a run per encoder whose steps are label budgets."""
    if not len(summary):
        return
    times = {}
    for record in records:
        encoder = names_of(record["key"]).get("encoder")
        if encoder:
            times.setdefault(encoder, []).append(record)
    for encoder, rows in summary.groupby("encoder"):
        points = []
        for row in rows[rows["metric"].isin(SUMMARY_METRICS)].sort_values("budget").itertuples():
            section = "test" if row.screen == train_screen else f"shift/{row.screen}"
            # The UI puts what differs in the last part alone side by side.
            charts = [f"{section}/{row.metric}{end}/{row.probe}" for end in ("", "_low", "_high")]
            points += _with_interval(charts, row, int(row.budget))
        own = times.get(encoder, [])
        points.append(("cost/cpu_s", sum(record["cost"]["cpu_s"] for record in own), 0))
        began = [int(pd.Timestamp(record["started"]).timestamp() * 1000) for record in own]
        names = {"stage": SUMMARY, "encoder": encoder} | about.get(encoder, {})
        key = f"{SUMMARY}/{encoder}"
        note = f"{encoder}: step = labels. Report: `{results / 'report' / 'index.html'}`"
        made_from = text_digest(rows.to_csv(index=False))
        yield TrackedRun(
            key,
            SUMMARY,
            "FINISHED",
            min(began, default=0),
            max(began, default=0),
            names,
            names | {"job_key": key, "mlflow.note.content": note},
            tuple(points),
            artifacts=partial(_summary_artifacts, rows),
            made_from=made_from,
        )


def _summary_artifacts(rows: pd.DataFrame) -> dict[str, str]:
    return {"metrics.csv": for_spreadsheets(rows.drop(columns="data")).to_csv(index=False)}
