"""A threshold with a promise: how many good cells of new wells are lost at most.

Labels were chosen at random and held out from training. The wells are the independent units: each
counts by the share of its normal labels above a threshold. The bound on the mean of these shares is
Gaffke's (2005, Mathematical Methods of Statistics 14:451; Learned-Miller & Thomas 2019,
arXiv:1905.06208): one well more is added that loses all of its good cells, the wells get random
weights, and the bound is the quantile of their mean. For one label per well it is Clopper and
Pearson's, and no likeness of a well's labels needs to be estimated.

With k wells none of which loses a good cell, the share of wells that lose all may still be
1 - (1 - confidence) ** (1 / k). So a promise needs `wells_needed`, however many labels there are in
each, and with so many wells there is always a threshold that keeps it: whether a promise is given
does not depend on chance, which would favour those that break.

Thresholds are tried from strict to loose and the first failure stops, so that choosing among them
costs no confidence (fixed-sequence testing: Angelopoulos et al. 2021, "Learn then Test",
arXiv:2110.01052).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from hcsqc.core.errors import InputError
from hcsqc.qc.prevalence import ABNORMAL, SHOWN, Share, clustered_share

STRICTER = (0.05, 0.02, 0.01)
STEP = 0.001  # of the share that labels support
ROUNDING = 1e-9
POWERS = (1, 2, 3)
LARGEST_PROMISE = 0.5  # of good cells lost: beyond it nothing is worth a promise


@dataclass(frozen=True)
class Threshold:
    """A threshold, what it promises and what it rests on; a cell is flagged if above it.

    With `confidence`, at most the share `good_cells_lost` of the normal cells of new wells lies
    above `threshold`; each well counts alike. `exceeding` is the share of the normal labels that
    does; `bound` is the upper and `least` the lower bound. `wells` hold normal labels. `recall` is
    the share of abnormal labels flagged with its 95% interval; None without such labels.
    `supported` is the strictest share that so many wells can promise, and `wells_for_stricter` says
    for stricter promises how many more wells with random normal labels make them just possible.
    """

    threshold: float
    good_cells_lost: float
    confidence: float
    n_normal: int
    n_abnormal: int
    wells: int
    exceeding: float
    least: float
    bound: float
    recall: Share | None
    supported: float
    wells_for_stricter: dict[float, int]

    @property
    def false_positives(self) -> Share:
        """The share of normal cells flagged; both ends hold with `confidence`, each alone."""
        low, high = min(self.least, self.exceeding), max(self.bound, self.exceeding)
        return Share(self.exceeding, low, high, self.wells)


def wells_needed(share: float, confidence: float) -> int:
    """Return in how many wells random normal labels must lie to promise that `share` at most.

    With fewer, as many bad wells may be missed. The promise is just possible then, and the
    threshold is the highest normal score. It is at least 2.
    """
    return max(math.ceil(math.log(1 - confidence) / math.log(1 - share) - ROUNDING), 2)


def strictest_promise(wells: int, confidence: float) -> float:
    """Return the smallest share of good cells lost that so many wells can promise, rounded up."""
    bound = 1 - (1 - confidence) ** (1 / max(wells, 1))
    return round(math.ceil(bound / STEP - ROUNDING) * STEP, 3)


def refusal(normal: int, wells: int, good_cells_lost: float, confidence: float) -> str:
    """Return why so many normal labels of so many wells promise nothing; empty if they do."""
    needed = wells_needed(good_cells_lost, confidence)
    if wells >= needed:
        return ""
    asked = (
        f"a promise that at most {good_cells_lost:.1%} of good cells are lost, with "
        f"{confidence:.0%} confidence, needs at least {needed} wells with random normal labels, "
        f"{needed - wells} more"
    )
    if wells < 2:
        where = f"{normal} random normal labels in {wells} {'well' if wells == 1 else 'wells'}"
        return f"{where} tell nothing of other wells; {asked}"
    strictest = strictest_promise(wells, confidence)
    return (
        f"{normal} random normal labels lie in {wells} wells, but {asked}: {wells} wells allow "
        f"{strictest:.1%} at the strictest (qc.good_cells_lost: {strictest:g}), because they may "
        "miss bad wells that are rarer"
    )


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
    Raises InputError if normal labels lie in fewer than `wells_needed`: it says how many more it
    takes, and what these can promise.
    """
    scores, labels, wells = np.asarray(scores, float), np.asarray(labels), np.asarray(wells)
    _check(scores, labels, good_cells_lost, confidence)
    normal = labels != ABNORMAL
    n, n_wells = int(normal.sum()), len(np.unique(wells[normal]))
    if why := refusal(n, n_wells, good_cells_lost, confidence):
        raise InputError(f"threshold: {why}; label random crops of further wells")
    tail = 1 - confidence
    values, counts, bounds = _steps(scores[normal], wells[normal], good_cells_lost, tail)
    last = int(np.argmin(np.append(bounds <= good_cells_lost + ROUNDING, False))) - 1
    abnormal = labels == ABNORMAL
    flagged = scores[abnormal] > values[last]
    return Threshold(
        threshold=float(values[last]),
        good_cells_lost=good_cells_lost,
        confidence=confidence,
        n_normal=n,
        n_abnormal=int(abnormal.sum()),
        wells=n_wells,
        exceeding=float(counts[last] / n),
        least=bounds_of(scores[normal] > values[last], wells[normal], confidence)[0],
        bound=float(bounds[last]),
        recall=clustered_share(flagged, wells[abnormal], SHOWN) if abnormal.any() else None,
        supported=strictest_promise(n_wells, confidence),
        wells_for_stricter={
            share: max(wells_needed(share, confidence) - n_wells, 0)
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
    where the share would be above LARGEST_PROMISE, as it is everywhere with fewer than five wells
    and a confidence of 95%.
    """
    scores, labels, wells = np.asarray(scores, float), np.asarray(labels), np.asarray(wells)
    thresholds = np.asarray(thresholds, float)
    normal = labels != ABNORMAL
    if len(np.unique(wells[normal])) < 2:
        return np.full(len(thresholds), np.nan)
    values, _, bounds = _steps(scores[normal], wells[normal], LARGEST_PROMISE, 1 - confidence)
    bounds = np.where(bounds <= LARGEST_PROMISE, bounds, np.nan)
    # The first step, from strict to loose, that is no higher than the threshold.
    return np.append(bounds, np.nan)[np.searchsorted(-values, -thresholds)]


def bounds_of(hits: np.ndarray, wells: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the lower and the upper bound of a share, from n hits (bool) of at least one well.

    Wells count alike; each bound holds with `confidence`, alone, at a threshold chosen beforehand.
    """
    _, place = np.unique(wells, return_inverse=True)
    shares = np.bincount(place, weights=hits) / np.bincount(place)
    low, high = (
        [np.array([(kept**power).sum()]) for power in POWERS] for kept in (shares, 1 - shares)
    )
    tail = 1 - confidence
    least = 1 - _bound(low, len(shares), tail)[0] if shares.any() else 0.0
    bound = _bound(high, len(shares), tail)[0] if (shares < 1).any() else 1.0
    return float(least), float(bound)


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
    scores: np.ndarray, wells: np.ndarray, largest_share: float, tail: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct scores from high to low, how many lie above each, and the bounds there.

    They end where a larger share lies above.
    """
    n = len(scores)
    _, place = np.unique(wells, return_inverse=True)
    sizes = np.bincount(place)
    order = np.argsort(-scores, kind="stable")
    own = place[order]
    ordered = scores[order]
    counts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    counts = counts[counts <= largest_share * n]
    # Powers of the share that each well keeps, summed over wells: label by label, one share falls.
    before = 1 - _seen_before(own) / sizes[own]
    after = before - 1 / sizes[own]
    sums = [
        len(sizes) + np.r_[0, np.cumsum(after**power - before**power)][counts] for power in POWERS
    ]
    return ordered[counts], counts, np.maximum.accumulate(_bound(sums, len(sizes), tail))


def _bound(kept: list[np.ndarray], wells: int, tail: float) -> np.ndarray:
    """Return Gaffke's upper bound of the mean share lost, missed with a chance of `tail`.

    `kept` are the sums over wells of the share that each keeps, of its square and of its cube. The
    mean over wells with random weights (Dirichlet), one of which keeps nothing, is taken for a beta
    variable from 0 to `top` with the same three moments. That is exact if a well keeps all or
    nothing; else the bound is right to about a hundredth of itself.
    """
    one, two, three = kept
    n = wells + 1
    mean = one / n
    ratio = (one**2 + two) / (one * (n + 1))
    next_ratio = (one**3 + 3 * one * two + 2 * three) / ((one**2 + two) * (n + 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        both = 2 * (ratio - next_ratio) / (next_ratio + mean - 2 * ratio)
        top = both * (ratio - mean) + ratio
    # Where no such variable is so skewed, it goes from 0 to 1 and has two of the moments.
    found = (both > 0) & (top > mean) & np.isfinite(top)
    both = np.where(found, both, (1 - ratio) / (ratio - mean))
    top = np.where(found, top, 1.0)
    first = both * mean / top
    return 1 - top * betaincinv(first, both - first, tail)


def _seen_before(values: np.ndarray) -> np.ndarray:
    """Return how often each of n small whole numbers stands before its own place."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    lengths = np.diff(np.r_[starts, len(values)])
    seen = np.empty(len(values), int)
    seen[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return seen
