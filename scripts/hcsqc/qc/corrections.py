"""How far a plate's light was corrected: its grey levels beside those a detector was trained on.

Each plate is scaled to its own background and typical nucleus (`hcsqc.screens.scale`), so that
crops of another lamp or exposure look like those that the detector knows. It keeps the levels of
its own plates, and what a new plate needed follows from both. Noise and saturation are not
corrected.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hcsqc.screens.scale import BY_CELLS

PLATE = "Metadata_Plate"
COLUMNS = [PLATE, "channel", "background", "cell", "gain", "offset", "found"]


def levels_of(scales: Sequence[pd.DataFrame], composite: Sequence[str]) -> list[dict]:
    """Return what a detector keeps of its plates: background and typical nucleus by channel.

    `scales` are their tables of that name. The levels are medians over the plates, in the order of
    the composite; cell is None where no plate's is known.
    """
    by_channel = pd.concat(scales).groupby("channel")
    low, cell = (by_channel[name].median().to_dict() for name in ("low", "cell"))
    return [
        {
            "channel": name,
            "background": low[name],
            "cell": None if np.isnan(cell[name]) else cell[name],
        }
        for name in composite
    ]


def corrections(
    scales: Mapping[str, pd.DataFrame], composite: Sequence[str], levels: Sequence[Mapping]
) -> pd.DataFrame:
    """Return a row per plate and channel of the composite with `COLUMNS`.

    `scales` are tables of that name by plate, `levels` the detector's, channel by channel. To look
    like the detector's plates, grey levels had `offset` taken off and were then multiplied, above
    the background, by `gain`; it is nan where either's typical nucleus is not known.
    """
    tables = []
    for plate, scale in scales.items():
        own = scale.set_index("channel").loc[list(composite)].reset_index()
        background = np.array([level["background"] for level in levels])
        cell = np.array([level["cell"] for level in levels], float)
        tables.append(
            pd.DataFrame(
                {
                    PLATE: plate,
                    "channel": own["channel"],
                    "background": own["low"],
                    "cell": own["cell"],
                    "gain": (cell - background) / (own["cell"] - own["low"]),
                    "offset": own["low"] - background,
                    "found": own["found"],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def correction_warnings(
    corrected: pd.DataFrame, plates: pd.Series, most: float, known: str
) -> list[str]:
    """Return for each plate in what channels it was corrected by more than `most`, either way.

    Or where it could not be told. Else the text is empty; `known` names the detector's screen.
    """
    return [_warning(corrected[corrected[PLATE] == plate], most, known) for plate in plates]


def _warning(rows: pd.DataFrame, most: float, known: str) -> str:
    told = []
    far = rows[np.abs(np.log(rows["gain"])) > np.log(most)]
    if len(far):
        gains = ", ".join(f"{row.channel} x{row.gain:.2f}" for row in far.itertuples())
        told.append(
            f"its light was corrected by more than x{most:g} to look like {known} ({gains}), "
            "which cannot correct noise and saturation"
        )
    without = rows[rows["found"] != BY_CELLS]
    unknown = rows[rows["gain"].isna() & (rows["found"] == BY_CELLS)]
    if len(without):
        told.append(
            f"there are too few nuclei to measure the light of {', '.join(without['channel'])}, so "
            "artefacts may shift its grey levels"
        )
    elif len(unknown):
        told.append(
            f"the light of {known} is not known in {', '.join(unknown['channel'])}: it had too "
            "few nuclei"
        )
    return f"{'; '.join(told)}: the threshold may not hold here" if told else ""
