"""A threshold with a promise: how many good cells of new wells are lost at most.

Labels were chosen at random and held out from training. The bound on the share of good cells above
a threshold is an exact one (Clopper-Pearson) for the number of independent labels that labels of
shared wells are worth (Korn & Graubard 1998, Survey Methodology 24:193). Thresholds are tried from
strict to loose and the first failure stops, so that choosing among them costs no confidence
(fixed-sequence testing: Angelopoulos et al. 2021, "Learn then Test", arXiv:2110.01052).

A few labels above a threshold do not show whether they come by wells. The likeness of a well's
normal labels is therefore also taken from the highest tenth of their scores, and the larger one
counts. Of rare wells unlike all labelled ones no promise can be made.
"""

import math
from dataclasses import dataclass

import numpy as np

from hcsqc.core.errors import InputError
from hcsqc.qc.prevalence import (
    ABNORMAL,
    SHOWN,
    Share,
    clustered_share,
    effective_size,
    exact_bounds,
    largest_design_effect,
)

STRICTER = (0.05, 0.02, 0.01)
HIGHEST = 0.1  # share of the normal labels
STEP = 0.001  # of the share that labels support
LARGEST_PROMISE = 0.5  # of good cells lost: beyond it nothing is worth a promise


@dataclass(frozen=True)
class Threshold:
    """A threshold, what it promises and what it rests on; a cell is flagged if above it.

    With `confidence`, at most the share `good_cells_lost` of the normal cells of new wells lies
    above `threshold`. `exceeding` is the share of the normal labels that does, `bound` its upper
    bound, `effective_n` the number of independent labels that they are worth there. `wells` hold
    normal labels. `recall` is the share of abnormal labels flagged with its 95% interval; None
    without such labels. `supported` is the strictest share that so many labels can promise, and
    `more_for_stricter` says for stricter promises how many more random normal labels make them
    just possible.
    """

    threshold: float
    good_cells_lost: float
    confidence: float
    n_normal: int
    n_abnormal: int
    wells: int
    effective_n: float
    exceeding: float
    bound: float
    recall: Share | None
    supported: float
    more_for_stricter: dict[float, int]

    @property
    def false_positives(self) -> Share:
        """The share of normal cells flagged; both ends hold with `confidence`, each alone."""
        count = self.exceeding * self.effective_n
        low, high = exact_bounds(count, self.effective_n, 1 - self.confidence)
        return Share(self.exceeding, float(low), float(high), self.effective_n)


def choose_threshold(
    scores: np.ndarray,
    labels: np.ndarray,
    wells: np.ndarray,
    good_cells_lost: float,
    confidence: float,
) -> Threshold:
    """Return the loosest threshold that keeps the promise, from n held-out random labels.

    `scores` are 0 to 1, `labels` 1 (abnormal) or 0, `wells` the names of their wells. Thresholds
    are scores of normal labels.
    Raises InputError if the labels cannot support the promise: it says what they can, and how many
    more it takes, in how many further wells that hold as many labels as these do.
    """
    scores, labels, wells = np.asarray(scores, float), np.asarray(labels), np.asarray(wells)
    _check(scores, labels, good_cells_lost, confidence)
    normal = labels != ABNORMAL
    n, n_wells = int(normal.sum()), len(np.unique(wells[normal]))
    tail = 1 - confidence
    if n_wells < 2:
        raise InputError(
            f"threshold: {n} random normal labels in {n_wells} wells say nothing about other "
            "wells; label randomly chosen cells in more wells"
        )
    values, counts, effects = _steps(scores[normal], wells[normal], good_cells_lost)
    sizes = effective_size(n, effects, n_wells, tail)
    bounds = exact_bounds(counts * sizes / n, sizes, tail)[1]
    last = int(np.argmin(np.append(bounds <= good_cells_lost, False))) - 1
    supported = math.ceil(bounds[0] / STEP - 1e-9) * STEP
    effect, per_well = float(effects[0]), n / n_wells
    if last < 0:
        more = max(labels_needed(good_cells_lost, confidence, effect, per_well) - n, 1)
        further = math.ceil(more / per_well)
        raise InputError(
            f"threshold: {n} random normal labels in {n_wells} wells, equal to {sizes[0]:.0f} "
            f"independent ones, cannot promise with {confidence:.0%} confidence that at most "
            f"{good_cells_lost:.1%} of good cells are lost, only {supported:.1%}; raise "
            f"good_cells_lost to {supported:.3f} or label at least {more} more randomly chosen "
            f"normal cells in at least {further} further {'well' if further == 1 else 'wells'}, "
            "because cells of one well are similar"
        )
    abnormal = labels == ABNORMAL
    flagged = scores[abnormal] > values[last]
    return Threshold(
        threshold=float(values[last]),
        good_cells_lost=good_cells_lost,
        confidence=confidence,
        n_normal=n,
        n_abnormal=int(abnormal.sum()),
        wells=n_wells,
        effective_n=float(sizes[last]),
        exceeding=float(counts[last] / n),
        bound=float(bounds[last]),
        recall=clustered_share(flagged, wells[abnormal], SHOWN) if abnormal.any() else None,
        supported=round(supported, 3),
        more_for_stricter={
            share: max(labels_needed(share, confidence, effect, per_well) - n, 0)
            for share in STRICTER
            if share < good_cells_lost
        },
    )


def promises_at(
    scores: np.ndarray,
    labels: np.ndarray,
    wells: np.ndarray,
    thresholds: np.ndarray,
    confidence: float,
) -> np.ndarray:
    """Return for each threshold the smallest good_cells_lost that may be promised there.

    Labels are those of `choose_threshold`, which returns no higher threshold for that share. nan
    where the share would be above LARGEST_PROMISE, or where the labels tell nothing of other wells.
    """
    scores, labels, wells = np.asarray(scores, float), np.asarray(labels), np.asarray(wells)
    thresholds = np.asarray(thresholds, float)
    normal = labels != ABNORMAL
    n, n_wells = int(normal.sum()), len(np.unique(wells[normal]))
    if n_wells < 2:
        return np.full(len(thresholds), np.nan)
    tail = 1 - confidence
    values, counts, effects = _steps(scores[normal], wells[normal], LARGEST_PROMISE)
    sizes = effective_size(n, effects, n_wells, tail)
    bounds = np.maximum.accumulate(exact_bounds(counts * sizes / n, sizes, tail)[1])
    bounds = np.where(bounds <= LARGEST_PROMISE, bounds, np.nan)
    # The first step, from strict to loose, that is no higher than the threshold.
    return np.append(bounds, np.nan)[np.searchsorted(-values, -thresholds)]


def labels_needed(share: float, confidence: float, design_effect: float, per_well: float) -> int:
    """Return how many random normal labels can promise that at most `share` of good cells is lost.

    The promise is just possible then, and the threshold is the highest normal score. There are
    `per_well` labels in a well, at least 1.
    """
    tail = 1 - confidence

    def enough(n: int) -> bool:
        wells = max(n / max(per_well, 1), 2)
        size = float(effective_size(n, design_effect, wells, tail))
        return float(exact_bounds(0, size, tail)[1]) <= share

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(
    scores: np.ndarray, labels: np.ndarray, good_cells_lost: float, confidence: float
) -> None:
    if not (0 < good_cells_lost < 1 and 0.5 <= confidence < 1):
        raise InputError(
            f"threshold: good_cells_lost is {good_cells_lost} and confidence {confidence}; give a "
            "share between 0 and 1 and a confidence from 0.5 to below 1"
        )
    bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(bad):
        raise InputError(
            f"threshold: label {bad[0]} has the score {scores[bad[0]]}; leave out cells without "
            "score, and give scores from 0 to 1"
        )
    if not np.isin(labels, (0, ABNORMAL)).all():
        raise InputError("threshold: labels must be 0 (normal) or 1 (abnormal)")


def _steps(
    scores: np.ndarray, wells: np.ndarray, largest_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct scores from high to low, how many lie above each, and design effects.

    They end where a larger share lies above. A design effect is that of the labels above the
    score, but no less than that of the highest tenth shows.
    """
    n = len(scores)
    _, place = np.unique(wells, return_inverse=True)
    sizes = np.bincount(place)
    order = np.argsort(-scores, kind="stable")
    own = place[order]
    # With x hits among the m labels of a well: sums over wells of x * x and of x * m, hit by hit.
    squares = np.r_[0, np.cumsum(2 * _seen_before(own) + 1)]
    products = np.r_[0, np.cumsum(sizes[own])]
    ordered = scores[order]
    counts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    counts = counts[counts <= largest_share * n]
    share = counts / n
    rest = squares[counts] - 2 * share * products[counts] + share**2 * (sizes**2).sum()
    variance = len(sizes) / (len(sizes) - 1) * rest / n**2
    with np.errstate(invalid="ignore"):
        effects = variance / (share * (1 - share) / (n - 1))
    likeness = max(_intraclass(_highest(scores), place), 0)
    least = 1 + likeness * (largest_design_effect(sizes) - 1)
    return ordered[counts], counts, np.fmax(effects, least)


def _highest(scores: np.ndarray) -> np.ndarray:
    """Return 1 for the highest tenth of the scores, and 0."""
    return (scores > np.quantile(scores, 1 - HIGHEST, method="lower")).astype(float)


def _seen_before(values: np.ndarray) -> np.ndarray:
    """Return how often each of n small whole numbers stands before its own place."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    lengths = np.diff(np.r_[starts, len(values)])
    seen = np.empty(len(values), int)
    seen[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return seen


def _intraclass(values: np.ndarray, place: np.ndarray) -> float:
    """Return the correlation of values of one group, by analysis of variance; 0 if not known."""
    sizes = np.bincount(place)
    n, groups = len(values), len(sizes)
    if n == groups or np.ptp(values) == 0:
        return 0.0
    means = np.bincount(place, weights=values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
    within = ((values - means[place]) ** 2).sum() / (n - groups)
    usual = (n - (sizes**2).sum() / n) / (groups - 1)
    return float((between - within) / (between + (usual - 1) * within))
