"""What the page answers and what its script reads: lights, drops, thresholds, maps, as JSON."""

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.crops.shards import Shards
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.report import answers, page_data
from hcsqc.qc.report.answers import FAIL, LOOK, PASS, UNKNOWN, drops, drops_csv, lights
from hcsqc.qc.report.links import plate_page
from hcsqc.qc.report.page import render_report
from hcsqc.qc.report.page_data import as_script, measures, score_data
from hcsqc.qc.report.results import COLUMNS, of_plate, read_results
from hcsqc.qc.thresholds import choose_threshold, promises_at
from tests.qc.report.made_screen import (
    LIMITS,
    PROMISE,
    data_of,
    described,
    make_folder,
    remake,
    render,
)


def levels(folder, plate="p1", **limits) -> dict[str, str]:
    """Return check -> level of a plate."""
    found = lights(read_results(folder), answers.Limits(**(vars(LIMITS) | limits)), 0.5)
    return {light.check: light.level for light in found[plate]}


def sites(table: pd.DataFrame, count: int) -> pd.Series:
    """Return which rows are the first so many fields of plate p1."""
    first = table["Metadata_Plate"] == "p1"
    return first & (first.cumsum() <= count)


def test_a_plate_without_anything_bad_passes_each_check(screen, tmp_path):
    folder = remake(
        screen,
        tmp_path,
        fields=lambda table: table.assign(out_of_focus=False, edge=0.2),
        plates=lambda table: table.assign(bad_wells=0, flagged_share=0.05),
    )
    found = levels(folder)
    assert set(found) == set(answers.CHECKS) and set(found.values()) == {PASS}


@pytest.mark.parametrize(
    ("check", "column"),
    [("focus", "out_of_focus"), ("saturation", "saturated"), ("counts", "empty")],
)
@pytest.mark.parametrize(("count", "level"), [(0, PASS), (1, LOOK), (2, LOOK), (3, FAIL)])
def test_a_tenth_of_the_fields_fails_a_check(screen, tmp_path, check, column, count, level):
    def spoil(table):
        return table.assign(out_of_focus=False, edge=0.2).assign(**{column: sites(table, count)})

    assert levels(remake(screen, tmp_path, fields=spoil))[check] == level


@pytest.mark.parametrize(
    ("share", "bad", "level"), [(0.19, 0, PASS), (0.19, 1, LOOK), (0.2, 0, FAIL), (0.1, 4, FAIL)]
)
def test_flagged_cells_or_bad_wells_fail_a_plate(screen, tmp_path, share, bad, level):
    folder = remake(
        screen,
        tmp_path,
        plates=lambda table: table.assign(flagged_share=share, bad_wells=bad),
    )
    assert levels(folder)["cells flagged"] == level


def test_fields_that_are_bad_for_any_reason_fail_a_plate(screen, tmp_path):
    few = remake(screen, tmp_path, plates=partial(with_bad_fields, share=0.25))
    assert levels(few)["cells flagged"] == PASS
    many = remake(screen, tmp_path, plates=partial(with_bad_fields, share=0.3))
    assert levels(many)["cells flagged"] == FAIL


def with_bad_fields(table, share):
    """Return plates.csv of which that share of the fields is bad, and no well."""
    table = table.assign(flagged_share=0.05, bad_wells=0)
    return table.assign(bad_fields=(share * table["fields"]).round().astype(int))


@pytest.mark.parametrize(
    ("plates", "gain", "level"),
    [
        ({"feature_shift": 0.4, "score_shift": 0.1}, 1.4, PASS),
        ({"feature_shift": 0.6, "score_shift": 0.1}, 1.4, FAIL),
        ({"feature_shift": 0.4, "score_shift": 0.3}, 1.4, FAIL),
        ({"feature_shift": np.nan, "score_shift": np.nan}, 0.6, FAIL),
        ({"feature_shift": np.nan, "score_shift": np.nan}, 0.7, PASS),
        ({"feature_shift": np.nan, "score_shift": np.nan}, np.nan, UNKNOWN),
    ],
)
def test_drift_of_features_scores_or_light_fails_a_plate(screen, tmp_path, plates, gain, level):
    folder = remake(
        screen,
        tmp_path,
        plates=lambda table: table.assign(**plates),
        corrections=lambda table: table.assign(gain=gain),
    )
    assert levels(folder)["drift"] == level


@pytest.mark.parametrize(("edge", "level"), [(10, PASS), (18, LOOK), (60, FAIL)])
def test_wells_at_the_edge_are_compared_with_the_others(screen, edge, level):
    wells = [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)]
    table = pd.DataFrame({"Metadata_Well": wells, "scored": 200})
    outer = table["Metadata_Well"].str.fullmatch("[AH].*|.01|.12")
    table["flagged"] = np.where(outer, 2 * edge, 20)
    assert answers._edge(table, (8, 12), LIMITS).level == level
    assert answers._edge(table[~outer], (8, 12), LIMITS).level == UNKNOWN


def test_the_list_of_drops_has_bad_wells_and_the_bad_fields_of_other_wells(screen, tmp_path):
    def spoil(table):
        other = (table["Metadata_Well"] == "C02") & (table["Metadata_Site"] == 2)
        return table.assign(
            bad=table["bad"] | (other & (table["Metadata_Plate"] == "p1")), reason="=SUM(A1)"
        )

    results = read_results(remake(screen, tmp_path, fields=spoil))
    found = drops(results)
    # The bad fields of B03 go with their wells.
    assert found["drop"].tolist() == ["well", "well", "field"]
    rows = pd.read_csv(io.StringIO(drops_csv(found)), dtype=str)
    assert list(rows.columns) == answers.DROP_COLUMNS
    assert rows.loc[:1, "Metadata_Well"].tolist() == ["B03", "B03"]
    assert rows.loc[2, ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]].tolist() == [
        "p1",
        "C02",
        "2",
    ]
    assert rows["Metadata_Site"].isna().tolist() == [True, True, False]
    assert rows.loc[2, "reason"] == "'=SUM(A1)"
    inside = found["flagged"].sum()
    flagged = int(screen["cells"]["flagged"].fillna(False).sum())
    assert answers.flagged_elsewhere(results, found) == flagged - inside > 0


def test_the_answer_is_one_sentence_with_what_to_leave_out(screen, tmp_path):
    def told(**changes):
        results = read_results(remake(screen, tmp_path, **changes))
        return answers.answer(results, lights(results, LIMITS, 0.5), drops(results))

    fine = {
        "fields": lambda table: table.assign(out_of_focus=False, edge=0.2, bad=False),
        "plates": lambda table: table.assign(flagged_share=0.05, feature_shift=0.1),
    }
    found = told(**fine)
    assert found["level"] == LOOK
    assert found["text"].startswith("Yes, once you leave out 2 bad wells and ")
    assert found["text"].endswith(" flagged cells elsewhere.")
    good = fine | {"wells": lambda table: table.assign(bad=False)}
    assert told(**good) == {
        "level": PASS,
        "text": f"Yes, once you leave out {int(screen['cells']['flagged'].sum())} flagged cells.",
    }
    part = fine | {"plates": lambda table: table.assign(flagged_share=[0.5, 0.05])}
    text = told(**part)["text"]
    assert text.startswith("Partly: 1 of 2 plates can be used; the other fails on cells flagged.")
    all_ = fine | {"plates": lambda table: table.assign(flagged_share=0.5, feature_shift=9)}
    assert told(**all_)["text"].startswith("Not yet: both plates fail on cells flagged and drift.")


def test_the_slider_counts_what_each_threshold_flags(screen):
    cells = screen["cells"]
    labels = cells.dropna(subset="score").head(60)[["crop_id"]].assign(label="normal")
    found = score_data(cells, PROMISE, labels)
    scores = cells["score"].dropna()
    counts = [step["flagged"] for step in found["steps"]]
    assert counts == [(scores > at).sum() for at in (0, 0.5, 0.8, 1)]
    assert found["steps"][found["own"]]["flagged"] == cells["flagged"].fillna(False).sum()
    assert sum(found["histograms"]["cells"]) == len(scores)
    assert sum(found["histograms"]["normal"]) == 60
    assert score_data(cells, {"threshold": 0.3}, None)["steps"] == []


@pytest.mark.parametrize("good_cells_lost", [0.05, 0.1, 0.2])
def test_the_promise_at_the_chosen_threshold_is_the_one_asked_for(good_cells_lost):
    rng = np.random.default_rng(3)
    labels = (rng.random(900) < 0.2).astype(int)
    scores = np.where(labels, rng.beta(5, 2, 900), rng.beta(1, 5, 900))
    wells = np.repeat(np.arange(90), 10)
    chosen = choose_threshold(scores, labels, wells, good_cells_lost, 0.95)
    at, below = promises_at(
        scores, labels, wells, [chosen.threshold, chosen.threshold - 1e-9], 0.95
    )
    assert at <= good_cells_lost < below
    # The share promised there gives that threshold again.
    again = choose_threshold(scores, labels, wells, at, 0.95)
    assert again.threshold == pytest.approx(chosen.threshold)
    grid = promises_at(scores, labels, wells, np.linspace(0, 1, 50), 0.95)
    assert np.isnan(grid[0]) and (np.diff(grid[~np.isnan(grid)]) <= 0).all()
    assert grid[-1] == pytest.approx(
        promises_at(scores, labels, wells, [scores[labels == 0].max()], 0.95)[0]
    )
    assert np.isnan(promises_at(scores, labels, np.zeros(900), [0.9], 0.95)).all()


def test_the_map_shows_shares_of_each_artefact_that_add_up_to_the_flagged_share(screen):
    results = read_results(screen["folder"])
    found = {one["key"]: one for one in measures(results)}
    kinds = [one["values"] for key, one in found.items() if key.startswith("kind ")]
    assert len(kinds) == 4
    np.testing.assert_allclose(np.sum(kinds, axis=0), results.wells["flagged_share"])
    np.testing.assert_array_equal(found["nuclei"]["values"], results.wells["nuclei"])
    np.testing.assert_array_equal(found["per_field"]["values"], results.wells["nuclei"] / 2)


def test_the_brightness_of_a_well_is_that_of_its_crops(screen, monkeypatch):
    found = [one for one in data_of(screen["plate"])["measures"] if one["key"].startswith("light")]
    assert [one["name"] for one in found] == ["intensity: w1", "intensity: w2", "intensity: w3"]
    monkeypatch.setattr(page_data, "PER_WELL", 10_000)
    shards, cells = Shards([screen["shards"]]), screen["cells"]
    table = page_data.brightness_of_wells(shards, cells, ["w3", "w1"])
    own = cells[(cells["Metadata_Plate"] == "p2") & (cells["Metadata_Well"] == "C04")]
    own = own[own["score"].notna()]
    pixels = shards.read(shards.rows_of(own["crop_id"].tolist()))
    expected = np.median(pixels.mean(axis=(2, 3)), axis=0)
    np.testing.assert_allclose(table.loc[("p2", "C04")], expected[[2, 0]])
    assert len(table) == 24


def test_the_page_of_a_plate_has_its_own_and_that_of_the_screen_leads_there(screen):
    whole, own = data_of(screen["page"]), data_of(screen["plate"])
    assert [one["page"] for one in whole["plates"]] == ["report/p1.html", "report/p2.html"]
    assert [one["page"] for one in own["plates"]] == [None]
    assert len(whole["wells"]["well"]) == 24 and whole["fields"]["at"] == []
    assert len(own["wells"]["well"]) == 12 and len(own["fields"]["at"]) == 24
    assert {crop.split("/")[1] for crop in own["crops"]["id"]} == {"p1"}
    assert 'href="report/p1.html"' in screen["page"]
    assert 'href="../report.html"' in screen["plate"]
    cells = screen["cells"]
    flagged = cells["flagged"].fillna(False) & (cells["Metadata_Plate"] == "p1")
    assert flagged.sum() == sum(own["wells"]["flagged"]) == own["scores"]["steps"][2]["flagged"]
    assert set(cells.loc[flagged, "crop_id"]) <= set(own["crops"]["id"])
    assert plate_page("a b#1%?") == "report/a%20b%231%25%3F.html"


def test_a_screen_of_one_plate_has_all_in_one_page(screen, tmp_path):
    cells = screen["cells"][screen["cells"]["Metadata_Plate"] == "p2"].copy()
    page = render(make_folder(tmp_path / "one", cells, 2), screen["shards"])
    found = data_of(page)
    assert found["plates"] == [{"name": "p2", "page": None}]
    assert len(found["fields"]["at"]) == 24 and 'id="compounds"' in page


def test_an_unknown_plate_is_named(screen):
    with pytest.raises(InputError, match="there is no plate p9"):
        of_plate(read_results(screen["folder"]), "p9")
    with pytest.raises(InputError, match="plates/p9: there is no plate p9; "):
        read_results(screen["folder"], "p9")


def test_one_plate_is_read_as_it_is_among_all(screen):
    own = read_results(screen["folder"], "p2")
    of_all = of_plate(read_results(screen["folder"]), "p2")
    for name in ("cells", *COLUMNS):
        pd.testing.assert_frame_equal(getattr(own, name), getattr(of_all, name), check_dtype=False)
    assert set(own.cells["Metadata_Plate"]) == {"p2"} and own.compounds.empty


def test_a_cell_that_was_not_scored_is_not_flagged():
    cells = pd.DataFrame({"flagged": pd.array([True, None, False], "boolean")})
    assert is_flagged(cells).tolist() == [True, False, False]
    assert is_flagged(cells.astype(object)).dtype == bool


@settings(max_examples=40)
@given(st.dictionaries(st.text(), st.text() | st.floats() | st.none() | st.booleans()))
def test_no_value_ends_the_script_element_or_breaks_the_json(values):
    text = as_script(values)
    assert not set("<>&\u2028\u2029") & set(text)
    back = json.loads(text)
    for key, value in values.items():
        if isinstance(value, float):
            known = np.isfinite(float(f"{value:.4g}"))
            assert back[key] == pytest.approx(value, rel=1e-3) if known else back[key] is None
        else:
            assert back[key] == value


def test_a_plate_on_which_no_nucleus_was_found_has_a_page(screen):
    results = read_results(screen["folder"])
    gone = {
        name: getattr(results, name)
        .query("Metadata_Plate == 'p1'")
        .assign(nuclei=0, scored=0, flagged=0, flagged_share=np.nan, low=np.nan, high=np.nan)
        for name in ("fields", "wells", "plates")
    }
    gone["fields"] = gone["fields"].assign(edge=np.nan, empty=True, bad=True)
    gone["wells"] = gone["wells"].assign(focus=np.nan, artefact=None)
    empty = replace(results, cells=results.cells.head(0), **gone)
    page = render_report(replace(described(screen["folder"], screen["shards"]), results=empty))
    assert "No: no cell was scored." in page and "Nothing was scored." in page
    found = data_of(page)
    assert found["crops"]["id"] == [] and found["scores"]["scored"] == 0
    assert found["measures"][0]["key"] == "nuclei"
