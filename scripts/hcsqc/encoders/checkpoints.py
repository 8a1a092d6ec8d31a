"""Tensors of a network in published checkpoints: read as data, found, and renamed by rules.

A rule of `FORMS` turns the names of a published form into those of timm. What a checkpoint holds
beside the network is named in the job's log; below the network's own prefix nothing is left out but
the heads of `PRETRAINING_HEADS`, so that loading can be strict.
"""

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.encoders.store import shape_of

# Where training scripts keep a network's tensors in their checkpoints.
CHECKPOINT_KEYS = ("state_dict", "model", "teacher")


@dataclass(frozen=True)
class Form:
    """How a published form names tensors: patterns, in order, and what becomes of each."""

    renames: Mapping[str, str]
    flattened: str = "(?!)"  # of timm's names: tensors that the form holds with more dimensions
    is_split: bool = False  # whether queries, keys and values are tensors of their own

    def renamed(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the tensors by timm's names; none if they are of another form.

        They are if no rule concerns them, or if two names become one, as in an EfficientNet, whose
        blocks have two numbers by themselves.
        """
        names = {name: self._renamed(name) for name in tensors}
        if len(set(names.values())) < len(names) or all(old == new for old, new in names.items()):
            return {}
        found = {new: tensors[old] for old, new in names.items()}
        for name in found:
            if re.search(self.flattened, name):
                found[name] = found[name].flatten()
        return _joined(found) if self.is_split else found

    def _renamed(self, name: str) -> str:
        for theirs, ours in self.renames.items():
            name = re.sub(theirs, ours, name)
        return name


def _joined(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with `attn.q`, `attn.k` and `attn.v` as one, `attn.qkv`."""
    found = dict(tensors)
    for name in tensors:
        match = re.fullmatch(r"(.*\battn\.)q(\.\w+)", name)
        parts = [f"{match[1]}{part}{match[2]}" for part in "qkv"] if match else []
        if match and all(part in found for part in parts):
            found[f"{match[1]}qkv{match[2]}"] = torch.cat([found.pop(part) for part in parts])
    return found


FORMS = {
    # DINOv2's training script, Cell-DINO and its kin: blocks.<chunk>.<number>.
    "blocks in chunks": Form({r"(^|\.)blocks\.\d+\.(?=\d+\.)": r"\1blocks."}),
    "torchvision's ConvNeXt": Form(
        {
            r"(^|\.)features\.0\.": r"\1stem.",
            **{
                rf"(^|\.)features\.{2 * stage}\.": rf"\1stages.{stage}.downsample."
                for stage in (1, 2, 3)
            },
            **{
                rf"(^|\.)features\.{2 * stage + 1}\.": rf"\1stages.{stage}.blocks."
                for stage in (0, 1, 2, 3)
            },
            r"(.+)\.block\.0\.": r"\1.conv_dw.",
            r"(.+)\.block\.2\.": r"\1.norm.",
            r"(.+)\.block\.3\.": r"\1.mlp.fc1.",
            r"(.+)\.block\.5\.": r"\1.mlp.fc2.",
            r"(.+)\.layer_scale$": r"\1.gamma",
            r"(^|\.)classifier\.0\.": r"\1head.norm.",
        },
        flattened=r"\.gamma$",
    ),
    # SubCell, and DINOv2 as the hub has it for transformers.
    "transformers' vision transformer": Form(
        {
            r"(^|\.)embeddings\.(cls_token|mask_token|register_tokens)$": r"\1\2",
            r"(^|\.)embeddings\.position_embeddings$": r"\1pos_embed",
            r"(^|\.)embeddings\.patch_embeddings\.projection\.": r"\1patch_embed.proj.",
            r"(^|\.)encoder\.layer\.(\d+)\.": r"\1blocks.\2.",
            r"\.attention\.attention\.query\.": ".attn.q.",
            r"\.attention\.attention\.key\.": ".attn.k.",
            r"\.attention\.attention\.value\.": ".attn.v.",
            r"\.attention\.output\.dense\.": ".attn.proj.",
            r"\.intermediate\.dense\.": ".mlp.fc1.",
            r"(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
            r"\.layernorm_before\.": ".norm1.",
            r"\.layernorm_after\.": ".norm2.",
            r"(^|\.)layernorm\.": r"\1norm.",
            r"\.layer_scale(\d)\.lambda1$": r".ls\1.gamma",
            # SubCell's pooling, with dropout before the layer in training and without it later.
            r"(^|\.)pool_model\.attention_([uv])\.[01]\.": r"\1pool_model.attention_\2.",
        },
        is_split=True,
    ),
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
    "dino_head.",
    "ibot_head.",
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


def read_tensors(file: Path, whose: str, wanted: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors or .pth file, without running any code of it.

    `wanted` are the names of the network's own, which may lie below any prefix and key of a
    checkpoint, and be written in any form: see `named_as`. Other names, such as the authors' own,
    are returned without the key of the checkpoint and without a prefix that all share (`module.`),
    unless it is VGG's own, `features.`
    Raises InputError, saying for whom they are, if the file is missing, damaged, unsafe or holds
    none, or if it holds the network twice.
    """
    content = _read(file, whose)
    everything = dict(flat(content))
    if not everything:
        raise InputError(f"{file}: holds no named weights, such as a state_dict, for {whose}")
    found = named_as(wanted, everything, str(file))
    if found is not None:
        return found
    for inside in CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(inside), Mapping):
            content = content[inside]
    tensors = dict(flat(content))
    names = list(tensors)
    while all("." in name for name in names):
        prefixes = {name.partition(".")[0] for name in names}
        if len(prefixes) > 1 or prefixes == {"features"}:
            break
        names = [name.partition(".")[2] for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def read_file(file: Path, whose: str) -> dict[str, torch.Tensor]:
    """Return all tensors of a file by the path of their names; raises what `read_tensors` does."""
    return dict(flat(_read(file, whose)))


def named_as(
    wanted: Sequence[str], tensors: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a network by its own names, whatever form of `FORMS` they are in.

    The form is the one that names most of the `wanted`. The network lies below one prefix, the one
    below which most of them are, if it is half of them; else None is returned. Of a network and
    the copy that only follows it in training, it is the trained one, or DINO's teacher. What lies
    elsewhere, and the heads of pretraining beside the network, are left out, which the job's log
    says.
    Raises InputError if two prefixes are as good.
    """
    tensors = dict(tensors)
    counts = _counted(wanted, tensors)
    if max(counts.values(), default=0) < len(set(wanted)):
        by_place = [_swapped(name, RESNET_LAYERS) for name in wanted]
        if by_place != list(wanted) and max(_counted(by_place, tensors).values(), default=0) > max(
            counts.values(), default=0
        ):
            found = _below_prefix(by_place, tensors, source)
            timms = {theirs: ours for ours, theirs in RESNET_LAYERS.items()}
            return found and {_swapped(name, timms): value for name, value in found.items()}
        for form in FORMS.values():
            renamed = form.renamed(tensors)
            if max(_counted(wanted, renamed).values(), default=0) > max(counts.values(), default=0):
                return _below_prefix(wanted, renamed, source)
    return _below_prefix(wanted, tensors, source)


def _counted(wanted: Sequence[str], names: Mapping[str, torch.Tensor]) -> Counter[str]:
    """Return how many of the wanted names lie below each prefix of a checkpoint's names."""
    known, counts = set(wanted), Counter[str]()
    for name in names:
        counts.update(prefix for prefix in _prefixes(name) if name[len(prefix) :] in known)
    return counts


def _below_prefix(
    wanted: Sequence[str], tensors: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor] | None:
    """Return what `named_as` does, of tensors in timm's form."""
    known, counts = set(wanted), _counted(wanted, tensors)
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
    left: dict[str, list[torch.Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith(best[0]) or name.removeprefix(best[0]) in heads:
            left.setdefault(_beside(name, best[0]), []).append(value)
    for name in wanted:  # counts batches, which normalises nothing; older files have none
        if name.endswith("num_batches_tracked") and name.rpartition(".")[0] + ".weight" in below:
            below.setdefault(name, torch.tensor(0))
    if best[0] or left:
        said = f"below '{best[0]}'" if best[0] else "found"
        groups = ", ".join(f"{name} ({_size(left[name])})" for name in sorted(left))
        others = f"; left out: {groups}" if left else ""
        print(f"{source}: the network's tensors are {said}{others}", file=sys.stderr)
    return {name: value for name, value in below.items() if name not in heads}


def _size(tensors: Sequence[torch.Tensor]) -> str:
    if len(tensors) > 1:
        return f"{len(tensors)} tensors"
    return shape_of(tensors[0])


def headless(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors without the layers behind the features, by timm's names."""
    return {name: value for name, value in tensors.items() if not name.startswith(HEADS)}


def _swapped(name: str, first: Mapping[str, str]) -> str:
    """Return a name with its first part replaced, if `first` has it."""
    part, dot, rest = name.partition(".")
    return f"{first.get(part, part)}{dot}{rest}"


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


def flat(content: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested mappings by the path of their keys, with dots between."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if torch.is_tensor(value):
                yield f"{prefix}{key}", value
            else:
                yield from flat(value, f"{prefix}{key}.")


def _read(file: Path, whose: str) -> object:
    try:
        if _is_safetensors(file):
            return load_file(file)
        # Arguments of a training script, a plain holder of values, lie in many checkpoints.
        plain = [(SimpleNamespace, "argparse.Namespace")]
        # Opened here: by its name, torch would take some files for safetensors.
        with (
            open(file, "rb") as opened,
            torch.serialization.safe_globals(plain),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return torch.load(opened, map_location="cpu", weights_only=True)
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
    """Return whether a file is of that kind: by how it begins, else by its name."""
    with open(file, "rb") as opened:
        start = opened.read(10)
    if start.startswith(b"PK"):  # torch's; OpenPhenom's code writes it under the other name
        return False
    return start[8:] == b'{"' or file.suffix.lower() == ".safetensors"
