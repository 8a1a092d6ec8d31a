"""From fields to crops: every pixel, every nucleus and every failure is accounted for."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import disk

from hcsqc.crops import (
    CropSettings,
    Plate,
    crop_id,
    crop_plate,
    cut_windows,
    window_inside,
)
from hcsqc.errors import InputError
from hcsqc.images import UnreadableField, read_image
from hcsqc.layouts import index_plate
from hcsqc.nuclei import NucleusSettings
from hcsqc.scale import ScaleSettings, measure_scale
from hcsqc.schema import write_table
from hcsqc.shards import Shards
from hcsqc.simulate import SimulationSettings, simulate_plate

SHAPE = 160, 200
WINDOW = 32
CROPPING = CropSettings(window_px=WINDOW, scale_knee=0.9, failed_fields=0.5)
NUCLEUS = NucleusSettings(nucleus_diameter_px=25, nucleus_smallest_px=80)
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
        rows.append(row | {"image_path": paths, "problem": None})
    return Plate(pd.DataFrame(rows), images, ["w1", "w2"], "w1", SCALE, SHAPE)


def crop(plate, shard, threads=1, cropping=CROPPING):
    nuclei, summary = crop_plate(plate, cropping, NUCLEUS, shard, threads, "test")
    check_accounts(nuclei, summary, shard)
    return nuclei, summary


def check_accounts(nuclei, summary, shard):
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
    assert crops.index["nucleus_area_px"].tolist() == kept["area_px"].tolist()
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
    assert crops.format.scale == {"w1": [150, 1000, 4095], "w2": [120, 1500.5, 4095]}
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
    assert cut.shape == (inside.sum(), channels, window, window) and cut.dtype == pixels.dtype
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
        (truncate, "s2w2.tif: cannot be read as TIFF .*64000 bytes"),
        (lambda path: path.write_text("hello"), "s2w2.tif: cannot be read as TIFF .*not a TIFF"),
        (lambda path: path.write_bytes(b""), "s2w2.tif: cannot be read as TIFF"),
        (lambda path: path.unlink(), "s2w2.tif: no such file"),
        (
            lambda path: tifffile.imwrite(path, np.zeros((100, 200), np.uint16)),
            "image of 100 x 200 px, the plate's are 160 x 200",
        ),
        (
            lambda path: tifffile.imwrite(path, np.zeros((*SHAPE, 3), np.uint8)),
            r"s2w2.tif: uint8 image of shape \(160, 200, 3\), expected one grey-level plane",
        ),
        (
            lambda path: tifffile.imwrite(path, np.zeros(SHAPE, np.float32)),
            "s2w2.tif: float32 image of shape",
        ),
    ],
    ids=["truncated", "no TIFF", "no bytes", "missing", "other size", "colour", "float"],
)
def test_unreadable_field_is_listed_with_its_reason(tmp_path, spoil, reason):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(3)])
    spoil(tmp_path / "images" / "s2w2.tif")
    nuclei, summary = crop(plate, tmp_path / "p.parquet")
    assert summary["status"].tolist() == ["ok", "failed", "ok"]
    assert summary["kept"].tolist() == [WHOLE, 0, WHOLE]
    assert pd.Series(summary["reason"][1]).str.fullmatch(f".*{reason}.*").all(), summary["reason"]
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
    assert "s/p/B02/s1: s1w1.tif: cannot be read" in str(error.value)
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
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert list(summary["image_sha256"][0]) == expected


def test_nuclei_are_sought_in_the_named_channel(tmp_path):
    dna, noise = planes(0)
    plate = make_plate(tmp_path / "images", [[noise // 40 + 100, dna]])
    nuclei, _ = crop(replace(plate, nucleus_channel="w2"), tmp_path / "p.parquet")
    assert len(nuclei) == len(CENTRES)


@pytest.mark.parametrize("kept_share", [0.0, 0.001, 0.3, 0.999])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"rowsperstrip": 16}])
def test_truncated_image_is_never_half_read(tmp_path, kept_share, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes()[1], **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept_share)])
    with pytest.raises(UnreadableField, match="a.tif: cannot be read as TIFF"):
        read_image(path)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_image_is_read_as_it_was_written(tmp_path, kind):
    plane = (planes()[1] >> 4).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", plane)
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == kind
    np.testing.assert_array_equal(read, plane)


@pytest.mark.parametrize(
    ("layout", "cell_line", "plate"),
    [("bbbc022", "u2os", "20001"), ("bbbc021", "mcf7", "Week1_22123")],
)
def test_simulated_plate_goes_from_images_to_crops(tmp_path, layout, cell_line, plate):
    images, csv = tmp_path / "images", tmp_path / "image.csv"
    simulation = SimulationSettings(cell_line, ("B02", "C03"), 1, 260, 348, 14, 0.2, 0.2, 0, 1)
    truth = simulate_plate(simulation, plate, images, csv, "test")
    fields, strangers = index_plate(layout, "sim", plate, images, csv)
    channels = ["w1", "w2", "w3", "w4", "w5"] if layout == "bbbc022" else ["w1", "w2", "w4"]
    scale, shape = measure_scale(fields, images, channels, ScaleSettings(32, 0.5, 99.5))
    assert strangers == [] and len(fields) == 2 and shape == (260, 348)
    cut = Plate(fields, images, channels, "w1", scale, shape)
    nuclei, summary = crop(cut, tmp_path / "p.parquet", cropping=replace(CROPPING, window_px=64))
    assert summary["status"].tolist() == ["ok", "ok"]
    assert 0 < summary["kept"].sum() < summary["found"].sum() < 1.5 * len(truth)
    assert Shards([tmp_path / "p.parquet"]).format.channels == tuple(channels)
