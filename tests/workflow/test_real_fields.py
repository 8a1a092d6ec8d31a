"""First flags on the eight real fields that the project holds, labelled by eye."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.real import agreed_labels, row
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table
from hcsqc.qc.flag_plate import flag_plate
from tests.conftest import ROOT, Project

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


def test_labels_of_few_wells_promise_nothing_and_more_can_be_made(found):
    project = Project(found.parent.parent)
    flags = found.parent / "bbbc022_labelled/qc/bbbc022"
    given = ("--cores", "2", "--configfile", "examples/bbbc022/study.yaml")
    given += ("examples/bbbc022/labelled.yaml",)
    done = project.run("qc", "label_pages", *given)
    assert done.returncode == 0, done.stdout[-3000:]
    page = (flags / "report.html").read_text()
    assert "needs at least 59 wells with random normal labels, 55 more" in page
    assert "4 wells have one so far: 55 more needed" in (flags / "label_page.html").read_text()


def test_a_notebook_flags_a_plate_as_the_workflow_does(found, monkeypatch):
    monkeypatch.chdir(found.parents[1])
    flags = flag_plate("examples/bbbc022/study.yaml", "20585", threads=2)
    expected = read_table(found / "qc/bbbc022/cells.parquet", "cells")
    pd.testing.assert_frame_equal(flags.cells, expected, rtol=1e-3, atol=1e-4)
    bad = pd.read_csv(found / "qc/bbbc022/fields.csv")["bad"]
    assert flags.fields["bad"].tolist() == bad.tolist()
    with pytest.raises(InputError, match="threshold.json: is not there; run snakemake qc"):
        monkeypatch.chdir(found)
        flag_plate(ROOT / "examples/bbbc022/study.yaml", "20585")
