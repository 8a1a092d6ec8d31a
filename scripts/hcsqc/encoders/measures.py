"""Encoders that measure instead of learn: controls and the classical baseline.

Measures differ in unit and range, and a nearest neighbour or a linear layer is blind to the small
ones beside the large. So each is standardised by its mean and standard deviation over unlabelled
crops of the pretraining plates; these two are all that such an encoder learns and stores.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch

from hcsqc.crops.training_crops import TrainingCrops
from hcsqc.encoders.image_quality import MIN_SIDE_PX, image_quality
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.pooling import Pooling, nucleus_diameters
from hcsqc.encoders.standardised import StandardisedMeasures
from hcsqc.encoders.store import Encoder

BATCH = 256
# Side of the square about the cell for image_quality, in diameters of its nucleus, and its step.
SQUARE, STEP_PX = 1.5, 8
# Of the nucleus and of a ring about it as wide as its radius: percentiles beside mean, deviation
# and maximum.
PERCENTILES = (10, 90)

Region = Literal["window", "cell"]


def intensity_and_size(crops: np.ndarray, area_px: np.ndarray, region: Region) -> np.ndarray:
    """Return the mean grey level of each channel (0 to 255) and the nucleus' area in pixels.

    `crops` is n x C x H x W, `area_px` those of their nuclei; the result is n x (C + 1) float32.
    Over the `cell`, the mean is of the nucleus, a circle of its area.
    """
    means = np.empty(crops.shape[:2], np.float32)
    if region == "window":
        means[:] = crops.mean(axis=(2, 3), dtype=np.float32)
    else:
        for rows, radius in _radii(area_px, crops.shape[3]):
            inside = _distances(crops.shape[3]) < radius
            means[rows] = crops[rows][:, :, inside].mean(axis=2, dtype=np.float32)
    return np.column_stack([means, area_px.astype(np.float32)])


def quality(crops: np.ndarray, area_px: np.ndarray, region: Region) -> np.ndarray:
    """Return CellProfiler's measures of image quality: see `image_quality`.

    Over the `cell`, they are of the square about it that is one and a half nuclei wide.
    """
    if region == "window" or not len(crops):
        return image_quality(crops)
    side = crops.shape[3]
    wanted = SQUARE * nucleus_diameters(area_px, side) * side
    sides = np.clip(STEP_PX * np.round(wanted / STEP_PX), MIN_SIDE_PX, side).astype(int)
    found: dict[int, np.ndarray] = {}
    for one in np.unique(sides):
        first = (side - one) // 2
        middle = crops[sides == one, :, first : first + one, first : first + one]
        found[one] = image_quality(np.ascontiguousarray(middle))
    values = np.empty((len(crops), next(iter(found.values())).shape[1]), np.float32)
    for one, measured in found.items():
        values[sides == one] = measured
    return values


def nucleus_and_ring(crops: np.ndarray, area_px: np.ndarray, region: Region) -> np.ndarray:
    """Return grey levels of each channel in the nucleus and in a ring about it, and its area.

    Mean, standard deviation, maximum and percentiles (10th, 90th) of each: n x (10 C + 1) float32.
    The nucleus is a circle of its area; the ring reaches to twice its radius. What a screener sees
    of a bright aberration: dead cells, debris, glow, saturation.
    """
    n, channels, _, side = crops.shape
    values = np.empty((n, 2, 3 + len(PERCENTILES), channels), np.float32)
    away = _distances(side)
    for rows, radius in _radii(area_px, side):
        for place, (inner, outer) in enumerate(((0, radius), (radius, 2 * radius))):
            pixels = crops[rows][:, :, (away >= inner) & (away < outer)]
            measured = [
                pixels.mean(axis=2, dtype=np.float32),
                pixels.std(axis=2, dtype=np.float32),
                pixels.max(axis=2),
                *np.percentile(pixels, PERCENTILES, axis=2),
            ]
            values[rows, place] = np.stack(measured, axis=1)
    flat = values.reshape(n, 2 * (3 + len(PERCENTILES)) * channels)
    return np.column_stack([flat, area_px.astype(np.float32)])


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, Region], np.ndarray]] = {
    "intensity_and_size": intensity_and_size,
    "image_quality": quality,
    "nucleus_and_ring": nucleus_and_ring,
}


def measure(
    fitted: StandardisedMeasures, crops: np.ndarray, area_px: np.ndarray, region: Region
) -> np.ndarray:
    """Return n x width float32; `crops` is uint8 n x C x H x W, `area_px` their nuclei's areas."""
    return fitted.standardise(MEASURES[fitted.name](crops, area_px, region))


def fit_measures(name: str, crops: TrainingCrops, region: Region) -> StandardisedMeasures:
    """Return measures standardised over `crops`; one that never varies is only centred."""
    area_px = crops.shards.index["nucleus_area_px"].to_numpy()
    values = np.concatenate(
        [
            MEASURES[name](crops.read(rows), area_px[crops.rows[rows]], region)
            for rows in np.split(np.arange(len(crops)), range(BATCH, len(crops), BATCH))
        ]
    ).astype(np.float64)
    fitted = StandardisedMeasures(name, values.shape[1])
    spread = values.std(axis=0)
    fitted.centre.copy_(torch.from_numpy(values.mean(axis=0)))
    fitted.scale.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))
    return fitted


def measured_encoder(name: str, kind: str, crops: TrainingCrops, region: Region) -> Encoder:
    """Return an encoder that measures, standardised over `crops`: see the module.

    Nothing of it can be trained.
    """
    fitted = fit_measures(name, crops, region)
    spec = InputSpec(crops.shards.format.size_px, (0.0,) * crops.channels, (1.0,) * crops.channels)
    provenance = {"weights": "measures", "crops": len(crops)}
    width, pooling = len(fitted.centre), Pooling(region=region)
    return Encoder(fitted.eval(), kind, name, spec, width, False, provenance, pooling)


def _radii(area_px: np.ndarray, side: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the rows of crops whose nuclei have one radius, in whole pixels, and that radius."""
    radii = np.maximum(np.round(nucleus_diameters(area_px, side) * side / 2), 1).astype(int)
    for radius in np.unique(radii):
        yield np.flatnonzero(radii == radius), int(radius)


def _distances(side: int) -> np.ndarray:
    """Return the distance in pixels of each pixel of a window from that of its nucleus' centre."""
    rows, columns = np.ogrid[:side, :side]
    return np.hypot(rows - side // 2, columns - side // 2)
