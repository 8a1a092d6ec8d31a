"""Crops to look at: which ones, and as PNG."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.schema import ARTEFACTS
from hcsqc.crops.shards import Shards

LARGEST_SIDE_PX = 96
PER_WELL = 2  # crops of one well that are shown before those of others
UNKNOWN = "of no known kind"


def worst_of_each_artefact(cells: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return artefact -> its `count` flagged cells with the highest scores, highest first.

    The artefacts come in the order of `schema.ARTEFACTS`, then others by name; cells flagged
    without one are UNKNOWN. One bad well does not fill a row: see PER_WELL.
    """
    flagged = cells[_flagged(cells)]
    kinds = flagged["artefact"].fillna(UNKNOWN).astype(str)
    others = sorted(set(kinds) - set(ARTEFACTS) - {UNKNOWN})
    order = [kind for kind in (*ARTEFACTS, *others, UNKNOWN) if (kinds == kind).any()]
    return {kind: _first(flagged[kinds == kind], count, highest=True) for kind in order}


def borderline(cells: pd.DataFrame, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the `count` flagged and the `count` passed cells whose scores lie nearest each other.

    Both begin at the threshold.
    """
    flagged = _flagged(cells)
    passed = cells["score"].notna() & ~flagged
    return (
        _first(cells[flagged], count, highest=False),
        _first(cells[passed], count, highest=True),
    )


def worst_of_treatment(
    cells: pd.DataFrame, fields: pd.DataFrame, treatment: pd.Series, count: int
) -> pd.DataFrame:
    """Return the `count` flagged cells with the highest scores in the wells of a treatment.

    `treatment` has compound and concentration_um, NaN where it is not known; `fields` says in
    which wells they are.
    """
    own = fields[fields["compound"] == treatment["compound"]]
    concentration = own["concentration_um"].astype(float)
    if pd.isna(treatment["concentration_um"]):
        own = own[concentration.isna()]
    else:
        own = own[np.isclose(concentration, float(treatment["concentration_um"]))]
    wells = pd.MultiIndex.from_frame(own[["Metadata_Plate", "Metadata_Well"]].drop_duplicates())
    inside = pd.MultiIndex.from_frame(cells[["Metadata_Plate", "Metadata_Well"]]).isin(wells)
    return _first(cells[_flagged(cells) & inside], count, highest=True)


def _flagged(cells: pd.DataFrame) -> pd.Series:
    return cells["flagged"].astype("boolean").fillna(False).astype(bool) & cells["score"].notna()


def _first(rows: pd.DataFrame, count: int, highest: bool) -> pd.DataFrame:
    """Return `count` rows by score; of each well a few before more of it."""
    rows = rows.sort_values(["score", "crop_id"], ascending=[not highest, True])
    turn = rows.groupby(["Metadata_Plate", "Metadata_Well"]).cumcount() // PER_WELL
    chosen = rows.assign(turn=turn).sort_values("turn", kind="stable").head(count)
    return chosen.drop(columns="turn").sort_values(
        ["score", "crop_id"], ascending=[not highest, True]
    )


def crop_pictures(
    shards: Shards, crop_ids: Sequence[str], composite: Sequence[str]
) -> dict[str, bytes]:
    """Return crop_id -> PNG of the crop: see `picture`.

    Raises InputError for a crop that is not in the shards, or an unknown channel.
    """
    names = list(dict.fromkeys(crop_ids))
    if not names:
        return {}
    crops = shards.read_composite(shards.rows_of(names), composite)
    pictures = {}
    for name, crop in zip(names, crops, strict=True):
        done, encoded = cv2.imencode(
            ".png", picture(crop)[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]
        )
        if not done:
            raise RuntimeError(f"{name}: cannot be encoded as PNG")
        pictures[name] = encoded.tobytes()
    return pictures


def picture(crop: np.ndarray) -> np.ndarray:
    """Return a C x H x W uint8 crop as height x width x 3: red, green and blue.

    The first three channels are red, green and blue, two are red and green, a single one is grey.
    Where there are several, each stands below in grey, so that nothing hangs on colour vision.
    """
    channels, height, width = crop.shape
    shrink = min(1.0, LARGEST_SIDE_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    large = [cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in crop]
    if channels == 1:
        return np.repeat(large[0][:, :, None], 3, axis=2)
    colours = [*large[:3], np.zeros_like(large[0])][:3]
    small = max(1, size[0] // channels), max(1, size[1] // channels)
    strip = np.full((small[1] + 1, size[0]), 255, np.uint8)
    for place, channel in enumerate(crop):
        left = place * small[0]
        strip[1:, left : left + small[0]] = cv2.resize(channel, small, interpolation=cv2.INTER_AREA)
    return np.concatenate([np.stack(colours, axis=2), np.repeat(strip[:, :, None], 3, 2)])
