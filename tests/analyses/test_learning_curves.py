"""Learning curves: planted ones are recovered, flat ones gain nothing, falling ones are named."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import least_squares

from hcsqc.analyses.learning_curves import (
    COLUMNS,
    Curve,
    drops,
    fit_curve,
    learning_curves,
    points,
)
from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.figures.learning_curves import plot_learning_curves, spread
from hcsqc.figures.style import KIND_STYLE
from hcsqc.probes.draws import FEWEST_DRAWS
from scripts.analyses import fit_learning_curves

NO_WORDS = json.dumps({"encoders": {}, "probes": {}})
BUDGETS = [10, 25, 50, 100, 350]


def planted(curve, noise=0.0, draws=20, encoder="a", probe="knn", seed=0, budgets=BUDGETS, seeds=1):
    """Return scores on a curve; a draw lies above or below it at every budget alike, and a bit."""
    rng = np.random.default_rng(seed)
    values = curve(np.array(budgets)) + rng.normal(0, noise, (seeds, draws, 1))
    values = values + rng.normal(0, noise / 2, (seeds, draws, len(budgets)))
    rows = [
        (encoder, number, probe, budget, draw, "s", "f1", values[number, draw, place], 130)
        for number in range(seeds)
        for draw in range(draws)
        for place, budget in enumerate(budgets)
    ]
    names = ["encoder", "seed", "probe", "budget", "draw", "screen", "metric", "value", "n_test"]
    return pd.DataFrame(rows, columns=names)


def resampled(scores, count=20, seed=0):
    """Return replicates: means over draws drawn again, as many wells as draws."""
    parts = []
    keys = ["encoder", "probe", "screen", "metric"]
    for key, group in scores.groupby(keys, sort=False):
        table = group.pivot_table(index="draw", columns="budget", values="value")
        chosen = np.random.default_rng(seed).integers(len(table), size=(count, len(table)))
        means = pd.DataFrame(table.to_numpy()[chosen].mean(axis=1), columns=table.columns)
        part = means.rename_axis("replicate").reset_index().melt("replicate", var_name="budget")
        parts.append(part.assign(**dict(zip(keys, key, strict=True)), n_groups=len(table), seed=0))
    return pd.concat(parts, ignore_index=True)


def rising(n):
    return 0.9 - 1.2 * n**-0.6


def falling(n):
    return 0.8 - 0.03 * np.log(n)


def flat(n):
    return np.full(len(n), 0.7)


def the_curve(scores, replicates=60):
    (row,) = learning_curves(scores, resampled(scores, replicates, 0), "s").to_dict("records")
    return row


@settings(deadline=None, max_examples=40)
@given(st.floats(0.6, 1), st.floats(0.2, 1.5), st.floats(0.1, 1.9))
def test_a_planted_curve_is_recovered(asymptote, scale, exponent):
    truth = Curve(asymptote, scale, exponent)
    found = fit_curve(np.array(BUDGETS), truth.at(BUDGETS), np.full(5, 0.02))
    np.testing.assert_allclose(found.at(BUDGETS), truth.at(BUDGETS), atol=1e-4)
    assert found.asymptote == pytest.approx(asymptote, abs=0.02)
    assert found.exponent == pytest.approx(exponent, rel=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_curve_within_the_bounds_is_nearer(seed):
    """scipy's least squares, started at many places, as the oracle."""
    rng = np.random.default_rng(seed)
    budgets, spreads = np.array(BUDGETS, float), rng.uniform(0.01, 0.1, 5)
    scores = np.clip(np.sort(rng.uniform(0.4, 1, 5)) + rng.normal(0, 0.05, 5), 0, 1)

    def errors(x):
        return (x[0] - x[1] * budgets ** -x[2] - scores) / spreads

    starts = [(a, b, c) for a in (0.5, 0.95) for b in (0.05, 1) for c in (0.1, 0.5, 1.8)]
    bounds = ([0, 0, 0.05], [1, np.inf, 2])
    best = min(least_squares(errors, start, bounds=bounds).cost for start in starts)
    found = fit_curve(budgets, scores, spreads)
    cost = (errors((found.asymptote, found.scale, found.exponent)) ** 2).sum() / 2
    assert cost <= best * (1 + 1e-3) + 1e-9
    assert 0 <= found.asymptote <= 1 and found.scale >= 0 and 0.05 <= found.exponent <= 2


def test_a_budget_whose_draws_scatter_counts_less():
    scores = rising(np.array(BUDGETS, float))
    scores[1] += 0.2
    steady, scattered = np.full(5, 0.02), np.array([0.02, 0.5, 0.02, 0.02, 0.02])
    alike = fit_curve(np.array(BUDGETS), scores, steady)
    weighted = fit_curve(np.array(BUDGETS), scores, scattered)
    assert abs(weighted.at(350) - rising(350)) < 0.002 < abs(alike.at(350) - rising(350))


def test_the_gain_of_a_planted_curve_lies_in_its_interval():
    row = the_curve(planted(rising, noise=0.02), replicates=200)
    gain = 100 * (rising(400.0) - rising(350.0))
    assert row["gain_low"] <= row["gain_next_50"] <= row["gain_high"]
    assert row["gain_low"] <= gain <= row["gain_high"]
    assert row["asymptote_low"] <= 0.9 <= row["asymptote_high"]
    assert row["largest_budget"] == 350 and row["score"] == pytest.approx(rising(350.0), abs=0.02)
    assert row["budgets"] == "10 25 50 100 350" and row["draws"] == 20 and row["reason"] is None


def test_a_flat_curve_gains_nothing():
    row = the_curve(planted(flat))
    found = [row[name] for name in ("gain_next_50", "gain_low", "gain_high")]
    assert found == pytest.approx([0, 0, 0], abs=1e-6)
    assert row["asymptote"] == pytest.approx(0.7) and row["reason"] is None
    noisy = the_curve(planted(flat, noise=0.02))
    assert noisy["reason"] is None and noisy["gain_low"] <= 0.05 and noisy["gain_high"] < 1.5


def test_a_falling_curve_is_named_and_has_no_numbers():
    row = the_curve(planted(falling, noise=0.01))
    assert row["reason"] == "does not rise"
    empty = ["gain_next_50", "gain_low", "asymptote", "scale", "exponent"]
    assert all(np.isnan(row[name]) for name in empty)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budgets": [50, 350]}, "a curve needs 3 budgets, not 2"),
        ({"draws": 4}, "an interval needs 5 draws, not 4"),
    ],
)
def test_too_few_budgets_or_draws_are_a_reason_and_no_curve(changes, reason):
    row = the_curve(planted(rising, **changes))
    assert row["reason"] == reason and np.isnan(row["gain_next_50"])
    assert row["score"] == pytest.approx(rising(350.0))


def test_five_draws_are_enough():
    assert the_curve(planted(rising, noise=0.01, draws=FEWEST_DRAWS))["reason"] is None


def test_drops_are_paired_by_replicate():
    # Draws differ far more than a draw differs between budgets.
    scores = planted(rising, noise=0.0)
    scores["value"] += np.random.default_rng(1).normal(0, 0.2, 20)[scores["draw"]]
    (row,) = drops(scores, resampled(scores, 100, 0), "s").to_dict("records")
    loss = rising(350.0) - rising(10.0)
    assert [row["drop"], row["low"], row["high"]] == pytest.approx([loss] * 3)
    assert (row["low_budget"], row["high_budget"]) == (10, 350)


def test_a_drop_of_scattered_draws_has_an_interval_of_students_width():
    scores = planted(rising, noise=0.05, draws=20)
    (row,) = drops(scores, resampled(scores, 4000, 0), "s").to_dict("records")
    table = scores.pivot(index="draw", columns="budget", values="value")
    error = (table[350] - table[10]).sem()
    assert (row["high"] - row["low"]) / 2 == pytest.approx(2.09 * error, rel=0.1)
    assert row["drop"] == pytest.approx((table[350] - table[10]).mean())


def test_a_falling_score_is_a_drop_below_nought():
    (row,) = drops(planted(falling), resampled(planted(falling), 20, 0), "s").to_dict("records")
    assert row["high"] < 0


def test_a_probe_of_one_budget_has_no_drop():
    table = drops(
        planted(rising, budgets=[350]), resampled(planted(rising, budgets=[350]), 20, 0), "s"
    )
    assert table.empty
    assert list(table) == [
        "encoder",
        "probe",
        "low_budget",
        "high_budget",
        "drop",
        "low",
        "high",
        "draws",
    ]


def test_seeds_of_pretraining_are_averaged_within_a_draw():
    scores = planted(rising, noise=0.05, seeds=2)
    mean = scores.groupby(["draw", "budget"])["value"].mean().unstack()
    (row,) = drops(scores, resampled(scores, 20, 0), "s").to_dict("records")
    assert row["drop"] == pytest.approx((mean[350] - mean[10]).mean())
    assert the_curve(scores)["draws"] == 20


def test_other_screens_and_metrics_do_not_count():
    scores = planted(rising)
    elsewhere = planted(falling).assign(screen="t")
    accuracy = planted(falling).assign(metric="accuracy")
    found = learning_curves(
        pd.concat([scores, elsewhere, accuracy]),
        resampled(pd.concat([scores, elsewhere, accuracy]), 20, 0),
        "s",
    )
    pd.testing.assert_frame_equal(found, learning_curves(scores, resampled(scores, 20, 0), "s"))


def test_the_same_seed_gives_the_same_intervals_and_another_does_not():
    scores = planted(rising, noise=0.03)
    first, again, other = (points(scores, resampled(scores, 50, seed), "s") for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first["low"].equals(other["low"])
    assert (first["low"] < first["score"]).all() and (first["score"] < first["high"]).all()


def test_a_screen_without_scores_is_refused():
    with pytest.raises(InputError, match="no f1 of screen elsewhere; give the scores of the scr"):
        learning_curves(planted(rising), resampled(planted(rising), 20, 0), "elsewhere")


def test_names_move_apart_no_more_than_they_must():
    np.testing.assert_allclose(spread(np.array([0.1, 0.5, 0.9]), 0.1), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(spread(np.array([0.5, 0.5]), 0.1), [0.45, 0.55])
    crowd = spread(np.r_[0.1, np.full(20, 0.5)], 0.01)
    assert crowd[0] == 0.1 and np.diff(crowd).min() > 0.0099
    assert crowd[1:].mean() == pytest.approx(0.5)


def test_the_script_writes_curves_drops_and_figure(tmp_path, monkeypatch):
    two = [planted(rising, 0.02), planted(falling, 0.01, encoder="b")]
    shuffled = planted(flat, probe="knn_shuffled")
    write_table(pd.concat([*two, shuffled]), tmp_path / "scores.parquet", "scores")
    kinds = {"a": {"kind": "ssl"}, "b": {"kind": "transfer"}}
    (tmp_path / "config.json").write_text(json.dumps({"config": {"encoders": kinds}}))
    replicates = resampled(pd.concat([*two, shuffled]))
    write_table(replicates, tmp_path / "replicates.parquet", "replicates")
    words = "--scores scores.parquet --replicates replicates.parquet --config config.json"
    words += " --train-screen s --probes knn"
    words += " --curves curves.csv --drops drops.csv --figure f.png"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        [fit_learning_curves.__file__, *words.split(), "--record", "run.json", "--words", NO_WORDS],
    )
    fit_learning_curves.main()
    curves = pd.read_csv("curves.csv")
    assert list(curves) == COLUMNS
    assert curves["encoder"].tolist() == ["a", "b"]
    assert curves["reason"].fillna("").tolist() == ["", "does not rise"]
    assert pd.read_csv("drops.csv")["encoder"].tolist() == ["a", "b"]
    assert Image.open("f.png").size[0] > 400
    metrics = json.loads((tmp_path / "run.json").read_text())["metrics"]
    assert metrics == {"curves": 1, "without": 1}


@pytest.mark.parametrize("kind", KIND_STYLE)
def test_line_and_dashed_extrapolation_lie_on_the_curve_and_names_stand_beside(
    kind, tmp_path, monkeypatch
):
    scores = pd.concat([planted(rising, 0.01, encoder=name) for name in ("a", "b")])
    kept = []
    monkeypatch.setattr(
        "hcsqc.figures.learning_curves.save_figure", lambda figure, path: kept.append(figure)
    )
    curves = learning_curves(scores, resampled(scores, 20, 0), "s")
    kinds = {"a": kind, "b": "transfer"}
    plot_learning_curves(
        points(scores, resampled(scores, 20, 0), "s"), curves, kinds, tmp_path / "f.png"
    )
    (axis,) = kept[0].axes
    a = Curve(*curves.loc[0, ["asymptote", "scale", "exponent"]])
    marks, line, beyond, *_ = axis.get_lines()
    assert (
        marks.get_marker() == KIND_STYLE[kind]["marker"] and marks.get_xdata().tolist() == BUDGETS
    )
    for drawn, ends in ((line, (10, 350)), (beyond, (350, 525))):
        assert (drawn.get_xdata()[0], drawn.get_xdata()[-1]) == pytest.approx(ends)
        np.testing.assert_allclose(drawn.get_ydata(), 100 * a.at(drawn.get_xdata()))
    assert beyond.is_dashed()
    assert {text.get_text() for text in axis.texts} == {"a", "b"}


def test_one_budget_and_one_draw_are_drawn_as_points(tmp_path):
    scores = planted(rising, budgets=[10], draws=1)
    curves = learning_curves(scores, resampled(scores, 20, 0), "s")
    plot_learning_curves(
        points(scores, resampled(scores, 20, 0), "s"), curves, {"a": "ssl"}, tmp_path / "f.png"
    )
    assert curves["reason"].tolist() == ["a curve needs 3 budgets, not 1"]
    assert points(scores, resampled(scores, 20, 0), "s")[["low", "high"]].isna().all(axis=None)
    assert Image.open(tmp_path / "f.png").size[0] > 400
