"""The import against real stores: a server, PostgreSQL, kills at random, records all at once."""

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from hcsqc.core.files import write_json
from tests.conftest import ROOT
from tests.tracking.made_records import made_record
from tests.tracking.servers import POSTGRES, MlflowServer, PostgresServer

pytestmark = pytest.mark.server
RUNS = 40


def write_record(results: Path, number: int, **changes) -> None:
    path = results / f"runs/crops/sim/p{number}/run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    key = changes.pop("key", f"crops/sim/p{number}")
    record = made_record(key, **{"metrics": {"crops": number}} | changes)
    write_json(record, path)


@pytest.fixture
def results(tmp_path) -> Path:
    for number in range(RUNS):
        write_record(tmp_path, number)
    return tmp_path


def importer(results: Path, uri: str) -> subprocess.Popen:
    words = [sys.executable, "scripts/tracking/track_runs.py", "--results", str(results)]
    words += ["--study", "study", "--train-screen", "sim", "--uri", uri, "--ui", "http://127.0.0.1"]
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def imported(results: Path, uri: str) -> dict:
    process = importer(results, uri)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return json.loads((results / "mlflow.receipt.json").read_text())


def check_runs(uri: str, wanted: int) -> None:
    """There is exactly one finished run per record, with what the record says."""
    client = MlflowClient(uri)
    ids = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(ids, run_view_type=ViewType.ACTIVE_ONLY, max_results=1000)
    assert sorted(run.data.tags["job_key"] for run in found) == sorted(
        f"crops/sim/p{number}" for number in range(wanted)
    )
    for run in found:
        assert run.info.status == "FINISHED" and "record_digest" in run.data.tags
        number = int(run.data.tags["job_key"].rpartition("p")[2])
        assert run.data.metrics["crops/crops"] == number


def test_an_import_killed_at_random_ten_times_ends_with_exactly_the_right_runs(results):
    uri = f"sqlite:///{results / 'mlflow.db'}"
    rng = random.Random(0)
    MlflowClient(uri).search_experiments()
    began = time.monotonic()
    imported(results, uri)
    whole = time.monotonic() - began
    for turn in range(10):
        for number in range(turn % 2, RUNS, 2):
            write_record(results, number, config_digest=f"turn{turn}")
        process = importer(results, uri)
        time.sleep(whole * rng.uniform(0.3, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    imported(results, uri)
    check_runs(uri, RUNS)
    assert imported(results, uri)["unchanged"] == RUNS


def test_records_that_arrive_all_at_once_are_all_imported(results):
    uri = f"sqlite:///{results / 'mlflow.db'}"
    with ThreadPoolExecutor(32) as jobs:
        first = importer(results, uri)
        list(jobs.map(lambda number: write_record(results, number), range(RUNS, RUNS + 32)))
        told, _ = first.communicate(timeout=300)
    assert first.returncode == 0, told
    imported(results, uri)
    check_runs(uri, RUNS + 32)


def test_a_server_holds_the_same_and_keeps_the_artifacts_itself(tmp_path, results):
    encoder = results / "figures/pretraining/simclr/seed0.png"
    encoder.parent.mkdir(parents=True)
    encoder.write_bytes(b"a picture")
    with MlflowServer(tmp_path) as server:
        assert imported(results, server.uri)["new"] == RUNS
        check_runs(server.uri, RUNS)
        assert imported(results, server.uri)["unchanged"] == RUNS
        client = MlflowClient(server.uri)
        place = client.get_experiment_by_name("study/crops").artifact_location
        assert place.startswith("mlflow-artifacts:")
        write_record(
            results, 0, key="pretrain/simclr/seed0", stage="pretrain", metrics={"loss": 1.0}
        )
        assert imported(results, server.uri)["new"] == 1
        experiment = client.get_experiment_by_name("study/pretraining").experiment_id
        (run,) = client.search_runs([experiment])
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["curves.png"]
        links = json.loads((results / "mlflow.receipt.json").read_text())["links"]
        assert all(link.startswith(server.uri) for link in links.values())


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed")
def test_postgresql_holds_the_same_under_a_server_too(tmp_path, results):
    with PostgresServer(tmp_path) as database:
        assert imported(results, database.uri)["new"] == RUNS
        check_runs(database.uri, RUNS)
        assert imported(results, database.uri)["unchanged"] == RUNS
        with MlflowServer(tmp_path, database.uri) as server:
            check_runs(server.uri, RUNS)
            write_record(results, 3, config_digest="another")
            assert imported(results, server.uri)["replaced"] == 1
            check_runs(database.uri, RUNS)
