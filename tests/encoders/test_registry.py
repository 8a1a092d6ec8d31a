"""Registered models: what their names stand for, where their weights come from, on which terms."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

from hcsqc.core.config import weights_name
from hcsqc.core.config_model import NetworkEncoder, NetworkOptions
from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256
from hcsqc.core.torchvision_mend import NETWORK_OPTIONS
from hcsqc.encoders import published, registry
from hcsqc.encoders.given import CHANNEL_MODES, transfer_encoder
from hcsqc.encoders.models import OURS, build_backbone, check_name, check_options
from hcsqc.encoders.published import brought, find_published, kept
from hcsqc.encoders.registry import REGISTRY, registered, resolve_encoder, resolve_models
from hcsqc.encoders.weights import load_weights, save_weights
from scripts.encoders import fetch_weights
from tests.conftest import ROOT

# A made model, small: five channels together, patches of 8, LayerScale.
SMALL = replace(
    REGISTRY["cell_dino_cp"],
    name="small",
    architecture="test_vit",
    input_px=32,
    options={"patch_size": 8, "init_values": 1.0},
    weights="small.pth",
    sha256="",
)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Register the small model; return its tensors. No hub, an empty folder to work in."""
    monkeypatch.setitem(registry.REGISTRY, "small", SMALL)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    torch.manual_seed(5)
    options = SMALL.network_options
    return build_backbone(SMALL.architecture, 5, SMALL.input_px, options).state_dict()


@pytest.mark.parametrize("model", REGISTRY.values(), ids=REGISTRY)
def test_a_registered_model_has_a_known_network_and_an_input_for_each_channel(model):
    check_name(model.architecture)
    check_options(model.network_options)
    NetworkOptions(**model.network_options)
    assert model.channels in CHANNEL_MODES
    assert len(model.mean) == len(model.std) == model.network_channels
    assert model.roles == () or len(model.roles) == model.network_channels
    assert model.licence and model.source and model.verified


@pytest.mark.long
@pytest.mark.parametrize("model", REGISTRY.values(), ids=REGISTRY)
def test_a_registered_model_can_be_built_and_sees_its_input(model):
    with torch.device("meta"):
        channels = 3 if model.channels == "any" else model.network_channels
        network = build_backbone(
            model.architecture, channels, model.input_px, model.network_options
        )
        assert network(torch.zeros(1, channels, model.input_px, model.input_px)).ndim == 2


def test_the_registry_and_the_config_name_the_same_options():
    assert set(NETWORK_OPTIONS) == set(NetworkOptions.model_fields)
    for name, (kind, least, most) in NETWORK_OPTIONS.items():
        for value in (least, most):
            NetworkOptions(**{name: kind(value)})
            check_options({name: kind(value)})


@pytest.mark.parametrize(
    "options",
    [
        {"patch_size": 0},
        {"patch_size": 8.0},
        {"patch_size": True},
        {"class_token": 1},
        {"init_values": float("nan")},
        {"in_chans": 10**9},
        {"weight_init": "jax"},
        ["patch_size"],
        None,
    ],
)
def test_an_option_beyond_its_limits_is_refused(options):
    with pytest.raises(ValueError, match=r"^options"):
        check_options(options)


def test_an_option_that_a_network_does_not_take_is_named():
    with pytest.raises(InputError, match="resnet18 does not take one of the options patch_size"):
        build_backbone("resnet18", 3, 32, {"patch_size": 8})
    with pytest.raises(InputError, match="vgg16 takes no options but in_chans; leave out qk_norm"):
        build_backbone("vgg16", 3, 32, {"qk_norm": True, "in_chans": 3})


@pytest.mark.parametrize("name", OURS)
def test_a_network_of_ours_is_for_the_side_that_it_was_trained_on(name):
    with pytest.raises(InputError, match="state input_px: "):
        build_backbone(name, 3, 32)


def test_an_entry_has_its_models_values_below_its_own():
    entry = {"kind": "transfer", "model": "cell_dino_cp", "input_px": 64, "options": {}}
    resolved = resolve_encoder(entry)
    assert resolved | {"roles": ()} == {
        "kind": "transfer",
        "model": "cell_dino_cp",
        "architecture": "vit_small_patch8_224",
        "input_px": 64,
        "channels": "composite",
        "normalisation": "per_image_zscore",
        "pool": "cls",
        "options": {"init_values": 1.0, "in_chans": 5},
        "roles": (),
    }
    assert resolved["roles"] == ["DNA", "RNA", "ER", "AGP", "Mito"]
    assert resolve_encoder(resolved) == resolved, "a resolved entry stays as it is"
    changed = resolve_encoder(entry | {"options": {"dynamic_img_size": True, "init_values": 0.5}})
    assert changed["options"] == {"init_values": 0.5, "in_chans": 5, "dynamic_img_size": True}
    plain = {"kind": "transfer", "architecture": "resnet18", "input_px": 32}
    assert resolve_encoder(plain) == plain


@pytest.mark.parametrize("name", REGISTRY)
def test_what_a_model_stands_for_is_an_entry_that_the_config_allows(name):
    NetworkEncoder(**resolve_encoder({"kind": "transfer", "model": name}))


def test_an_unknown_model_and_another_network_are_named():
    config = {"encoders": {"mine": {"kind": "transfer", "model": "morfem"}, "b": None}}
    with pytest.raises(InputError) as caught:
        resolve_models(config)
    assert str(caught.value) == (
        "config: encoders.mine.model: unknown name 'morfem'; did you mean 'morphem'?"
    )
    with pytest.raises(InputError, match="scdino is the network vit_small_patch16_224, not resn"):
        resolve_encoder({"model": "scdino", "architecture": "resnet18"})


@pytest.mark.parametrize("config", [{}, {"encoders": None}, {"encoders": {"a": {"model": 5}}}])
def test_a_config_of_another_shape_is_left_to_its_check(config):
    before = json.loads(json.dumps(config))
    resolve_models(config)
    assert config == before


def test_weights_of_networks_with_other_options_are_kept_apart():
    entry = {"architecture": "vit_small_patch16_224"}
    names = [
        weights_name(entry | more)
        for more in (
            {},
            {"options": {"patch_size": 8}},
            {"options": {"patch_size": 4}},
            {"file": "a.pth"},
            {"file": "a.pth", "options": {"patch_size": 8}},
            {"model": "morphem"},
            {"model": "morphem", "options": {"in_chans": 1}},
        )
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "vit_small_patch16_224", "without options as before"
    assert names[5] == "model.morphem"


def test_the_registry_imports_nothing_heavy():
    code = "import sys, hcsqc.encoders.registry; print([m for m in ('torch', 'timm', 'numpy')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} if m in sys.modules])"],
        env={"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# Where weights come from.


def test_a_file_that_was_brought_is_found_and_normalised_as_the_model_says(small, tmp_path):
    assert brought(SMALL) == Path("weights/small.pth")
    torch.save({"teacher": {f"backbone.{n}": v for n, v in small.items()}}, brought(SMALL))
    weights = find_published(SMALL)
    assert weights.options == {"patch_size": 8, "init_values": 1.0, "in_chans": 5}
    assert weights.provenance == {
        "weights": "file",
        "file": "small.pth",
        "sha256": sha256(brought(SMALL)),
        "model": "small",
        "licence": "FAIR Non-Commercial Research License",
        "non_commercial": True,
        "source": SMALL.source,
    }
    save_weights(weights, tmp_path / "kept.safetensors")
    encoder = transfer_encoder(load_weights(tmp_path / "kept.safetensors"), 32, 5)
    assert (encoder.input_spec.mean, encoder.input_spec.std) == ((0.0,) * 5, (1.0,) * 5)
    assert all(torch.equal(v, small[n]) for n, v in encoder.backbone.state_dict().items())


def test_without_a_file_the_one_to_fetch_its_source_and_its_place_are_named(small):
    with pytest.raises(InputError) as caught:
        find_published(SMALL)
    assert str(caught.value) == (
        f"no weights for model small: fetch small.pth from {SMALL.source} and put it here as "
        "weights/small.pth, or state file: PATH in the encoder's entry; licence: FAIR "
        "Non-Commercial Research License"
    )


def test_without_the_hub_the_file_of_its_repository_is_named(small):
    with pytest.raises(InputError) as caught:
        find_published(registered("morphem"))
    text = str(caught.value)
    assert text.startswith("no weights for model morphem: the model hub cannot be reached (")
    assert "fetch model.safetensors from hub repository CaicedoLab/MorphEm" in text
    assert "put it here as weights/morphem.safetensors" in text and "\n" not in text


def test_a_file_of_the_hub_is_data_and_is_asked_for_once(small, monkeypatch, tmp_path):
    folder = tmp_path / "models--a--b" / "snapshots" / "0a1b2c"
    folder.mkdir(parents=True)
    model = replace(SMALL, hub="a/b")
    torch.save(dict(small), folder / "small.pth")
    monkeypatch.setattr(published, "hf_hub_download", lambda repo, name: str(folder / name))
    weights = find_published(model)
    known = weights.provenance
    assert (known["weights"], known["repository"], known["revision"]) == ("hub", "a/b", "0a1b2c")
    output = tmp_path / "kept.safetensors"
    save_weights(weights, output)
    assert kept(output, model, model.network_options)
    assert kept(output, model, {"patch_size": 4}) is None
    assert kept(output, replace(model, name="other"), model.network_options) is None
    torch.save(dict(small), brought(model))
    assert kept(output, model, model.network_options) is None, "what is brought counts more"


def test_another_file_by_the_published_name_is_refused(small, tmp_path):
    torch.save(dict(small), tmp_path / "small.pth")
    model = replace(SMALL, sha256="0" * 64)
    with pytest.raises(InputError, match="is not the published file, whose SHA-256 begins with 0"):
        find_published(model, tmp_path / "small.pth")
    torch.save(dict(small), tmp_path / "mine.pth")
    assert find_published(model, tmp_path / "mine.pth").tensors


def test_a_models_channels_by_its_options_have_a_normalisation(small, tmp_path):
    options: Mapping = SMALL.network_options | {"in_chans": 2}
    tensors = build_backbone("test_vit", 2, 32, options).state_dict()
    torch.save(tensors, tmp_path / "two.pth")
    weights = find_published(SMALL, tmp_path / "two.pth", options)
    assert len(weights.mean) == len(weights.std) == 2


@pytest.mark.parametrize("channels", ["composite", "any"])
def test_a_model_of_other_channels_than_colours_is_not_normalised_as_they_are(
    channels, small, tmp_path
):
    model = replace(SMALL, channels=channels, mean=(0.5,) * 5, std=(0.25,) * 5)
    tensors = build_backbone("test_vit", 3 if channels == "any" else 5, 32, SMALL.options)
    torch.save(tensors.state_dict(), tmp_path / "any.pth")
    weights = find_published(model, tmp_path / "any.pth")
    assert (weights.mean, weights.std) == ((0.5,) * 5, (0.25,) * 5)


def test_the_table_of_the_docs_lists_every_model_with_its_side_and_licence():
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in (ROOT / "docs/encoders.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    listed = {row[1]: row for row in rows if len(row) == 9}
    for model in REGISTRY.values():
        name = f"`{model.name}`"
        row = listed.get(name) or listed["`subcell_rbg`, `_ybg`, `_bg`"]
        assert row[3] == str(model.input_px)
        assert row[5].split()[0] in model.licence
        assert ("non-commercial" in row[5] or "-NC-" in row[5]) == model.non_commercial


def test_the_terms_are_shown_before_the_first_use_and_kept(small, monkeypatch, tmp_path, capsys):
    torch.save(dict(small), brought(SMALL))
    words = ["--model", "small", "--architecture", SMALL.architecture]
    words += ["--options", json.dumps(SMALL.network_options), "--output", "w.safetensors"]
    monkeypatch.setattr(sys, "argv", [fetch_weights.__file__, *words, "--record", "run.json"])
    fetch_weights.main()
    said = capsys.readouterr().err
    assert said.startswith(
        "warning: licence of model small: FAIR Non-Commercial Research License; non-commercial "
        "use only; from facebookresearch/dinov2"
    )
    parameters = json.loads(Path("run.json").read_text(encoding="utf-8"))["parameters"]
    assert (parameters["model"], parameters["non_commercial"]) == ("small", True)
    assert load_weights(Path("w.safetensors")).provenance["licence"] == SMALL.licence
