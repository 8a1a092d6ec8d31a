"""The prevalence of screens without labels: recovered where cells look alike, doubted elsewhere."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.qc import calibration
from hcsqc.qc.calibration import (
    FITS,
    OWN_LABELS,
    calibrate,
    estimate_prevalence,
    prevalence_table,
)
from hcsqc.qc.quantification import USED, quantify

WELLS, PER_WELL = 75, 4
UNPROVEN = "No promise: of another screen"


def made(rng, wells: int, per_well: int, share: float, normal=(1.5, 12), abnormal=(6, 2)):
    """Return scores, labels and wells; the scores of both classes are beta distributed."""
    labels = (rng.random(wells * per_well) < share).astype(int)
    scores = np.where(labels, rng.beta(*abnormal, len(labels)), rng.beta(*normal, len(labels)))
    return scores, labels, np.repeat(np.arange(wells), per_well).astype(str)


@pytest.fixture(scope="module")
def labelled():
    return made(np.random.default_rng(0), WELLS, PER_WELL, 0.15)


def by_method(rows) -> dict:
    return {row.method: row for row in rows}


@pytest.mark.parametrize("share", [0.005, 0.3])
def test_a_known_prevalence_is_recovered_where_only_the_numbers_differ(labelled, share):
    cells, truth, wells = made(np.random.default_rng(1), 60, 50, share)
    rows, p = quantify(*labelled, cells, wells, 30)
    assert [row.method for row in rows] == [USED, "EMQ", "PACC"]
    for row in rows:
        assert row.estimate == pytest.approx(truth.mean(), abs=0.02)
        assert row.low <= row.estimate <= row.high
    used = by_method(rows)[USED]
    assert used.estimate == pytest.approx(truth.mean(), abs=0.003 + 0.05 * share)
    assert used.low <= truth.mean() <= used.high and p >= FITS


def test_where_the_scores_lie_apart_every_method_counts(labelled):
    labels = labelled[1]
    truth = np.arange(2000) % 50 == 0
    cells, wells = np.where(truth, 1.0, 0.0), np.repeat(np.arange(40), 50).astype(str)
    rows, p = quantify(labels.astype(float), labels, labelled[2], cells, wells, 10)
    assert [row.estimate for row in rows] == pytest.approx([0.02] * 3, abs=1e-4)
    assert p >= FITS


def test_good_cells_that_look_different_are_doubted(labelled):
    cells, truth, wells = made(np.random.default_rng(2), 60, 50, 0.05, normal=(4, 10))
    rows, p = quantify(*labelled, cells, wells, 30)
    assert p < FITS
    assert by_method(rows)["PACC"].low > truth.mean()  # and the estimates are indeed wrong


def test_abnormal_cells_that_score_as_good_ones_are_not_counted(labelled):
    rng = np.random.default_rng(3)
    cells, truth, wells = made(rng, 60, 50, 0.2)
    unseen = (truth == 1) & (rng.random(len(truth)) < 0.5)
    cells[unseen] = made(rng, 1, unseen.sum(), 0)[0]
    rows, p = quantify(*labelled, cells, wells, 20)
    assert by_method(rows)[USED].high < truth.mean()
    assert p >= FITS  # as docs/qc.md warns, no score shows it


def test_no_chance_is_left_in_it(labelled):
    cells, _, wells = made(np.random.default_rng(6), 20, 20, 0.1)
    assert quantify(*labelled, cells, wells, 3) == quantify(*labelled, cells, wells, 3)


def test_intervals_are_wider_where_cells_of_a_well_are_alike(labelled):
    rng = np.random.default_rng(4)
    cells, truth, wells = made(rng, 40, 50, 0.2)
    together = np.sort(cells)[::-1][np.argsort(rng.permutation(40).repeat(50), kind="stable")]
    apart = by_method(quantify(*labelled, cells, wells, 20)[0])[USED]
    alike = by_method(quantify(*labelled, together, wells, 20)[0])[USED]
    assert alike.estimate == pytest.approx(apart.estimate)
    assert alike.high - alike.low > 1.5 * (apart.high - apart.low)


def test_a_single_well_says_nothing_of_others_and_one_class_nothing_at_all(labelled):
    scores, labels, wells = labelled
    cells = scores[:100]
    rows, p = quantify(scores, labels, wells, cells, np.full(100, "a"), 10)
    assert {(row.low, row.high) for row in rows} == {(0.0, 1.0)} and p == 1
    assert quantify(scores, labels * 0, wells, cells, wells[:100], 10) == ([], 1)
    assert quantify(scores, labels, wells, cells[:0], wells[:0], 10) == ([], 1)


def calibrated(labelled, cells, wells, unproven=UNPROVEN, by_people=True) -> dict:
    scores, labels, of_labels = labelled
    table = pd.DataFrame(
        {
            "label": np.where(labels, "abnormal", "normal"),
            "plate": "p",
            "well": of_labels,
            "group": of_labels,
            "random": True,
            "score": scores,
        }
    )
    threshold = calibrate(table, 0.5, 0.1, 0.95, unproven, by_people)
    return threshold | estimate_prevalence(threshold, table, cells, wells, by_people)


def test_the_table_has_a_row_per_method_and_says_when_not_to_believe_it(labelled, monkeypatch):
    # Few resamples are quick.
    monkeypatch.setattr(calibration, "RESAMPLES", 40)
    cells, truth, wells = made(np.random.default_rng(5), 60, 20, 0.05, normal=(4, 10))
    table = prevalence_table(calibrated(labelled, cells, wells))
    assert list(table) == ["method", "estimate", "low", "high", "doubt"]
    assert table["method"].tolist() == [USED, "EMQ", "PACC"]
    assert table["doubt"].str.contains("no mixture of those of normal and abnormal").all()
    found = calibrated(labelled, cells, wells, by_people=False)
    assert "Nobody has looked at the crops" in found["prevalence_doubt"]
    assert found["assumed_prevalence"] == pytest.approx(table["estimate"][0], abs=0.01)


def test_labels_of_the_screen_itself_need_no_other_method(labelled):
    found = calibrated(labelled, labelled[0], labelled[2], unproven="")
    table = prevalence_table(found)
    assert table["method"].tolist() == [OWN_LABELS] and table["doubt"].tolist() == [""]
    assert table.loc[0, ["estimate", "low", "high"]].tolist() == found["prevalence"]
