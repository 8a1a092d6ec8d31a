"""MoCo v2+ (He et al. 2020, https://arxiv.org/abs/1911.05722; v2: 2003.04297; +: 2011.10566).

The + is the loss of both views, in either role.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcsqc.core.errors import InputError
from hcsqc.pretraining.methods.base import projector
from hcsqc.pretraining.methods.momentum import MomentumMethod
from hcsqc.pretraining.sololearn import moco_loss_func


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's layers, the contrastive loss, and the momentum network's tau."""

    projector_hidden: int
    projector_output: int
    temperature: float
    queue_size: int  # earlier crops that a crop is distinguished from
    tau_start: float
    tau_end: float


class Method(MomentumMethod):
    """Find the momentum network's projection of the other view among those of earlier crops."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        if settings.queue_size > crops:
            raise InputError(
                f"moco_v2_plus: a queue of {settings.queue_size} would hold each of {crops} crops "
                "as its own opposite; lower queue_size or pretrain on more crops"
            )
        sizes = [width, settings.projector_hidden, settings.projector_output]
        head = projector(sizes, batch_norm=False)
        super().__init__(backbone, head, settings.tau_start, settings.tau_end)
        self.settings = settings
        queue = torch.randn(2, settings.queue_size, settings.projector_output)
        self.register_buffer("queue", F.normalize(queue, dim=2))  # per view
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))  # its place in the queue

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the contrastive loss, the mean of both views, and queue the batch."""
        queries, keys = self.projections(features)
        (q1, q2), (k1, k2) = ([F.normalize(z) for z in views] for views in (queries, keys))
        # A copy: the gradient needs the queue as it is now.
        queue_1, queue_2 = self.queue.clone().transpose(1, 2)
        temperature = self.settings.temperature
        loss_1 = moco_loss_func(q1, k2, queue_2, temperature)
        loss_2 = moco_loss_func(q2, k1, queue_1, temperature)
        self.enqueue(torch.stack([k1, k2]))
        return (loss_1 + loss_2) / 2

    def enqueue(self, keys: Tensor) -> None:
        """Put `keys` (2 x n x projector_output) in the place of the oldest of the queue."""
        size = self.settings.queue_size
        keys = keys[:, -size:]
        count = keys.shape[1]
        places = (self.oldest + torch.arange(count, device=keys.device)) % size
        self.queue[:, places] = keys
        self.oldest.copy_((self.oldest + count) % size)
