"""The guess of the nuclei's channel: outlines first, names where outlines leave it open."""

import cv2
import numpy as np
import pytest

from hcsqc.start.outlines import guess_nucleus_channel, round_outlines


@pytest.mark.parametrize(
    ("shares", "channel", "warned"),
    [
        ({"w1": 0.77, "w2": 0.13}, "w1", False),
        ({"w1": 0.3, "w2": 0.8}, "w2", True),  # BBBC013: w1 is GFP
        ({"GFP": 0.8, "DAPI": 0.2}, "GFP", True),
        ({"C01": 0.2, "C02": 0.7}, "C02", False),
        ({"GFP": 0.7, "DAPI": 0.65}, "DAPI", False),  # a marker in the nucleus
        ({"GFP": 0.3, "DAPI": 0.1}, None, False),
        ({"GFP": 0.01, "DAPI": 0.0}, "DAPI", False),  # nothing is round
        ({"DNA": 0.6, "nucleoli": 0.2, "ER": 0.55}, "DNA", False),
        ({"DNA": 0.6, "nuclei": 0.55, "ER": 0.1}, None, False),
        ({"w1": 0.5, "w2": 0.45}, "w1", False),
        ({"w1": 0.45, "w2": 0.5}, None, False),
        ({"w1": 0.0, "w2": 0.0}, None, False),
        ({"C01": 0.9, "C02": 0.9}, None, False),
        ({"anything": 0.0}, "anything", False),
    ],
)
def test_outlines_decide_and_names_support(shares, channel, warned):
    guess = guess_nucleus_channel(shares)
    assert (guess.channel, guess.warning is not None) == (channel, warned)
    assert guess.why


@pytest.mark.parametrize(
    "shares", [{"w1": 0.0, "w2": 0.0}, {"w1": 0.04, "w2": 0.05}, {"C01": 0.0, "C02": 0.0}]
)
def test_where_nothing_is_round_the_reason_says_so(shares):
    assert guess_nucleus_channel(shares).why == "no channel shows round outlines"


def test_specks_do_not_set_the_size():
    plane = np.zeros((400, 400), np.uint16)
    for place in range(60, 400, 140):
        cv2.circle(plane, (place, 60), 15, 1000, -1)
    alone = round_outlines(plane)[1]
    for place in range(20, 400, 20):
        cv2.circle(plane, (place, 200), 4, 1000, -1)
    assert alone == pytest.approx(30, abs=3)
    assert round_outlines(plane)[1] == pytest.approx(alone, abs=1)
