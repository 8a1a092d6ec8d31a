"""Metrics: known answers, scikit-learn's, and what the paper's formulas promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import auc as area
from sklearn.metrics import precision_recall_fscore_support, roc_curve

from hcsqc.metrics import METRICS, accuracy, auc, f1, score_predictions

unhurried = hypothesis_settings(deadline=None)  # a busy machine is no failure
TARGETS = np.array([0, 0, 0, 1, 1])


def test_known_answers():
    scores = np.array([0.1, 0.6, 0.2, 0.9, 0.4])  # normal: 2 of 3 right, abnormal: 1 of 2
    assert accuracy(TARGETS, scores) == 3 / 5
    # Normal: precision 2/3, recall 2/3. Abnormal: precision 1/2, recall 1/2.
    assert f1(TARGETS, scores) == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5)
    # Of 6 pairs, 5 have the abnormal crop above the normal one.
    assert auc(TARGETS, scores) == pytest.approx(5 / 6)


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_scores_are_one_and_inverted_ones_nought(metric):
    assert METRICS[metric](TARGETS, TARGETS.astype(float)) == 1
    assert METRICS[metric](TARGETS, 1.0 - TARGETS) == 0


def test_a_probe_that_says_normal_always():
    scores = np.zeros(5)
    assert accuracy(TARGETS, scores) == 3 / 5
    assert f1(TARGETS, scores) == pytest.approx(3 / 5 * 2 * 0.6 / 1.6)
    assert auc(TARGETS, scores) == 0.5


def test_a_score_on_the_threshold_is_normal():
    assert accuracy(np.array([0, 1]), np.array([0.5, 0.5 + 1e-9])) == 1


@st.composite
def scored(draw):
    """Return targets with both classes, and scores with ties."""
    targets = draw(st.lists(st.integers(0, 1), min_size=2, max_size=60))
    targets[:2] = [0, 1]
    levels = st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])
    scores = draw(st.lists(levels, min_size=len(targets), max_size=len(targets)))
    return np.array(targets), np.array(scores)


@unhurried
@given(scored())
def test_they_follow_their_definitions(case):
    targets, scores = case
    said = scores > 0.5
    assert accuracy(targets, scores) == pytest.approx(np.mean(said == targets))
    _, _, each, sizes = precision_recall_fscore_support(
        targets, said, labels=[0, 1], zero_division=0
    )
    assert f1(targets, scores) == pytest.approx(np.average(each, weights=sizes))
    false_positive, true_positive, _ = roc_curve(targets, scores)
    assert auc(targets, scores) == pytest.approx(area(false_positive, true_positive))
    above = scores[targets == 1][:, None] - scores[targets == 0][None]
    assert auc(targets, scores) == pytest.approx(np.mean((above > 0) + 0.5 * (above == 0)))


@unhurried
@given(scored())
def test_auc_sees_order_alone_and_is_the_same_for_either_class(case):
    targets, scores = case
    assert auc(targets, scores**3 + 7) == pytest.approx(auc(targets, scores))
    assert auc(1 - targets, 1 - scores) == pytest.approx(auc(targets, scores))


def predictions() -> pd.DataFrame:
    """Return 2 draws on 2 screens; draw 1 is wrong throughout on screen `there`."""
    rows = []
    for draw in (1, 0):
        for screen, n in (("there", 6), ("here", 4)):
            for i in range(n):
                label = ("normal", "abnormal")[i % 2]
                score = 0.9 if label == "abnormal" else 0.1
                wrong = (draw, screen) == (1, "there")
                rows.append((draw, screen, f"{screen}/{i}", label, 1 - score if wrong else score))
    return pd.DataFrame(rows, columns=["draw", "screen", "crop_id", "label", "score"])


def test_each_draw_and_screen_is_scored_by_itself():
    found = score_predictions(predictions())
    assert len(found) == 2 * 2 * len(METRICS)
    assert not found.duplicated(["draw", "screen", "metric"]).any()
    wrong = (found["draw"] == 1) & (found["screen"] == "there")
    assert (found["value"][wrong] == 0).all() and (found["value"][~wrong] == 1).all()
    assert set(found["n_test"][found["screen"] == "there"]) == {6}
    assert set(found["n_test"][found["screen"] == "here"]) == {4}


def test_the_order_of_predictions_does_not_matter():
    whole = predictions()
    shuffled = whole.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(score_predictions(shuffled), score_predictions(whole))
