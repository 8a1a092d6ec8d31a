"""Encoders that measure instead of learn: controls and the classical baseline.

Measures differ in unit and range, and a nearest neighbour or a linear layer is blind to the small
ones beside the large. So each is standardised by its mean and standard deviation over unlabelled
crops of the pretraining plates; these two are all that such an encoder learns and stores.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from hcsqc.crops.training_crops import TrainingCrops
from hcsqc.encoders.image_quality import image_quality
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.standardised import StandardisedMeasures
from hcsqc.encoders.store import Encoder

BATCH = 256


def intensity_and_size(crops: np.ndarray, index: pd.DataFrame) -> np.ndarray:
    """Return the mean grey level of each channel (0 to 255) and the nucleus' area in pixels.

    `crops` is n x C x H x W, `index` their rows of the shard's index; the result is n x (C + 1).
    """
    area = index["nucleus_area_px"].to_numpy(np.float32)
    return np.column_stack([crops.mean(axis=(2, 3), dtype=np.float32), area])


MEASURES: dict[str, Callable[[np.ndarray, pd.DataFrame], np.ndarray]] = {
    "intensity_and_size": intensity_and_size,
    "image_quality": lambda crops, index: image_quality(crops),
}


def measure(fitted: StandardisedMeasures, crops: np.ndarray, index: pd.DataFrame) -> np.ndarray:
    """Return n x width float32; `crops` is uint8 n x C x H x W, `index` their rows."""
    return fitted.standardise(MEASURES[fitted.name](crops, index))


def fit_measures(name: str, crops: TrainingCrops) -> StandardisedMeasures:
    """Return measures standardised over `crops`; one that never varies is only centred."""
    values = np.concatenate(
        [
            MEASURES[name](crops.read(rows), crops.shards.index.iloc[crops.rows[rows]])
            for rows in np.split(np.arange(len(crops)), range(BATCH, len(crops), BATCH))
        ]
    ).astype(np.float64)
    fitted = StandardisedMeasures(name, values.shape[1])
    spread = values.std(axis=0)
    fitted.centre.copy_(torch.from_numpy(values.mean(axis=0)))
    fitted.scale.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))
    return fitted


def measured_encoder(name: str, kind: str, crops: TrainingCrops) -> Encoder:
    """Return an encoder that measures, standardised over `crops`: see the module.

    Nothing of it can be trained.
    """
    fitted = fit_measures(name, crops)
    spec = InputSpec(crops.shards.format.size_px, (0.0,) * crops.channels, (1.0,) * crops.channels)
    provenance = {"weights": "measures", "crops": len(crops)}
    return Encoder(fitted.eval(), kind, name, spec, len(fitted.centre), False, provenance)
