"""MLflow's own UI on the tiny study, in a real browser: what a user of it sees."""

import json
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from tests.conftest import CHROMIUM, results
from tests.tracking.servers import MlflowServer

pytestmark = [
    pytest.mark.dag,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    database = shutil.copy(results(tiny) / "mlflow.db", folder)
    with MlflowServer(folder, f"sqlite:///{database}") as running:
        yield running


@pytest.fixture
def page(server, browser):
    errors = []
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    # MLflow asks the internet for news, and its assistant for a service that is not there.
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    opened.close()
    assert not errors


def experiments(server) -> dict[str, str]:
    found = MlflowClient(server.uri).search_experiments()
    return {one.name.removeprefix("tiny/"): one.experiment_id for one in found}


def test_the_list_of_experiments_has_the_studys(page, server):
    page.goto(f"{server.uri}/#/experiments")
    for name in ("summary", "pretraining", "crops", "knn", "shift"):
        page.get_by_text(f"tiny/{name}", exact=True).first.wait_for()


def test_the_summarys_charts_are_drawn_from_the_reports_link(page, server, tiny):
    receipt = json.loads((results(tiny) / "mlflow.receipt.json").read_text())
    assert '<a href="../mlflow.html">' in (results(tiny) / "report/index.html").read_text()
    path = receipt["links"]["summary"].partition("/#")[2]
    page.goto(f"{server.uri}/#{path}")
    page.get_by_text("summary/simclr").first.wait_for()
    page.locator("svg.main-svg").first.wait_for()
    page.get_by_text("test/f1", exact=False).first.wait_for()


def test_pretrainings_are_compared_side_by_side(page, server):
    """A pretraining beside a trial of its search."""
    client, number = MlflowClient(server.uri), experiments(server)["pretraining"]
    (whole,) = client.search_runs([number], "tags.stage = 'pretrain'")
    trial = client.search_runs([number], "tags.job_key LIKE 'search/simclr/lr%'")[0]
    ids = [run.info.run_id for run in (whole, trial)]
    where = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps([number]))}"
    page.goto(f"{server.uri}/#/compare-runs?{where}")
    page.get_by_text("Comparing 2 Runs").wait_for()
    page.get_by_text("pretrain/simclr/seed0").first.wait_for()
    page.get_by_text("train/loss").first.wait_for()


def test_a_probes_run_says_what_it_was_and_keeps_its_confusion_matrix(page, server):
    client, number = MlflowClient(server.uri), experiments(server)["knn"]
    run = client.search_runs([number], "params.encoder = 'simclr'")[0]
    page.goto(f"{server.uri}/#/experiments/{number}/runs/{run.info.run_id}/artifacts")
    page.get_by_text("confusion_matrix.csv").first.wait_for()
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (folder / "draws.csv").exists()
