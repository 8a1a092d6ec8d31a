"""Inner folds: by well, with both classes on both sides, and the same again."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from hcsqc.labels.folds import grouped_folds, held_out_fold


@settings(max_examples=60, deadline=None)
@given(st.integers(6, 80), st.integers(2, 20), st.integers(2, 6), st.integers(0, 99))
def test_no_well_is_on_both_sides_and_both_sides_have_both_classes(n, wells, folds, seed):
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(n) % 2)
    names = rng.integers(0, wells, n).astype(str)
    for fit, held in grouped_folds(targets, names, folds, seed):
        assert not set(names[fit]) & set(names[held])
        assert sorted([*fit, *held]) == list(range(n))
        assert set(targets[fit]) == set(targets[held]) == {0, 1}


def test_every_crop_is_held_out_once_where_wells_suffice():
    targets, wells = np.arange(60) % 2, (np.arange(60) // 6).astype(str)
    found = grouped_folds(targets, wells, 5, seed=0)
    assert len(found) == 5
    assert sorted(np.concatenate([held for _, held in found])) == list(range(60))
    again = grouped_folds(targets, wells, 5, seed=0)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(found, again, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.integers(6, 120), st.integers(2, 30), st.integers(2, 6), st.integers(0, 2**31 - 1))
def test_folds_are_those_of_scikit_learn(n, wells, folds, seed):
    rng = np.random.default_rng(seed)
    names = rng.integers(0, wells, n).astype(str)
    targets = rng.integers(0, 2, n)
    assume(len(set(names)) >= folds <= max(np.bincount(targets)))
    oracle = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer crops of a class than folds
        expected = [held for _, held in oracle.split(targets, targets, names)]
    number = held_out_fold(targets, names, folds, seed)
    for fold, held in enumerate(expected):
        assert np.array_equal(np.flatnonzero(number == fold), held)


@pytest.mark.parametrize(
    ("targets", "wells"),
    [([0, 1, 0, 1], ["a"] * 4), ([0, 0, 0, 1], list("abcd")), ([1, 1, 1, 1], list("abcd"))],
)
def test_labels_that_carry_no_fold_have_none(targets, wells):
    assert grouped_folds(np.array(targets), np.array(wells), 5, seed=0) == []
