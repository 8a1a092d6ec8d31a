"""Which encoder, classifier and number of labels to use: three sentences a lab can act on.

Encoders are judged as a detector is: by the share of the aberrant cells that are found where at
most a given share of the good cells is lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from hcsqc.core.config import shuffles_labels
from hcsqc.figures.words import Words, joined
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.resampling import interval
from hcsqc.report.costs import duration

# Metrics of the ranking, by the share of good cells that may be lost.
RECALLS = {0.01: "recall_at_1_percent", 0.05: "recall_at_5_percent"}
# Times so close are alike: jobs of one machine differ by as much.
COSTS_ALIKE = 1.25
CELLS = 1000  # that times are given for
KEYS = ("judged", "encoder", "probe", "budget", "lost", "draws")
MOST_NAMED = 4  # encoders in a sentence


@dataclass(frozen=True)
class Recommendation:
    """What the study recommends, and the rows that it rests on.

    `options` are the encoders under the recommended classifier and budget, best recall first:
    encoder, kind, mean, low, high (recalls, as fractions), elsewhere (the mean recall on the other
    screens), best, not_distinguished, recommended, and the columns of `costs.encoder_costs`.
    `classifiers` has for each classifier its encoder of the highest recall: probe, budget, encoder,
    mean, low, high, alike (encoders that cannot be distinguished from it). `budgets` has for each
    smaller budget of the recommended encoder mean, difference (of recall, to the recommended
    budget) with its interval low to high. `elsewhere` has for the other screens screen, mean, low,
    high of the recommended encoder, and encoder and highest, those of the encoder with the highest
    recall there.
    """

    judged: bool
    encoder: str | None
    probe: str | None
    budget: int | None
    lost: float
    draws: int
    options: pd.DataFrame
    classifiers: pd.DataFrame
    budgets: pd.DataFrame
    elsewhere: pd.DataFrame = field(default_factory=pd.DataFrame)


def recommend(
    config: Mapping,
    ranked: pd.DataFrame,
    costs: pd.DataFrame,
    scores: pd.DataFrame,
    replicates: pd.DataFrame,
) -> Recommendation:
    """Return which encoder the study recommends, with which classifier and how many labels.

    `ranked` is what `ranking.rank` returns, `costs` what `costs.encoder_costs` returns; `scores`
    and `replicates` are those tables of all encoders. The classifier is the one whose best encoder
    has the highest recall at the largest budget. Of the encoders that cannot be distinguished from
    the best under it, controls apart, the cheapest is recommended: one that needs no pretraining
    before one that does, then the one whose features take the least time; of times that are alike,
    and where no time is known, the one of the highest recall.
    """
    promised = config["qc"]["good_cells_lost"]
    lost = min(RECALLS, key=lambda share: abs(share - promised))
    train = config["study"]["train"]
    shuffled = [probe for probe in config["study"]["probes"] if shuffles_labels(config, probe)]
    asked = (ranked["metric"] == RECALLS[lost]) & ~ranked["probe"].isin(shuffled)
    table = ranked[asked & ranked["mean"].notna()].reset_index(drop=True)
    own = table[table["screen"] == train]
    own = own[own["budget"] == own.groupby("probe")["budget"].transform("max")]
    judged = bool((own["draws"] >= FEWEST_DRAWS).any())
    own = own[own["draws"] >= FEWEST_DRAWS] if judged else own
    if own.empty:
        empty = pd.DataFrame()
        return Recommendation(False, None, None, None, lost, 0, empty, empty, empty)
    classifiers = _best_of_each_classifier(own)
    probe, budget = classifiers.loc[0, ["probe", "budget"]]
    options = own[own["probe"] == probe].sort_values("mean", ascending=False, kind="stable")
    same = table[(table["probe"] == probe) & (table["budget"] == budget)]
    others = same[same["screen"] != train].groupby("encoder")["mean"].mean()
    kinds = {name: entry["kind"] for name, entry in config["encoders"].items()}
    options = options.assign(
        kind=options["encoder"].map(kinds), elsewhere=options["encoder"].map(others)
    ).merge(costs, on="encoder", how="left")
    encoder = _cheapest(options) if judged else options["encoder"].iloc[0]
    options["recommended"] = options["encoder"] == encoder
    return Recommendation(
        judged,
        encoder,
        str(probe),
        int(budget),
        lost,
        int(options["draws"].iloc[0]),
        options.reset_index(drop=True),
        classifiers,
        _smaller_budgets(
            *(rows[_of(rows, encoder, probe, train, lost)] for rows in (scores, replicates)),
            int(budget),
        ),
        _elsewhere(same, encoder, train),
    )


def _of(rows: pd.DataFrame, encoder: str, probe: str, screen: str, lost: float) -> pd.Series:
    return (
        (rows["encoder"] == encoder)
        & (rows["probe"] == probe)
        & (rows["screen"] == screen)
        & (rows["metric"] == RECALLS[lost])
    )


def _best_of_each_classifier(own: pd.DataFrame) -> pd.DataFrame:
    highest = own.loc[own.groupby("probe", sort=False)["mean"].idxmax()]
    alike = own[own["not_distinguished"]].groupby("probe").size() - 1
    highest = highest.assign(alike=highest["probe"].map(alike).fillna(0).astype(int))
    columns = ["probe", "budget", "encoder", "mean", "low", "high", "alike"]
    return highest.sort_values("mean", ascending=False, kind="stable")[columns].reset_index(
        drop=True
    )


def _cheapest(options: pd.DataFrame) -> str:
    """Return the cheapest of the encoders that cannot be distinguished from the best."""
    alike = options[options["not_distinguished"]]
    trained = alike[alike["kind"] != "control"]
    alike = trained if len(trained) else alike
    given = alike[~(alike["pretraining_seconds"] > 0)]
    alike = given if len(given) else alike
    if alike["seconds"].notna().any():
        alike = alike[alike["seconds"] <= COSTS_ALIKE * alike["seconds"].min()]
    return str(alike.loc[alike["mean"].idxmax(), "encoder"])


def _smaller_budgets(scores: pd.DataFrame, replicates: pd.DataFrame, largest: int) -> pd.DataFrame:
    """Return the recall at each smaller budget, and what it lacks to that of the largest."""
    means = scores.groupby("budget")["value"].mean()
    resampled = replicates.pivot_table(index="replicate", columns="budget", values="value")
    rows = []
    for budget in sorted(set(means.index) - {largest}, reverse=True):
        if budget > largest or not {budget, largest} <= set(resampled):
            continue
        differences = (resampled[budget] - resampled[largest]).dropna().to_numpy()
        low, high = interval(differences, int(replicates["n_groups"].iloc[0]))
        rows.append((budget, means[budget], means[budget] - means[largest], low, high))
    return pd.DataFrame(rows, columns=["budget", "mean", "difference", "low", "high"])


def _elsewhere(table: pd.DataFrame, encoder: str, train: str) -> pd.DataFrame:
    rows = []
    for screen, own in table[table["screen"] != train].groupby("screen", sort=False):
        chosen = own[own["encoder"] == encoder]
        if len(chosen):
            highest = own.loc[own["mean"].idxmax()]
            values = chosen[["mean", "low", "high"]].iloc[0]
            rows.append((screen, *values, highest["encoder"], highest["mean"]))
    return pd.DataFrame(rows, columns=["screen", "mean", "low", "high", "encoder", "highest"])


def sentences(found: Recommendation, words: Words) -> list[str]:
    """Return three sentences: what to use and expect, what is as good, what it costs."""
    if found.encoder is None:
        return ["This study cannot recommend an encoder: it has no recall on its training screen."]
    return [_what_to_use(found, words), _what_is_alike(found, words), _what_it_costs(found)]


def _what_to_use(found: Recommendation, words: Words) -> str:
    what = f"{words.encoder(found.encoder)} with {words.probe(found.probe)}"
    row = found.options[found.options["recommended"]].iloc[0]
    expected = (
        f"{percent(row['mean'])} of the aberrant cells "
        f"where at most {found.lost:.0%} of the good cells are lost"
    )
    if not found.judged:
        plural = "s" if found.draws > 1 else ""
        return (
            f"This study cannot recommend an encoder, because a comparison needs {FEWEST_DRAWS} "
            f"draws of labels and it has {found.draws}; over its draw{plural}, {what} and "
            f"{found.budget} labels found the most: {expected}."
        )
    return (
        f"Use {what} and {found.budget} labels: expect to find {expected}"
        f"{_between(row['low'], row['high'])}."
    )


def _what_is_alike(found: Recommendation, words: Words) -> str:
    others = found.options[~found.options["recommended"]]
    if not len(others):
        return "It is the only encoder of this study, so nothing is known of any other."
    if not found.judged:
        named = (
            f"the other {len(others)} encoders"
            if len(others) > 1
            else words.encoder(others["encoder"].iloc[0])
        )
        return f"It cannot be distinguished from {named}."
    if not found.options["not_distinguished"].sum() > 1:
        return (
            "It finds more than each of the other encoders."
            if len(others) > 1
            else f"It finds more than {words.encoder(others['encoder'].iloc[0])}."
        )
    alike = others[others["not_distinguished"]]
    named = [words.encoder(name) for name in alike["encoder"][:MOST_NAMED]]
    rest = len(alike) - len(named)
    named += [f"{rest} more"] if rest else []
    text = f"These labels cannot distinguish it from {joined(named)}"
    highest = found.options.iloc[0]
    controls = [words.encoder(name) for name in alike.loc[alike["kind"] == "control", "encoder"]]
    aside = "leaving controls aside, " if controls else ""
    if not highest["recommended"]:
        top = "which" if len(alike) == 1 else f"of which {words.encoder(highest['encoder'])}"
        text += f", {top} found the most ({percent(highest['mean'])})"
    if len(controls) < len(alike):  # else nothing but controls is as good
        known = found.options.loc[found.options["not_distinguished"], "seconds"].notna().any()
        if highest["recommended"] and not known:
            text += "; without costs on record, the one that found the most is recommended"
        elif highest["recommended"]:
            text += f"; {aside}none of them is much cheaper"
        else:
            text += f"; {aside}it is the cheapest of them"
    if controls:
        text += (
            f"; a control is among them ({joined(controls)}), so these labels do not show that "
            "the encoder matters"
        )
    return text + "."


def _what_it_costs(found: Recommendation) -> str:
    row = found.options[found.options["recommended"]].iloc[0]
    half = found.budget // 2
    parts = [f"{found.budget} labels ({found.budget - half} good cells and {half} aberrant ones)"]
    if pd.notna(row["seconds"]):
        features = _count(int(row["features"]), "feature")
        parts.append(
            f"{duration(row['seconds'])} per {CELLS:,} cells for {features} on {row['device']}"
        )
    if row["pretraining_seconds"] > 0:
        parts.append(
            f"{duration(row['pretraining_seconds'])} of one-time pretraining on "
            f"{row['pretraining_device']}"
        )
    unknown = "" if len(parts) > 1 else "; no computing time is on record"
    return f"It costs {joined(parts)}{unknown}{_fewer(found)}."


def _fewer(found: Recommendation) -> str:
    """Return what the next smaller budget would do, as a clause; nothing without one."""
    if not len(found.budgets) or not found.judged:
        return ""
    row = found.budgets.iloc[0]
    points = 100 * row["difference"]
    if pd.notna(row["high"]) and row["low"] <= 0 <= row["high"]:
        what = "the recall cannot be distinguished from that"
    else:
        what = f"the recall is {abs(points):.0f} points {'lower' if points < 0 else 'higher'}"
    return f"; with {int(row['budget'])} labels {what} ({percent(row['mean'])})"


def cautions(found: Recommendation, words: Words) -> list[str]:
    """Return what the recommended encoder finds on each other screen, a sentence each."""
    return [
        f"On {row.screen}, which it was not trained on, it finds {percent(row.mean)}"
        f"{_between(row.low, row.high)} at the same loss"
        + (
            "."
            if row.encoder == found.encoder
            else f"; {words.encoder(row.encoder)} finds the most there, {percent(row.highest)}."
        )
        for row in found.elsewhere.itertuples()
    ]


def as_json(found: Recommendation) -> dict:
    """Return a recommendation as JSON values, its tables as lists of rows."""
    tables = ("options", "classifiers", "budgets", "elsewhere")
    return {
        **{name: getattr(found, name) for name in KEYS},
        **{
            name: json.loads(getattr(found, name).to_json(orient="records", double_precision=6))
            for name in tables
        },
    }


def percent(share: float) -> str:
    """Return a share in whole percent."""
    return f"{100 * share:.0f}%"


def _between(low: float, high: float) -> str:
    return "" if pd.isna(low) else f" (95% interval {100 * low:.0f} to {percent(high)})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
