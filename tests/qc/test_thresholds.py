"""The threshold's promise: kept in simulation, exact where known, refused where labels are few."""

import re

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from hcsqc.core.errors import InputError
from hcsqc.qc.prevalence import design_effect
from hcsqc.qc.thresholds import _steps, choose_threshold, labels_needed


def normal_labels(rng, wells: int, per_well: int, spread: float):
    """Return scores of normal cells whose wells differ, on the logit, and the wells."""
    place = np.repeat(np.arange(wells), per_well)
    return expit(rng.normal(size=len(place)) + spread * rng.normal(size=wells)[place]), place


def broken_promises(wells, per_well, spread, lost, simulations=400) -> tuple[float, float]:
    """Return the shares of simulated screens that lose too many good cells, or are refused."""
    rng = np.random.default_rng(0)
    broken = refused = 0
    for _ in range(simulations):
        scores, place = normal_labels(rng, wells, per_well, spread)
        try:
            found = choose_threshold(scores, np.zeros(len(scores), int), place, lost, 0.95)
        except InputError:
            refused += 1
            continue
        broken += norm.sf(logit(found.threshold) / np.hypot(1, spread)) > lost
    return broken / simulations, refused / simulations


@pytest.mark.parametrize(
    ("wells", "per_well", "spread", "lost"),
    [
        (300, 1, 0.0, 0.05),
        (150, 2, 1.0, 0.05),
        (60, 5, 1.0, 0.05),
        (30, 10, 0.5, 0.05),
        (200, 2, 1.0, 0.02),
    ],
)
def test_the_promise_is_kept_for_new_wells(wells, per_well, spread, lost):
    broken, refused = broken_promises(wells, per_well, spread, lost)
    assert broken <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert refused < 0.1


def test_the_promise_would_break_without_the_wells():
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(300):
        scores, _ = normal_labels(rng, 20, 20, 1.5)
        alone = np.arange(len(scores))
        found = choose_threshold(scores, np.zeros(len(scores), int), alone, 0.05, 0.95)
        broken += norm.sf(logit(found.threshold) / np.hypot(1, 1.5)) > 0.05
    assert broken / 300 > 0.1


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
    assert (found.effective_n, found.n_normal, found.wells) == (201, 201, 201)


def test_a_cell_at_the_threshold_is_no_exceedance():
    scores = np.array([0.1] * 90 + [0.7] * 10)
    found = choose_threshold(scores, np.zeros(100, int), np.arange(100), 0.05, 0.95)
    assert (found.threshold, found.exceeding) == (0.7, 0)


def test_the_first_failure_stops(monkeypatch):
    scores, wells = np.linspace(0, 1, 300), np.arange(300)
    steps = (scores[::-1], np.arange(16), np.array([1, 1, 1, 50, *[1] * 12]))
    monkeypatch.setattr("hcsqc.qc.thresholds._steps", lambda *_: steps)
    found = choose_threshold(scores, np.zeros(300, int), wells, 0.05, 0.95)
    assert found.exceeding == 2 / 300  # though looser thresholds pass again


def test_the_walk_over_thresholds_has_the_design_effect_of_each():
    rng = np.random.default_rng(0)
    scores, wells = normal_labels(rng, 30, 8, 1.0)
    values, counts, effects = _steps(scores, wells, 0.5)
    least = effects[0]
    for value, count, effect in list(zip(values, counts, effects, strict=True))[1:]:
        assert (scores > value).sum() == count
        assert effect == pytest.approx(max(design_effect(scores > value, wells), least))
    assert least > 1  # though none lies above the highest


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


def test_what_labels_support_they_can_promise_and_nothing_stricter():
    scores, wells = normal_labels(np.random.default_rng(2), 75, 2, 1.0)
    labels = np.zeros(150, int)
    supported = choose_threshold(scores, labels, wells, 0.1, 0.95).supported
    assert choose_threshold(scores, labels, wells, supported, 0.95).bound <= supported
    with pytest.raises(InputError, match=f"only {supported:.1%}; raise good_cells_lost"):
        choose_threshold(scores, labels, wells, supported - 0.001, 0.95)


@pytest.mark.parametrize("share", [0.05, 0.02, 0.01])
def test_so_many_labels_more_support_the_stricter_promise(share):
    scores, wells = np.linspace(0, 0.9, 40), np.arange(40)
    found = choose_threshold(scores, np.zeros(40, int), wells, 0.1, 0.95)
    more = found.more_for_stricter[share]
    for extra, enough in ((more, True), (more - 1, False)):
        n = 40 + extra
        arguments = (np.linspace(0, 0.9, n), np.zeros(n, int), np.arange(n), share, 0.95)
        if enough:
            assert choose_threshold(*arguments).bound <= share
        else:
            with pytest.raises(InputError, match="label at least 1 more"):
                choose_threshold(*arguments)


def test_a_refusal_says_in_how_many_further_wells_to_label():
    rng = np.random.default_rng(0)
    wells = np.repeat(np.arange(4), 50)
    scores = np.clip(0.1 * wells + 0.05 * rng.random(200), 0, 1)  # the cells of a well are alike
    told = re.compile(
        r"at least (\d+) more randomly chosen normal cells in at least (\d+) further w"
    )
    with pytest.raises(InputError, match=told) as refused:
        choose_threshold(scores, np.zeros(200, int), wells, 0.05, 0.95)
    more, further = map(int, told.search(str(refused.value)).groups())
    assert 50 * (further - 1) < more <= 50 * further
    assert further > 10  # wells of 50, of whose labels few are worth an independent one
    assert "\n" not in str(refused.value)


def test_labels_needed_are_the_known_numbers():
    # 59 for 95% in 95%: Wilks 1941. With alike wells of ten, ten times as many, and some.
    assert labels_needed(0.05, 0.95, 1.0, 1.0) == 59
    assert labels_needed(0.01, 0.95, 1.0, 1.0) == 299
    assert 590 <= labels_needed(0.05, 0.95, 10.0, 10.0) <= 640


def test_stricter_promises_say_how_many_labels_they_want():
    scores = np.linspace(0, 1, 100)
    labels = np.repeat([0, 1], [80, 20])
    found = choose_threshold(scores, labels, np.arange(100), 0.05, 0.95)
    assert found.more_for_stricter == {0.02: 149 - 80, 0.01: 299 - 80}
    assert found.recall.share == 1


@pytest.mark.parametrize(
    ("scores", "labels", "wells", "lost", "message"),
    [
        ([0.5, np.nan], [0, 0], ["a", "b"], 0.05, "label 1 has the score nan; leave out cells"),
        ([0.5, 1.2], [0, 0], ["a", "b"], 0.05, "label 1 has the score 1.2"),
        ([0.5, 0.2], [0, 2], ["a", "b"], 0.05, "labels must be 0 .normal. or 1"),
        ([0.5, 0.2], [0, 0], ["a", "a"], 0.05, "2 random normal labels in 1 wells say nothing"),
        ([0.5, 0.2], [1, 1], ["a", "b"], 0.05, "0 random normal labels in 0 wells say nothing"),
        ([0.5, 0.2], [0, 0], ["a", "b"], 1.0, "good_cells_lost is 1.0"),
        (
            [0.5, 0.2],
            [0, 0],
            ["a", "b"],
            0.05,
            "57 more randomly chosen normal cells in at least 57 further wells, because cells of",
        ),
    ],
)
def test_bad_input_is_refused(scores, labels, wells, lost, message):
    with pytest.raises(InputError, match=message):
        choose_threshold(np.array(scores), np.array(labels), np.array(wells), lost, 0.95)
