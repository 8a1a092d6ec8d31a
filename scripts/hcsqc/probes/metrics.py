"""Scores of predictions: those of the paper (3.4), and others that a lab decides by.

Every metric takes many weightings of the test crops at once, because intervals resample the groups
hundreds of times; scikit-learn's metrics with `sample_weight` are the oracle in the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

THRESHOLD = 0.5
CALIBRATION_BINS = 10
# Table 3 of the paper fits means over batches of so many crops (docs/probes.md).
PAPER_BATCH = 32


class Weighted:
    """The scores of n test crops under b weightings of them, and what several metrics count.

    `targets` are n of 0 and 1, `scores` n, `weights` n x b. Weightings lie beside each other in
    memory: what runs over the crops then takes all of them in one sweep.
    """

    def __init__(self, targets: np.ndarray, scores: np.ndarray, weights: np.ndarray):
        self.targets, self.scores, self.weights = targets, scores, weights
        self.total = weights.sum(axis=0)

    @cached_property
    def confusion(self) -> tuple[np.ndarray, ...]:
        """True positives, false positives, false negatives and true negatives, b each."""
        said, abnormal = self.scores > THRESHOLD, self.targets == 1
        masks = (said & abnormal, said & ~abnormal, ~said & abnormal, ~said & ~abnormal)
        return tuple(mask.astype(float) @ self.weights for mask in masks)

    @cached_property
    def roc(self) -> "Roc":
        """What lies at and above each score, highest first."""
        order = np.argsort(-self.scores, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(self.scores[order]) != 0])
        is_abnormal = (self.targets[order] == 1)[:, None]
        ordered = self.weights[order]
        abnormal = np.add.reduceat(np.where(is_abnormal, ordered, 0), starts, axis=0)
        normal = np.add.reduceat(np.where(is_abnormal, 0, ordered), starts, axis=0)
        return Roc(abnormal, normal, abnormal.cumsum(axis=0), normal.cumsum(axis=0))


@dataclass(frozen=True)
class Roc:
    """The weights of abnormal and normal crops at each score, levels x b, highest first.

    `found` and `alarms` are those at it and above.
    """

    abnormal: np.ndarray
    normal: np.ndarray
    found: np.ndarray
    alarms: np.ndarray


# b values; nan where they are not defined.
Metric = Callable[[Weighted], np.ndarray]


def _accuracy(crops: Weighted) -> np.ndarray:
    true_positive, _, _, true_negative = crops.confusion
    return _ratio(true_positive + true_negative, crops.total)


def _f1(crops: Weighted) -> np.ndarray:
    """The F1 scores of both classes, averaged with the classes' sizes as weights."""
    tp, fp, fn, tn = crops.confusion
    wrong = fp + fn
    with np.errstate(invalid="ignore"):
        abnormal = np.nan_to_num(2 * tp / (2 * tp + wrong))
        normal = np.nan_to_num(2 * tn / (2 * tn + wrong))
    return _ratio((tp + fn) * abnormal + (tn + fp) * normal, crops.total)


def _balanced_accuracy(crops: Weighted) -> np.ndarray:
    tp, fp, fn, tn = crops.confusion
    return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2


def _auc(crops: Weighted) -> np.ndarray:
    """The area under the ROC curve; of two classes it is the same for either."""
    roc = crops.roc
    below = roc.alarms[-1] - roc.alarms
    pairs = roc.found[-1] * roc.alarms[-1]
    return _ratio((roc.abnormal * (below + roc.normal / 2)).sum(axis=0), pairs)


def _average_precision(crops: Weighted) -> np.ndarray:
    roc = crops.roc
    precision = np.nan_to_num(_ratio(roc.found, roc.found + roc.alarms))
    return _ratio((roc.abnormal * precision).sum(axis=0), roc.found[-1])


def _recall_at(false_alarms: float) -> Metric:
    """The largest recall of a threshold that flags at most such a share of the normal crops."""

    def recall(crops: Weighted) -> np.ndarray:
        roc = crops.roc
        allowed = roc.alarms <= false_alarms * roc.alarms[-1] + 1e-9
        found = np.where(allowed, roc.found, 0).max(axis=0)
        return np.where(roc.alarms[-1] > 0, _ratio(found, roc.found[-1]), np.nan)

    return recall


def _calibration_error(crops: Weighted) -> np.ndarray:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3)."""
    bins = np.minimum((crops.scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    inside = np.eye(CALIBRATION_BINS)[bins] * (crops.targets - crops.scores)[:, None]
    return _ratio(np.abs(inside.T @ crops.weights).sum(axis=0), crops.total)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


# Those of the paper's tables, by name.
TABLE_METRICS = {"accuracy": "Accuracy", "f1": "F1", "auc": "AUC"}
LOWER_IS_BETTER = ("calibration_error",)
METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "auc": _auc,
    "average_precision": _average_precision,
    "balanced_accuracy": _balanced_accuracy,
    "recall_at_1_percent": _recall_at(0.01),
    "recall_at_5_percent": _recall_at(0.05),
    "calibration_error": _calibration_error,
}


def accuracy(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of crops on the right side of the threshold."""
    return _single("accuracy", targets, scores)


def f1(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the F1 scores of both classes, averaged with the classes' sizes as weights."""
    return _single("f1", targets, scores)


def auc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve; nan if there is one class alone."""
    return _single("auc", targets, scores)


def _single(metric: str, targets: np.ndarray, scores: np.ndarray) -> float:
    return float(METRICS[metric](Weighted(targets, scores, np.ones((len(targets), 1))))[0])


def table_scores(targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the metrics of the paper's tables, of n targets of 0 and 1 and n scores."""
    return {name: _single(name, targets, scores) for name in TABLE_METRICS}


def paper_style(targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the figures as the paper may have computed them: our inference, not its word.

    `auc_of_labels` is an AUC of hard labels, which is balanced accuracy; the others are means over
    batches of 32 crops in the order given, the last one shorter, each batch counting alike.
    """
    starts = range(0, len(targets), PAPER_BATCH)
    batches = [(targets[i : i + PAPER_BATCH], scores[i : i + PAPER_BATCH]) for i in starts]
    both = [batch for batch in batches if 0 < batch[0].sum() < len(batch[0])]
    hard = [_single("balanced_accuracy", *batch) for batch in both]
    return {
        "auc_of_labels": _single("balanced_accuracy", targets, scores),
        "accuracy_of_batches": float(np.mean([accuracy(*batch) for batch in batches])),
        "f1_of_batches": float(np.mean([f1(*batch) for batch in batches])),
        "auc_of_labels_of_batches": float(np.mean(hard)) if hard else float("nan"),
    }


def score_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return draw, screen, metric, value and n_test for each draw and screen.

    Metrics are those of `METRICS` and of `paper_style`; undefined ones have no row.
    """
    rows = []
    for (draw, screen), group in predictions.groupby(["draw", "screen"]):
        targets = (group["label"] == "abnormal").to_numpy(int)
        scores = group["score"].to_numpy()
        values = {name: _single(name, targets, scores) for name in METRICS}
        for name, value in (values | paper_style(targets, scores)).items():
            if not np.isnan(value):
                rows.append((draw, screen, name, value, len(group)))
    return pd.DataFrame(rows, columns=["draw", "screen", "metric", "value", "n_test"])
