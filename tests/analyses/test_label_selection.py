"""Choosing labels: exact counts, no peeking, the rare found, and pairs that are pairs."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hcsqc.analyses.label_selection import (
    COLUMNS,
    choose,
    compare_selections,
    compare_to_random,
)
from hcsqc.core.errors import InputError
from hcsqc.core.schema import features_schema, write_table
from hcsqc.features.tables import features_table
from scripts.analyses import compare_label_selection


def fit_scores(train, targets, wells, tests):
    assert len(train) == len(targets) == len(wells) and set(targets) == {0, 1}
    model = LogisticRegression().fit(train, targets)
    return [model.predict_proba(matrix)[:, 1] for matrix in tests]


def rare_third(seed=0, common=150, rare=6):
    """Return features of two common clusters of normal crops and a rare one of abnormal ones."""
    rng = np.random.default_rng(seed)
    centres = np.repeat([[0, 0, 0], [8, 0, 0], [4, 12, 0]], [common, common, rare], axis=0)
    features = centres + rng.normal(0, 0.7, centres.shape)
    targets = np.repeat([0, 0, 1], [common, common, rare])
    order = rng.permutation(len(targets))
    return features[order].astype(np.float32), targets[order]


def chosen_of(features, targets, budget, seed=0):
    wells = np.array([f"p/B{row % 10:02d}" for row in range(len(targets))])
    return choose(features, targets, wells, budget, fit_scores, np.random.default_rng(seed))


def labels_until_rare(strategy, seed) -> int:
    features, targets = rare_third(seed)
    for budget in range(2, len(targets)):
        if targets[chosen_of(features, targets, budget, seed)[strategy]].any():
            return budget
    raise AssertionError("never found")


@pytest.mark.parametrize("strategy", ["diverse", "typical"])
@pytest.mark.parametrize("seeds", [1, pytest.param(6, marks=pytest.mark.statistics)])
def test_the_rare_class_is_found_with_fewer_labels_than_at_random(strategy, seeds):
    found, random = (
        np.mean([labels_until_rare(name, seed) for seed in range(seeds)])
        for name in (strategy, "random")
    )
    assert found < random / 3


@pytest.mark.parametrize("budget", [1, 2, 10, 11, 40, 306])
def test_every_strategy_chooses_as_many_different_crops(budget):
    for picked in chosen_of(*rare_third(), budget).values():
        assert len(picked) == len(set(picked)) == budget


def test_a_pool_of_crops_alike_is_filled_up_to_the_budget():
    features = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    targets = np.arange(30) % 2
    for picked in chosen_of(features, targets, 12).values():
        assert len(set(picked)) == 12
    assert set(chosen_of(features, targets, 3)["diverse"] // 10) == {0, 1, 2}


def test_random_labels_nest_and_follow_their_seed():
    features, targets = rare_third()
    few, many = (chosen_of(features, targets, budget)["random"] for budget in (10, 50))
    np.testing.assert_array_equal(few, many[:10])
    assert set(few) != set(chosen_of(features, targets, 10, seed=1)["random"])


def test_diverse_takes_the_crop_nearest_to_each_centre_of_standardised_features():
    features, targets = rare_third()
    scaled = features * np.array([1, 1000, 1], np.float32)
    first, second = (set(chosen_of(x, targets, 3)["diverse"]) for x in (features, scaled))
    assert first == second
    standardised = StandardScaler().fit_transform(features.astype(float))
    centres = KMeans(3, n_init=10, random_state=1).fit(standardised).cluster_centers_
    distances = np.linalg.norm(standardised[:, None] - centres, axis=2)
    assert first == set(distances.argmin(axis=0))


def test_typical_takes_the_densest_crop_of_each_cluster():
    rng = np.random.default_rng(0)
    # A cluster whose dense core lies far from its centre.
    core = rng.normal([0, 0], 0.01, (30, 2))
    tail = np.column_stack([np.linspace(1, 6, 30), rng.normal(0, 0.01, 30)])
    other = rng.normal([100, 0], 1, (60, 2))
    features = np.concatenate([core, tail, other]).astype(np.float32)
    chosen = chosen_of(features, np.arange(120) % 2, 2)
    assert len([row for row in chosen["typical"] if row < 30]) == 1
    assert len([row for row in chosen["diverse"] if 30 <= row < 60]) == 1


def test_uncertain_takes_those_nearest_to_the_border_of_the_labels_so_far():
    rng = np.random.default_rng(0)
    features = rng.uniform(-5, 5, (400, 2)).astype(np.float32)
    targets = (features[:, 0] > 0).astype(int)
    chosen = chosen_of(features, targets, 40)
    later = np.abs(features[chosen["uncertain"][10:], 0]).mean()
    assert later < 0.5 * np.abs(features[chosen["random"][10:], 0]).mean()
    np.testing.assert_array_equal(chosen["uncertain"][:10], chosen["random"][:10])


def test_a_round_of_uncertain_is_a_fifth_of_the_budget_and_at_least_five():
    features, targets = rare_third(common=60, rare=60)
    sizes = []

    def noted(train, *rest):
        sizes.append(len(train))
        return fit_scores(train, *rest)

    wells = np.full(len(targets), "p/B02")
    for budget in (20, 110):
        choose(features, targets, wells, budget, noted, np.random.default_rng(0))
    assert sizes == [10, 15, 10, 32, 54, 76, 98]


def test_labels_that_were_not_chosen_do_not_decide_the_choice():
    features, targets = rare_third(common=60, rare=60)
    first = chosen_of(features, targets, 30)
    flipped = 1 - targets
    flipped[first["uncertain"]] = targets[first["uncertain"]]
    second = chosen_of(features, flipped, 30)
    for strategy in ("random", "diverse", "typical", "uncertain"):
        np.testing.assert_array_equal(first[strategy], second[strategy])


def study(rare=30, draws=3):
    """Return splits of a pool and a test set in each draw, crop_ids and features."""
    features, targets = rare_third(common=60, rare=rare)
    names = [f"s/p/B{row % 12:02d}/s1/x{row:04d}y0000" for row in range(len(targets))]
    rows = [
        (draw, names[row], f"p/B{row % 12:02d}", ("normal", "abnormal")[target], part, rank)
        for draw in range(draws)
        for row, target in enumerate(targets)
        for part, rank in [("test", None) if (row + draw) % 3 == 0 else ("train", row)]
    ]
    splits = pd.DataFrame(rows, columns=["draw", "crop_id", "group", "label", "part", "rank"])
    return splits.astype({"draw": "int32", "rank": "Int32"}), pd.Index(names), features


def test_each_strategy_budget_and_draw_is_scored_and_pairs_with_random():
    table = compare_selections(*study(), [10, 40], 3, fit_scores, 0)
    assert list(table) == COLUMNS
    counts = table.groupby(["strategy", "budget", "draw"])["metric"].nunique()
    assert len(counts) == 4 * 2 * 3 and (counts == 3).all()
    assert table["value"].between(0, 1).all() and table["abnormal"].between(0, 1).all()
    differences = compare_to_random(table, 50, 0)
    assert set(differences["strategy"]) == {"diverse", "typical", "uncertain"}
    means = table.groupby(["strategy", "budget", "metric"])["value"].mean()
    for row in differences.itertuples():
        cell = (row.budget, row.metric)
        wanted = means[(row.strategy, *cell)] - means[("random", *cell)]
        assert row.difference == pytest.approx(wanted) and row.draws == 3


def test_labels_of_one_class_predict_it_and_are_counted():
    splits, index, features = study(rare=3)
    table = compare_selections(splits, index, features, [5], 3, fit_scores, 0)
    alone = table[(table["strategy"] == "random") & table["one_class"]]
    assert len(alone), "five of 123 hardly ever hold one of three"
    test = splits[(splits["part"] == "test") & (splits["draw"] == alone["draw"].iloc[0])]
    own = alone[alone["draw"] == alone["draw"].iloc[0]].set_index("metric")["value"]
    assert own["accuracy"] == pytest.approx((test["label"] == "normal").mean())
    assert own["auc"] == 0.5 and (alone["abnormal"] == 0).all()
    counted = compare_to_random(table, 20, 0)["random_one_class"].iloc[0]
    assert counted == alone["draw"].nunique()


def test_differences_are_paired_by_draw():
    rows = [
        (strategy, 10, draw, "f1", 0.5 + 0.04 * draw + 0.1 * (strategy == "diverse"), 0.5, False)
        for strategy in ("random", "diverse")
        for draw in range(8)
    ]
    (row,) = compare_to_random(pd.DataFrame(rows, columns=COLUMNS), 100, 0).to_dict("records")
    assert [row[name] for name in ("difference", "low", "high")] == pytest.approx([0.1] * 3)


def test_budgets_above_the_pool_have_no_rows_and_the_smallest_must_fit():
    splits, index, features = study()
    table = compare_selections(splits, index, features, [10, 5000], 1, fit_scores, 0)
    assert set(table["budget"]) == {10}
    with pytest.raises(InputError, match="no training pool has 5000 labels; lower the budgets"):
        compare_selections(splits, index, features, [5000], 1, fit_scores, 0)
    with pytest.raises(InputError, match="3 draws, not 4; lower the draws"):
        compare_selections(splits, index, features, [10], 4, fit_scores, 0)


def test_the_order_of_the_splits_does_not_matter():
    splits, index, features = study()
    mixed = splits.sample(frac=1, random_state=0)
    first, second = (
        compare_selections(rows, index, features, [20], 2, fit_scores, 0)
        for rows in (splits, mixed)
    )
    pd.testing.assert_frame_equal(first, second)


def test_the_script_runs_the_logistic_probe(tmp_path, monkeypatch):
    splits, index, features = study()
    write_table(splits, tmp_path / "splits.parquet", "splits")
    table = features_table(index.tolist(), features)
    write_table(table, tmp_path / "features.parquet", features_schema(3))
    words = "--features features.parquet --splits splits.parquet --budgets 10 30 --draws 2"
    words += " --replicates 20 --seed 0 --output out.csv --differences d.csv --record run.json"
    words += " --penalties 0.01 1 --folds 3"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [compare_label_selection.__file__, *words.split()])
    compare_label_selection.main()
    found = pd.read_csv("out.csv")
    assert list(found) == COLUMNS and len(found) == 4 * 2 * 2 * 3
    assert len(pd.read_csv("d.csv")) == 3 * 2 * 3
    assert json.loads((tmp_path / "run.json").read_text())["metrics"]["selections"] == 48
