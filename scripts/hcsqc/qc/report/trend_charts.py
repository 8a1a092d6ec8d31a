"""The trend over the plates of a screen, as small charts of one measure each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hcsqc.qc.report.results import Results
from hcsqc.qc.report.words import counted, is_missing, number, percent
from hcsqc.qc.trend import GIVEN, IMAGES, SHARE, outside_text

# Of a chart, in its own units; the words around it take the rest.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 150, 60, 8, 10, 22
SPARE = 0.08  # of the axis, above and below all that is drawn
DATED = {
    GIVEN: "Dates are those of your table.",
    IMAGES: "Dates are when the images last changed on this disk; a copy counts as a change, so "
    "they need not be when the plates were imaged (screens.NAME.dates takes a table of dates).",
}


def trend_charts(results: Results, page_of: Callable[[str], str]) -> list[dict]:
    """Return a chart per measure for the page to draw, those with a plate outside first.

    A chart has title, unit, `points` in the order of plates, the polygons of `bands`, the ends of
    its axes and text. `page_of` gives the link of a plate.
    """
    found = [_chart(rows, page_of) for _, rows in results.trend.groupby("measure", sort=False)]
    found = [chart for chart in found if chart["points"]]
    return sorted(found, key=lambda chart: -chart["outside"])


def outside_rows(results: Results, page_of: Callable[[str], str]) -> list[dict]:
    """Return the plates that left a band, the newest first: plate, date, link and text."""
    rows = results.trend[results.trend["outside"].fillna("") != ""].fillna({"unit": ""})
    found = []
    for _, own in rows.groupby("order", sort=True):
        told = [f"{outside_text(row)}, {row['outside']}" for row in own.to_dict("records")]
        plate, date = str(own["Metadata_Plate"].iloc[0]), own["date"].iloc[0]
        found.append(
            {
                "plate": plate,
                "page": page_of(plate),
                "date": "" if is_missing(date) else date,
                "text": "; ".join(told),
            }
        )
    return found[::-1]


def dated_text(results: Results) -> str:
    """Return in words what orders the plates."""
    sources = results.trend["dated_by"].dropna().unique()
    told = [text for source, text in DATED.items() if source in sources]
    return " ".join(told) or "Plates are in the order of the config, because some have no date."


def _chart(rows: pd.DataFrame, page_of: Callable[[str], str]) -> dict:
    known = rows[np.isfinite(rows["value"].to_numpy(float))]
    text = percent if rows["unit"].iloc[0] == SHARE else number
    ends = known[["value", "low", "high"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    bottom, top = (ends.min(), ends.max()) if len(ends) else (0.0, 1.0)
    spare = SPARE * (top - bottom) or 0.1 * abs(top) or 1.0
    bottom, top = max(bottom - spare, 0.0), top + spare
    last = max(int(rows["order"].max()), 2)

    def x(order: float) -> float:
        return round(LEFT + (order - 1) / (last - 1) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (top - value) / (top - bottom) * (HEIGHT - TOP - BOTTOM), 1)

    points = [
        {
            "x": x(row["order"]),
            "y": y(row["value"]),
            "page": page_of(row["Metadata_Plate"]),
            "outside": not is_missing(row["outside"]) and row["outside"] != "",
            "name": _name(row, text),
        }
        for row in _records(known)
    ]
    dates = [rows["date"].iloc[place] for place in (0, -1)]
    names = [rows["Metadata_Plate"].iloc[place] for place in (0, -1)]
    outside = int((known["outside"].fillna("") != "").sum())
    judged = int(known["low"].notna().sum())
    return {
        "title": rows["measure"].iloc[0],
        "unit": "" if rows["unit"].iloc[0] == SHARE or is_missing(rows["unit"].iloc[0])
        else rows["unit"].iloc[0],
        "points": points,
        "bands": [_polygon(run, x, y) for run in _runs(known)],
        "centres": [
            " ".join(
                f"{x(order)},{y(centre)}"
                for order, centre in zip(run["order"], run["centre"], strict=True)
            )
            for run in _runs(known)
        ],
        "axis": [(y(value), text(value)) for value in (bottom + spare, top - spare)],
        "ends": [name if is_missing(date) else date
                 for name, date in zip(names, dates, strict=True)],
        "outside": outside,
        "text": f"{counted(outside, 'plate')} of {judged} outside the band."
        if judged else "There are too few earlier plates for a band.",
    }  # fmt: skip


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return rows.to_dict("records")  # type: ignore[return-value]


def _name(row: dict, text: Callable[[float], str]) -> str:
    date = "" if is_missing(row["date"]) else f", {row['date']}"
    band = ""
    if not is_missing(row["low"]):
        band = f"; band {text(row['low'])} to {text(row['high'])}"
        if not is_missing(row["outside"]) and row["outside"]:
            band += f", {row['outside']} it"
    return f"{row['Metadata_Plate']}{date}: {text(row['value'])}{band}"


def _runs(rows: pd.DataFrame) -> Sequence[pd.DataFrame]:
    """Return the rows with a band, in runs without a gap."""
    has = rows["low"].notna()
    number_of_run = (has != has.shift()).cumsum()
    return [run for _, run in rows[has].groupby(number_of_run[has])]


def _polygon(run: pd.DataFrame, x: Callable, y: Callable) -> str:
    upper = [(x(row.order), y(row.high)) for row in run.itertuples()]
    lower = [(x(row.order), y(row.low)) for row in run.itertuples()]
    if len(run) == 1:  # a band of one plate is as wide as a point
        upper = [(upper[0][0] + step, upper[0][1]) for step in (-3, 3)]
        lower = [(lower[0][0] + step, lower[0][1]) for step in (-3, 3)]
    return " ".join(f"{across},{down}" for across, down in [*upper, *lower[::-1]])
