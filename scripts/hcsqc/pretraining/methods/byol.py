"""BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hcsqc.pretraining.methods.base import projector
from hcsqc.pretraining.methods.momentum import MomentumMethod
from hcsqc.pretraining.sololearn import byol_loss_func


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's and the predictor's layers, and the momentum network's tau."""

    projector_hidden: int
    projector_output: int
    predictor_hidden: int
    tau_start: float
    tau_end: float


class Method(MomentumMethod):
    """Predict the momentum network's projection of one view from the other view."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        output = settings.projector_output
        head = projector([width, settings.projector_hidden, output], batch_norm=True)
        super().__init__(backbone, head, settings.tau_start, settings.tau_end)
        self.predictor = projector([output, settings.predictor_hidden, output], batch_norm=True)

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the sum over both views of 2 - 2 times the cosine of prediction and target."""
        (z1, z2), (target_1, target_2) = self.projections(features)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return byol_loss_func(p2, target_1) + byol_loss_func(p1, target_2)
