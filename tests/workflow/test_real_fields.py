"""First flags on the eight real fields that the project holds, labelled by eye."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.real import agreed_labels, row
from tests.conftest import Project

pytestmark = [pytest.mark.dag, pytest.mark.long]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    project = Project(tmp_path_factory.mktemp("real"))
    study = "examples/bbbc022/study.yaml"
    done = project.run("qc", "label_pages", "--cores", "2", "--configfile", study)
    assert done.returncode == 0, done.stdout[-6000:]
    return project.folder / "results/bbbc022"


def labelled(found) -> pd.DataFrame:
    """Return the cells that both annotators call alike, with their label."""
    cells = pd.read_parquet(found / "qc/bbbc022/cells.parquet")
    cells = cells[cells["score"].notna()]
    return cells.assign(place=cells["crop_id"].str.partition("/")[2]).merge(agreed_labels())


def test_fields_are_indexed_with_compound_and_role(found):
    fields = pd.read_parquet(found / "screens/bbbc022/20585.fields.parquet").set_index("field_id")
    assert len(fields) == 8
    first = fields.loc["bbbc022/20585/A01/s1"]
    assert (first["compound"], first["role"]) == ("NIFLUMIC ACID", "compound")
    assert first["concentration_um"] == pytest.approx(8.858401198)
    assert fields["problem"].isna().all()


def test_real_data_is_seen_as_12_bit_and_saturation_stays_visible(found):
    scale = pd.read_parquet(found / "screens/bbbc022/20585.scale.parquet")
    assert (scale["bits"] == 12).all()
    assert (scale["top"] == 4095).all()


def test_about_700_nuclei_and_400_whole_crops_are_found(found):
    summary = pd.read_parquet(found / "crops/bbbc022/20585.summary.parquet")
    assert 620 <= summary["found"].sum() <= 780
    assert 350 <= summary["kept"].sum() <= 450
    assert (summary["found"] == summary["kept"] + summary["dropped"]).all()


def test_aberrant_cells_are_found_without_any_label(found):
    cells = labelled(found)
    assert len(cells) == 382
    scores = row("cell", cells, cells["score"])
    assert scores["AUC"] > 0.93 and scores["recall"] > 0.78
    aberrant = cells["label"] == "abnormal"
    assert cells["flagged"][aberrant].mean() > 0.4 and cells["flagged"][~aberrant].mean() < 0.05
    flagged = cells[aberrant & cells["flagged"].astype(bool)]
    assert (flagged["artefact"] == flagged["by_eye"]).mean() > 0.5


def test_no_field_in_focus_is_bad(found):
    fields = pd.read_csv(found / "qc/bbbc022/fields.csv")
    assert not fields["bad"].any() and (fields["edge"] < 0.4).all()


def test_labels_of_few_wells_are_refused_and_more_can_be_made(found):
    project = Project(found.parent.parent)
    flags = found.parent / "bbbc022_labelled/qc/bbbc022"
    (project.folder / "strict.yaml").write_text("qc: {good_cells_lost: 0.05}\n")
    given = ("--cores", "2", "--configfile", "examples/bbbc022/study.yaml")
    given += ("examples/bbbc022/labelled.yaml", "strict.yaml")
    done = project.run("qc", *given)
    assert done.returncode and "further wells, because cells of one well are similar" in done.stdout
    assert not (flags / "report.html").exists()
    done = project.run("label_pages", *given)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (flags / "label_page.html").exists()
