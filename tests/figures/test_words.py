"""Names in words: of every kind of encoder and probe, apart from each other."""

import copy

import pandas as pd
import pytest
import yaml

from hcsqc.core.config_model import ENCODER_KINDS, METHODS, PROBE_KINDS
from hcsqc.encoders.registry import REGISTRY
from hcsqc.figures.words import (
    KIND_WORDS,
    MODEL_WORDS,
    PROBE_KIND_WORDS,
    Words,
    encoder_words,
    joined,
    study_words,
)
from tests.conftest import ROOT

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def with_encoders(**entries) -> dict:
    """Return the default config with more encoders, all of them chosen."""
    config = copy.deepcopy(CONFIG)
    config["encoders"] |= entries
    config["study"]["encoders"] = [*config["study"]["encoders"], *entries]
    return config


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "ssl", "method": "simclr", "preset": "paper", "epochs": 2}, "SimCLR, 2 epochs"),
        ({"kind": "ssl", "method": "swav", "preset": "paper", "epochs": 1}, "SwAV, 1 epoch"),
        (
            {"kind": "transfer", "architecture": "tf_efficientnet_lite0.in1k"},
            "ImageNet EfficientNet-lite0",
        ),
        (
            {"kind": "transfer", "architecture": "vit_small_patch14.lvd142m"},
            "LVD-142M ViT-small-patch14",
        ),
        (
            {"kind": "transfer", "architecture": "convnext_tiny.in12k_ft_in1k"},
            "ImageNet ConvNeXt-tiny",
        ),
        ({"kind": "transfer", "architecture": "odd_net"}, "odd-net"),
        (
            {"kind": "transfer", "architecture": "resnet18", "file": "a.pth", "channels": "each"},
            "ResNet18, given weights, each channel",
        ),
        (
            {"kind": "transfer", "model": "morphem", "architecture": "vit_small_patch16_224"},
            "MorphEm",
        ),
        ({"kind": "transfer", "module": "nets:make", "input_px": 32}, "mine, given network"),
        ({"kind": "transfer", "features": "own_{screen}.parquet"}, "mine, given features"),
        ({"kind": "control", "architecture": "vgg16"}, "random VGG16"),
        ({"kind": "control", "measures": "intensity_and_size"}, "intensity and size measures"),
        (
            {"kind": "classical", "measures": "image_quality", "region": "cell"},
            "image quality measures, cell only",
        ),
        (
            {"kind": "pooled", "encoder": "resnet18", "pool": "stages", "region": "window"},
            "ImageNet ResNet18, stages",
        ),
        (
            {"kind": "joined", "encoders": ["resnet18_cell", "image_quality", "simclr"]},
            "ResNet18 + image quality + SimCLR",
        ),
    ],
)  # fmt: skip
def test_an_encoder_is_named_by_what_it_is(entry, words):
    assert encoder_words(with_encoders(mine=entry), "mine") == words


def test_every_encoder_and_probe_of_the_catalogue_has_words_of_its_own():
    config = with_encoders()
    config["study"]["encoders"] = list(config["encoders"])
    config["study"]["probes"] = list(config["probes"])
    words = study_words(config)
    assert set(words.encoders) == set(config["encoders"])
    for named in (words.encoders, words.probes):
        assert len(set(named.values())) == len(named)
        assert not [text for text in named.values() if "_" in text]


def test_names_of_the_same_words_are_told_apart_by_the_name():
    entry = {"kind": "ssl", "method": "simclr", "preset": "paper", "epochs": 5}
    words = study_words(with_encoders(again=entry | {"learning_rate": 0.1}))
    assert words.encoder("simclr") == "SimCLR, 5 epochs (simclr)"
    assert words.encoder("again") == "SimCLR, 5 epochs (again)"


def test_every_kind_and_method_has_words():
    assert set(KIND_WORDS) == set(ENCODER_KINDS)
    assert set(PROBE_KIND_WORDS) == set(PROBE_KINDS)
    for method in METHODS:
        entry = {"kind": "ssl", "method": method, "preset": "paper"}
        assert "_" not in encoder_words(with_encoders(mine=entry), "mine")


def test_a_table_is_in_words_and_other_names_stay():
    words = Words({"a": "A, 2 epochs"}, {"knn": "kNN"})
    rows = pd.DataFrame({"encoder": ["a", "b"], "other": ["b", "a"], "probe": "knn", "f1": 1.0})
    found = words.table(rows)
    assert found["encoder"].tolist() == ["A, 2 epochs", "b"]
    assert found["other"].tolist() == ["b", "A, 2 epochs"]
    assert found["probe"].tolist() == ["kNN"] * 2 and found["f1"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a, x", "b"], "a, x; and b"),
        (["a, x", "b", "c"], "a, x; b; and c"),
        (["a (1, 2)", "b", "c"], "a (1, 2), b and c"),
    ],
)
def test_a_list_in_a_sentence_keeps_names_with_commas_apart(names, text):
    assert joined(names) == text


def test_every_registered_model_has_words_of_its_own():
    assert set(MODEL_WORDS) == set(REGISTRY)
    assert len(set(MODEL_WORDS.values())) == len(MODEL_WORDS)
