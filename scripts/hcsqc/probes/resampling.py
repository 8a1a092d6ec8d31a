"""How sure a score is: the bootstrap over wells and draws, shared by all encoders.

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
        wells = pd.Index(sorted(set(wells_of(rows["crop_id"]))))
        draws = np.sort(rows["draw"].unique())
        rng = np.random.default_rng(seed)
        well_counts = rng.multinomial(len(wells), np.full(len(wells), 1 / len(wells)), replicates)
        well_counts = np.ascontiguousarray(well_counts.T, float)  # wells x replicates
        draw_counts = rng.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), replicates)
        sums = {metric: np.zeros(replicates) for metric in metrics}
        used = {metric: np.zeros(replicates) for metric in metrics}
        for place, draw in enumerate(draws):
            own = rows[rows["draw"] == draw]
            targets = (own["label"] == "abnormal").to_numpy(int)
            weights = well_counts[wells.get_indexer(wells_of(own["crop_id"]))]
            crops = Weighted(targets, own["score"].to_numpy(), weights)
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


def p_value(difference: np.ndarray | float, replicates: np.ndarray, n_wells: int) -> np.ndarray:
    """Return the two-sided p of differences being nought, by Student's t over the wells.

    `replicates` are those of each difference, along the last axis; their standard deviation,
    corrected for the number of wells, is its standard error.
    """
    difference = np.asarray(difference, float)
    if n_wells < 2:
        return np.ones(difference.shape)
    error = replicates.std(axis=-1) * np.sqrt(n_wells / (n_wells - 1))
    ratio = np.full(difference.shape, np.inf)
    np.divide(np.abs(difference), error, out=ratio, where=error > 0)
    ratio[(error == 0) & (difference == 0)] = 0
    return 2 * t.sf(ratio, n_wells - 1)
