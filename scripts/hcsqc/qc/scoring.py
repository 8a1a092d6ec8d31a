"""Scores of every crop of a plate, and how far the plate is from what a detector knows."""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from hcsqc.crops.focus import SMOOTHING_PX, edge_widths
from hcsqc.crops.shards import Shards
from hcsqc.features.extract import FeatureBatches
from hcsqc.qc.detector import Detector

WHITE = 255  # what the camera's saturation became (hcsqc.screens.scale)
EVEN = 0.5  # score of a crop that is as likely normal as not
BLANK = 1e-4  # relative variance of the Laplacian that stands for no contrast at all


@dataclass(frozen=True)
class Drift:
    """How far a plate's crops are from the detector's reference.

    `features` is the root mean square, over features, of the difference of means in standard
    deviations of the reference. `scores` is the largest difference of the two distributions of
    scores (Kolmogorov and Smirnov's) among crops that are more likely normal than not: a plate with
    fewer aberrant cells than the reference has not drifted. 0 is none.
    """

    features: float
    scores: float


def score_crops(
    detector: Detector,
    shards: Shards,
    composite: list[str],
    nucleus_channel: str,
    batch_size: int,
    precision: str,
    label: str,
    sample: np.ndarray,
    nucleus_diameter_px: float,
) -> tuple[pd.DataFrame, np.ndarray, Drift]:
    """Return a row per crop, the features of those at the rows `sample`, and the drift of all.

    `composite` are the channels that the encoder is shown: see `channels_for`.
    Columns: crop_id, score (0 to 1), artefact (the most likely if it is abnormal), focus, edge and
    saturated, see `focus_of`, `edge_widths` and `saturated_share`. Focus and edge are those of the
    nucleus channel, or of the composite's first where that is not part of it; edge is a share of
    the typical nucleus diameter, `nucleus_diameter_px` pixels of the crops.
    """
    count, width = len(shards), detector.encoder.width
    scores, focus, edge, saturated = (np.empty(count) for _ in range(4))
    artefacts = np.empty(count, object)
    total = np.zeros(width)
    rows, features_kept = np.arange(count), []
    in_sample = np.isin(rows, sample)
    nucleus = composite.index(nucleus_channel) if nucleus_channel in composite else 0

    def measured(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shown = crops[:, nucleus]
        return focus_of(shown), edge_widths(shown) / nucleus_diameter_px, saturated_share(crops)

    batches = FeatureBatches(
        detector.encoder, shards, composite, rows, batch_size, precision, label, measured
    )
    for place, features, of_pixels in batches:
        scores[place] = detector.scores(features)
        artefacts[place] = detector.artefacts_of(features)
        focus[place], edge[place], saturated[place] = of_pixels
        total += features.sum(axis=0, dtype=np.float64)
        features_kept.append(features[in_sample[place]])
    table = pd.DataFrame(
        {
            "crop_id": shards.index["crop_id"],
            "score": scores,
            "artefact": artefacts,
            "focus": focus,
            "edge": edge,
            "saturated": saturated,
        }
    )
    kept = np.concatenate(features_kept) if features_kept else np.empty((0, width), np.float32)
    return table, kept, drift(detector, total / max(count, 1), scores)


def call_wide_edges_blurred(table: pd.DataFrame, focus_edge: float) -> pd.DataFrame:
    """Return the table of `score_crops` with score 1 and blur where edges are too wide.

    That is, wider than `focus_edge`, in typical nucleus diameters. For detectors of simulated
    artefacts: crops out of focus are none of their normal examples, and whether they find every one
    would hang on which other examples they were given. An edge of nan changes nothing.
    """
    wide = table["edge"] > focus_edge
    return table.assign(
        score=table["score"].mask(wide, 1.0), artefact=table["artefact"].mask(wide, "blur")
    )


def drift(detector: Detector, feature_mean: np.ndarray, scores: np.ndarray) -> Drift:
    """Return how far mean features (width) and n scores are from the detector's reference."""
    if not len(scores):
        return Drift(0.0, 0.0)
    spread = detector.reference["feature_sd"]
    varies = spread > 0
    moved = (feature_mean - detector.reference["feature_mean"])[varies] / spread[varies]
    return Drift(
        float(np.sqrt((moved**2).mean())) if varies.any() else 0.0,
        _difference(detector.reference["score_quantiles"], scores),
    )


def _difference(reference: np.ndarray, scores: np.ndarray) -> float:
    """Return the largest difference of two distributions below even odds; 1 if one has none."""
    usual, found = reference[reference < EVEN], scores[scores < EVEN]
    return float(ks_2samp(usual, found).statistic) if len(usual) and len(found) else 1.0


def focus_of(planes: np.ndarray) -> np.ndarray:
    """Return the sharpness of planes (n x H x W): log10 of the Laplacian's variance over the mean.

    Relative to the squared mean intensity, so that dim planes are no less sharp than bright ones.
    Planes are smoothed first: else it is the camera's noise that is measured.
    """
    found = np.empty(len(planes))
    for number, plane in enumerate(planes):
        smooth = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), SMOOTHING_PX)
        deviation = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))[1][0, 0]
        mean = cv2.sumElems(plane)[0] / plane.size  # nine times as fast as plane.mean()
        found[number] = (deviation / max(mean, 1)) ** 2
    return np.log10(np.maximum(found, BLANK))


def saturated_share(crops: np.ndarray) -> np.ndarray:
    """Return of uint8 crops (n x C x H x W) the share of white pixels in the channel with most."""
    n, channels, height, width = crops.shape
    # Plane by plane is three times as fast as the mean over axes.
    white = [np.count_nonzero(plane == WHITE) for plane in crops.reshape(-1, height, width)]
    return np.reshape(white, (n, channels)).max(axis=1) / (height * width)
