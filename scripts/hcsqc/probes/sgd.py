"""Settings of training by SGD (paper 3.3), a grid of them, and the choice from a grid's trials."""

from dataclasses import dataclass
from itertools import product

from hcsqc.core.errors import InputError

# Nats. Mean losses over folds this close are a tie, so that no rounding of a solver decides one.
TIE = 1e-6


@dataclass(frozen=True)
class SgdSettings:
    """SGD with momentum and a step schedule: the rate is multiplied by gamma at each milestone.

    `weight_decay` is that of `torch.optim.SGD`: times the weights it is added to the gradient.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    gamma: float


@dataclass(frozen=True)
class SgdSearchSettings:
    """What `SgdSettings` says, with several epochs, rates and decays to choose from.

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
                raise InputError(
                    f"search of a probe: there is nothing to choose from; list some {name}"
                )
        for share in self.milestone_shares:
            if not 0 <= share <= 1:
                raise InputError(
                    f"search of a probe: milestone share {share} is not a share of the epochs; "
                    "give numbers from 0 to 1"
                )

    def grid(self) -> list[SgdSettings]:
        """Return the settings to try; the first has the first of each list."""
        return [
            SgdSettings(
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


def trial(settings: SgdSettings, loss: float | None) -> dict[str, float | None]:
    """Return what is kept of a trial: its settings that vary, and its loss (nats) if it has one."""
    return {
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "epochs": settings.epochs,
        "loss": loss,
    }


def best_trial(trials: list[dict[str, float | None]]) -> int:
    """Return the number of the trial with the least loss.

    Ties go to the smaller rate, then to fewer epochs, then to the larger decay. Raises InputError
    if no trial has a loss.
    """
    finite = [number for number, one in enumerate(trials) if one["loss"] is not None]
    if not finite:
        raise InputError(
            "search of a probe: no setting's loss stays finite; list a lower learning_rate or "
            "weight_decay"
        )
    least = min(trials[number]["loss"] for number in finite)
    tied = [number for number in finite if trials[number]["loss"] <= least + TIE]

    def preference(number: int) -> tuple[float, float, float]:
        one = trials[number]
        return one["learning_rate"], one["epochs"], -one["weight_decay"]

    return min(tied, key=preference)
