"""Pooled and joined encoders: known answers, the network's own features, files, messages."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.core.torchvision_mend import import_timm
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.crops.training_crops import training_crops
from hcsqc.encoders import pooling
from hcsqc.encoders.given import CHANNEL_MODES
from hcsqc.encoders.measures import measured_encoder
from hcsqc.encoders.models import EachChannel, build_backbone
from hcsqc.encoders.pooling import PooledNetwork, Pooling, nucleus_diameters
from hcsqc.encoders.store import (
    joined_encoder,
    load_encoder,
    pooled_encoder,
    random_encoder,
    save_encoder,
)
from hcsqc.features.extract import extract_features
from hcsqc.probes.finetune import FinetuneSettings, finetune, finetuned_logits
from scripts.encoders import join_encoders, pool_encoder

timm = import_timm()
CHANNELS = ("w1", "w4", "w5")
SIDE, COUNT = 64, 9
TINY = "test_resnet"
PLAIN, STAGES, CELL = Pooling(), Pooling("stages"), Pooling("stages", "cell")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    """Return noisy crops whose nuclei differ in size."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (COUNT, 3, SIDE, SIDE), np.uint8)
    path = tmp_path_factory.mktemp("crops") / "p1.parquet"
    writer = ShardWriter(path, ShardFormat(CHANNELS, SIDE, "uint8", {}))
    rows = np.arange(COUNT)
    names = [f"s/p1/B0{row % 3}/s1/x{row:04d}y0000" for row in rows]
    fields = [name.rpartition("/")[0] for name in names]
    numbers = {"x_px": rows, "y_px": rows, "nucleus_area_px": 100 + 60 * rows}
    writer.add({"crop_id": names, "field_id": fields, **numbers}, pixels)
    writer.close()
    return Shards([path])


class Steps(nn.Module):
    """A network whose two stages are its input and the input at half the size."""

    feature_info = (None, None)

    def forward_intermediates(self, x, indices, **_):
        """Return the maps of stages as timm does."""
        maps = [x, nn.functional.avg_pool2d(x, 2)]
        return maps[-indices:] if isinstance(indices, int) else [maps[one] for one in indices]


def embed(encoder, shards, rows=None, batch=4, precision="float32"):
    rows = np.arange(len(shards)) if rows is None else rows
    return extract_features(encoder, shards, CHANNELS, rows, batch, precision, "test")[0]


def test_stages_over_the_window_are_mean_and_deviation_of_every_map():
    images = torch.randn(5, 3, 16, 16)
    found = PooledNetwork(Steps(), STAGES)(images, torch.full((5,), 0.25))
    half = nn.functional.avg_pool2d(images, 2)
    expected = [
        part
        for one in (images, half)
        for part in (one.mean((2, 3)), one.flatten(2).std(2, correction=0))
    ]
    torch.testing.assert_close(found, torch.cat(expected, 1))


def test_the_last_map_over_the_window_is_what_a_network_gives_itself():
    """Of a ResNet, whose last layer is the mean of its last map."""
    backbone = build_backbone("resnet18", 3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = PooledNetwork(backbone, Pooling("last"))(images, torch.full((2,), 0.25))
        torch.testing.assert_close(pooled, backbone(images))


def test_over_the_cell_pixels_count_by_a_gaussian_as_wide_as_the_nucleus():
    images = torch.rand(3, 2, 32, 32)
    diameters = torch.tensor([0.125, 0.25, 0.5])
    found = PooledNetwork(Steps(), Pooling("last", "cell"))(images, diameters)
    half = nn.functional.avg_pool2d(images, 2).numpy()
    place = (np.arange(16) + 0.5) / 16 - 0.5
    for image, diameter, row in zip(half, diameters.tolist(), found.numpy(), strict=True):
        squared = place[:, None] ** 2 + place[None] ** 2
        weights = np.exp(-squared / (2 * (pooling.CELL_SDS * diameter) ** 2))
        expected = [np.average(channel, weights=weights) for channel in image]
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_what_lies_beside_the_cell_counts_for_little_over_the_cell_and_fully_over_the_window():
    images = torch.zeros(1, 1, 64, 64)
    beside = images.clone()
    beside[..., :8] = 1
    small = torch.tensor([0.125])
    window, cell = (
        PooledNetwork(Steps(), Pooling("last", region)) for region in ("window", "cell")
    )
    assert window(beside, small).item() == pytest.approx(1 / 8)
    assert cell(beside, small).item() < 1e-6


def test_nuclei_are_circles_within_bounds_and_a_quarter_where_nothing_is_known():
    areas = np.array([0, np.pi * 16**2, 1, 10**6])
    assert nucleus_diameters(areas, 128).tolist() == [0.25, 0.25, 0.125, 0.5]


@pytest.mark.parametrize(
    ("architecture", "width"),
    [
        ("resnet18", 2 * (64 + 64 + 128 + 256 + 512)),
        ("tf_efficientnet_lite0", 2 * (16 + 24 + 40 + 112 + 320)),
        ("convnext_atto", 2 * (40 + 80 + 160 + 320)),
        ("vgg11", 2 * (64 + 128 + 256 + 512 + 512)),
        ("vit_tiny_patch16_224", 2 * 4 * 192),
    ],
)
def test_the_stages_of_any_network_of_timm_can_be_pooled(architecture, width):
    encoder = random_encoder(architecture, 64, 3, seed=0)
    pooled = pooled_encoder(encoder, CELL)
    assert (pooled.width, pooled.trainable) == (width, False)
    assert pooled.backbone is encoder.backbone, "no second network"


@pytest.mark.parametrize("kind", [STAGES, CELL, Pooling("last", "cell")], ids=str)
def test_features_do_not_depend_on_the_batch_and_survive_the_file(kind, shards, tmp_path):
    encoder = pooled_encoder(random_encoder(TINY, 32, 3, seed=0), kind)
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path)
    read = load_encoder(path)
    assert (read.pooling, read.width) == (kind, encoder.width)
    whole = embed(encoder, shards, batch=COUNT)
    np.testing.assert_allclose(embed(read, shards, batch=2), whole, rtol=1e-4, atol=1e-5)
    some = embed(read, shards, np.array([7, 2]))
    np.testing.assert_allclose(some, whole[[7, 2]], rtol=1e-4, atol=1e-5)


def test_the_size_of_the_nucleus_is_read_from_the_shard(shards):
    encoder = pooled_encoder(random_encoder(TINY, 32, 3, seed=0), CELL)
    before = embed(encoder, shards)
    shards.index["nucleus_area_px"] *= 4
    after = embed(encoder, shards)
    shards.index["nucleus_area_px"] //= 4
    assert not np.allclose(before, after, rtol=1e-3)
    plain = pooled_encoder(random_encoder(TINY, 32, 3, seed=0), STAGES)
    assert not np.allclose(embed(plain, shards), before, rtol=1e-3)


def test_features_of_each_channel_are_pooled_channel_by_channel():
    network = build_backbone(TINY, 3).eval()
    images, diameters = torch.rand(2, 4, 32, 32), torch.full((2,), 0.25)
    with torch.no_grad():
        together = PooledNetwork(EachChannel(network), CELL)(images, diameters)
        single = [
            PooledNetwork(network, CELL)(images[:, [one]].repeat(1, 3, 1, 1), diameters)
            for one in range(4)
        ]
    torch.testing.assert_close(together, torch.cat(single, 1))
    assert "each" in CHANNEL_MODES


def test_joined_features_are_those_of_the_parts_side_by_side(shards, tmp_path):
    network = random_encoder(TINY, 32, 3, seed=0)
    crops = training_crops(shards.paths, CHANNELS, [])
    parts = [
        pooled_encoder(network, CELL),
        measured_encoder("nucleus_and_ring", "classical", crops, "window"),
        measured_encoder("image_quality", "classical", crops, "cell"),
        network,
    ]
    encoder = joined_encoder(parts)
    found = embed(encoder, shards)
    np.testing.assert_array_equal(found, np.hstack([embed(part, shards) for part in parts]))
    assert encoder.width == found.shape[1]
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(embed(read, shards), found)
    assert [part.architecture for part in read.parts] == [part.architecture for part in parts]


def test_encoders_for_other_numbers_of_channels_are_not_joined():
    with pytest.raises(InputError, match=r"composites of \[2, 3\] channels"):
        joined_encoder([random_encoder(TINY, 32, channels, seed=0) for channels in (3, 2)])


def test_what_has_no_maps_is_not_pooled(shards):
    crops = training_crops(shards.paths, CHANNELS, [])
    measured = measured_encoder("image_quality", "classical", crops, "window")
    with pytest.raises(InputError, match="image_quality: has no network"):
        pooled_encoder(measured, STAGES)
    with pytest.raises(InputError, match="shows no maps of its stages"):
        PooledNetwork(nn.Linear(3, 2), STAGES)


def test_an_encoder_that_was_saved_before_there_was_pooling_is_read(tmp_path):
    path: Path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder(TINY, 32, 3, seed=0), path)
    about = path.with_suffix(".json")
    younger = ("pooling", "content_sha256")
    older = {
        key: value for key, value in json.loads(about.read_text()).items() if key not in younger
    }
    about.write_text(json.dumps(older))
    assert load_encoder(path).pooling == PLAIN


def test_commands_pool_an_encoder_and_join_several(tmp_path):
    base = tmp_path / "base" / "encoder.safetensors"
    save_encoder(random_encoder(TINY, 32, 3, seed=0), base)
    pooled, joined = (tmp_path / name / "encoder.safetensors" for name in ("pooled", "joined"))
    record = Namespace(parameters={}, metrics={})
    pool_encoder.pool(Namespace(encoder=base, pool="stages", region="cell", output=pooled), record)
    assert record.metrics["width"] == load_encoder(pooled).width
    join_encoders.join(Namespace(encoders=[base, pooled], output=joined), record)
    assert record.metrics["width"] == load_encoder(base).width + load_encoder(pooled).width
    assert record.parameters["kind"] == load_encoder(joined).kind == "joined"


def timms_own(architecture, pool, images, **options):
    """Return what timm makes of images with a pool of its own, and our network of its weights."""
    network = build_backbone(architecture, 3, 32, options).eval()
    tensors = network.state_dict()
    theirs = timm.create_model(
        architecture, num_classes=0, img_size=32, global_pool=pool, **options
    ).eval()
    # timm's name of the last norm depends on its pool; the tensors are the same.
    renamed = {
        name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: tensors[name]
        for name in tensors
    }
    own = theirs.state_dict()
    theirs.load_state_dict({name: tensors.get(name, renamed.get(name)) for name in own})
    with torch.no_grad():
        return network, theirs.forward_head(theirs.forward_features(images), pre_logits=True)


PATCHED = {
    "class token": ("vit_tiny_patch16_224", {}),
    "registers too": ("vit_tiny_patch16_224", {"reg_tokens": 4}),
    "DINOv3": ("vit_small_patch16_dinov3", {}),
    "two class tokens": ("deit_tiny_distilled_patch16_224", {}),
}


@pytest.mark.parametrize("kind", [kind for kind in PATCHED if not kind.startswith("two")])
def test_the_class_token_is_the_one_of_timm(kind):
    architecture, options = PATCHED[kind]
    images = torch.randn(2, 3, 32, 32)
    network, expected = timms_own(architecture, "token", images, **options)
    with torch.no_grad():
        found = PooledNetwork(network, Pooling("cls"))(images)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", PATCHED)
def test_the_mean_of_patches_is_that_of_timm_without_class_and_register_tokens(kind):
    architecture, options = PATCHED[kind]
    images = torch.randn(2, 3, 32, 32)
    network = build_backbone(architecture, 3, 32, options).eval()
    before = network.num_prefix_tokens
    with torch.no_grad():
        tokens = network.forward_features(images)
        expected = timm.layers.global_pool_nlc(tokens, "avg", num_prefix_tokens=before)
        found = PooledNetwork(network, Pooling("mean"))(images)
        both = PooledNetwork(network, Pooling("cls_mean"))(images)
    assert tokens.shape[1] - before == 4, "32 px are 2 x 2 patches"
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(both, torch.cat([tokens[:, 0], expected], 1))


def test_a_network_that_normalises_after_pooling_keeps_to_it():
    """As timm's vision transformers of global_pool avg, whose own features are the mean."""
    architecture = "vit_medium_patch16_reg4_gap_256"
    images = torch.randn(2, 3, 32, 32)
    network, expected = timms_own(architecture, "avg", images)
    with torch.no_grad():
        torch.testing.assert_close(PooledNetwork(network, Pooling("mean"))(images), expected)
        torch.testing.assert_close(network(images), expected)
    with pytest.raises(InputError, match="pool cls: VisionTransformer has no class token"):
        PooledNetwork(network, Pooling("cls"))


@pytest.mark.parametrize("architecture", [TINY, "convnext_atto", "tf_efficientnet_lite0", "vgg11"])
def test_the_mean_of_a_convolutional_network_is_its_own_features(architecture):
    network = build_backbone(architecture, 3, 64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = PooledNetwork(network, Pooling("mean"))(images)
        torch.testing.assert_close(found, network(images))
    for pool in ("cls", "cls_mean"):
        with pytest.raises(InputError, match=f"pool {pool}: .* has no class token; state pool: m"):
            PooledNetwork(network, Pooling(pool))


def test_a_mean_that_a_network_does_not_show_is_refused():
    with pytest.raises(InputError, match="pool mean: Linear shows neither tokens nor a mean"):
        PooledNetwork(nn.Linear(3, 2), Pooling("mean"))


@pytest.mark.parametrize("pool", ["cls", "mean", "cls_mean"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_tokens_of_each_channel_stand_side_by_side(pool, in_chans):
    network = build_backbone("vit_tiny_patch16_224", in_chans, 32).eval()
    images = torch.randn(2, 4, 32, 32)
    pooled = PooledNetwork(EachChannel(network, in_chans), Pooling(pool))
    single = PooledNetwork(network, Pooling(pool))
    with torch.no_grad():
        expected = [single(images[:, [one]].repeat(1, in_chans, 1, 1)) for one in range(4)]
        torch.testing.assert_close(pooled(images), torch.cat(expected, 1))


class ChannelTokens(nn.Module):
    """A network with features of every channel: its mean and its brightest pixel."""

    def forward_channels(self, x):
        """Return N x C x 2."""
        return torch.stack([x.mean((2, 3)), x.amax((2, 3))], 2)

    def forward(self, x):
        """Return the mean over channels, N x 2."""
        return self.forward_channels(x).mean(1)


def test_per_channel_features_are_those_of_every_channel_in_order():
    images = torch.rand(3, 4, 8, 8)
    found = PooledNetwork(ChannelTokens(), Pooling("per_channel"))(images)
    expected = torch.stack([images.mean((2, 3)), images.amax((2, 3))], 2).reshape(3, 8)
    torch.testing.assert_close(found, expected)
    mean = PooledNetwork(ChannelTokens(), Pooling("mean"))(images)
    torch.testing.assert_close(mean, expected.reshape(3, 4, 2).mean(1))
    each = EachChannel(build_backbone(TINY, 3)).eval()
    with torch.no_grad():
        of_each = PooledNetwork(each, Pooling("per_channel"))(torch.rand(2, 2, 32, 32))
    assert of_each.shape == (2, 2 * 96)
    with pytest.raises(InputError, match="per_channel: ResNet sees all channels together"):
        PooledNetwork(build_backbone("resnet18", 3), Pooling("per_channel"))


def test_published_models_of_any_channels_have_features_per_channel():
    """OpenPhenom, whose own features are the mean over channels."""
    network = build_backbone("openphenom_vit_small_patch16", 2, 256).eval()
    images = torch.rand(1, 2, 256, 256)
    with torch.no_grad():
        found = PooledNetwork(network, Pooling("per_channel"))(images)
        torch.testing.assert_close(found.reshape(1, 2, -1).mean(1), network(images))


def test_the_cell_of_features_without_maps_is_refused_from_a_file_too(tmp_path):
    message = "pool cls: has no maps to weigh about the cell; state region: window"
    network = build_backbone("vit_tiny_patch16_224", 3, 32)
    with pytest.raises(InputError, match=message):
        PooledNetwork(network, Pooling("cls", "cell"))
    path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder("vit_tiny_patch16_224", 32, 3, seed=0), path)
    about = json.loads(path.with_suffix(".json").read_text())
    del about["content_sha256"]
    about["pooling"] = {"pool": "cls", "region": "cell"}
    path.with_suffix(".json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=f"encoder.json: {message}"):
        load_encoder(path)


@pytest.mark.parametrize("pool", ["mean", "cls_mean"])
def test_pooled_tokens_survive_the_file_and_are_fine_tuned(pool, shards, tmp_path):
    encoder = pooled_encoder(random_encoder("vit_tiny_patch16_224", 32, 3, seed=0), Pooling(pool))
    assert encoder.trainable
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path)
    read = load_encoder(path)
    np.testing.assert_array_equal(embed(read, shards), embed(encoder, shards))
    crops = shards.read_composite(np.arange(COUNT), CHANNELS)
    targets = np.arange(COUNT) % 2
    still = FinetuneSettings(1, 4, 0.0, 0.0, 0.0, (), 1.0, "frozen", 0)
    tuned = finetune(read, crops, targets, still, (0, 0), lambda *_: None)
    with torch.no_grad():  # without a step, the layer sees the features
        expected = tuned[1](torch.from_numpy(embed(encoder, shards)))
    found = finetuned_logits(tuned, read, crops, 4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    learning = FinetuneSettings(1, 4, 0.1, 0.0, 0.0, (), 1.0, "frozen", 0)
    moved = finetune(read, crops, targets, learning, (0, 0), lambda *_: None)
    assert not torch.allclose(
        moved[0].backbone.patch_embed.proj.weight, read.backbone.patch_embed.proj.weight
    )
