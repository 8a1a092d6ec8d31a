"""The linear layer of paper 3.3, its settings chosen by inner folds of the training labels."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from hcsqc.errors import InputError
from hcsqc.probes.folds import grouped_folds
from hcsqc.probes.linear import LinearSettings, linear_logits

# Nats. Losses this close are a tie, so that no rounding decides one.
TIE = 1e-6


@dataclass(frozen=True)
class LinearSearchSettings:
    """What `LinearSettings` says, with several epochs, rates and decays to choose from.

    Milestones are shares of the epochs, rounded to whole ones. Raises InputError on an empty list,
    and on shares outside 0 to 1.
    """

    epochs: tuple[int, ...]
    batch_size: int
    learning_rate: tuple[float, ...]
    momentum: float
    weight_decay: tuple[float, ...]
    milestone_shares: tuple[float, ...]
    gamma: float
    folds: int

    def __post_init__(self):
        for name in ("epochs", "learning_rate", "weight_decay"):
            if not getattr(self, name):
                raise InputError(f"linear search: nothing to choose from; list some {name}")
        for share in self.milestone_shares:
            if not 0 <= share <= 1:
                raise InputError(
                    f"linear search: milestone share {share} is no share of the epochs; "
                    "give numbers from 0 to 1"
                )

    def grid(self) -> list[LinearSettings]:
        """Return the settings to try; the first has the first of each list."""
        return [
            LinearSettings(
                epochs,
                self.batch_size,
                rate,
                self.momentum,
                decay,
                tuple(round(share * epochs) for share in self.milestone_shares),
                self.gamma,
            )
            for epochs, rate, decay in product(self.epochs, self.learning_rate, self.weight_decay)
        ]


def search_linear(
    train: np.ndarray,
    targets: np.ndarray,
    wells: np.ndarray,
    settings: LinearSearchSettings,
    seed: int,
) -> tuple[LinearSettings, list[dict[str, float | None]]]:
    """Return the settings with the least log loss over inner folds, by well, and all trials.

    `train` is n x width, `targets` n of 0 and 1, `wells` the n names of their wells. Every setting
    is trained on each fold's rest, all from one start and by one order of batches. A trial is its
    learning_rate, weight_decay and epochs, and as loss the mean over all labels that were held out
    (nats), each counted once. Ties go to the smaller rate, then to fewer epochs, then to the larger
    decay. Where labels carry no folds, every loss is None and the first of each list is chosen.
    `seed` decides folds, starts and batches. A loss that is not finite is None as well; raises
    InputError if all are.
    """
    grid = settings.grid()
    folds = grouped_folds(targets, wells, settings.folds, seed)
    losses = [
        _losses(train, targets, fit, held, grid, np.random.default_rng([seed, fold]))
        for fold, (fit, held) in enumerate(folds)
    ]
    means = np.concatenate(losses).mean(axis=0).tolist() if losses else [None] * len(grid)
    trials = [
        {
            "learning_rate": one.learning_rate,
            "weight_decay": one.weight_decay,
            "epochs": one.epochs,
            "loss": loss if loss is not None and np.isfinite(loss) else None,
        }
        for one, loss in zip(grid, means, strict=True)
    ]
    return (grid[_choice(trials)] if folds else grid[0]), trials


def _losses(train, targets, fit, held, grid, rng) -> np.ndarray:
    """Return the log loss of each held-out label with each setting, m x settings."""
    (logits,) = linear_logits([train[fit]], [targets[fit]], [train[held]], grid, [rng])
    # From logits, because a probability rounds to 0 or 1 and its logarithm is then lost.
    wrong = np.where(targets[held, None] == 1, -logits, logits)
    return np.logaddexp(0, wrong.astype(np.float64))


def _choice(trials: list[dict[str, float | None]]) -> int:
    finite = [number for number, trial in enumerate(trials) if trial["loss"] is not None]
    if not finite:
        raise InputError(
            "linear search: no setting's loss stays finite; list a lower learning_rate or "
            "weight_decay"
        )
    least = min(trials[number]["loss"] for number in finite)
    tied = [number for number in finite if trials[number]["loss"] <= least + TIE]

    def preference(number: int) -> tuple[float, float, float]:
        trial = trials[number]
        return trial["learning_rate"], trial["epochs"], -trial["weight_decay"]

    return min(tied, key=preference)
