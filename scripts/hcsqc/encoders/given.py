"""Encoders that are given: networks with trained weights, and your own network."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.files import sha256
from hcsqc.core.torchvision_mend import import_timm
from hcsqc.encoders.checkpoints import read_tensors
from hcsqc.encoders.models import InputSpec, build_for_input, build_own, grey_input
from hcsqc.encoders.pooling import Pool, Pooling
from hcsqc.encoders.roles import AS_MADE, Sight
from hcsqc.encoders.store import Encoder, describe, load_tensors, pooled_encoder
from hcsqc.encoders.weights import Weights

timm = import_timm()


def own_encoder(
    module: str,
    input_px: int,
    channels: int,
    file: Path | None,
    sight: Sight = AS_MADE,
) -> Encoder:
    """Return an encoder of a your own network: see `build_own`.

    Its weights are those it is made with, or those of `file`.
    Raises InputError if the network does not map a crop to a vector, or has other tensors.
    """
    spec = sight.of(InputSpec(input_px, (0.0,) * channels, (1.0,) * channels))
    backbone = build_own(module).eval()
    provenance: dict[str, object] = {"weights": "own", "own": module}
    if file:
        tensors = read_tensors(file, module, list(backbone.state_dict()))
        load_tensors(backbone, tensors, str(file))
        provenance |= {"file": file.name, "sha256": sha256(file)}
    crops = torch.zeros(2, channels, input_px, input_px)
    with torch.no_grad():
        try:
            shape = tuple(backbone(crops).shape)
        except Exception as error:  # whatever a network of another input raises
            raise InputError(
                f"encoder module {module}: fails on crops {tuple(crops.shape)} "
                f"({in_one_line(error)})"
            ) from error
    if len(shape) != 2 or shape[0] != len(crops):
        raise InputError(
            f"encoder module {module}: returns {shape} for 2 crops, expected 2 x width features"
        )
    return Encoder(backbone, "transfer", module, spec, shape[1], True, provenance)


CHANNEL_MODES = ("composite", "each", "adapted", "any")
# What published files hold and no network has, if no conversion of timm drops it.
UNUSED = ("mask_token",)


def transfer_encoder(
    weights: Weights,
    input_px: int,
    channels: int = 3,
    mode: str = "composite",
    pool: Pool = "last",
    sight: Sight = AS_MADE,
) -> Encoder:
    """Return a network with published weights, for composites of `channels`.

    `mode` says how a network made for red, green and blue, or for others, sees them: `composite`
    as these, `each` one at a time with all features side by side, `adapted` by a first convolution
    for so many channels, whose weights are those for colours in turn (timm's way), `any` as they
    are, by a network that takes any number.
    `pool` says what its features are: see `PooledNetwork`.
    Raises InputError if the mode is not for so many channels, if the network has no such features,
    or, naming the first tensor, if the weights are of another architecture.
    """
    if mode == "composite" and channels != len(weights.mean):
        seen = "its roles are" if sight.roles else "the composite has"
        raise InputError(
            f"{weights.architecture}: its weights are for {len(weights.mean)} channels, {seen} "
            f"{channels}; state channels: each or channels: adapted"
        )
    options = dict(weights.options)
    spec = InputSpec(input_px, tuple(weights.mean), tuple(weights.std))
    if mode != "composite" and (mode == "each" or channels != len(weights.mean)):
        spec = grey_input(input_px, channels, weights.mean, weights.std, mode == "each")
    spec = sight.of(spec)
    backbone = build_for_input(weights.architecture, spec, options)
    seen = backbone.backbone if spec.each_channel else backbone
    of_network = len(weights.mean) if spec.each_channel else channels
    load_tensors(seen, to_timm(weights, seen, of_network), _source(weights))
    encoder = describe(
        backbone.eval(), "transfer", weights.architecture, spec, weights.provenance, options
    )
    return encoder if pool == "last" else pooled_encoder(encoder, Pooling(pool))


def to_timm(weights: Weights, backbone: nn.Module, channels: int) -> Mapping[str, torch.Tensor]:
    """Return the tensors as timm would load them into `backbone`.

    Positions are interpolated to its input, the authors' names become timm's, and the first
    convolution is adapted to the number of channels.
    Raises InputError if timm's conversion would drop what the network needs.
    """
    tensors = dict(weights.tensors)
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert:
        try:
            tensors = convert(dict(tensors), backbone)
        except (KeyError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{_source(weights)}: its tensors are not those of {weights.architecture} ({error})"
            ) from error
        _check_biases(weights, tensors)
    for name in UNUSED:
        tensors.pop(name, None)
    known = timm.get_pretrained_cfg(weights.architecture.split(".")[0])
    first = known.first_conv if known else None
    for name in (first,) if isinstance(first, str) else first or ():
        key = f"{name}.weight"
        if key in tensors and tensors[key].shape[1] == len(weights.mean) != channels:
            tensors[key] = timm.models.adapt_input_conv(channels, tensors[key])
    return tensors


def _check_biases(weights: Weights, converted: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError for a DINOv3 whose biases a network without them would lose silently."""
    for name, value in weights.tensors.items():
        if name.endswith("attn.qkv.bias") and name not in converted:
            kept = name.replace("qkv.bias", "q_bias") in converted
            queries, _, values = value.chunk(3)
            if not kept and (queries.any() or values.any()):
                raise InputError(
                    f"{_source(weights)}: has biases ('{name}') that {weights.architecture} has "
                    f"not; use the architecture {weights.architecture.split('.')[0]}_qkvb"
                )


def _source(weights: Weights) -> str:
    """Return what weights are called in messages: the name of their file, package or network."""
    about = weights.provenance
    return str(about.get(about["weights"]) or about["repository"])
