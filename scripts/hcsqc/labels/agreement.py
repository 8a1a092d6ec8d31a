"""How far annotators agree on the crops that they both labelled, and where they do not."""

from itertools import combinations

import pandas as pd

from hcsqc.core.schema import LABELS

PAIR_COLUMNS = ["first", "second", "crops", "agreeing", "kappa"]
DISAGREEMENT_COLUMNS = ["crop_id", "differs", "label", "artefact", "annotator", "source"]


def agreement(placed: pd.DataFrame) -> pd.DataFrame:
    """Return Cohen's kappa of each pair of annotators, on normal and abnormal.

    `placed` has a row per label: crop_id, label, annotator. Columns first and second (annotators),
    crops (that both labelled), agreeing (the share labelled alike) and kappa, which is missing
    where chance alone would agree on every crop. Pairs without a crop in common have no row. A
    crop that one annotator labelled in two ways is not counted for that annotator.
    Source: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    sure = placed.groupby(["crop_id", "annotator"])["label"].transform("nunique") == 1
    labels = placed[sure].drop_duplicates(["crop_id", "annotator"])
    by_annotator = labels.pivot(index="crop_id", columns="annotator", values="label")
    rows = []
    for first, second in combinations(by_annotator.columns, 2):
        both = by_annotator[[first, second]].dropna()
        if len(both):
            agreeing, kappa = _kappa(both[first], both[second])
            rows.append((first, second, len(both), agreeing, kappa))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def _kappa(first: pd.Series, second: pd.Series) -> tuple[float, float]:
    """Return the share labelled alike, and how far it is above chance."""
    agreeing = float((first == second).mean())
    by_chance = sum(float((first == name).mean() * (second == name).mean()) for name in LABELS)
    if by_chance == 1:
        return agreeing, float("nan")
    return agreeing, (agreeing - by_chance) / (1 - by_chance)


def disagreements(placed: pd.DataFrame) -> pd.DataFrame:
    """Return all labels of the crops whose labels differ, one row per label, sorted by crop.

    `placed` is what `labels.match.place_labels` returns. Column differs says in what: "label"
    (normal and abnormal), and otherwise "artefact" (abnormal, but of two kinds).
    """
    kinds = placed.assign(artefact=placed["artefact"].replace("", None)).groupby("crop_id")
    label, artefact = (kinds[name].transform("nunique") > 1 for name in ("label", "artefact"))
    rows = placed.assign(differs=label.map({True: "label", False: "artefact"}))[label | artefact]
    return rows.sort_values(["crop_id", "annotator", "source"])[DISAGREEMENT_COLUMNS]
