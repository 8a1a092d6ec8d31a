"""The prevalence of a screen without labels, from the scores of its cells and labels of another.

The methods are QuaPy's. All of them assume that normal and abnormal cells score as the labelled
ones do, and that only their numbers differ (prior probability shift):

- DyS: the mixture of both classes' histograms of scores that is nearest to the screen's, by
  Hellinger distance (Maletzke et al. 2019, "DyS: a framework for mixture models in
  quantification", AAAI 33:4552)
- EMQ: maximum likelihood, of recalibrated scores (Saerens et al. 2002, Neural Computation 14:21;
  Alexandari et al. 2020, "Maximum likelihood with bias-corrected calibration is hard-to-beat at
  label shift adaptation", ICML)
- PACC: the screen's mean score between those of both classes (Bella et al. 2010, ICDM)

Cells of a well are alike, so the intervals are from a bootstrap of wells, of labels and of cells.
That of QuaPy 0.2.3 resamples cells, and none of the labels.
"""

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.linear_model import LogisticRegression

from hcsqc.qc.prevalence import ABNORMAL, SHOWN

USED = "DyS"  # the least error of those compared in docs/qc.md
BINS = 8  # of DyS's histograms, QuaPy's default
MOST_CELLS = 5000  # taken at random from larger screens: beyond them labels limit the precision
TOLERANCE = 1e-6  # of the prevalence, where EMQ stops; at QuaPy's 1e-4 rare cells are still far off
SMALLEST = 1e-6  # a score's distance from 0 and 1, whose logarithms have to exist


@dataclass(frozen=True)
class Estimate:
    """A prevalence by one method, with its 95% interval low to high."""

    method: str
    estimate: float
    low: float
    high: float


def quantify(
    scores: np.ndarray,
    labels: np.ndarray,
    wells: np.ndarray,
    cells: np.ndarray,
    cell_wells: np.ndarray,
    resamples: int,
) -> tuple[list[Estimate], float]:
    """Return the prevalence by each method, that of USED first, and how well the screen fits.

    `scores` are the held-out ones of n labels, 1 (abnormal) or 0, chosen at random, and `wells`
    their wells; `cells` are the scores of the screen, which has no labels, and `cell_wells` their
    wells. The fit is the p value of the hypothesis that the screen's scores are a mixture of those
    of the two classes; small where its cells look different. With a single well of either, the
    intervals are 0 to 1 and p is 1. Nothing, and 1, without cells or labels of both classes.
    """
    if not len(cells) or len(np.unique(labels)) < 2:
        return [], 1.0
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(cells))[:MOST_CELLS]
    cells, cell_wells = _inside(cells[chosen]), cell_wells[chosen]
    scores = _inside(scores)
    found = _estimates(scores, labels, cells)
    of_labels, of_cells = _rows_of(wells), _rows_of(cell_wells)
    if min(len(of_labels), len(of_cells)) < 2:
        return [Estimate(name, value, 0.0, 1.0) for name, value in found.items()], 1.0
    left = _left_over(scores, labels, cells, found[USED])
    drawn: list[dict[str, float]] = []
    left_drawn = []
    while len(drawn) < resamples:
        some, others = _resampled(of_labels, rng), _resampled(of_cells, rng)
        if len(np.unique(labels[some])) < 2:
            continue
        drawn.append(_estimates(scores[some], labels[some], cells[others]))
        left_drawn.append(_left_over(scores[some], labels[some], cells[others], drawn[-1][USED]))
    rows, cell = [], 1 / len(cells)  # no interval is finer than a cell
    for name, value in found.items():
        values = [one[name] for one in drawn]
        low, high = np.quantile(values, [(1 - SHOWN) / 2, (1 + SHOWN) / 2])
        ends = max(min(low, value) - cell, 0), min(max(high, value) + cell, 1)
        rows.append(Estimate(name, value, *map(float, ends)))
    return rows, _p_of_fit(left, np.array(left_drawn))


def _estimates(scores: np.ndarray, labels: np.ndarray, cells: np.ndarray) -> dict[str, float]:
    """Return the prevalence by each method."""
    # Loads torch where there is one, which takes seconds that only screens without labels need.
    from quapy.method.aggregative import EMQ, PACC, DyS

    # The methods are given scores; of the classifier they need no more than its classes.
    given = {"classifier": _classes(), "fit_classifier": False, "val_split": None}
    methods = {
        USED: DyS(**given, n_bins=BINS),
        "EMQ": EMQ(**given, exact_train_prev=False, calib="bcts", on_calib_error="backup"),
        "PACC": PACC(**given, solver="exact-cc"),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EMQ says that it stopped before its tolerance
        for name, method in methods.items():
            method.aggregation_fit(_both(scores), labels)
            further = {"epsilon": TOLERANCE} if name == "EMQ" else {}
            found[name] = float(method.aggregate(_both(cells), **further)[ABNORMAL])
    return found


@cache
def _classes() -> LogisticRegression:
    return LogisticRegression().fit([[0.0], [1.0]], [0, ABNORMAL])


def _both(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], axis=1)


def _inside(scores: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(scores, float), SMALLEST, 1 - SMALLEST)


def _rows_of(wells: np.ndarray) -> list[np.ndarray]:
    """Return the row numbers of each well."""
    order = np.argsort(wells, kind="stable")
    return np.split(order, np.flatnonzero(wells[order][1:] != wells[order][:-1]) + 1)


def _resampled(rows: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return the row numbers of as many wells, drawn with replacement."""
    return np.concatenate([rows[well] for well in rng.integers(len(rows), size=len(rows))])


def _left_over(scores, labels, cells, prevalence: float) -> np.ndarray:
    """Return the screen's histogram less the mixture of both classes' at that prevalence."""
    of_cells, normal, abnormal = (
        np.histogram(some, BINS, (0, 1))[0] / len(some)
        for some in (cells, scores[labels != ABNORMAL], scores[labels == ABNORMAL])
    )
    return of_cells - prevalence * abnormal - (1 - prevalence) * normal


def _p_of_fit(left: np.ndarray, drawn: np.ndarray) -> float:
    """Return the share of resamples that lie farther from what was found than that from 0."""
    if np.abs(left).max() < 1 / MOST_CELLS:
        return 1.0  # less than a cell is off; the rest is the methods' tolerance
    spread = np.sqrt(((drawn - left) ** 2).mean(axis=0)) + 1 / MOST_CELLS
    farther = (((drawn - left) / spread) ** 2).sum(axis=1) >= ((left / spread) ** 2).sum()
    return float(farther.mean())
