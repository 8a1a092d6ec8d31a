"""A linear layer with two outputs on frozen features, trained by SGD (paper 3.3, second task)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from hcsqc.probes.sgd import SgdSettings
from hcsqc.probes.task import Classified, Task, select

Settings = SgdSettings


def classify(
    crops: pd.Index, features: np.ndarray, draws: Sequence[Task], settings: Settings, seed: int
) -> Classified:
    """Train a layer for each draw, all side by side; `features` is a row per crop."""
    scores = linear_scores(
        [select(crops, features, task.train_crops) for task in draws],
        [task.train_targets for task in draws],
        [select(crops, features, task.test["crop_id"]) for task in draws],
        settings,
        [np.random.default_rng([seed, task.draw]) for task in draws],
    )
    return Classified(scores)


def linear_scores(
    train: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    settings: SgdSettings,
    rngs: Sequence[np.random.Generator],
) -> list[np.ndarray]:
    """Train one layer per draw, all draws side by side; return the test scores of each.

    `train` holds one n x width matrix per draw (all of one n), `targets` n of 0 and 1, `test` an
    m x width matrix. The layer starts as PyTorch's `nn.Linear` does, the loss is cross-entropy,
    and the updates are those of `torch.optim.SGD`.
    """
    logits = linear_logits(train, targets, test, [settings], rngs)
    return [expit(values[:, 0]) for values in logits]


def linear_logits(
    train: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    settings: Sequence[SgdSettings],
    rngs: Sequence[np.random.Generator],
) -> list[np.ndarray]:
    """Train one layer per draw and setting, side by side; return m x settings logits of each draw.

    Arguments are those of `linear_scores`; a logit is that of the probability of abnormal. The
    settings have one batch size, and the layers of a draw one start and one order of batches.

    Training is done in the dual. Gradients are sums of training rows, so a layer that starts at w
    is always s w + X' a, with a number s and n coefficients a, and a batch's logits need only the
    products of its rows with all rows: n numbers per row instead of width, computed once. That
    takes n x n floats per draw.
    """
    if not train:
        return []
    x = np.stack([_with_constant(matrix) for matrix in train])
    start = _initial_differences(x.shape[2], rngs)
    share, coefficients = _train_in_the_dual(
        x @ x.transpose(0, 2, 1), (x @ start)[:, :, 0], 2 * np.stack(targets) - 1, settings, rngs
    )
    layers = share * start + x.transpose(0, 2, 1) @ coefficients
    return [_with_constant(matrix) @ layers[draw] for draw, matrix in enumerate(test)]


def _with_constant(matrix: np.ndarray) -> np.ndarray:
    """Return the features with a column of ones, whose weight is the bias."""
    return np.hstack([matrix, np.ones((len(matrix), 1))], dtype=np.float32)


def _initial_differences(width: int, rngs) -> np.ndarray:
    """Return the difference of the two outputs' weights and biases, draws x (width + 1) x 1.

    Cross-entropy, gradients and decay depend on the layers only through it.
    """
    weight, bias = _initial_layers(width - 1, rngs)
    both = np.concatenate([weight, bias], axis=1)
    return both[:, :, 1:] - both[:, :, :1]


def _initial_layers(width: int, rngs) -> tuple[np.ndarray, np.ndarray]:
    bound = 1 / np.sqrt(width)
    weight = [rng.uniform(-bound, bound, (width, 2)) for rng in rngs]
    bias = [rng.uniform(-bound, bound, (1, 2)) for rng in rngs]
    return np.stack(weight).astype(np.float32), np.stack(bias).astype(np.float32)


def _train_in_the_dual(
    products: np.ndarray,
    start: np.ndarray,
    signs: np.ndarray,
    settings: Sequence[SgdSettings],
    rngs: Sequence[np.random.Generator],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the start that is left, settings, and draws x n x settings coefficients.

    `products` is draws x n x n, `start` the draws x n logits of the initial layers, `signs`
    draws x n of -1 and 1.
    """
    draws, n, _ = products.shape
    (batch_size,) = {one.batch_size for one in settings}
    momentum, decay = (
        np.array([getattr(one, name) for one in settings], np.float32)
        for name in ("momentum", "weight_decay")
    )
    share = np.ones(len(settings), np.float32)
    coefficients = np.zeros((draws, n, len(settings)), np.float32)
    share_step, step = np.zeros_like(share), np.zeros_like(coefficients)
    # Indices into all draws' rows at once: NumPy copies whole rows faster that way.
    first_row = n * np.arange(draws)[:, None]
    products, start, signs = products.reshape(draws * n, n), start.ravel(), signs.ravel()
    flat_step = step.reshape(draws * n, len(settings))
    for rates in _learning_rates(settings):
        order = first_row + np.stack([rng.permutation(n) for rng in rngs])
        for first in range(0, n, batch_size):
            rows = order[:, first : first + batch_size]
            logits = products[rows] @ coefficients
            logits += start[rows][:, :, None] * share
            # The gradient of the difference of the outputs, that is 2 (probability - target).
            error = np.tanh(0.5 * logits, out=logits)
            error -= signs[rows][:, :, None]
            error /= rows.shape[1]
            step *= momentum
            step += decay * coefficients
            flat_step[rows] += error
            share_step = momentum * share_step + decay * share
            coefficients -= rates * step
            share -= rates * share_step
    return share, coefficients


def _learning_rates(settings: Sequence[SgdSettings]) -> np.ndarray:
    """Return epochs x settings; 0 after a setting's last epoch, where its layer stays as it is."""
    epochs = np.arange(max(one.epochs for one in settings))[:, None]
    passed = [(epochs >= np.array(one.milestones)).sum(axis=1) for one in settings]
    rates = [
        one.learning_rate * one.gamma**count for one, count in zip(settings, passed, strict=True)
    ]
    running = epochs < np.array([one.epochs for one in settings])
    return np.where(running, np.stack(rates, axis=1), 0).astype(np.float32)
