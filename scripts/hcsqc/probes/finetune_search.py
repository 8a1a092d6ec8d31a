"""The fine-tuning of paper 3.3, its settings chosen by inner folds of the training labels."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import nn

from hcsqc.encoders import Encoder
from hcsqc.errors import InputError
from hcsqc.probes.finetune import FinetuneSettings, finetune, finetuned_logits
from hcsqc.probes.folds import grouped_folds


@dataclass(frozen=True)
class FinetuneSearchSettings:
    """What `FinetuneSettings` says, with several epochs, rates and decays to choose from.

    Milestones are shares of the epochs, rounded to whole ones. Raises InputError on an empty list.
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
                raise InputError(f"fine-tuning search: nothing to choose from; list some {name}")

    def grid(self) -> list[FinetuneSettings]:
        """Return the settings to try; the first has the first of each list."""
        return [
            FinetuneSettings(
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


def search_finetuning(
    encoder: Encoder,
    crops: np.ndarray,
    targets: np.ndarray,
    wells: np.ndarray,
    settings: FinetuneSearchSettings,
    seed: int,
    on_batch: Callable[[int, float], None],
) -> tuple[FinetuneSettings, list[dict[str, float | None]]]:
    """Return the settings with the least log loss over inner folds, by well, and all trials.

    `crops` are the n x C x H x W composite crops of the training labels, `targets` 0 and 1, `wells`
    the names of their wells. A trial's loss is the mean over all labels that were held out (nats).
    Ties go to the smaller rate, then to fewer epochs, then to the larger decay. A setting whose
    training fails has no loss; where labels carry no folds none has, and the first is chosen.
    Raises InputError if every setting fails.
    """
    folds = grouped_folds(targets, wells, settings.folds, seed)
    trials = []
    for chosen in settings.grid():
        losses: list[float] | None = []
        for number, (fit, held) in enumerate(folds):
            try:
                network = finetune(
                    encoder, crops[fit], targets[fit], chosen, (seed, number), on_batch
                )
            except InputError:
                losses = None
                break
            logits = finetuned_logits(network, encoder, crops[held], len(held))
            wanted = torch.from_numpy(targets[held])
            losses += nn.functional.cross_entropy(logits, wanted, reduction="none").tolist()
        trials.append(
            {
                "learning_rate": chosen.learning_rate,
                "weight_decay": chosen.weight_decay,
                "epochs": chosen.epochs,
                "loss": float(np.mean(losses)) if losses else None,
            }
        )
    if not folds:
        return settings.grid()[0], trials
    finite = [number for number, trial in enumerate(trials) if trial["loss"] is not None]
    if not finite:
        raise InputError(
            "fine-tuning search: no setting's loss stays finite; list a lower learning_rate"
        )

    def preference(number: int) -> tuple[float, ...]:
        trial = trials[number]
        return trial["loss"], trial["learning_rate"], trial["epochs"], -trial["weight_decay"]

    return settings.grid()[min(finite, key=preference)], trials
