"""Features: the output of a frozen encoder for crops, or what is measured of them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Generic, TypeVar, overload

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from hcsqc.core.devices import choose_device, precision_on
from hcsqc.core.errors import InputError
from hcsqc.core.parallel import in_order
from hcsqc.core.progress import Progress
from hcsqc.crops.source import CompositeSource
from hcsqc.encoders.measures import measure
from hcsqc.encoders.standardised import StandardisedMeasures
from hcsqc.encoders.store import Encoder, check_composite
from hcsqc.encoders.views import normalise

# What a network makes of more images no longer fits a processor's caches (docs/performance.md).
CPU_IMAGES = 16
MOST_THREADS_AHEAD = 8
LEAST_COSINE = 0.999  # of features in bfloat16 and in float32, for `auto` to choose bfloat16

Beside = TypeVar("Beside")


def extract_features(
    encoder: Encoder,
    shards: CompositeSource,
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


class FeatureBatches(Generic[Beside]):
    """The features of crops, batch by batch, so that a whole plate's need not fit into memory.

    Arguments and errors are those of `extract_features`. Iterating gives the place of a batch
    (a slice into `rows`), its n x width float32 features and what `beside` makes of its composite
    crops. `precision` is what the networks compute in.
    """

    @overload
    def __init__(
        self: "FeatureBatches[None]", encoder, shards, chosen, rows, batch_size, precision, label
    ) -> None: ...

    @overload
    def __init__(
        self,
        encoder,
        shards,
        chosen,
        rows,
        batch_size,
        precision,
        label,
        beside: Callable[[np.ndarray], Beside],
    ) -> None: ...

    def __init__(
        self,
        encoder,
        shards,
        chosen,
        rows,
        batch_size,
        precision,
        label,
        beside=lambda crops: None,
    ):
        check_composite(encoder, chosen, label)
        self.encoder, self.shards, self.chosen = encoder, shards, chosen
        self.rows, self.batch_size, self.label = rows, batch_size, label
        self.beside = beside
        self.measured = isinstance(encoder.backbone, StandardisedMeasures)
        self.precision = "float32" if self.measured else precision

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray, Beside]]:
        device = choose_device("auto")
        backbone = None if self.measured else frozen(self.encoder.backbone, device)
        progress = Progress(len(self.rows), "crops", self.label)
        with closing(self._batches(device)) as batches:
            for place, inputs, made_beside in batches:
                with torch.inference_mode():
                    features = np.concatenate([self._embed(backbone, few) for few in inputs])
                self._check(features, self.rows[place])
                yield place, features, made_beside
                progress.update(len(features))
        progress.close()

    def _batches(self, device) -> Generator[tuple[slice, Iterable, Beside], None, None]:
        """Yield the place of each batch, inputs for `_embed` of its parts, and what `beside` made.

        A GPU sees a whole batch at a time, which threads have brought to it by then.
        """
        at_once = self.batch_size if device.type == "cuda" else CPU_IMAGES
        threads = 0 if self.measured else threads_ahead(device)
        places = [
            slice(start, start + self.batch_size)
            for start in range(0, len(self.rows), self.batch_size)
        ]

        def prepared(place: slice):
            crops = self.shards.read_composite(self.rows[place], self.chosen)
            if self.measured:
                index = self.shards.index.iloc[self.rows[place]]
                return place, [(crops, index)], self.beside(crops)
            images = (
                normalise(crops[first : first + at_once], self.encoder.input_spec, device)
                for first in range(0, len(crops), at_once)
            )
            return place, list(images) if threads else images, self.beside(crops)

        if not threads:
            yield from map(prepared, places)
            return
        with closing(in_order(prepared, places, threads, threads)) as batches:
            yield from batches

    def _embed(self, backbone: nn.Module | None, inputs) -> np.ndarray:
        if self.measured:
            return measure(self.encoder.backbone, *inputs)
        if self.precision == "auto":
            self.precision = precision_for(backbone, inputs[:CPU_IMAGES])
        return embed(backbone, inputs, self.precision)

    def _check(self, features: np.ndarray, batch: np.ndarray) -> None:
        bad = ~np.isfinite(features).all(axis=1)
        if bad.any():
            crop = self.shards.index["crop_id"].iloc[batch[bad.argmax()]]
            raise InputError(f"{self.label}: the features of crop {crop} are not finite numbers")


def threads_ahead(device: torch.device) -> int:
    """Return how many threads read and prepare the next batches meanwhile.

    None for a CPU, whose cores are the network's.
    """
    return min(MOST_THREADS_AHEAD, torch.get_num_threads()) if device.type == "cuda" else 0


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
