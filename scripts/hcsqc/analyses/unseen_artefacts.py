"""Artefacts that no label showed: is a family found by a probe that was trained without it?"""

import numpy as np
import pandas as pd

from hcsqc.analyses.dose_response import FALSE_ALARMS, false_alarm_threshold
from hcsqc.core.errors import InputError
from hcsqc.labels.splits import class_counts, largest_budget, training_crops
from hcsqc.probes.metrics import auc
from hcsqc.probes.task import ABNORMAL, FitScores, select

FEWEST_CROPS = 5
COLUMNS = ["artefact", "draw", "seen", "detected", "auc", "n_train", "n_test", "reason"]


def leave_families_out(
    splits: pd.DataFrame,
    labels: pd.DataFrame,
    index: pd.Index,
    features: np.ndarray,
    budget: int,
    draws: int,
    fit_scores: FitScores,
) -> pd.DataFrame:
    """Return how each artefact family is detected with and without labels of it.

    `labels` are those of the screen that the splits divide, `index` and `features` its crop_ids and
    n x width features. Families are the artefacts of at least 5 labelled crops. Two rows for each
    family and draw: `seen` is trained on the first `budget` labels; the other on a list without the
    family, filled up by the next abnormal labels of others, or else shorter, half of each class.
    detected is the share of the family's test crops above the threshold of 5% false alarms among
    the normal test crops, auc that of the family's against all normal test crops. reason says why a
    row has no score, or what makes the pair unequal or equal.
    Raises InputError if there are too few labels for the budget, or if there are fewer draws.
    """
    if budget > largest_budget(splits):
        raise InputError(
            f"unseen artefacts: the splits allow {largest_budget(splits)} labels, not {budget}; "
            "lower the budget"
        )
    if draws > splits["draw"].nunique():
        raise InputError(
            f"unseen artefacts: the splits have {splits['draw'].nunique()} draws, not {draws}; "
            "lower the draws"
        )
    families = labels["artefact"].value_counts()
    families = sorted(families.index[families >= FEWEST_CROPS])
    kinds = labels.set_index("crop_id")["artefact"]
    rows = []
    for draw in range(draws if families else 0):
        own = splits[splits["draw"] == draw]
        own = own.assign(artefact=own["crop_id"].map(kinds))
        rows += _draw_rows(own, draw, families, budget, index, features, fit_scores)
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(
        ["artefact", "draw", "seen"], ignore_index=True
    )


def without_family(splits: pd.DataFrame, artefact: str, draw: int, budget: int) -> pd.DataFrame:
    """Return a draw's training labels without a family, at most `budget`, and balanced.

    `splits` has the column artefact. As many abnormal labels as before if those of other families
    reach; else all of them and as many normal ones.
    """
    left = splits[(splits["part"] == "train") & (splits["artefact"] != artefact)]
    abnormal = int(((left["draw"] == draw) & (left["label"] == ABNORMAL)).sum())
    carried = budget if abnormal >= class_counts(budget)[ABNORMAL] else 2 * abnormal
    return training_crops(left, draw, carried)


def _draw_rows(splits, draw, families, budget, index, features, fit_scores) -> list[tuple]:
    test = splits[splits["part"] == "test"]
    matrix = select(index, features, test["crop_id"])

    def scores_of(train: pd.DataFrame) -> np.ndarray:
        targets = (train["label"] == ABNORMAL).to_numpy(np.int64)
        rows = select(index, features, train["crop_id"])
        return fit_scores(rows, targets, train["group"].to_numpy(), [matrix])[0]

    seen = training_crops(splits, draw, budget)
    seen_scores = scores_of(seen)
    rows = []
    for artefact in families:
        unseen = without_family(splits, artefact, draw, budget)
        tested = int((test["artefact"] == artefact).sum())
        same = not (seen["artefact"] == artefact).any()
        if not tested:
            outcomes, reason = [(np.nan, np.nan)] * 2, "the draw has no test crop of this kind"
        elif not len(unseen):
            outcomes = [_outcome(test, artefact, seen_scores), (np.nan, np.nan)]
            reason = "all abnormal training labels are of this kind"
        else:
            # Where no label of the family is among the first, both lists are the same.
            others = seen_scores if same else scores_of(unseen)
            outcomes = [_outcome(test, artefact, scores) for scores in (seen_scores, others)]
            reason = None
            if same:
                reason = "no training label is of this kind, so both are trained on the same labels"
            elif len(unseen) < budget:
                reason = f"without it {len(unseen)} labels are left of {budget}"
        for was_seen, outcome, train in zip((True, False), outcomes, (seen, unseen), strict=True):
            rows.append((artefact, draw, was_seen, *outcome, len(train), tested, reason))
    return rows


def _outcome(test: pd.DataFrame, artefact: str, scores: np.ndarray) -> tuple[float, float]:
    """Return the share of the family detected at 5% false alarms, and its AUC."""
    family = (test["artefact"] == artefact).to_numpy()
    normal = (test["label"] == "normal").to_numpy()
    threshold = false_alarm_threshold(scores[normal], FALSE_ALARMS)
    detected = float((scores[family] > threshold).mean()) if normal.any() else float("nan")
    either = family | normal
    return detected, auc(family[either].astype(int), scores[either])
