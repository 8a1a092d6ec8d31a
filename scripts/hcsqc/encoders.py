"""Encoders: anything that maps a crop to a vector, in one form whatever its kind.

`encoder.safetensors` holds the weights of the backbone alone, `encoder.json` the architecture,
input, feature width and provenance. What follows asks only what `encoder.json` says.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hcsqc.errors import InputError
from hcsqc.files import atomic, sha256, write_json
from hcsqc.measures import MEASURES, StandardisedMeasures, fit_measures
from hcsqc.models import (
    InputSpec,
    build_for_input,
    feature_width,
    grey_input,
    imagenet_input,
    timm,
)
from hcsqc.training_crops import TrainingCrops
from hcsqc.weights import Weights, read_tensors

# isort: split
from timm.models import adapt_input_conv  # hcsqc.models mends its import


@dataclass(frozen=True)
class Encoder:
    """A backbone and what is known of it."""

    backbone: nn.Module  # or StandardisedMeasures, which are no network
    kind: str
    architecture: str  # a timm name, or one of MEASURES
    input_spec: InputSpec
    width: int
    trainable: bool
    provenance: Mapping[str, object]


def describe(
    backbone: nn.Module,
    kind: str,
    architecture: str,
    input_spec: InputSpec,
    provenance: Mapping[str, object],
) -> Encoder:
    """Return the encoder of a backbone; its width is found by a forward pass."""
    width = feature_width(backbone, input_spec)
    return Encoder(backbone, kind, architecture, input_spec, width, True, provenance)


def random_encoder(architecture: str, input_px: int, channels: int, seed: int) -> Encoder:
    """Return an encoder with random weights: the control that shows what training gives.

    It takes composites of `channels`.
    """
    torch.manual_seed(seed)
    spec = imagenet_input(input_px, channels)
    backbone = build_for_input(architecture, spec)
    provenance = {"weights": "random", "seed": seed}
    return describe(backbone, "control", architecture, spec, provenance)


def measured_encoder(name: str, kind: str, crops: TrainingCrops) -> Encoder:
    """Return an encoder that measures, standardised over `crops`: see `hcsqc.measures`.

    Nothing of it can be trained.
    """
    fitted = fit_measures(name, crops)
    spec = InputSpec(crops.shards.format.size_px, (0.0,) * crops.channels, (1.0,) * crops.channels)
    provenance = {"weights": "measures", "crops": len(crops)}
    return Encoder(fitted.eval(), kind, name, spec, len(fitted.centre), False, provenance)


def own_encoder(module: str, input_px: int, channels: int, file: Path | None) -> Encoder:
    """Return an encoder of a network of one's own: see `build_own`.

    Its weights are those it is made with, or those of `file`.
    Raises InputError if the network does not map a crop to a vector, or has other tensors.
    """
    spec = InputSpec(input_px, (0.0,) * channels, (1.0,) * channels)
    backbone = build_for_input(module, spec).eval()
    provenance: dict[str, object] = {"weights": "own", "own": module}
    if file:
        _load(backbone, read_tensors(file, module), str(file))
        provenance |= {"file": file.name, "sha256": sha256(file)}
    crops = torch.zeros(2, channels, input_px, input_px)
    with torch.no_grad():
        try:
            shape = tuple(backbone(crops).shape)
        except Exception as error:  # whatever a network of another input raises
            raise InputError(
                f"encoder module {module}: fails on crops {tuple(crops.shape)} ({error})"
            ) from error
    if len(shape) != 2 or shape[0] != len(crops):
        raise InputError(
            f"encoder module {module}: returns {shape} for 2 crops, expected 2 x width features"
        )
    return Encoder(backbone, "transfer", module, spec, shape[1], True, provenance)


CHANNEL_MODES = ("composite", "each", "adapted")


def transfer_encoder(
    weights: Weights, input_px: int, channels: int = 3, mode: str = "composite"
) -> Encoder:
    """Return a timm network with trained weights, for composites of `channels`.

    `mode` says how a network made for red, green and blue sees them: `composite` as these three,
    `each` one at a time with all features side by side, `adapted` by a first convolution for so
    many channels, whose weights are those for colours in turn (timm's way).
    Raises InputError if the mode is not for so many channels, or, naming the first tensor, if the
    weights are of another architecture.
    """
    if mode == "composite" and channels != len(weights.mean):
        raise InputError(
            f"{weights.architecture}: its weights are for {len(weights.mean)} channels, the "
            f"composite has {channels}; state channels: each or channels: adapted"
        )
    spec = InputSpec(input_px, tuple(weights.mean), tuple(weights.std))
    if mode != "composite" and (mode == "each" or channels != len(weights.mean)):
        spec = grey_input(input_px, channels, weights.mean, weights.std, mode == "each")
    backbone = build_for_input(weights.architecture, spec)
    seen = backbone.backbone if spec.each_channel else backbone
    _load(seen, fitted(weights, seen, 3 if spec.each_channel else channels), _source(weights))
    return describe(backbone.eval(), "transfer", weights.architecture, spec, weights.provenance)


def fitted(weights: Weights, backbone: nn.Module, channels: int) -> Mapping[str, torch.Tensor]:
    """Return the tensors as timm would load them into `backbone`.

    Positions are interpolated to its input, the authors' names become timm's, and the first
    convolution is adapted to the number of channels.
    """
    tensors = dict(weights.tensors)
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert:
        tensors = convert(tensors, backbone)
    first = timm.get_pretrained_cfg(weights.architecture.split(".")[0]).first_conv
    for name in (first,) if isinstance(first, str) else first or ():
        key = f"{name}.weight"
        if key in tensors and tensors[key].shape[1] != channels:
            tensors[key] = adapt_input_conv(channels, tensors[key])
    return tensors


def _source(weights: Weights) -> str:
    """Return what weights are called in messages: the name of their file, package or network."""
    about = weights.provenance
    return str(about.get(about["weights"]) or about["name"])


def save_encoder(encoder: Encoder, weights: Path) -> None:
    """Write `weights` (.safetensors) and, beside it, the JSON with the same name.

    Raises InputError if they cannot be written, as on a full disk; what was there before stays.
    """
    tensors = {name: value.contiguous() for name, value in encoder.backbone.state_dict().items()}
    with atomic(weights) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise InputError(
                f"{weights}: cannot be written ({error}); make room and start again"
            ) from error
    write_json(
        {
            "kind": encoder.kind,
            "architecture": encoder.architecture,
            "input": encoder.input_spec.as_json(),
            "width": encoder.width,
            "trainable": encoder.trainable,
            "provenance": dict(encoder.provenance),
            "sha256": sha256(weights),
        },
        weights.with_suffix(".json"),
    )


def check_composite(encoder: Encoder, chosen: Sequence[str], where: str) -> None:
    """Raise InputError, which begins with `where`, if the encoder cannot see such composites.

    `chosen` are the composite's channels. What counts is their number.
    """
    wanted = encoder.input_spec.channels
    if len(chosen) != wanted:
        raise InputError(
            f"{where}: the encoder ({encoder.architecture}) is for composites of {wanted} "
            f"channels, but this one has {len(chosen)} ({', '.join(chosen)}); list {wanted}, or "
            "make the encoder again for these"
        )


def load_encoder(weights: Path) -> Encoder:
    """Read an encoder that `save_encoder` wrote.

    Raises InputError if the files are missing, damaged or of another architecture.
    """
    try:
        about = json.loads(weights.with_suffix(".json").read_text())
        tensors = load_file(weights)
    except Exception as error:  # safetensors raises its own, unexported kinds
        raise InputError(f"{weights}: cannot be read as an encoder ({error})") from error
    input_spec = InputSpec.from_json(about["input"])
    if about["architecture"] in MEASURES:
        backbone: nn.Module = StandardisedMeasures(about["architecture"], about["width"])
    else:
        backbone = build_for_input(about["architecture"], input_spec)
    _load(backbone, tensors, str(weights))
    return Encoder(
        backbone.eval(),
        about["kind"],
        about["architecture"],
        input_spec,
        about["width"],
        about["trainable"],
        about["provenance"],
    )


def _load(backbone: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Load tensors by name; InputError names the first that does not fit."""
    own = backbone.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise InputError(f"{source}: has no tensor '{name}'; is it another architecture?")
        if tensors[name].shape != value.shape:
            raise InputError(
                f"{source}: tensor '{name}' has shape {tuple(tensors[name].shape)}, "
                f"the network's is {tuple(value.shape)}"
            )
    unknown = [name for name in tensors if name not in own]
    if unknown:
        raise InputError(f"{source}: tensor '{unknown[0]}' is not part of the network")
    backbone.load_state_dict(dict(tensors))
    backbone.eval()
