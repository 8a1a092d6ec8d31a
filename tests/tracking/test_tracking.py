"""Mirroring a study into MLflow: one run per job, read back by MLflow's own client."""

import html
import json
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, ViewType

from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.tracking import store as tracking
from hcsqc.tracking.runs import UNENDED, tracked_runs
from hcsqc.tracking.store import compared_runs, connect, mirror
from scripts.tracking import compare_runs, track_runs
from tests.conftest import ROOT
from tests.tracking.made_records import made_record

PROBE = "probes/simclr/seed0/knn/budget25"
PRETRAIN = "pretrain/simclr/seed0"
CROPS = "crops/sim/p1"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """Return a new database with all its tables, made once: migrations take seconds."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return str(path)


class Store:
    """The records of a study, and the tracking store they are mirrored into."""

    def __init__(self, folder: Path, database: str):
        self.folder, self.runs = folder, folder / "runs"
        self.write_scores(self.scores())
        (folder / "mlflow.db").write_bytes(Path(database).read_bytes())
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        for key in (PROBE, PRETRAIN, CROPS):
            self.record(key)

    def record(self, key: str, name: str = "run.json", **changes) -> Path:
        """Write the record of a job."""
        path = self.runs / key / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made_record(key, **changes)))
        return path

    def scores(self) -> pd.DataFrame:
        rows = [
            ("simclr", 0, "knn", 25, draw, screen, metric, value + draw / 100, n)
            for draw in range(3)
            for screen, value, n in (("sim", 0.9, 130), ("other", 0.6, 224))
            for metric in ("accuracy", "f1")
        ]
        columns = ["encoder", "seed", "probe", "budget", "draw", "screen", "metric", "value"]
        return pd.DataFrame(rows, columns=[*columns, "n_test"])

    def write_scores(self, scores: pd.DataFrame) -> None:
        path = self.folder / "scores/simclr/seed0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        types = dict.fromkeys(("seed", "budget", "draw", "n_test"), "int32")
        write_table(scores.astype(types), path, "scores")

    def write_metrics(self, **changes) -> None:
        """Write the table of metrics, with intervals."""
        rows = [
            {
                "data": "made",
                "encoder": "simclr",
                "kind": "ssl",
                "probe": "knn",
                "budget": 25,
                "screen": screen,
                "metric": metric,
                "value": value,
                "low": value - 0.1,
                "high": value + 0.1,
                "draws": 3,
                "seeds": 1,
                "n_test": 130,
            }
            | changes
            for screen, value in (("sim", 0.9), ("other", 0.6))
            for metric in ("accuracy", "f1")
        ]
        (self.folder / "tables").mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(self.folder / "tables/metrics.csv", index=False)

    def mirror(self) -> dict:
        runs = tracked_runs(self.folder, "sim")
        counts = mirror(runs, self.client, "study", (self.folder / "artifacts").as_uri())
        return {name: count for name, count in counts.items() if count}

    def all(self) -> dict:
        """Return every active run by its job."""
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        found = self.client.search_runs(experiments, run_view_type=ViewType.ACTIVE_ONLY)
        runs = {run.data.tags["job_key"]: run for run in found}
        assert len(runs) == len(found), "a job has one run"
        return runs


@pytest.fixture
def store(tmp_path, database) -> Store:
    return Store(tmp_path, database)


def test_the_first_import_makes_a_run_per_record_and_the_second_none(store):
    assert store.mirror() == {"new": 3}
    before = {key: run.info.run_id for key, run in store.all().items()}
    assert set(before) == {PROBE, PRETRAIN, CROPS}
    assert store.mirror() == {"unchanged": 3}
    assert {key: run.info.run_id for key, run in store.all().items()} == before


def test_a_changed_record_replaces_its_run_and_no_other(store):
    store.mirror()
    before = {key: run.info.run_id for key, run in store.all().items()}
    store.record(PRETRAIN, metrics={"crops": 13})
    assert store.mirror() == {"replaced": 1, "unchanged": 2}
    after = store.all()
    assert [key for key, run in after.items() if run.info.run_id != before[key]] == [PRETRAIN]
    assert after[PRETRAIN].data.metrics["train/crops"] == 13


def test_changed_scores_replace_the_run_of_their_probe(store):
    store.mirror()
    scores = store.scores()
    scores.loc[scores["metric"] == "f1", "value"] = 0.1
    store.write_scores(scores)
    assert store.mirror() == {"replaced": 1, "unchanged": 2}
    assert store.all()[PROBE].data.metrics["test/f1_mean"] == pytest.approx(0.1)


def test_other_draws_with_the_same_mean_are_another_run(store):
    predictions = store.folder / "predictions/simclr/seed0/knn/budget25.parquet"
    predictions.parent.mkdir(parents=True)
    predictions.touch()

    def digest() -> str:
        return {run.key: run.digest for run in tracked_runs(store.folder, "sim")}[PROBE]

    before, scores = digest(), store.scores()
    accuracies = scores["metric"].eq("accuracy") & scores["screen"].eq("sim")
    scores.loc[accuracies, "value"] = scores.loc[accuracies, "value"].to_numpy()[::-1]
    store.write_scores(scores)
    assert digest() != before


def test_a_new_record_is_one_new_run(store):
    store.mirror()
    store.record("crops/sim/p2")
    assert store.mirror() == {"new": 1, "unchanged": 3}


def test_a_vanished_record_is_marked_stale_and_kept(store):
    store.record("crops/sim/p2")
    store.mirror()
    (store.runs / "crops/sim/p2/run.json").unlink()
    assert store.mirror() == {"stale": 1, "unchanged": 3}
    runs = store.all()
    assert runs["crops/sim/p2"].data.tags["stale"] == "true"
    assert not [
        key for key, run in runs.items() if key != "crops/sim/p2" and "stale" in run.data.tags
    ]


def test_a_failed_attempt_is_a_failed_run_until_the_job_ends_well(store):
    store.record("crops/sim/p2", "failed.json", status="FAILED", error="ValueError: disk full\n")
    assert store.mirror() == {"new": 4}
    run = store.all()["crops/sim/p2"]
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "ValueError: disk full\n"
    (store.runs / "crops/sim/p2/failed.json").unlink()
    store.record("crops/sim/p2")
    assert store.mirror() == {"replaced": 1, "unchanged": 3}
    run = store.all()["crops/sim/p2"]
    assert run.info.status == "FINISHED" and "error" not in run.data.tags


def test_a_failed_attempt_beside_a_good_one_does_not_count(store):
    store.record(CROPS, "failed.json", status="FAILED", error="earlier")
    assert store.mirror() == {"new": 3}
    assert store.all()[CROPS].info.status == "FINISHED"


@pytest.mark.parametrize("call", ["log_inputs", "set_terminated", "log_batch", "set_tag"])
def test_an_import_killed_in_the_middle_is_done_again(store, monkeypatch, call):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.MlflowClient, call, killed)
    with pytest.raises(KeyboardInterrupt):
        store.mirror()
    monkeypatch.undo()
    (half,) = store.all().values()
    assert "record_digest" not in half.data.tags
    assert store.mirror() == {"new": 2, "replaced": 1}
    runs = store.all()
    assert len(runs) == 3 and {run.info.status for run in runs.values()} == {"FINISHED"}
    assert half.info.run_id not in {run.info.run_id for run in runs.values()}


class Watched:
    """A client of MLflow that remembers which of its calls were made, and with what."""

    def __init__(self, client: MlflowClient):
        self.client, self.calls = client, []

    def __getattr__(self, name: str):
        def call(*args, **named):
            self.calls.append((name, args))
            return getattr(self.client, name)(*args, **named)

        return call


def test_a_run_takes_a_few_of_mlflows_public_calls_however_many_values_it_has(store):
    write_predictions(store)
    store.write_metrics()
    client = store.client = Watched(store.client)
    assert store.mirror() == {"new": 4}
    counts = Counter(name for name, _ in client.calls)
    assert not [name for name in counts if name.startswith("_")]
    told = dict.fromkeys(("create_run", "set_terminated", "log_batch", "set_tag"), 4)
    told |= {"log_inputs": 3, "log_artifacts": 2}  # of the records; of the probe and the summary
    per_experiment = {"search_experiments", "create_experiment", "search_runs"}
    assert {name: n for name, n in counts.items() if name not in per_experiment} == told


def test_nothing_of_mlflow_is_imported_but_what_it_documents():
    words = [
        line.split()[1]
        for folder in ("scripts/hcsqc/tracking", "scripts/tracking")
        for path in (ROOT / folder).glob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import mlflow", "from mlflow"))
    ]
    assert set(words) == {"mlflow", "mlflow.entities", "mlflow.exceptions"}


@pytest.mark.parametrize("points", [3, 899, 900, 901, 1000, 1900])
def test_many_values_are_logged_within_mlflows_limits_and_the_digest_after_them(store, points):
    curve = [{"step": i, "loss": 1.0} for i in range(points - 2)]  # and two of the cost
    many = {f"p{i}": i for i in range(150)}
    store.record(PRETRAIN, curves=curve, metrics={}, parameters=many)
    client = store.client = Watched(store.client)
    store.mirror()
    run_id = store.all()[PRETRAIN].info.run_id
    calls = [(name, args) for name, args in client.calls if args and args[0] == run_id]
    batches = [args for name, args in calls if name == "log_batch"]
    assert sum(len(metrics) for _, metrics, _ in batches) == points
    for _, metrics, params in batches:
        assert len(params) <= 100 and len(metrics) + len(params) <= 1000
    assert (
        [name for name, args in calls if "record_digest" in args] == [calls[-1][0]] == ["set_tag"]
    )


def write_predictions(store) -> None:
    predictions = pd.DataFrame(
        [(0, "sim", f"c{i}", label, 0.4) for i, label in enumerate(("normal", "abnormal"))],
        columns=["draw", "screen", "crop_id", "label", "score"],
    ).astype({"draw": "int32"})
    predictions["group"] = "p/B02"
    path = store.folder / "predictions/simclr/seed0/knn/budget25.parquet"
    path.parent.mkdir(parents=True)
    write_table(predictions, path, "predictions")


def log_value_by_value(client: MlflowClient, number: str, run, folder: Path) -> None:
    """Log a run by MLflow's usual calls."""
    began = client.create_run(number, run.started_ms, {"mlflow.user": "me"}, run.key)
    made = began.info.run_id
    for name, value in run.params.items():
        client.log_param(made, name, value)
    for name, value, step in run.points:
        client.log_metric(made, name, value, run.ended_ms, step)
    for name, digest, path in run.datasets:
        client.log_inputs(made, [DatasetInput(Dataset(name, digest[:36], "local", path))])
    for name, content in run.artifacts().items():
        (folder / name).write_text(content)
        client.log_artifact(made, str(folder / name))
    client.set_terminated(made, run.status, run.ended_ms)
    tags = run.tags | {"mlflow.source.type": "JOB", "record_digest": run.digest}
    for name, value in tags.items():
        client.set_tag(made, name, value)


def test_a_store_holds_what_a_call_per_value_would_have_written(store, tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "me")
    store.write_metrics()
    store.record(CROPS, metrics={"loss": float("inf"), "crops": 3})
    write_predictions(store)
    empty = (tmp_path / "mlflow.db").read_bytes()
    store.mirror()
    at_once = told_of(store)
    (tmp_path / "other.db").write_bytes(empty)
    store.client = MlflowClient(f"sqlite:///{tmp_path / 'other.db'}")
    place = (tmp_path / "others").as_uri()
    numbers = {
        name: store.client.create_experiment(f"study/{name}", artifact_location=f"{place}/{name}")
        for name in sorted({"crops", "knn", "pretraining", "summary"})
    }
    for run in tracked_runs(store.folder, "sim"):
        log_value_by_value(store.client, numbers[run.experiment], run, tmp_path)
    assert told_of(store) == at_once and len(at_once) == 4


def told_of(store) -> dict:
    """Return all that a client tells of the runs of a store, but for their ids."""
    told = {}
    for key, run in store.all().items():
        info, place = dict(run.info), Path(run.info.artifact_uri.removeprefix("file://"))
        assert place.parent.name == run.info.run_id
        for name in ("run_id", "run_uuid", "artifact_uri"):
            info.pop(name, None)
        history = {
            name: [dict(point) | {"run_id": None} for point in points]
            for name in run.data.metrics
            for points in [store.client.get_metric_history(run.info.run_id, name)]
        }
        inputs = [dict(one.dataset) for one in run.inputs.dataset_inputs]
        files = {path.name: path.read_bytes() for path in place.glob("*")}
        told[key] = (info, run.data.to_dictionary(), history, inputs, files)
    return told


def test_two_runs_of_one_job_become_one(store):
    store.mirror()
    twin = store.all()[CROPS]
    again = store.client.create_run(twin.info.experiment_id, tags={"job_key": CROPS})
    store.client.set_tag(again.info.run_id, "record_digest", twin.data.tags["record_digest"])
    assert store.mirror() == {"replaced": 1, "unchanged": 2}
    assert CROPS in store.all()


def test_a_killed_import_leaves_no_folder_that_no_run_names(store, monkeypatch):
    write_predictions(store)
    with monkeypatch.context() as killed:
        killed.setattr(tracking, "_log_values", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                store.mirror()
    store.mirror()
    kept = {run.info.run_id for run in store.all().values()}
    folders = {path.name for path in (store.folder / "artifacts").glob("*/*")}
    assert folders and folders <= kept


def test_a_probes_scores_are_metrics_with_a_step_per_draw(store):
    store.mirror()
    run = store.all()[PROBE]
    for name, first in (("test/f1", 0.9), ("shift/other/f1", 0.6)):
        history = store.client.get_metric_history(run.info.run_id, name)
        assert {point.step: round(point.value, 6) for point in history} == {
            0: first,
            1: round(first + 0.01, 6),
            2: round(first + 0.02, 6),
        }
        assert run.data.metrics[f"{name}_mean"] == pytest.approx(first + 0.01)
    assert run.data.metrics["test/accuracy_mean"] == pytest.approx(0.91)
    assert not [name for name in store.all()[PRETRAIN].data.metrics if name.startswith("shift")]


def test_a_run_holds_what_its_record_says(store):
    store.mirror()
    run = store.all()[PROBE]
    assert run.info.run_name == PROBE
    assert run.info.end_time - run.info.start_time == 2500
    assert run.info.start_time == 1767323045000  # 2026-01-02 03:04:05 UTC
    assert run.data.params == {
        "neighbours": "5",
        "wells": "['B02', 'C03']",
        "stage": "probes",
        "encoder": "simclr",
        "seed": "0",
        "probe": "knn",
        "budget": "25",
    }
    assert run.data.metrics["cost/wall_s"] == 2.5 and run.data.metrics["test/crops"] == 12
    expected = {"code_digest": "c0de", "node": "here", "mlflow.source.git.commit": "abc"}
    assert expected.items() <= run.data.tags.items()
    assert store.all()[CROPS].data.params["plate"] == "p1"


def test_a_training_curve_has_its_own_steps_even_when_it_is_long(store):
    curve = [{"step": 10 * i, "epoch": i // 9, "loss": 1 / (i + 1)} for i in range(700)]
    # 1400 points: more than one batch; the end of a curve is no other point of it.
    store.record(PRETRAIN, curves=curve, metrics={"loss": curve[-1]["loss"]})
    store.mirror()
    run_id = store.all()[PRETRAIN].info.run_id
    history = store.client.get_metric_history(run_id, "train/loss")
    assert len(history) == 700
    assert {point.step: point.value for point in history} == {
        point["step"]: point["loss"] for point in curve
    }
    assert len(store.client.get_metric_history(run_id, "train/epoch")) == 700


def test_many_and_long_parameters_are_kept(store):
    many = {f"p{i}": i for i in range(250)} | {"long": "x" * 9000}
    store.record(CROPS, parameters=many)
    store.mirror()
    params = store.all()[CROPS].data.params
    assert {f"p{i}": str(i) for i in range(250)}.items() <= params.items()
    assert params["long"] == "x" * tracking.LONGEST_PARAM


def test_means_have_the_intervals_of_the_table(store):
    store.mirror()
    assert "test/f1_low" not in store.all()[PROBE].data.metrics
    store.write_metrics()
    assert store.mirror() == {"new": 1, "replaced": 2, "unchanged": 1}  # kinds are known now
    found = store.all()[PROBE].data.metrics
    assert [found[f"test/f1_{end}"] for end in ("low", "mean", "high")] == [0.8, 0.9, 1.0]
    assert found["shift/other/accuracy_low"] == 0.5


def test_intervals_over_several_seeds_are_not_those_of_one_job(store):
    store.write_metrics(seeds=2)
    store.mirror()
    found = store.all()[PROBE].data.metrics
    assert "test/f1_low" not in found and found["test/f1_mean"] == pytest.approx(0.91)


def test_the_summary_has_a_run_per_encoder_whose_steps_are_budgets(store):
    store.write_metrics()
    table = pd.read_csv(store.folder / "tables/metrics.csv")
    table = pd.concat([table, table.assign(budget=100, value=0.95)])
    table.to_csv(store.folder / "tables/metrics.csv", index=False)
    store.mirror()
    run = store.all()["summary/simclr"]
    history = store.client.get_metric_history(run.info.run_id, "test/f1/knn")
    assert {point.step: point.value for point in history} == {25: 0.9, 100: 0.95}
    low = store.client.get_metric_history(run.info.run_id, "shift/other/f1_low/knn")
    assert {point.step: point.value for point in low} == {25: 0.5, 100: 0.5}
    assert run.data.metrics["cost/cpu_s"] == 4.0  # of its pretraining and its probe
    assert {"encoder": "simclr", "kind": "ssl"}.items() <= run.data.params.items()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (PROBE, "knn"),
        ("probes/simclr/seed0/finetune_paper/budget25", "finetune_paper"),
        (PRETRAIN, "pretraining"),
        ("search/simclr/trial1", "pretraining"),
        (CROPS, "crops"),
        ("shift/simclr/seed0", "shift"),
        ("report", "analyses"),
    ],
)
def test_probes_have_an_experiment_each_and_other_stages_share_one(store, key, name):
    store.record(key)
    (run,) = [run for run in tracked_runs(store.folder, "sim") if run.key == key]
    assert run.experiment == name


def test_a_run_keeps_its_data_sets_confusion_matrix_and_draws(store):
    predictions = store.folder / "predictions/simclr/seed0/knn/budget25.parquet"
    predictions.parent.mkdir(parents=True)
    rows = [
        (0, "sim", "a", "normal", 0.2),
        (0, "sim", "b", "normal", 0.5),
        (0, "sim", "c", "abnormal", 0.9),
        (1, "sim", "a", "normal", 0.8),
        (1, "other", "d", "abnormal", 0.1),
    ]
    table = pd.DataFrame(rows, columns=["draw", "screen", "crop_id", "label", "score"])
    write_table(table.assign(group="p").astype({"draw": "int32"}), predictions, "predictions")
    store.mirror()
    run = store.all()[PROBE]
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    matrix = pd.read_csv(folder / "confusion_matrix.csv")
    assert matrix.to_numpy().tolist() == [
        ["other", "abnormal", "normal", 1],
        ["sim", "abnormal", "abnormal", 1],
        ["sim", "normal", "abnormal", 1],
        ["sim", "normal", "normal", 2],
    ]
    assert len(pd.read_csv(folder / "draws.csv")) == 12
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("splits.parquet", "f" * 36)


def test_a_pretraining_links_to_its_encoder_and_shows_its_curves(store):
    encoder = store.folder / "encoders/simclr/seed0/encoder.safetensors"
    curves = store.folder / "figures/pretraining/simclr/seed0.png"
    for path in (encoder, curves):
        path.parent.mkdir(parents=True)
        path.write_bytes(path.name.encode())
    store.mirror()
    folder = Path(store.all()[PRETRAIN].info.artifact_uri.removeprefix("file://"))
    link = json.loads((folder / "encoder.json").read_text())
    digest = sha256(b"encoder.safetensors").hexdigest()
    assert link == {"path": str(encoder), "sha256": digest, "bytes": 19}
    assert (folder / "curves.png").read_bytes() == b"seed0.png"
    curves.write_bytes(b"drawn anew")
    assert store.mirror() == {"replaced": 1, "unchanged": 2}


def test_a_job_that_left_only_its_beginning_failed(store):
    store.record("crops/sim/p2", "failed.json", status="RUNNING")
    store.mirror()
    run = store.all()["crops/sim/p2"]
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", UNENDED)
    assert UNENDED in run.data.tags["mlflow.note.content"]


def test_a_lost_database_is_rebuilt_from_the_records_alone(store, database):
    store.write_metrics()
    store.mirror()

    def content() -> dict:
        return {
            key: (run.data.params, run.data.metrics, run.info.status)
            for key, run in store.all().items()
        }

    before = content()
    (store.folder / "mlflow.db").write_bytes(Path(database).read_bytes())
    store.client = MlflowClient(store.uri + "?again")
    assert not store.all()
    assert store.mirror() == {"new": 4}
    assert content() == before


def test_an_experiment_that_was_deleted_by_hand_comes_back(store):
    store.mirror()
    store.client.delete_experiment(store.all()[CROPS].info.experiment_id)
    assert CROPS not in store.all()
    assert sum(store.mirror().values()) == 3
    assert CROPS in store.all()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql://me:secret@127.0.0.1:9/none"])
def test_a_store_that_does_not_answer_is_one_message_without_its_password(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="does not respond") as caught:
        connect(uri)
    assert "tracking.uri" in str(caught.value) and "secret" not in str(caught.value)


# Comparisons.


def test_runs_are_compared_by_a_parameter_with_their_intervals_best_first(store):
    store.write_metrics()
    for seed in (0, 1):
        store.record(f"probes/swav/seed{seed}/knn/budget25")
    scores = store.scores()
    for seed, change in ((0, 0.05), (1, -0.01)):
        more = scores.assign(encoder="swav", seed=seed, value=scores["value"] + change)
        path = store.folder / f"scores/swav/seed{seed}.parquet"
        path.parent.mkdir(exist_ok=True)
        types = dict.fromkeys(("seed", "budget", "draw", "n_test"), "int32")
        write_table(more.astype(types), path, "scores")
    store.mirror()
    found = compared_runs(store.client, "encoder", "test/f1", {"probe": "knn"}, "study")
    assert found[["encoder", "budget", "runs"]].to_numpy().tolist() == [
        ["swav", 25, 2],
        ["simclr", 25, 1],
    ]
    assert found["mean"].tolist() == pytest.approx([0.93, 0.9])
    assert found.iloc[1][["low", "high"]].tolist() == pytest.approx([0.8, 1.0])


def test_comparing_names_the_metrics_that_there_are(store):
    store.mirror()
    with pytest.raises(InputError, match="there are: .*test/f1"):
        compared_runs(store.client, "encoder", "test/nothing", {}, "")
    with pytest.raises(InputError, match="no finished run"):
        compared_runs(store.client, "encoder", "test/f1", {"budget": "7"}, "study")


def test_the_command_prints_the_table(store, monkeypatch, capsys):
    store.mirror()
    words = f"compare_runs.py --by encoder --metric test/f1 --uri {store.uri} --where budget=25"
    monkeypatch.setattr(sys, "argv", words.split())
    compare_runs.main()
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["study", "encoder", "probe", "budget", "mean", "low", "high", "runs"]
    assert row.split() == ["study", "simclr", "knn", "25", "0.9100", "-", "-", "1"]


@pytest.mark.parametrize("words", [[], ["--uri", "sqlite://", "--where", "budget"]])
def test_the_command_without_a_store_or_with_half_a_condition_says_so(words, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", [compare_runs.__file__, *words])
    with pytest.raises(SystemExit, match="error: .*(give --uri|name=value)"):
        compare_runs.main()


@pytest.mark.parametrize("other", ["other", "s_udy"])
def test_runs_of_another_study_are_left_alone(store, other):
    """In SQL's LIKE the underscore of `s_udy` stands for any character, the t of `study` too."""
    store.mirror()
    runs = tracked_runs(store.folder, "sim")
    counts = mirror(runs, store.client, other, (store.folder / "other").as_uri())
    assert counts == {"unchanged": 0, "new": 3, "replaced": 0, "stale": 0}
    assert store.mirror() == {"unchanged": 3}


@pytest.mark.parametrize("content", ["", '{"key": "crops/sim/p1", "sta', "null {"])
def test_a_damaged_record_is_named(store, content):
    path = store.runs / CROPS / "run.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        store.mirror()
    assert str(caught.value).startswith(f"{path}: is damaged (")
    assert "delete it and run again" in str(caught.value)


# The command.


def track(store: Store, monkeypatch) -> dict:
    words = f"track_runs.py --results {store.folder} --study study --train-screen sim"
    words += f" --uri {store.uri} --ui http://127.0.0.1:5000"
    monkeypatch.setattr(sys, "argv", words.split())
    track_runs.main()
    return json.loads((store.folder / "mlflow.receipt.json").read_text())


def test_the_command_writes_a_receipt_and_links_into_the_ui(store, monkeypatch):
    counts = {"new": 3, "unchanged": 0, "replaced": 0, "stale": 0}
    receipt = track(store, monkeypatch)
    assert receipt.items() >= ({"uri": store.uri, "runs": 3} | counts).items()
    page = (store.folder / "mlflow.html").read_text()
    for name, link in receipt["links"].items():
        experiment = store.client.get_experiment_by_name(f"study/{name}").experiment_id
        assert link.startswith(f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?")
        assert html.escape(link) in page
    assert set(receipt["links"]) == {"knn", "pretraining", "crops"}
    assert track(store, monkeypatch)["unchanged"] == 3


def test_the_command_ends_on_a_damaged_record_with_one_line_and_no_receipt(store, monkeypatch):
    (store.runs / CROPS / "run.json").write_text("{")
    with pytest.raises(SystemExit) as caught:
        track(store, monkeypatch)
    assert str(caught.value.code).startswith("error: ") and "is damaged" in caught.value.code
    assert not (store.folder / "mlflow.receipt.json").exists()


def test_the_detectors_run_alone_keeps_the_model(store):
    model = store.folder / "qc/model/MLmodel"
    model.parent.mkdir(parents=True)
    model.write_text("model")
    store.record("qc/detector")
    kept = {run.key: run.artifacts() for run in tracked_runs(store.folder, "sim")}
    assert set(kept.pop("qc/detector")) == {"model/MLmodel"}
    assert not any("model/MLmodel" in files for files in kept.values())
