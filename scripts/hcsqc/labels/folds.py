"""Folds of labelled crops by group: for inner cross-validation, and where labels are few."""

import numpy as np

Fold = tuple[np.ndarray, np.ndarray]  # rows to fit on, rows to score on


def grouped_folds(targets: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[Fold]:
    """Return folds of n labelled crops in which no group is on both sides.

    `targets` are 0 and 1, `groups` the n names of their groups. Both sides of each fold hold both
    classes; folds that cannot are left out, and there may be none. The same seed gives the same
    folds.
    """
    folds = min(folds, len(np.unique(groups)))
    if folds < 2 or min(np.bincount(targets, minlength=2)) < folds:
        return []
    number = held_out_fold(targets, groups, folds, seed)
    found = [(np.flatnonzero(number != i), np.flatnonzero(number == i)) for i in range(folds)]
    return [
        (fit, held)
        for fit, held in found
        if len(np.unique(targets[fit])) == 2 and len(np.unique(targets[held])) == 2
    ]


def held_out_fold(targets: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return for each of n rows the fold that holds it out; groups stay whole.

    These are the folds of scikit-learn's `StratifiedGroupKFold`, shuffled by `seed`: groups, the
    most uneven in class first, go where they leave each class most evenly spread over the folds.
    Own code because half of the probes need nothing else of scikit-learn, whose import takes
    longer than they do.
    """
    _, target = np.unique(targets, return_inverse=True)
    names, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), target.max() + 1))
    np.add.at(counts, (group, target), 1)
    shuffled = np.random.RandomState(seed).permutation(len(names))
    uneven_first = shuffled[np.argsort(-counts[shuffled].std(axis=1), kind="stable")]
    in_fold, total = np.zeros((folds, counts.shape[1])), counts.sum(axis=0)
    fold_of_group = np.zeros(len(names), int)
    for one in uneven_first:
        best, least, fewest = 0, np.inf, np.inf
        for fold in range(folds):
            tried = in_fold.copy()
            tried[fold] += counts[one]
            spread, size = (tried / total).std(axis=0).mean(), in_fold[fold].sum()
            if spread < least or (np.isclose(spread, least) and size < fewest):
                best, least, fewest = fold, spread, size
        in_fold[best] += counts[one]
        fold_of_group[one] = best
    return fold_of_group[group]
