"""A linear layer with two outputs on frozen features, trained by SGD (paper 3.3, second task)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LinearSettings:
    """SGD with momentum and a step schedule: the rate is multiplied by gamma at each milestone."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    milestones: tuple[int, ...]
    gamma: float


def linear_scores(
    train: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    settings: LinearSettings,
    rngs: Sequence[np.random.Generator],
) -> list[np.ndarray]:
    """Train one layer per draw, all draws side by side; return the test scores of each.

    `train` holds one n x width matrix per draw (all of one n), `targets` n of 0 and 1, `test` an
    m x width matrix. The layer starts as PyTorch's `nn.Linear` does, the loss is cross-entropy,
    and the updates are those of `torch.optim.SGD`.
    """
    x = np.stack(train).astype(np.float32)
    y = np.stack(targets)
    draws, n, width = x.shape
    weight, bias = _initial_layers(width, rngs)
    step_weight, step_bias = np.zeros_like(weight), np.zeros_like(bias)
    one_hot = np.eye(2, dtype=np.float32)[y]
    each = np.arange(draws)[:, None]
    rate = settings.learning_rate
    for epoch in range(settings.epochs):
        if epoch in settings.milestones:
            rate *= settings.gamma
        order = np.stack([rng.permutation(n) for rng in rngs])
        for start in range(0, n, settings.batch_size):
            rows = order[:, start : start + settings.batch_size]
            batch = x[each, rows]
            error = _softmax(batch @ weight + bias) - one_hot[each, rows]
            error /= rows.shape[1]
            step_weight = settings.momentum * step_weight + batch.transpose(0, 2, 1) @ error
            step_bias = settings.momentum * step_bias + error.sum(axis=1, keepdims=True)
            weight -= np.float32(rate) * step_weight
            bias -= np.float32(rate) * step_bias
    return [
        _softmax(matrix.astype(np.float32) @ weight[draw] + bias[draw])[:, 1]
        for draw, matrix in enumerate(test)
    ]


def _initial_layers(width: int, rngs) -> tuple[np.ndarray, np.ndarray]:
    bound = 1 / np.sqrt(width)
    weight = [rng.uniform(-bound, bound, (width, 2)) for rng in rngs]
    bias = [rng.uniform(-bound, bound, (1, 2)) for rng in rngs]
    return np.stack(weight).astype(np.float32), np.stack(bias).astype(np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
