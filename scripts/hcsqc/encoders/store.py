"""Encoders: anything that maps a crop to a vector, in one form whatever its kind.

`encoder.safetensors` holds the weights of the backbone alone, `encoder.json` the architecture,
input, feature width and provenance. What follows asks only what `encoder.json` says.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hcsqc.core.errors import Damaged, InputError, in_one_line
from hcsqc.core.files import (
    atomic,
    check_sha256,
    read_checked_json,
    sha256,
    write_checked_json,
)
from hcsqc.encoders.models import (
    InputSpec,
    build_for_input,
    build_named,
    check_options,
    feature_width,
    imagenet_input,
)
from hcsqc.encoders.pooling import UNKNOWN, PooledNetwork, Pooling
from hcsqc.encoders.standardised import StandardisedMeasures

# What encoder.json says of every encoder that joins no others, beside its input.
KEYS = {"kind": str, "architecture": str, "width": int, "trainable": bool, "provenance": dict}
LARGEST_WIDTH = 10**6  # more features are none that fit into memory for a plate


@dataclass(frozen=True)
class Encoder:
    """A backbone and what is known of it.

    One that joins others has them as `parts`, and their backbones as a list for its own.
    """

    backbone: nn.Module  # or StandardisedMeasures, which are no network
    kind: str
    architecture: str  # a timm name, module:function of one's own, or a name of measures
    input_spec: InputSpec
    width: int
    trainable: bool
    provenance: Mapping[str, object]
    pooling: Pooling = Pooling()
    parts: tuple["Encoder", ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)  # of a network of timm

    @property
    def views(self) -> dict[Hashable, InputSpec]:
        """An input of each sort of channels that it sees: the composite's, or others by role.

        It is shown the channels of all sorts, one after the other.
        """
        own = {}
        for part in self.parts or (self,):
            own.setdefault(part.input_spec.view, part.input_spec)
        return own

    @property
    def channels(self) -> int:
        """Number of channels that it is shown."""
        return sum(spec.channels for spec in self.views.values())

    @property
    def places(self) -> list[slice]:
        """Where among them each part, or the encoder itself, has its own."""
        starts, start = {}, 0
        for view, spec in self.views.items():
            starts[view] = slice(start, start + spec.channels)
            start += spec.channels
        return [starts[part.input_spec.view] for part in self.parts or (self,)]


def describe(
    backbone: nn.Module,
    kind: str,
    architecture: str,
    input_spec: InputSpec,
    provenance: Mapping[str, object],
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """Return the encoder of a backbone; its width is found by a forward pass."""
    width = feature_width(backbone, input_spec)
    known = (backbone, kind, architecture, input_spec, width, True, provenance)
    return Encoder(*known, options=options or {})


def pooled_encoder(encoder: Encoder, pooling: Pooling) -> Encoder:
    """Return an encoder with the same network and other features of it.

    Raises InputError if it has no network, or one that has no such features: see `PooledNetwork`.
    """
    if not encoder.trainable:
        raise InputError(
            f"{encoder.architecture}: has no network whose feature maps could be pooled"
        )
    network = PooledNetwork(encoder.backbone, pooling)
    width = feature_width(network, encoder.input_spec, torch.full((1,), UNKNOWN))
    return replace(encoder, width=width, pooling=pooling, trainable=pooling.is_trainable)


def joined_encoder(parts: Sequence[Encoder]) -> Encoder:
    """Return an encoder whose features are those of others side by side; it is not fine-tuned.

    Raises InputError if they are for composites of different numbers of channels. Those that ask
    for channels by role may be for any.
    """
    parts = [one for part in parts for one in part.parts or (part,)]
    channels = {part.input_spec.channels for part in parts if not part.input_spec.roles}
    if len(channels) > 1:
        raise InputError(f"joined encoders are for composites of {sorted(channels)} channels")
    return Encoder(
        nn.ModuleList([part.backbone for part in parts]),
        "joined",
        " + ".join(part.architecture for part in parts),
        parts[0].input_spec,
        sum(part.width for part in parts),
        False,
        {"weights": "joined"},
        parts=tuple(parts),
    )


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
    own = encoder.backbone.state_dict()
    # Copies: joined encoders may share a network, which a file holds once for each.
    tensors = {name: value.contiguous().clone() for name, value in own.items()}
    with atomic(weights) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise InputError(
                f"{weights}: cannot be written ({error}); free some space and start again"
            ) from error
    about = _about(encoder) | {"sha256": sha256(weights)}
    write_checked_json(about, weights.with_suffix(".json"))


def _about(encoder: Encoder) -> dict[str, object]:
    """Return what encoder.json says, except for the digest of the weights."""
    if encoder.parts:
        own: dict[str, object] = {"parts": [_about(part) for part in encoder.parts]}
    else:
        own = {
            "input": encoder.input_spec.as_json(),
            "pooling": asdict(encoder.pooling),
            "measured": isinstance(encoder.backbone, StandardisedMeasures),
        }
        if encoder.options:
            own["options"] = dict(encoder.options)
    return own | {
        "kind": encoder.kind,
        "architecture": encoder.architecture,
        "width": encoder.width,
        "trainable": encoder.trainable,
        "provenance": dict(encoder.provenance),
    }


def check_composite(encoder: Encoder, chosen: Sequence[str], where: str) -> None:
    """Raise InputError, which begins with `where`, if the encoder cannot see such composites.

    `chosen` are the composite's channels, or what `channels_for` made of them. What counts is their
    number.
    """
    wanted = encoder.channels
    if len(chosen) != wanted:
        raise InputError(
            f"{where}: the encoder ({encoder.architecture}) is for composites of {wanted} "
            f"channels, but this one has {len(chosen)} ({', '.join(chosen)}); list {wanted}, or "
            "make the encoder again for these"
        )


def load_encoder(weights: Path) -> Encoder:
    """Read an encoder that `save_encoder` wrote.

    Raises InputError if the files are missing, damaged, of another architecture or not finite, or
    if they ask for code that the config does not name: see `build_named`.
    """
    about_file = weights.with_suffix(".json")
    try:
        about = read_checked_json(about_file)
        check_sha256(weights, about.get("sha256"), about_file)
        tensors = load_file(weights)
    except Damaged:
        raise
    except Exception as error:  # safetensors raises its own, unexported kinds
        raise InputError(
            f"{weights}: cannot be read as an encoder ({in_one_line(error)})"
        ) from error
    try:
        encoder = _empty(about)
    except KeyError as error:
        raise InputError(f"{about_file}: has no {error}; make the encoder again") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{about_file}: does not describe an encoder ({in_one_line(error)}); make it again"
        ) from error
    except InputError as error:
        raise InputError(f"{about_file}: {error}") from error
    load_tensors(encoder.backbone, tensors, str(weights))
    encoder.backbone.eval()
    return encoder


def _empty(about: Mapping) -> Encoder:
    """Return the encoder that `_about` described, with weights of no meaning."""
    if "parts" in about:
        if not about["parts"]:
            raise ValueError("it lists no encoders to join")
        return joined_encoder([_empty(part) for part in about["parts"]])
    known = {name: about[name] for name in KEYS}
    for name, kind in KEYS.items():
        if type(known[name]) is not kind:
            raise TypeError(f"{name} is {known[name]!r:.60}")
    if not 1 <= known["width"] <= LARGEST_WIDTH:
        raise ValueError(f"width is {known['width']!r:.60}")
    spec, pooling = InputSpec.from_json(about["input"]), Pooling(**about.get("pooling", {}))
    for name, kind in get_type_hints(Pooling).items():
        if getattr(pooling, name) not in get_args(kind):
            raise ValueError(f"pooling.{name} is {getattr(pooling, name)!r:.60}")
    pooling.check()
    architecture, options = known["architecture"], check_options(about.get("options", {}))
    if about.get("measured", not about["trainable"]):  # the key is younger than the file's form
        backbone: nn.Module = StandardisedMeasures(architecture, about["width"])
    elif ":" in architecture:
        backbone = build_named(architecture)
    else:
        backbone = build_for_input(architecture, spec, options)
    return Encoder(backbone=backbone, input_spec=spec, pooling=pooling, options=options, **known)


MOST_LISTED = 3


def _first(tensors: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(list(tensors)[:MOST_LISTED]) or "nothing"


def _listed(names: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the first of some tensors with their shapes, and how many others there are."""
    first = ", ".join(f"'{name}' ({shape_of(tensors[name])})" for name in names[:MOST_LISTED])
    return first + (f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else "")


def shape_of(tensor: torch.Tensor) -> str:
    """Return a shape as a message has it: `384 x 5 x 8 x 8`."""
    return " x ".join(str(side) for side in tensor.shape) or "a number"


def load_tensors(backbone: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Load tensors by name, strictly: all that the network has, and no others.

    Raises InputError, which lists the first by name and shape and counts the others, if some are
    missing, have another shape, are not part of the network, are no floating-point numbers, or are
    not finite.
    """
    own = backbone.state_dict()
    missing = [name for name in own if name not in tensors]
    if missing:
        raise InputError(
            f"{source}: has no tensor {_listed(missing, own)}; is it another architecture? It "
            f"begins with {_first(tensors)}; the network begins with {_first(own)}"
        )
    other = [name for name, value in own.items() if tensors[name].shape != value.shape]
    if other:
        raise InputError(
            f"{source}: tensor {_listed(other, tensors)} has another shape than the network's, "
            f"{shape_of(own[other[0]])}; is it for another number of channels, patch or input size?"
        )
    for name, value in own.items():
        if value.is_floating_point() and not tensors[name].is_floating_point():
            raise InputError(
                f"{source}: tensor '{name}' is of {tensors[name].dtype}, the network's of "
                f"{value.dtype}; save the weights as floating-point numbers"
            )
    unknown = [name for name in tensors if name not in own]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        raise InputError(
            f"{source}: tensor {_listed(unknown, tensors)} {verb} not part of the network"
        )
    for name, value in tensors.items():
        if not torch.isfinite(value.float()).all():  # not all kinds know it
            raise InputError(
                f"{source}: tensor '{name}' holds NaN or infinity, so features would be "
                "meaningless; was its training interrupted or diverging? Use other weights"
            )
    backbone.load_state_dict(dict(tensors))
    backbone.eval()
