"""The table of cells: a row for every nucleus found, scored or with the reason why not."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.ids import split_field_id
from hcsqc.core.schema import TABLES
from hcsqc.qc.prevalence import at_prevalence

WHY_NOT = {
    "border": "its window crosses the field's border (crops.border: reflect scores such cells)",
    "outside": "it lies outside of the image",
}


def is_flagged(cells: pd.DataFrame) -> pd.Series:
    """Return for each row of `cells` whether it is flagged; what was not scored is not."""
    return cells["flagged"].astype("boolean").fillna(False).astype(bool)


def cells_of(nuclei: pd.DataFrame, scores: pd.DataFrame, threshold: Mapping) -> pd.DataFrame:
    """Return the `cells` table of all nuclei found.

    `nuclei` and `scores` are those tables (`crop_scores`) of the same plates, `threshold` is
    `threshold.json`; probability is null unless it also has what `prevalence.json` says.
    Raises InputError if a nucleus that was cropped has no score.
    """
    joined = nuclei.merge(scores, on="crop_id", how="left", validate="one_to_one")
    unscored = joined["kept"] & joined["score"].isna()
    if unscored.any() or len(scores) != joined["kept"].sum():
        raise InputError(
            f"{int(unscored.sum())} cropped nuclei have no score, and "
            f"{len(scores) - int((joined['kept'] & ~unscored).sum())} scores have no nucleus; "
            "score the plates again"
        )
    place = split_field_id(joined["field_id"])
    flagged = (joined["score"] > threshold["threshold"]).where(joined["kept"])
    table = pd.DataFrame(
        {
            "crop_id": joined["crop_id"],
            "Metadata_Plate": place["plate"],
            "Metadata_Well": place["well"],
            "Metadata_Site": place["site"].astype(np.int32),
            "Nuclei_Location_Center_X": joined["x_px"].astype(float),
            "Nuclei_Location_Center_Y": joined["y_px"].astype(float),
            "Nuclei_AreaShape_Area": joined["area_px"].astype(float),
            "score": joined["score"],
            "probability": probabilities(joined["score"].to_numpy(), threshold),
            "threshold": float(threshold["threshold"]),
            "flagged": flagged.astype("boolean"),
            "artefact": joined["artefact"].where(flagged == True, None),  # noqa: E712
            "focus": joined["focus"],
            "edge": joined["edge"],
            "saturated": joined["saturated"],
            "reason": joined["reason"].map(lambda why: WHY_NOT.get(why, why)),
        }
    )
    return table[TABLES["cells"].columns.names]


def probabilities(scores: np.ndarray, threshold: Mapping) -> np.ndarray:
    """Return the probability that cells are abnormal; nan where the prevalence is not known."""
    if threshold.get("assumed_prevalence") is None:
        return np.full(len(scores), np.nan)
    return at_prevalence(scores, threshold["training_share"], threshold["assumed_prevalence"])


def drift_warnings(plates: pd.DataFrame, features: float, scores: float, known: str) -> list[str]:
    """Return for each row of the `plates` table how far it is from what the detector knows.

    Beyond `features` or `scores` a sentence says so; else the text is empty. `known` names the
    screen of the detector.
    """
    return [_warning(row, features, scores, known) for row in plates.itertuples(index=False)]


def _warning(row, features: float, scores: float, known: str) -> str:
    told = []
    if row.feature_shift > features:
        told.append(
            f"its cells look different (features lie {row.feature_shift:.2f} standard deviations "
            f"from those of {known}, more than {features:g})"
        )
    if row.score_shift > scores:
        told.append(
            f"its scores are distributed differently (by {row.score_shift:.2f}, more than "
            f"{scores:g})"
        )
    if not told:
        return ""
    told_all = " and ".join(told)
    return f"{told_all}: the threshold may not hold here; look at its crops and label some"
