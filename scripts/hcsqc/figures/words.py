"""Names of encoders and probes in words, the same in all figures, tables and sentences.

Light enough to import while the DAG is built. Machine names stay in the CSV files.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hcsqc.core.config import encoder_settings, shuffles_labels

if TYPE_CHECKING:
    import pandas as pd

METHOD_WORDS = {
    "simclr": "SimCLR",
    "barlow_twins": "Barlow Twins",
    "vicreg": "VICReg",
    "deepcluster_v2": "DeepCluster v2",
    "swav": "SwAV",
}
# The start of an architecture's name in timm: the longest that fits is replaced.
ARCHITECTURE_WORDS = {
    "tf_efficientnet_lite": "EfficientNet-lite",
    "tf_efficientnet": "EfficientNet",
    "efficientnet": "EfficientNet",
    "convnext": "ConvNeXt",
    "densenet": "DenseNet",
    "mobilenetv": "MobileNetV",
    "resnext": "ResNeXt",
    "resnet": "ResNet",
    "regnet": "RegNet",
    "vgg": "VGG",
    "vit": "ViT",
    "swin": "Swin",
}
# What a tag of weights in timm says of the images that they were trained on.
TAG_WORDS = {"in1k": "ImageNet", "in21k": "ImageNet-21k", "in22k": "ImageNet-22k"}
TAG_WORDS |= {"lvd142m": "LVD-142M", "openai": "CLIP", "laion2b": "LAION-2B"}
# Registered models; others are called by their own names.
MODEL_WORDS = {
    "morphem": "MorphEm",
    "cell_dino_cp": "Cell-DINO",
    "channel_adaptive_dino": "channel-adaptive DINO",
    "openphenom": "OpenPhenom",
    "subcell_rybg": "SubCell",
    "subcell_rbg": "SubCell without ER",
    "subcell_ybg": "SubCell without tubulin",
    "subcell_bg": "SubCell of two channels",
    "scdino": "scDINO",
    "dinov2_small": "DINOv2 small",
    "dinov3_small": "DINOv3 small",
    "convnextv2_tiny": "ConvNeXt V2 tiny",
    "efficientnet_b0": "EfficientNet-B0",
}
PROBE_KIND_WORDS = {
    "knn": "kNN",
    "linear": "linear classifier",
    "linear_search": "linear classifier, searched",
    "logistic": "logistic regression",
    "finetune": "fine-tuning",
    "finetune_search": "fine-tuning, searched",
}
KIND_WORDS = {
    "transfer": "trained on other images",
    "ssl": "self-supervised",
    "control": "control",
    "classical": "measured",
    "pooled": "other features of a network",
    "joined": "several joined",
}
JOINT = " + "


@dataclass(frozen=True)
class Words:
    """What stands for the names of a study's encoders and probes; other names are themselves."""

    encoders: Mapping[str, str]
    probes: Mapping[str, str]

    def encoder(self, name: str) -> str:
        """Return an encoder in words."""
        return self.encoders.get(name, name)

    def probe(self, name: str) -> str:
        """Return a probe in words."""
        return self.probes.get(name, name)

    def table(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """Return a table whose columns encoder, other and probe are in words."""
        kinds = {"encoder": self.encoder, "other": self.encoder, "probe": self.probe}
        return rows.assign(
            **{name: rows[name].map(of) for name, of in kinds.items() if name in rows}
        )

    @property
    def text(self) -> str:
        """The words as JSON, for a command line."""
        return json.dumps(asdict(self), sort_keys=True)


def study_words(config: Mapping) -> Words:
    """Return the words for the encoders and probes of a study, chosen or left out.

    `config` is the resolved config. Words that several names would share end with the name.
    """
    study = config["study"]
    encoders = [*study["encoders"], *study["not_run"]]
    return Words(
        _apart({name: encoder_words(config, name) for name in encoders}),
        _apart({name: probe_words(config, name) for name in study["probes"]}),
    )


def encoder_words(config: Mapping, name: str) -> str:
    """Return an encoder of the config in words: `SimCLR, 2 epochs`.

    A name that the catalogue lacks is itself.
    """
    entry = config["encoders"].get(name)
    if entry is None:
        return name
    kind = entry["kind"]
    if kind == "joined":
        return JOINT.join(_as_part(encoder_words(config, part)) for part in entry["encoders"])
    if kind == "pooled":
        stages = ", stages" if entry["pool"] == "stages" else ""
        return encoder_words(config, entry["encoder"]) + stages + _region(entry)
    if kind == "ssl":
        settings = encoder_settings(config, name)
        return pretraining_words(settings["method"], settings["epochs"])
    if "measures" in entry:
        return entry["measures"].replace("_", " ") + " measures" + _region(entry)
    if kind == "control":
        return f"random {_architecture(entry['architecture'])[0]}"
    if "features" in entry:
        return f"{name}, given features"
    if "module" in entry:
        return f"{name}, given network"
    if "model" in entry:
        return MODEL_WORDS.get(entry["model"], entry["model"])
    architecture, images = _architecture(entry["architecture"])
    given = ", given weights" if "file" in entry else ""
    seen = {"each": ", each channel", "adapted": ", adapted channels"}
    return f"{images} {architecture}".strip() + given + seen.get(entry.get("channels"), "")


def pretraining_words(method: str, epochs: int) -> str:
    """Return a pretraining in words: `SimCLR, 2 epochs`."""
    return f"{METHOD_WORDS.get(method, method)}, {epochs} epoch{'s' if epochs != 1 else ''}"


def probe_words(config: Mapping, name: str) -> str:
    """Return a probe of the config in words: `logistic regression`."""
    words = PROBE_KIND_WORDS[config["probes"][name]["kind"]]
    if name.endswith("_paper"):
        words = f"the paper's {words}"
    return words + (", shuffled labels (control)" if shuffles_labels(config, name) else "")


def joined(names: Sequence[str]) -> str:
    """Return names as a list in a sentence: `A, B and C`.

    Names that hold commas, those in brackets apart, are set apart by semicolons.
    """
    comma = "; " if any(", " in re.sub(r"\(.*?\)", "", name) for name in names) else ", "
    if len(names) < 2:
        return "".join(names)
    last = "; and " if comma == "; " else " and "
    return comma.join(names[:-1]) + last + names[-1]


def _region(entry: Mapping) -> str:
    return ", cell only" if entry.get("region") == "cell" else ""


def _as_part(words: str) -> str:
    """Return an encoder's words as one of several: what it is, without images and details."""
    words = words.split(", ")[0].removesuffix(" measures")
    return re.sub(rf"^({'|'.join(set(TAG_WORDS.values()))}) ", "", words)


def _architecture(name: str) -> tuple[str, str]:
    """Return an architecture of timm in words, and the images that its weights saw."""
    base, _, tag = name.partition(".")
    start = max((key for key in ARCHITECTURE_WORDS if base.startswith(key)), key=len, default="")
    words = ARCHITECTURE_WORDS.get(start, "") + base[len(start) :].replace("_", "-")
    seen = [word for part in tag.split("_") for key, word in TAG_WORDS.items() if part == key]
    return words, seen[-1] if seen else ""


def _apart(words: Mapping[str, str]) -> dict[str, str]:
    """Return the words with the name behind them where several names have the same."""
    shared = Counter(words.values())
    return {name: text if shared[text] == 1 else f"{text} ({name})" for name, text in words.items()}
