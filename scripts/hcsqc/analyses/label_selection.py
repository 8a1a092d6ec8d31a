"""Which crops to label: random, diverse, typical and uncertain ones at equal budget.

A screener does not know classes before labelling, so budgets are not balanced here.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from hcsqc.core.errors import InputError
from hcsqc.probes.metrics import table_scores
from hcsqc.probes.resampling import interval
from hcsqc.probes.task import ABNORMAL, FitScores, select

RANDOM, DIVERSE, TYPICAL, UNCERTAIN = ("random", "diverse", "typical", "uncertain")
NEIGHBOURS = 20  # Hacohen et al. 2022, TypiClust, arXiv:2202.02794
FIRST_RANDOM = 10
SMALLEST_ROUND = 5
ROUNDS = 5
COLUMNS = ["strategy", "budget", "draw", "metric", "value", "abnormal", "one_class"]


def compare_selections(
    splits: pd.DataFrame,
    index: pd.Index,
    features: np.ndarray,
    budgets: list[int],
    draws: int,
    fit_scores: FitScores,
    seed: int,
) -> pd.DataFrame:
    """Return the scores of a probe trained on labels that each strategy chose.

    `index` and `features` are crop_ids and n x width features. The pool is a draw's whole training
    list; its test set tests. Columns: those of `COLUMNS`. value is a fraction, abnormal the share
    of abnormal labels among the chosen. Where these are of one class (one_class), that class is the
    prediction for every crop. Undefined metrics have no row, nor have budgets above a pool's size.
    Raises InputError if there are fewer draws, or if no pool carries the smallest budget.
    """
    if draws > splits["draw"].nunique():
        raise InputError(
            f"label selection: the splits have {splits['draw'].nunique()} draws, not {draws}; "
            "lower the draws"
        )
    rows = []
    for draw in range(draws):
        own = splits[splits["draw"] == draw].sort_values("crop_id")
        pool, test = own[own["part"] == "train"], own[own["part"] == "test"]
        matrix = select(index, features, pool["crop_id"])
        tested = select(index, features, test["crop_id"])
        targets, wanted = ((part["label"] == ABNORMAL).to_numpy(np.int64) for part in (pool, test))
        groups = pool["group"].to_numpy()
        for budget in [budget for budget in budgets if budget <= len(pool)]:
            state = np.random.default_rng([seed, draw])
            chosen = choose(matrix, targets, groups, budget, fit_scores, state)
            for strategy, picked in chosen.items():
                (scores,) = _scores(fit_scores, matrix, targets, groups, picked, [tested])
                labels = targets[picked]
                about = (labels.mean(), len(set(labels)) == 1)
                rows += [
                    (strategy, budget, draw, name, value, *about)
                    for name, value in table_scores(wanted, scores).items()
                ]
    if not rows:
        raise InputError(
            f"label selection: no training pool has {min(budgets)} labels; lower the budgets"
        )
    return pd.DataFrame(rows, columns=COLUMNS).dropna(subset="value", ignore_index=True)


def choose(
    matrix: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    budget: int,
    fit_scores: FitScores,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return for each strategy the rows, `budget` different ones, of a pool of n x width features.

    Only `uncertain` sees `targets` (n of 0 and 1), and of the rows alone that it has chosen before.
    """
    order = rng.permutation(len(matrix))
    standardised = StandardScaler().fit_transform(matrix.astype(np.float64))
    clusters, centres = _clusters(standardised, budget, int(rng.integers(2**31)))
    to_centre = np.linalg.norm(standardised - centres[clusters], axis=1)
    return {
        RANDOM: order[:budget],
        DIVERSE: _least_per_cluster(to_centre, clusters, budget, order),
        TYPICAL: _least_per_cluster(_sparsity(standardised), clusters, budget, order),
        UNCERTAIN: _uncertain(matrix, targets, groups, budget, fit_scores, order),
    }


def compare_to_random(table: pd.DataFrame, replicates: int, seed: int) -> pd.DataFrame:
    """Return the mean difference of each strategy to random labels, paired by draw.

    `table` is that of `compare_selections`. Columns strategy, budget, metric, difference (a
    fraction, above 0 where the strategy is better) with the 95% interval low to high from
    `replicates` resamples of the draws, draws, and how many of the draws chose labels of one class
    alone: one_class, random_one_class.
    """
    keys = ["budget", "metric", "draw"]
    random = table[table["strategy"] == RANDOM]
    others = table[table["strategy"] != RANDOM]
    pairs = others.merge(random, on=keys, suffixes=("", "_random"), validate="many_to_one")
    pairs["difference"] = pairs["value"] - pairs["value_random"]
    rows = []
    for key, group in pairs.groupby(["strategy", "budget", "metric"], sort=False):
        differences = group["difference"].to_numpy()
        rng = np.random.default_rng(seed)
        means = differences[rng.integers(len(group), size=(replicates, len(group)))].mean(axis=1)
        row = (*key, differences.mean(), *interval(means, len(group)), len(group))
        rows.append((*row, group["one_class"].sum(), group["one_class_random"].sum()))
    names = ["strategy", "budget", "metric", "difference", "low", "high", "draws"]
    return pd.DataFrame(rows, columns=[*names, "one_class", "random_one_class"])


def _scores(fit_scores, matrix, targets, groups, picked, tests) -> list[np.ndarray]:
    labels = targets[picked]
    if len(set(labels)) == 1:
        return [np.full(len(test), float(labels[0])) for test in tests]
    return fit_scores(matrix[picked], labels, groups[picked], tests)


def _clusters(standardised, budget, state) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        # Crops alike in every feature make fewer clusters; random ones then fill up.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(budget, n_init=1, random_state=state).fit(standardised)
    return model.labels_, model.cluster_centers_


def _least_per_cluster(values, clusters, budget, order) -> np.ndarray:
    """Return the row of the least value of each cluster, filled up in `order` to the budget."""
    ranked = np.argsort(values, kind="stable")
    _, first = np.unique(clusters[ranked], return_index=True)
    picked = ranked[first]
    rest = order[~np.isin(order, picked)]
    return np.concatenate([picked, rest])[:budget]


def _sparsity(standardised: np.ndarray) -> np.ndarray:
    """Return the mean distance of each crop to its nearest neighbours in the pool."""
    neighbours = min(NEIGHBOURS, len(standardised) - 1)
    if not neighbours:
        return np.zeros(len(standardised))
    distances, _ = NearestNeighbors(n_neighbors=neighbours).fit(standardised).kneighbors()
    return distances.mean(axis=1)


def _uncertain(matrix, targets, groups, budget, fit_scores, order) -> np.ndarray:
    picked = order[: min(FIRST_RANDOM, budget)]
    while len(picked) < budget:
        rest = order[~np.isin(order, picked)]
        (scores,) = _scores(fit_scores, matrix, targets, groups, picked, [matrix[rest]])
        # Ties, and the one class of a constant prediction, go by the random order.
        nearest = rest[np.argsort(np.abs(scores - 0.5), kind="stable")]
        size = min(max(SMALLEST_ROUND, budget // ROUNDS), budget - len(picked))
        picked = np.concatenate([picked, nearest[:size]])
    return picked
