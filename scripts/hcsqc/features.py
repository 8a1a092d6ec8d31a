"""Features: the output of a frozen encoder for crops, or what is measured of them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from hcsqc.devices import choose_device, precision_on
from hcsqc.encoders import Encoder, check_composite
from hcsqc.errors import InputError
from hcsqc.measures import measure
from hcsqc.progress import Progress
from hcsqc.shards import Shards
from hcsqc.standardised import StandardisedMeasures
from hcsqc.views import normalise

# What a network makes of more images no longer fits a processor's caches (docs/performance.md).
CPU_IMAGES = 16
LEAST_COSINE = 0.999  # of features in bfloat16 and in float32, for `auto` to choose bfloat16


def extract_features(
    encoder: Encoder,
    shards: Shards,
    chosen: Sequence[str],
    rows: np.ndarray,
    batch_size: int,
    precision: str,
    label: str,
) -> tuple[np.ndarray, str]:
    """Return the n x width float32 features of the crops at `rows`, and what computed them.

    `chosen` is the composite, and `batch_size` crops are read at once. Networks compute in
    `precision`, float32 or bfloat16; `auto` is bfloat16 where the hardware computes in it and the
    features of the first crops are nearly the same.
    Raises InputError if the composite is not one for the encoder, or, naming a crop, if a feature
    is not a finite number.
    """
    features = np.empty((len(rows), encoder.width), np.float32)
    batches = FeatureBatches(encoder, shards, chosen, rows, batch_size, precision, label)
    for place, found, _ in batches:
        features[place] = found
    return features, batches.precision


class FeatureBatches:
    """The features of crops, batch by batch, so that a whole plate's need not fit into memory.

    Arguments and errors are those of `extract_features`. Iterating gives the place of a batch
    (a slice into `rows`), its n x width float32 features and its composite crops, which are
    overwritten by the next batch. `precision` is what the networks compute in.
    """

    def __init__(self, encoder, shards, chosen, rows, batch_size, precision, label):
        check_composite(encoder, chosen, label)
        self.encoder, self.shards, self.chosen = encoder, shards, chosen
        self.rows, self.batch_size, self.label = rows, batch_size, label
        self.measured = isinstance(encoder.backbone, StandardisedMeasures)
        self.precision = "float32" if self.measured else precision

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        device = choose_device("auto")
        backbone = None if self.measured else frozen(self.encoder.backbone, device)
        images_at_once = self.batch_size if device.type == "cuda" else CPU_IMAGES
        progress = Progress(len(self.rows), "crops", self.label)
        for start in range(0, len(self.rows), self.batch_size):
            place = slice(start, start + self.batch_size)
            batch = self.rows[place]
            crops = self.shards.read_composite(batch, self.chosen)
            with torch.inference_mode():
                if self.measured:
                    index = self.shards.index.iloc[batch]
                    features = measure(self.encoder.backbone, crops, index)
                else:
                    features = self._embed(backbone, crops, images_at_once, device)
            self._check(features, batch)
            yield place, features, crops
            progress.update(len(batch))
        progress.close()

    def _embed(self, backbone, crops, images_at_once: int, device) -> np.ndarray:
        features = np.empty((len(crops), self.encoder.width), np.float32)
        for first in range(0, len(crops), images_at_once):
            few = slice(first, first + images_at_once)
            images = normalise(crops[few], self.encoder.input_spec)
            images = images.to(device, memory_format=torch.channels_last)
            if self.precision == "auto":
                self.precision = precision_for(backbone, images[:CPU_IMAGES])
            features[few] = embed(backbone, images, self.precision)
        return features

    def _check(self, features: np.ndarray, batch: np.ndarray) -> None:
        bad = ~np.isfinite(features).all(axis=1)
        if bad.any():
            crop = self.shards.index["crop_id"].iloc[batch[bad.argmax()]]
            raise InputError(f"{self.label}: the features of crop {crop} are not finite numbers")


def embed(backbone: nn.Module, images: torch.Tensor, precision: str) -> np.ndarray:
    """Return the float32 features of images, computed in float32 or bfloat16."""
    half = precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        return backbone(images).float().cpu().numpy()


def precision_for(backbone: nn.Module, images: torch.Tensor) -> str:
    """Return bfloat16 if it is fast on the device and changes no features of images, or float32."""
    if precision_on(images.device, "auto") == "float32":
        return "float32"
    usual, fast = (embed(backbone, images, precision) for precision in ("float32", "bfloat16"))
    lengths = np.linalg.norm(usual, axis=1) * np.linalg.norm(fast, axis=1)
    alike = ((usual * fast).sum(axis=1) >= LEAST_COSINE * lengths).all()
    return "bfloat16" if alike else "float32"


def frozen(backbone: nn.Module, device: torch.device) -> nn.Module:
    """Return a network for features alone, on a device: channels last, BatchNorm in evaluation.

    BatchNorm is folded into the convolution before it, unless the network's way depends on its
    input, so that torch cannot trace it.
    """
    backbone.eval()
    with suppress(Exception):  # one's own network may do and raise anything when it is traced
        backbone = fuse(backbone)
    return backbone.to(device, memory_format=torch.channels_last)
