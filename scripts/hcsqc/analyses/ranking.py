"""Which encoders are best, and which cannot be told from the best with these labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.resampling import interval, p_value

ALPHA = 0.05  # of all comparisons of one ranking together
CELL = ["probe", "budget", "screen", "metric"]
NO_VERDICT = "no verdict"  # and why


def compare_encoders(scores: pd.DataFrame, replicates: pd.DataFrame) -> pd.DataFrame:
    """Return every encoder against every other, in both directions.

    Columns: those of `CELL`, encoder, other, difference of their mean scores (encoder less other)
    with its interval low to high, and p. `scores` and `replicates` are those of all encoders; seeds
    are averaged. Encoders are compared within one probe, budget, screen and metric on the same
    wells and draws, and p is corrected by Holm's method over the pairs of that ranking.
    """
    means = scores.groupby([*CELL, "encoder"])["value"].mean()
    # A replicate in which a metric is not defined for one encoder is left out for all.
    table = replicates.pivot_table(
        index=[*CELL, "replicate"], columns="encoder", values="value", aggfunc="mean"
    )
    wells = replicates.groupby(CELL)["n_wells"].first()
    parts = []
    for cell, group in table.groupby(level=CELL, sort=False):
        own = group.dropna(axis=1, how="all").dropna()
        first, second = np.triu_indices(len(own.columns), 1)
        names = own.columns.to_numpy()
        resampled = own.to_numpy().T
        differences = resampled[first] - resampled[second]
        usual = means[cell].reindex(names).to_numpy()
        difference = usual[first] - usual[second]
        low, high = interval(differences, wells[cell])
        part = pd.DataFrame(
            {
                "encoder": names[first],
                "other": names[second],
                "difference": difference,
                "low": low,
                "high": high,
                "p": p_value(difference, differences, wells[cell]),
            }
        )
        part["p"] = holm(part["p"].to_numpy())
        mirrored = part.assign(
            encoder=part["other"],
            other=part["encoder"],
            difference=-part["difference"],
            low=-part["high"],
            high=-part["low"],
        )
        both = pd.concat([part, mirrored], ignore_index=True)
        parts.append(both.assign(**dict(zip(CELL, cell, strict=True))))
    columns = [*CELL, "encoder", "other", "difference", "low", "high", "p"]
    return pd.concat(parts, ignore_index=True)[columns]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p values corrected so that the chance of any false alarm stays below alpha (Holm)."""
    order = np.argsort(p_values, kind="stable")
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def rank(pairs: pd.DataFrame, scores: pd.DataFrame, replicates: pd.DataFrame) -> pd.DataFrame:
    """Return per probe, budget, screen and metric the encoders, the highest mean score first.

    `pairs` is what `compare_encoders` found for the same scores and replicates. Columns: those of
    `CELL`, encoder, mean with its interval low to high, difference and p to the highest mean, and
    verdict: `best` for the highest mean if it is better than each other one, `tie` for it and for
    those that it cannot be told from otherwise, `worse` for the rest. `best` and
    `not_distinguished` say the same as booleans: the encoder is the one best, and the encoder is
    among those that may be the best. draws is their number; where they are fewer than 5 the verdict
    is "no verdict: 1 draw", nobody is best, all are not distinguished, and nobody's p is to be
    believed.
    """
    means = scores.groupby([*CELL, "encoder"])["value"].mean()
    resampled = replicates.groupby([*CELL, "encoder", "replicate"])["value"].mean()
    wells = replicates.groupby(CELL)["n_wells"].first()
    draws = scores.groupby(CELL)["draw"].nunique()
    compared = dict(tuple(pairs.groupby(CELL, sort=False)))
    parts = []
    for cell, own in resampled.groupby(level=CELL, sort=False):
        names = own.index.unique("encoder")
        table = means.loc[cell].reindex(names).sort_values(ascending=False, kind="stable")
        table = table.rename("mean").rename_axis("encoder").reset_index()
        bounds = {
            name: interval(one.to_numpy(), wells[cell])
            for name, one in own.groupby(level="encoder", sort=False)
        }
        table["low"], table["high"] = np.transpose([bounds[name] for name in table["encoder"]])
        best = table["encoder"].iloc[0]
        own_pairs = compared.get(cell, pairs.head(0))  # an encoder alone is in no pair
        to_best = own_pairs[own_pairs["other"] == best].set_index("encoder")
        table[["difference", "p"]] = to_best[["difference", "p"]].reindex(table["encoder"]).values
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


def sentence(ranked: pd.DataFrame) -> str:
    """Return what the ranking of one probe, budget, screen and metric says."""
    best = ranked["encoder"].iloc[0]
    if ranked["verdict"].iloc[0].startswith(NO_VERDICT):
        return f"{ranked['verdict'].iloc[0].capitalize()}, and one needs {FEWEST_DRAWS}."
    tied = ranked.loc[ranked["verdict"] == "tie", "encoder"].tolist()[1:]
    if len(ranked) == 1:
        return f"{best} is the only encoder."
    if not tied:
        return f"{best} is best."
    if len(tied) == len(ranked) - 1:
        return f"A tie of all: {best} has the highest mean, but no encoder can be told from it."
    return (
        f"A tie: {best} has the highest mean, but these labels do not tell it from "
        f"{', '.join(tied)}."
    )


def groups(pairs: pd.DataFrame, order: Sequence[str]) -> list[list[str]]:
    """Return the largest runs of encoders, in `order`, of which no two can be told apart.

    `pairs` are those of one probe, budget, screen and metric; the runs are the bars of a
    critical-difference diagram (Demsar 2006).
    """
    different = pairs[pairs["p"] < ALPHA]
    apart = set(zip(different["encoder"], different["other"], strict=True))
    runs: list[list[str]] = []
    for start in range(len(order)):
        run = [order[start]]
        for name in order[start + 1 :]:
            if any((member, name) in apart for member in run):
                break
            run.append(name)
        if len(run) > 1 and not any(set(run) <= set(other) for other in runs):
            runs.append(run)
    return runs
