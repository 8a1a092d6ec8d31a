"""From fields to crops: every pixel, every nucleus and every failure is accounted for."""

import builtins
import errno
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from skimage.draw import disk
from xxhash import xxh3_128

import hcsqc.crops.cut
import hcsqc.screens.images.read
from hcsqc.core import patience
from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.crops.cut import CropSettings, Plate, crop_id, crop_plate, cut_windows, window_inside
from hcsqc.crops.nuclei import Nuclei, NucleusSettings, nuclei_shown
from hcsqc.crops.resume import PartialPlate
from hcsqc.crops.shards import ShardFormat, Shards
from hcsqc.screens.layouts import Source, index_plate
from hcsqc.screens.scale import PlateImages, ScaleSettings, measure_scale
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_plate

SHAPE = 160, 200
WINDOW = 32
CROPPING = CropSettings(
    window_px=WINDOW,
    crop_px_per_px=1.0,
    border="drop",
    dtype="uint8",
    scale_knee=0.9,
    failed_fields=0.5,
)
NUCLEUS = NucleusSettings("fast", nucleus_diameter_px=25, nucleus_smallest_px=80)
SCALE = pd.DataFrame(
    {
        "channel": ["w1", "w2"],
        "low": [150.0, 120.0],
        "high": [1000.0, 1500.5],
        "top": 4095.0,
        "bits": 12,
    }
)
# Whole windows around the first three; the others' cross the border.
CENTRES = [(40, 40), (100, 60), (160, 120), (14, 100), (100, 150)]
WHOLE = 3


def planes(seed=0, centres=CENTRES, shape=SHAPE):
    """Return DNA with discs at (x, y), and a second channel that is all noise."""
    rng = np.random.default_rng(seed)
    dna = 160 + rng.normal(0, 4, shape)
    for x, y in centres:
        dna[disk((y, x), 11.5, shape=shape)] += 700
    return [np.rint(dna).astype(np.uint16), rng.integers(0, 4096, shape).astype(np.uint16)]


def make_plate(images, fields):
    """Write fields (lists of planes) and return the plate that lists them."""
    images.mkdir(exist_ok=True)
    rows = []
    for site, images_of_field in enumerate(fields, start=1):
        paths = [f"s{site}w{channel}.tif" for channel in (1, 2)]
        for path, plane in zip(paths, images_of_field, strict=True):
            tifffile.imwrite(images / path, plane)
        row = {"field_id": f"s/p/B02/s{site}", "plate": "p", "well": "B02", "site": site}
        rows.append(row | {"image_path": paths, "image_page": [None, None], "problem": None})
    return Plate(pd.DataFrame(rows), images, ["w1", "w2"], "w1", SCALE, SHAPE)


def crop(plate, shard, threads=1, cropping=CROPPING):
    nuclei, summary, _ = crop_plate(plate, cropping, NUCLEUS, shard, threads, "test")
    check_accounts(nuclei, summary, shard, cropping.crop_px_per_px)
    return nuclei, summary


def check_accounts(nuclei, summary, shard, factor=1.0):
    """Check what must hold of any plate, and that the tables fit their schemas."""
    assert (summary["found"] == summary["kept"] + summary["dropped"]).all()
    assert (nuclei["reason"].isna() == nuclei["kept"]).all()
    assert len(nuclei) == summary["found"].sum()
    for row in summary.itertuples():
        inside = nuclei[nuclei["field_id"] == row.field_id]
        assert (len(inside), inside["kept"].sum()) == (row.found, row.kept)
        assert (row.status == "ok") == pd.isna(row.reason)
    crops, kept = Shards([shard]), nuclei[nuclei["kept"]]
    assert crops.index["crop_id"].tolist() == kept["crop_id"].tolist()
    # In the pixels of the crop, where the table of nuclei has those of the source.
    areas = [round(area * factor**2) for area in kept["area_px"]]
    assert crops.index["nucleus_area_px"].tolist() == areas
    write_table(nuclei, shard.with_suffix(".nuclei"), "nuclei")
    write_table(summary, shard.with_suffix(".summary"), "summary")


def scaled(plane, row):
    """Scale grey levels by the definition, without the table."""
    values = np.interp(plane, [row.low, row.high, row.top], [0, 0.9 * 255, 255])
    return np.rint(values).astype(np.uint8)


def test_every_pixel_of_every_crop_is_the_scaled_source(tmp_path):
    fields = [planes(0), planes(1, [(50, 50), (120, 90)])]
    nuclei, summary = crop(make_plate(tmp_path / "images", fields), tmp_path / "p.parquet")
    crops = Shards([tmp_path / "p.parquet"])
    assert crops.format.scale == {"w1": [150, 1000, 4095, 0.9], "w2": [120, 1500.5, 4095, 0.9]}
    assert len(crops) == summary["kept"].sum() == 5
    pixels = crops.read(range(5))
    rows = list(SCALE.itertuples())
    for place, row in enumerate(crops.index.itertuples()):
        source = fields[int(row.field_id[-1]) - 1]
        left, top = row.x_px - 16, row.y_px - 16
        for channel in (0, 1):
            window = source[channel][top : top + WINDOW, left : left + WINDOW]
            np.testing.assert_array_equal(pixels[place, channel], scaled(window, rows[channel]))
        assert row.crop_id == f"{row.field_id}/x{row.x_px:04d}y{row.y_px:04d}"


def test_nuclei_near_the_border_are_listed_and_not_cropped(tmp_path):
    plate = make_plate(tmp_path / "images", [planes()])
    nuclei, summary = crop(plate, tmp_path / "p.parquet")
    assert summary[["found", "kept", "dropped"]].to_numpy().tolist() == [[5, WHOLE, 2]]
    for centres, rows in (
        (CENTRES[:WHOLE], nuclei[nuclei["kept"]]),
        (CENTRES[WHOLE:], nuclei[nuclei["reason"] == "border"]),
    ):
        found = sorted(zip(rows["x_px"], rows["y_px"], strict=True))
        np.testing.assert_allclose(found, sorted(centres), atol=1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_window_is_inside_or_not_and_cut_where_it_lies(data):
    rows, columns = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    window, channels = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    count = data.draw(st.integers(0, 8))
    x = data.draw(st.lists(st.integers(0, columns - 1), min_size=count, max_size=count))
    y = data.draw(st.lists(st.integers(0, rows - 1), min_size=count, max_size=count))
    pixels = np.arange(1, channels * rows * columns + 1).reshape(channels, rows, columns)
    x, y = np.array(x, int), np.array(y, int)
    inside = window_inside(x, y, (rows, columns), window)
    padded = np.pad(pixels, ((0, 0), (window, window), (window, window)))  # 0 is outside
    first = window - window // 2
    expected = [
        padded[:, first + b : first + b + window, first + a : first + a + window]
        for a, b in zip(x, y, strict=True)
    ]
    assert inside.tolist() == [bool((cut > 0).all()) for cut in expected]
    cut = cut_windows(pixels, x[inside], y[inside], window)
    cut = np.array(cut).reshape(-1, channels, window, window)
    assert len(cut) == inside.sum()
    wanted = [window for window, keep in zip(expected, inside, strict=True) if keep]
    np.testing.assert_array_equal(cut, np.array(wanted).reshape(cut.shape))


def test_crop_is_named_by_its_field_and_centre():
    assert crop_id("BBBC022/20585/A01/s1", 123, 456) == "BBBC022/20585/A01/s1/x0123y0456"
    assert crop_id("s/p/A01/s1", 0, 12345) == "s/p/A01/s1/x0000y12345"


def truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, "s2w2.tif: truncated"),
        (lambda path: path.unlink(), "s2w2.tif: no such file"),
        (
            lambda path: tifffile.imwrite(path, np.zeros((100, 200), np.uint16)),
            "image of 100 x 200 px, the plate's are 160 x 200",
        ),
        (lambda path: tifffile.imwrite(path, np.zeros(SHAPE, np.float32)), "s2w2.tif: .*float32"),
    ],
    ids=["truncated", "missing", "other size", "float"],
)
def test_unreadable_field_is_listed_with_its_reason(tmp_path, spoil, reason):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(3)])
    spoil(tmp_path / "images" / "s2w2.tif")
    nuclei, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["status"].tolist() == ["ok", "failed", "ok"]
    assert summary["kept"].tolist() == [WHOLE, 0, WHOLE]
    assert re.search(reason, summary["reason"][1])
    assert set(nuclei["field_id"]) == {"s/p/B02/s1", "s/p/B02/s3"}


def test_field_with_a_problem_is_listed_with_it(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(0), planes(1)])
    plate.fields.loc[0, "problem"] = "no image of channel w2"
    plate.fields.at[0, "image_path"] = ["s1w1.tif", None]
    _, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["reason"].tolist()[0] == "no image of channel w2"
    assert summary["status"].tolist() == ["failed", "ok"]


def test_too_many_failures_are_refused_and_leave_no_shard(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(3)])
    truncate(tmp_path / "images" / "s1w1.tif")
    (tmp_path / "images" / "s3w2.tif").unlink()
    (tmp_path / "crops").mkdir()
    with pytest.raises(InputError, match="2 of 3 fields cannot be cropped") as error:
        crop_plate(plate, CROPPING, NUCLEUS, tmp_path / "crops" / "p.parquet", 1, "test")
    assert "crops.failed_fields = 0.5" in str(error.value)
    assert "s/p/B02/s1: s1w1.tif: truncated" in str(error.value)
    assert "s/p/B02/s3: s3w2.tif: no such file" in str(error.value)
    assert list((tmp_path / "crops").iterdir()) == []


def test_just_the_allowed_share_may_fail(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(0), planes(1)])
    (tmp_path / "images" / "s1w1.tif").unlink()
    _, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["status"].tolist() == ["failed", "ok"]
    strict = replace(CROPPING, failed_fields=0.49)
    with pytest.raises(InputError, match="1 of 2 fields"):
        crop(plate, tmp_path / "q.parquet", cropping=strict)


def test_threads_change_nothing(tmp_path):
    fields = [planes(site, CENTRES[: site % 5]) for site in range(9)]
    plate = make_plate(tmp_path / "images", fields)
    truncate(tmp_path / "images" / "s4w1.tif")
    one = crop(plate, tmp_path / "one.parquet", threads=1)
    three = crop(plate, tmp_path / "three.parquet", threads=3)
    for first, second in zip(one, three, strict=True):
        pd.testing.assert_frame_equal(first, second)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "three.parquet").read_bytes()


def test_plate_without_nuclei_gives_an_empty_shard(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(0, []), planes(1, [])])
    nuclei, summary = crop(plate, tmp_path / "p.parquet")
    assert len(nuclei) == 0 and summary["status"].tolist() == ["ok", "ok"]
    crops = Shards([tmp_path / "p.parquet"])
    assert len(crops) == 0 and crops.read([]).shape == (0, 2, WINDOW, WINDOW)


def test_plate_whose_fields_may_all_fail_gives_empty_tables(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(0)])
    (tmp_path / "images" / "s1w1.tif").unlink()
    lenient = replace(CROPPING, failed_fields=1.0)
    nuclei, summary = crop(plate, tmp_path / "p.parquet", cropping=lenient)
    assert len(nuclei) == 0 and summary["status"].tolist() == ["failed"]


def test_digests_of_the_images_are_recorded(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(0)])
    _, summary = crop(plate, tmp_path / "p.parquet")
    files = [tmp_path / "images" / name for name in ("s1w1.tif", "s1w2.tif")]
    expected = [xxh3_128(path.read_bytes()).hexdigest() for path in files]
    assert list(summary["image_digest"][0]) == expected


def test_nuclei_are_sought_in_the_named_channel(tmp_path):
    dna, noise = planes(0)
    plate = make_plate(tmp_path / "images", [[noise // 40 + 100, dna]])
    nuclei, _ = crop(replace(plate, nucleus_channel="w2"), tmp_path / "p.parquet")
    assert len(nuclei) == len(CENTRES)


@pytest.mark.parametrize(
    ("layout", "cell_line", "plate"),
    [("bbbc022", "u2os", "20001"), ("bbbc021", "mcf7", "Week1_22123")],
)
def test_simulated_plate_goes_from_images_to_crops(tmp_path, layout, cell_line, plate):
    images, csv = tmp_path / "images", tmp_path / "image.csv"
    simulation = SimulationSettings(cell_line, ("B02", "C03"), 1, 260, 348, 14, 0.2, 0.2, 0, 1)
    truth = simulate_plate(simulation, plate, images, csv, "test")
    channels = ["w1", "w2", "w3", "w4", "w5"] if layout == "bbbc022" else ["w1", "w2", "w4"]
    fields, strangers = index_plate(Source(layout, images, tuple(channels), csv), "sim", plate)
    scale, shape, _ = measure_scale(
        fields,
        PlateImages("p", images, channels),
        ScaleSettings(32, 0.5, 2.0, 200),
        nuclei_shown("w1", 25, 80),
    )
    assert strangers == [] and len(fields) == 2 and shape == (260, 348)
    cut = Plate(fields, images, channels, "w1", scale, shape)
    nuclei, summary = crop(cut, tmp_path / "p.parquet", cropping=replace(CROPPING, window_px=64))
    assert summary["status"].tolist() == ["ok", "ok"]
    assert 0 < summary["kept"].sum() < summary["found"].sum() < 1.5 * len(truth)
    assert Shards([tmp_path / "p.parquet"]).format.channels == tuple(channels)


# What the config may choose


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_pixel_equals_the_source_for_any_shape_type_and_channel_count(data):
    rows, columns = data.draw(st.integers(8, 40)), data.draw(st.integers(8, 40))
    count, kind = data.draw(st.integers(1, 6)), data.draw(st.sampled_from(["uint8", "uint16"]))
    border = data.draw(st.sampled_from(["drop", "reflect"]))
    dtype = data.draw(st.sampled_from(["uint8", "uint16"]))
    window = 2 * data.draw(st.integers(1, 9))
    top = 255 if kind == "uint8" else 4095
    channels = [f"c{number}" for number in range(count)]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    source = rng.integers(0, top + 1, (count, rows, columns)).astype(kind)
    x = rng.integers(-2, columns + 2, 6).astype(np.int32)
    y = rng.integers(-2, rows + 2, 6).astype(np.int32)
    places = np.unique(np.stack([x, y], axis=1), axis=0)
    found = Nuclei(places[:, 0], places[:, 1], np.ones(len(places), np.int32))
    scale = pd.DataFrame(
        {"channel": channels, "low": 10.0, "high": top * 0.6, "top": float(top), "bits": 12}
    )
    cropping = replace(CROPPING, window_px=window, border=border, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        paths = [f"{channel}.tif" for channel in channels]
        for path, plane in zip(paths, source, strict=True):
            tifffile.imwrite(images / path, plane)
        row = {"field_id": "s/p/B02/s1", "plate": "p", "well": "B02", "site": 1, "problem": None}
        table = pd.DataFrame([row | {"image_path": paths, "image_page": [None] * count}])
        plate = Plate(table, images, channels, "c0", scale, (rows, columns))
        plate = replace(plate, locations={("B02", 1): found})
        nuclei, _ = crop(plate, images / "p.parquet", cropping=cropping)
        crops = Shards([images / "p.parquet"])
        pixels, index = crops.read(range(len(crops))), crops.index
    most = np.iinfo(dtype).max
    whole = np.rint(np.interp(source, [10, top * 0.6, top], [0, 0.9 * most, most])).astype(dtype)
    side = 3 * max(rows, columns)  # reflected as often as a wide window asks for
    padded = np.pad(whole, ((0, 0), (side, side), (side, side)), mode="reflect")
    for place, row in enumerate(index.itertuples()):
        left, up = row.x_px - window // 2, row.y_px - window // 2
        expected = padded[:, side + up :, side + left :][:, :window, :window]
        np.testing.assert_array_equal(pixels[place], expected)
    reasons = nuclei.set_index(["x_px", "y_px"])["reason"]
    for column, line in places:
        in_field = 0 <= column < columns and 0 <= line < rows
        half = window // 2
        fits = half <= column <= columns - half and half <= line <= rows - half
        expected = "outside" if not in_field else None if fits or border == "reflect" else "border"
        reason = reasons[column, line]
        assert (None if pd.isna(reason) else reason) == expected


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.6])
def test_window_in_micrometres_holds_the_same_piece_of_the_field(tmp_path, factor):
    # A smooth pattern, whose value says where a pixel was before the field was resampled.
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    second = (10 * columns + 7 * rows).astype(np.uint16)
    plate = make_plate(tmp_path / "images", [[planes()[0], second]])
    scale = SCALE.assign(low=0.0, high=65535.0, top=65535.0)
    cropping = replace(CROPPING, crop_px_per_px=factor, dtype="uint16")
    crop(replace(plate, scale=scale), tmp_path / "p.parquet", cropping=cropping)
    crops = Shards([tmp_path / "p.parquet"])
    assert len(crops) >= 2
    middle = WINDOW // 2
    for pixels, row in zip(crops.read(range(len(crops))), crops.index.itertuples(), strict=True):
        values = pixels[1].astype(float)
        # The field's pixel under the nucleus' centre is in the middle, to within one pixel.
        expected = 10 * row.x_px + 7 * row.y_px
        assert abs(values[middle, middle] - expected) <= 17 * max(1, 1 / factor)
        # A step of a crop's pixel is 1 / factor of a step in the source.
        along = np.diff(values[2:-2, 2:-2], axis=1).mean()
        assert along == pytest.approx(10 / factor, rel=0.03)


def test_published_nuclei_are_cropped_where_they_were_published(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(0), planes(1)])
    published = Nuclei(*(np.array(v, np.int32) for v in ([50, 3, 250], [60, 80, 60], [9, 0, 5])))
    plate = replace(plate, locations={("B02", 1): published})
    nuclei, summary = crop(plate, tmp_path / "p.parquet")
    assert nuclei["crop_id"].tolist() == [
        "s/p/B02/s1/x0050y0060",
        "s/p/B02/s1/x0003y0080",
        "s/p/B02/s1/x0250y0060",
    ]
    assert nuclei["reason"].fillna("kept").tolist() == ["kept", "border", "outside"]
    assert summary["status"].tolist() == ["ok", "odd"]
    assert summary["reason"][1] == "no published nucleus"


# Fields that are no good, and fields that are full


@pytest.mark.parametrize("level", [0, 150, 65535])
def test_constant_field_is_recorded_as_odd_and_gives_no_crop(tmp_path, level):
    constant = np.full(SHAPE, level, np.uint16)
    plate = make_plate(tmp_path / "images", [[constant, constant], planes()])
    _, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["status"].tolist() == ["odd", "ok"]
    assert summary["reason"][0] == f"w1: every pixel is {level}; w2: every pixel is {level}"
    assert summary["found"].tolist()[0] == 0


def test_constant_channel_is_recorded_and_its_field_is_cropped(tmp_path):
    plate = make_plate(tmp_path / "images", [[planes()[0], np.zeros(SHAPE, np.uint16)]])
    _, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["reason"].tolist() == ["w2: every pixel is 0"]
    assert summary["kept"].tolist() == [WHOLE]


def test_three_thousand_nuclei_in_a_field_are_all_accounted_for(tmp_path):
    places = np.stack(np.meshgrid(np.arange(14, 1630, 27), np.arange(14, 1400, 27)), axis=-1)
    centres = [tuple(place) for place in places.reshape(-1, 2)]
    assert len(centres) > 3000
    shape = 1400, 1640
    plate = make_plate(tmp_path / "images", [planes(0, centres, shape)])
    nuclei, summary = crop(replace(plate, shape=shape), tmp_path / "p.parquet")
    assert summary["found"].tolist() == [len(centres)]
    distance, nearest = cKDTree(nuclei[["x_px", "y_px"]]).query(centres)
    assert distance.max() <= 2
    assert len(set(nearest)) == len(centres)


def test_pixels_above_the_range_of_the_sample_are_announced(tmp_path, capsys):
    dna, second = planes()
    second[3, 3] = 5000
    plate = make_plate(tmp_path / "images", [[dna, second], planes()])
    crop(plate, tmp_path / "p.parquet")
    assert "1 fields have pixels brighter than 4095" in capsys.readouterr().out


# Long plates


# Crops the plate in `plate.pickle`; at the field of that number the process kills itself.
KILLED = """
import os, pickle, signal, sys
import hcsqc.crops.cut
plate, cropping, nucleus, shard, kill_at = pickle.load(open("plate.pickle", "rb"))
hcsqc.crops.cut.CHECKPOINT_FIELDS, hcsqc.crops.cut.AHEAD_FIELDS = 4, 1
find, calls = hcsqc.crops.cut.find_nuclei, []

def find_or_die(dna, settings):
    calls.append(1)
    if len(calls) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return find(dna, settings)

hcsqc.crops.cut.find_nuclei = find_or_die
hcsqc.crops.cut.crop_plate(plate, cropping, nucleus, shard, 1, "test")
"""


def crop_and_die(folder, plate, shard, kill_at):
    """Crop in a process of its own that kills itself; return how it ended."""
    with open(folder / "plate.pickle", "wb") as file:
        pickle.dump((plate, CROPPING, NUCLEUS, shard, kill_at), file)
    return subprocess.run([sys.executable, "-c", KILLED], cwd=folder).returncode


def test_killed_job_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hcsqc.crops.cut, "CHECKPOINT_FIELDS", 4)
    plate = make_plate(
        tmp_path / "images", [planes(site, CENTRES[: site % 5]) for site in range(19)]
    )
    truncate(tmp_path / "images" / "s2w2.tif")
    whole = crop(plate, tmp_path / "whole.parquet")
    shard = tmp_path / "p.parquet"
    assert crop_and_die(tmp_path, plate, shard, kill_at=12) == -signal.SIGKILL
    assert not shard.exists()
    assert crop_and_die(tmp_path, plate, shard, kill_at=6) == -signal.SIGKILL  # counted anew
    capsys.readouterr()
    nuclei, summary = crop(plate, shard)
    assert "fields were done already" in capsys.readouterr().out
    pd.testing.assert_frame_equal(nuclei, whole[0])
    pd.testing.assert_frame_equal(summary, whole[1])
    assert shard.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert [path.name for path in tmp_path.glob(".*")] == []


def flip_a_bit(path, place):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "journal.json").write_text("{"),
        lambda folder: (folder / "journal.json").unlink(),
        lambda folder: next(folder.glob("[0-9].parquet")).write_bytes(b""),
        lambda folder: flip_a_bit(next(folder.glob("[0-9].parquet")), 5000),
    ],
    ids=["journal cut", "no journal", "no pixels", "changed pixel"],
)
def test_what_a_killed_job_left_in_disorder_is_not_used(tmp_path, monkeypatch, spoil):
    monkeypatch.setattr(hcsqc.crops.cut, "CHECKPOINT_FIELDS", 4)
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(14)])
    crop(plate, tmp_path / "whole.parquet")
    shard = tmp_path / "p.parquet"
    assert crop_and_die(tmp_path, plate, shard, kill_at=13) == -signal.SIGKILL
    spoil(tmp_path / ".p.parquet.partial")
    crop(plate, shard)
    assert shard.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_what_was_cropped_otherwise_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(hcsqc.crops.cut, "CHECKPOINT_FIELDS", 4)
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(14)])
    shard = tmp_path / "p.parquet"
    assert crop_and_die(tmp_path, plate, shard, kill_at=13) == -signal.SIGKILL
    other = replace(CROPPING, dtype="uint16")
    crop(plate, shard, cropping=other)
    assert Shards([shard]).format.dtype == "uint16"
    assert len(Shards([shard])) == 14 * WHOLE


@pytest.mark.parametrize("replaced", [1, 2, 6, 11])
def test_images_replaced_after_a_job_was_stopped_are_cropped_anew(
    tmp_path, monkeypatch, capsys, replaced
):
    """Of the same size and time, of fields that were done: also one that failed."""
    find, calls = hcsqc.crops.cut.find_nuclei, []

    def find_or_stop(dna, settings):
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return find(dna, settings)

    monkeypatch.setattr(hcsqc.crops.cut, "find_nuclei", find_or_stop)
    monkeypatch.setattr(hcsqc.crops.cut, "CHECKPOINT_FIELDS", 4)
    images = tmp_path / "images"
    plate = make_plate(images, [planes(site, CENTRES[: site % 5]) for site in range(14)])
    truncate(images / "s2w2.tif")
    shard = tmp_path / "p.parquet"
    with pytest.raises(KeyboardInterrupt):
        crop(plate, shard)
    path = images / f"s{replaced}w2.tif"
    before = path.stat()
    tifffile.imwrite(path, planes(99)[1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size or replaced == 2
    capsys.readouterr()
    ours = crop(plate, shard)
    first = (replaced - 1) // 4 * 4 + 1
    assert f"images of the fields from number {first} on changed" in capsys.readouterr().out
    for found, expected in zip(ours, crop(plate, tmp_path / "whole.parquet"), strict=True):
        pd.testing.assert_frame_equal(found, expected)
    assert shard.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_channel_that_is_a_copy_of_another_is_odd(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(1), planes(2)])
    first, second = plate.fields["image_path"].iloc[0][:2]
    (tmp_path / "images" / second).write_bytes((tmp_path / "images" / first).read_bytes())
    _, summary = crop(plate, tmp_path / "p.parquet")[:2]
    assert summary["status"].tolist() == ["odd", "ok"]
    told = f"{plate.channels[1]}: its file is the same as that of {plate.channels[0]}"
    assert summary["reason"].iloc[0] == told


# Faults of the machine


def failing_open(monkeypatch, number, times, name="s3w1.tif"):
    """Let the opening of an image fail so many times; return what was opened."""
    opened, real = [], builtins.open

    def fails(path, *args, **kwargs):
        if str(path).endswith(name):
            opened.append(path)
            if len(opened) <= times:
                raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", fails)
    monkeypatch.setattr(patience, "WAITS_S", (0.0, 0.0))
    return opened


PASSING = [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE,
           errno.ENOMEM, errno.ENODEV, errno.EREMOTEIO]  # fmt: skip


@pytest.mark.parametrize("number", PASSING)
def test_an_error_that_passes_costs_no_field(tmp_path, monkeypatch, number):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(5)])
    whole = crop(plate, tmp_path / "whole.parquet")
    opened = failing_open(monkeypatch, number, times=2)
    for found, expected in zip(crop(plate, tmp_path / "p.parquet"), whole, strict=True):
        pd.testing.assert_frame_equal(found, expected)
    assert len(opened) == 3


@pytest.mark.parametrize("number", [*PASSING, errno.EACCES])
def test_an_error_that_stays_fails_the_job_and_what_is_done_is_kept(tmp_path, monkeypatch, number):
    monkeypatch.setattr(hcsqc.crops.cut, "CHECKPOINT_FIELDS", 1)
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(5)])
    with monkeypatch.context() as broken:
        failing_open(broken, number, times=99)
        with pytest.raises(InputError, match=f"^{tmp_path}/images/s3w1.tif: "):
            crop(plate, tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()
    _, summary, done = crop_plate(plate, CROPPING, NUCLEUS, tmp_path / "p.parquet", 1, "test")
    assert summary["status"].tolist() == ["ok"] * 5 and done == 3


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP])
def test_an_error_of_the_image_marks_its_field(tmp_path, monkeypatch, number):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(5)])
    failing_open(monkeypatch, number, times=99)
    _, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["status"].tolist() == ["ok", "ok", "failed", "ok", "ok"]


def test_an_image_that_is_written_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    plate = make_plate(tmp_path / "images", [planes(0)])
    path = tmp_path / "images/s1w2.tif"
    later, calls = path.read_bytes(), []
    path.write_bytes(later[:-500])
    decode = hcsqc.screens.images.read.decode_tiff

    def goes_on(content):
        calls.append(1)
        if len(calls) == 2:
            path.write_bytes(later)
        return decode(content)

    monkeypatch.setattr(patience, "WAITS_S", (0.0,))
    monkeypatch.setattr(hcsqc.screens.images.read, "decode_tiff", goes_on)
    _, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["status"].tolist() == ["ok"] and len(calls) == 4
    assert list(summary["image_digest"][0])[1] == xxh3_128(later).hexdigest()


def test_what_an_image_was_when_it_was_read_is_recorded(tmp_path):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(3)])
    (tmp_path / "images/s2w1.tif").unlink()
    truncate(tmp_path / "images/s3w2.tif")
    _, summary = crop(plate, tmp_path / "p.parquet", cropping=replace(CROPPING, failed_fields=1))
    for row in summary.itertuples():
        for channel, size, changed_ns in zip(
            (1, 2), row.image_bytes, row.image_changed_ns, strict=True
        ):
            path = tmp_path / f"images/s{row.site}w{channel}.tif"
            status = path.stat() if path.exists() else None
            expected = (status.st_size, status.st_ctime_ns) if status else (-1, -1)
            assert (size, changed_ns) == expected


# Published nuclei


def published(places):
    found = Nuclei(*(np.array([value], np.int32) for value in (40, 30, 100)))
    return dict.fromkeys(places, found)


def test_published_nuclei_of_other_fields_are_announced(tmp_path, capsys):
    plate = make_plate(tmp_path / "images", [planes()])
    places = [("B02", int(plate.fields["site"][0])), ("B02", 7), ("C03", 1)]
    _, summary = crop(replace(plate, locations=published(places)), tmp_path / "p.parquet")
    assert summary["found"].tolist() == [1]
    warning = "2 published nuclei are of 2 fields that the plate does not have: B02 s7, C03 s1"
    assert warning in capsys.readouterr().out


@pytest.mark.parametrize("sites", [[77], [0, 1]], ids=["none", "counted from 0"])
def test_published_nuclei_of_other_fields_than_the_plates_stop_it(tmp_path, sites):
    plate = make_plate(tmp_path / "images", [planes(), planes(1)])  # sites 1 and 2
    plate = replace(plate, locations=published([("B02", site) for site in sites]))
    message = f"does not have, B02 s{sites[0]}, and none are of its own B02 s.*another number"
    with pytest.raises(InputError, match=message):
        crop(plate, tmp_path / "p.parquet", cropping=replace(CROPPING, failed_fields=0.1))
    assert not (tmp_path / "p.parquet").exists()


def test_a_plate_without_one_crop_is_announced(tmp_path, capsys):
    plate = make_plate(tmp_path / "images", [planes()])
    wide = replace(CROPPING, window_px=1024)
    _, summary = crop(plate, tmp_path / "p.parquet", cropping=wide)
    assert summary["kept"].tolist() == [0]
    warning = rf"not one of {len(CENTRES)} nuclei has a crop \(border: {len(CENTRES)}\)"
    assert re.search(warning, capsys.readouterr().out)


def test_why_fields_failed_is_said_in_the_log(tmp_path, capsys):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(8)])
    truncate(tmp_path / "images" / "s2w2.tif")
    crop(plate, tmp_path / "p.parquet", cropping=replace(CROPPING, failed_fields=0.5))
    assert "failed fields: s/p/B02/s2: s2w2.tif: truncated" in capsys.readouterr().out


def test_two_processes_never_crop_one_plate(tmp_path):
    shard_format = ShardFormat(("w1",), 4, "uint8", {})
    first = PartialPlate(tmp_path / "p.parquet", shard_format, "same")
    with pytest.raises(
        InputError, match=r"p.parquet.partial: process \d+ on .* is cropping this plate"
    ):
        PartialPlate(tmp_path / "p.parquet", shard_format, "same")
    first.stop()
    PartialPlate(tmp_path / "p.parquet", shard_format, "same").discard()
    assert not list(tmp_path.glob(".*"))
