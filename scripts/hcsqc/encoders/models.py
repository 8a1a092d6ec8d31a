"""Network architectures: timm backbones without their classifier, and their input."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

from torch import Tensor, cat, nn, no_grad, zeros

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.places import ROLES, ZERO
from hcsqc.core.torchvision_mend import NETWORK_OPTIONS, import_timm
from hcsqc.encoders.architectures.openphenom import OpenPhenom
from hcsqc.encoders.architectures.subcell import SubCell

# Networks that timm cannot express, by the names of an entry's `architecture`.
OURS = {"openphenom_vit_small_patch16": OpenPhenom, "subcell_vit_base_patch16": SubCell}
# Beyond these, numbers in somebody else's encoder.json are no side of a crop and no grey level.
LARGEST_PX, LARGEST_LEVEL = 2**16, 1e6
Normalisation = Literal["fixed", "per_image_zscore", "per_image_minmax"]


@dataclass(frozen=True)
class InputSpec:
    """What a network expects: crops of a composite or of channels by role, resized, normalised.

    `fixed` scales pixels to 0-1. The others scale each channel of each crop, after resizing:
    `per_image_zscore` to mean 0 and standard deviation 1, `per_image_minmax` to 0-1; a constant
    channel is 0. All are then `(pixel - mean) / std` per channel.
    """

    size_px: int
    mean: tuple[float, ...]  # one per channel, and so is std
    std: tuple[float, ...]
    each_channel: bool = False  # channels are seen one by one: see `EachChannel`
    normalisation: Normalisation = "fixed"
    roles: tuple[str, ...] = ()  # what its channels show; none: it sees the screen's composite
    # Role -> what stands for it on a screen without it: another role, or `zero`.
    missing_roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Number of channels that it sees."""
        return len(self.mean)

    @property
    def view(self) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """What equal inputs have in common that see the same channels of every screen."""
        return self.roles, tuple(sorted(self.missing_roles.items()))

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain JSON values, without the younger ones that say nothing."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        silent = {"normalisation": "fixed", "roles": [], "missing_roles": {}}
        return {key: v for key, v in values.items() if key not in silent or v != silent[key]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "InputSpec":
        """Return what `as_json` was made of; raises ValueError if it cannot be an input's."""
        made = cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
        if type(made.size_px) is not int or not 1 <= made.size_px <= LARGEST_PX:
            raise ValueError(f"size_px is {made.size_px!r:.60}")
        for name, least in (("mean", -math.inf), ("std", 0)):
            levels = getattr(made, name)
            if not (levels and isinstance(levels, tuple) and all(map(_is_finite, levels))):
                raise ValueError(f"{name} is {levels!r:.60}")
            if min(levels) <= least:
                raise ValueError(f"{name} is {levels!r:.60}")
        if len(made.mean) != len(made.std) or not isinstance(made.each_channel, bool):
            raise ValueError("mean, std and each_channel cannot be combined")
        if made.normalisation not in get_args(Normalisation):
            raise ValueError(f"normalisation is {made.normalisation!r:.60}")
        roles, missing = made.roles, made.missing_roles
        if not isinstance(roles, tuple) or not all(role in ROLES for role in roles):
            raise ValueError(f"roles is {roles!r:.60}")
        if roles and len(roles) != len(made.mean):
            raise ValueError(f"roles are {len(roles)}, its channels {len(made.mean)}")
        if not isinstance(missing, Mapping) or not all(
            role in roles and instead in (*ROLES, ZERO) for role, instead in missing.items()
        ):
            raise ValueError(f"missing_roles is {missing!r:.60}")
        return made


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST_LEVEL  # type: ignore[arg-type]


# The your own network that the config names, with blanks between; the rules set it.
NAMED_NETWORKS = "HCSQC_NETWORKS"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_input(size_px: int, channels: int) -> InputSpec:
    """Return the input of a network for composites of `channels`, normalised as ImageNet is.

    Three channels have ImageNet's values for red, green and blue. In any other number all have
    the mean of the three, as in timm, because no channel is a colour then.
    """
    if channels == len(IMAGENET_MEAN):
        return InputSpec(size_px, IMAGENET_MEAN, IMAGENET_STD)
    return grey_input(size_px, channels, IMAGENET_MEAN, IMAGENET_STD)


def grey_input(size_px: int, channels: int, mean, std, each_channel: bool = False) -> InputSpec:
    """Return an input whose channels are all normalised by the mean of red, green and blue."""
    return InputSpec(size_px, (fmean(mean),) * channels, (fmean(std),) * channels, each_channel)


class PooledFeatures(nn.Module):
    """VGG's convolutions and a global average: 512 values instead of the 4096 of its head.

    The head would also need 224-pixel input. `features` keeps timm's name, so that timm's weights
    load by key.
    """

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to N x 512."""
        return self.features(x).mean(dim=(2, 3))

    @property
    def feature_info(self) -> list[nn.Module]:
        """What there is one of for each stage, as timm's networks have it: what halves the side."""
        return [layer for layer in self.features if isinstance(layer, nn.MaxPool2d)]

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int], **_: object
    ) -> list[Tensor]:
        """Return the maps of stages, of the last `indices` or of those with these numbers, as timm.

        A stage's map is what the next one begins with.
        """
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps[-indices:] if isinstance(indices, int) else [maps[one] for one in indices]


class EachChannel(nn.Module):
    """A network on one channel at a time; one for colour pictures sees it as all three colours.

    The features of all channels stand side by side: N x C x H x W to N x (C * width).
    """

    def __init__(self, backbone: nn.Module, seen_as: int = 3):
        super().__init__()
        self.backbone, self.seen_as = backbone, seen_as

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of every channel, in their order."""
        shown = (channel.expand(-1, self.seen_as, -1, -1) for channel in x.split(1, 1))
        return cat([self.backbone(channel) for channel in shown], 1)


def check_name(architecture: str) -> str:
    """Return the name of a network of timm or of `OURS` without the tag of its weights.

    Raises InputError, with near names, if there is no such network.
    """
    timm = import_timm()  # seconds that an encoder which measures crops need not wait for
    name = architecture.split(".")[0]
    if name not in OURS and not timm.is_model(name):
        near = ", ".join(get_close_matches(name, [*OURS, *timm.list_models()], n=3)) or "none"
        raise InputError(f"timm knows no network '{name}'; near names: {near}")
    return name


def check_options(options: object) -> dict[str, Any]:
    """Return options of a network; raise ValueError for an unknown one, or beyond its limits."""
    if not isinstance(options, Mapping):
        raise ValueError(f"options are {options!r:.60}")
    for name, value in options.items():
        kind, least, most = NETWORK_OPTIONS.get(name, (None, 0, 0))
        right = type(value) is kind or (kind is float and type(value) is int)
        if not right or not least <= value <= most:
            raise ValueError(f"options.{name!s:.60} is {value!r:.60}")
    return dict(options)


def build_backbone(
    architecture: str,
    channels: int,
    input_px: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a randomly initialised network: N x channels x H x W to N x width features.

    `architecture` is a timm model name (`resnet18`), with or without the tag of its weights
    (`resnet18.tv_in1k`), which does not matter here, or one of `OURS`. Features are globally
    average-pooled, or of the class token where the network is made so. `input_px` is the side of
    its input; only networks with positions, such as vision transformers, are made for one size.
    `options` are timm's, of `NETWORK_OPTIONS`; `in_chans` among them says what published weights
    are for, `channels` what this network sees.
    Raises InputError, with near names, if there is no such network, or if it cannot see that size
    or does not take an option.
    """
    timm, name = import_timm(), check_name(architecture)
    given = {key: value for key, value in (options or {}).items() if key != "in_chans"}
    if (name in OURS or name.startswith("vgg")) and given:
        raise InputError(f"{name} takes no options but in_chans; leave out {', '.join(given)}")
    if name in OURS:
        return OURS[name](channels, input_px)
    if name.startswith("vgg"):
        return PooledFeatures(timm.create_model(name, in_chans=channels).features)
    # solo-learn and torchvision do not zero the last BatchNorm of a block, timm does.
    made: dict[str, Any] = {"zero_init_last": False} if name.startswith("resnet") else {}
    known = timm.get_pretrained_cfg(name)
    sized = known is not None and known.fixed_input_size and not given.get("dynamic_img_size")
    if input_px and sized:
        made["img_size"] = input_px
    try:
        return timm.create_model(name, in_chans=channels, **({"num_classes": 0} | made | given))
    except TypeError as error:  # of the network's own signature
        raise InputError(
            f"{name} does not take one of the options {', '.join(given)} ({in_one_line(error)})"
        ) from error
    except (AssertionError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be built for {input_px} px input ({error})") from error


def build_own(path: str) -> nn.Module:
    """Return the network that your own function makes: `my_nets:make_net`.

    The module is looked for in the working folder first. Its network maps N x C x H x W, pixels
    from 0 to 1, to N x width features.
    Raises InputError if there is no such function, or if what it returns is no network.
    """
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        network = getattr(import_module(module), name)()
    except Exception as error:  # whatever somebody's own code raises
        raise InputError(
            f"encoder module {path}: cannot be built ({in_one_line(error)}); expected a "
            f"function {name}() in {module.replace('.', '/')}.py, where Snakemake runs, or in an "
            "installed package"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"encoder module {path}: returns {type(network).__name__}, not an nn.Module"
        )
    return network


def build_named(path: str) -> nn.Module:
    """Return the network of `build_own` that a file of data asks for, if the config names it too.

    Files of encoders and detectors come from others, and to import a module is to run its code.
    Raises InputError, with nothing imported, for a network that `NAMED_NETWORKS` does not list.
    """
    if path not in os.environ.get(NAMED_NETWORKS, "").split():
        raise InputError(
            f"'{path}' is custom code, which runs only if the config names it; if you "
            f'trust it, add an encoder with module: "{path}" below encoders (without a study, list '
            f"it in {NAMED_NETWORKS})"
        )
    return build_own(path)


def build_for_input(
    architecture: str, input_spec: InputSpec, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return a network for an input: as `build_backbone`, or on each of its channels."""
    side, of_network = input_spec.size_px, (options or {}).get("in_chans", 3)
    if input_spec.each_channel:
        return EachChannel(build_backbone(architecture, of_network, side, options), of_network)
    return build_backbone(architecture, input_spec.channels, side, options)


def feature_width(backbone: nn.Module, input_spec: InputSpec, *beside: Tensor) -> int:
    """Return the number of features that `backbone` gives for a crop of its input.

    `beside` is what else it asks for of one crop. Raises InputError if it cannot see crops of that
    size.
    """
    training = backbone.training
    backbone.eval()
    side = input_spec.size_px
    with no_grad():
        try:
            width = backbone(zeros(1, input_spec.channels, side, side), *beside).shape[1]
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(f"the network cannot see crops of {side} px ({error})") from error
    backbone.train(training)
    return width
