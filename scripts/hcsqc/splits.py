"""Draws: divisions of the labelled crops, by well, into a test set and a ranked training list.

The test set of a draw is the same for every encoder, probe and budget, and a budget takes the
first labels of the training list, so budgets nest.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hcsqc.errors import InputError
from hcsqc.schema import LABELS


def class_counts(total: int) -> dict[str, int]:
    """Return how many of `total` labels each class has: halves, the odd one normal.

    25 labels are 13 normal and 12 abnormal.
    """
    return {"normal": total - total // 2, "abnormal": total // 2}


def split_labels(
    labels: pd.DataFrame,
    evaluation_wells: Sequence[str],
    budgets: Sequence[int],
    test_crops: int,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Return the `splits` table: for each draw, test crops and the training list.

    Test wells are drawn at random from the evaluation wells until they hold enough random-chosen
    labels of each class; labels of all other wells train. Within a draw no well is on both sides,
    and the counts of each class are exact.
    Raises InputError if the labels do not carry the test set or the largest budget.
    """
    labels = labels.sort_values("crop_id", ignore_index=True)
    return pd.concat(
        [
            _draw(labels, evaluation_wells, max(budgets), test_crops, draw, seed)
            for draw in range(draws)
        ],
        ignore_index=True,
    )


def training_crops(splits: pd.DataFrame, draw: int, budget: int) -> pd.DataFrame:
    """Return the first `budget` rows of a draw's training list, half of each class."""
    rows = splits[(splits["draw"] == draw) & (splits["part"] == "train")].sort_values("rank")
    wanted = class_counts(budget)
    return pd.concat(
        [rows[rows["label"] == label].head(count) for label, count in wanted.items()]
    ).sort_values("rank")


def _draw(labels, evaluation_wells, largest, test_crops, draw, seed) -> pd.DataFrame:
    rng = np.random.default_rng([seed, draw])
    well = labels["plate"] + "/" + labels["well"]
    may_test = labels["well"].isin(list(evaluation_wells)) & (labels["selection"] == "random")
    test_counts, train_counts = class_counts(test_crops), class_counts(largest)
    order = rng.permutation(sorted(set(well[may_test])))
    test_wells: set[str] = set()
    for name in order:
        inside = may_test & well.isin(test_wells)
        if all((labels["label"][inside] == c).sum() >= n for c, n in test_counts.items()):
            break
        test_wells.add(name)
    is_test_well = well.isin(test_wells)
    parts = []
    for part, candidates, counts in (
        ("test", may_test & is_test_well, test_counts),
        ("train", ~is_test_well, train_counts),
    ):
        for label in LABELS:
            places = rng.permutation(np.flatnonzero(candidates & (labels["label"] == label)))
            if len(places) < counts[label]:
                raise InputError(
                    f"not enough labels: draw {draw} has {len(places)} {label} crops to {part} "
                    f"with and needs {counts[label]}. Label more crops in more wells "
                    "(screens.*.labels), or lower study.budgets or study.test_crops"
                )
            chosen = places[: counts[label]] if part == "test" else places
            rank = np.arange(len(chosen))
            parts.append(
                pd.DataFrame(
                    {
                        "draw": draw,
                        "crop_id": labels["crop_id"].to_numpy()[chosen],
                        "label": label,
                        "part": part,
                        # Classes take turns, so that every even budget is balanced.
                        "rank": 2 * rank + LABELS.index(label) if part == "train" else None,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True).astype({"rank": "Int32"})
