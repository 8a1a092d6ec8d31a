"""Dose response: shares that can be counted by hand, honest intervals, and what is missed."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from hcsqc.analyses.dose_response import (
    AT_FALSE_ALARMS,
    COLUMNS,
    HALF,
    detection,
    false_alarm_threshold,
    strength_bins,
)
from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.figures.dose_response import plot_dose_response
from scripts.analyses import tabulate_dose_response

NO_WORDS = json.dumps({"encoders": {}, "probes": {}})
MARK = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
BY_STRENGTH = {"blur": {0.1: 0.2, 0.5: 0.6, 0.9: 0.95}, "debris": {0.1: 0.05, 0.5: 0.1, 0.9: 0.2}}


def made_labels(wells=10) -> pd.DataFrame:
    """Return in each well a crop per artefact and strength, one of unknown kind, 10 normal ones."""
    rows = []
    for well in range(wells):
        kinds = [(kind, strength) for kind, levels in BY_STRENGTH.items() for strength in levels]
        kinds += [(None, None), *[("normal", None)] * 10]
        for number, (kind, strength) in enumerate(kinds):
            label = "normal" if kind == "normal" else "abnormal"
            artefact = None if kind == "normal" else kind
            crop = f"s/p/B{well:02d}/s1/x{number:04d}y0000"
            rows.append((crop, "p", f"B{well:02d}", label, artefact, strength))
    table = pd.DataFrame(
        rows, columns=["crop_id", "plate", "well", "label", "artefact", "strength"]
    ).astype({"strength": float})
    return table.assign(compound=None, annotator="me", source="truth", selection="random")


def made_predictions(labels, draws=2) -> pd.DataFrame:
    """Return scores that are known for each artefact and strength; normal ones run up to 0.3."""
    scores = [
        BY_STRENGTH[row.artefact][row.strength]
        if row.artefact in BY_STRENGTH
        else (0.0 if row.label == "normal" else 0.7)
        for row in labels.itertuples()
    ]
    table = labels[["crop_id", "label"]].assign(score=scores, screen="s", seed=0)
    table["group"] = "p/" + labels["well"]
    normal = table["label"] == "normal"
    table.loc[normal, "score"] = np.linspace(0, 0.3, normal.sum())
    return pd.concat([table.assign(draw=draw) for draw in range(draws)], ignore_index=True)


def cell(table, artefact, strength, threshold=HALF):
    rows = table[
        (table["artefact"] == artefact)
        & (table["strength"] == strength)
        & (table["threshold"] == threshold)
    ]
    (row,) = rows.to_dict("records")
    return row


def test_each_artefact_and_strength_is_counted_for_itself():
    labels = made_labels()
    table = detection(made_predictions(labels), labels, 50, 0)
    assert list(table) == COLUMNS
    found = [cell(table, "blur", level)["detected"] for level in ("weak", "medium", "strong")]
    assert found == [0, 1, 1]
    assert cell(table, "blur", "all")["detected"] == pytest.approx(2 / 3)
    assert cell(table, "blur", "all")["crops"] == 30  # not 60: draws repeat the crops
    assert cell(table, "unknown", "unknown")["detected"] == 1
    assert cell(table, "debris", "all")["detected"] == 0
    # Of 100 normal scores up to 0.3, five lie above 0.2848.
    assert cell(table, "blur", "weak", AT_FALSE_ALARMS)["detected"] == 0
    assert cell(table, "blur", "medium", AT_FALSE_ALARMS)["detected"] == 1


def test_the_false_alarm_threshold_is_that_of_each_draw():
    labels = made_labels()
    predictions = made_predictions(labels)
    raised = (predictions["draw"] == 1) & (predictions["label"] == "normal")
    predictions.loc[raised, "score"] += 0.5  # five above 0.78
    table = detection(predictions, labels, 50, 0)
    assert cell(table, "blur", "medium", AT_FALSE_ALARMS)["detected"] == 0.5
    assert cell(table, "blur", "strong", AT_FALSE_ALARMS)["detected"] == 1
    assert cell(table, "blur", "medium", HALF)["detected"] == 1


@pytest.mark.parametrize("seed", range(8))
def test_recall_at_the_false_alarm_threshold_is_the_roc_curves(seed):
    rng = np.random.default_rng(seed)
    targets = np.r_[np.zeros(65, int), np.ones(40, int)]
    scores = (rng.normal(0, 1, 105) + targets).round(rng.integers(0, 3))  # ties
    threshold = false_alarm_threshold(scores[:65], 0.05)
    false_alarms, recall, _ = roc_curve(targets, scores, drop_intermediate=False)
    assert (scores[:65] > threshold).mean() <= 0.05
    assert (scores[65:] > threshold).mean() == recall[false_alarms <= 0.05].max()


def test_crops_count_alike_however_often_they_are_tested():
    labels = made_labels()
    predictions = made_predictions(labels)
    often = predictions[predictions["crop_id"].str.contains("B00")]
    more = pd.concat([predictions, *[often.assign(draw=draw) for draw in range(2, 9)]])
    blur = labels.loc[(labels["artefact"] == "blur") & (labels["well"] == "B00"), "crop_id"]
    more.loc[more["crop_id"].isin(blur), "score"] = 0.0
    found = cell(detection(more, labels, 20, 0), "blur", "all")
    assert found["detected"] == pytest.approx((30 - 3 - 9) / 30)


def test_strengths_are_cut_at_thirds():
    found = strength_bins(pd.Series([0.01, 1 / 3, 0.34, 2 / 3, 0.67, 1.0, np.nan]))
    assert found.tolist() == ["weak", "weak", "medium", "medium", "strong", "strong", "unknown"]


def test_intervals_of_wells_that_disagree_are_wider_than_crops_alone_would_give():
    labels = made_labels(wells=12)
    predictions = made_predictions(labels)
    blind = predictions["crop_id"].str.extract(r"/B(\d\d)/")[0].astype(int) % 2 == 0
    abnormal = predictions["label"] == "abnormal"
    predictions.loc[abnormal, "score"] = np.where(blind[abnormal], 0.0, 1.0)
    found = cell(detection(predictions, labels, 2000, 0), "blur", "all")
    assert found["detected"] == pytest.approx(0.5)
    per_crop = 1.96 * np.sqrt(0.25 / 36)
    per_well = 2.2 * np.sqrt(0.25 / 11)
    assert (found["high"] - found["low"]) / 2 > 1.4 * per_crop
    assert (found["high"] - found["low"]) / 2 == pytest.approx(per_well, rel=0.15)


def test_where_all_wells_agree_the_interval_is_the_exact_one_of_the_wells():
    labels = made_labels(wells=10)
    table = detection(made_predictions(labels), labels, 50, 0)
    for strength, hits in (("weak", 0), ("strong", 10)):
        exact = binomtest(hits, 10).proportion_ci()
        found = cell(table, "blur", strength)
        assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high))


def test_one_well_gives_no_interval():
    labels = made_labels(wells=1)
    found = cell(detection(made_predictions(labels), labels, 50, 0), "blur", "all")
    assert np.isnan(found["low"]) and np.isnan(found["high"])


def test_without_normal_crops_only_the_fixed_threshold_has_numbers():
    labels = made_labels()
    predictions = made_predictions(labels)
    table = detection(predictions[predictions["label"] == "abnormal"], labels, 50, 0)
    assert cell(table, "blur", "strong", HALF)["detected"] == 1
    nothing = cell(table, "blur", "strong", AT_FALSE_ALARMS)
    assert np.isnan(nothing["detected"]) and nothing["crops"] == 0


def test_intervals_follow_the_seed_and_nothing_else():
    labels = made_labels()
    predictions = made_predictions(labels)
    blind = predictions["crop_id"].str.contains("B0[0-3]")
    predictions.loc[blind, "score"] = 0.0
    first, again, other = (detection(predictions, labels, 40, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    mixed = detection(predictions.sample(frac=1, random_state=0), labels, 40, 0)
    pd.testing.assert_frame_equal(first, mixed)
    assert not first["low"].equals(other["low"])


def test_a_test_crop_without_a_label_is_named():
    labels = made_labels()
    predictions = made_predictions(labels)
    with pytest.raises(InputError, match=r"1 abnormal .* first s/p/B00/s1/x0000.*give the labels"):
        detection(predictions, labels.iloc[1:], 20, 0)


def described(**cells) -> pd.DataFrame:
    rows = [
        {"artefact": name.split("_")[0], "strength": name.split("_")[1]}
        | dict(zip(("detected", "high", "crops"), values, strict=True))
        for name, values in cells.items()
    ]
    about = {"encoder": "resnet18", "probe": "knn", "screen": "s", "threshold": HALF}
    return pd.DataFrame(rows).assign(**about)


def test_the_figure_writes_every_number_into_its_cell(tmp_path, monkeypatch):
    labels = made_labels()
    table = detection(made_predictions(labels), labels, 50, 0)
    table = table[table["threshold"] == HALF]
    both = [table.assign(encoder=name, probe="knn") for name in ("a", "b")]
    kept = []
    monkeypatch.setattr(
        "hcsqc.figures.dose_response.save_figure", lambda figure, path: kept.append(figure)
    )
    plot_dose_response(pd.concat(both), tmp_path / "dose.png")
    (axis,) = kept[0].axes
    inside = [text for text in axis.texts if text.get_position()[1] >= 0]
    wanted = {
        (encoder, place): f"{100 * row.detected:.0f}" + MARK * (row.high < 0.5)
        for encoder in (0, 1)
        for place, row in enumerate(table[table["strength"] != "all"].itertuples())
    }
    assert {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in inside} == wanted
    ticks = [tick.get_text() for tick in axis.get_xticklabels()]
    assert ticks[:4] == ["weak\n10", "medium\n10", "strong\n10", "weak\n10"]


def test_cells_of_few_crops_are_not_marked_as_missed(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(
        "hcsqc.figures.dose_response.save_figure", lambda figure, path: kept.append(figure)
    )
    table = described(blur_weak=(0.0, 0.1, 5), debris_weak=(0.0, 0.1, 6))
    other = described(blur_weak=(0.9, 1.0, 5)).assign(encoder="vgg16")
    plot_dose_response(pd.concat([table, other]), tmp_path / "dose.png")
    texts = [text for text in kept[0].axes[0].texts if text.get_position()[1] >= 0]
    assert [text.get_text() for text in texts] == ["0", f"0{MARK}", "90", "-"]


def test_the_script_takes_the_largest_budget_that_has_predictions(tmp_path, monkeypatch):
    labels = made_labels()
    write_table(labels, tmp_path / "labels.parquet", "labels")
    good = made_predictions(labels).drop(columns="seed")
    paths = []
    for budget, rows in ((10, good.assign(score=0.0)), (50, good), (350, good.head(0))):
        path = tmp_path / f"predictions/resnet18/seed0/knn/budget{budget}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(rows, path, "predictions")
        paths.append(str(path))
    words = "--labels labels.parquet --train-screen s --replicates 50 --seed 0 --output out.csv"
    words += " --figure dose.png --record run.json"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            tabulate_dose_response.__file__,
            "--predictions",
            *paths,
            *words.split(),
            "--words",
            NO_WORDS,
        ],
    )
    tabulate_dose_response.main()
    table = pd.read_csv("out.csv")
    assert list(table) == ["encoder", "probe", *COLUMNS]
    assert cell(table.astype({"threshold": str}), "blur", "strong")["detected"] == 1
    assert Image.open("dose.png").size[0] > 300
    assert json.loads((tmp_path / "run.json").read_text())["metrics"]["rows"] == len(table)


def test_without_any_predictions_the_script_writes_an_empty_table(tmp_path, monkeypatch):
    labels = made_labels()
    write_table(labels, tmp_path / "labels.parquet", "labels")
    path = tmp_path / "resnet18/seed0/knn/budget350.parquet"
    path.parent.mkdir(parents=True)
    write_table(made_predictions(labels).drop(columns="seed").head(0), path, "predictions")
    words = "--labels labels.parquet --train-screen s --replicates 50 --seed 0 --output out.csv"
    words += " --figure dose.png --record run.json"
    monkeypatch.chdir(tmp_path)
    script = tabulate_dose_response.__file__
    monkeypatch.setattr(
        sys, "argv", [script, "--predictions", str(path), *words.split(), "--words", NO_WORDS]
    )
    tabulate_dose_response.main()
    assert pd.read_csv("out.csv").empty
    assert (tmp_path / "dose.png").stat().st_size > 0
