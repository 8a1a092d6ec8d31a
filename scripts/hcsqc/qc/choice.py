"""Which encoder a study's detector stands on, by what a detector is for.

That is recall at the promised share of good cells, on labels that trained nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.errors import InputError

# Metrics of the ranking, by the share of the normal crops that they may flag.
RECALLS = {0.01: "recall_at_1_percent", 0.05: "recall_at_5_percent"}
# Recalls so close are alike to a screener, and are within what another processor's rounding moves.
CLOSE = 0.02


@dataclass(frozen=True)
class Choice:
    """An encoder, why it is that one, and what each candidate found.

    `candidates` have encoder, recall on the training screen with its interval low to high,
    elsewhere (the mean recall on the other screens; None without any) and megabytes; best first.
    """

    encoder: str
    why: str
    candidates: list[dict]


def choose_encoder(
    ranking: Path, probe: str, screen: str, sizes: Mapping[str, int], good_cells_lost: float
) -> Choice:
    """Return the best of the encoders in `sizes`, which maps names to bytes of weights.

    By mean recall under `probe` at its largest label budget, at the metric nearest to
    `good_cells_lost`. Of encoders that are within two points of the highest, and that the labels
    do not tell from it, the one with the highest recall on the other screens is taken; of those
    within two points there, the smallest. Raises InputError if the ranking has none of them, or no
    score of any.
    """
    allowed = min(RECALLS, key=lambda share: abs(share - good_cells_lost))
    ranked = pd.read_csv(ranking)
    asked = (ranked["probe"] == probe) & (ranked["metric"] == RECALLS[allowed])
    rows = ranked[asked & ranked["encoder"].isin(list(sizes))]
    own = rows[(rows["screen"] == screen) & rows["mean"].notna()]
    own = own[own["budget"] == own["budget"].max()].set_index("encoder")
    if own.empty:
        raise InputError(
            f"{ranking} ranks no encoder that can score crops under probe {probe}; name one in "
            "qc.encoder, which needs no ranking, or label more crops in more wells"
        )
    budget = own["budget"].iloc[0]
    others = rows[(rows["screen"] != screen) & (rows["budget"] == budget)]
    table = pd.DataFrame(
        {
            "recall": own["mean"],
            "low": own["low"],
            "high": own["high"],
            "worse": own["verdict"] == "worse",
            "elsewhere": others.groupby("encoder")["mean"].mean(),
            "megabytes": pd.Series(sizes) / 1e6,
        }
    ).loc[own.index]
    table = table.sort_values(["recall", "megabytes"], ascending=[False, True], kind="stable")
    highest = table["recall"].iloc[0]
    told_apart = table["worse"].astype(bool)
    tied = table[(table["recall"] >= highest - CLOSE) & ~told_apart]
    tied = tied if len(tied) else table[:1]
    if tied["elsewhere"].notna().any():
        tied = tied[tied["elsewhere"] >= tied["elsewhere"].max() - CLOSE]
    encoder = tied["megabytes"].idxmin()
    best = table.loc[encoder]
    why = (
        f"finds {100 * best['recall']:.1f}% of the aberrant crops where {100 * allowed:g}% of the "
        f"normal ones are lost, under {probe} with {budget} labels"
    )
    if pd.notna(best["elsewhere"]):
        why += f", and {100 * best['elsewhere']:.1f}% on the other screens"
    alike = int((table["recall"] >= highest - CLOSE).sum()) - 1
    if alike:
        why += f"; {alike} other{'s are' if alike > 1 else ' is'} within two points"
    shown = table.drop(columns="worse").reset_index().rename(columns={"index": "encoder"})
    return Choice(str(encoder), why, _plain(shown))


def _plain(table: pd.DataFrame) -> list[dict]:
    """Return rows as JSON values, rounded to what their noise leaves of them."""
    return [
        {
            key: None if pd.isna(value) else round(value, 4) if isinstance(value, float) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]
