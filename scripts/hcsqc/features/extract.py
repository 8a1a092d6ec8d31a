"""Features: the output of a frozen encoder for crops, or what is measured of them."""

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Generic, TypeVar, overload

import numpy as np
import torch
from torch import nn
from torch.fx import symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hcsqc.core.devices import choose_device, precision_on
from hcsqc.core.errors import InputError
from hcsqc.core.parallel import in_order
from hcsqc.core.progress import Progress
from hcsqc.crops.source import CompositeSource
from hcsqc.encoders.measures import measure
from hcsqc.encoders.pooling import PooledNetwork, nucleus_diameters
from hcsqc.encoders.standardised import StandardisedMeasures
from hcsqc.encoders.store import Encoder, check_composite
from hcsqc.encoders.views import normalise

# What a network makes of more images no longer fits a processor's caches (docs/benchmarks.md).
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

    `chosen` is the composite, or what `channels_for` makes of it for an encoder with roles;
    `batch_size` crops are read at once. Networks compute in
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
        self.shards, self.chosen = shards, chosen
        self.rows, self.batch_size, self.label = rows, batch_size, label
        self.beside = beside
        self.device = choose_device("auto")
        self.embedder = Embedder(encoder, self.device, precision)

    @property
    def precision(self) -> str:
        """What the networks compute in."""
        return self.embedder.precision

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray, Beside]]:
        progress = Progress(len(self.rows), "crops", self.label)
        with closing(self._batches()) as batches:
            for place, inputs, made_beside in batches:
                features = self.embedder.features(inputs)
                self._check(features, self.rows[place])
                yield place, features, made_beside
                progress.update(len(features))
        progress.close()

    def _batches(self) -> Generator[tuple[slice, list, Beside], None, None]:
        """Yield the place of each batch, inputs for the embedder, and what `beside` made.

        A GPU sees a whole batch at a time, which threads have brought to it by then.
        """
        on_gpu = self.device.type == "cuda"
        at_once = self.batch_size if on_gpu else CPU_IMAGES
        threads = threads_ahead(self.device) if self.embedder.has_networks else 0
        areas = self.shards.index["nucleus_area_px"].to_numpy()
        places = [
            slice(start, start + self.batch_size)
            for start in range(0, len(self.rows), self.batch_size)
        ]

        def prepared(place: slice):
            rows = self.rows[place]
            crops = self.shards.read_composite(rows, self.chosen)
            inputs = self.embedder.inputs(crops, areas[rows], at_once)
            if threads:
                inputs = [list(few) for few in inputs]
            return place, inputs, self.beside(crops)

        if not threads:
            yield from map(prepared, places)
            return
        with closing(in_order(prepared, places, threads, threads)) as batches:
            yield from batches

    def _check(self, features: np.ndarray, batch: np.ndarray) -> None:
        bad = ~np.isfinite(features).all(axis=1)
        if bad.any():
            crop = self.shards.index["crop_id"].iloc[batch[bad.argmax()]]
            raise InputError(f"{self.label}: the features of crop {crop} are not finite numbers")


class Embedder:
    """Frozen encoders on a device: crops to inputs, which another thread may make, to features.

    Of a joined encoder every part is one of them.
    """

    def __init__(self, encoder: Encoder, device: torch.device, precision: str):
        # None where all see the same, so that nothing is copied.
        self.places = encoder.places if len(encoder.views) > 1 else [None] * len(encoder.places)
        self.parts = [
            _Measured(part)
            if isinstance(part.backbone, StandardisedMeasures)
            else _Network(part, device, precision)
            for part in encoder.parts or (encoder,)
        ]

    @property
    def has_networks(self) -> bool:
        """Whether any of the encoders is a network."""
        return any(isinstance(part, _Network) for part in self.parts)

    @property
    def precision(self) -> str:
        """What the networks compute in: that of the first, or float32 where there is none."""
        networks = (part for part in self.parts if isinstance(part, _Network))
        return next((part.precision for part in networks), "float32")

    def inputs(self, crops: np.ndarray, area_px: np.ndarray, at_once: int) -> list[Iterable]:
        """Return the inputs of each encoder for uint8 crops and the areas of their nuclei.

        They are made when they are asked for, `at_once` crops at a time.
        """
        return [
            part.inputs(crops if place is None else crops[:, place], area_px, at_once)
            for part, place in zip(self.parts, self.places, strict=True)
        ]

    def features(self, inputs: list[Iterable]) -> np.ndarray:
        """Return n x width float32."""
        with torch.inference_mode():
            found = [
                np.concatenate([part.embed(*few) for few in own])
                for part, own in zip(self.parts, inputs, strict=True)
            ]
        return np.concatenate(found, axis=1) if len(found) > 1 else found[0]


class _Measured:
    """An encoder that measures crops."""

    def __init__(self, encoder: Encoder):
        self.fitted, self.region = encoder.backbone, encoder.pooling.region

    def inputs(self, crops: np.ndarray, area_px: np.ndarray, at_once: int) -> Iterable:
        return [(crops, area_px)]

    def embed(self, crops: np.ndarray, area_px: np.ndarray) -> np.ndarray:
        return measure(self.fitted, crops, area_px, self.region)


class _Network:
    """A network, with its own features or pooled ones."""

    def __init__(self, encoder: Encoder, device: torch.device, precision: str):
        self.spec, self.device, self.precision = encoder.input_spec, device, precision
        network = frozen(encoder.backbone, device)
        self.is_plain = encoder.pooling.is_plain
        self.network = network if self.is_plain else PooledNetwork(network, encoder.pooling)

    def inputs(self, crops: np.ndarray, area_px: np.ndarray, at_once: int) -> Iterable:
        diameters = torch.from_numpy(nucleus_diameters(area_px, crops.shape[3]))
        for first in range(0, len(crops), at_once):
            few = slice(first, first + at_once)
            images = normalise(crops[few], self.spec, self.device)
            yield (images,) if self.is_plain else (images, diameters[few].to(self.device))

    def embed(self, *inputs: torch.Tensor) -> np.ndarray:
        if self.precision == "auto":
            first = [part[:CPU_IMAGES] for part in inputs]
            self.precision = precision_for(self.network, *first)
        return embed(self.network, *inputs, precision=self.precision)


def threads_ahead(device: torch.device) -> int:
    """Return how many threads read and prepare the next batches meanwhile.

    None for a CPU, whose cores are the network's.
    """
    return min(MOST_THREADS_AHEAD, torch.get_num_threads()) if device.type == "cuda" else 0


def embed(network: nn.Module, *inputs: torch.Tensor, precision: str) -> np.ndarray:
    """Return the float32 features of images, computed in float32 or bfloat16."""
    half = precision == "bfloat16"
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=half):
        return network(*inputs).float().cpu().numpy()


def precision_for(network: nn.Module, *inputs: torch.Tensor) -> str:
    """Return bfloat16 if it is fast on the device and changes no features of images, or float32."""
    if precision_on(inputs[0].device, "auto") == "float32":
        return "float32"
    usual, fast = (embed(network, *inputs, precision=one) for one in ("float32", "bfloat16"))
    lengths = np.linalg.norm(usual, axis=1) * np.linalg.norm(fast, axis=1)
    alike = ((usual * fast).sum(axis=1) >= LEAST_COSINE * lengths).all()
    return "bfloat16" if alike else "float32"


def frozen(backbone: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a network for features alone, on a device: channels last, in evaluation.

    BatchNorm is folded into the convolution before it, unless the network's way depends on its
    input, so that torch cannot trace it.
    """
    network = copy.deepcopy(backbone).eval()
    with suppress(Exception):  # one's own network may do and raise anything when it is traced
        _fold_batchnorm(network)
    return network.to(device, memory_format=torch.channels_last)


def _fold_batchnorm(network: nn.Module) -> None:
    """Fold each BatchNorm into the convolution that it alone follows, in place."""
    modules = dict(network.named_modules())
    for node in symbolic_trace(network).graph.nodes:
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1:
            continue
        convolution = modules[before.target]
        if type(convolution) is nn.Conv2d:
            folded = fuse_conv_bn_eval(convolution, modules[node.target])
            network.set_submodule(before.target, folded)
            network.set_submodule(node.target, nn.Identity())
