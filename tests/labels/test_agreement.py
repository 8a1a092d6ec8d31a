"""Agreement of annotators: kappa is scikit-learn's, and every disagreement is listed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from hcsqc.labels.agreement import DISAGREEMENT_COLUMNS, PAIR_COLUMNS, agreement, disagreements
from tests.labels.made_labels import placed


def labelled(annotator, labels):
    return [(f"c{place}", annotator, label) for place, label in enumerate(labels)]


def test_kappa_of_a_known_table():
    # Cohen's formula by hand: 0.7 agree, 0.6 x 0.5 + 0.4 x 0.5 by chance.
    both = [("normal", "normal")] * 40 + [("abnormal", "abnormal")] * 30
    both += [("normal", "abnormal")] * 20 + [("abnormal", "normal")] * 10
    first, second = zip(*both, strict=True)
    (pair,) = agreement(placed(*labelled("a", first), *labelled("b", second))).itertuples()
    assert (pair.first, pair.second, pair.crops) == ("a", "b", 100)
    assert pair.agreeing == pytest.approx(0.7) and pair.kappa == pytest.approx(0.4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["normal", "abnormal"])] * 2), min_size=1))
def test_kappa_is_that_of_scikit_learn(both):
    first, second = zip(*both, strict=True)
    (pair,) = agreement(placed(*labelled("a", first), *labelled("b", second))).itertuples()
    if len({*first, *second}) == 1:
        assert math.isnan(pair.kappa) and pair.agreeing == 1
    else:
        assert pair.kappa == pytest.approx(cohen_kappa_score(first, second))


def test_every_pair_with_crops_in_common_has_a_row():
    rng = np.random.default_rng(0)
    rows = [
        (f"c{crop}", name, rng.choice(["normal", "abnormal"]))
        for name, crops in (("a", range(0, 30)), ("b", range(10, 40)), ("c", range(25, 60)))
        for crop in crops
    ]
    pairs = agreement(placed(*rows, ("lonely", "d", "normal")))
    assert pairs[["first", "second", "crops"]].to_numpy().tolist() == [
        ["a", "b", 20],
        ["a", "c", 5],
        ["b", "c", 15],
    ]


def test_crop_that_one_annotator_labels_in_two_ways_is_not_counted():
    rows = [
        *labelled("a", ["normal", "abnormal"]),
        ("c0", "a", "abnormal"),
        ("c1", "a", "abnormal"),
    ]
    (pair,) = agreement(placed(*rows, *labelled("b", ["normal", "abnormal"]))).itertuples()
    assert pair.crops == 1


def test_one_annotator_or_none_makes_no_pair():
    for rows in (labelled("a", ["normal", "abnormal"]), []):
        pairs = agreement(placed(*rows))
        assert pairs.columns.tolist() == PAIR_COLUMNS and pairs.empty


def test_disagreements_list_all_labels_of_the_crops_in_question():
    rows = placed(
        ("c2", "b", "abnormal", "blur"),
        ("c2", "a", "normal"),
        ("c2", "c", "normal"),
        ("c1", "a", "abnormal", "blur"),
        ("c1", "b", "abnormal", "debris"),
        ("c3", "a", "abnormal", "blur"),
        ("c3", "b", "abnormal"),
        ("c4", "a", "normal"),
        ("c4", "b", "normal"),
        ("c5", "a", "normal"),
    )
    found = disagreements(rows)
    assert found.columns.tolist() == DISAGREEMENT_COLUMNS
    assert found[["crop_id", "differs", "annotator", "label"]].to_numpy().tolist() == [
        ["c1", "artefact", "a", "abnormal"],
        ["c1", "artefact", "b", "abnormal"],
        ["c2", "label", "a", "normal"],
        ["c2", "label", "b", "abnormal"],
        ["c2", "label", "c", "normal"],
    ]
    assert found["source"].tolist() == ["a.csv", "b.csv", "a.csv", "b.csv", "c.csv"]


def test_no_disagreement_is_an_empty_list():
    for rows in (labelled("a", ["normal"]), []):
        found = disagreements(placed(*rows))
        assert found.columns.tolist() == DISAGREEMENT_COLUMNS and found.empty
