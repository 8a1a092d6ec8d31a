"""Encoders that measure: known values, standardised over unlabelled crops, saved and read back."""

import numpy as np
import pytest

from hcsqc.core.errors import InputError
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.crops.training_crops import training_crops
from hcsqc.encoders.image_quality import MEASURES as QUALITY
from hcsqc.encoders.measures import (
    MEASURES,
    fit_measures,
    intensity_and_size,
    measured_encoder,
    nucleus_and_ring,
)
from hcsqc.encoders.store import load_encoder, save_encoder
from hcsqc.features.extract import extract_features

CHANNELS = ("w1", "w4", "w5")
WELLS = ("B02", "B03")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    """Return 20 noisy crops, half of them in each well; area and brightness grow with the row."""
    rng = np.random.default_rng(0)
    rows = np.arange(20)
    level = (5 * rows)[:, None, None, None] + np.array([0, 40, 80])[None, :, None, None]
    pixels = (level + rng.integers(0, 30, (20, 3, 32, 32))).astype(np.uint8)
    fields = [f"s/p1/{WELLS[row // 10]}/s1" for row in rows]
    path = tmp_path_factory.mktemp("crops") / "p1.parquet"
    writer = ShardWriter(path, ShardFormat(CHANNELS, 32, "uint8", {}))
    numbers = {"x_px": rows, "y_px": rows, "nucleus_area_px": 100 + 10 * rows}
    names = [f"{field}/x{row:04d}y0000" for row, field in enumerate(fields)]
    writer.add({"crop_id": names, "field_id": fields, **numbers}, pixels)
    writer.close()
    return Shards([path])


def test_intensity_and_size_are_the_means_of_the_channels_and_the_nucleus_area():
    crops = np.zeros((2, 3, 4, 4), np.uint8)
    crops[1, 0], crops[1, 2, :2] = 10, 200
    found = intensity_and_size(crops, np.array([150, 300]), "window")
    assert found.tolist() == [[0, 0, 0, 150], [10, 0, 100, 300]]


def test_measures_of_the_cell_do_not_see_what_lies_beside_it():
    """A nucleus of radius 8 px in a window of 64; brightness beyond two radii is a neighbour's."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 60, (4, 2, 64, 64), np.uint8)
    other = crops.copy()
    other[:, :, :12] = 255
    area = np.full(4, np.pi * 8**2)
    for name in MEASURES:
        for region in ("cell", "window"):
            if (name, region) == ("nucleus_and_ring", "window"):
                continue
            found, beside = (MEASURES[name](one, area, region) for one in (crops, other))
            same = np.array_equal(found, beside)
            assert same == (region == "cell"), (name, region)


def test_nucleus_and_ring_are_the_grey_levels_of_a_circle_and_of_a_ring_twice_as_wide():
    crop = np.full((1, 1, 64, 64), 3, np.uint8)
    away = np.hypot(*(np.ogrid[-32:32, :1][0], np.arange(-32, 32)[None]))
    crop[0, 0, away < 16] = 7
    crop[0, 0, away < 8] = 20
    crop[0, 0, 32, 32] = 255
    nucleus, ring = np.split(nucleus_and_ring(crop, np.array([np.pi * 8**2]), "cell")[0][:10], 2)
    inside = crop[0, 0][away < 8]
    np.testing.assert_allclose(nucleus[:3], [inside.mean(), inside.std(), 255], rtol=1e-5)
    assert nucleus[3:].tolist() == [20, 20]
    assert ring.tolist() == [7, 0, 7, 7, 7]


def test_crops_whose_nuclei_differ_in_size_are_measured_each_by_its_own():
    rng = np.random.default_rng(1)
    crops = rng.integers(0, 255, (5, 2, 64, 64), np.uint8)
    area = np.array([0, 80, 300, 300, 9000])
    for name in MEASURES:
        together = MEASURES[name](crops, area, "cell")
        alone = [MEASURES[name](crops[[i]], area[[i]], "cell")[0] for i in range(5)]
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
        assert len(MEASURES[name](crops[:0], area[:0], "cell")) == 0


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_standardised_over_the_training_crops_and_only_these(name, shards):
    crops = training_crops(shards.paths, CHANNELS, ["B03"])
    encoder = measured_encoder(name, "control", crops, "window")
    assert encoder.provenance["crops"] == 10 and not encoder.trainable
    features = extract_features(encoder, shards, CHANNELS, np.arange(10), 4, "float32", name)[0]
    varies = features.std(axis=0) > 0
    assert varies.sum() > len(CHANNELS)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features[:, varies].std(axis=0), 1, atol=1e-3)
    others = extract_features(encoder, shards, CHANNELS, np.arange(10, 20), 4, "float32", name)[0]
    assert abs(others.mean()) > 0.1, "the other well is brighter and its nuclei larger"


def test_pretraining_plates_without_a_nucleus_are_blamed_and_not_the_wells(tmp_path, shards):
    empty = tmp_path / "empty.parquet"
    ShardWriter(empty, ShardFormat(CHANNELS, 32, "uint8", {})).close()
    with pytest.raises(InputError, match="empty.parquet hold none; list plates with nuclei under"):
        training_crops([empty], CHANNELS, ["B03"])
    assert len(training_crops([empty, *shards.paths], CHANNELS, ["B03"])) == 10


def test_a_measure_that_never_varies_stays_finite(shards):
    crops = training_crops(shards.paths, CHANNELS, ["B03"])
    crops.shards.index["nucleus_area_px"] = 100
    encoder = measured_encoder("intensity_and_size", "control", crops, "window")
    assert encoder.backbone.scale[-1] == 1 and encoder.backbone.centre[-1] == 100


@pytest.mark.parametrize(
    ("name", "width"),
    [("intensity_and_size", 4), ("image_quality", None), ("nucleus_and_ring", 31)],
)
def test_a_measuring_encoder_gives_the_same_features_when_read_back(name, width, shards, tmp_path):
    encoder = measured_encoder(
        name, "classical", training_crops(shards.paths, CHANNELS, []), "cell"
    )
    assert encoder.width == (width or len(CHANNELS) * len(QUALITY))
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    assert (read.kind, read.architecture, read.trainable) == ("classical", name, False)
    assert read.pooling.region == "cell"
    rows = np.array([7, 2, 11])
    again, first = (
        extract_features(one, shards, CHANNELS, rows, 2, "float32", name)[0]
        for one in (read, encoder)
    )
    np.testing.assert_array_equal(again, first)


def test_a_measuring_encoder_refuses_a_composite_of_other_length(shards):
    encoder = measured_encoder(
        "intensity_and_size", "control", training_crops(shards.paths, CHANNELS, []), "window"
    )
    with pytest.raises(InputError, match="composites of 3 channels, but this one has 2"):
        extract_features(encoder, shards, CHANNELS[:2], np.arange(2), 2, "float32", "two")


def test_measures_are_the_same_whatever_the_batch(shards, monkeypatch):
    crops = training_crops(shards.paths, CHANNELS, [])
    whole = fit_measures("image_quality", crops, "window")
    monkeypatch.setattr("hcsqc.encoders.measures.BATCH", 7)
    parts = fit_measures("image_quality", crops, "window")
    np.testing.assert_allclose(parts.centre, whole.centre, rtol=1e-6)
