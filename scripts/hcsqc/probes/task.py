"""What a probe trains and tests on: the labels of one budget in each draw, on every screen."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.ids import probe_job, screen_of
from hcsqc.core.parquet import read_parquet
from hcsqc.core.schema import TABLES, read_table
from hcsqc.labels.splits import largest_budget, training_crops

ABNORMAL = "abnormal"
# Of training crops n x width features, n targets of 0 and 1, n groups, then m x width matrices to
# score, to the probabilities of abnormal (m) of each.
FitScores = Callable[
    [np.ndarray, np.ndarray, np.ndarray, Sequence[np.ndarray]], Sequence[np.ndarray]
]


@dataclass(frozen=True)
class Task:
    """One draw: crops to train on and crops to test on, of the training screen and the others.

    Targets are 1 for abnormal, 0 for normal; groups are those of `labels.groups`.
    """

    draw: int
    train_crops: np.ndarray
    train_targets: np.ndarray
    train_groups: np.ndarray
    test: pd.DataFrame

    def predictions(self, scores: np.ndarray) -> pd.DataFrame:
        """Return the rows of the `predictions` table for the scores of the test crops."""
        return self.test.assign(draw=self.draw, score=scores.astype(float))


@dataclass
class Classified:
    """What a probe on frozen features makes of all draws."""

    scores: list[np.ndarray]  # of each draw, one per test crop: the probability of abnormal
    curves: list[dict[str, float]] = field(default_factory=list)  # a point per draw: the choice
    trials: dict[str, object] | None = None  # of a search: of each draw, by its number


def tasks(
    splits: Path,
    shift_labels: Sequence[pd.DataFrame],
    draws: int,
    budget: int,
    shuffle_labels: bool = False,
) -> Iterator[Task]:
    """Yield the first `draws` draws of the splits at one label budget.

    There are none if there are too few labels for the budget. The labelled crops of each table of
    `shift_labels`, as `read_labels` returns it, are tested in every draw, whole. With
    `shuffle_labels` the training labels are those of other training crops: the control that any
    probe must beat.
    """
    table = read_table(splits, "splits")
    if budget > largest_budget(table):
        print(f"not enough labels: {splits} allows {largest_budget(table)}, not {budget}")
        return
    tested = ["crop_id", "label", "group"]
    for draw in range(draws):
        train = training_crops(table, draw, budget)
        test = table[(table["draw"] == draw) & (table["part"] == "test")]
        test = pd.concat([part[tested] for part in (test, *shift_labels)], ignore_index=True)
        test.insert(0, "screen", test["crop_id"].map(screen_of))
        targets = (train["label"] == ABNORMAL).to_numpy(np.int64)
        if shuffle_labels:
            targets = np.random.default_rng(draw).permutation(targets)
        yield Task(draw, train["crop_id"].to_numpy(), targets, train["group"].to_numpy(), test)


def all_predictions(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the `predictions` of all draws; without rows where there is no draw."""
    if not parts:
        return pd.DataFrame(columns=TABLES["predictions"].columns.names)
    return pd.concat(parts, ignore_index=True)


def largest_predictions(paths: Iterable[Path]) -> dict[tuple[str, str], pd.DataFrame]:
    """Return each encoder's and probe's predictions of all seeds at the largest budget with any.

    `paths` are {encoder}/seed{n}/{probe}/budget{n}.parquet files; seed is a column.
    """
    budgets: dict[tuple[str, str], dict[int, list[pd.DataFrame]]] = {}
    for path in paths:
        job = probe_job(path)
        own = budgets.setdefault((job.encoder, job.probe), {})
        rows = read_table(path, "predictions").assign(seed=job.seed)
        if len(rows):  # a budget that the labels do not carry has none
            own.setdefault(job.budget, []).append(rows)
    return {key: pd.concat(own[max(own)]) for key, own in budgets.items() if own}


def read_features(paths: Sequence[Path]) -> tuple[pd.Index, np.ndarray]:
    """Return the crop_ids and the n x width matrix of feature files, one after another.

    Raises InputError if features are not finite or not of one width.
    """
    crops, matrices = [], []
    for path in paths:
        table = read_parquet(path, ours=True)
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


def rows_of(index: pd.Index, crops: Sequence[str]) -> np.ndarray:
    """Return the row numbers of `crops` in features.

    Raises InputError naming a crop that has none.
    """
    rows = index.get_indexer(crops)
    if (rows < 0).any():
        missing = np.asarray(crops)[rows < 0]
        raise InputError(f"{len(missing)} crops have no features, first {missing[0]}")
    return rows


def select(index: pd.Index, matrix: np.ndarray, crops: Sequence[str]) -> np.ndarray:
    """Return the rows of `matrix` for `crops`; raises InputError as `rows_of` does."""
    return matrix[rows_of(index, crops)]
