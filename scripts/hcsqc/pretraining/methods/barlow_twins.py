"""Barlow Twins (Zbontar et al. 2021, https://arxiv.org/abs/2103.03230)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.methods.covariance import off_diagonal_squares


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's layers, weight of the off-diagonal, factor on the whole loss."""

    projector_hidden: int
    projector_output: int
    lambda_off_diagonal: float
    loss_scale: float


class Method(SelfSupervised):
    """Bring the cross-correlation of the two views' features to the identity."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__()
        self.settings = settings
        hidden = settings.projector_hidden
        sizes = [width, hidden, hidden, settings.projector_output]
        self.projector = projector(sizes, batch_norm=True)

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the redundancy reduction loss of the projected features."""
        z1, z2 = (
            functional.batch_norm(self.projector(each), None, None, training=True)
            for each in features
        )
        off_diagonal, diagonal = off_diagonal_squares(z1, z2)
        on_diagonal = (diagonal / len(z1) - 1).square().sum()
        weighted = self.settings.lambda_off_diagonal * off_diagonal / len(z1) ** 2
        return self.settings.loss_scale * (on_diagonal + weighted)
