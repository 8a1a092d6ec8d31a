"""Scores of predictions: accuracy, F1 and AUC, weighted over the two classes (paper 3.4)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

THRESHOLD = 0.5


def accuracy(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of crops on the right side of the threshold."""
    return float(accuracy_score(targets, scores > THRESHOLD))


def f1(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the F1 scores of both classes, averaged with the classes' sizes as weights."""
    return float(f1_score(targets, scores > THRESHOLD, average="weighted", zero_division=0))


def auc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve; of two classes it is the same for either."""
    return float(roc_auc_score(targets, scores))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "auc": auc,
}


def score_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return draw, screen, metric, value and n_test for each draw and screen."""
    rows = []
    for (draw, screen), group in predictions.groupby(["draw", "screen"]):
        targets = (group["label"] == "abnormal").to_numpy(int)
        scores = group["score"].to_numpy()
        for name, metric in METRICS.items():
            rows.append((draw, screen, name, metric(targets, scores), len(group)))
    return pd.DataFrame(rows, columns=["draw", "screen", "metric", "value", "n_test"])
