"""What the training loop asks of a self-supervised method."""

from itertools import pairwise

from torch import Tensor, nn


class SelfSupervised(nn.Module):
    """A method: the layers behind the backbone and the loss on two views of a batch.

    A subclass is made by `Method(width, settings, crops)`: the backbone's feature width, its own
    `Settings`, and the number of crops in the training set. All that it remembers from step to
    step lies in parameters and buffers, so that `state_dict()` resumes it.
    """

    def start_epoch(self, epoch: int) -> None:
        """Do what is due before the first step of `epoch` (from 0)."""

    def loss(self, features_1: Tensor, features_2: Tensor, rows: Tensor, epoch: int) -> Tensor:
        """Return the loss of a batch, a scalar.

        `features_1` and `features_2` are the backbone's n x width features of the two views,
        float32; `rows` (n, int64) tells which crops of the training set they show.
        """
        raise NotImplementedError


def projector(sizes: list[int], batch_norm: bool) -> nn.Sequential:
    """Return linear layers from sizes[0] to sizes[-1], with ReLU (after BatchNorm) between."""
    *hidden, last = pairwise(sizes)
    layers: list[nn.Module] = []
    for inputs, outputs in hidden:
        layers.append(nn.Linear(inputs, outputs))
        if batch_norm:
            layers.append(nn.BatchNorm1d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(*last))
