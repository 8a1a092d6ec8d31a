"""The linear layer of paper 3.3, its settings chosen by inner folds of the training labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.frozen.linear import linear_logits, linear_scores
from hcsqc.probes.sgd import SgdSearchSettings, SgdSettings, best_trial, trial
from hcsqc.probes.task import Classified, Task, select

Settings = SgdSearchSettings


def classify(
    crops: pd.Index, features: np.ndarray, draws: Sequence[Task], settings: Settings, seed: int
) -> Classified:
    """Choose the settings of each draw by its training labels, and train a layer with them."""
    made = Classified([], trials={})
    for task in draws:
        train, targets = select(crops, features, task.train_crops), task.train_targets
        chosen, made.trials[str(task.draw)] = search_linear(
            train, targets, task.train_groups, settings, seed
        )
        test = select(crops, features, task.test["crop_id"])
        rng = np.random.default_rng([seed, task.draw])
        made.scores += linear_scores([train], [targets], [test], chosen, [rng])
        made.curves.append(
            {
                "step": task.draw,
                "learning_rate": chosen.learning_rate,
                "weight_decay": chosen.weight_decay,
                "epochs": chosen.epochs,
            }
        )
    return made


def search_linear(
    train: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    settings: SgdSearchSettings,
    seed: int,
) -> tuple[SgdSettings, list[dict[str, float | None]]]:
    """Return the settings with the least log loss over inner folds, by group, and all trials.

    `train` is n x width, `targets` n of 0 and 1, `groups` n names. Every setting
    is trained on each fold's rest, all from one start and by one order of batches. A trial is its
    learning_rate, weight_decay and epochs, and as loss the mean over all labels that were held out
    (nats), each counted once. Ties go to the smaller rate, then to fewer epochs, then to the larger
    decay. With too few labels for folds, every loss is None and the first of each list is chosen.
    `seed` decides folds, starts and batches. A loss that is not finite is None as well; raises
    InputError if all are.
    """
    grid = settings.grid()
    folds = grouped_folds(targets, groups, settings.folds, seed)
    losses = [
        _losses(train, targets, fit, held, grid, np.random.default_rng([seed, fold]))
        for fold, (fit, held) in enumerate(folds)
    ]
    means = np.concatenate(losses).mean(axis=0).tolist() if losses else [None] * len(grid)
    trials = [
        trial(one, loss if loss is not None and np.isfinite(loss) else None)
        for one, loss in zip(grid, means, strict=True)
    ]
    return (grid[best_trial(trials)] if folds else grid[0]), trials


def _losses(train, targets, fit, held, grid, rng) -> np.ndarray:
    """Return the log loss of each held-out label with each setting, m x settings."""
    (logits,) = linear_logits([train[fit]], [targets[fit]], [train[held]], grid, [rng])
    # From logits, because a probability rounds to 0 or 1 and its logarithm is then lost.
    wrong = np.where(targets[held, None] == 1, -logits, logits)
    return np.logaddexp(0, wrong.astype(np.float64))
