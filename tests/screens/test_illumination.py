"""Illumination: planted shading is found and taken away; saturation stays."""

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.screens.illumination import (
    COLUMNS,
    correct,
    from_table,
    load_functions,
    measure_illumination,
)
from hcsqc.screens.simulate.camera import CAMERA_OFFSET, make_shading
from hcsqc.screens.simulate.cell_lines import CELL_LINES
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_field
from hcsqc.screens.simulate.textures import make_textures

SHAPE = 260, 348
CHANNELS = ["w1", "w2"]


def ramp(strongest=1.4):
    """Return light that grows from left to right."""
    return np.tile(np.linspace(1, strongest, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))


def cells(seed, light=1.0):
    """Return a field of blobs anywhere, seen under `light`, above an offset of 100."""
    rng = np.random.default_rng(seed)
    signal = np.full(SHAPE, 60.0)
    for y, x in rng.uniform(0, SHAPE, (25, 2)):
        cv2.circle(signal, (int(x), int(y)), 14, 560, cv2.FILLED)
    return np.rint(100 + light * signal + rng.normal(0, 2, SHAPE)).astype(np.uint16)


def test_planted_ramp_is_found():
    found = measure_illumination([cells(seed, ramp()) - 100] for seed in range(60))
    function = 1 / found.gains(SHAPE)[0]
    np.testing.assert_allclose(function / function.mean(), ramp() / ramp().mean(), atol=0.06)


def test_the_camera_s_offset_makes_correction_too_small_never_too_large():
    found = measure_illumination([cells(seed, ramp())] for seed in range(60))
    across = 1 / found.gains(SHAPE)[0].mean(axis=0)
    assert 1.05 < across[-1] / across[0] < 1.4


def test_evenly_lit_fields_are_hardly_changed():
    found = measure_illumination([cells(seed)] for seed in range(60))
    assert found.functions.max() < 1.1


def test_a_few_saturated_fields_do_not_move_the_function():
    fields = [[cells(seed, ramp())] for seed in range(30)]
    clean = measure_illumination(fields)
    bright = np.full(SHAPE, 4095, np.uint16)
    bright[:, :100] = 0
    spoilt = measure_illumination([*fields, [bright], [bright], [bright]])
    np.testing.assert_allclose(spoilt.functions, clean.functions, atol=0.05)


def test_shading_of_a_simulated_screen_is_nearly_halved():
    line = CELL_LINES["u2os"]
    simulation = SimulationSettings("u2os", ("B02",), 9, *SHAPE, 18, 0.0, 0.0, 0.0, 4)
    textures = make_textures()
    shading = make_shading(simulation, "p", len(line.channels))
    fields = (
        list(simulate_field(simulation, "p", f"B{well:02d}", site, textures, shading)[0])
        for well in range(2, 10)
        for site in range(1, 10)
    )
    gains = measure_illumination(fields).gains(SHAPE)
    lit = [np.rint(CAMERA_OFFSET + 400 * plane).astype(np.uint16) for plane in shading]
    even = correct(lit, gains, np.full(len(lit), 4095.0))

    def unevenness(plane):
        signal = plane - CAMERA_OFFSET
        return signal.std() / signal.mean()

    left = [unevenness(b) / unevenness(a) for a, b in zip(lit, even, strict=True)]
    assert max(left) < 0.8 and np.mean(left) < 0.65


def test_saturated_pixels_stay_saturated_and_the_rest_is_divided():
    plane = np.array([[120, 321, 4094, 4095]], np.uint16)
    (even,) = correct([plane], np.full((1, 1, 4), 0.5, np.float32), np.array([4095.0]))
    assert even.tolist() == [[60, 160, 2047, 4095]]
    assert even.dtype == np.uint16


def test_no_correction_is_no_change():
    plane = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    (even,) = correct([plane], np.ones((1, 20, 30), np.float32), np.array([255.0]))
    np.testing.assert_array_equal(even, plane)
    assert even.dtype == np.uint8


def test_table_gives_back_what_was_measured(tmp_path):
    found = measure_illumination([cells(seed), cells(seed, ramp())] for seed in range(5))
    write_table(found.table(CHANNELS), tmp_path / "i.parquet", "illumination")
    back = from_table(read_table(tmp_path / "i.parquet", "illumination"))
    np.testing.assert_array_equal(back.functions, found.functions)


def test_empty_table_is_no_correction(tmp_path):
    write_table(pd.DataFrame(columns=COLUMNS), tmp_path / "i.parquet", "illumination")
    assert from_table(read_table(tmp_path / "i.parquet", "illumination")) is None


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_cellprofiler_functions_are_taken_as_they_are(tmp_path, ending):
    function = ramp(1.7) * np.linspace(1, 1.2, SHAPE[0], dtype=np.float32)[:, None]
    for channel in CHANNELS:
        path = tmp_path / "P1" / f"P1_Illum{channel}.{ending}"
        path.parent.mkdir(exist_ok=True)
        np.save(path, function) if ending == "npy" else tifffile.imwrite(path, function)
    template = str(tmp_path / ("{plate}/{plate}_Illum{channel}." + ending))
    found = load_functions(template, "P1", CHANNELS, SHAPE)
    np.testing.assert_allclose(1 / found.gains(SHAPE)[1], function, rtol=0.01)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such illumination function"),
        (b"hello", "is not an illumination function"),
        (np.zeros(SHAPE), "one plane of positive numbers, this is float64"),
        (np.full((2, *SHAPE), 1.0), "one plane of positive numbers"),
        (np.full(SHAPE, np.nan), "one plane of positive numbers"),
        (np.array([{"a": 1}], dtype=object), r"is not an illumination function \(it holds code"),
        (np.ones(SHAPE[::-1]), "an illumination function of .* for images of"),
    ],
    ids=["missing", "text", "zeros", "two planes", "not numbers", "pickled objects", "turned"],
)
def test_bad_function_is_named(tmp_path, content, message):
    path = tmp_path / "P1w1.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError, match=f"P1w1.npy: .*{message}"):
        load_functions(str(tmp_path / "{plate}{channel}.npy"), "P1", ["w1"], SHAPE)


def test_plate_without_a_readable_field_has_no_illumination():
    with pytest.raises(InputError, match="none of the plate's fields to average can be"):
        measure_illumination(iter([]))
