"""Intervals and rankings: exact where known, and no more false winners than is promised."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binom, false_discovery_control, norm, t

from hcsqc.analyses.differences import difference_variances
from hcsqc.analyses.ranking import best_p, compare_encoders, holm, rank
from hcsqc.figures.ranking import plot_ranking
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.metrics import score_predictions
from hcsqc.probes.resampling import (
    bootstrap_scores,
    interval,
    p_value,
    scores_without_groups,
)

NAMES = ["a", "b", "c", "d"]


def simulated(rng, skills, wells=12, per_well=12, draws=8, common=0.7) -> dict[str, pd.DataFrame]:
    """Return predictions of encoders of some skill: wells differ, and draws share their crops."""
    crop = np.array(
        [f"s/p/W{w:02d}/s1/x{i:04d}y0000" for w in range(wells) for i in range(per_well)]
    )
    label = np.tile(np.arange(per_well) % 2, wells)
    well = np.repeat(np.arange(wells), per_well)
    hard = rng.normal(0, common, len(crop)) + rng.normal(0, common, wells)[well]
    tested = [rng.permutation(wells)[: wells // 2] for _ in range(draws)]
    found = {}
    for name, skill in zip(NAMES, skills, strict=False):
        own = rng.normal(0, 0.5, len(crop)) + rng.normal(0, 0.3, wells)[well]
        parts = []
        for draw, chosen in enumerate(tested):
            noise = rng.normal(0, 0.5, len(crop)) + rng.normal(0, 0.2)
            margin = skill + hard + own + noise
            score = norm.cdf(np.where(label == 1, margin, -margin))
            inside = np.isin(well, chosen)
            parts.append(
                pd.DataFrame(
                    {
                        "draw": draw,
                        "screen": "s",
                        "crop_id": crop[inside],
                        "label": np.where(label, "abnormal", "normal")[inside],
                        "group": [f"p/W{w:02d}" for w in well[inside]],
                        "score": score[inside],
                    }
                )
            )
        found[name] = pd.concat(parts, ignore_index=True)
    return found


def ranked(predictions: dict[str, pd.DataFrame], replicates: int = 200):
    """Return the ranking table and the ranked encoders."""
    scores, resampled, left_out = evidence(
        [({"encoder": name}, rows) for name, rows in predictions.items()], replicates
    )
    table = compare_encoders(scores, left_out, {50: 0.1})
    return table, rank(table, scores, resampled)


def evidence(parts, replicates: int = 50):
    """Return scores, replicates and scores without a well of (what differs, predictions)."""
    found = ([], [], [])
    for changes, rows in parts:
        about = {"encoder": "a", "seed": 0, "probe": "knn", "budget": 50} | changes
        scores = score_predictions(rows)
        tables = (
            scores[scores["metric"] == "f1"],
            bootstrap_scores(rows, ["f1"], replicates, seed=0),
            scores_without_groups(rows, ["f1"]),
        )
        for gathered, table in zip(found, tables, strict=True):
            gathered.append(table.assign(**about))
    return [pd.concat(gathered, ignore_index=True) for gathered in found]


def test_a_planted_winner_is_found_and_named():
    _, found = ranked(simulated(np.random.default_rng(1), [2.5, 0.2, 0.2, 0.2]))
    assert found["encoder"].iloc[0] == "a"
    assert found["verdict"].tolist() == ["best", "worse", "worse", "worse"]
    assert found["best"].tolist() == [True, False, False, False]
    assert found["not_distinguished"].tolist() == [True, False, False, False]
    assert (found["low"] <= found["mean"]).all() and (found["mean"] <= found["high"]).all()
    assert (found["difference"].iloc[1:] < 0).all()


def test_an_encoder_that_is_alone_under_a_probe_is_ranked_without_a_comparison():
    rng = np.random.default_rng(0)
    scores, replicates, left_out = evidence(
        [
            ({"encoder": name, "probe": probe, "budget": 350}, predictions)
            for probe, skills in (("knn", (1.0, 0.5)), ("finetune", (1.0,)))
            for name, predictions in simulated(rng, skills).items()
        ]
    )
    found = rank(compare_encoders(scores, left_out, {}), scores, replicates)
    alone = found[found["probe"] == "finetune"]
    assert alone["encoder"].tolist() == ["a"] and alone["p"].isna().all()
    assert not alone["best"].any() and alone["not_distinguished"].all()
    assert found["probe"].tolist().count("knn") == 2


def test_equal_encoders_are_a_tie():
    _, found = ranked(simulated(np.random.default_rng(2), [0.8, 0.8, 0.8]))
    assert found["verdict"].tolist() == ["tie"] * 3


@pytest.mark.parametrize(
    ("draws", "verdict"),
    [(1, "no verdict: 1 draw"), (FEWEST_DRAWS - 1, "no verdict: 4 draws"), (FEWEST_DRAWS, None)],
)
def test_few_draws_give_no_verdict_even_of_a_clear_winner(draws, verdict, tmp_path):
    table, found = ranked(simulated(np.random.default_rng(1), [4, 0.2, 0.2], draws=draws))
    assert found["encoder"].iloc[0] == "a" and set(found["draws"]) == {draws}
    plot_ranking(found, tmp_path / "ranking.png")
    if verdict:
        assert set(found["verdict"]) == {verdict}
        assert not found["best"].any() and found["not_distinguished"].all()
    else:
        assert found["verdict"].tolist() == ["best", "worse", "worse"]


@pytest.mark.parametrize("studies", [15, pytest.param(120, marks=pytest.mark.statistics)])
def test_of_equal_encoders_none_is_called_best_and_the_first_is_not_excluded(studies):
    """At 5%, with 99% certainty: no winner among four, and the first of them not excluded."""
    rng = np.random.default_rng(3)
    winners = excluded = 0
    for _ in range(studies):
        _, found = ranked(simulated(rng, [0.8] * 4), replicates=20)
        winners += found["best"].any()
        excluded += not found.set_index("encoder")["not_distinguished"]["a"]
    most = binom.ppf(0.99, studies, 0.05)
    assert winners <= most and excluded <= most, f"{winners}, {excluded} of {studies}"


def test_a_difference_of_17_points_is_distinguished():
    """Nearest neighbours: 84.5 and 67.3, with ten draws and 12 wells."""
    skills = [1.2, 0.8, 0.8, 0.8]
    table, found = ranked(simulated(np.random.default_rng(6), skills, wells=12, draws=10))
    means = found.set_index("encoder")["mean"]
    assert 0.15 < means["a"] - means["d"] < 0.2
    pair = table.set_index(["encoder", "other"]).loc[("a", "d")]
    assert pair["p"] < 0.05 and pair["low"] > 0
    assert not found.set_index("encoder")["not_distinguished"]["d"]


def test_the_best_one_is_compared_with_each_other_in_both_directions():
    table, _ = ranked(simulated(np.random.default_rng(4), [1.2, 0.6, 0.9]))
    assert len(table) == 3 * 2
    assert set(zip(table["encoder"], table["other"], strict=True)) == {
        (one, other) for one in "abc" for other in "abc" if one != other
    }
    pair = table.set_index(["encoder", "other"])
    assert pair.loc[("a", "b"), "difference"] == -pair.loc[("b", "a"), "difference"]
    assert pair.loc[("a", "b"), "low"] == -pair.loc[("b", "a"), "high"]
    assert pair.loc[("a", "b"), "p"] == pair.loc[("b", "a"), "p"]


def test_replicates_repeat_and_are_those_of_the_wells_and_draws():
    rows = simulated(np.random.default_rng(5), [0.8])["a"]
    found = bootstrap_scores(rows, ["f1", "auc"], 50, seed=7)
    again = bootstrap_scores(rows.sample(frac=1, random_state=0), ["f1", "auc"], 50, seed=7)
    pd.testing.assert_frame_equal(found, again)
    mean = score_predictions(rows).groupby("metric")["value"].mean()
    for metric, group in found.groupby("metric"):
        assert len(group) == 50
        assert abs(group["value"].mean() - mean[metric]) < 0.05


def test_one_replicate_equals_the_mean_over_resampled_draws_of_repeated_crops():
    rows = simulated(np.random.default_rng(6), [0.5], wells=5, draws=3)["a"]
    found = bootstrap_scores(rows, ["accuracy"], 4, seed=1)["value"].to_numpy()
    rng = np.random.default_rng(1)
    names = sorted({crop.split("/")[2] for crop in rows["crop_id"]})
    wells = rng.multinomial(len(names), [1 / len(names)] * len(names), 4)
    draws = rng.multinomial(3, [1 / 3] * 3, 4)
    for replicate in range(4):
        values = []
        for draw in range(3):
            own = rows[rows["draw"] == draw]
            times = [wells[replicate][names.index(c.split("/")[2])] for c in own["crop_id"]]
            if not sum(times):
                continue
            again = own.loc[own.index.repeat(times)]
            right = (again["score"] > 0.5) == (again["label"] == "abnormal")
            values += [right.mean()] * draws[replicate][draw]
        assert found[replicate] == pytest.approx(np.mean(values))


def test_few_wells_make_an_interval_wider_and_one_none():
    values = np.random.default_rng(0).normal(0, 1, 20_000)
    low, high = interval(values, 1000)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.06)
    for wells in (4, 12):
        wide = np.sqrt(wells / (wells - 1)) * t.ppf(0.975, wells - 1)
        assert interval(values, wells)[1] == pytest.approx(wide, rel=0.1)
    assert np.isnan(interval(values, 1)).all()


def test_p_is_students():
    found = p_value(
        np.array([0.1, 0.1, 0.0, 0.1]), np.array([0.05**2, 0, 0, np.nan]), np.full(4, 9)
    )
    assert found == pytest.approx([2 * t.sf(2, 9), 0, 1, 1])


def test_one_well_tells_nothing_and_undefined_scores_do_no_harm():
    _, found = ranked(simulated(np.random.default_rng(0), [3.0, 0.2], wells=2))
    assert found["verdict"].tolist() == ["tie", "tie"]  # one well in each draw
    rng = np.random.default_rng(1)
    scores = rng.normal([[0.9], [0.5]], 0.01, (2, 6))
    left_out = scores[:, None] + rng.normal(0, 0.01, (2, 4, 6))
    left_out[:, 3] = np.inf  # a well that no draw tests
    left_out[:, 0, 2] = np.nan
    variance, freedom = difference_variances(scores, left_out, 0.1)
    assert np.isfinite(variance).all() and (freedom >= 2).all()
    left_out[:, 1:] = np.inf
    assert np.isnan(difference_variances(scores, left_out, 0.1)[0]).all()


def test_the_variance_is_that_of_a_mean_over_wells_where_all_draws_agree():
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, (2, 7))  # of two encoders in seven wells, a crop each
    scores = np.repeat(values.mean(axis=1)[:, None], 5, axis=1)
    without = (values.sum(axis=1, keepdims=True) - values) / 6
    left_out = np.repeat(without[:, :, None], 5, axis=2)
    variance, freedom = difference_variances(scores, left_out, 0.5)
    expected = (values[0] - values[1]).var(ddof=1) / 7
    assert variance[0, 1] == pytest.approx(expected) and freedom[0, 1] == pytest.approx(6)
    assert variance[0, 0] == 0


def test_the_variance_is_that_of_draws_where_wells_agree_and_grows_as_draws_overlap():
    scores = np.random.default_rng(3).normal(0, 1, (2, 8))
    left_out = np.repeat(scores[:, None], 5, axis=1)
    spread = (scores[0] - scores[1]).var(ddof=1)
    for overlap in (0.0, 0.5):
        variance, freedom = difference_variances(scores, left_out, overlap)
        assert variance[0, 1] == pytest.approx(spread * (1 / 8 + overlap / (1 - overlap)))
        assert freedom[0, 1] == pytest.approx(7)


def test_p_of_being_best_counts_the_others_and_at_least_two():
    pairs = pd.DataFrame(
        [("a", "b", 0.1, 0.02), ("a", "c", 0.2, 0.001), ("b", "c", 0.1, 0.2)],
        columns=["encoder", "other", "difference", "p_alone"],
    )
    mirrored = pairs.assign(
        encoder=pairs["other"], other=pairs["encoder"], difference=-pairs["difference"]
    )
    found = best_p(pd.concat([pairs, mirrored]))
    assert found.to_dict() == pytest.approx({"a": 1, "b": 0.02, "c": 0.001})
    two = best_p(pd.concat([pairs[:1], mirrored[:1]]))
    assert two.to_dict() == pytest.approx({"a": 1, "b": 0.02})


def test_a_score_without_a_well_is_that_of_the_other_crops():
    rows = simulated(np.random.default_rng(5), [0.8], wells=4, draws=2)["a"]
    found = scores_without_groups(rows, ["f1", "auc"])
    assert not found.duplicated(["draw", "screen", "metric", "group"]).any()
    assert len(found) == 2 * 2 * 2  # draws, metrics, and wells that a draw tests
    for (draw, well), group in found.groupby(["draw", "group"]):
        kept = rows[(rows["draw"] == draw) & ~rows["crop_id"].str.contains(f"/{well}/")]
        expected = score_predictions(kept).set_index("metric")["value"]
        for row in group.itertuples():
            assert row.value == pytest.approx(expected[row.metric])
    one_class = rows[(rows["label"] == "normal") | rows["crop_id"].str.contains("/W00/")]
    lost = scores_without_groups(one_class, ["auc"]).query("group == 'p/W00'")
    assert len(lost) and lost["value"].isna().all()
    assert len(scores_without_groups(rows[:0], ["f1"])) == 0


def test_holm_is_between_bonferroni_and_no_correction():
    values = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    bonferroni = np.minimum(4 * values, 1)
    assert (holm(values) <= bonferroni + 1e-12).all() and (holm(values) >= values).all()
    assert (holm(values) >= false_discovery_control(values) - 1e-12).all()
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_an_encoder_with_two_seeds_is_their_mean():
    both = simulated(np.random.default_rng(8), [1.0, 0.4])
    scores, _, left_out = evidence(
        [
            ({"encoder": name, "seed": seed}, rows)
            for name, seed, rows in (("x", 0, both["a"]), ("x", 1, both["b"]), ("y", 0, both["a"]))
        ]
    )
    table = compare_encoders(scores, left_out, {})
    own = scores[scores["metric"] == "f1"].groupby(["encoder", "seed"])["value"].mean()
    expected = (own["x", 0] + own["x", 1]) / 2 - own["y", 0]
    assert table.loc[table["encoder"] == "x", "difference"].item() == pytest.approx(expected)


def test_the_figure_shows_a_panel_per_ranking(tmp_path):
    table, found = ranked(simulated(np.random.default_rng(9), [1.5, 0.4, 0.4, 0.2]))
    other = [rows.assign(budget=25) for rows in (found, table)]
    both = [pd.concat(pair) for pair in zip((found, table), other, strict=True)]
    plot_ranking(both[0], tmp_path / "two.png")
    plot_ranking(found, tmp_path / "one.png")
    heights = [Image.open(tmp_path / name).size[1] for name in ("one.png", "two.png")]
    assert heights[1] > 1.8 * heights[0]
