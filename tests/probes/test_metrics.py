"""Metrics: known answers, scikit-learn's, and what the paper's formulas promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)
from sklearn.metrics import auc as area

from hcsqc.probes.metrics import (
    METRICS,
    TABLE_METRICS,
    Weighted,
    accuracy,
    auc,
    f1,
    paper_style,
    score_predictions,
)

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
    once = np.ones((len(TARGETS), 1))
    best, worst = (1, 0) if metric != "calibration_error" else (0, 1)
    assert METRICS[metric](Weighted(TARGETS, TARGETS.astype(float), once)) == best
    inverted = METRICS[metric](Weighted(TARGETS, 1.0 - TARGETS, once))
    # Flagging all crops of the lowest score still finds two of five.
    assert inverted == (pytest.approx(2 / 5) if metric == "average_precision" else worst)


def recall_at(targets, scores, weights, false_alarms):
    flagged, found, _ = roc_curve(targets, scores, sample_weight=weights, drop_intermediate=False)
    return found[flagged <= false_alarms + 1e-9].max()


def calibration_error(targets, scores, weights):
    bins = np.clip(np.digitize(scores, np.linspace(0, 1, 11) - 1e-12) - 1, 0, 9)
    gaps = [
        abs(np.average(targets[bins == b], weights=weights[bins == b]) - mean) * share
        for b in set(bins)
        if (share := weights[bins == b].sum() / weights.sum()) > 0
        for mean in [np.average(scores[bins == b], weights=weights[bins == b])]
    ]
    return sum(gaps)


ORACLES = {
    "accuracy": lambda t, s, w: accuracy_score(t, s > 0.5, sample_weight=w),
    "f1": lambda t, s, w: f1_score(
        t, s > 0.5, sample_weight=w, average="weighted", zero_division=0
    ),
    "auc": lambda t, s, w: roc_auc_score(t, s, sample_weight=w),
    "average_precision": lambda t, s, w: average_precision_score(t, s, sample_weight=w),
    "balanced_accuracy": lambda t, s, w: balanced_accuracy_score(t, s > 0.5, sample_weight=w),
    "recall_at_1_percent": lambda t, s, w: recall_at(t, s, w, 0.01),
    "recall_at_5_percent": lambda t, s, w: recall_at(t, s, w, 0.05),
    "calibration_error": calibration_error,
}


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_scikit_learns_with_weights(metric):
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = rng.integers(5, 200)
        targets = rng.permutation(np.arange(n) % 2)
        scores = np.clip(rng.normal(0.4 + 0.2 * targets, 0.3), 0, 1).round(rng.integers(1, 4))
        weights = rng.integers(0, 4, (6, n)).astype(float)
        weights[:, [np.argmax(targets), np.argmin(targets)]] = 1  # both classes stay
        found = METRICS[metric](Weighted(targets, scores, weights.T))
        expected = [ORACLES[metric](targets, scores, row) for row in weights]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_of_one_class_is_undefined_unless_it_needs_but_one(metric):
    scores = np.array([0.2, 0.9])
    value = METRICS[metric](Weighted(np.zeros(2, int), scores, np.ones((2, 1))))[0]
    assert np.isnan(value) == (metric not in ("accuracy", "f1", "calibration_error"))


def test_how_the_paper_may_have_computed():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 72)
    scores = np.clip(rng.normal(0.3 + 0.4 * targets, 0.3), 0, 1)
    found = paper_style(targets, scores)
    assert found["auc_of_labels"] == pytest.approx(roc_auc_score(targets, scores > 0.5))
    batches = [slice(0, 32), slice(32, 64), slice(64, 72)]
    right = [accuracy_score(targets[b], scores[b] > 0.5) for b in batches]
    assert found["accuracy_of_batches"] == pytest.approx(np.mean(right))
    each = [f1(targets[b], scores[b]) for b in batches]
    assert found["f1_of_batches"] == pytest.approx(np.mean(each))
    hard = [roc_auc_score(targets[b], scores[b] > 0.5) for b in batches]
    assert found["auc_of_labels_of_batches"] == pytest.approx(np.mean(hard))


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
    assert len(found) == 2 * 2 * (len(METRICS) + 4)
    assert not found.duplicated(["draw", "screen", "metric"]).any()
    found = found[found["metric"].isin(TABLE_METRICS)]
    wrong = (found["draw"] == 1) & (found["screen"] == "there")
    assert (found["value"][wrong] == 0).all() and (found["value"][~wrong] == 1).all()
    assert set(found["n_test"][found["screen"] == "there"]) == {6}
    assert set(found["n_test"][found["screen"] == "here"]) == {4}


def test_the_order_of_predictions_does_not_matter():
    whole = predictions()
    shuffled = whole.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(score_predictions(shuffled), score_predictions(whole))
