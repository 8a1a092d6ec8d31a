"""Shares of clustered labels, and what a prevalence makes of probabilities and precision."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from hcsqc.core.errors import InputError
from hcsqc.qc.prevalence import (
    Share,
    at_prevalence,
    clustered_share,
    design_effect,
    effective_size,
    exact_bounds,
    precision_at,
    prevalence,
)


@pytest.mark.parametrize(("count", "n"), [(0, 20), (1, 20), (7, 50), (20, 20)])
def test_bounds_are_the_exact_ones_of_scipy(count, n):
    oracle = binomtest(count, n).proportion_ci(0.95, method="exact")
    low, high = exact_bounds(count, n, 0.025)
    assert (float(low), float(high)) == pytest.approx((oracle.low, oracle.high))


def test_labels_of_wells_of_their_own_are_worth_themselves():
    hits = np.arange(40) < 3
    found = prevalence(hits.astype(int), np.arange(40).astype(str))
    oracle = binomtest(3, 40).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert (found.share, found.effective_n) == (3 / 40, 40)


def test_labels_that_wells_share_completely_are_worth_one_each():
    wells = np.repeat(np.arange(40), 5).astype(str)
    hits = np.repeat(np.arange(40) < 10, 5)
    assert design_effect(hits, wells) == pytest.approx(5, rel=0.03)
    assert clustered_share(hits, wells, 0.95).effective_n == pytest.approx(40, rel=0.08)
    none = clustered_share(np.zeros(200, bool), wells, 0.95)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / none.effective_n))
    assert none.effective_n <= 40


def test_a_single_well_says_nothing_of_others_and_no_labels_nothing_at_all():
    found = clustered_share(np.array([True, False]), np.array(["a", "a"]), 0.95)
    assert (found.low, found.high) == (0, 1)
    assert prevalence(np.array([]), np.array([])) is None


def test_few_wells_are_worth_less_and_never_more_than_their_labels():
    sizes = [float(effective_size(100, 1.0, wells, 0.05)) for wells in (3, 10, 100)]
    assert sizes[0] < sizes[1] < sizes[2] == 100
    assert float(effective_size(100, 0.2, 50, 0.05)) <= 100


def test_the_interval_covers_where_wells_differ():
    rng = np.random.default_rng(0)
    wells = np.repeat(np.arange(60), 4)
    covered = plain = 0
    for _ in range(500):
        chance = rng.beta(0.1 * 4, 0.9 * 4, 60)  # an intraclass correlation of 0.2
        hits = rng.random(240) < chance[wells]
        found = clustered_share(hits, wells, 0.95)
        covered += found.low <= 0.1 <= found.high
        low, high = exact_bounds(hits.sum(), 240, 0.025)
        plain += low <= 0.1 <= high
    assert covered / 500 >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 500)
    assert plain < covered  # which the wells are there for


def test_probabilities_are_those_of_bayes_at_the_prevalence():
    rng = np.random.default_rng(0)
    # Ten measurements, each showing with 0.6 in abnormal and 0.3 in normal cells.
    shown = np.arange(11)
    like = np.stack([binom.pmf(shown, 10, 0.3), binom.pmf(shown, 10, 0.6)])
    trained = 0.5 * like[1] / (0.5 * like).sum(axis=0)
    expected = 0.02 * like[1] / (0.98 * like[0] + 0.02 * like[1])
    assert at_prevalence(trained, 0.5, 0.02) == pytest.approx(expected)
    given = rng.random(20)
    assert at_prevalence(given, 0.3, 0.3) == pytest.approx(given)


def test_certain_probabilities_stay_and_impossible_classes_win():
    ends = np.array([0.0, 1.0, np.nan])
    assert at_prevalence(ends, 0.5, 0.1)[:2].tolist() == [0, 1]
    assert np.isnan(at_prevalence(ends, 0.5, 0.1)[2])
    assert at_prevalence(ends, 0.5, 0)[:2].tolist() == [0, 0]
    assert at_prevalence(ends, 0.5, 1)[:2].tolist() == [1, 1]


def test_a_classifier_of_one_class_has_no_probabilities():
    with pytest.raises(InputError, match="100% are abnormal; a classifier needs labels of both"):
        at_prevalence(np.array([0.5]), 1.0, 0.1)


def test_precision_falls_with_the_prevalence():
    def share(value: float) -> Share:
        return Share(value, value * 0.8, min(value * 1.2, 1), 100.0)

    even, _, _ = precision_at(share(0.5), share(0.9), share(0.05))
    rare, low, high = precision_at(share(0.02), share(0.9), share(0.05))
    assert even == pytest.approx(0.9 / 0.95)
    assert rare == pytest.approx(0.018 / (0.018 + 0.98 * 0.05))
    assert low == pytest.approx(0.016 * 0.72 / (0.016 * 0.72 + 0.984 * 0.06))
    assert low < rare < high
    none = Share(0.0, 0.0, 0.0, 9.0)
    assert np.isnan(precision_at(share(0.02), none, none)[0])
