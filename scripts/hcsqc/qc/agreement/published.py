"""How far flags that others published for a screen's fields and ours agree."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hcsqc.core.schema import ARTEFACTS
from hcsqc.probes.metrics import METRICS, Weighted
from hcsqc.probes.resampling import interval
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.flags import PLATE, SITE, WELL, most_common_artefact

FIELD = [PLATE, WELL, SITE]
UNITS = {"field": FIELD, "well": [PLATE, WELL]}
ANY = "any of them"
BAD = "bad"
MAJORITY = 0.5  # a well is flagged if more of its fields are, on either side
# How a field differs: which side flags it, and which does not have it.
OURS_ONLY, PUBLISHED_ONLY = "ours only", "published only"
NOT_OURS, NOT_PUBLISHED = "not ours", "not published"
# What words of a published flag mean among ours: a check of the field, and a kind of artefact.
_BLUR = ("out_of_focus", "blur")
_REASONS: dict[str, tuple[str | None, str]] = {
    "focus": _BLUR,
    "blur": _BLUR,
    "saturat": ("saturated", "saturation"),
    "empty": ("empty", "empty"),
    **{kind: (None, kind) for kind in ("debris", "noise", "autofluorescence", "dead")},
}
# What only one side has, by the column that counts it.
_SIDES = {"without_ours": "left_only", "without_published": "right_only"}
_MOST_VALUES = 2**24  # of the weights of resampled fields that are in memory at once
_SEED = 0
_EQUAL = 1e-9


@dataclass(frozen=True)
class Reason:
    """What of ours a published flag is compared with: checks of a field, kinds of artefact."""

    name: str
    checks: tuple[str, ...]
    kinds: tuple[str, ...]


def reason_of(words: str) -> Reason | None:
    """Return what of ours words such as `saturated or debris` mean, None if nothing."""
    found = [own for word, own in _REASONS.items() if word in words.lower()]
    checks = tuple(dict.fromkeys(check for check, _ in found if check))
    kinds = tuple(dict.fromkeys(kind for _, kind in found))
    return Reason(" or ".join(kinds), checks, kinds) if found else None


def joined_fields(
    published: pd.DataFrame, columns: Mapping[str, str], fields: pd.DataFrame, cells: pd.DataFrame
) -> pd.DataFrame:
    """Return a row per field that either side has: the published flags, ours, and our scores.

    `published` is that of `read_published`, `columns` maps its flags to words, `fields` and `cells`
    are our tables. Missing are flags of a side that does not have the field. Any published flag is
    true if one of them is, and missing if none is but one is missing. `artefact` is the most common
    one of the field's flagged cells, and each kind of artefact has a column with its share of the
    scored cells.
    """
    published = published.rename(columns={flag: _column(flag) for flag in columns})
    own = fields[[*FIELD, "bad", "reason", "flagged_share", "edge", "out_of_focus", "saturated"]]
    own = own.assign(empty=fields["empty"])
    flagged = cells[is_flagged(cells)]
    own = own.merge(most_common_artefact(flagged, FIELD), on=FIELD, how="left")
    counts = flagged.groupby([*FIELD, "artefact"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(ARTEFACTS), fill_value=0)
    counts = counts.reindex(pd.MultiIndex.from_frame(own[FIELD]), fill_value=0)
    scored = fields["scored"].where(fields["scored"] > 0)
    for kind in ARTEFACTS:
        own[_share(kind)] = counts[kind].to_numpy() / scored.to_numpy(float)
    joined = published.merge(own, on=FIELD, how="outer", indicator="sides", validate="one_to_one")
    boolean = ["bad", "out_of_focus", "saturated", "empty"]
    joined[boolean] = joined[boolean].astype("boolean")
    of_any = joined[list(map(_column, columns))]
    true, missing = of_any.fillna(False).any(axis=1), of_any.isna().any(axis=1)
    joined[_column(ANY)] = true.astype("boolean").mask(~true & missing)
    return joined.sort_values(FIELD, ignore_index=True)


def _column(flag: str) -> str:
    """Return the column of a published flag, which may be called as one of ours."""
    return f"published {flag}"


def _share(kind: str) -> str:
    """Return the column of the share of a field's cells that are flagged as a kind."""
    return f"share of {kind}"


def compare(joined: pd.DataFrame, columns: Mapping[str, str], replicates: int) -> pd.DataFrame:
    """Return the table `published_flags` of the schema: the agreement by unit and flag.

    `joined` is what `joined_fields` returns. Each published flag is compared with our flag for any
    reason and with ours for the reason that its words mean; any published flag with ours for any.
    Intervals are 95% intervals of so many bootstrap replicates, which resample wells.
    """
    rows = []
    for unit in UNITS:
        for flag, words in {**columns, ANY: ANY}.items():
            rows.append(_row(joined, unit, flag, words, None, replicates))
            reason = reason_of(words) if flag != ANY else None
            if reason:
                rows.append(_row(joined, unit, flag, words, reason, replicates))
    return pd.DataFrame(rows)


def field_table(joined: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return the table `published_fields` of the schema: a row per field, the differing ones first.

    Of these come first the fields that only ours flags, those with most flagged cells at the top.
    """
    told = [
        "; ".join(words for flag, words in columns.items() if row[_column(flag)] is True)
        for row in joined.astype(object).to_dict("records")
    ]
    published, bad = joined[_column(ANY)], joined[BAD]
    sides = joined["sides"].astype(str)
    difference = np.select(
        [
            sides == "left_only",
            sides == "right_only",
            (published & ~bad).fillna(False).to_numpy(bool),
            (bad & ~published).fillna(False).to_numpy(bool),
        ],
        [NOT_OURS, NOT_PUBLISHED, PUBLISHED_ONLY, OURS_ONLY],
        "",
    )
    table = joined[[*FIELD, "bad", "reason", "artefact", "flagged_share", "edge"]].assign(
        published=published, published_flags=told, difference=difference
    )
    order = {name: place for place, name in enumerate((OURS_ONLY, PUBLISHED_ONLY))}
    table["order"] = table["difference"].map(order).fillna(len(order))
    table = table.sort_values(
        ["order", "flagged_share", *FIELD], ascending=[True, False, True, True, True]
    )
    names = [*FIELD, "published", "published_flags", "bad", "reason", "artefact", "flagged_share"]
    return table[[*names, "edge", "difference"]].reset_index(drop=True)


def kappa(cells: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa of 2x2 tables, whose last axis is both, first, second, neither.

    nan where chance alone would agree on everything.
    Source: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    both, first, second, neither = np.moveaxis(np.asarray(cells, float), -1, 0)
    total = both + first + second + neither
    agreeing = _ratio(both + neither, total)
    by_chance = _ratio(
        (both + first) * (both + second) + (neither + first) * (neither + second), total**2
    )
    return _ratio(agreeing - by_chance, 1 - by_chance)


def _row(
    joined: pd.DataFrame, unit: str, flag: str, words: str, reason: Reason | None, replicates: int
) -> dict:
    """Return one row of the agreement: of one flag, with ours for any or for one reason."""
    here = joined["sides"] == "both"
    flags = joined[_column(flag)]
    rows = joined[here & flags.notna()]
    ours, score, score_name = _ours(rows, reason)
    own_fields = rows[FIELD].assign(flag=flags[rows.index].astype(bool), ours=ours, score=score)
    made = _units(own_fields, unit)
    target, own = made["flag"].to_numpy(bool), made["ours"].to_numpy(bool)
    group = made.groupby([PLATE, WELL]).ngroup().to_numpy()
    groups = int(group.max(initial=-1)) + 1
    # Both, published only, ours only, neither.
    by_group = np.zeros((groups, 4))
    np.add.at(by_group, (group, 3 - 2 * target - own), 1)
    both, published_only, ours_only, neither = total = by_group.sum(axis=0)
    known = made["score"].notna().to_numpy(bool)
    row = {
        "unit": unit,
        "flag": flag,
        "words": words,
        "ours": reason.name if reason else BAD,
        "score": score_name,
        "compared": len(made),
        "both": int(both),
        "published_only": int(published_only),
        "ours_only": int(ours_only),
        "neither": int(neither),
        "published_share": float(_ratio(both + published_only, total.sum())),
        "ours_share": float(_ratio(both + ours_only, total.sum())),
        "scored": int(known.sum()),
        "without_flag": int((here & flags.isna()).sum()),
    }
    for column, side in _SIDES.items():
        alone = joined.loc[joined["sides"] == side, UNITS[unit]]
        row[column] = _only_there(alone, joined.loc[here, UNITS[unit]])
    weights = _resampled(groups, replicates)
    for name, measure in _MEASURES.items():
        low, high = _interval(measure(weights @ by_group), groups)
        row |= {name: float(measure(total)), f"{name}_low": low, f"{name}_high": high}
    scores = made["score"].to_numpy(float)[known]
    value, drawn = _aucs(target[known], scores, group[known], weights)
    low, high = _interval(drawn, groups)
    return row | {"auc": value, "auc_low": low, "auc_high": high}


def _units(made: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return fields as they are, or their wells: flagged by the majority, with the mean score."""
    if unit == "field":
        return made
    wells = made.groupby(UNITS[unit], as_index=False)[["flag", "ours", "score"]].mean()
    wells[["flag", "ours"]] = wells[["flag", "ours"]] > MAJORITY
    return wells


def _only_there(alone: pd.DataFrame, both: pd.DataFrame) -> int:
    """Return how many places one side alone has, none of whose fields both have."""
    known = set(both.itertuples(index=False, name=None))
    return len(set(alone.itertuples(index=False, name=None)) - known)


def _ours(rows: pd.DataFrame, reason: Reason | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Return whether we flag each field, its score, and what the score is."""
    bad = rows["bad"].to_numpy(bool)
    if reason is None:
        return bad, rows["flagged_share"].to_numpy(float), "flagged_share"
    flagged = bad & rows["artefact"].isin(reason.kinds).to_numpy(bool)
    for check in reason.checks:
        flagged |= rows[check].to_numpy(bool)
    if reason.kinds == ("blur",):
        return flagged, rows["edge"].to_numpy(float), "edge"
    shares = rows[[_share(kind) for kind in reason.kinds]].sum(axis=1, min_count=1)
    return flagged, shares.to_numpy(float), f"share of cells: {reason.name}"


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(whole) > 0, part / whole, np.nan)


def _sensitivity(cells: np.ndarray) -> np.ndarray:
    return _ratio(cells[..., 0], cells[..., 0] + cells[..., 1])


def _precision(cells: np.ndarray) -> np.ndarray:
    return _ratio(cells[..., 0], cells[..., 0] + cells[..., 2])


_MEASURES = {"sensitivity": _sensitivity, "precision": _precision, "kappa": kappa}


def _resampled(groups: int, replicates: int) -> np.ndarray:
    """Return how often each well is drawn in each replicate, replicates x wells."""
    if not groups:
        return np.zeros((replicates, 0))
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(groups, np.full(groups, 1 / groups), replicates).astype(np.float32)


def _aucs(
    target: np.ndarray, scores: np.ndarray, group: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the area under the ROC curve of the scores, and its replicates; nan if undefined."""
    drawn = np.full(len(weights), np.nan)
    if target.all() or not target.any():
        return np.nan, drawn
    auc = METRICS["auc"]
    step = max(_MOST_VALUES // len(target), 1)
    for start in range(0, len(weights), step):
        some = np.ascontiguousarray(weights[start : start + step, group].T, float)
        drawn[start : start + step] = auc(Weighted(target.astype(int), scores, some))
    whole = auc(Weighted(target.astype(int), scores, np.ones((len(target), 1))))
    return float(whole[0]), drawn


def _interval(drawn: np.ndarray, groups: int) -> tuple[float, float]:
    """Return a 95% interval of the replicates in which a measure is defined.

    nan if all are equal: 3 of 3 fields do not show that it is 100%.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known) or np.ptp(known) < _EQUAL:
        return np.nan, np.nan
    low, high = interval(known, groups)
    return float(low), float(high)
