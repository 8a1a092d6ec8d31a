"""Features: one vector per crop, in the order asked for, whatever the batches."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.schema import features_schema, write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.store import describe, random_encoder
from hcsqc.encoders.views import normalise
from hcsqc.features import extract as features_module
from hcsqc.features.extract import extract_features
from hcsqc.features.tables import features_table
from hcsqc.probes.task import read_features

CHANNELS = ("w1", "w2", "w3", "w4")
PLAIN = InputSpec(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    """Return 7 crops of 4 channels, where crop i has value 10 i + channel all over."""
    path = tmp_path_factory.mktemp("crops") / "p1.parquet"
    values = 10 * np.arange(7)[:, None] + np.arange(4)[None]
    pixels = np.broadcast_to(values[:, :, None, None], (7, 4, 8, 8)).astype(np.uint8)
    crops = pd.DataFrame(
        {
            "crop_id": [f"s/p1/B02/s1/x000{i}y0000" for i in range(7)],
            "field_id": "s/p1/B02/s1",
            "x_px": range(7),
            "y_px": 0,
            "nucleus_area_px": 100,
        }
    )
    with atomic(path) as temporary:
        writer = ShardWriter(temporary, ShardFormat(CHANNELS, 8, "uint8", {}))
        writer.add(crops, pixels)
        writer.close()
    return Shards([path])


class Means(nn.Module):
    """A feature per channel: its mean, as bytes."""

    def forward(self, x):
        return 255 * x.mean(dim=(2, 3))


def means(shards: Shards, rows, batch_size=2, chosen=("w4", "w2", "w1")) -> np.ndarray:
    encoder = describe(Means(), "control", "means", PLAIN, {})
    return extract_features(
        encoder, shards, chosen, np.array(rows), batch_size, "float32", "means"
    )[0]


def test_a_row_holds_the_features_of_its_crop_in_the_composites_order(shards):
    found = means(shards, [5, 0, 3])
    np.testing.assert_allclose(found, [[53, 51, 50], [3, 1, 0], [33, 31, 30]], atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_do_not_change_features(shards, batch_size):
    torch.manual_seed(0)
    encoder = random_encoder("test_resnet", 32, 3, seed=0)
    whole, _ = extract_features(encoder, shards, CHANNELS[:3], np.arange(7), 7, "float32", "test")
    found, _ = extract_features(
        encoder, shards, CHANNELS[:3], np.arange(7), batch_size, "float32", "test"
    )
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [[4, 0, 6, 2, 1, 3, 5], [2], []])
def test_batches_that_threads_read_ahead_come_in_order(shards, rows, monkeypatch):
    expected = means(shards, rows)
    monkeypatch.setattr(features_module, "threads_ahead", lambda device: 3)
    np.testing.assert_array_equal(means(shards, rows), expected)
    encoder = describe(Means(), "control", "means", PLAIN, {})
    batches = features_module.FeatureBatches(
        encoder,
        shards,
        ("w1", "w2", "w3"),
        np.array(rows, int),
        2,
        "float32",
        "means",
        lambda crops: crops[:, 0, 0, 0] // 10,
    )
    beside = [(place, made.tolist()) for place, _, made in batches]
    assert [row for _, made in beside for row in made] == rows
    assert all(rows[place] == made for place, made in beside)


def test_an_error_while_reading_ahead_is_told(shards, monkeypatch):
    monkeypatch.setattr(features_module, "threads_ahead", lambda device: 3)
    with pytest.raises(InputError, match="channel 'w9' is not one of w1, w2, w3, w4"):
        means(shards, [0, 1, 2], chosen=("w1", "w2", "w9"))


def test_a_network_left_in_training_mode_is_frozen(shards):
    encoder = random_encoder("test_resnet", 32, 3, seed=0)
    encoder.backbone.train()
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    extract_features(encoder, shards, CHANNELS[:3], np.arange(7), 3, "float32", "test")
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def plainly(encoder, shards: Shards) -> np.ndarray:
    """Return features of all crops by the network itself: eager, float32, in one batch."""
    crops = shards.read_composite(np.arange(len(shards)), CHANNELS[:3])
    with torch.inference_mode():
        return encoder.backbone.eval()(normalise(crops, encoder.input_spec)).numpy()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["resnet18", "vgg16", "convnext_tiny"])
def test_the_fast_way_changes_no_feature(shards, architecture, precision):
    encoder = random_encoder(architecture, 32, 3, seed=0)
    make_statistics_uneven(encoder.backbone)
    usual = plainly(encoder, shards)
    found, _ = extract_features(encoder, shards, CHANNELS[:3], np.arange(7), 7, precision, "test")
    cosine = (found * usual).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(usual, axis=1)
    assert cosine.min() > (0.999 if precision == "bfloat16" else 0.999999)
    if precision == "bfloat16":
        assert not np.allclose(found, usual, rtol=1e-5)  # it was computed in that precision


def make_statistics_uneven(network: nn.Module) -> None:
    """Give BatchNorm means, variances, weights and biases that folding must take into account."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 2.0, generator=generator)
            for values in (module.running_mean, module.bias.data):
                values.uniform_(-0.2, 0.2, generator=generator)


@pytest.mark.parametrize(
    ("least", "wanted", "expected"),
    [(0.999, "auto", "bfloat16"), (1.1, "auto", "float32"), (1.1, "bfloat16", "bfloat16")],
)
def test_auto_takes_bfloat16_only_if_features_stay_the_same(
    shards, monkeypatch, least, wanted, expected
):
    monkeypatch.setattr(features_module, "precision_on", lambda place, wanted: "bfloat16")
    monkeypatch.setattr(features_module, "LEAST_COSINE", least)
    encoder = random_encoder("resnet18", 32, 3, seed=0)
    rows = np.arange(7)
    found, precision = extract_features(encoder, shards, CHANNELS[:3], rows, 3, wanted, "test")
    assert precision == expected
    named, _ = extract_features(encoder, shards, CHANNELS[:3], rows, 3, expected, "test")
    np.testing.assert_array_equal(found, named)


class Contrary(nn.Module):
    """A network whose way depends on its input, so that it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        values = self.layers(x).mean(dim=(2, 3))
        return values if x.max() > 2 else -values


def test_a_network_that_cannot_be_traced_has_features_too(shards):
    torch.manual_seed(0)
    encoder = describe(Contrary(), "control", "contrary", PLAIN, {})
    make_statistics_uneven(encoder.backbone)
    found, _ = extract_features(encoder, shards, CHANNELS[:3], np.arange(7), 7, "float32", "test")
    np.testing.assert_allclose(found, plainly(encoder, shards), rtol=1e-4, atol=1e-6)


def test_no_crops_give_no_features(shards):
    assert means(shards, np.empty(0, int)).shape == (0, 3)


class Poison(Means):
    """Not a number for the crop whose red is 43."""

    def forward(self, x):
        values = super().forward(x)
        values[(values[:, 0] - 43).abs() < 0.5, 1] = float("nan")
        return values


def test_features_that_are_no_numbers_name_their_crop(shards):
    encoder = describe(Poison(), "control", "poison", PLAIN, {})
    with pytest.raises(InputError) as caught:
        extract_features(
            encoder, shards, ("w4", "w2", "w1"), np.array([6, 4, 0]), 2, "float32", "poison s"
        )
    assert str(caught.value) == (
        "poison s: the features of crop s/p1/B02/s1/x0004y0000 are not finite numbers"
    )


@pytest.mark.parametrize("chosen", [("w2",), ("w3", "w1"), ("w2", "w4", "w1", "w3")])
def test_a_composite_of_any_number_of_channels_has_features(shards, chosen):
    plain = InputSpec(8, (0.0,) * len(chosen), (1.0,) * len(chosen))
    encoder = describe(Means(), "control", "means", plain, {})
    found, _ = extract_features(encoder, shards, chosen, np.array([5, 0]), 2, "float32", "means")
    expected = [[start + CHANNELS.index(name) for name in chosen] for start in (50, 0)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("chosen", [CHANNELS, CHANNELS[:1]])
def test_a_composite_of_another_number_of_channels_than_the_encoders_is_refused(shards, chosen):
    with pytest.raises(InputError, match=f"^means: .* 3 channels, but this one has {len(chosen)} "):
        means(shards, [0], chosen=chosen)


def test_a_channel_that_the_shard_lacks_is_named(shards):
    with pytest.raises(InputError, match="channel 'w5' is not one of w1, w2, w3, w4"):
        means(shards, [0], chosen=("w5", "w2", "w1"))


def write(path: Path, crops: list[str], matrix: np.ndarray) -> Path:
    table = features_table(crops, matrix)
    write_table(table, path, features_schema(matrix.shape[1]))
    return path


def test_features_are_read_back_file_after_file(tmp_path):
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    two = -np.ones((1, 3), np.float32)
    paths = [write(tmp_path / "one", ["a", "b"], one), write(tmp_path / "two", ["c"], two)]
    assert pq.read_schema(paths[0]).field("vector").type.list_size == 3
    index, matrix = read_features(paths)
    assert index.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(matrix, np.concatenate([one, two]))
    assert matrix.dtype == np.float32
