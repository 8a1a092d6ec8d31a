"""Draws: divisions of the labelled crops, by group, into a test set and a ranked training list.

Groups (`groups`: wells, compounds or plates) take turns to be tested (`test_sets`). The test set of
a draw is the same for every encoder, probe and budget, and a budget takes the first labels of the
training list, so budgets nest. With fewer labels than test set and smallest budget need, draws are
the folds of a repeated cross-validation by group.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.schema import LABELS
from hcsqc.labels.folds import held_out_fold
from hcsqc.labels.groups import UNITS, WELL, groups_of
from hcsqc.labels.test_sets import TestSets
from hcsqc.screens.layouts.base import first_few

HELD_OUT, CROSS_VALIDATION = "held out", "cross-validation"
FOLDS = 5


def class_counts(total: int) -> dict[str, int]:
    """Return how many of `total` labels each class has: halves, the odd one normal.

    25 labels are 13 normal and 12 abnormal.
    """
    return {"normal": total - total // 2, "abnormal": total // 2}


def split_labels(
    labels: pd.DataFrame,
    evaluation_wells: Sequence[str],
    smallest: int,
    largest: int,
    test_crops: int,
    draws: int,
    seed: int,
    group_by: str,
) -> tuple[pd.DataFrame, str]:
    """Return the `splits` table, test crops and training list of each draw, and its protocol.

    Only random-chosen labels of evaluation wells test, and no group by `group_by` (see
    `labels.groups`) is on both sides of a draw.
    Held out: the groups with labels that may test take turns, as many in a draw as hold enough of
    them of each class, and more while the labels of all other groups, which train, are enough for
    the `largest` budget. Within a draw the counts of each class are exact, and artefacts and fields
    are tested evenly. Where the labels are too few for that and for the `smallest` budget,
    cross-validation: in five draws each group is tested once, with all its labels that may test.
    Raises InputError if the labels do not suffice for that either.
    """
    labels = labels.sort_values("crop_id", ignore_index=True)
    labels["group"] = groups_of(labels, group_by)
    if group_by != WELL and labels["group"].nunique() == 1:
        raise InputError(
            f"all {len(labels)} labels are of one {group_by}, {labels['group'].iloc[0]}, so that "
            f"none is left to train with: evaluation.group_by: {group_by} needs labels of more"
        )
    labels["may_test"] = labels["well"].isin(list(evaluation_wells))
    labels["may_test"] &= labels["selection"] == "random"
    try:
        protocol, test_sets = HELD_OUT, TestSets(labels)
        splits = [
            _held_out(labels, test_sets, smallest, largest, test_crops, draw, seed)
            for draw in range(draws)
        ]
    except InputError as held_out:
        protocol = CROSS_VALIDATION
        try:
            splits = [_fold(labels, smallest, draw, seed, UNITS[group_by]) for draw in range(draws)]
        except InputError as error:
            why = "" if labels["may_test"].any() else _why_none(labels, evaluation_wells)
            told = (
                f"{why}{held_out}. {CROSS_VALIDATION.capitalize()} is not possible either: {error}"
            )
            raise InputError(told) from error
    return pd.concat(splits, ignore_index=True), protocol


def _why_none(labels: pd.DataFrame, evaluation_wells: Sequence[str]) -> str:
    """Return why no label may test, as the start of a message; empty without any label."""
    if labels.empty:
        return ""
    if not evaluation_wells:
        return "evaluation_wells is empty. "
    selection = labels["selection"][labels["well"].isin(list(evaluation_wells))]
    if selection.empty:
        named, there = sorted(evaluation_wells), sorted(set(labels["well"]))
        return (
            f"no label lies in evaluation_wells ({first_few(named)}); all lie in "
            f"{first_few(there)}. "
        )
    ways = ", ".join(sorted(set(selection)))
    return f"no label in evaluation_wells was chosen at random; their selection is {ways}. "


def largest_budget(splits: pd.DataFrame) -> int:
    """Return the most training labels, half of each class, that every draw carries."""
    train = splits[splits["part"] == "train"]
    counts = train.groupby(["draw", "label"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(LABELS), fill_value=0)
    pairs = counts.min(axis=1)
    return int((2 * pairs + (counts["normal"] > pairs)).min())


def training_crops(splits: pd.DataFrame, draw: int, budget: int) -> pd.DataFrame:
    """Return the first `budget` rows of a draw's training list, half of each class."""
    rows = splits[(splits["draw"] == draw) & (splits["part"] == "train")].sort_values("rank")
    wanted = class_counts(budget)
    return pd.concat(
        [rows[rows["label"] == label].head(count) for label, count in wanted.items()]
    ).sort_values("rank")


def training_overlaps(splits: pd.DataFrame, budgets: Iterable[int]) -> dict[int, float]:
    """Return by budget the share of training labels that two draws have in common, on average."""
    draws = sorted(set(splits["draw"]))
    found = {}
    for budget in budgets:
        chosen = [set(training_crops(splits, draw, budget)["crop_id"]) for draw in draws]
        shares = [len(one & two) / max(len(one), 1) for one, two in combinations(chosen, 2)]
        found[int(budget)] = float(np.mean(shares)) if shares else 0.0
    return found


def _held_out(labels, test_sets, smallest, largest, test_crops, draw, seed) -> pd.DataFrame:
    rng = np.random.default_rng([seed, draw])
    counts = class_counts(test_crops)
    groups = test_sets.groups(counts, class_counts(largest), rng)
    inside = labels["group"].isin(groups)
    _check_enough(labels, labels["may_test"] & inside, counts, draw, "test")
    test = test_sets.crops(groups, counts, rng)
    return _divided(labels, test, ~inside, smallest, draw, rng)


def _fold(labels, smallest, draw, seed, units) -> pd.DataFrame:
    repeat, fold = divmod(draw, FOLDS)
    rng = np.random.default_rng([seed, draw])
    candidates = np.flatnonzero(labels["may_test"])
    groups = labels["group"].to_numpy()[candidates]
    if len(set(groups)) < FOLDS:
        raise InputError(
            f"randomly chosen labels of evaluation wells lie in {len(set(groups))} {units}, but "
            f"there are {FOLDS} folds"
        )
    state = np.random.default_rng([seed, repeat]).integers(2**31)
    targets = labels["label"].to_numpy()[candidates]
    test = candidates[held_out_fold(targets, groups, FOLDS, int(state)) == fold]
    inside = labels["group"].isin(groups[np.isin(candidates, test)])
    return _divided(labels, test, ~inside, smallest, draw, rng)


def _divided(labels, test, may_train, smallest, draw, rng) -> pd.DataFrame:
    """Return a draw's rows of the splits: test crops by row number, and the training list."""
    train = _shuffled(labels, may_train, class_counts(smallest), draw, "train", rng)
    parts = [pd.DataFrame({"row": test, "part": "test", "rank": None})]
    for label, rows in train.items():
        # Classes take turns, so that every even budget is balanced.
        rank = 2 * np.arange(len(rows)) + LABELS.index(label)
        parts.append(pd.DataFrame({"row": rows, "part": "train", "rank": rank}))
    table = pd.concat(parts, ignore_index=True)
    chosen = labels[["crop_id", "label", "group"]].iloc[table.pop("row")].reset_index(drop=True)
    return pd.concat([chosen, table], axis=1).assign(draw=draw).astype({"rank": "Int32"})


def _shuffled(labels, candidates, counts, draw, part, rng) -> dict[str, np.ndarray]:
    """Return the row numbers of the candidates of each class, in random order.

    Raises InputError if there are fewer than `counts`.
    """
    _check_enough(labels, candidates, counts, draw, part)
    return {
        label: rng.permutation(np.flatnonzero(candidates & (labels["label"] == label)))
        for label in LABELS
    }


def _check_enough(labels, candidates, counts, draw, part) -> None:
    for label in LABELS:
        found = int((candidates & (labels["label"] == label)).sum())
        if found < counts[label]:
            raise InputError(
                f"not enough labels: draw {draw} has {found} {label} crops to {part} with and "
                f"needs {counts[label]}. Label more crops in more wells (screens.*.labels), or "
                "lower study.budgets or study.test_crops"
            )
