"""How sure a score is: the bootstrap over groups and draws, and scores without one group.

Crops of one group (`labels.groups`: a well, compound or plate) are alike, and draws share their
labels, so neither crops nor draws are independent. A replicate resamples the groups once for all
draws, and the draws; every encoder, probe and budget sees the same replicates, so that differences
are paired.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from hcsqc.probes.metrics import METRICS, Weighted


def bootstrap_scores(
    predictions: pd.DataFrame, metrics: Sequence[str], replicates: int, seed: int
) -> pd.DataFrame:
    """Return screen, metric, replicate and value: bootstrap replicates of each mean over draws.

    `predictions` are those of one encoder, probe and budget. Replicates are the same for the same
    draws and test crops. A draw whose resampled test crops are of one class counts where that
    leaves the metric defined.
    """
    parts = []
    for screen, rows in predictions.groupby("screen"):
        groups, group, targets, scores = _arrays(rows)
        places = rows.groupby("draw").indices
        draws = sorted(places)
        rng = np.random.default_rng(seed)
        group_counts = _drawn(rng, len(groups), replicates)
        group_counts = np.ascontiguousarray(group_counts.T, float)  # groups x replicates
        draw_counts = _drawn(rng, len(draws), replicates)
        sums = {metric: np.zeros(replicates) for metric in metrics}
        used = {metric: np.zeros(replicates) for metric in metrics}
        for place, draw in enumerate(draws):
            own = places[draw]
            crops = Weighted(targets[own], scores[own], group_counts[group[own]])
            for metric in metrics:
                values = METRICS[metric](crops)
                counts = np.where(np.isnan(values), 0, draw_counts[:, place])
                sums[metric] += counts * np.nan_to_num(values)
                used[metric] += counts
        for metric in metrics:
            with np.errstate(invalid="ignore"):
                value = sums[metric] / used[metric]
            part = pd.DataFrame({"replicate": np.arange(replicates), "value": value})
            parts.append(part.assign(screen=screen, metric=metric, n_groups=len(groups)))
    if not parts:
        return pd.DataFrame(columns=["replicate", "value", "screen", "metric", "n_groups"])
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def scores_without_groups(predictions: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return draw, screen, metric, group and value: each score without one of its test groups.

    `predictions` are those of one encoder, probe and budget. Where a score is not defined without a
    group, its value is nan.
    """
    names, group, targets, scores = _arrays(predictions)
    parts = []
    for (draw, screen), rows in predictions.groupby(["draw", "screen"]).indices.items():
        groups, place = np.unique(group[rows], return_inverse=True)
        crops = Weighted(targets[rows], scores[rows], 1.0 - np.eye(len(groups))[place])
        parts += [(draw, screen, metric, groups, METRICS[metric](crops)) for metric in metrics]
    counts = [len(groups) for *_, groups, _ in parts]
    draws, screens, told, groups, values = zip(*parts, strict=True) if parts else [()] * 5
    return pd.DataFrame(
        {
            "draw": np.repeat(np.array(draws, int), counts),
            "screen": np.repeat(np.array(screens, object), counts),
            "metric": np.repeat(np.array(told, object), counts),
            "group": names[np.concatenate([np.array([], int), *groups])],
            "value": np.concatenate([np.array([]), *values]),
        }
    )


def _arrays(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the groups in order, and of each row its group's number, target and score."""
    group, groups = pd.factorize(rows["group"].to_numpy(object), sort=True)
    targets = (rows["label"] == "abnormal").to_numpy(int)
    return groups, group, targets, rows["score"].to_numpy(float)


def _drawn(rng: np.random.Generator, count: int, replicates: int) -> np.ndarray:
    """Return how often each of `count` is drawn in each replicate, replicates x count."""
    return rng.multinomial(count, np.full(count, 1 / count), replicates)


def interval(replicates: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an expanded 95% percentile interval: wider if groups are few (Hesterberg 2015, 5.3).

    Plain percentiles of resampled groups are too narrow by as much as a normal interval with the
    biased standard deviation is. Without two groups nothing is known: nan. Replicates are the last
    axis; low and high have the others.
    """
    if n_groups < 2:
        unknown = np.full(replicates.shape[:-1], np.nan)
        return unknown, unknown
    tail = norm.cdf(-np.sqrt(n_groups / (n_groups - 1)) * t.ppf(0.975, n_groups - 1))
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=-1)
    return low, high


def p_value(difference: np.ndarray, variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the two-sided p of differences being nought, by Student's t; 1 if nothing is known."""
    ratio = np.where(difference == 0, 0.0, np.inf)
    np.divide(np.abs(difference), np.sqrt(variance), out=ratio, where=variance > 0)
    return np.where(np.isnan(variance), 1, 2 * t.sf(ratio, freedom))
