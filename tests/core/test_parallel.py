"""Results in order, made a few ahead."""

import threading
import time
from contextlib import closing

import pytest

from hcsqc.core.parallel import in_order


def test_results_come_in_the_order_of_the_items():
    first = threading.Event()

    def later_items_end_first(item):
        if item == 0:
            first.wait(10)
        if item == 2:
            first.set()
        return item * item

    assert list(in_order(later_items_end_first, range(6), 3, 3)) == [0, 1, 4, 9, 16, 25]


def test_only_a_few_results_wait():
    begun = []
    for count, _ in enumerate(in_order(begun.append, range(100), 3, 5)):
        assert len(begun) <= count + 6
    assert sorted(begun) == list(range(100))


def test_nothing_is_begun_while_the_results_that_wait_are_large():
    begun = []

    def make(item):
        begun.append(item)
        return 10

    for count, _ in enumerate(in_order(make, range(100), 2, 50, lambda result: result, 25)):
        time.sleep(0.002)
        assert len(begun) <= count + 6  # this one, three that wait, two that were begun before
    assert sorted(begun) == list(range(100))


def test_what_has_not_begun_is_left_undone_after_an_error():
    begun = []

    def fail(item):
        begun.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        list(in_order(fail, range(100), 1, 50))
    assert len(begun) < 51


def test_what_has_not_begun_is_left_undone_when_the_caller_stops():
    begun, go_on = [], threading.Event()

    def wait(item):
        begun.append(item)
        if item:
            go_on.wait(10)

    with closing(in_order(wait, range(100), 1, 50)) as results:
        next(results)
        threading.Timer(0.2, go_on.set).start()
    assert len(begun) <= 3
