"""Features: the output of a frozen encoder for crops, or what is measured of them."""

from collections.abc import Sequence

import numpy as np
import torch

from hcsqc.encoders import Encoder, check_composite
from hcsqc.errors import InputError
from hcsqc.measures import measure
from hcsqc.progress import Progress
from hcsqc.shards import Shards
from hcsqc.standardised import StandardisedMeasures
from hcsqc.views import normalise


def extract_features(
    encoder: Encoder,
    shards: Shards,
    chosen: Sequence[str],
    rows: np.ndarray,
    batch_size: int,
    label: str,
) -> np.ndarray:
    """Return the n x width float32 features of the crops at `rows`; `chosen` is the composite.

    Raises InputError if the composite is not one for the encoder, or, naming a crop, if a feature
    is not a finite number.
    """
    check_composite(encoder, chosen, label)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(encoder.backbone, StandardisedMeasures):
        backbone = encoder.backbone.to(device, memory_format=torch.channels_last).eval()
    features = np.empty((len(rows), encoder.width), np.float32)
    progress = Progress(len(rows), "crops", label)
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            crops = shards.read_composite(batch, chosen)
            if isinstance(encoder.backbone, StandardisedMeasures):
                found = measure(encoder.backbone, crops, shards.index.iloc[batch])
            else:
                images = normalise(crops, encoder.input_spec)
                images = images.to(device, memory_format=torch.channels_last)
                found = backbone(images).float().cpu().numpy()
            features[start : start + len(batch)] = found
            progress.update(len(batch))
    progress.close()
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        crop = shards.index["crop_id"].iloc[rows[bad.argmax()]]
        raise InputError(f"{label}: the features of crop {crop} are not finite numbers")
    return features
