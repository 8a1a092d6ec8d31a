"""Quality control in the workflow: the tiny study's screens, labels from the page, next plates."""

import json
import re

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.labels.match import read_label_file
from tests.conftest import Project, in_browser, results, study_with

pytestmark = pytest.mark.dag
STUDY = ("--cores", "2", "--max-threads", "1", "--configfile", "tests/tiny/study.yaml")
SCREENS = ("tiny022", "tiny021")


@pytest.fixture(scope="session")
def flagged(tiny, studies) -> Project:
    """The tiny study with quality control of both screens, their pages to label and to check."""
    project = Project(studies / "flagged", of=tiny)
    done = project.run("qc", "label_pages", "suspicious_labels", *STUDY)
    assert done.returncode == 0, done.stdout[-5000:]
    return project


def table(project: Project, screen: str, name: str) -> pd.DataFrame:
    return pd.read_csv(results(project) / "qc" / screen / f"{name}.csv")


@pytest.mark.parametrize("screen", SCREENS)
def test_counts_reconcile_to_the_nucleus_with_what_was_found(flagged, screen):
    cells = read_table(results(flagged) / f"qc/{screen}/cells.parquet", "cells")
    summaries = sorted((results(flagged) / f"crops/{screen}").glob("*.summary.parquet"))
    summary = pd.concat([read_table(path, "summary") for path in summaries])
    assert len(cells) == summary["found"].sum()
    assert cells["score"].notna().sum() == summary["kept"].sum()
    assert cells["reason"].notna().sum() == summary["dropped"].sum()
    assert cells["flagged"].isna().sum() == summary["dropped"].sum()
    for name in ("fields", "wells", "plates"):
        counts = table(flagged, screen, name)[["nuclei", "scored", "flagged"]].sum()
        assert counts["nuclei"] == len(cells), name
        assert counts["scored"] == cells["score"].notna().sum(), name
        assert counts["flagged"] == cells["flagged"].sum(), name
    assert len(table(flagged, screen, "fields")) == len(summary)


def test_the_best_encoder_of_the_ranking_is_the_detectors(flagged):
    about = json.loads((results(flagged) / "qc/detector/detector.json").read_text())
    ranking = pd.read_csv(results(flagged) / "tables/ranking.csv")
    rows = ranking[(ranking["probe"] == "logistic") & (ranking["screen"] == "tiny022")]
    rows = rows[(rows["metric"] == "f1") & (rows["budget"] == 20)]
    assert about["encoder"] == rows.loc[rows["mean"].idxmax(), "encoder"]
    assert about["trained_on"] == "labels" and about["study"] == "tiny"


def test_planted_artefacts_stand_beside_what_was_found(flagged):
    planted = table(flagged, "tiny022", "planted").set_index("what")
    share = planted.loc["share of scored cells with an artefact"]
    assert share["low"] <= share["planted"] <= share["high"]
    threshold = json.loads((results(flagged) / "qc/tiny022/threshold.json").read_text())
    assert threshold["promise"] and threshold["bound"] <= 0.5
    prevalence = table(flagged, "tiny022", "prevalence")
    assert prevalence["method"].tolist() == ["random labels"]
    assert prevalence["estimate"][0] == pytest.approx(share["found"], rel=1e-5)


def test_the_model_in_mlflow_scores_as_the_flags_do(flagged, monkeypatch):
    monkeypatch.chdir(flagged.folder)  # the study's folder of artifacts is where it ran
    uri = f"sqlite:///{results(flagged)}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny/qc").experiment_id
    found = {run.data.tags["job_key"]: run for run in client.search_runs([experiment])}
    assert {"qc/detector", "qc/tiny022/scores/1001", "qc/tiny021/flags"} <= set(found)
    assert found["qc/tiny021/flags"].data.params["screen"] == "tiny021"
    # Not set_tracking_uri, which changes the environment of all later tests.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pyfunc.load_model(f"runs:/{found['qc/detector'].info.run_id}/model")
    shards = Shards([results(flagged) / "crops/tiny022/1001.parquet"])
    rows = np.arange(20)
    told = model.predict(
        {
            "pixels": shards.read_composite(rows, ["w4", "w5", "w1"]),
            "nucleus_area_px": shards.index["nucleus_area_px"].to_numpy(np.float32)[rows],
        }
    )
    scores = read_table(results(flagged) / "qc/tiny022/scores/1001.parquet", "crop_scores")
    about = json.loads((results(flagged) / "qc/detector/detector.json").read_text())
    atol = 1e-5 if about["precision"] == "float32" else 0.03  # the model computes in float32
    np.testing.assert_allclose(told["score"], scores["score"][:20], atol=atol)


def test_a_stricter_promise_sets_thresholds_and_flags_again_and_scores_nothing(flagged):
    study = flagged.folder / "tests/tiny/study.yaml"
    text = study.read_text()
    study.write_text(text.replace("good_cells_lost: 0.5", "good_cells_lost: 0.45"))
    done = flagged.run("qc", *STUDY, "--dry-run")
    study.write_text(text)
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^(\w+) +\d+$", done.stdout.split("Job stats:")[1], re.MULTILINE)
    again = {"set_threshold", "flag_screen", "check_planted", "make_qc_report", "track_qc", "qc"}
    again |= {"flag_plate", "make_qc_plate_page"}
    assert set(jobs) - {"total"} == again


OF_A_PLATE = ("simulate_plate", "index_plate", "measure_scale", "crop_plate", "score_plate")
OF_A_PLATE += ("flag_plate", "make_qc_plate_page")
OF_ITS_SCREEN = ("flag_screen", "check_planted", "make_qc_report", "track_qc", "qc")


def planned_with_one_more_plate(flagged: Project, **changes) -> dict[str, int]:
    """Return the number of jobs of each rule, of quality control of one more plate of tiny022."""
    path = flagged.folder / "tests/tiny/study.yaml"
    text = path.read_text()
    study = yaml.safe_load(text)
    study["screens"]["tiny022"] |= {"plates": ["1001", "1002", "1004"], **changes}
    path.write_text(yaml.safe_dump(study))
    done = flagged.run("qc", *STUDY, "--dry-run")
    path.write_text(text)
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^(\w+) +(\d+)$", done.stdout.split("Job stats:")[1], re.MULTILINE)
    return {name: int(count) for name, count in jobs if name != "total"}


def test_one_more_plate_runs_its_own_jobs_and_those_that_join_its_screens_plates(flagged):
    jobs = planned_with_one_more_plate(flagged, labelled_plates=["1001", "1002"])
    assert jobs == dict.fromkeys((*OF_A_PLATE, *OF_ITS_SCREEN), 1)


def test_without_labelled_plates_one_more_plate_is_looked_through_for_labels(flagged):
    jobs = planned_with_one_more_plate(flagged)
    assert {"label_screen", "fit_detector", "set_threshold"} <= set(jobs)
    assert jobs["score_plate"] == 4 and not {"pretrain", "pretrain_trial"} & set(jobs)


@pytest.mark.parametrize("screen", SCREENS)
def test_every_label_is_ranked_by_how_far_held_out_models_contradict_it(flagged, screen):
    folder = results(flagged) / "qc" / screen / "suspicious_labels"
    tables = [f"labels/{screen}.parquet", f"labels/{screen}.random.parquet"]
    labels = pd.concat([read_table(results(flagged) / name, "labels") for name in tables])
    ranking = pd.read_csv(folder / "ranking.csv")
    assert len(ranking) == labels["crop_id"].nunique()
    assert ranking["self_confidence"].dropna().is_monotonic_increasing
    # The labels of a truth are right: most of them are not contradicted.
    assert (ranking["self_confidence"] > 0.5).mean() > 0.6
    assert len(pd.read_csv(folder / "duplicates.csv").columns) == 6
    page = (folder / "page.html").read_text()
    assert f"Check the labels of {screen}" in page and '"reviewed_by"' in page


PUBLISHED = {"isBlurry": "out of focus", "isSaturated": "saturated or debris"}


@pytest.fixture(scope="module")
def later(flagged, tmp_path_factory) -> Project:
    """Later plates, flagged by the saved detector: december, and january with published flags."""
    project = Project(tmp_path_factory.mktemp("later") / "project")
    study_with(
        project,
        study={"name": "next", "train": "december", "test": []},
        qc={
            "detector": str(results(flagged) / "qc/detector"),
            "screens": ["december", "january"],
        },
    )
    path = project.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    entry = study["screens"]["tiny022"] | {"labels": [], "evaluation_wells": []}
    study["screens"]["december"] = entry | {"pretrain_plates": [], "plates": ["1001"]}
    wells = [f"{row}{column:02d}" for row in "BCD" for column in range(2, 7)]
    # With this seed four fields are blurred, three saturated and one is dirty.
    spoilt = {"sites": 2, "wells": wells, "seed": 4}
    spoilt |= {"artefact_cell_share": 0.02, "artefact_field_share": 0.4}
    study["screens"]["january"] = study["screens"]["december"] | {
        "simulate": entry["simulate"] | spoilt,
        "published_flags": {"table": "published/{plate}.csv", "columns": PUBLISHED},
    }
    path.write_text(yaml.safe_dump(study))
    truth = "results/next/simulated/january/1001.truth.parquet"
    done = project.run(truth, *STUDY)
    assert done.returncode == 0, done.stdout[-5000:]
    publish(read_table(project.folder / truth, "truth"), project.folder / "published/1001.csv")
    done = project.run("qc", *STUDY)
    assert done.returncode == 0, done.stdout[-5000:]
    return project


def publish(truth: pd.DataFrame, path) -> None:
    """Write a table of flags, as CellProfiler's, of what was planted into whole fields."""
    whole = truth.assign(kind=truth["artefact"].where(truth["scope"] == "field", "none"))
    kinds = whole.groupby(["well", "site"])["kind"].agg(set).reset_index()
    table = pd.DataFrame(
        {
            "Image_Metadata_Plate": 1001,
            "Image_Metadata_Well": kinds["well"].str.lower(),
            "Image_Metadata_Site": kinds["site"],
            "isBlurry": [int("blur" in kind) for kind in kinds["kind"]],
            "isSaturated": [int(bool({"saturation", "debris"} & kind)) for kind in kinds["kind"]],
        }
    )
    path.parent.mkdir()
    table.to_csv(path, index=False)


@pytest.mark.long
def test_published_flags_stand_beside_those_of_planted_fields(later):
    folder = later.folder / "results/next/qc/january"
    table = pd.read_csv(folder / "published_flags.csv")
    assert (table.loc[table["unit"] == "field", "compared"] == 30).all()
    table = table.set_index(["unit", "flag", "ours"]).sort_index()
    blurred = table.loc[("field", "isBlurry", "blur")]
    assert blurred["both"] == 4 and blurred["published_only"] == 0
    assert blurred["kappa"] > 0.7 and blurred["auc"] > 0.9
    spoilt = table.loc[("field", "isSaturated", "saturation or debris")]
    assert spoilt["both"] + spoilt["published_only"] == 4
    assert spoilt["both"] >= 2 and spoilt["kappa"] > 0.5 and spoilt["auc"] > 0.9
    fields = pd.read_csv(folder / "published_fields.csv")
    assert len(fields) == 30 and (fields["Metadata_Plate"] == 1001).all()
    differs = fields["difference"].isin(["ours only", "published only"]).sum()
    row = table.loc[("field", "any of them", "bad")]
    assert differs == row["ours_only"] + row["published_only"]
    page = (folder / "report.html").read_text()
    assert 'id="published"' in page and f"{differs} fields that one side alone flags" in page
    assert not (later.folder / "results/next/qc/december/published_flags.csv").exists()
    # Another word for a flag compares again, and scores nothing.
    path = later.folder / "tests/tiny/study.yaml"
    text = path.read_text()
    path.write_text(text.replace("isBlurry: out of focus", "isBlurry: blurred"))
    done = later.run("qc", *STUDY, "--dry-run")
    path.write_text(text)
    jobs = re.findall(r"^(\w+) +\d+$", done.stdout.split("Job stats:")[1], re.MULTILINE)
    again = {"compare_published_flags", "make_qc_report", "track_qc", "qc", "total"}
    assert set(jobs) == again, done.stdout


@pytest.mark.long
def test_next_months_plates_are_flagged_by_a_saved_detector_without_labels(flagged, later):
    project, folder = later, later.folder / "results/next"
    threshold = json.loads((folder / "qc/december/threshold.json").read_text())
    own = json.loads((results(flagged) / "qc/tiny022/threshold.json").read_text())
    assert not threshold["promise"] and "the labels of december set no" in threshold["note"]
    assert threshold["threshold"] == own["threshold"]
    prevalence = pd.read_csv(folder / "qc/december/prevalence.csv")
    assert prevalence["method"].tolist() == ["DyS", "EMQ", "PACC"]
    # The same seed and wells make the same images; names alone differ.
    cells = read_table(folder / "qc/december/cells.parquet", "cells")
    before = read_table(results(flagged) / "qc/tiny022/cells.parquet", "cells")
    before = before[before["Metadata_Plate"] == "1001"]
    assert len(cells) == len(before)
    assert not (folder / "labels").exists() and not (folder / "encoders").exists()
    page = (folder / "qc/december/report.html").read_text()
    assert "the labels of december set no threshold" in page

    path = project.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    study["screens"]["december"]["composite"] = ["w5", "w4", "w1"]
    path.write_text(yaml.safe_dump(study))
    done = project.run("qc", *STUDY)
    assert done.returncode != 0
    assert "its composite is w5, w4, w1, but the detector was trained on" in done.stdout


@in_browser
def test_labels_made_in_the_browser_train_the_next_detector(flagged, tmp_path, browser):
    project = Project(tmp_path / "labelled", of=flagged)
    page = results(project) / "qc/tiny022/label_page.html"
    csv = label_by_keyboard(browser, page, project.folder / "labels.csv")
    rows = read_label_file(csv)
    assert set(rows["selection"]) == {"random", "diverse", "uncertain"}
    labelled = read_table(results(project) / "labels/tiny022.parquet", "labels")
    places = labelled["crop_id"].str.extract(r"x(\d+)y(\d+)$").astype(int)
    old = set(zip(labelled["plate"], labelled["well"], places[0], places[1], strict=True))
    new = set(zip(rows["plate"], rows["well"], rows["x_px"], rows["y_px"], strict=True))
    assert len(new) == len(rows) and not new & old, "never one that is labelled already"
    study_with(project, qc={"encoder": "image_quality", "good_cells_lost": 0.95})
    path = project.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    study["screens"]["tiny022"]["labels"] = ["labels.csv"]
    path.write_text(yaml.safe_dump(study))
    done = project.run("results/tiny/qc/tiny022/report.html", *STUDY)
    assert done.returncode == 0, done.stdout[-5000:]
    held = read_table(results(project) / "qc/detector/held_out.parquet", "held_out")
    assert len(held) == len(rows)
    assert held["random"].sum() == (rows["selection"] == "random").sum()


def label_by_keyboard(browser, page_file, csv):
    """Label every crop of a page, normal and debris in turn, and download the labels."""
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.get_by_label("Your name").fill("alice")
    page.get_by_label("Your name").press("Tab")
    page.evaluate("document.activeElement.blur()")
    total = int(re.search(r"of (\d+)", page.inner_text("body"))[1])
    for number in range(total):
        page.keyboard.press("n" if number % 2 else "3")
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Download")).click()
    download.value.save_as(csv)
    page.close()
    return csv
