"""How sure the differences of encoders are that were tested on the same draws.

What varies from one study to the next has two parts. *Groups* (wells,
compounds or plates: `labels.groups`): another study tests others; this part is found by leaving out
one at a time, in all draws (jackknife). *Training labels*: another study trains on others; this
part is how the draws differ beyond what their test groups explain. Draws share training labels, so
it does not vanish with their number (Nadeau and Bengio 2003). The two add up; a bootstrap of both
at once counts the noise of single crops twice.
"""

import numpy as np

# Draws that have nearly all training labels in common say nothing of other training labels.
MOST_OVERLAP = 0.95


def difference_variances(
    scores: np.ndarray, left_out: np.ndarray, overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of each difference of k mean scores, k x k, and its degrees of freedom.

    `scores` are those of k encoders in d draws, `left_out` k x g x d: the score of a draw without
    one of its g groups. It is nan where the score is not defined without the group, and infinite
    where the draw does not test it. `overlap` is the share of training labels that two draws have
    in common. Without two groups nothing is known: nan.
    """
    encoders, draws = scores.shape
    tested = np.isfinite(left_out[0]) | np.isnan(left_out[0])
    own = tested.any(axis=1)
    groups = int(own.sum())
    if groups < 2:
        unknown = np.full((encoders, encoders), np.nan)
        return unknown, unknown
    without = np.where(np.isinf(left_out), scores[:, None], left_out)[:, own]
    between_groups = (groups - 1) / groups * _products(_defined_mean(without))
    by_groups = _of_differences(between_groups)
    by_labels = np.zeros_like(by_groups)
    if draws > 1:
        between_draws = _products(scores) / (draws - 1)
        explained = np.zeros((encoders, encoders))
        for draw in range(draws):
            inside = left_out[:, tested[:, draw], draw]
            lost = np.nan_to_num(scores[:, draw, None] - inside)
            count = lost.shape[1]
            explained += (count - 1) / count * _products(lost) / draws
        shared = min(overlap, MOST_OVERLAP)
        # Clipped after the subtraction: a variance is not below nought, an estimate may be.
        of_one = np.maximum(_of_differences(between_draws) - _of_differences(explained), 0)
        by_labels = (1 / draws + shared / (1 - shared)) * of_one
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (by_groups + by_labels) ** 2 / (
            by_groups**2 / (groups - 1) + by_labels**2 / max(draws - 1, 1)
        )
    return by_groups + by_labels, np.where(np.isnan(freedom), groups - 1, freedom)


def _defined_mean(without: np.ndarray) -> np.ndarray:
    """Return the mean over the draws (last axis) that are defined; the usual one if none is."""
    defined = ~np.isnan(without)
    count = defined.sum(axis=-1)
    mean = np.where(defined, without, 0).sum(axis=-1) / np.maximum(count, 1)
    return np.where(count > 0, mean, mean.mean(axis=-1, keepdims=True))


def _products(values: np.ndarray) -> np.ndarray:
    """Return the sums of products of the deviations of k rows from their means, k x k."""
    away = values - values.mean(axis=1, keepdims=True)
    return away @ away.T


def _of_differences(covariance: np.ndarray) -> np.ndarray:
    own = np.diag(covariance)
    return np.maximum(own[:, None] + own[None] - 2 * covariance, 0)
