"""Encoders: anything that maps a crop to a vector, in one form whatever its kind.

`encoder.safetensors` holds the weights of the backbone alone, `encoder.json` the architecture,
input, feature width and provenance. What follows asks only what `encoder.json` says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic, sha256, write_json
from hcsqc.encoders.models import InputSpec, build_for_input, feature_width, imagenet_input
from hcsqc.encoders.standardised import StandardisedMeasures


@dataclass(frozen=True)
class Encoder:
    """A backbone and what is known of it."""

    backbone: nn.Module  # or StandardisedMeasures, which are no network
    kind: str
    architecture: str  # a timm name, module:function of one's own, or a name of measures
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
    if not about["trainable"]:
        backbone: nn.Module = StandardisedMeasures(about["architecture"], about["width"])
    else:
        backbone = build_for_input(about["architecture"], input_spec)
    load_tensors(backbone, tensors, str(weights))
    return Encoder(
        backbone.eval(),
        about["kind"],
        about["architecture"],
        input_spec,
        about["width"],
        about["trainable"],
        about["provenance"],
    )


def load_tensors(backbone: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
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
