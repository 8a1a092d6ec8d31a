"""Mirroring records into MLflow: one run per job, read back by MLflow's own client."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

import track_runs
from hcsqc import tracking
from hcsqc.errors import InputError
from hcsqc.schema import write_table
from hcsqc.tracking import experiment_name, mirror, read_records

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
        (folder / "mlflow.db").write_bytes(Path(database).read_bytes())
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        for key in (PROBE, PRETRAIN, CROPS):
            self.record(key)

    def record(self, key: str, name: str = "run.json", **changes) -> Path:
        """Write the record of a job."""
        path = self.runs / key / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "key": key,
            "stage": key.split("/")[0],
            "script": "probe_knn.py",
            "status": "FINISHED",
            "started": "2026-01-02T03:04:05+00:00",
            "parameters": {"neighbours": 5, "wells": ["B02", "C03"], "nothing": None},
            "metrics": {"crops": 12},
            "curves": [],
            "cost": {"wall_s": 2.5, "cpu_s": 2.0, "device": "cpu", "gpu_memory_mb": None},
            "git": {"commit": "abc", "dirty": False},
            "code_digest": "c0de",
            "config_digest": "c0nf",
            "slurm_job_id": None,
            "node": "here",
        }
        path.write_text(json.dumps(content | changes))
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

    def mirror(self, scores: pd.DataFrame | None = None) -> dict:
        records = read_records(self.runs, self.scores() if scores is None else scores, "sim")
        counts = mirror(records, self.client, "study", (self.folder / "artifacts").as_uri())
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
    scores.loc[0, "value"] = 0.1
    assert store.mirror(scores) == {"replaced": 1, "unchanged": 2}
    assert store.client.get_metric_history(store.all()[PROBE].info.run_id, "test/accuracy")[
        0
    ].value == pytest.approx(0.1)


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


def test_an_import_killed_in_the_middle_is_done_again(store, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.MlflowClient, "set_terminated", killed)
    with pytest.raises(KeyboardInterrupt):
        store.mirror()
    monkeypatch.undo()
    (half,) = store.all().values()
    assert "record_digest" not in half.data.tags and half.info.status == "RUNNING"
    assert store.mirror() == {"new": 2, "replaced": 1}
    runs = store.all()
    assert len(runs) == 3 and {run.info.status for run in runs.values()} == {"FINISHED"}
    assert half.info.run_id not in {run.info.run_id for run in runs.values()}


def test_two_runs_of_one_job_become_one(store):
    store.mirror()
    twin = store.all()[CROPS]
    again = store.client.create_run(twin.info.experiment_id, tags={"job_key": CROPS})
    store.client.set_tag(again.info.run_id, "record_digest", twin.data.tags["record_digest"])
    assert store.mirror() == {"replaced": 1, "unchanged": 2}
    assert CROPS in store.all()


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
    store.record(PRETRAIN, curves=curve)  # 1400 points: more than one batch
    store.mirror()
    run_id = store.all()[PRETRAIN].info.run_id
    history = store.client.get_metric_history(run_id, "train/loss")
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


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (PROBE, "study/knn"),
        ("probes/simclr/seed0/finetune_paper/budget25", "study/finetune_paper"),
        (PRETRAIN, "study/pretrain"),
        ("report", "study/report"),
    ],
)
def test_probes_have_an_experiment_each_and_other_stages_one(key, name):
    assert experiment_name("study", key) == name


@pytest.mark.parametrize("other", ["other", "s_udy"])
def test_runs_of_another_study_are_left_alone(store, other):
    """In SQL's LIKE the underscore of `s_udy` stands for any character, the t of `study` too."""
    store.mirror()
    records = read_records(store.runs, store.scores(), "sim")
    counts = mirror(records, store.client, other, "file:///nowhere")
    assert counts == {"unchanged": 0, "new": 3, "replaced": 0, "stale": 0}
    assert store.mirror() == {"unchanged": 3}


@pytest.mark.parametrize("content", ["", '{"key": "crops/sim/p1", "sta', "null {"])
def test_a_damaged_record_is_named(store, content):
    path = store.runs / CROPS / "run.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        store.mirror()
    assert str(caught.value).startswith(f"{path}: damaged record (")
    assert str(caught.value).endswith("delete it and run again")


# The command.


def track(store: Store, monkeypatch) -> dict:
    scores = store.folder / "scores.parquet"
    write_table(store.scores().astype({"draw": "int32"}), scores, "scores")
    words = f"track_runs.py --runs {store.runs} --scores {scores} --study study"
    words += f" --train-screen sim --uri {store.uri} --artifacts {store.folder / 'artifacts'}"
    words += f" --receipt {store.folder / 'receipt.json'}"
    monkeypatch.setattr(sys, "argv", words.split())
    track_runs.main()
    return json.loads((store.folder / "receipt.json").read_text())


def test_the_command_writes_a_receipt(store, monkeypatch):
    counts = {"new": 3, "unchanged": 0, "replaced": 0, "stale": 0}
    assert track(store, monkeypatch) == {"uri": store.uri, "runs": 3} | counts
    assert track(store, monkeypatch)["unchanged"] == 3


def test_the_command_ends_on_a_damaged_record_with_one_line_and_no_receipt(store, monkeypatch):
    (store.runs / CROPS / "run.json").write_text("{")
    with pytest.raises(SystemExit) as caught:
        track(store, monkeypatch)
    assert str(caught.value.code).startswith("error: ") and "damaged record" in caught.value.code
    assert not (store.folder / "receipt.json").exists()
