"""The heat map of misses: its numbers, its marks, and colours that can be read."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.analyses.dose_response import ALL, AT_FALSE_ALARMS, COLUMNS, HALF
from hcsqc.figures.heat_colours import colours, luminance
from hcsqc.report.heat_map import heat_maps

SHARES = np.linspace(0, 1, 101)


def table(*rows) -> pd.DataFrame:
    """Return detection of rows (probe, screen, encoder, artefact, detected, high, crops)."""
    made = [
        {"probe": probe, "screen": screen, "encoder": encoder, "artefact": artefact}
        | {"strength": ALL, "threshold": AT_FALSE_ALARMS, "detected": share}
        | {"low": share, "high": high, "crops": crops}
        for probe, screen, encoder, artefact, share, high, crops in rows
    ]
    return pd.DataFrame(made, columns=["encoder", "probe", *COLUMNS])


def test_a_map_has_a_row_per_encoder_and_a_cell_per_artefact():
    rows = table(
        ("knn", "s", "a", "noise", 0.1, 0.3, 30),
        ("knn", "s", "a", "blur", 0.926, 0.99, 20),
        ("knn", "s", "b", "blur", 0.2, 0.6, 21),
    )
    (found,) = heat_maps(rows)
    assert (found["probe"], found["screen"]) == ("knn", "s")
    assert found["artefacts"] == {"blur": 21, "noise": 30}
    blur, noise = found["lines"]["a"]
    assert (blur["percent"], blur["high"], blur["crops"]) == (93, 99, 20)
    assert noise["missed"] and not blur["missed"]
    assert noise["background"] < blur["background"], "what is missed is darker"
    assert found["lines"]["b"][1] is None, "it was not tested on noise"
    assert not found["lines"]["b"][0]["missed"], "it may find half"


def test_only_whole_artefacts_at_5_percent_false_alarms_are_shown():
    rows = table(("knn", "s", "a", "blur", 0.1, 0.3, 30))
    others = [rows.assign(threshold=HALF), rows.assign(strength="weak", artefact="noise")]
    (found,) = heat_maps(pd.concat([rows, *others]))
    assert found["artefacts"] == {"blur": 30}


def test_the_probe_and_the_screen_that_are_asked_for_come_first():
    rows = table(
        ("knn", "s", "a", "blur", 0.1, 0.3, 30),
        ("logistic", "s", "a", "blur", 0.1, 0.3, 30),
        ("logistic", "t", "a", "blur", np.nan, np.nan, 0),
    )
    maps = heat_maps(rows, ["logistic"], ["t"])
    assert [(one["probe"], one["screen"]) for one in maps] == [
        ("logistic", "t"),
        ("logistic", "s"),
        ("knn", "s"),
    ]
    assert maps[0]["lines"]["a"] == [None], "no false alarms can be allowed there"


def test_without_crops_there_is_no_map():
    assert heat_maps(table()) == []


def channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 1])
def test_text_can_be_read_on_its_cell(share):
    """WCAG 2.1 asks for a contrast of 4.5 to 1."""
    one, two = sorted(luminance(channels(colour)) for colour in colours(share))
    assert (two + 0.05) / (one + 0.05) >= 4.5


def test_lightness_alone_tells_more_from_less():
    """So the map reads in grey, and without telling red from green."""
    light = [luminance(channels(colours(share)[0])) for share in SHARES]
    assert (np.diff(light) > 0).all()
    assert light[0] < 0.1 and light[-1] == pytest.approx(1)
