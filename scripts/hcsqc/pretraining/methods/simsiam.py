"""SimSiam (Chen and He 2021, https://arxiv.org/abs/2011.10566)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.sololearn import simsiam_loss_func


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's and the predictor's layers."""

    projector_hidden: int
    projector_output: int
    predictor_hidden: int


class Method(SelfSupervised):
    """Predict one view's projection, held fixed, from the other view.

    There are neither negatives nor a momentum network; the predictor and the fixed projection keep
    the features from collapse. As in the paper, the predictor's learning rate does not fall.
    """

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__()
        hidden, output = settings.projector_hidden, settings.projector_output
        layers = projector([width, hidden, hidden, output], batch_norm=True, hidden_bias=False)
        layers[-1].bias.requires_grad_(False)  # the next layer takes it out again
        self.projector = nn.Sequential(*layers, nn.BatchNorm1d(output, affine=False))
        sizes = [output, settings.predictor_hidden, output]
        self.predictor = projector(sizes, batch_norm=True, hidden_bias=False)

    @property
    def at_constant_rate(self) -> list[nn.Parameter]:
        """The predictor's parameters."""
        return list(self.predictor.parameters())

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return minus the cosine of prediction and projection, the mean of both views."""
        z1, z2 = map(self.projector, features)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return simsiam_loss_func(p1, z2) / 2 + simsiam_loss_func(p2, z1) / 2
