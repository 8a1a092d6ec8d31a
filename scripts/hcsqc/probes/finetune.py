"""Encoder and linear layer trained together (paper 3.3, third task)."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hcsqc.core.errors import InputError
from hcsqc.encoders.pooling import PooledNetwork
from hcsqc.encoders.store import Encoder
from hcsqc.encoders.views import normalise
from hcsqc.probes.sgd import SgdSettings

TRAIN = "train"
FROZEN = "frozen"


@dataclass(frozen=True)
class FinetuneSettings(SgdSettings):
    """What `SgdSettings` says, for a network.

    `batchnorm` is `train` (BatchNorm layers normalise by the batch and renew their running
    statistics) or `frozen` (they normalise by the statistics that the encoder came with; scale and
    offset train all the same). `least_steps` is the least number of optimizer steps: where few
    labels make fewer, there are more epochs. Raises InputError for another word.
    """

    batchnorm: str
    least_steps: int

    def __post_init__(self):
        check_batchnorm(self.batchnorm)

    def lasting(self, n_crops: int) -> "FinetuneSettings":
        """Return the settings with as many epochs as make `least_steps` steps on n crops.

        Milestones stay at their share of the epochs, rounded to whole ones. Settings that make as
        many steps already stay as they are.
        """
        epochs = max(self.epochs, math.ceil(self.least_steps / len(_starts(n_crops, self))))
        milestones = tuple(round(epochs * one / self.epochs) for one in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones)


def check_batchnorm(word: str) -> None:
    """Raise InputError unless the word says what becomes of BatchNorm layers."""
    if word not in (TRAIN, FROZEN):
        raise InputError(f"fine-tuning: batchnorm '{word}' is neither {TRAIN} nor {FROZEN}")


def finetune(
    encoder: Encoder,
    crops: np.ndarray,
    targets: np.ndarray,
    settings: FinetuneSettings,
    seed: tuple[int, int],
    on_batch: Callable[[int, float], None],
) -> nn.Module:
    """Return the encoder with a two-class layer, trained on n x C x H x W composite crops.

    `targets` are 0 and 1. The encoder given stays as it is. Training lasts as `lasting` says.
    `seed` is (seed, draw); `on_batch` is told the number of crops and the loss (nats) of each
    batch. Raises InputError if the loss is not finite.
    """
    settings = settings.lasting(len(crops))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(seed)
    torch.manual_seed(int(rng.integers(2**31)))
    backbone = copy.deepcopy(encoder.backbone)
    if not encoder.pooling.is_plain:
        backbone = PooledNetwork(backbone, encoder.pooling)
    network = nn.Sequential(backbone, nn.Linear(encoder.width, 2))
    network = network.to(device, memory_format=torch.channels_last).train()
    if settings.batchnorm == FROZEN:
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
    optimizer = torch.optim.SGD(
        network.parameters(),
        settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(settings.milestones), settings.gamma
    )
    images = normalise(crops, encoder.input_spec, device)
    wanted = torch.from_numpy(targets).to(device)
    for epoch in range(settings.epochs):
        for rows in _batches(rng.permutation(len(crops)), settings):
            loss = nn.functional.cross_entropy(network(images[rows]), wanted[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            value = loss.item()
            if not np.isfinite(value):
                raise InputError(
                    f"fine-tuning: the loss became {value} in epoch {epoch}; lower learning_rate"
                )
            on_batch(len(rows), value)
        schedule.step()
    return network.eval()


def finetuned_scores(
    network: nn.Module, encoder: Encoder, crops: np.ndarray, batch_size: int
) -> np.ndarray:
    """Return the probability of abnormal for n x C x H x W composite crops."""
    return finetuned_logits(network, encoder, crops, batch_size).softmax(dim=1)[:, 1].numpy()


def finetuned_logits(
    network: nn.Module, encoder: Encoder, crops: np.ndarray, batch_size: int
) -> torch.Tensor:
    """Return the n x 2 logits of normal and abnormal for n x C x H x W composite crops."""
    device = next(network.parameters()).device
    logits = []
    with torch.inference_mode():
        for start in range(0, len(crops), batch_size):
            images = normalise(crops[start : start + batch_size], encoder.input_spec, device)
            logits.append(network(images).cpu())
    return torch.cat(logits)


def _batches(order: np.ndarray, settings: SgdSettings):
    """Yield the crops of an epoch in `order`, batch by batch."""
    starts = _starts(len(order), settings)
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield torch.from_numpy(order[start:stop])


def _starts(n_crops: int, settings: SgdSettings) -> list[int]:
    """Return where batches begin; a single crop left over joins the one before.

    BatchNorm cannot take one crop alone.
    """
    starts = list(range(0, n_crops, settings.batch_size))
    if len(starts) > 1 and n_crops - starts[-1] == 1:
        starts.pop()
    return starts
