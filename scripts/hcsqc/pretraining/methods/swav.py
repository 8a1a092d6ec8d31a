"""SwAV (Caron et al. 2020, https://arxiv.org/abs/2006.09882), as in solo-learn 1.0.2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.sololearn import SinkhornKnopp, swav_loss_func


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's layers, prototypes, their assignment, and the queue."""

    projector_hidden: int
    projector_output: int
    temperature: float
    prototypes: int
    prototypes_frozen_epochs: int  # during which the prototypes are not trained
    prototype_length_trained: bool  # else prototypes are unit vectors, as in later solo-learn
    queue_size: int  # earlier crops that take part in the assignment; 0 for none
    queue_start_epoch: int  # from 0
    sinkhorn_epsilon: float
    sinkhorn_iterations: int


class Method(SelfSupervised):
    """Predict one view's assignment to prototypes from the other view."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__()
        self.settings = settings
        sizes = [width, settings.projector_hidden, settings.projector_output]
        self.projector = projector(sizes, batch_norm=True)
        self.prototypes = weight_norm(
            nn.Linear(settings.projector_output, settings.prototypes, bias=False)
        )
        if not settings.prototype_length_trained:
            length = self.prototypes.parametrizations.weight.original0
            nn.init.ones_(length).requires_grad_(False)
        self.sinkhorn = SinkhornKnopp(settings.sinkhorn_iterations, settings.sinkhorn_epsilon)
        queue = torch.zeros(2, settings.queue_size, settings.projector_output)
        self.register_buffer("queue", queue)  # the newest first, per view

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the swapped prediction loss, and queue the batch."""
        z = [F.normalize(self.projector(view)) for view in features]
        prototypes = self.prototypes.weight
        if epoch < self.settings.prototypes_frozen_epochs:
            prototypes = prototypes.detach()
        logits = [z_view @ prototypes.T for z_view in z]
        in_use = self.settings.queue_size if epoch >= self.settings.queue_start_epoch else 0
        assignments = [
            self.assign(view_logits, queue[:in_use])
            for view_logits, queue in zip(logits, self.queue, strict=True)
        ]
        self.enqueue(torch.stack(z).detach())
        return swav_loss_func(logits, assignments, temperature=self.settings.temperature)

    @torch.no_grad()
    def assign(self, logits: Tensor, queue: Tensor) -> Tensor:
        """Return the shares (n x prototypes, rows sum to 1) of a batch in the prototypes.

        `logits` (n x prototypes) of the batch are balanced together with those of the `queue`
        (crops x projector_output).
        """
        together = torch.cat([logits, queue @ self.prototypes.weight.T])
        # Sinkhorn exponentiates; it does not see a common offset, an overflow it would.
        return self.sinkhorn(together - together.max())[: len(logits)]

    def enqueue(self, z: Tensor) -> None:
        """Put `z` (2 x n x projector_output) at the head of the queue."""
        kept = torch.cat([z, self.queue], dim=1)[:, : self.settings.queue_size]
        self.queue.copy_(kept)
