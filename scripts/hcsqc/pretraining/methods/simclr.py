"""SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.sololearn import simclr_loss_func


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's layers, and the temperature of the contrastive loss."""

    projector_hidden: int
    projector_output: int
    temperature: float


class Method(SelfSupervised):
    """Tell a crop's other view among all views of the batch (NT-Xent loss)."""

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__()
        self.temperature = settings.temperature
        sizes = [width, settings.projector_hidden, settings.projector_output]
        self.projector = projector(sizes, batch_norm=False)

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the NT-Xent loss of the projected features."""
        z1, z2 = map(self.projector, features)
        return simclr_loss_func(z1, z2, temperature=self.temperature)
