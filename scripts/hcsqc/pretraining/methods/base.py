"""What the training loop asks of a self-supervised method."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class SelfSupervised(nn.Module):
    """A method: the layers behind the backbone and the loss on two views of a batch.

    A subclass is made by `Method(backbone, width, settings, crops)`: the untrained backbone, which
    it may copy but does not keep, the backbone's feature width, its own `Settings`, and the number
    of crops in the training set. All that it remembers from step to step lies in parameters and
    buffers, so that `state_dict()` resumes it.
    """

    @property
    def at_constant_rate(self) -> list[nn.Parameter]:
        """Those of its parameters whose learning rate is the peak's at every step."""
        return []

    def start_epoch(self, epoch: int) -> None:
        """Do what is due before the first step of `epoch` (from 0)."""

    def features(self, backbone: nn.Module, view_1: Tensor, view_2: Tensor) -> tuple[Tensor, ...]:
        """Return what `loss` needs: the backbone's n x width features of both views come first."""
        # Each view by itself: BatchNorm's statistics are those of one view.
        return backbone(view_1), backbone(view_2)

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the loss of a batch, a scalar.

        `features` are those that the method's `features` gives, as float32; `rows` (n, int64)
        tells which crops of the training set they show.
        """
        raise NotImplementedError

    def limit_gradients(self, backbone: nn.Module, epoch: int) -> None:
        """Change gradients of the backbone and of the method before the optimizer takes them."""

    def after_step(self, backbone: nn.Module, step: int, total_steps: int) -> None:
        """Follow the backbone as the optimizer has left it at `step` (from 0) of `total_steps`."""


def projector(
    sizes: list[int],
    batch_norm: bool,
    activation: type[nn.Module] = nn.ReLU,
    hidden_bias: bool = True,
) -> nn.Sequential:
    """Return linear layers from sizes[0] to sizes[-1], with ReLU (after BatchNorm) between.

    Another `activation` takes the place of ReLU; without `hidden_bias` only the last layer has one.
    """
    *hidden, last = pairwise(sizes)
    layers: list[nn.Module] = []
    for inputs, outputs in hidden:
        layers.append(nn.Linear(inputs, outputs, bias=hidden_bias))
        if batch_norm:
            layers.append(nn.BatchNorm1d(outputs))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(*last))
