"""VICReg (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.sololearn import vicreg_loss_func


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's layers, and the weights of the three terms."""

    projector_hidden: int
    projector_output: int
    invariance_weight: float
    variance_weight: float
    covariance_weight: float


class Method(SelfSupervised):
    """Bring views together, keep every feature's spread above 1, and decorrelate features."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__()
        self.settings = settings
        hidden = settings.projector_hidden
        sizes = [width, hidden, hidden, settings.projector_output]
        self.projector = projector(sizes, batch_norm=True)

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the weighted sum of the three terms on the projected features."""
        z1, z2 = map(self.projector, features)
        return vicreg_loss_func(
            z1,
            z2,
            sim_loss_weight=self.settings.invariance_weight,
            var_loss_weight=self.settings.variance_weight,
            cov_loss_weight=self.settings.covariance_weight,
        )
