"""Encoder and linear layer trained together (paper 3.3, third task)."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.encoders.store import Encoder
from hcsqc.encoders.views import normalise
from hcsqc.probes.sgd import SgdSettings


def finetune(
    encoder: Encoder,
    crops: np.ndarray,
    targets: np.ndarray,
    settings: SgdSettings,
    seed: tuple[int, int],
    on_batch: Callable[[int, float], None],
) -> nn.Module:
    """Return the encoder with a two-class layer, trained on n x C x H x W composite crops.

    `targets` are 0 and 1. The encoder given stays as it is. `seed` is (seed, draw); `on_batch` is
    told the number of crops and the loss of each batch. Raises InputError if the loss is not
    finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(seed)
    torch.manual_seed(int(rng.integers(2**31)))
    network = nn.Sequential(copy.deepcopy(encoder.backbone), nn.Linear(encoder.width, 2))
    network = network.to(device, memory_format=torch.channels_last).train()
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
        for rows in _batches(rng.permutation(len(crops)), settings.batch_size):
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


def _batches(order: np.ndarray, size: int):
    """Yield batches; a single crop left over, which BatchNorm cannot take, joins the one before."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield torch.from_numpy(order[start:stop])
