"""What each encoder finds of each artefact, as the cells of a heat map in a page."""

from collections.abc import Iterable
from itertools import product

import pandas as pd

from hcsqc.analyses.dose_response import ALL, AT_FALSE_ALARMS, is_missed
from hcsqc.figures.heat_colours import colours


def heat_maps(
    table: pd.DataFrame, probes: Iterable[str] = (), screens: Iterable[str] = ()
) -> list[dict]:
    """Return a heat map per probe and screen: artefacts, and rows of cells by encoder.

    `table` has the columns of `dose_response.detection`, encoder and probe; `probes` and `screens`
    are those that come first. A cell has percent (found at 5% false alarms, whole), low and high
    (its 95% interval, or None), crops, missed (whether less than half is found, by its interval),
    background and colour (of the text, as CSS); it is None where the encoder has no such crops.
    """
    rows = table[(table["threshold"] == AT_FALSE_ALARMS) & (table["strength"] == ALL)]
    rows = rows.assign(missed=is_missed(rows))
    orders = ((probes, "probe"), (screens, "screen"))
    order = [dict.fromkeys([*first, *rows[name].unique()]) for first, name in orders]
    maps = []
    for probe, screen in product(*order):
        own = rows[(rows["probe"] == probe) & (rows["screen"] == screen)]
        if len(own):
            artefacts = sorted(own["artefact"].unique())
            lines = {
                encoder: _cells(of_encoder, artefacts)
                for encoder, of_encoder in own.groupby("encoder", sort=False)
            }
            crops = own.groupby("artefact")["crops"].max()
            maps.append(
                {
                    "probe": probe,
                    "screen": screen,
                    "artefacts": {name: int(crops[name]) for name in artefacts},
                    "lines": lines,
                }
            )
    return maps


def _cells(rows: pd.DataFrame, artefacts: list[str]) -> list[dict | None]:
    by_artefact = {row["artefact"]: row for row in rows.to_dict("records")}
    return [_cell(by_artefact[name]) if name in by_artefact else None for name in artefacts]


def _cell(row: dict) -> dict | None:
    if pd.isna(row["detected"]):
        return None
    low, high = (None if pd.isna(row[side]) else round(100 * row[side]) for side in ("low", "high"))
    background, colour = colours(row["detected"])
    return {
        "percent": round(100 * row["detected"]),
        "low": low,
        "high": high,
        "crops": int(row["crops"]),
        "missed": bool(row["missed"]),
        "background": background,
        "colour": colour,
    }
