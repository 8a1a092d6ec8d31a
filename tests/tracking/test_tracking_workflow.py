"""MLflow within the workflow: failures that show, another store, curves while a job runs."""

import json

import pytest
from mlflow import MlflowClient

from tests.conftest import Project, edit, results
from tests.tracking.servers import MlflowServer

pytestmark = pytest.mark.dag
STUDY = ("--cores", "2", "--max-threads", "1", "--configfile", "tests/tiny/study.yaml")
# Without what else a changed job would run again.
IMPORT_ALONE = ("results/tiny/mlflow.receipt.json", "--force", "--rerun-triggers", "mtime")
IMPORT_ALONE += ("--allowed-rules", "track_runs")
KEY = "pretrain/simclr/seed0"


def runs(uri: str, experiment: str) -> dict:
    client = MlflowClient(uri)
    number = client.get_experiment_by_name(f"tiny/{experiment}").experiment_id
    return {run.data.tags["job_key"]: run for run in client.search_runs([number])}


def test_what_made_a_study_fail_shows_as_failed_until_it_is_mended(changed):
    edit(
        changed,
        "scripts/probes/probe_features.py",
        "    settings = cli",
        "    1 / 0\n    settings = cli",
    )
    failing = "probes/image_quality/seed0/knn/budget20"
    prediction = f"results/tiny/predictions/{failing.removeprefix('probes/')}.parquet"
    assert changed.run(prediction, *STUDY).returncode != 0
    uri = f"sqlite:///{results(changed)}/mlflow.db"
    found = runs(uri, "knn")
    assert found[failing].info.status == "FAILED"
    told = found[failing].data.tags["error"]
    assert told.endswith("ZeroDivisionError: division by zero\n")
    assert {run.info.status for run in runs(uri, "pretraining").values()} == {"FINISHED"}
    edit(changed, "scripts/probes/probe_features.py", "    1 / 0\n", "")
    assert changed.run(prediction, *STUDY).returncode == 0
    assert changed.run(*IMPORT_ALONE, *STUDY).returncode == 0
    assert runs(uri, "knn")[failing].info.status == "FINISHED"


def planned(project: Project, uri: str) -> str:
    done = project.run(*STUDY, "--dry-run", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stdout
    return done.stdout.split("Job stats:")[1].split("\n\n")[0]


def test_another_store_runs_the_import_again_and_nothing_else(changed):
    jobs = {line.split()[0] for line in planned(changed, "http://127.0.0.1:9").splitlines()[3:]}
    assert jobs == {"all", "track_runs", "total"}


@pytest.mark.server
def test_a_pretraining_shows_its_curves_on_a_server_and_the_import_completes_it(changed, tmp_path):
    encoder = f"results/tiny/encoders/{KEY.removeprefix('pretrain/')}/encoder.safetensors"
    before = (changed.folder / encoder).read_bytes()
    with MlflowServer(tmp_path) as server:
        where = {"MLFLOW_TRACKING_URI": server.uri}
        done = changed.run(encoder, *STUDY, "--force", **where)
        assert done.returncode == 0, done.stdout[-3000:]
        (live,) = runs(server.uri, "pretraining").values()
        assert live.data.tags["live"] == "true" and "train/loss" in live.data.metrics
        assert (changed.folder / encoder).read_bytes() == before
        done = changed.run(*IMPORT_ALONE, *STUDY, **where)
        assert done.returncode == 0, done.stdout[-3000:]
        whole = runs(server.uri, "pretraining")[KEY]
        assert "live" not in whole.data.tags and whole.info.status == "FINISHED"
        record = json.loads((results(changed) / f"runs/{KEY}/run.json").read_text())
        assert "tracking_uri" not in record["parameters"]
        history = MlflowClient(server.uri).get_metric_history(whole.info.run_id, "train/loss")
        assert [point.value for point in sorted(history, key=lambda point: point.step)] == [
            point["loss"] for point in record["curves"]
        ]
