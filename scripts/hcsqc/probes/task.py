"""What a probe trains and tests on: the labels of one budget in each draw, on every screen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hcsqc.errors import InputError
from hcsqc.schema import read_table
from hcsqc.splits import training_crops

ABNORMAL = "abnormal"


@dataclass(frozen=True)
class Task:
    """One draw: crops to train on and crops to test on, of the training screen and the others.

    Targets are 1 for abnormal, 0 for normal.
    """

    draw: int
    train_crops: np.ndarray
    train_targets: np.ndarray
    test: pd.DataFrame

    def predictions(self, scores: np.ndarray) -> pd.DataFrame:
        """Return the rows of the `predictions` table for the scores of the test crops."""
        return self.test.assign(draw=self.draw, score=scores.astype(float))


def tasks(
    splits: Path,
    shift_labels: Sequence[Path],
    draws: int,
    budget: int,
    shuffle_labels: bool = False,
) -> Iterator[Task]:
    """Yield the first `draws` draws of the splits at one label budget.

    The labelled crops of each file of `shift_labels` are tested in every draw, whole. With
    `shuffle_labels` the training labels are those of other training crops: the control that any
    probe must beat.
    """
    table = read_table(splits, "splits")
    shifted = [read_table(path, "labels", ["crop_id", "label"]) for path in shift_labels]
    for draw in range(draws):
        train = training_crops(table, draw, budget)
        test = table[(table["draw"] == draw) & (table["part"] == "test")]
        test = pd.concat([test[["crop_id", "label"]], *shifted], ignore_index=True)
        test.insert(0, "screen", test["crop_id"].str.split("/").str[0])
        targets = (train["label"] == ABNORMAL).to_numpy(np.int64)
        if shuffle_labels:
            targets = np.random.default_rng(draw).permutation(targets)
        yield Task(draw, train["crop_id"].to_numpy(), targets, test)


def read_features(paths: Sequence[Path]) -> tuple[pd.Index, np.ndarray]:
    """Return the crop_ids and the n x width matrix of feature files, one after another.

    Raises InputError if features are not finite or not of one width.
    """
    crops, matrices = [], []
    for path in paths:
        table = pq.read_table(path)
        vector = table["vector"].combine_chunks()
        matrix = np.asarray(vector.flatten()).reshape(len(table), -1)
        if not np.isfinite(matrix).all():
            crop = table["crop_id"][int((~np.isfinite(matrix)).any(axis=1).argmax())]
            raise InputError(f"{path}: features of crop {crop} are not finite numbers")
        crops += table["crop_id"].to_pylist()
        matrices.append(matrix)
    widths = {matrix.shape[1] for matrix in matrices}
    if len(widths) > 1:
        raise InputError(
            f"features of different widths {sorted(widths)}: {', '.join(map(str, paths))}"
        )
    return pd.Index(crops), np.concatenate(matrices)


def select(index: pd.Index, matrix: np.ndarray, crops: Sequence[str]) -> np.ndarray:
    """Return the rows of `matrix` for `crops`.

    Raises InputError naming a crop that has none.
    """
    rows = index.get_indexer(crops)
    if (rows < 0).any():
        missing = np.asarray(crops)[rows < 0]
        raise InputError(f"{len(missing)} crops have no features, first {missing[0]}")
    return matrix[rows]
