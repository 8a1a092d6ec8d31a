"""Intervals and rankings: exact where known, and no more false winners than is promised."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binom, false_discovery_control, norm, t

from hcsqc.analyses.ranking import compare_encoders, groups, holm, rank, sentence
from hcsqc.figures.ranking import plot_ranking
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.metrics import score_predictions
from hcsqc.probes.resampling import bootstrap_scores, interval, p_value

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
                        "score": score[inside],
                    }
                )
            )
        found[name] = pd.concat(parts, ignore_index=True)
    return found


def ranked(predictions: dict[str, pd.DataFrame], replicates: int = 200):
    """Return the ranking table and the ranked encoders."""
    scores, resampled = [], []
    for name, rows in predictions.items():
        about = {"encoder": name, "seed": 0, "probe": "knn", "budget": 50}
        scores.append(score_predictions(rows).assign(**about))
        resampled.append(bootstrap_scores(rows, ["f1"], replicates, seed=0).assign(**about))
    scores = pd.concat(scores)
    scores = scores[scores["metric"] == "f1"]
    resampled = pd.concat(resampled)
    table = compare_encoders(scores, resampled)
    return table, rank(table, scores, resampled)


def test_a_planted_winner_is_found_and_named():
    table, found = ranked(simulated(np.random.default_rng(1), [2.5, 0.2, 0.2, 0.2]))
    assert found["encoder"].iloc[0] == "a"
    assert found["verdict"].tolist() == ["best", "worse", "worse", "worse"]
    assert sentence(found) == "a is best."
    assert (found["low"] <= found["mean"]).all() and (found["mean"] <= found["high"]).all()
    assert (found["difference"].iloc[1:] < 0).all()
    others = found["encoder"].tolist()[1:]
    assert not any("a" in run for run in groups(table, found["encoder"].tolist()))
    assert groups(table, found["encoder"].tolist()) == [others]


def test_an_encoder_that_is_alone_under_a_probe_is_ranked_without_a_comparison():
    rng = np.random.default_rng(0)
    scores, replicates = [], []
    for probe, skills in (("knn", (1.0, 0.5)), ("finetune", (1.0,))):
        for name, predictions in simulated(rng, skills).items():
            about = {"encoder": name, "seed": 0, "probe": probe, "budget": 350}
            scores.append(score_predictions(predictions).assign(**about))
            replicates.append(bootstrap_scores(predictions, ["f1"], 50, seed=0).assign(**about))
    scores, replicates = pd.concat(scores), pd.concat(replicates)
    scores = scores[scores["metric"] == "f1"]
    found = rank(compare_encoders(scores, replicates), scores, replicates)
    alone = found[found["probe"] == "finetune"]
    assert alone["encoder"].tolist() == ["a"] and alone["p"].isna().all()
    assert sentence(alone) == "a is the only encoder."
    assert found["probe"].tolist().count("knn") == 2


def test_equal_encoders_are_a_tie_and_it_is_said():
    _, found = ranked(simulated(np.random.default_rng(2), [0.8, 0.8, 0.8]))
    assert found["verdict"].tolist() == ["tie"] * 3
    assert sentence(found).startswith("A tie of all: ")


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
        assert sentence(found) == f"{verdict.capitalize()}, and one needs {FEWEST_DRAWS}."
    else:
        assert found["verdict"].tolist() == ["best", "worse", "worse"]


def test_a_tie_at_the_top_names_who_is_in_it():
    table = pd.DataFrame({"encoder": ["a", "b", "c"], "verdict": ["tie", "tie", "worse"]})
    assert sentence(table).endswith(
        "a has the highest mean, but these labels do not tell it from b."
    )


@pytest.mark.parametrize("studies", [15, pytest.param(120, marks=pytest.mark.statistics)])
def test_of_planted_ties_no_more_are_called_different_than_promised(studies):
    """Of 120 studies of four equal encoders at most 12 alarm at 5%, with 99% certainty."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(studies):
        table, _ = ranked(simulated(rng, [0.8] * 4), replicates=120)
        wrong += bool((table["p"] < 0.05).any())
    assert wrong <= binom.ppf(0.99, studies, 0.05), f"{wrong} of {studies}"


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
    replicates = np.random.default_rng(0).normal(0.1, 0.05, 100_000)
    error = 0.05 * np.sqrt(10 / 9)
    assert p_value(0.1, replicates, 10) == pytest.approx(2 * t.sf(0.1 / error, 9), rel=0.02)
    assert p_value(0.1, np.full(5, 0.1), 10) == 0
    assert p_value(0.0, np.zeros(5), 10) == 1
    assert p_value(0.1, replicates, 1) == 1


def test_holm_is_between_bonferroni_and_no_correction():
    values = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    bonferroni = np.minimum(4 * values, 1)
    assert (holm(values) <= bonferroni + 1e-12).all() and (holm(values) >= values).all()
    assert (holm(values) >= false_discovery_control(values) - 1e-12).all()
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_groups_are_runs_of_which_no_two_differ():
    apart = pd.DataFrame(
        [("a", "c", 0.01), ("c", "a", 0.01), ("a", "d", 0.01), ("d", "a", 0.01), ("b", "d", 0.2)],
        columns=["encoder", "other", "p"],
    )
    assert groups(apart, ["a", "b", "c", "d"]) == [["a", "b"], ["b", "c", "d"]]


def test_an_encoder_with_two_seeds_is_their_mean():
    both = simulated(np.random.default_rng(8), [1.0, 0.4])
    scores, resampled = [], []
    for name, seed, rows in (("x", 0, both["a"]), ("x", 1, both["b"]), ("y", 0, both["a"])):
        about = {"encoder": name, "seed": seed, "probe": "knn", "budget": 50}
        scores.append(score_predictions(rows).assign(**about))
        resampled.append(bootstrap_scores(rows, ["f1"], 50, seed=0).assign(**about))
    scores = pd.concat(scores)
    table = compare_encoders(scores[scores["metric"] == "f1"], pd.concat(resampled))
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
