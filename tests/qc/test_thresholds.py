"""The threshold's promise: kept in simulation, exact where known, refused where wells are few."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from hcsqc.core.errors import InputError
from hcsqc.qc.thresholds import (
    _steps,
    bounds_of,
    choose_threshold,
    strictest_promise,
    wells_needed,
)


def normal_labels(rng, wells: int, per_well: int, spread: float, bad: float = 0.0):
    """Return scores of normal cells whose wells differ, on the logit, and the wells.

    The share `bad` of the wells lies 3 higher.
    """
    place = np.repeat(np.arange(wells), per_well)
    effects = spread * rng.normal(size=wells) + 3 * (rng.random(wells) < bad)
    return expit(rng.normal(size=len(place)) + effects[place]), place


def good_cells_lost(threshold: float, spread: float, bad: float) -> float:
    """Return what share of the normal cells of new wells lies above a threshold."""
    level, width = logit(threshold), np.hypot(1, spread)
    return (1 - bad) * norm.sf(level / width) + bad * norm.sf((level - 3) / width)


def promises(wells, per_well, spread, bad, lost, simulations) -> tuple[int, int]:
    """Return how many of simulated screens get a promise, and how many of these are broken."""
    rng = np.random.default_rng(0)
    given = broken = 0
    for _ in range(simulations):
        scores, place = normal_labels(rng, wells, per_well, spread, bad)
        try:
            found = choose_threshold(scores, np.zeros(len(scores), int), place, lost, 0.95)
        except InputError:
            continue
        given += 1
        broken += good_cells_lost(found.threshold, spread, bad) > lost
    return given, broken


@pytest.mark.parametrize(
    ("wells", "per_well", "lost"), [(150, 1, 0.05), (75, 3, 0.05), (200, 2, 0.02), (12, 24, 0.25)]
)
@pytest.mark.parametrize(("spread", "bad"), [(0.0, 0.0), (1.5, 0.0), (0.5, 0.05)])
@pytest.mark.parametrize("simulations", [60, pytest.param(1000, marks=pytest.mark.statistics)])
def test_the_promise_is_always_given_with_enough_wells_and_kept(
    wells, per_well, lost, spread, bad, simulations
):
    given, broken = promises(wells, per_well, spread, bad, lost, simulations)
    assert given == simulations
    assert broken / given <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / given)


@pytest.mark.parametrize(
    ("wells", "per_well", "spread", "bad"), [(24, 12, 0.0, 0.05), (12, 24, 1.5, 0.0)]
)
def test_too_few_wells_promise_nothing_however_good_they_look(wells, per_well, spread, bad):
    given, _ = promises(wells, per_well, spread, bad, 0.05, 30)
    assert given == 0  # the bad wells that are missed would break more than half of the promises


def test_whether_a_promise_is_given_depends_on_the_wells_alone():
    same = np.full(59, 0.9)  # not one label can be told from another
    assert choose_threshold(same, np.zeros(59, int), np.arange(59), 0.05, 0.95).exceeding == 0
    with pytest.raises(InputError, match="58 random normal labels lie in 58 wells"):
        choose_threshold(same[:58], np.zeros(58, int), np.arange(58), 0.05, 0.95)
    wells = np.arange(5800) % 58
    with pytest.raises(InputError, match="needs at least 59 wells .*, 1 more: 58 wells allow 5.1%"):
        choose_threshold(np.linspace(0, 1, 5800), np.zeros(5800, int), wells, 0.05, 0.95)


def random_weights(shares: np.ndarray, count: int = 50000) -> np.ndarray:
    """Return means of shares, and of one more that is 1, under random weights: Gaffke's bound."""
    weights = np.random.default_rng(0).exponential(size=(count, len(shares) + 1))
    return weights @ np.r_[shares, 1] / weights.sum(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_the_quantile_of_a_mean_of_wells_under_random_weights(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5 + 10 * seed, 40)
    hits = rng.binomial(sizes, rng.beta(0.2, 2, 40))
    wells = np.repeat(np.arange(40), sizes)
    above = np.concatenate([np.arange(size) < hit for size, hit in zip(sizes, hits, strict=True)])
    least, bound = bounds_of(above, wells, 0.95)
    shares = hits / sizes
    assert bound == pytest.approx(np.quantile(random_weights(shares), 0.95), rel=0.03)
    assert least == pytest.approx(1 - np.quantile(random_weights(1 - shares), 0.95), abs=0.006)
    assert bounds_of(~above, wells, 0.95) == pytest.approx((1 - bound, 1 - least))


def test_bounds_of_none_and_all_are_known():
    wells = np.repeat(np.arange(30), 7)
    none = bounds_of(np.zeros(210, bool), wells, 0.95)
    assert none == (0, pytest.approx(1 - 0.05 ** (1 / 30)))
    assert bounds_of(np.ones(210, bool), wells, 0.95) == (pytest.approx(0.05 ** (1 / 30)), 1)


def test_labels_of_wells_of_their_own_have_the_exact_bound():
    scores = np.linspace(0, 1, 201)
    found = choose_threshold(scores, np.zeros(201, int), np.arange(201), 0.05, 0.95)
    count = round(found.exceeding * 201)
    assert (scores > found.threshold).sum() == count
    bounds = [
        binomtest(k, 201, alternative="less").proportion_ci(0.95).high for k in (count, count + 1)
    ]
    assert found.bound == pytest.approx(bounds[0])
    assert bounds[0] <= 0.05 < bounds[1]  # the loosest one
    assert (found.n_normal, found.wells) == (201, 201)


def test_a_cell_at_the_threshold_is_no_exceedance():
    scores = np.array([0.1] * 90 + [0.7] * 10)
    found = choose_threshold(scores, np.zeros(100, int), np.arange(100), 0.05, 0.95)
    assert (found.threshold, found.exceeding) == (0.7, 0)


def test_looser_thresholds_have_no_lower_bounds():
    scores, wells = normal_labels(np.random.default_rng(0), 30, 8, 1.0)
    values, counts, bounds = _steps(scores, wells, 0.5, 0.05)
    for value, count, bound in list(zip(values, counts, bounds, strict=True))[::10]:
        assert (scores > value).sum() == count
        assert bound == pytest.approx(bounds_of(scores > value, wells, 0.95)[1])
    assert (np.diff(bounds) >= 0).all()


def test_recall_and_false_positives_come_with_intervals():
    rng = np.random.default_rng(0)
    scores = np.r_[rng.random(300) * 0.5, rng.random(40)]
    labels, wells = np.repeat([0, 1], [300, 40]), np.r_[np.arange(300), np.arange(40)]
    found = choose_threshold(scores, labels, wells, 0.05, 0.95)
    flagged = (scores[300:] > found.threshold).sum()
    oracle = binomtest(int(flagged), 40).proportion_ci(0.95)
    assert found.recall.share == flagged / 40
    assert (found.recall.low, found.recall.high) == pytest.approx((oracle.low, oracle.high))
    false = found.false_positives
    assert false.low < false.share < false.high == pytest.approx(found.bound)
    only_normal = choose_threshold(scores[:300], labels[:300], wells[:300], 0.05, 0.95)
    assert only_normal.recall is None
    assert only_normal.threshold == found.threshold


def test_what_wells_support_they_can_promise_and_nothing_stricter():
    scores, wells = normal_labels(np.random.default_rng(2), 75, 2, 1.0)
    labels = np.zeros(150, int)
    supported = choose_threshold(scores, labels, wells, 0.1, 0.95).supported
    assert supported == strictest_promise(75, 0.95) == 0.04
    assert choose_threshold(scores, labels, wells, supported, 0.95).bound <= supported
    with pytest.raises(InputError, match=r"75 wells allow 4.0% .*\(qc.good_cells_lost: 0.04\)"):
        choose_threshold(scores, labels, wells, supported - 0.001, 0.95)


@pytest.mark.parametrize("share", [0.05, 0.02, 0.01])
def test_so_many_wells_more_support_the_stricter_promise(share):
    scores, wells = np.linspace(0, 0.9, 40), np.arange(40)
    found = choose_threshold(scores, np.zeros(40, int), wells, 0.1, 0.95)
    for extra, enough in ((found.wells_for_stricter[share], True), (-1, False)):
        n = 40 + found.wells_for_stricter[share] + (0 if enough else extra)
        arguments = (np.linspace(0, 0.9, n), np.zeros(n, int), np.arange(n), share, 0.95)
        if enough:
            assert choose_threshold(*arguments).bound <= share
        else:
            with pytest.raises(InputError, match="random normal labels, 1 more: "):
                choose_threshold(*arguments)


def test_wells_needed_are_the_known_numbers():
    # 59 for 95% in 95%: Wilks 1941.
    known = {0.5: 5, 0.25: 11, 0.1: 29, 0.05: 59, 0.02: 149, 0.01: 299}
    assert {share: wells_needed(share, 0.95) for share in known} == known


@pytest.mark.parametrize(
    ("scores", "labels", "wells", "lost", "message"),
    [
        ([0.5, np.nan], [0, 0], ["a", "b"], 0.05, "label 1 has the score nan; leave out cells"),
        ([0.5, 1.2], [0, 0], ["a", "b"], 0.05, "label 1 has the score 1.2"),
        ([0.5, 0.2], [0, 2], ["a", "b"], 0.05, "labels must be 0 .normal. or 1"),
        ([0.5, 0.2], [0, 0], ["a", "a"], 0.05, "2 random normal labels in 1 well tell nothing"),
        ([0.5, 0.2], [1, 1], ["a", "b"], 0.05, "0 random normal labels in 0 wells tell nothing"),
        ([0.5, 0.2], [0, 0], ["a", "b"], 1.0, "good_cells_lost is 1.0"),
        (
            [0.5, 0.2],
            [0, 0],
            ["a", "b"],
            0.05,
            "needs at least 59 wells with random normal labels, 57 more: 2 wells allow 77.7% at",
        ),
    ],
)
def test_bad_input_is_refused(scores, labels, wells, lost, message):
    with pytest.raises(InputError, match=message):
        choose_threshold(np.array(scores), np.array(labels), np.array(wells), lost, 0.95)
