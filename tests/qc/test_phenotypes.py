"""Compounds are warned of for what all of their wells show, not for artefacts that strike wells."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import betabinom

from hcsqc.qc.phenotypes import COLUMNS, _predictive, compound_warnings, reference_text


def made_wells(seed, compounds=30, wells=None, controls=24, artefacts=0.0, shares=None):
    """Return wells of two plates: 5% flagged, and what `shares` says of the first compound."""
    rng = np.random.default_rng(seed)
    rows = []
    for place in range(compounds):
        count = len(shares) if shares and place == 0 else wells or rng.integers(2, 5)
        rows += [("compound", f"c{place:02d}", 10.0**dose) for dose in range(count)]
    rows += [("mock", None, np.nan)] * controls
    table = pd.DataFrame(rows, columns=["role", "compound", "concentration_um"])
    chance = expit(logit(0.05) + 0.4 * rng.normal(size=len(table)))
    chance[rng.random(len(table)) < artefacts] = 0.8
    if shares:
        chance[: len(shares)] = shares
    table["Metadata_Plate"] = np.where(np.arange(len(table)) % 2, "P1", "P2")
    table["scored"] = rng.poisson(120, len(table))
    table["flagged"] = rng.binomial(table["scored"], chance)
    table["flagged_share"] = table["flagged"] / table["scored"]
    return table.assign(artefact="blur")


def warned(table: pd.DataFrame) -> set[str]:
    found = compound_warnings(table, 0.95, 0.2)
    return set(found.loc[found["warned"], "compound"])


def test_a_toxic_compound_is_warned_of_and_comes_first():
    found = [warned(made_wells(seed, shares=[0.5, 0.5, 0.5])) for seed in range(30)]
    assert sum("c00" in names for names in found) >= 29
    assert sum(bool(names - {"c00"}) for names in found) <= 2
    table = compound_warnings(made_wells(0, shares=[0.5, 0.5, 0.5]), 0.95, 0.2)
    assert list(table) == COLUMNS
    assert table["compound"].tolist()[:3] == ["c00"] * 3
    assert table["flagged_share"][:3].is_monotonic_decreasing
    assert table["wells"].sum() == 3 + (table["compound"] != "c00").sum()
    assert table["control_share"][0] == pytest.approx(0.05, abs=0.02)
    assert (table["adjusted_p"] >= table["p_value"]).all()
    assert (table["artefact"] == "blur").all()


def test_an_effect_of_high_doses_alone_is_warned_of():
    found = [warned(made_wells(seed, shares=[0.05, 0.05, 0.4, 0.6])) for seed in range(30)]
    assert sum("c00" in names for names in found) >= 27


@pytest.mark.parametrize("controls", [24, 0])
def test_artefacts_in_random_wells_warn_of_nothing(controls):
    found = [warned(made_wells(seed, artefacts=0.1, controls=controls)) for seed in range(80)]
    assert np.mean([bool(names) for names in found]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)


def test_wells_that_differ_no_more_than_usual_warn_of_nothing():
    assert np.mean([bool(warned(made_wells(seed))) for seed in range(40)]) < 0.05


def test_one_well_alone_cannot_be_told():
    table = made_wells(0, wells=3, shares=[0.9])
    found = compound_warnings(table, 0.95, 0.2)
    last = found.iloc[-1]
    assert (last["compound"], last["warned"]) == ("c00", False)
    assert last[["p_value", "adjusted_p"]].isna().all()
    assert last["flagged_share"] > 0.8
    assert found["p_value"].isna().sum() == 1


def test_a_share_too_small_to_matter_is_not_warned_of():
    table = made_wells(0, shares=[0.5, 0.5, 0.5])
    assert "c00" in set(compound_warnings(table, 0.95, 0.3).query("warned")["compound"])
    assert not compound_warnings(table, 0.95, 0.7)["warned"].any()


def test_a_plate_that_is_flagged_more_as_a_whole_warns_of_none_of_its_compounds():
    table = made_wells(0, wells=4)
    high = table["Metadata_Plate"] == "P1"
    table.loc[high, "flagged"] += (0.3 * table.loc[high, "scored"]).astype(int)
    table["flagged_share"] = table["flagged"] / table["scored"]
    assert warned(table) == set()


def test_what_compounds_are_compared_with_is_said():
    table = made_wells(0)
    assert "with 24 control wells of the same plates." in reference_text(table)
    assert "There are no control wells" in reference_text(made_wells(0, controls=0))
    part = table[(table["role"] != "mock") | (table["Metadata_Plate"] == "P1")]
    assert "on 1 plates without any, with all wells of other compounds" in reference_text(part)


def test_wells_without_scored_cells_or_compounds_have_no_row():
    table = made_wells(0, wells=3)
    table.loc[table["compound"] == "c01", ["scored", "flagged"]] = 0
    assert "c01" not in set(compound_warnings(table, 0.95, 0.2)["compound"])
    controls = table[table["role"] == "mock"]
    for nothing in (controls, table.iloc[:0]):
        found = compound_warnings(nothing, 0.95, 0.2)
        assert found.empty
        assert list(found) == COLUMNS


@pytest.mark.parametrize(("count", "n", "seen", "of"), [(0, 3, 2, 40), (2, 4, 0, 40), (3, 3, 5, 9)])
def test_the_chance_of_raised_wells_is_beta_binomial(count, n, seen, of):
    oracle = betabinom(n, seen + 0.5, of - seen + 0.5).sf(count - 1)
    assert _predictive(count, n, seen, of) == pytest.approx(oracle)
