"""Inner cross-validation: folds of the training labels alone, by well."""

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

Fold = tuple[np.ndarray, np.ndarray]  # rows to fit on, rows to score on


def grouped_folds(targets: np.ndarray, wells: np.ndarray, folds: int, seed: int) -> list[Fold]:
    """Return folds of n labelled crops in which no well is on both sides.

    `targets` are 0 and 1, `wells` the n names of their wells. Both sides of each fold hold both
    classes; folds that cannot are left out, and there may be none. The same seed gives the same
    folds.
    """
    folds = min(folds, len(np.unique(wells)))
    if folds < 2 or min(np.bincount(targets, minlength=2)) < folds:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = splitter.split(targets, targets, wells)
    return [
        (fit, held)
        for fit, held in found
        if len(np.unique(targets[fit])) == 2 and len(np.unique(targets[held])) == 2
    ]
