"""A second network, whose weights are the average of the trained ones over past steps."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hcsqc.core.errors import InputError
from hcsqc.pretraining.methods.base import SelfSupervised
from hcsqc.pretraining.sololearn import MomentumUpdater


class MomentumMethod(SelfSupervised):
    """A method whose targets come from momentum copies of the backbone and of its projector.

    After each step the copies' weights become `tau` times themselves plus 1 - `tau` times the
    trained ones; tau rises from `tau_start` to `tau_end` by half a cosine. As in solo-learn, the
    copies see the same views, their BatchNorm layers normalise by the batch, and the running
    statistics are their own, not averages.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, tau_start: float, tau_end: float):
        super().__init__()
        if not 0 <= tau_start <= tau_end <= 1:
            raise InputError(
                f"tau_start is {tau_start} and tau_end {tau_end}; "
                "expected 0 <= tau_start <= tau_end <= 1"
            )
        self.projector = projector
        self.momentum_backbone = _frozen_copy(backbone)
        self.momentum_projector = _frozen_copy(projector)
        self.updater = MomentumUpdater(tau_start, tau_end)

    def features(self, backbone: nn.Module, view_1: Tensor, view_2: Tensor) -> tuple[Tensor, ...]:
        """Return the features (n x width) of both views, then those by the momentum backbone."""
        with torch.no_grad():
            targets = super().features(self.momentum_backbone, view_1, view_2)
        return *super().features(backbone, view_1, view_2), *targets

    def projections(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the projections (n x outputs) of both views, and the targets, without gradient.

        `features` are what `features` returns.
        """
        with torch.no_grad():
            targets = [self.momentum_projector(view) for view in features[2:]]
        return [self.projector(view) for view in features[:2]], targets

    def after_step(self, backbone: nn.Module, step: int, total_steps: int) -> None:
        """Move the momentum networks towards the trained ones."""
        self.updater.update_tau(step, total_steps)
        self.updater.update(backbone, self.momentum_backbone)
        self.updater.update(self.projector, self.momentum_projector)


def _frozen_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False)
