"""k nearest neighbours on frozen features (paper 3.3, first task)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.probes.task import Classified, Task, rows_of

METRICS = ("euclidean", "cosine")
ROUNDING = np.finfo(np.float32).eps / 2  # largest relative error of one operation
# A sum of n products errs by more than this times sqrt(n) roundings once in 4e13, if roundings are
# independent: Higham and Mary 2019, doi:10.1137/18M1226312.
CONFIDENCE = 8


@dataclass(frozen=True)
class KnnSettings:
    """Number of neighbours, and the distance they are near by: euclidean or cosine.

    Raises InputError on any other metric, and on less than one neighbour.
    """

    neighbours: int
    metric: str

    def __post_init__(self):
        if self.metric not in METRICS:
            raise InputError(
                f"kNN probe: metric '{self.metric}' is unknown; use one of {', '.join(METRICS)}"
            )
        if self.neighbours < 1:
            raise InputError(f"kNN probe: {self.neighbours} neighbours; use 1 or more")


Settings = KnnSettings


def classify(
    crops: pd.Index, features: np.ndarray, draws: Sequence[Task], settings: Settings, seed: int
) -> Classified:
    """Classify the test crops of each draw; `features` is a row per crop. Nothing is random."""
    return Classified(knn_scores_by_draw(features, knn_draws(crops, draws), settings))


class KnnDraw(NamedTuple):
    """Rows of the features to train and to test on, and the targets, 0 and 1, of the former."""

    train: np.ndarray
    targets: np.ndarray
    test: np.ndarray


def knn_draws(crops: pd.Index, draws: Sequence[Task]) -> list[KnnDraw]:
    """Return the tasks of a probe as rows of the features of `crops`.

    Raises InputError naming a crop that has no features.
    """
    return [
        KnnDraw(
            rows_of(crops, task.train_crops),
            task.train_targets,
            rows_of(crops, task.test["crop_id"]),
        )
        for task in draws
    ]


def knn_scores_by_draw(
    features: np.ndarray, draws: Sequence[KnnDraw], settings: KnnSettings
) -> list[np.ndarray]:
    """Return for each draw and test row the share of abnormal among its nearest training rows.

    `features` is crops x width. Fewer training rows than neighbours are asked all. Of rows equally
    far the one that a draw lists first is nearer. The cosine distance of a row of zeros to any row
    is 1, as in scikit-learn.

    All draws share one float32 matrix of the distances of every test row to every training row.
    Where its rounding could change which rows are nearest, those in question are compared again in
    float64.
    """
    if not draws:
        return []
    train = np.unique(np.concatenate([draw.train for draw in draws]))
    test = np.unique(np.concatenate([draw.test for draw in draws]))
    distance, error = _squared_distances(features[train], features[test], settings.metric)
    scores = []
    for draw in draws:
        rows, columns = np.searchsorted(test, draw.test), np.searchsorted(train, draw.train)
        own = distance[rows].take(columns, axis=1)
        scores.append(_scores(own, error[rows], features, draw, settings))
    return scores


def _scores(distance, error, features, draw: KnnDraw, settings: KnnSettings) -> np.ndarray:
    neighbours = min(settings.neighbours, len(draw.train))
    furthest = np.partition(distance, neighbours - 1, axis=1)[:, neighbours - 1]
    near = distance <= (furthest + 2 * error)[:, None]
    counted = np.stack([np.ones_like(draw.targets), draw.targets], axis=1, dtype=np.float32)
    count, abnormal = (near.astype(np.float32) @ counted).T
    for row in np.flatnonzero(count > neighbours):
        candidates = np.flatnonzero(near[row])
        exact = _exact_distances(
            features[draw.train[candidates]], features[draw.test[row]], settings.metric
        )
        nearest = candidates[np.argsort(exact, kind="stable")[:neighbours]]
        abnormal[row] = draw.targets[nearest].sum()
    return abnormal.astype(np.float64) / neighbours


def _squared_distances(train, test, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return m x n squared distances less a number of each row's own, and m bounds of their error.

    Unit vectors are as near by cosine as they are by Euclidean distance.
    """
    if metric == "cosine":
        train, test = _unit_vectors(train, 0), _unit_vectors(test, 1)
    # Distances stay as they are, and a common offset does not take up the digits of float32.
    centre = train.mean(axis=0, dtype=np.float64).astype(train.dtype)
    train, test = (train - centre).astype(np.float32), (test - centre).astype(np.float32)
    train_squared, test_squared = (np.einsum("ij,ij->i", x, x) for x in (train, test))
    distance = test @ (-2 * train).T
    distance += train_squared
    length = np.sqrt(train_squared.max())
    # The number added is for the roundings of centring, of lengths and of the sum of both terms.
    error = (CONFIDENCE * np.sqrt(train.shape[1]) + 16) * ROUNDING
    return distance, error * length * (length + 2 * np.sqrt(test_squared))


def _unit_vectors(matrix: np.ndarray, place: int) -> np.ndarray:
    """Return rows of length 1, with two columns more.

    A row of zeros becomes the unit vector of the added column `place`, orthogonal to all others.
    """
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    added = np.zeros((len(matrix), 2), matrix.dtype)
    added[:, place] = length[:, 0] == 0
    return np.hstack([matrix / np.where(length == 0, 1, length), added])


def _exact_distances(train: np.ndarray, row: np.ndarray, metric: str) -> np.ndarray:
    """Return distances in float64, equal for equal rows."""
    train, row = train.astype(np.float64), row.astype(np.float64)
    if metric == "euclidean":
        return ((train - row) ** 2).sum(axis=1)
    lengths = np.sqrt((train**2).sum(axis=1) * (row**2).sum())
    return 1 - (train * row).sum(axis=1) / np.where(lengths == 0, 1, lengths)
