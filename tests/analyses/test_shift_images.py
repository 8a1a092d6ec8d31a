"""Changed crops: orders of channels, pixels of another length, and the table of their features."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcsqc.analyses.shift_images import (
    MATCHED_PIXEL_SIZE,
    PERMUTED_CHANNELS,
    MatchedPixels,
    changed_images,
    match_pixels,
    permutations,
    permuted_composites,
    read_variants,
)
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.schema import write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.standardised import StandardisedMeasures
from hcsqc.encoders.store import Encoder, random_encoder, save_encoder
from scripts.analyses import embed_shift_variants as script

CHANNELS = ("w1", "w2", "w4")
SIDE = 16


@pytest.fixture(autouse=True)
def threads():
    """Leave torch's threads as they were: the script sets them for its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plate(tmp_path):
    """Return a shard of 5 crops, where crop i has value 10 i + channel all over."""
    path = tmp_path / "p1.parquet"
    values = 10 * np.arange(5)[:, None] + np.arange(3)
    pixels = np.broadcast_to(values[:, :, None, None], (5, 3, SIDE, SIDE)).astype(np.uint8)
    crops = {"crop_id": [f"b/p1/B0{i}/s1/x000{i}y0000" for i in range(5)], "x_px": range(5)}
    crops |= {"field_id": ["b/p1/B02/s1"] * 5, "y_px": [0] * 5, "nucleus_area_px": [100] * 5}
    with atomic(path) as temporary:
        writer = ShardWriter(temporary, ShardFormat(CHANNELS, SIDE, "uint8", {}))
        writer.add(crops, pixels)
        writer.close()
    return path


def disc(radius: float, side: int = 128, dim: int = 20, bright: int = 220) -> np.ndarray:
    """Return a crop of two channels, each with a disc about its centre."""
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    inside = rows**2 + columns**2 <= radius**2
    return np.stack([np.where(inside, bright, dim)] * 2).astype(np.uint8)[None]


def radius_of(plane: np.ndarray) -> float:
    return np.sqrt((plane > 120).sum() / np.pi)


def test_orders_are_all_but_the_own_one():
    assert permutations(3) == [(1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
    assert permutations(1) == []
    assert len(permutations(4)) == 23


def test_a_permuted_composite_is_named_by_the_channel_at_each_place():
    named = permuted_composites(["w4", "w5", "w1"])
    assert named["permuted channels 2-1-3"] == ["w5", "w4", "w1"]
    assert named["permuted channels 2-3-1"] == ["w5", "w1", "w4"]
    assert len({tuple(names) for names in named.values()}) == 5


def test_a_factor_of_one_changes_nothing():
    crops = np.random.default_rng(0).integers(0, 255, (3, 4, 31, 31), dtype=np.uint8)
    matched = match_pixels(crops, 1.0)
    np.testing.assert_array_equal(matched, crops)
    assert not np.shares_memory(matched, crops)


@pytest.mark.parametrize("factor", [0.5, 0.656, 0.9, 1.1, 1.5, 2.02])
def test_the_radius_of_a_disc_grows_by_the_factor(factor):
    matched = match_pixels(disc(radius=25), factor)
    assert matched.shape == (1, 2, 128, 128)
    assert matched.dtype == np.uint8
    for plane in matched[0]:
        middle = plane if factor > 1 else plane[24:-24, 24:-24]  # without reflections
        assert radius_of(middle) == pytest.approx(25 * factor, rel=0.02)


@pytest.mark.parametrize("factor", [0.4, 0.7, 1.3, 3.0])
@pytest.mark.parametrize("side", [32, 33])
def test_what_is_symmetric_about_the_centre_stays_so(factor, side):
    matched = match_pixels(disc(radius=9, side=side), factor).astype(int)
    for axis in (2, 3):
        assert np.abs(matched - np.flip(matched, axis)).max() <= 1


def test_shrinking_averages_areas_within_and_reflects_only_outside():
    crops = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)
    matched = match_pixels(crops, 0.5)
    halved = crops.reshape(2, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    inside = matched[:, :, 16:48, 16:48]
    np.testing.assert_allclose(inside, halved, atol=1)
    np.testing.assert_array_equal(matched[:, :, 15::-1, 16:48], inside[:, :, 1:17])
    np.testing.assert_array_equal(matched[:, :, 16:48, 48:], inside[:, :, :, -2:-18:-1])


def test_a_picture_much_smaller_than_the_window_is_reflected_again_and_again():
    assert match_pixels(disc(radius=25), 0.1).shape == (1, 2, 128, 128)


@given(st.floats(0.2, 4.0), st.integers(0, 255))
def test_an_even_crop_stays_even(factor, grey):
    crops = np.full((1, 1, 20, 20), grey, np.uint8)
    np.testing.assert_array_equal(match_pixels(crops, factor), crops)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_positive_number_is_refused(factor):
    with pytest.raises(InputError, match="pixel factor is .*, expected a positive number"):
        match_pixels(disc(5), factor)


def test_a_factor_that_leaves_no_picture_is_refused():
    with pytest.raises(InputError, match="shrinks crops of 128 px to 0 px; check pixel_um"):
        match_pixels(disc(5), 0.001)


def test_matched_shards_magnify_crops_and_areas_of_nuclei(plate):
    shards = Shards([plate])
    matched = MatchedPixels(shards, 1.5)
    assert len(matched) == 5
    crops = matched.read_composite(np.array([3, 1]), ("w4", "w1"))
    assert crops[:, :, 0, 0].tolist() == [[32, 30], [12, 10]]
    assert crops.shape == (2, 2, SIDE, SIDE)
    assert matched.index["nucleus_area_px"].tolist() == [225.0] * 5
    assert matched.index["crop_id"].tolist() == shards.index["crop_id"].tolist()
    assert shards.index["nucleus_area_px"].tolist() == [100] * 5


@pytest.mark.parametrize(
    ("chosen", "most", "factor", "reasons"),
    [
        (CHANNELS, 3, 2.0, {}),
        (CHANNELS, 3, None, {MATCHED_PIXEL_SIZE: "the pixel size of a screen is not known"}),
        (CHANNELS, 3, 1.0, {MATCHED_PIXEL_SIZE: "both screens have the same pixel size"}),
        (CHANNELS[:1], 3, 2.0, {PERMUTED_CHANNELS: "one channel has no other order"}),
        (CHANNELS, 2, 2.0, {PERMUTED_CHANNELS: "3 channels have too many orders; at most 2 "
                            "channels are permuted"}),
    ],
)  # fmt: skip
def test_changes_are_made_or_have_a_reason(plate, chosen, most, factor, reasons):
    made, not_made = changed_images(Shards([plate]), chosen, most, factor)
    assert not_made == reasons
    permuted = PERMUTED_CHANNELS not in reasons
    expected = list(permuted_composites(chosen)) if permuted else []
    expected += [] if MATCHED_PIXEL_SIZE in reasons else [MATCHED_PIXEL_SIZE]
    assert list(made) == expected


def test_channels_that_an_encoder_chooses_by_role_are_not_permuted(plate):
    made, not_made = changed_images(Shards([plate]), CHANNELS, 3, 2.0, by_role=True)
    assert list(made) == [MATCHED_PIXEL_SIZE]
    assert not_made == {PERMUTED_CHANNELS: "the encoder chooses channels by what they show"}


def write_labels(path, crop_ids):
    labels = pd.DataFrame({"crop_id": crop_ids, "plate": "p1", "well": "B02", "label": "normal"})
    labels = labels.assign(artefact=None, strength=None, annotator="a", source="s")
    write_table(labels.assign(selection="random", compound=None), path, "labels")
    return path


def run(monkeypatch, tmp_path, plate, encoder, *more: str):
    """Run the script for crops 3 and 1; return what `read_variants` reads."""
    save_encoder(encoder, tmp_path / "means" / "seed0" / "encoder.safetensors")
    labels = write_labels(
        tmp_path / "labels.parquet", ["b/p1/B03/s1/x0003y0000", "b/p1/B01/s1/x0001y0000"]
    )
    words = ["--encoder", tmp_path / "means" / "seed0" / "encoder.safetensors"]
    words += ["--labels", labels, "--crops", plate, "--composite", *CHANNELS]
    words += ["--most-channels", 3, "--batch-size", 2, "--precision", "float32"]
    words += ["--output", tmp_path / "b.parquet", "--record", tmp_path / "run.json", *more]
    monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, words)])
    script.main()
    return read_variants(tmp_path / "b.parquet")


def measured() -> Encoder:
    """Return the encoder of mean intensities and area."""
    backbone = StandardisedMeasures("intensity_and_size", 4)
    spec = InputSpec(SIDE, (0.0,) * 3, (1.0,) * 3)
    return Encoder(backbone, "control", "intensity_and_size", spec, 4, False, {})


def test_the_script_writes_the_features_of_labelled_crops_by_change(monkeypatch, tmp_path, plate):
    found, not_made = run(monkeypatch, tmp_path, plate, measured(), "--pixel-factor", "2")
    assert not_made == {}
    assert list(found) == [*permuted_composites(CHANNELS), MATCHED_PIXEL_SIZE]
    crops, vectors = found["permuted channels 3-1-2"]
    assert crops.tolist() == ["b/p1/B03/s1/x0003y0000", "b/p1/B01/s1/x0001y0000"]
    np.testing.assert_array_equal(vectors, [[32, 30, 31, 100], [12, 10, 11, 100]])
    np.testing.assert_array_equal(
        found[MATCHED_PIXEL_SIZE][1], [[30, 31, 32, 400], [10, 11, 12, 400]]
    )
    assert vectors.dtype == np.float32


def test_the_script_takes_networks_and_writes_what_it_could_not_do(monkeypatch, tmp_path, plate):
    encoder = random_encoder("test_resnet", 32, 3, seed=0)
    found, not_made = run(monkeypatch, tmp_path, plate, encoder)
    assert not_made == {MATCHED_PIXEL_SIZE: "the pixel size of a screen is not known"}
    assert list(found) == list(permuted_composites(CHANNELS))
    first, second = (found[name][1] for name in list(found)[:2])
    assert first.shape == (2, encoder.width)
    assert np.abs(first - second).max() > 1e-5


def test_a_file_that_is_no_table_of_changes_is_refused(tmp_path, plate):
    with pytest.raises(InputError, match="p1.parquet: is not a table of features of changed crops"):
        read_variants(plate)


def test_no_change_at_all_is_a_table_without_rows(monkeypatch, tmp_path, plate):
    found, not_made = run(monkeypatch, tmp_path, plate, measured(), "--most-channels", "2")
    assert found == {}
    assert set(not_made) == {PERMUTED_CHANNELS, MATCHED_PIXEL_SIZE}
