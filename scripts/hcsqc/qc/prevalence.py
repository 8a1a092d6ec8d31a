"""How common abnormal cells are in a screen, and the consequences for probabilities and precision.

Labels of one well are alike, so a share of n labels is no surer than one of fewer independent
ones, and the intervals here are exact ones of so many: Korn & Graubard 1998, "Confidence intervals
for proportions with small expected number of positive counts estimated from survey data", Survey
Methodology 24:193.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, stdtrit

from hcsqc.core.errors import InputError

ABNORMAL = 1
SHOWN = 0.95  # confidence of intervals that are shown


@dataclass(frozen=True)
class Share:
    """A share of labels with its interval low to high; effective_n is what they are worth."""

    share: float
    low: float
    high: float
    effective_n: float


def prevalence(labels: np.ndarray, wells: np.ndarray) -> Share | None:
    """Return the share of abnormal cells, from n randomly chosen labels of 0 and 1 and their wells.

    None if there are no labels. Labels chosen in any other way say nothing of the prevalence.
    """
    if not len(labels):
        return None
    return clustered_share(np.asarray(labels) == ABNORMAL, wells, SHOWN)


def clustered_share(hits: np.ndarray, wells: np.ndarray, confidence: float) -> Share:
    """Return the share of n hits (bool) with its two-sided Korn-Graubard interval by well.

    Where all labels or none are hits, no likeness of a well's labels can be seen; then a well
    counts as one label. Labels of a single well say nothing of others: 0 to 1.
    """
    n, counts = len(hits), _sizes(wells)
    tail = (1 - confidence) / 2
    share = float(np.mean(hits))
    if len(counts) < 2:
        return Share(share, 0.0, 1.0, float(len(counts)))
    alike = share in (0, 1)
    effect = largest_design_effect(counts) if alike else design_effect(hits, wells)
    size = float(effective_size(n, effect, len(counts), tail))
    low, high = exact_bounds(share * size, size, tail)
    return Share(share, float(low), float(high), size)


def exact_bounds(
    count: ArrayLike, n: ArrayLike, tail: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return Clopper and Pearson's bounds of a share, each missed with a chance of `tail` at most.

    `count` of `n` need not be whole numbers. Without any, 0 and 1.
    """
    count, n = np.broadcast_arrays(np.asarray(count, float), np.asarray(n, float))
    # What is left of a sum of shares is no count.
    none, all_ = count <= 1e-9, n - count <= 1e-9
    low = betaincinv(np.where(none, 1, count), n - count + 1, tail)
    high = betaincinv(count + 1, np.where(all_, 1, n - count), 1 - tail)
    return np.where(none, 0.0, low), np.where(all_, 1.0, high)


def design_effect(hits: np.ndarray, wells: np.ndarray) -> float:
    """Return how much more the share of n hits varies than that of independent ones would.

    The variance is that of a ratio over wells (linearised, Korn & Graubard 1998). 1 where each
    well has one label; nan if there is one well, or if all or none are hits.
    """
    share = np.mean(hits)
    _, place = np.unique(wells, return_inverse=True)
    sizes = np.bincount(place)
    if len(sizes) < 2 or share in (0, 1):
        return float("nan")
    rest = np.bincount(place, weights=np.asarray(hits, float)) - share * sizes
    variance = len(sizes) / (len(sizes) - 1) * (rest**2).sum() / len(hits) ** 2
    return float(variance / (share * (1 - share) / (len(hits) - 1)))


def largest_design_effect(sizes: np.ndarray) -> float:
    """Return the design effect of wells with so many labels each, if each well's are all alike."""
    return float((sizes**2).sum() / sizes.sum())


def effective_size(
    n: np.ndarray | float, effect: np.ndarray | float, wells: np.ndarray | float, tail: float
) -> np.ndarray:
    """Return how many independent labels n of so many wells are worth; never more than n.

    The design effect, at least 1, is itself estimated from the wells: the surer, the more there
    are (Student's t for n - 1 and for wells - 1 degrees of freedom).
    """
    if tail == 0.5:  # nothing is to be sure of
        return np.minimum(n / np.maximum(effect, 1), n)
    surest = stdtrit(np.maximum(n - 1, 1), 1 - tail)
    doubt = (surest / stdtrit(np.maximum(wells - 1, 1), 1 - tail)) ** 2
    return np.minimum(n / np.maximum(effect, 1) * doubt, n)


def _sizes(wells: np.ndarray) -> np.ndarray:
    return np.unique(np.asarray(wells), return_counts=True)[1]


def at_prevalence(probability: np.ndarray, training_share: float, prevalence: float) -> np.ndarray:
    """Return probabilities of abnormal as they are where abnormal cells are as common as given.

    `training_share` is the share of abnormal among the labels that the classifier was trained on
    (Saerens et al. 2002, Neural Computation 14:21, equation 2.4). nan stays nan.
    Raises InputError if the classifier was trained on one class.
    """
    if not 0 < training_share < 1:
        raise InputError(
            f"training labels: {training_share:.0%} are abnormal; a classifier needs labels of "
            "both classes"
        )
    given = np.asarray(probability, float)
    abnormal = given * prevalence / training_share
    normal = (1 - given) * (1 - prevalence) / (1 - training_share)
    total = abnormal + normal
    # A probability of 1 where nothing can be abnormal, or of 0 where all is.
    corrected = np.full(given.shape, float(prevalence))
    np.divide(abnormal, total, out=corrected, where=total != 0)
    return corrected


def precision_at(
    prevalence: Share, recall: Share, false_positives: Share
) -> tuple[float, float, float]:
    """Return the share of flagged cells that are abnormal, where abnormal ones are so common.

    It comes with a low and a high end, those of the worst and of the best ends of all three
    shares together, so the interval is wider than it need be. nan where nothing is flagged.
    """
    return (
        _precision(prevalence.share, recall.share, false_positives.share),
        _precision(prevalence.low, recall.low, false_positives.high),
        _precision(prevalence.high, recall.high, false_positives.low),
    )


def _precision(prevalence: float, recall: float, false_positives: float) -> float:
    found, false = prevalence * recall, (1 - prevalence) * false_positives
    return found / (found + false) if found + false > 0 else float("nan")
