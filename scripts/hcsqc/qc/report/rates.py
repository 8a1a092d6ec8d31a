"""Shares of flagged cells by plate, site and distance from the edge, with honest intervals."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest, t

from hcsqc.qc.prevalence import SHOWN
from hcsqc.qc.report.plate_maps import edge_distance
from hcsqc.qc.report.words import counted, is_missing, percent


def rates(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return by `by`: scored, flagged, clusters, share, low and high, of rows that are clusters.

    A row of `table` is a well or field with `scored` and `flagged` cells. Cells of one are alike,
    so the 95% interval is that of a ratio of cluster totals (Cochran 1977, 6.3) with Student's t,
    and never narrower than Wilson's for independent cells. One cluster has no interval: NaN.
    """
    rows = []
    for key, group in table[table["scored"] > 0].groupby(by):
        scored, flagged = group["scored"].to_numpy(float), group["flagged"].to_numpy(float)
        count, share = len(group), flagged.sum() / scored.sum()
        low = high = np.nan
        if count > 1:
            errors = ((flagged - share * scored) ** 2).sum() * count / (count - 1)
            reach = t.ppf((1 + SHOWN) / 2, count - 1) * np.sqrt(errors) / scored.sum()
            wilson = binomtest(int(flagged.sum()), int(scored.sum())).proportion_ci(SHOWN, "wilson")
            low = max(0.0, min(share - reach, wilson.low))
            high = min(1.0, max(share + reach, wilson.high))
        rows.append((key, int(scored.sum()), int(flagged.sum()), count, share, low, high))
    names = [by, "scored", "flagged", "clusters", "share", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def edge_and_inner(wells: pd.DataFrame, shape: tuple[int, int]) -> tuple[Mapping, Mapping] | None:
    """Return the rates of the wells at the plate's edge and of the others; None if one has none.

    `wells` have Metadata_Well, scored and flagged; `shape` is rows and columns of the plate.
    """
    distance = edge_distance(wells["Metadata_Well"], shape)
    placed = wells.assign(edge=distance == 0)[distance >= 0]
    table = rates(placed, "edge")
    if len(table) < 2:
        return None
    return tuple(table[table["edge"] == at].iloc[0].to_dict() for at in (True, False))  # type: ignore[return-value]


def differ(one: Mapping, other: Mapping) -> bool:
    """Return whether the intervals of two rates lie apart; an unknown one never does."""
    return bool(one["low"] > other["high"] or one["high"] < other["low"])


def charts(results, shape: tuple[int, int]) -> list[dict]:
    """Return the charts of the flag rate: title, text, `overall` and rows, for the page to draw.

    They are by plate, in order, where there are several; by site; and by distance from the edge.
    A row has name, share, low, high (None where not known), marked, and what it counts.
    """
    scored, flagged = (int(results.plates[name].sum()) for name in ("scored", "flagged"))
    if not scored:
        return []
    overall = flagged / scored
    found = []
    if len(results.plates) > 1:
        marked = results.plates["warning"].fillna("").ne("")
        by_plate = results.plates.assign(
            share=results.plates["flagged_share"], name=results.plates["Metadata_Plate"]
        ).assign(marked=marked)
        found.append(
            _chart(
                "Flag rate by plate",
                by_plate,
                overall,
                "Plates in their order. A trend, or a plate far from the dashed line, is a reason "
                "to look. Diamonds are plates with a warning.",
            )
        )
    sites = rates(results.fields, "Metadata_Site")
    names = "site " + sites["Metadata_Site"].astype(int).astype(str)
    found.append(
        _chart(
            "Flag rate by site",
            sites.assign(name=names, marked=False),
            overall,
            "A site is a field's position in its well.",
        )
    )
    distance = edge_distance(results.wells["Metadata_Well"], shape)
    by_distance = rates(results.wells.assign(distance=distance)[distance >= 0], "distance")
    if len(by_distance):
        names = by_distance["distance"].map(
            lambda apart: "at the edge" if apart == 0 else f"{counted(apart, 'well')} inside"
        )
        both = edge_and_inner(results.wells, shape)
        text = "All scored wells lie at the edge, or none does, so nothing is compared."
        if both:
            edge, inner = both
            text = (
                f"{percent(edge['share'])} of cells are flagged in wells at the edge, "
                f"{percent(inner['share'])} in the others: "
                + ("the two differ." if differ(edge, inner) else "no clear difference.")
            )
        found.append(
            _chart(
                "Flag rate by distance from the edge",
                by_distance.assign(name=names, marked=False),
                overall,
                text,
            )
        )
    return found


def _chart(title: str, table: pd.DataFrame, overall: float, text: str) -> dict:
    """Return a chart whose axis runs from 0 to `top`; places are percent of its width."""
    ends = [*table["share"], *table["high"], overall]
    top = min(1.0, 1.1 * max((end for end in ends if not is_missing(end)), default=0.0)) or 0.05
    rows = [
        {
            "name": str(name),
            "share": percent(share),
            "interval": ""
            if is_missing(low) or is_missing(high)
            else f"{percent(low)} to {percent(high)}",
            "scored": int(scored),
            "marked": bool(marked),
            "at": None if is_missing(share) else 100 * share / top,
            "from": None if is_missing(low) else 100 * low / top,
            "to": None if is_missing(high) else min(100.0, 100 * high / top),
        }
        for name, share, low, high, scored, marked in table[
            ["name", "share", "low", "high", "scored", "marked"]
        ].itertuples(index=False)
    ]
    return {
        "title": title,
        "text": text,
        "rows": rows,
        "overall": percent(overall),
        "overall_at": 100 * overall / top,
        "top": percent(top),
    }
