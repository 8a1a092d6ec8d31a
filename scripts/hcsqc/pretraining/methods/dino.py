"""DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294), as in solo-learn 1.0.2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from hcsqc.pretraining.methods.base import projector
from hcsqc.pretraining.methods.momentum import MomentumMethod
from hcsqc.pretraining.sololearn import DINOLoss

INITIAL_STD = 0.02  # of the head's weights: Caron et al. 2021, and solo-learn


@dataclass(frozen=True)
class Settings:
    """Sizes of the head, temperatures, the teacher's centre and tau, and what steadies training."""

    projector_hidden: int
    projector_output: int
    prototypes: int
    prototypes_frozen_epochs: int  # during which the prototypes are not trained
    student_temperature: float
    teacher_temperature_start: float
    teacher_temperature: float
    teacher_warmup_epochs: int  # in which its temperature rises, by equal parts per epoch
    centre_momentum: float  # share that the centre keeps of itself at each step
    gradient_limit: float  # on the norm, for each of the backbone's tensors; 0 for none
    tau_start: float
    tau_end: float


class Head(nn.Module):
    """Map features to one logit per prototype; prototypes and what meets them are unit vectors."""

    def __init__(self, width: int, settings: Settings):
        super().__init__()
        hidden, output = settings.projector_hidden, settings.projector_output
        self.mlp = projector([width, hidden, hidden, output], batch_norm=False, activation=nn.GELU)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)
        self.prototypes = weight_norm(nn.Linear(output, settings.prototypes, bias=False))
        nn.init.ones_(self.prototypes.parametrizations.weight.original0).requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Map n x width to n x prototypes."""
        return self.prototypes(F.normalize(self.mlp(features)))


class Method(MomentumMethod):
    """Predict how the momentum network, the teacher, shares the other view among prototypes."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__(backbone, Head(width, settings), settings.tau_start, settings.tau_end)
        self.settings = settings
        self.dino_loss = DINOLoss(
            settings.prototypes,
            settings.teacher_temperature_start,
            settings.teacher_temperature,
            settings.teacher_warmup_epochs,
            settings.teacher_warmup_epochs + 1,
            settings.student_temperature,
            center_momentum=settings.centre_momentum,
        )

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the cross-entropy with the teacher's shares, and move its centre."""
        student, teacher = self.projections(features)
        # Its schedule ends with the first epoch after the warm-up, whose temperature stays.
        self.dino_loss.epoch = min(epoch, self.settings.teacher_warmup_epochs)
        return self.dino_loss(torch.cat(student), torch.cat(teacher))

    def limit_gradients(self, backbone: nn.Module, epoch: int) -> None:
        """Shorten gradients above the limit, and drop the prototypes' while these are frozen."""
        if self.settings.gradient_limit:
            for parameter in backbone.parameters():
                nn.utils.clip_grad_norm_(parameter, self.settings.gradient_limit)
        if epoch < self.settings.prototypes_frozen_epochs:
            for parameter in self.projector.prototypes.parameters():
                parameter.grad = None
