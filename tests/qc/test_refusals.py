"""Refusals: labels that cannot carry a promise leave nothing old unmarked and say what helps."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.files import write_checked_json
from hcsqc.core.schema import write_table
from hcsqc.qc.calibration import PREVALENCE, THRESHOLD
from hcsqc.qc.flag_plate import flag_plate
from hcsqc.qc.outdated import MADE_OF_THRESHOLD, put_aside
from scripts.labels import split_labels
from scripts.qc import set_threshold
from tests.conftest import ROOT

ABOUT = {
    "study": "mine",
    "screen": "sim",
    "trained_on": "labels",
    "labels_normal": 40,
    "labels_abnormal": 40,
}
HELD = ["crop_id", "plate", "well", "group", "label", "selection", "random", "score"]


def made_labels(normal: int, abnormal: int, wells: int) -> pd.DataFrame:
    """Return labels, and scores as if they had been held out."""
    label = np.repeat(["normal", "abnormal"], [normal, abnormal])
    number = np.arange(normal + abnormal)
    well = [f"B{2 + i % wells:02d}" for i in number]
    return pd.DataFrame(
        {
            "crop_id": [f"sim/p1/{w}/s1/x{i:04d}y0001" for i, w in zip(number, well, strict=True)],
            "plate": "p1",
            "well": well,
            "group": [f"p1/{w}" for w in well],
            "label": label,
            "selection": "random",
            "artefact": None,
            "strength": np.nan,
            "compound": None,
            "annotator": "a",
            "source": "labels.csv",
            "random": True,
            "score": np.where(label == "normal", 0.1, 0.9) + number / 1e4,
        }
    )


def set_aside_by(tmp_path, monkeypatch, normal: int, group_by: str = "well"):
    """Run set_threshold with so many normal labels, in a folder that has flags already."""
    labels = made_labels(normal, 20, 20)
    if group_by == "plate":
        labels["group"] = labels["plate"]
    detector, screen = tmp_path / "qc/detector", tmp_path / "qc/sim"
    for folder in (detector, screen / "load_data"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "cells.parquet", "fields.csv", "load_data/p1.csv"):
        (screen / name).write_text("old")
    (screen / "label_page.html").write_text("helps")
    (detector / "detector.json").write_text(json.dumps(ABOUT))
    write_table(labels[HELD], detector / "held_out.parquet", "held_out")
    scores = labels[["crop_id", "score"]].assign(
        artefact="blur", focus=0.0, edge=0.2, saturated=0.0
    )
    write_table(scores, tmp_path / "scores.parquet", "crop_scores")
    words = f"--study mine --screen sim --detector {detector} --labels --scores"
    words += (
        f" {tmp_path}/scores.parquet --group-by {group_by} --good-cells-lost 0.05 --confidence 0.95"
    )
    words += f" --output {screen}/threshold.json"
    words += f" --record {tmp_path}/run.json"
    monkeypatch.setattr(sys, "argv", [set_threshold.__file__, *words.split()])
    set_threshold.main()


def test_flags_of_an_earlier_run_are_put_aside_when_a_threshold_is_refused(
    tmp_path, monkeypatch, capsys
):
    screen = tmp_path / "qc/sim"
    for _ in range(2):  # the second time over what lies there
        with pytest.raises(SystemExit):
            set_aside_by(tmp_path, monkeypatch, normal=15)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert re.search(
            r"label at least 20 randomly chosen normal cells in at least 2 wells", said[0]
        )
        assert said[0].endswith(f"; the flags of an earlier run lie in {screen / 'outdated'} now")
        assert {path.name for path in screen.iterdir()} == {"outdated", "label_page.html"}
    aside = screen / "outdated"
    assert (aside / "report.html").read_text() == (aside / "load_data/p1.csv").read_text() == "old"
    assert "15 random normal labels in 15 wells" in (aside / "why.txt").read_text()


def test_labels_of_one_plate_promise_nothing_where_plates_are_independent(
    tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit):
        set_aside_by(tmp_path, monkeypatch, normal=200, group_by="plate")
    (said,) = capsys.readouterr().err.splitlines()
    assert "200 random normal labels in 1 well set no threshold" in said
    assert "evaluation.group_by counts plates as wells" in said


def test_flags_stay_where_the_threshold_is_set_or_nothing_was_flagged(
    tmp_path, monkeypatch, capsys
):
    set_aside_by(tmp_path, monkeypatch, normal=200)
    assert (tmp_path / "qc/sim/threshold.json").exists()
    assert (tmp_path / "qc/sim/report.html").exists()
    assert "No promise: 200 random normal labels lie in 20 wells" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run.json").read_text())["metrics"]
    assert (metrics["promise"], metrics["wells"], metrics["wells_needed"]) == (0, 20, 59)
    assert "bound" not in metrics and metrics["supported"] == 0.14
    (tmp_path / "empty").mkdir()
    assert not put_aside(tmp_path / "empty", "why") and not list((tmp_path / "empty").iterdir())


def test_a_threshold_that_moves_is_told_because_old_flags_change(tmp_path, monkeypatch, capsys):
    set_aside_by(tmp_path, monkeypatch, normal=200)
    set_aside_by(tmp_path, monkeypatch, normal=200)
    assert "warning" not in capsys.readouterr().out
    own = json.loads((tmp_path / "qc/sim/threshold.json").read_text())["threshold"]
    for before, told in ((own, ""), (0.25, f"the threshold was 0.2500 and is {own:.4f} now")):
        write_checked_json({"threshold": before}, tmp_path / "qc/sim/prevalence.json")
        set_aside_by(tmp_path, monkeypatch, normal=200)
        said = capsys.readouterr().out
        assert told in said and ("warning: sim: the threshold" in said) == bool(told)


def test_a_promise_that_is_not_given_says_what_counts_as_a_well(tmp_path, monkeypatch, capsys):
    set_aside_by(tmp_path, monkeypatch, normal=200, group_by="compound")
    assert "evaluation.group_by counts compounds (controls by well) as wells" in (
        capsys.readouterr().out
    )


def test_all_that_is_made_with_a_threshold_is_put_aside():
    written = set()
    for rule in re.split(r"\n(?:use )?rule ", (ROOT / "rules/qc.smk").read_text()):
        inputs = rule.split("output:")[0]
        outputs = re.search(r"output:\n(.*?)\n    \w+:", rule, re.DOTALL)
        if outputs and re.search(r"threshold\.json|cells\.parquet|fields\.csv", inputs):
            written |= set(re.findall(r"\{STUDY\}/qc/\{\{screen\}\}/([\w.]+)", outputs[1]))
    assert written - {"label_page.html"} == set(MADE_OF_THRESHOLD)


def test_labels_too_few_for_draws_name_the_way_without_draws(tmp_path, monkeypatch, capsys):
    labels = made_labels(30, 4, 3)
    write_table(
        labels.drop(columns=["random", "score", "group"]), tmp_path / "labels.parquet", "labels"
    )
    words = f"--labels {tmp_path}/labels.parquet --evaluation-wells B02 B03 B04 --smallest 25"
    words += f" --largest 25 --group-by well --composition {tmp_path}/c.csv"
    words += f" --test-crops 60 --draws 5 --output {tmp_path}/s.parquet --record {tmp_path}/r.json"
    monkeypatch.setattr(sys, "argv", [split_labels.__file__, *words.split()])
    with pytest.raises(SystemExit):
        split_labels.main()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "Label more crops in more wells" in said[0]
    assert "if qc.encoder names an encoder" in said[0]


@pytest.mark.parametrize("missing", [THRESHOLD, PREVALENCE])
def test_a_study_without_flags_of_today_is_told_to_make_them(tmp_path, missing):
    config = {"qc": {"screens": ["sim"]}, "screens": {"sim": {"images": "images"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = tmp_path / "qc" / "sim"
    for name in {THRESHOLD, PREVALENCE} - {missing}:
        write_checked_json({}, folder / name)
    with pytest.raises(InputError, match=f"sim/{missing}: is not there; run snakemake qc with"):
        flag_plate(tmp_path, "P1")
