"""Labels that models contradict which saw no label of their group.

The models are those that a detector is made of, fitted to the screen's own labels. Labels are
ranked by self-confidence, the probability that the held-out model gives the label (Northcutt,
Jiang & Chuang 2021, Confident learning, doi:10.1613/jair.1.12125).
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.probes.task import ABNORMAL
from hcsqc.qc.detector import fit_detector

SHARE = 0.1  # of the labels, the first ones of which a page shows
FEWEST, MOST = 20, 300  # labels of a page


def held_out_scores(
    labels: pd.DataFrame, features: np.ndarray, settings: LogisticSettings, good_cells_lost: float
) -> np.ndarray:
    """Return the probability of abnormal of each label by models that saw none of its group.

    Arguments are those of `fit_detector`; a score is nan where the labels of the other groups are
    of one class. Raises InputError if all labels are of one class, or none could be held out.
    """
    scores = fit_detector(labels, features, settings, good_cells_lost).held_out
    if np.isnan(scores).all():
        raise InputError(
            f"{len(labels)} labels in {labels['group'].nunique()} groups: no model can be fitted "
            "without a label's own group; label normal and abnormal crops in more wells"
        )
    return scores


def ranked(labels: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    """Return the labels, the most contradicted first, with score, self_confidence and rank from 1.

    `scores` are those of `held_out_scores`. Labels without one come last; of equal ones the first
    crop_id does.
    """
    abnormal = (labels["label"] == ABNORMAL).to_numpy()
    table = labels.assign(score=scores, self_confidence=np.where(abnormal, scores, 1 - scores))
    table = table.sort_values(["self_confidence", "crop_id"], ignore_index=True)
    return table.assign(rank=np.arange(1, len(table) + 1))


def to_review(table: pd.DataFrame, reviewed: Collection[str]) -> pd.DataFrame:
    """Return the first labels of `ranked` that a page is to show.

    That is a tenth of all, at least `FEWEST` and at most `MOST`. Labels without a score, and crops
    that are `reviewed` already, are none of them.
    """
    count = min(max(int(np.ceil(SHARE * len(table))), FEWEST), MOST)
    first = table[table["score"].notna()].head(count)
    return first[~first["crop_id"].isin(list(reviewed))].reset_index(drop=True)
