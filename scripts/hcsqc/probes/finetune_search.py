"""The fine-tuning of paper 3.3, its settings chosen by inner folds of the training labels."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.encoders.store import Encoder
from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.finetune import FinetuneSettings, check_batchnorm, finetune, finetuned_logits
from hcsqc.probes.sgd import SgdSearchSettings, best_trial, trial


@dataclass(frozen=True)
class FinetuneSearchSettings(SgdSearchSettings):
    """What `SgdSearchSettings` says, and `batchnorm` and `least_steps` of `FinetuneSettings`.

    Raises InputError as both do.
    """

    batchnorm: str
    least_steps: int

    def __post_init__(self):
        super().__post_init__()
        check_batchnorm(self.batchnorm)

    def grid(self) -> list[FinetuneSettings]:  # type: ignore[override]
        """Return the settings to try; the first has the first of each list."""
        return [
            FinetuneSettings(**asdict(one), batchnorm=self.batchnorm, least_steps=self.least_steps)
            for one in super().grid()
        ]

    def searched_crops(self, n_crops: int) -> int:
        """Return how many crops, each time one is seen, a search on n crops trains on.

        It takes all folds for equally large.
        """
        fit = n_crops * (self.folds - 1) // self.folds
        return self.folds * fit * sum(one.lasting(fit).epochs for one in self.grid())


def search_finetuning(
    encoder: Encoder,
    crops: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    settings: FinetuneSearchSettings,
    seed: int,
    on_batch: Callable[[int, float], None],
) -> tuple[FinetuneSettings, list[dict[str, float | None]]]:
    """Return the settings with the least log loss over inner folds, by group, and all trials.

    `crops` are the n x C x H x W composite crops of the training labels, `targets` 0 and 1,
    `groups` the names of their groups. A trial's loss is the mean over all labels that were held
    out (nats). Ties go to the smaller rate, then to fewer epochs, then to the larger decay. A
    setting whose training fails has no loss; with too few labels for folds, none has, and the first
    is chosen.
    Raises InputError if every setting fails.
    """
    folds = grouped_folds(targets, groups, settings.folds, seed)
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
        trials.append(trial(chosen, float(np.mean(losses)) if losses else None))
    grid = settings.grid()
    return (grid[best_trial(trials)] if folds else grid[0]), trials
