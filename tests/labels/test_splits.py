"""Draws: exact counts, wells on one side, budgets that nest, and nothing left to chance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.groups import WELL
from hcsqc.labels.splits import (
    CROSS_VALIDATION,
    FOLDS,
    HELD_OUT,
    class_counts,
    largest_budget,
    split_labels,
    training_crops,
    training_overlaps,
)
from hcsqc.labels.test_sets import CHOICE, composition

WELLS = [f"{row}{column:02d}" for row in "BCDE" for column in range(2, 6)]
EVALUATION = WELLS[::2]
TEST_CROPS = 24


def make_labels(per_well=6, plates=("p", "q"), selection="random"):
    """Return `per_well` labels of each class in each well of each plate."""
    rows = [
        {
            "crop_id": f"s/{plate}/{well}/s1/x{number:04d}y{kind:04d}",
            "plate": plate,
            "well": well,
            "label": ("normal", "abnormal")[kind],
            "selection": selection,
        }
        for plate in plates
        for well in WELLS
        for kind in (0, 1)
        for number in range(per_well)
    ]
    return pd.DataFrame(rows)


def split(labels, **changes):
    arguments = {
        "evaluation_wells": EVALUATION,
        "smallest": 10,
        "largest": 50,
        "test_crops": TEST_CROPS,
        "draws": 5,
        "seed": 0,
        "group_by": WELL,
    }
    return split_labels(labels, **(arguments | changes))[0]


def sides(splits, labels):
    """Return test and training rows with the plate and well of their labels."""
    places = labels[["crop_id", "plate", "well", "selection"]]
    rows = splits.merge(places, on="crop_id", validate="many_to_one")
    rows["place"] = rows["plate"] + "/" + rows["well"]
    return rows[rows["part"] == "test"], rows[rows["part"] == "train"]


@pytest.mark.parametrize(
    ("total", "normal", "abnormal"),
    [(350, 175, 175), (130, 65, 65), (25, 13, 12), (10, 5, 5), (2, 1, 1), (3, 2, 1)],
)
def test_classes_are_halves_and_the_odd_label_is_normal(total, normal, abnormal):
    assert class_counts(total) == {"normal": normal, "abnormal": abnormal}


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 60),
    st.lists(st.integers(2, 60), min_size=1, max_size=4),
)
def test_every_draw_has_exact_counts_and_no_well_on_both_sides(seed, test_crops, budgets):
    labels = make_labels()
    splits = split(labels, seed=seed, test_crops=test_crops, smallest=min(budgets), draws=3)
    assert not splits.duplicated(["draw", "crop_id"]).any()
    for draw, rows in splits.groupby("draw"):
        test, train = sides(rows, labels)
        assert test["label"].value_counts().to_dict() == class_counts(test_crops)
        assert set(test["well"]) <= set(EVALUATION)
        assert not set(test["place"]) & set(train["place"])
        assert test["rank"].isna().all() and train["rank"].is_unique
        for budget in budgets:
            chosen = training_crops(splits, draw, budget)
            assert chosen["label"].value_counts().to_dict() == class_counts(budget)
            assert chosen["rank"].is_monotonic_increasing
            assert set(chosen["crop_id"]) <= set(train["crop_id"])


def test_smaller_budgets_are_subsets_of_larger_ones():
    splits = split(make_labels())
    for draw in range(5):
        chosen = [set(training_crops(splits, draw, budget)["crop_id"]) for budget in range(2, 51)]
        assert all(small < large for small, large in zip(chosen, chosen[1:], strict=False))


def test_twenty_five_labels_are_13_normal_and_12_abnormal():
    chosen = training_crops(split(make_labels()), 0, 25)
    assert chosen["label"].value_counts().to_dict() == {"normal": 13, "abnormal": 12}


def test_every_even_stretch_of_the_training_list_is_balanced():
    splits = split(make_labels())
    train = splits[(splits["draw"] == 0) & (splits["part"] == "train")].sort_values("rank")
    assert train["rank"].tolist() == list(range(len(train)))
    assert train["label"].tolist() == ["normal", "abnormal"] * (len(train) // 2)


def test_only_random_labels_of_evaluation_wells_test():
    labels = make_labels()
    labels.loc[::3, "selection"] = "uncertain"
    labels.loc[1::3, "selection"] = "diverse"
    labels = pd.concat([labels, make_labels(plates=("r",), selection="uncertain")])
    test, train = sides(split(labels, test_crops=16), labels)
    assert set(test["selection"]) == {"random"}
    assert set(test["well"]) <= set(EVALUATION) and "r" not in set(test["plate"])
    assert set(train["selection"]) == {"random", "uncertain", "diverse"}
    for draw in range(5):  # of a test well, labels that may not test do not train either
        assert not set(test["place"][test["draw"] == draw]) & set(
            train["place"][train["draw"] == draw]
        )


def test_labels_left_over_in_test_wells_do_not_train():
    labels = make_labels(per_well=30)
    test, train = sides(split(labels, draws=1), labels)
    assert len(test) == TEST_CROPS
    assert len(train) == len(labels) - 60 * test["place"].nunique()


def test_same_well_of_two_plates_is_two_wells():
    labels = make_labels()
    test, train = sides(split(labels, draws=20), labels)
    both = set(test["well"] + test["draw"].astype(str)) & set(
        train["well"] + train["draw"].astype(str)
    )
    assert both  # a test well of one plate may train on the other


def test_same_seed_gives_the_same_draws_in_any_order_of_labels():
    labels = make_labels()
    shuffled = labels.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(split(labels), split(shuffled))


def test_draws_and_seeds_differ():
    labels = make_labels()
    splits = split(labels)
    tests, trains = (
        [
            tuple(rows["crop_id"])
            for _, rows in splits[splits["part"] == part].groupby("draw", sort=True)
        ]
        for part in ("test", "train")
    )
    assert len(set(map(frozenset, tests))) == len(set(trains)) == 5
    assert not split(labels, seed=1).equals(splits)


def test_a_draw_does_not_depend_on_the_number_of_draws_or_the_budget():
    labels = make_labels()
    few, many = split(labels, draws=2), split(labels, draws=6)
    pd.testing.assert_frame_equal(few, many[many["draw"] < 2])
    pd.testing.assert_frame_equal(split(labels), split(labels, smallest=4))


def test_splits_fit_their_table(tmp_path):
    splits = split(make_labels())
    write_table(splits, tmp_path / "splits.parquet", "splits")
    back = read_table(tmp_path / "splits.parquet", "splits")
    expected = training_crops(splits, 3, 25)["crop_id"].tolist()
    assert training_crops(back, 3, 25)["crop_id"].tolist() == expected
    assert back["rank"].isna().sum() == 5 * TEST_CROPS


# What draws test.


def with_artefacts(labels, seed=0):
    """Return labels of four artefacts, the last one rare, of which each well has some or none."""
    rng = np.random.default_rng(seed)
    usual = np.array([0.4, 0.3, 0.25, 0.05])
    kinds = np.array(["blur", "debris", "dead", "noise"], object)
    artefact = pd.Series(None, labels.index, dtype=object)
    for _, rows in labels[labels["label"] == "abnormal"].groupby(["plate", "well"]):
        artefact[rows.index] = rng.choice(kinds, len(rows), p=rng.dirichlet(8 * usual))
    return labels.assign(artefact=artefact)


def test_every_draw_tests_the_artefacts_in_their_usual_shares():
    labels = with_artefacts(make_labels(per_well=12))
    splits = split(labels, test_crops=40, draws=8)
    found = composition(splits, labels)
    crops = found.pivot(index="draw", columns="kind", values="crops")
    may_test = labels[labels["well"].isin(EVALUATION)]
    usual = 20 * may_test["artefact"].value_counts(normalize=True)
    assert (crops["normal"] == 20).all()
    assert (crops[usual.index] - usual).abs().max().max() < 2
    assert (crops[usual.index].mean() - usual).abs().max() < 0.3
    assert usual["noise"] < 1 <= crops["noise"].max(), "the rare one is tested too"


def test_wells_take_turns_and_labels_are_not_tested_again_before_the_others():
    labels = make_labels(per_well=6)
    splits = split(labels, draws=8)
    test, _ = sides(splits, labels)
    turns = test.groupby("place")["draw"].nunique()
    assert len(turns) == 2 * len(EVALUATION) and turns.max() - turns.min() <= 1
    assert test["crop_id"].value_counts().max() <= 2


def test_fields_of_a_draw_are_tested_evenly():
    labels = make_labels(per_well=12)
    second = labels["crop_id"].str.extract(r"x(\d+)")[0].astype(int) >= 6
    labels["crop_id"] = labels["crop_id"].where(~second, labels["crop_id"].str.replace("s1", "s2"))
    found = composition(split(labels, draws=3), labels)
    assert (found["fields"] == 2 * found["wells"])[found["kind"] == "normal"].all()


def test_more_wells_test_than_must_only_where_the_largest_budget_is_kept():
    labels = make_labels()
    total = len(labels)
    few = split(labels, largest=total)
    more = split(labels, largest=2)
    wells = [composition(splits, labels).groupby("draw")["wells"].max() for splits in (few, more)]
    assert (wells[0] == TEST_CROPS // 12).all()
    assert (wells[1] == CHOICE * TEST_CROPS // 12).all()
    for largest in (250, 300, 340):
        assert largest_budget(split(labels, largest=largest)) >= largest


def test_labels_without_artefacts_are_abnormal_and_nothing_tested_is_nought():
    labels = make_labels()
    found = composition(split(labels, draws=1), labels)
    assert found["kind"].tolist() == ["normal", "abnormal"]
    named = with_artefacts(labels)
    splits = split(named, draws=1)
    gone = named.loc[named["artefact"] == "noise", "crop_id"]
    found = composition(splits[~splits["crop_id"].isin(gone)], named).set_index("kind")
    assert found.loc["noise", ["crops", "fields", "wells"]].tolist() == [0, 0, 0]


def test_draws_overlap_by_the_training_labels_that_they_share():
    splits = pd.DataFrame(
        [(0, "train", kind, f"c{n}{kind}", n) for n in range(2) for kind in ("normal", "abnormal")]
        + [(1, "train", kind, f"c{n}{kind}", n) for n in (1, 2) for kind in ("normal", "abnormal")],
        columns=["draw", "part", "label", "crop_id", "rank"],
    )
    assert training_overlaps(splits, [4, 2]) == {4: 0.5, 2: 0}
    assert training_overlaps(splits[splits["draw"] == 0], [4]) == {4: 0}


# Fewer labels than test set and budgets need.


def test_few_labels_are_cross_validated_by_well():
    labels = make_labels(per_well=1, plates=("p",))  # 8 evaluation wells, 2 labels each
    splits, protocol = split_labels(labels, EVALUATION, 10, 20, 130, 10, 0, WELL)
    assert protocol == CROSS_VALIDATION
    test, train = sides(splits, labels)
    for repeat in range(2):
        own = test[test["draw"] // FOLDS == repeat]
        assert sorted(own["crop_id"]) == sorted(
            labels["crop_id"][labels["well"].isin(EVALUATION)]
        ), "every label that may test is tested once"
    for draw in range(10):
        places = set(test["place"][test["draw"] == draw])
        trained = train[train["draw"] == draw]
        assert not places & set(trained["place"])
        assert len(trained) == 2 * (len(WELLS) - len(places)), "all others train"
    again, _ = split_labels(
        labels.sample(frac=1, random_state=1), EVALUATION, 10, 20, 130, 10, 0, WELL
    )
    pd.testing.assert_frame_equal(splits, again)
    firsts = [frozenset(test["crop_id"][test["draw"] == draw]) for draw in (0, FOLDS)]
    assert firsts[0] != firsts[1], "repeats divide the wells anew"


def test_enough_labels_are_held_out():
    assert split_labels(make_labels(), EVALUATION, 10, 50, TEST_CROPS, 5, 0, WELL)[1] == HELD_OUT


def test_the_largest_budget_is_what_every_draw_carries():
    splits = pd.DataFrame(
        [(0, "train", "normal")] * 5
        + [(0, "train", "abnormal")] * 4
        + [(1, "train", "normal")] * 9
        + [(1, "train", "abnormal")] * 6
        + [(1, "test", "abnormal")] * 9,
        columns=["draw", "part", "label"],
    )
    assert largest_budget(splits) == 9
    assert largest_budget(splits[splits["draw"] == 1]) == 13
    assert largest_budget(splits[splits["label"] == "normal"]) == 1
    for budget in (2, 3, 24, 25):
        drawn = split(make_labels(), smallest=budget)
        assert largest_budget(drawn) >= budget


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smallest": 400}, r"draw 0 has \d+ normal crops to train with and needs 200"),
        ({"evaluation_wells": []}, r"draw 0 has 0 normal crops to test with and needs 12"),
        ({"evaluation_wells": ["P24"]}, r"has 0 normal crops to test with"),
    ],
    ids=["train", "no evaluation wells", "evaluation wells without labels"],
)
def test_too_few_labels_are_refused_with_the_numbers(changes, message):
    with pytest.raises(InputError, match=message) as error:
        split(make_labels(), **changes)
    assert "lower study.budgets or study.test_crops" in str(error.value)
    assert "Cross-validation is not possible either: " in str(error.value)


def test_evaluation_wells_that_are_wrong_are_blamed_and_not_the_labels():
    labels = make_labels()
    with pytest.raises(
        InputError, match=r"^no label lies in evaluation_wells \(P24\); all lie in B0"
    ):
        split(labels, evaluation_wells=["P24"])
    with pytest.raises(InputError, match=r"^evaluation_wells is empty. not enough labels"):
        split(labels, evaluation_wells=[])
    message = "^no label in evaluation_wells was chosen at random; their selection is diverse. not"
    with pytest.raises(InputError, match=message):
        split(labels.assign(selection="diverse"))


def test_too_few_of_one_class_are_refused():
    labels = make_labels()
    few = labels[(labels["label"] == "normal") | (np.arange(len(labels)) < 12)]
    with pytest.raises(InputError, match="abnormal crops to (test|train) with and needs"):
        split(few, test_crops=60, smallest=30)


def test_no_labels_at_all_are_refused():
    with pytest.raises(InputError, match="has 0 normal crops to test with"):
        split(make_labels().head(0))
