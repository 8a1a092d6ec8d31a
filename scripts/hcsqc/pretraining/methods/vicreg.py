"""VICReg (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.methods.covariance import off_diagonal_squares

EPSILON = 1e-4  # below the root of a variance (section 4.1)


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
        settings = self.settings
        return (
            settings.invariance_weight * functional.mse_loss(z1, z2)
            + settings.variance_weight * (_too_narrow(z1) + _too_narrow(z2))
            + settings.covariance_weight * (_covariance(z1) + _covariance(z2))
        )


def _too_narrow(z: Tensor) -> Tensor:
    """Return by how much the spread of features (N x D) is below 1, on average."""
    return functional.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    """Return the squares off the diagonal of the covariance of features (N x D), over D."""
    centred = z - z.mean(dim=0)
    off_diagonal, _ = off_diagonal_squares(centred, centred)
    return off_diagonal / (len(z) - 1) ** 2 / z.shape[1]
