"""Checks of the paper's own arithmetic, computed from its 192 figures (`tables.PAPER_TABLES`)."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hcsqc.core.schema import check_columns
from hcsqc.report.tables import PAPER_COLUMNS, PAPER_METHODS

PAPER_TEST_CROPS = 130  # paper 3.1
PAPER_SHIFT_CROPS = 200  # paper 4.3
PAPER_BATCH = 32  # paper 3.3


def paper_checks(paper: pd.DataFrame) -> list[dict]:
    """Return name, title, numbers, found and follows of each check on the paper's own figures.

    `paper` has one row per figure, as `tables.PAPER_TABLES`: percent with two decimals. `numbers`
    are those that the text `found` speaks of.
    """
    check_columns(paper, PAPER_COLUMNS, "the paper's figures")
    keys = ["table", "encoder", "probe", "budget", "screen"]
    rows = paper.pivot(index=keys, columns="metric", values="percent").reset_index()
    return [
        _check_whole_test_set(rows),
        _check_384(rows),
        _check_shift_batches(rows),
        _check_auc(rows),
        _check_f1(rows),
        _check_chance(rows),
        _check_best(rows),
        _check_frozen_order(rows),
        _check_drops(rows),
    ]


def fits(percents: Sequence[float], total: int, cut_off: bool = True) -> np.ndarray:
    """Return which percentages, given to two decimals, can be a whole number of `total`.

    A figure fits if it is the share rounded to the nearest or, with `cut_off`, without its further
    decimals: the paper gives both 97.66 and 97.65.
    """
    # Whole numbers of hundredths, so that halves are exact; a half may go either way.
    hundredths = np.rint(100 * np.asarray(percents, float)).astype(int) * total
    below = 10_000 * (hundredths // 10_000)
    above = below + 10_000
    rounded = 2 * np.minimum(hundredths - below, above - hundredths) <= total
    return rounded | (cut_off & (above - hundredths < total))


def _check_whole_test_set(rows: pd.DataFrame) -> dict:
    accuracy = rows.loc[rows["table"] < 3, "accuracy"]
    count = int(fits(accuracy, PAPER_TEST_CROPS).sum())
    return {
        "name": "whole_test_set",
        "title": f"Accuracies of tables 1 and 2 as a share of {PAPER_TEST_CROPS} test images",
        "numbers": {"fit": count, "figures": len(accuracy)},
        "found": f"{count} of {len(accuracy)} accuracies can be k/{PAPER_TEST_CROPS} for a whole "
        "number k, rounded or cut off to two decimals.",
        "follows": "They are not the share of right answers among all test images scored once. "
        "We score the whole test set once.",
    }


def _check_384(rows: pd.DataFrame) -> dict:
    accuracy = rows.loc[rows["table"] < 3, "accuracy"]
    generous, strict = int(fits(accuracy, 384).sum()), int(fits(accuracy, 384, False).sum())
    full = int(fits(accuracy, 128).sum())
    chance = float(fits(np.arange(10_001) / 100, 384).mean())
    return {
        "name": "k_of_384",
        "title": "Accuracies of tables 1 and 2 as k/384",
        "numbers": {
            "fit": generous,
            "fit_rounded": strict,
            "fit_128": full,
            "figures": len(accuracy),
            "chance": chance,
        },
        "found": f"{generous} of {len(accuracy)} can be k/384, rounded or cut off ({strict} if "
        f"only rounded); of all figures with two decimals {100 * chance:.1f}% could. {full} can be "
        "k/128.",
        "follows": "384 is 3 x 128, and 128 is four full batches of 32: means over batches or "
        "repeated runs would look so (our inference); how these tables were averaged is unknown.",
    }


def _check_shift_batches(rows: pd.DataFrame) -> dict:
    accuracy = rows.loc[rows["table"] == 3, "accuracy"]
    whole, last = divmod(PAPER_SHIFT_CROPS, PAPER_BATCH)
    batches = whole + 1
    # (a / 32 + b / 8) / 7 = (a + 4 b) / 224, for a right of 6 x 32 images and b of the last 8.
    denominator = batches * PAPER_BATCH
    possible = {
        a + b * (PAPER_BATCH // last)
        for a in range(whole * PAPER_BATCH + 1)
        for b in range(last + 1)
    }
    count = int(fits(accuracy, denominator, False).sum())
    plain = int(fits(accuracy, PAPER_SHIFT_CROPS).sum())
    return {
        "name": "shift_batches",
        "title": "Accuracies of table 3 as means over batches",
        "numbers": {
            "fit": count,
            "fit_whole": plain,
            "figures": len(accuracy),
            "full_batches": whole,
            "last_batch": last,
            "denominator": denominator,
            "possible": len(possible),
        },
        "found": f"{count} of {len(accuracy)} accuracies are k/{denominator}, rounded; {plain} can "
        f"be k/{PAPER_SHIFT_CROPS}, the share of all {PAPER_SHIFT_CROPS} images. In batches of "
        f"{PAPER_BATCH} these are {whole} x {PAPER_BATCH} + {last}, and the unweighted mean over "
        f"{batches} batches, a right in the full ones and b in the last, is "
        f"(a + {PAPER_BATCH // last} b)/{denominator}.",
        "follows": f"Table 3 fits such a mean, in which an image of the last batch counts "
        f"{PAPER_BATCH // last} times as much as another; so it is not accuracy over the images.",
    }


def _check_auc(rows: pd.DataFrame) -> dict:
    below = {
        table: int((own["auc"] < own["accuracy"]).sum()) for table, own in rows.groupby("table")
    }
    total = rows.groupby("table").size()
    return {
        "name": "auc_below_accuracy",
        "title": "AUC below accuracy",
        "numbers": {f"table_{table}": below[table] for table in (1, 2)},
        "found": f"The AUC lies below the accuracy in {below[1]} of {total[1]} rows of table 1 and "
        f"in {below[2]} of {total[2]} of table 2.",
        "follows": "An AUC of scores that separate the classes well lies above the accuracy as a "
        "rule. One of hard labels, which is balanced accuracy, lies near it: the paper's may be so "
        "(our inference). Ours is of scores.",
    }


def _check_f1(rows: pd.DataFrame) -> dict:
    above = {
        table: int((own["f1"] > own["accuracy"]).sum()) for table, own in rows.groupby("table")
    }
    total = rows.groupby("table").size()
    return {
        "name": "f1_above_accuracy",
        "title": "Weighted F1 above accuracy",
        "numbers": {f"table_{table}": above[table] for table in (1, 2, 3)},
        "found": f"The weighted F1 lies above the accuracy in {above[3]} of {total[3]} rows of "
        f"table 3, {above[1]} of {total[1]} of table 1 and {above[2]} of {total[2]} of table 2. On "
        "a set that is half normal it cannot: with e errors in all and x right answers in a class, "
        "the class's F1 is 2x/(2x + e). This is concave in x, so the mean of both classes is at "
        "most its value at the mean of x, which is the accuracy.",
        "follows": "These F1 scores do not come from the whole balanced set. Means over batches "
        "that are not balanced can do it: in a batch of one class weighted F1 is 2a/(1 + a), above "
        "its accuracy a.",
    }


def _check_chance(rows: pd.DataFrame) -> dict:
    lowest = rows.loc[rows["accuracy"].idxmin()]
    method = PAPER_METHODS.get(lowest["encoder"], lowest["encoder"])
    percent = float(lowest["accuracy"])
    p_values = {}
    for total in (PAPER_TEST_CROPS, PAPER_SHIFT_CROPS):
        right = round(percent / 100 * total)
        p_values[total] = (right, float(binomtest(right, total).pvalue))
    (few, p_few), (many, p_many) = p_values[PAPER_TEST_CROPS], p_values[PAPER_SHIFT_CROPS]
    return {
        "name": "below_chance",
        "title": "An accuracy below chance",
        "numbers": {"percent": percent, "p_130": p_few, "p_200": p_many},
        "found": f"The lowest accuracy is {method}'s in "
        f"table {lowest['table']}, {percent}%. For two classes of equal size, an exact "
        "binomial test against one half gives "
        f"p = {p_few:.4f} for {few} of {PAPER_TEST_CROPS} images and p = {p_many:.5f} for {many} "
        f"of the {PAPER_SHIFT_CROPS} that table 3 names (two-sided).",
        "follows": "It is significantly below chance: a classifier that had learned nothing would "
        "rarely do so badly. Its answers are inverted on the other screen, or the figure is not "
        "the accuracy over the images.",
    }


def _check_best(rows: pd.DataFrame) -> dict:
    right, total = 127, PAPER_TEST_CROPS
    test = binomtest(right, total)
    exact, wilson = test.proportion_ci(method="exact"), test.proportion_ci(method="wilson")
    low, high = 100 * exact.low, 100 * exact.high
    best = rows[rows["table"] == 1]
    inside = best[best["accuracy"].between(low, high)]
    names = sorted(set(inside["encoder"]))
    return {
        "name": "interval_of_the_best",
        "title": f"How sure {right} right of {total} are",
        "numbers": {
            "low": low,
            "high": high,
            "wilson_low": 100 * wilson.low,
            "wilson_high": 100 * wilson.high,
            "inside": len(inside),
            "rows": len(best),
        },
        "found": f"{right}/{total} is {100 * right / total:.1f}%, with an exact (Clopper-Pearson) "
        f"95% interval of {low:.1f} to {high:.1f} (Wilson's: {100 * wilson.low:.1f} to "
        f"{100 * wilson.high:.1f}). {len(inside)} of the {len(best)} accuracies of table 1 lie "
        f"inside, of {', '.join(names)}.",
        "follows": "The order of the best encoders is not supported by a test set of this size; "
        "we give intervals and compare encoders on the same test crops.",
    }


def _check_frozen_order(rows: pd.DataFrame) -> dict:
    own = rows[(rows["table"] == 1) & rows["encoder"].isin(PAPER_METHODS)]
    numbers: dict[str, object] = {}
    for probe, metric in product(("knn", "linear"), ("accuracy", "f1")):
        group = own[own["probe"] == probe]
        best = sorted(group.loc[group[metric] == group[metric].max(), "encoder"])
        numbers[f"{probe}_{metric}"] = " and ".join(PAPER_METHODS[name] for name in best)
    return {
        "name": "best_frozen_method",
        "title": "The best self-supervised method on frozen features, by the paper's own figures",
        "numbers": numbers,
        "found": "Highest with nearest neighbours: "
        f"{numbers['knn_accuracy']} by accuracy, {numbers['knn_f1']} by F1. With a linear "
        f"classifier: {numbers['linear_accuracy']} by accuracy, {numbers['linear_f1']} by F1.",
        "follows": 'The text says that DeepCluster "performs best in both settings" and calls F1 '
        '"the most important metric"; read both off this line.',
    }


def _check_drops(rows: pd.DataFrame) -> dict:
    own = rows[(rows["table"] == 2) & rows["encoder"].isin(PAPER_METHODS)]
    scores = own.pivot(index="encoder", columns="budget", values="f1")
    most, fewest = scores.columns.max(), scores.columns.min()
    drops = (scores[most] - scores[fewest]).sort_values(ascending=False)
    listed = ", ".join(f"{PAPER_METHODS[name]} {drop:.2f}" for name, drop in drops.items())
    return {
        "name": "drops",
        "title": "Which self-supervised methods drop with fewer labels, by the paper's own figures",
        "numbers": {name: float(drop) for name, drop in drops.items()},
        "found": f"Points of F1 lost from {most} labels to {fewest}, in table 2: {listed}.",
        "follows": "The text names VICReg, DeepCluster and SwAV as those that drop; the drops of "
        "the methods that it does not name belong beside theirs.",
    }
