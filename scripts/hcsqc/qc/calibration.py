"""The threshold of a screen, from its own labels or, without any, from those of the detector."""

import math

import numpy as np
import pandas as pd

from hcsqc.errors import InputError
from hcsqc.probes.task import ABNORMAL
from hcsqc.qc.prevalence import Share, precision_at, prevalence, prevalence_of_flags
from hcsqc.qc.thresholds import Threshold, choose_threshold

RANDOM = "random"
UNPROVEN = "No promise: "


def held_out_of(
    screen: str,
    about: dict,
    held_out: pd.DataFrame,
    labels: pd.DataFrame | None,
    random: pd.DataFrame | None,
    scores: pd.DataFrame,
) -> tuple[pd.DataFrame, str]:
    """Return held-out labels to set a screen's threshold by, and why they promise nothing for it.

    The reason is empty where they do: labels of the screen itself, chosen at random. `about` is
    `detector.json` and `held_out` the labels that the detector was fitted to; `labels` and `random`
    are the screen's own, of which the latter were chosen whatever their class, and `scores` those
    of all of its crops. The result has label, plate, well, random and score.
    """
    own = about["screen"] == screen and labels is not None
    if about["trained_on"] != "labels":
        return _usable(held_out), (
            f"{UNPROVEN}the detector was trained on {about['trained_on']}, without any label of a "
            "person; its threshold is set on crops that nobody has looked at"
        )
    if own:
        return _usable(held_out), ""
    if labels is None:
        return _usable(held_out), (
            f"{UNPROVEN}the labels of {screen} set no threshold; it is that of "
            f"{about['screen']}, where it was set on labels"
        )
    both = pd.concat([labels, random], ignore_index=True).drop_duplicates("crop_id")
    both["random"] = both["crop_id"].isin(random["crop_id"])
    found = both.merge(scores[["crop_id", "score"]], on="crop_id", validate="one_to_one")
    return _usable(found), ""


def _usable(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the labels that may set a threshold: chosen at random, and with a score."""
    return labels[(labels["selection"] == RANDOM) & labels["score"].notna()]


def calibrate(
    labels: pd.DataFrame,
    scores: np.ndarray,
    training_share: float,
    good_cells_lost: float,
    confidence: float,
    unproven: str,
) -> dict:
    """Return what `threshold.json` says.

    `labels` are what `held_out_of` returns with `unproven`, `scores` those of all crops of the
    screen, `training_share` the share of abnormal among the labels that the detector was fitted to.
    Raises InputError if the labels do not support the promise.
    """
    targets = (labels["label"] == ABNORMAL).to_numpy(np.int64)
    wells = (labels["plate"] + "/" + labels["well"]).to_numpy()
    found = choose_threshold(
        labels["score"].to_numpy(), targets, wells, good_cells_lost, confidence
    )
    at_random = labels["random"].to_numpy(bool)
    common = None if unproven else prevalence(targets[at_random], wells[at_random])
    flagged = float((scores > found.threshold).mean()) if len(scores) else math.nan
    by_flags = math.nan
    if found.recall is not None:
        by_flags = prevalence_of_flags(flagged, found.recall.share, found.exceeding)
    assumed = common.share if common else by_flags
    return {
        "threshold": found.threshold,
        "promise": not unproven,
        "note": unproven,
        "promised": found.good_cells_lost,
        "confidence": found.confidence,
        "bound": found.bound,
        "exceeding": found.exceeding,
        "n_normal": found.n_normal,
        "n_abnormal": found.n_abnormal,
        "wells": found.wells,
        "effective_n": found.effective_n,
        "supported": found.supported,
        "more_for_stricter": {f"{share:g}": n for share, n in found.more_for_stricter.items()},
        "recall": _numbers(found.recall),
        "prevalence": _numbers(common),
        "prevalence_labels": int(at_random.sum()) if common else 0,
        "prevalence_by_flags": _known(by_flags),
        "flagged_share": _known(flagged),
        "precision": _precision(common, found),
        "training_share": training_share,
        "assumed_prevalence": _known(assumed),
    }


def _precision(common: Share | None, found: Threshold) -> list[float] | None:
    if common is None or found.recall is None:
        return None
    values = precision_at(common, found.recall, found.false_positives)
    return None if any(map(math.isnan, values)) else list(values)


def _numbers(share: Share | None) -> list[float] | None:
    return None if share is None else [share.share, share.low, share.high]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def check_labels(labels: pd.DataFrame, screen: str) -> None:
    """Raise InputError if no label of a screen was chosen at random."""
    if not (labels["selection"] == RANDOM).any():
        raise InputError(
            f"screen {screen}: none of its {len(labels)} labels was chosen at random, so no "
            "threshold can promise anything; label random crops (docs/labels.md)"
        )
