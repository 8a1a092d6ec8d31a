"""The detector of a study made of its labels: on which encoder, on which crops, and what is told.

`qc.detector` fits numbers to numbers; here these are a study's crops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.ids import is_copy
from hcsqc.core.schema import write_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.store import Encoder
from hcsqc.features.extract import extract_features
from hcsqc.labels.groups import read_labels
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import (
    QUANTILES,
    Detector,
    fit_detector,
    reference_of,
    save_detector,
    standardised,
)
from hcsqc.qc.detector_files import HELD_OUT


@dataclass(frozen=True)
class Embedding:
    """How a detector sees crops, and how many random ones are its reference."""

    composite: tuple[str, ...]  # channels, in order
    batch_size: int
    precision: str  # float32, bfloat16 or auto
    standardised: int  # crops of the reference


@dataclass(frozen=True)
class Fitted:
    """A detector and the table `held_out`, which is kept beside it."""

    detector: Detector
    held_out: pd.DataFrame


def study_labels(labels: Path, random_labels: Path, group_by: str) -> pd.DataFrame:
    """Return the rows of two `labels` tables, one per crop, and whether it was chosen at random.

    The column is `random`, true of all crops of `random_labels`. Another is `group`: see
    `read_labels`.
    """
    random = read_labels(random_labels, group_by)
    # The random ones first: a crop chosen in both ways was chosen at random.
    both = pd.concat([random, read_labels(labels, group_by)], ignore_index=True)
    both = both.drop_duplicates("crop_id", ignore_index=True)
    return both.assign(random=both["crop_id"].isin(random["crop_id"]))


def reference_rows(shards: Shards, count: int) -> np.ndarray:
    """Return the row numbers of `count` random crops, or of all, always the same ones.

    Degraded copies of a derived screen are none of them: the screen that the detector will be used
    on has no such crops.
    """
    real = np.flatnonzero([not is_copy(crop) for crop in shards.index["crop_id"]])
    return np.random.default_rng(0).permutation(real)[:count]


def fit_to_crops(
    encoder: Encoder,
    shards: Shards,
    labels: pd.DataFrame,
    embedding: Embedding,
    settings: LogisticSettings,
    good_cells_lost: float,
    about: Mapping[str, object],
) -> Fitted:
    """Fit a detector to the crops of `labels`, which `study_labels` returns.

    `about` is what `detector.json` says of its origin; `encoder` and `encoder_chosen` are the
    encoder's name and why it is that one. What comes of fitting is added; `good_cells_lost` is the
    share that `fit_detector` compares classifiers at. Raises InputError if a
    label's crop is not in `shards`, the composite is not one for the encoder, or all labels are of
    one class.
    """
    reference = reference_rows(shards, embedding.standardised)
    rows = np.concatenate([shards.rows_of(labels["crop_id"]), reference])
    features, precision = _features(encoder, shards, rows, embedding, about["encoder"])
    known = reference_of(features[len(labels) :])
    features = standardised(features, known)
    of_labels, of_reference = features[: len(labels)], features[len(labels) :]
    fit = fit_detector(labels, of_labels, settings, good_cells_lost)
    counts = labels["label"].value_counts()
    found = {
        "classifier": fit.kind,
        "held_out_recall": fit.recalls,
        "penalty": fit.penalty,
        "labels_normal": int(counts["normal"]),
        "labels_abnormal": int(counts["abnormal"]),
        "window_px": shards.format.size_px,
        "precision": precision,
    }
    known["score_quantiles"] = np.quantile(fit.classifier.scores(of_reference), QUANTILES)
    detector = Detector(encoder, fit.classifier, fit.artefacts, known, {**about, **found})
    columns = ["crop_id", "plate", "well", "group", "label", "selection", "random"]
    held_out = labels[columns].assign(score=fit.held_out)
    return Fitted(detector, held_out)


def _features(
    encoder: Encoder, shards: Shards, rows: np.ndarray, embedding: Embedding, name: object
) -> tuple[np.ndarray, str]:
    return extract_features(
        encoder,
        shards,
        embedding.composite,
        rows,
        embedding.batch_size,
        embedding.precision,
        f"detector {name}",
    )


def save_fitted(fitted: Fitted, folder: Path) -> None:
    """Write a detector and its table `held_out` into a folder."""
    save_detector(fitted.detector, folder)
    write_table(fitted.held_out, folder / HELD_OUT, "held_out")


def fitted_text(fitted: Fitted, folder: Path) -> str:
    """Return in a line what the detector in `folder` was made of, and which labels it held out."""
    about = fitted.detector.about
    return (
        f"detector: {about['encoder']} ({about['encoder_chosen']}), "
        f"{about['labels_normal']} normal and {about['labels_abnormal']} abnormal labels, "
        f"saved in {folder}"
        f"{_not_held_out_text(fitted.held_out['score'])}"
    )


def _not_held_out_text(scores: pd.Series) -> str:
    missed = int(scores.isna().sum())
    if missed == len(scores):
        return "; too few wells are labelled to hold any out"
    return f"; {missed} labels were not held out, the others are of one class" if missed else ""
