"""How long a stage still takes: known answers, and silence where nothing is known."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcsqc.terminal.tally import Tally, duration, time_left


def two_done(**jobs: int) -> Tally:
    """Return a tally of which two probes took 10 s each, until 30 s, when the third began."""
    tally = Tally(Counter(jobs))
    for job in (1, 2):
        tally.start(job, "probe", 10.0 * job)
        tally.finish(job, 10.0 * job + 10)
    tally.start(3, "probe", 30.0)
    return tally


def test_nothing_is_said_before_two_jobs_have_ended():
    tally = Tally(Counter(probe=10))
    assert tally.seconds_left(0.0) is None
    tally.start(1, "probe", 0.0)
    assert tally.seconds_left(5.0) is None
    tally.finish(1, 10.0)
    tally.start(2, "probe", 10.0)
    assert tally.seconds_left(15.0) is None
    tally.finish(2, 20.0)
    tally.start(3, "probe", 20.0)
    # Seven that wait and the rest of the third, one after the other.
    assert tally.seconds_left(26.0) == pytest.approx(7 * 10 + 4)


def test_nothing_is_said_of_a_stage_with_a_rule_of_which_no_job_has_ended():
    tally = two_done(probe=3, finetune=1)
    assert tally.seconds_left(31.0) is None


def test_rules_that_take_longer_count_for_more():
    tally = Tally(Counter(probe=3, finetune=3))
    now = 0.0
    for job, (rule, took) in enumerate([("probe", 1.0), ("finetune", 100.0)]):
        tally.start(job, rule, now)
        now += took
        tally.finish(job, now)
    tally.start(9, "probe", now)
    assert tally.seconds_left(now) == pytest.approx(2 * 1 + 2 * 100)


def test_jobs_side_by_side_share_the_time():
    tally = Tally(Counter(crop_plate=8))
    for first in (0, 2):
        for job in (first, first + 1):
            tally.start(job, "crop_plate", first * 10.0)
        for job in (first, first + 1):
            tally.finish(job, first * 10.0 + 20)
    for job in (4, 5):
        tally.start(job, "crop_plate", 40.0)
    assert tally.seconds_left(40.0) == pytest.approx(4 * 20 / 2)


def test_a_stage_that_waits_for_another_is_not_slower_for_it():
    tally = Tally(Counter(label_screen=3))
    for job, began in ((1, 0.0), (2, 1000.0)):
        tally.start(job, "label_screen", began)
        tally.finish(job, began + 10)
    tally.start(3, "label_screen", 5000.0)
    assert tally.seconds_left(5004.0) == pytest.approx(6)


def test_a_job_that_outlasts_all_others_ends_the_estimate():
    tally = two_done(probe=3)
    assert tally.seconds_left(45.0) is None


def test_a_failed_job_is_not_waited_for_unless_it_starts_again():
    tally = two_done(probe=4)
    tally.fail(3, 35.0)
    tally.start(4, "probe", 35.0)
    assert (tally.done, len(tally.failed)) == (2, 1)
    assert tally.seconds_left(35.0) == pytest.approx(10)
    tally.start(3, "probe", 40.0)
    assert not tally.failed
    tally.finish(3, 50.0)
    tally.finish(4, 50.0)
    assert (tally.done, tally.total) == (4, 4)


@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=6), st.integers(1, 4))
def test_the_estimate_lies_between_all_at_once_and_one_after_the_other(took, waiting):
    tally = Tally(Counter(probe=len(took) + waiting + 1))
    for job in range(len(took)):
        tally.start(job, "probe", 0.0)
    for job, seconds in sorted(enumerate(took), key=lambda pair: pair[1]):
        tally.finish(job, seconds)
    now = max(took)
    tally.start(-1, "probe", now)
    mean = sum(took) / len(took)
    left = tally.seconds_left(now)
    assert mean * 0.999 <= left <= mean * (waiting + 1) * 1.001


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (80, "1 min 20 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations_are_read_in_words(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "about 10 s left"),
        (41, "about 50 s left"),
        (51, "about 1 min left"),
        (61, "about 2 min left"),
        (9000, "about 2.5 h left"),
    ],
)
def test_estimates_are_no_finer_than_they_are_good(seconds, text):
    assert time_left(seconds) == text
