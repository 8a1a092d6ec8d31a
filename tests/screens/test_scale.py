"""The fixed range of a plate: robust, monotone, invertible, and saturation stays visible."""

import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.screens.scale import (
    PlateImages,
    ScaleSettings,
    apply_scale,
    lookup_tables,
    measure_scale,
    unscale,
)
from scripts.screens import measure_scale as measure_scale_script

SETTINGS = ScaleSettings(
    scale_fields=32, scale_background=0.5, scale_cells=2.0, illumination_fields=200
)
KNEE = 0.9


def field(seed=0, shape=(60, 80), top=2500):
    """Return two channels: grey levels of 150 to `top` and of 100 to half of it."""
    rng = np.random.default_rng(seed)
    first = rng.integers(150, top, shape, endpoint=True)
    return [first.astype(np.uint16), rng.integers(100, top // 2, shape).astype(np.uint16)]


def write_fields(images, fields):
    """Write fields (lists of planes) as TIFFs and return the table that lists them."""
    images.mkdir(exist_ok=True)
    paths = []
    for number, planes in enumerate(fields):
        paths.append([f"f{number}c{channel}.tif" for channel in range(len(planes))])
        for path, plane in zip(paths[-1], planes, strict=True):
            tifffile.imwrite(images / path, plane)
    pages = [[None] * len(names) for names in paths]
    return pd.DataFrame({"image_path": paths, "image_page": pages, "problem": None})


def measure(images, fields, scale_settings=SETTINGS):
    return range_of(write_fields(images, fields), images, scale_settings)


def range_of(table, images, scale_settings=SETTINGS, **more):
    """Return scale and shape of the fields in `table`; `more` is what the config may say."""
    plate = PlateImages("p", images, ["w1", "w2"], **more)
    return measure_scale(table, plate, scale_settings, nuclei=None)[:2]


def scale_of(low, high, top):
    row = {"channel": "w1", "low": float(low), "high": float(high), "top": float(top), "bits": 12}
    return pd.DataFrame([row])


@st.composite
def ranges(draw):
    """Ranges in which every step of the output is a grey level or more."""
    low = draw(st.floats(0, 2000))
    high = low + draw(st.floats(256, 1900))
    top = draw(st.sampled_from([4095, 65535]))
    return scale_of(low, high, top)


def test_range_of_one_field_without_nuclei_is_its_percentiles(tmp_path):
    planes = field()
    scale, shape = measure(tmp_path, [planes])
    assert shape == (60, 80) and scale["channel"].tolist() == ["w1", "w2"]
    for row, plane in zip(scale.itertuples(), planes, strict=True):
        assert (row.low, row.high) == (np.percentile(plane, 0.5), np.percentile(plane, 99.5))
        assert (row.top, row.bits, row.nuclei, row.found) == (4095, 12, 0, "percentile")
    assert scale["cell"].isna().all()
    write_table(scale, tmp_path / "scale.parquet", "scale", {"shape": list(shape)})


def test_saturated_and_black_fields_hardly_move_the_range(tmp_path):
    fields = [field(seed) for seed in range(9)]
    clean, _ = measure(tmp_path / "clean", fields)
    fields[0] = [np.full((60, 80), 4095, np.uint16)] * 2
    fields[4] = [np.zeros((60, 80), np.uint16)] * 2
    fields[8] = [np.full((60, 80), 4095, np.uint16)] * 2
    spoilt, _ = measure(tmp_path / "spoilt", fields)
    for side in ("low", "high"):
        np.testing.assert_allclose(spoilt[side], clean[side], rtol=0.02)
    assert spoilt["top"].tolist() == [4095, 4095]


@pytest.mark.parametrize(
    ("brightest", "bits"), [(255, 8), (256, 12), (4095, 12), (4096, 16), (65535, 16)]
)
def test_bits_hold_the_brightest_pixel(tmp_path, brightest, bits):
    planes = field(top=250)
    planes[1][3, 4] = brightest
    scale, _ = measure(tmp_path, [field(1, top=250), planes])
    assert scale["bits"].tolist() == [bits, bits]
    assert scale["top"].tolist() == [2**bits - 1] * 2


def test_pixels_that_the_stated_bits_cannot_hold_are_refused(tmp_path):
    table = write_fields(tmp_path, [[np.full((4, 5), 300, np.uint16)] * 2])
    assert range_of(table, tmp_path, bits=12)[0]["top"].tolist() == [4095, 4095]
    with pytest.raises(InputError, match="has pixels of 300, more than 8 bits allow; correct bits"):
        range_of(table, tmp_path, bits=8)


def camera(bits_or_top, seed=0, shape=(200, 240), gain=1.5):
    """Return two planes of bright blobs with noise as a camera records them, clipped at its top."""
    top = bits_or_top if bits_or_top > 16 else 2**bits_or_top - 1
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    light = np.full(shape, 0.02)
    for y, x in rng.uniform(0, shape, (12, 2)):
        light += 0.8 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 200)
    planes = [light * gain, light * gain / 8]
    noisy = [rng.normal(plane * top, np.sqrt(plane * top) + 2) for plane in planes]
    return [np.clip(np.rint(plane), 0, top).astype(np.uint16) for plane in noisy]


@pytest.mark.parametrize("bits", range(9, 17))
def test_saturation_of_a_camera_of_any_bits_becomes_white(tmp_path, bits):
    planes = camera(bits)
    assert (planes[0] == 2**bits - 1).mean() > 0.001
    scale, _ = measure(tmp_path, [planes, camera(bits, 1, gain=0.5)])
    assert scale["bits"].tolist() == [bits] * 2 and scale["top"].tolist() == [2**bits - 1] * 2
    white = apply_scale(planes, lookup_tables(scale, KNEE, "uint8"))[0] == 255
    assert white[planes[0] == 2**bits - 1].all()


@pytest.mark.parametrize(("level", "bits"), [(4000, 12), (16000, 14), (16380, 14), (65520, 16)])
def test_any_level_at_which_pixels_pile_up_is_saturation(tmp_path, level, bits):
    scale, _ = measure(tmp_path, [camera(level)])
    assert scale["bits"].tolist() == [bits] * 2 and scale["top"].tolist() == [level] * 2


def test_a_channel_of_8_bits_beside_one_of_more_is_no_saturation(tmp_path):
    wide = camera(14)[0]
    scale, _ = measure(tmp_path, [[np.full(wide.shape, 200, np.uint8), wide]])
    assert scale["bits"].tolist() == [14, 14] and scale["top"].tolist() == [16383, 16383]


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 4095), (16, 65535), (17, 65535)], ids=["each", "of 16", "of 17"]
)
@pytest.mark.parametrize("seed", range(6))
def test_a_smooth_maximum_is_no_saturation(tmp_path, seed, steps, expected):
    planes = [plane * steps for plane in camera(12, seed, gain=0.35)]
    assert 256 < planes[0].max() < 4000 * steps
    assert measure(tmp_path, [planes])[0]["top"].tolist() == [expected] * 2


@pytest.mark.parametrize("sigma", [3, 30, 300])
def test_a_broad_peak_without_noise_is_no_saturation(tmp_path, sigma):
    rows, columns = np.mgrid[-100:100, -100:100]
    peak = np.rint(3000 * np.exp(-(rows**2 + columns**2) / 2 / sigma**2)).astype(np.uint16)
    assert measure(tmp_path, [[peak, peak]])[0]["top"].tolist() == [4095, 4095]


def test_a_single_hot_pixel_at_the_top_of_some_bits_is_no_saturation(tmp_path):
    planes = camera(12, gain=0.35)
    planes[0][3, 4] = 16383
    assert measure(tmp_path, [planes])[0]["bits"].tolist() == [16, 16]


def test_stated_bits_come_before_what_pixels_pile_up_at(tmp_path):
    table = write_fields(tmp_path, [camera(14)])
    for bits in (14, 15, 16):
        assert range_of(table, tmp_path, bits=bits)[0]["top"].tolist() == [2**bits - 1] * 2
    with pytest.raises(InputError, match="has pixels of 16383, more than 13 bits allow"):
        range_of(table, tmp_path, bits=13)


@pytest.mark.parametrize(
    ("level", "stated", "told"),
    [
        (16383, None, "w1: 14-bit data (found: pixels pile up at 16383; bits of the screen sets"),
        (16000, None, "w1: 14-bit data (found: pixels pile up at 16000; bits of the screen sets"),
        (16000, 15, "w1: 15-bit data (stated), "),
        (4095, None, "w1: 12-bit data (found), "),
    ],
)
def test_the_log_says_how_the_range_was_found(tmp_path, monkeypatch, capsys, level, stated, told):
    table = write_fields(tmp_path / "images", [camera(level)])
    table = table.assign(field_id="s/p/A01/s1", plate="p", well="A01", site=1, image_bytes=[[1, 1]])
    table = table.assign(role=None, compound=None, concentration_um=np.nan)
    write_table(table.astype({"site": "int32"}), tmp_path / "p.fields.parquet", "fields")
    words = [measure_scale_script.__file__, "--fields", tmp_path / "p.fields.parquet"]
    words += ["--images", tmp_path / "images", "--channels", "w1", "w2", "--nucleus-channel", "w1"]
    words += ["--nucleus-diameter-px", 20, "--nucleus-smallest-px", 50, "--scale-fields", 4]
    words += ["--scale-background", 0.5, "--scale-cells", 2, "--illumination-fields", 4]
    words += ["--output", tmp_path / "s.parquet", "--illumination-output", tmp_path / "i.parquet"]
    words += ["--record", tmp_path / "run.json", *(["--bits", stated] if stated else [])]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    measure_scale_script.main()
    assert told in capsys.readouterr().out


def test_range_of_a_constant_channel_is_not_empty(tmp_path):
    scale, _ = measure(tmp_path, [[np.full((9, 9), 200, np.uint16), field(0, (9, 9))[1]]])
    assert scale["low"][0] == 200 and scale["high"][0] == 201


def test_sample_is_spread_from_the_first_field_to_the_last(tmp_path):
    fields = [[np.full((8, 8), level, np.uint16)] * 2 for level in range(100, 111)]
    table = write_fields(tmp_path, fields)
    for number in set(range(11)) - {0, 5, 10}:
        (tmp_path / f"f{number}c0.tif").write_text("not in the sample")
    three = ScaleSettings(3, 0.5, 2.0, 200)
    scale, _ = range_of(table, tmp_path, three)
    assert scale["low"].tolist() == [105, 105]


def test_unreadable_fields_and_those_with_a_problem_are_passed_over(tmp_path):
    planes = field()
    alone, _ = measure(tmp_path / "alone", [planes])
    table = write_fields(tmp_path, [field(1), planes, field(2)])
    (tmp_path / "f0c1.tif").write_bytes(b"II*")
    table.loc[2, "problem"] = "no image of channel w1"
    scale, _ = range_of(table, tmp_path)
    pd.testing.assert_frame_equal(scale, alone)


def test_size_is_that_of_most_fields_and_others_do_not_count(tmp_path):
    fields = [field(0), field(1, (30, 40), top=4000), field(2)]
    scale, shape = measure(tmp_path / "all", fields)
    without, _ = measure(tmp_path / "most", [fields[0], fields[2]])
    assert shape == (60, 80)
    pd.testing.assert_frame_equal(scale, without)


def test_plate_without_a_readable_field_is_refused_with_the_first_reason(tmp_path):
    table = write_fields(tmp_path, [field(0), field(1)])
    (tmp_path / "f0c0.tif").write_text("no image")
    (tmp_path / "f1c1.tif").unlink()
    with pytest.raises(InputError, match=r"no field of the plate can be read; first: f0c0.tif: "):
        range_of(table, tmp_path)


def test_plate_whose_fields_all_lack_a_channel_is_refused(tmp_path):
    table = write_fields(tmp_path, [field(0)]).assign(problem="no image of channel w1")
    with pytest.raises(InputError, match="every field lacks a channel"):
        range_of(table, tmp_path)


def test_plate_whose_channels_differ_in_size_is_refused_with_that_reason(tmp_path):
    planes = [field(0)[0], field(0, (30, 40))[1]]
    with pytest.raises(InputError, match="size|shape|px"):
        measure(tmp_path, [planes])


@settings(max_examples=60, deadline=None)
@given(ranges(), st.floats(0.5, 0.95))
def test_table_is_monotone_from_black_to_white(scale, knee):
    (table,) = lookup_tables(scale, knee, "uint8")
    row = scale.iloc[0]
    assert table.dtype == np.uint8 and table.shape == (65536,)
    assert (np.diff(table.astype(int)) >= 0).all()
    assert (table[: int(row["low"]) + 1] == 0).all()
    assert (table[int(row["top"]) :] == 255).all()
    assert abs(int(table[round(row["high"])]) - 255 * knee) <= 1


@pytest.mark.parametrize("high", [300, 2000, 4094, 4095])
def test_twelve_bit_saturation_is_white_and_low_is_black(high):
    (table,) = lookup_tables(scale_of(150, high, 4095), KNEE, "uint8")
    assert (table[4095], table[150], table[0]) == (255, 0, 0)


def test_saturation_stands_out_of_the_brightest_normal_cells():
    (table,) = lookup_tables(scale_of(150, 2150, 4095), KNEE, "uint8")
    assert table[2150] in (229, 230) and table[4095] == 255
    assert table[1150] in (114, 115)  # half way up to the knee


@settings(max_examples=60, deadline=None)
@given(ranges(), st.floats(0.5, 0.95))
def test_unscale_is_the_inverse_within_one_step(scale, knee):
    row = scale.iloc[0]
    levels = np.arange(np.ceil(row["low"]), row["top"] + 1).astype(np.uint16)[None]
    pixels = apply_scale([levels], lookup_tables(scale, knee, "uint8"))
    back = unscale(pixels, scale, knee)
    below = (row["high"] - row["low"]) / (255 * knee)
    above = (row["top"] - row["high"]) / (255 * (1 - knee))
    step = np.where(levels[0] < row["high"] - below, below, max(below, above))
    assert back.dtype == np.float32 and back.shape == pixels.shape
    assert (np.abs(back[0, 0] - levels[0]) <= step + 0.01).all()


def test_scaled_pixels_survive_unscaling_and_scaling_again():
    scale = pd.concat([scale_of(150, 2000, 4095), scale_of(120.5, 900, 4095)])
    tables = lookup_tables(scale, KNEE, "uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16)).astype(np.uint8)
    levels = np.rint(unscale(pixels, scale, KNEE)).astype(np.uint16)
    again = np.stack([apply_scale(list(crop), tables) for crop in levels])
    np.testing.assert_array_equal(again, pixels)


def test_each_channel_has_its_own_range():
    scale = pd.concat([scale_of(0, 255, 255), scale_of(100, 200, 255)])
    planes = [np.full((2, 3), 150, np.uint16)] * 2
    pixels = apply_scale(planes, lookup_tables(scale, 0.5, "uint8"))
    assert pixels.shape == (2, 2, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0, 0] == 150 and pixels[1, 0, 0] in (63, 64)
