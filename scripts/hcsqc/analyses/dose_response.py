"""Dose response: which artefacts are found, and how strong they must be for it."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import beta

from hcsqc.core.errors import InputError
from hcsqc.probes.metrics import THRESHOLD
from hcsqc.probes.resampling import interval

FALSE_ALARMS = 0.05
HALF, AT_FALSE_ALARMS = f"{THRESHOLD:g}", f"{FALSE_ALARMS:.0%} false alarms"
STRENGTHS = ("weak", "medium", "strong", "unknown", "all")
UNKNOWN, ALL = STRENGTHS[-2:]
MISSED = 0.5
# Were half of them detected, none of six would be in fewer than 2.5% of cases.
FEWEST_CROPS = 6
COLUMNS = ["screen", "artefact", "strength", "threshold", "detected", "low", "high", "crops"]


def detection(
    predictions: pd.DataFrame, labels: pd.DataFrame, replicates: int, seed: int
) -> pd.DataFrame:
    """Return the share of abnormal test crops that are detected, by artefact and strength.

    `predictions` are those of one encoder, probe and budget, with a column seed; `labels` the
    labels of all their screens. Columns: those of `COLUMNS`. strength is one of `STRENGTHS`: weak
    up to a third of the scale from 0 to 1, medium up to two, strong above, `unknown` if not known,
    and `all`. threshold is `0.5`, or `5% false alarms`: that of each draw's normal test crops. An
    artefact that the label does not name is `unknown`. Each crop counts once, with its mean over
    draws and seeds; crops is their number. low to high is a 95% interval from `replicates`
    resamples of the groups.
    Raises InputError if a test crop has no label.
    """
    found = _described(_detected(predictions), labels)
    rows = []
    for (screen, artefact, strength), crops in _cells(found):
        groups = crops["group"].to_numpy()
        for threshold in (HALF, AT_FALSE_ALARMS):
            detected = crops[threshold].to_numpy()
            known = ~np.isnan(detected)
            own = detected[known]
            low, high = _interval(own, groups[known], replicates, seed)
            mean = own.mean() if len(own) else np.nan
            rows.append((screen, artefact, strength, threshold, mean, low, high, len(own)))
    return pd.DataFrame(rows, columns=COLUMNS)


def false_alarm_threshold(normal: np.ndarray, share: float) -> float:
    """Return the lowest threshold that at most such a share of normal scores exceeds.

    nan if there are none. Scores above it are alarms.
    """
    if not len(normal):
        return float("nan")
    allowed = int(np.floor(share * len(normal) + 1e-9))
    return float(np.sort(normal)[::-1][min(allowed, len(normal) - 1)])


def strength_bins(strength: pd.Series) -> pd.Series:
    """Return weak, medium, strong or unknown for strengths of 0 to 1."""
    edges = [-np.inf, 1 / 3, 2 / 3, np.inf]
    bins = pd.cut(strength.astype(float), edges, labels=list(STRENGTHS[:3]))
    return bins.astype(object).where(bins.notna(), UNKNOWN)


def is_missed(table: pd.DataFrame) -> pd.Series:
    """Return for each row of `detection` whether less than half is detected, by its interval.

    Its upper end is below 50%, and there are at least six crops.
    """
    return (table["high"] < MISSED) & (table["crops"] >= FEWEST_CROPS)


def _detected(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return screen, crop_id, group and, by threshold, whether each abnormal crop is above it."""
    parts = []
    for _, rows in predictions.groupby(["seed", "draw", "screen"]):
        normal = rows.loc[rows["label"] == "normal", "score"].to_numpy()
        abnormal = rows[rows["label"] == "abnormal"]
        limit = false_alarm_threshold(normal, FALSE_ALARMS)
        part = abnormal[["screen", "crop_id", "group"]].assign(
            **{HALF: (abnormal["score"] > THRESHOLD).astype(float)}
        )
        above = (abnormal["score"] > limit).astype(float)
        parts.append(part.assign(**{AT_FALSE_ALARMS: above if limit == limit else np.nan}))
    if not parts:
        return pd.DataFrame(columns=["screen", "crop_id", "group", HALF, AT_FALSE_ALARMS])
    return pd.concat(parts, ignore_index=True)


def _described(detected: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return a row per crop: its mean detection, artefact, strength bin and its group's number."""
    keys = ["screen", "crop_id", "group"]
    crops = detected.groupby(keys, as_index=False)[[HALF, AT_FALSE_ALARMS]].mean()
    about = labels[["crop_id", "artefact", "strength"]]
    found = crops.merge(
        about, on="crop_id", how="left", validate="one_to_one", indicator="labelled"
    )
    missing = found.loc[found["labelled"] == "left_only", "crop_id"]
    if len(missing):
        raise InputError(
            f"dose response: {len(missing)} abnormal test crops have no label, first "
            f"{missing.iloc[0]}; give the labels of every screen of the predictions"
        )
    found["artefact"] = found["artefact"].where(found["artefact"].notna(), UNKNOWN)
    found["group"] = pd.factorize(found["group"], sort=True)[0]
    return found.assign(strength=strength_bins(found["strength"]))


def _cells(found: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    for (screen, artefact), crops in found.groupby(["screen", "artefact"]):
        for strength in STRENGTHS[:-1]:
            inside = crops[crops["strength"] == strength]
            if len(inside):
                yield (screen, artefact, strength), inside
        yield (screen, artefact, ALL), crops


def _interval(detected: np.ndarray, groups: np.ndarray, replicates, seed) -> tuple[float, float]:
    """Return the interval of a mean over crops, by resampling the groups that hold them.

    `groups` are their numbers.
    """
    count = np.bincount(groups)
    held = count > 0
    n = int(held.sum())
    if n >= 2 and (detected.min() == 1 or detected.max() == 0):
        # Groups that all agree leave nothing to resample: the exact (Clopper-Pearson) interval.
        hits = n * detected.min()
        low = beta.ppf(0.025, hits, 1) if hits else 0.0
        return float(low), 1.0 if hits else float(beta.ppf(0.975, 1, n))
    if n < 2:
        return float("nan"), float("nan")
    counts = _resamples(n, replicates, seed)
    total = np.bincount(groups, weights=detected)
    low, high = interval((counts @ total[held]) / (counts @ count[held]), n)
    return float(low), float(high)


@cache
def _resamples(n: int, replicates: int, seed: int) -> np.ndarray:
    """Return how often each of n groups is drawn, replicates x n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), replicates)
