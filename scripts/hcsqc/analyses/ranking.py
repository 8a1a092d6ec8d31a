"""Which encoders are best, and which are not distinguished from the best with these labels."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import t

from hcsqc.analyses.differences import difference_variances
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.resampling import interval, p_value

ALPHA = 0.05  # of all comparisons of one ranking together
CELL = ["probe", "budget", "screen", "metric"]
PAIR_COLUMNS = [*CELL, "encoder", "other", "difference", "low", "high", "p_alone", "p"]
NO_VERDICT = "no verdict"  # and why


def compare_encoders(
    scores: pd.DataFrame, left_out: pd.DataFrame, overlaps: Mapping[int, float]
) -> pd.DataFrame:
    """Return every encoder against every other, in both directions.

    Columns: those of `CELL`, encoder, other, difference of their mean scores (encoder less other)
    with its 95% interval low to high, p_alone (of this pair alone, two-sided) and p, corrected by
    Holm's method over the pairs of that ranking. `scores` and `left_out` are those of all encoders;
    seeds are averaged. Encoders are compared within one probe, budget, screen and metric on the
    draws that all of them have. `overlaps` is, by budget, the share of training labels that two
    draws have in common.
    """
    table = scores.pivot_table(index=[*CELL, "draw"], columns="encoder", values="value")
    # Undefined scores stay, which a pivot table would drop.
    keys = [*CELL, "draw", "group", "encoder"]
    without = left_out.groupby(keys)["value"].mean().unstack("encoder")
    without = dict(tuple(without.groupby(level=CELL, sort=False)))
    parts = []
    for cell, group in table.groupby(level=CELL, sort=False):
        # A draw in which a metric is not defined for one encoder is left out for all.
        own = group.droplevel(CELL).dropna(axis=1, how="all").dropna()
        lost = without.get(cell)
        if lost is None:  # the paper's habits of computing: no score without a group
            continue
        values, changed = _arrays(own, lost.droplevel(CELL))
        budget = cell[CELL.index("budget")]
        variance, freedom = difference_variances(values, changed, overlaps.get(budget, 0.0))
        means = values.mean(axis=1)
        one, two = np.triu_indices(len(means), 1)
        difference = means[one] - means[two]
        variance, freedom = variance[one, two], freedom[one, two]
        reach = t.ppf(1 - ALPHA / 2, freedom) * np.sqrt(variance)
        p_alone = p_value(difference, variance, freedom)
        names = own.columns.to_numpy()
        part = pd.DataFrame(
            {
                "encoder": names[one],
                "other": names[two],
                "difference": difference,
                "low": difference - reach,
                "high": difference + reach,
                "p_alone": p_alone,
                "p": holm(p_alone),
            }
        )
        mirrored = part.assign(
            encoder=part["other"],
            other=part["encoder"],
            difference=0.0 - part["difference"],  # no minus nought
            low=-part["high"],
            high=-part["low"],
        )
        both = pd.concat([part, mirrored], ignore_index=True)
        parts.append(both.assign(**dict(zip(CELL, cell, strict=True))))
    if not parts:
        return pd.DataFrame(columns=PAIR_COLUMNS)
    return pd.concat(parts, ignore_index=True)[PAIR_COLUMNS]


def _arrays(scores: pd.DataFrame, left_out: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, encoders x draws, and those without a group, encoders x groups x draws."""
    lost = left_out[left_out.index.get_level_values("draw").isin(scores.index)][scores.columns]
    draw = scores.index.get_indexer(lost.index.get_level_values("draw"))
    names = lost.index.get_level_values("group").to_numpy(str)
    groups, group = np.unique(names, return_inverse=True)
    changed = np.full((len(scores.columns), len(groups), len(scores)), np.inf)
    changed[:, group, draw] = lost.to_numpy().T
    return scores.to_numpy().T, changed


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p values corrected so that the chance of any false alarm stays below alpha (Holm)."""
    order = np.argsort(p_values, kind="stable")
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def best_p(pairs: pd.DataFrame) -> pd.Series:
    """Return by encoder the p of its being the best, or one of several equal ones.

    `pairs` are those of one probe, budget, screen and metric. These are multiple comparisons with
    the best (Hsu 1981): each encoder is compared with all k - 1 others, one-sided, because only one
    that is above speaks against it, and the least p counts k - 1 times (Bonferroni). It counts at
    least twice, so that one of two equal encoders is not called the better one more often than
    promised. Encoders with p of at least `ALPHA` hold the best one with 95% confidence.
    """
    one_sided = pairs["p_alone"] / 2
    one_sided = one_sided.where(pairs["difference"] < 0, 1 - one_sided)
    others = pairs.groupby("encoder")["other"].nunique()
    return (one_sided.groupby(pairs["encoder"]).min() * others.clip(lower=2)).clip(upper=1)


def rank(pairs: pd.DataFrame, scores: pd.DataFrame, replicates: pd.DataFrame) -> pd.DataFrame:
    """Return per probe, budget, screen and metric the encoders, the highest mean score first.

    `pairs` is what `compare_encoders` found for the same scores and replicates. Columns: those of
    `CELL`, encoder, mean with its interval low to high, difference to the highest mean, p of
    `best_p`, and verdict: `best` for the highest mean if no other may be the best, else `tie` for
    all that may be, and `worse` for the rest. `best` and
    `not_distinguished` say the same as booleans: the encoder is the one best, and the encoder is
    among those that may be the best. draws is their number; where they are fewer than 5 the verdict
    is "no verdict: 1 draw", no encoder is best, none is distinguished, and no p is reliable.
    """
    means = scores.groupby([*CELL, "encoder"])["value"].mean()
    keys = [*CELL, "replicate", "encoder"]
    resampled = replicates.groupby(keys)["value"].mean().unstack("encoder")
    groups = replicates.groupby(CELL)["n_groups"].first()
    draws = scores.groupby(CELL)["draw"].nunique()
    compared = dict(tuple(pairs.groupby(CELL, sort=False)))
    parts = []
    for cell, own in resampled.groupby(level=CELL, sort=False):
        # A replicate in which a metric is not defined for one encoder is left out for all.
        own = own.dropna(axis=1, how="all").dropna()
        names = own.columns
        table = means.loc[cell].reindex(names).sort_values(ascending=False, kind="stable")
        table = table.rename("mean").rename_axis("encoder").reset_index()
        table["low"], table["high"] = interval(own[table["encoder"]].to_numpy().T, groups[cell])
        best = table["encoder"].iloc[0]
        own_pairs = compared.get(cell, pairs.head(0))  # an encoder alone is in no pair
        to_best = own_pairs[own_pairs["other"] == best].set_index("encoder")
        table["difference"] = to_best["difference"].reindex(table["encoder"]).to_numpy()
        table["p"] = best_p(own_pairs).reindex(table["encoder"]).to_numpy(float)
        table.loc[0, "p"] = np.nan  # no other one is above
        table["verdict"] = np.where(table["p"] < ALPHA, "worse", "tie")
        if len(table) > 1 and (table["verdict"][1:] == "worse").all():
            table.loc[0, "verdict"] = "best"
        table["draws"] = draws[cell]
        if draws[cell] < FEWEST_DRAWS:
            plural = "s" if draws[cell] > 1 else ""
            table["verdict"] = f"{NO_VERDICT}: {draws[cell]} draw{plural}"
        table["best"] = table["verdict"] == "best"
        table["not_distinguished"] = table["verdict"] != "worse"
        parts.append(table.assign(**dict(zip(CELL, cell, strict=True))))
    columns = [*CELL, "encoder", "mean", "low", "high", "difference", "p", "verdict", "best"]
    return pd.concat(parts, ignore_index=True)[[*columns, "not_distinguished", "draws"]]
