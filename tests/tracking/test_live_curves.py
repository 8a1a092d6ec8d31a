"""Live curves: a real server shows them, and training never waits for one."""

import socket
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from hcsqc.tracking import live_curves as live_module
from hcsqc.tracking.live_curves import live_curves
from hcsqc.tracking.runs import TrackedRun
from hcsqc.tracking.store import mirror
from tests.tracking.servers import MlflowServer

pytestmark = pytest.mark.server
KEY = "pretrain/simclr/seed0"
PARAMS = {"method": "simclr", "epochs": "3"}


def points(count: int) -> list[dict[str, float]]:
    return [{"step": i, "loss": 1 / (i + 1), "epoch": i // 10} for i in range(count)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with MlflowServer(tmp_path_factory.mktemp("server")) as running:
        yield running


def runs(uri: str) -> list:
    client = MlflowClient(uri)
    ids = [one.experiment_id for one in client.search_experiments()]
    return [run for run in client.search_runs(ids) if run.data.tags.get("job_key") == KEY]


def test_points_arrive_while_training_runs_and_the_import_replaces_the_run(server):
    told = points(700)
    with live_curves(server.uri, "study", KEY, PARAMS) as add:
        for point in told:
            add(point)
        end = time.monotonic() + 30
        while not runs(server.uri) or "train/loss" not in runs(server.uri)[0].data.metrics:
            assert time.monotonic() < end, "nothing arrived while training"
            time.sleep(0.2)
    (live,) = runs(server.uri)
    client = MlflowClient(server.uri)
    history = client.get_metric_history(live.info.run_id, "train/loss")
    assert {one.step: one.value for one in history} == {p["step"]: p["loss"] for p in told}
    assert live.data.params == PARAMS
    curve = (("train/loss", 1.0, 0),)
    whole = TrackedRun(KEY, "pretraining", "FINISHED", 1, 2, PARAMS, {"job_key": KEY}, curve)
    assert mirror([whole], client, "study", None)["replaced"] == 1
    (only,) = runs(server.uri)
    assert only.info.run_id != live.info.run_id and only.info.status == "FINISHED"


def test_no_server_costs_no_time_and_one_warning(capfd):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    began = time.monotonic()
    with live_curves(uri, "study", KEY, PARAMS) as add:
        for point in points(2000):
            add(point)
        added = time.monotonic() - began
    assert added < 1
    assert capfd.readouterr().err.count("WARNING live curves end here") == 1


def test_a_silent_server_holds_up_no_step_and_the_end_for_a_moment_only(monkeypatch):
    monkeypatch.setattr(live_module, "LAST_WAIT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with live_curves(f"http://127.0.0.1:{silent.getsockname()[1]}", "s", KEY, PARAMS) as add:
            for point in points(2000):
                add(point)
            assert time.monotonic() - began < 1
        assert time.monotonic() - began < 5


def test_a_server_that_dies_in_the_middle_ends_the_curves_and_nothing_else(tmp_path, capfd):
    with MlflowServer(tmp_path) as server, live_curves(server.uri, "study", KEY, PARAMS) as add:
        end = time.monotonic() + 30
        while not runs(server.uri):
            assert time.monotonic() < end
            time.sleep(0.2)
        server.kill()
        began = time.monotonic()
        for point in points(500):
            add(point)
        assert time.monotonic() - began < 1
    assert "training continues" in capfd.readouterr().err


def test_without_a_server_mlflow_is_not_even_imported():
    code = (
        "import sys; from hcsqc.tracking.live_curves import live_curves\n"
        "with live_curves('', 's', 'pretrain/a/seed0', {}) as add: add({'step': 0})\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
