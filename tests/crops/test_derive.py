"""A derived screen: each crop unchanged, beside it a copy with a known artefact."""

import cv2
import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.cut import CropSettings, Plate, crop_plate
from hcsqc.crops.derive import WEAKEST, derive_plate, derived_tables
from hcsqc.crops.focus import edge_widths
from hcsqc.crops.nuclei import NucleusSettings, nuclei_shown
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.screens.artefacts import SIMULATED
from hcsqc.screens.layouts import Source, index_plate
from hcsqc.screens.noise import estimate_noise
from hcsqc.screens.scale import PlateImages, ScaleSettings, measure_scale, unscale
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_plate

KNEE = 0.9
WINDOW = 64
CHANNELS = ["w1", "w2", "w3", "w4", "w5"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """Return shard and scale of a simulated plate, two wells of one field."""
    folder = tmp_path_factory.mktemp("parent")
    simulation = SimulationSettings("u2os", ("B02", "C03"), 1, 520, 696, 70, 0.1, 0.0, 0.0, 3)
    simulate_plate(simulation, "20001", folder / "images", folder / "image.csv", "test")
    source = Source("bbbc022", folder / "images", tuple(CHANNELS), folder / "image.csv")
    fields, _ = index_plate(source, "sim", "20001")
    ranges = ScaleSettings(32, 0.5, 2.0, 200)
    scale, shape, _ = measure_scale(
        fields,
        PlateImages("20001", folder / "images", CHANNELS),
        ranges,
        nuclei_shown("w1", 25, 80),
    )
    plate = Plate(fields, folder / "images", CHANNELS, "w1", scale, shape)
    cropping, nucleus = (
        CropSettings(WINDOW, 1.0, "drop", "uint8", KNEE, 0.0),
        NucleusSettings("fast", 25, 80),
    )
    crop_plate(plate, cropping, nucleus, folder / "20001.parquet", 1, "test")
    return folder / "20001.parquet", scale


def derive(parent, shard, screen="derived"):
    path, scale = parent
    return derive_plate(screen, path, scale, KNEE, "w1", 25.0, 1, shard, "test")


@pytest.fixture(scope="module")
def derived(parent, tmp_path_factory):
    shard = tmp_path_factory.mktemp("derived") / "20001.parquet"
    before = sha256(parent[0])
    crops, truth = derive(parent, shard)
    assert sha256(parent[0]) == before
    return shard, crops, truth


def pairs(derived):
    """Return the pixels of originals and copies, in one order, and the copies' truth."""
    shard, crops, truth = derived
    copies = truth[truth["artefact"] != "none"]
    names = [name.rpartition("/")[0] for name in copies["crop_id"]]
    shards = Shards([shard])
    originals = shards.read(shards.rows_of(names))
    return originals, shards.read(shards.rows_of(copies["crop_id"])), copies


def test_originals_are_unchanged(parent, derived):
    originals, _, copies = pairs(derived)
    crops = Shards([parent[0]])
    assert len(crops) > 50 and len(copies) == len(crops)
    of_parent = [
        "sim" + name.rpartition("/")[0].removeprefix("derived") for name in copies["crop_id"]
    ]
    np.testing.assert_array_equal(originals, crops.read(crops.rows_of(of_parent)))
    assert Shards([derived[0]]).format == crops.format


def test_every_copy_differs_from_its_original(derived):
    originals, copies, truth = pairs(derived)
    change = np.abs(copies.astype(int) - originals).reshape(len(copies), -1)
    same = truth["crop_id"][change.max(axis=1) == 0].tolist()
    assert same == []
    assert np.median(change.mean(axis=1)) > 2


@pytest.mark.parametrize("kind", SIMULATED)
def test_copy_looks_like_its_artefact(derived, kind):
    originals, copies, truth = pairs(derived)
    chosen = (truth["artefact"] == kind).to_numpy() & (truth["strength"] > 0.5).to_numpy()
    before, after = originals[chosen].astype(np.float32), copies[chosen].astype(np.float32)
    y, x = np.mgrid[:WINDOW, :WINDOW] - WINDOW / 2
    away = np.hypot(y, x)
    assert len(before) >= 2

    def sharpness(pixels):
        return [cv2.Laplacian(plane, -1).var() for crop in pixels for plane in crop]

    def smoothed(pixels):  # without the camera's noise, which a defocus does not take away
        return [[cv2.GaussianBlur(plane, (0, 0), 1.5) for plane in crop] for crop in pixels]

    if kind == "blur":
        smooth_before, smooth_after = (sharpness(smoothed(crops)) for crops in (before, after))
        assert np.mean(smooth_after) < 0.3 * np.mean(smooth_before)
    elif kind == "noise":
        assert np.mean(sharpness(after)) > 2 * np.mean(sharpness(before))
    elif kind == "empty":  # the cell in the middle fades
        assert after[..., away < 19].mean() < 0.7 * before[..., away < 19].mean()
    elif kind == "dead":  # a bright ball in the middle, and no change in the corners
        ball, corners = away < 6, away > 40
        assert (after[..., ball].mean(axis=(0, 2)) > before[..., ball].mean(axis=(0, 2))).all()
        np.testing.assert_array_equal(after[..., corners], before[..., corners])
    else:  # saturation, autofluorescence and debris add light
        assert (after.mean(axis=(1, 2, 3)) > before.mean(axis=(1, 2, 3))).all()


def test_copies_are_named_by_kind_and_lie_in_the_field_of_their_original(derived):
    _, crops, truth = derived
    by_name = crops.set_index("crop_id")
    assert by_name.index.is_unique
    for row in truth.itertuples():
        place = by_name.loc[row.crop_id]
        assert row.crop_id.startswith(place["field_id"] + "/x")
        assert place["field_id"].startswith("derived/20001/")
        if row.artefact != "none":
            name, _, kind = row.crop_id.rpartition("/")
            assert kind == row.artefact
            pd.testing.assert_series_equal(place, by_name.loc[name], check_names=False)


def test_truth_covers_every_crop(derived, tmp_path):
    shard, crops, truth = derived
    assert set(truth["crop_id"]) == set(crops["crop_id"]) == set(Shards([shard]).index["crop_id"])
    assert (truth["artefact"] == "none").sum() == len(truth) / 2
    planted = truth[truth["artefact"] != "none"]
    assert set(planted["artefact"]) == set(SIMULATED)
    assert planted["strength"].between(WEAKEST, 1).all()
    assert (truth["strength"][truth["artefact"] == "none"] == 0).all()
    write_table(truth, tmp_path / "truth.parquet", "crop_truth")


def test_edges_are_those_of_the_originals_nuclei(parent, derived):
    _, _, truth = derived
    edge = truth.set_index("crop_id")["edge"]
    copies = truth["crop_id"][truth["artefact"] != "none"]
    assert edge[copies].equals(edge[copies.str.rpartition("/")[0]].set_axis(copies))
    crops = Shards([parent[0]])
    dna = crops.read(np.arange(len(crops)))[:, 0]
    names = "derived" + crops.index["crop_id"].str.removeprefix("sim")
    np.testing.assert_allclose(edge[names], edge_widths(dna) / 25.0)
    assert edge.median() < 0.3


def test_a_copy_is_as_odd_as_its_original(derived):
    _, _, truth = derived
    odd = truth.set_index("crop_id")["oddness"]
    copies = truth["crop_id"][truth["artefact"] != "none"]
    originals = copies.str.rpartition("/")[0]
    assert odd[copies].tolist() == odd[originals].tolist()
    assert odd.nunique() > 0.9 * len(copies) and (odd > 0).all()


def test_several_copies_of_a_crop_have_different_kinds(parent, tmp_path):
    path, scale = parent
    shard = tmp_path / "three.parquet"
    crops, truth = derive_plate("derived", path, scale, KNEE, "w1", 25.0, 3, shard, "test")
    copies = truth[truth["artefact"] != "none"]
    kinds = copies.groupby(copies["crop_id"].str.rpartition("/")[0])["artefact"].agg(
        ["size", "nunique"]
    )
    assert (kinds == 3).all(axis=None) and len(kinds) == len(Shards([path]))
    shards = Shards([shard])
    assert (
        shards.index["crop_id"].tolist() == crops["crop_id"].tolist() == truth["crop_id"].tolist()
    )
    pixels = shards.read(np.arange(4))
    assert len(np.unique(pixels.reshape(4, -1), axis=0)) == 4
    odd = truth["oddness"].to_numpy().reshape(-1, 4)
    assert (odd == odd[:, :1]).all() and len(np.unique(odd)) > 1


def test_more_copies_than_kinds_are_refused(parent, tmp_path):
    path, scale = parent
    with pytest.raises(InputError, match="screen s: copies is 8, but there are 7 kinds"):
        derive_plate("s", path, scale, KNEE, "w1", 25.0, 8, tmp_path / "p.parquet", "test")


def test_same_parent_gives_the_same_screen(parent, derived, tmp_path):
    shard, crops, truth = derived
    crops_again, truth_again = derive(parent, tmp_path / "again.parquet")
    assert sha256(tmp_path / "again.parquet") == sha256(shard)
    pd.testing.assert_frame_equal(crops_again, crops)
    pd.testing.assert_frame_equal(truth_again, truth)


def test_copy_depends_on_the_crop_and_not_on_its_company(parent, derived, tmp_path):
    crops = Shards([parent[0]])
    few = np.array([40, 3, 17])
    writer = ShardWriter(tmp_path / "few.parquet", crops.format)
    writer.add(crops.index.iloc[few], crops.read(few))
    writer.close()
    _, truth = derive((tmp_path / "few.parquet", parent[1]), tmp_path / "derived.parquet")
    whole, part = Shards([derived[0]]), Shards([tmp_path / "derived.parquet"])
    assert len(truth) == 6
    np.testing.assert_array_equal(
        part.read(part.rows_of(truth["crop_id"])), whole.read(whole.rows_of(truth["crop_id"]))
    )


def test_tables_of_a_derived_plate_agree_with_its_crops(derived, tmp_path):
    _, crops, _ = derived
    nuclei, summary = derived_tables(crops)
    write_table(nuclei, tmp_path / "nuclei.parquet", "nuclei")
    write_table(summary, tmp_path / "summary.parquet", "summary")
    back = read_table(tmp_path / "summary.parquet", "summary").set_index("field_id")
    assert nuclei["crop_id"].tolist() == crops["crop_id"].tolist() and nuclei["kept"].all()
    assert back["kept"].to_dict() == crops["field_id"].value_counts().to_dict()
    assert back[["plate", "well", "site"]].to_numpy().tolist() == [
        ["20001", "B02", 1],
        ["20001", "C03", 1],
    ]
    assert (back["found"] == back["kept"]).all() and set(back["status"]) == {"ok"}


def test_plate_without_crops_gives_an_empty_derived_plate(parent, tmp_path):
    empty = ShardFormat(tuple(CHANNELS), WINDOW, "uint8", {})
    ShardWriter(tmp_path / "empty.parquet", empty).close()
    crops, truth = derive((tmp_path / "empty.parquet", parent[1]), tmp_path / "derived.parquet")
    nuclei, summary = derived_tables(crops)
    assert len(crops) == len(truth) == len(nuclei) == len(summary) == 0


def test_blurred_copies_are_as_noisy_as_their_originals(parent, derived):
    scale = parent[1]
    low = scale["low"].to_numpy()
    originals, copies, truth = pairs(derived)
    blurred = (truth["artefact"] == "blur").to_numpy()
    before, after = (
        estimate_noise(unscale(crops[blurred], scale, KNEE), low) for crops in (originals, copies)
    )
    at = (low + 0.2 * (scale["high"] - low).to_numpy())[:, None, None]
    np.testing.assert_allclose(after.variance(at), before.variance(at), rtol=0.1)
