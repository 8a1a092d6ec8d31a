"""How sure a score is: the bootstrap over wells and draws, and scores without one well.

Crops of one well are alike, and draws share their labels, so neither crops nor draws are
independent. A replicate resamples the wells once for all draws, and the draws; every encoder, probe
and budget sees the same replicates, so that differences are paired.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from hcsqc.core.ids import wells_of
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
        wells, well, targets, scores = _arrays(rows)
        places = rows.groupby("draw").indices
        draws = sorted(places)
        rng = np.random.default_rng(seed)
        well_counts = rng.multinomial(len(wells), np.full(len(wells), 1 / len(wells)), replicates)
        well_counts = np.ascontiguousarray(well_counts.T, float)  # wells x replicates
        draw_counts = rng.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), replicates)
        sums = {metric: np.zeros(replicates) for metric in metrics}
        used = {metric: np.zeros(replicates) for metric in metrics}
        for place, draw in enumerate(draws):
            own = places[draw]
            crops = Weighted(targets[own], scores[own], well_counts[well[own]])
            for metric in metrics:
                values = METRICS[metric](crops)
                counts = np.where(np.isnan(values), 0, draw_counts[:, place])
                sums[metric] += counts * np.nan_to_num(values)
                used[metric] += counts
        for metric in metrics:
            with np.errstate(invalid="ignore"):
                value = sums[metric] / used[metric]
            part = pd.DataFrame({"replicate": np.arange(replicates), "value": value})
            parts.append(part.assign(screen=screen, metric=metric, n_wells=len(wells)))
    if not parts:
        return pd.DataFrame(columns=["replicate", "value", "screen", "metric", "n_wells"])
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def scores_without_wells(predictions: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return draw, screen, metric, well and value: each draw's score without one of its test wells.

    `predictions` are those of one encoder, probe and budget; a well is `plate/well`. Where a score
    is not defined without a well, its value is nan.
    """
    names, well, targets, scores = _arrays(predictions)
    parts = []
    for (draw, screen), rows in predictions.groupby(["draw", "screen"]).indices.items():
        wells, place = np.unique(well[rows], return_inverse=True)
        crops = Weighted(targets[rows], scores[rows], 1.0 - np.eye(len(wells))[place])
        parts += [(draw, screen, metric, wells, METRICS[metric](crops)) for metric in metrics]
    counts = [len(wells) for *_, wells, _ in parts]
    draws, screens, told, wells, values = zip(*parts, strict=True) if parts else [()] * 5
    return pd.DataFrame(
        {
            "draw": np.repeat(np.array(draws, int), counts),
            "screen": np.repeat(np.array(screens, object), counts),
            "metric": np.repeat(np.array(told, object), counts),
            "well": names[np.concatenate([np.array([], int), *wells])],
            "value": np.concatenate([np.array([]), *values]),
        }
    )


def _arrays(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the wells in order, and of each row its well's number, target and score."""
    crop, crops = pd.factorize(rows["crop_id"])
    wells, well = np.unique(wells_of(crops), return_inverse=True)
    targets = (rows["label"] == "abnormal").to_numpy(int)
    return wells.astype(object), well[crop], targets, rows["score"].to_numpy(float)


def interval(replicates: np.ndarray, n_wells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an expanded 95% percentile interval: wider where wells are few (Hesterberg 2015, 5.3).

    Plain percentiles of resampled wells are too narrow by as much as a normal interval with the
    biased standard deviation is. Without two wells nothing is known: nan. Replicates are the last
    axis; low and high have the others.
    """
    if n_wells < 2:
        unknown = np.full(replicates.shape[:-1], np.nan)
        return unknown, unknown
    tail = norm.cdf(-np.sqrt(n_wells / (n_wells - 1)) * t.ppf(0.975, n_wells - 1))
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=-1)
    return low, high


def p_value(difference: np.ndarray, variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return the two-sided p of differences being nought, by Student's t; 1 if nothing is known."""
    ratio = np.where(difference == 0, 0.0, np.inf)
    np.divide(np.abs(difference), np.sqrt(variance), out=ratio, where=variance > 0)
    return np.where(np.isnan(variance), 1, 2 * t.sf(ratio, freedom))
