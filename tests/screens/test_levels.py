"""The range of a plate follows its normal cells: known fields, many artefacts, other light."""

import numpy as np
import pytest

from hcsqc.crops.nuclei import nuclei_shown
from hcsqc.screens.levels import FEWEST_NUCLEI, nucleus_levels, typical
from hcsqc.screens.scale import (
    PlateImages,
    ScaleSettings,
    apply_scale,
    lookup_tables,
    measure_scale,
)
from tests.screens.test_scale import write_fields

SETTINGS = ScaleSettings(
    scale_fields=32, scale_background=0.5, scale_cells=2.0, illumination_fields=200
)
NUCLEI = nuclei_shown("w1", 24.0, 80)
SHAPE, STEP, RADIUS = (300, 400), 50, 13
BACKGROUND, CELL = np.array([150.0, 220.0]), np.array([800.0, 500.0])


def plate(seed=0, fields=6, bright=0.0, factor=4.0, spread=0.25, background=BACKGROUND):
    """Return noise-free fields of 35 cells each: discs, of which a share is `factor` as bright.

    Each is as far above the background as `CELL` in the mode, and varies by `spread`.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    made = []
    for _ in range(fields):
        planes = np.tile(background[:, None, None], (1, *SHAPE))
        for y in range(STEP, SHAPE[0], STEP):
            for x in range(STEP, SHAPE[1], STEP):
                disc = (rows - y) ** 2 + (columns - x) ** 2 <= RADIUS**2
                level = (CELL - BACKGROUND) * np.exp(rng.normal(0, spread))
                level *= factor if rng.random() < bright else 1
                planes[:, disc] = (background + level)[:, None]
        made.append(planes)
    return made


def exposed(fields, light=1.0, offset=0.0, most=4095, dtype=np.uint16):
    return [
        [np.clip(np.rint(offset + light * plane), 0, most).astype(dtype) for plane in planes]
        for planes in fields
    ]


def measured(folder, fields, nuclei=NUCLEI, settings=SETTINGS):
    table = write_fields(folder, fields)
    return measure_scale(table, PlateImages("p", folder, ["w1", "w2"]), settings, nuclei)[0]


def test_background_and_typical_cell_of_alike_cells_are_exact(tmp_path):
    scale = measured(tmp_path, exposed(plate(spread=0.0)))
    assert scale["found"].tolist() == ["cells", "cells"]
    assert scale["low"].tolist() == BACKGROUND.tolist()
    np.testing.assert_allclose(scale["cell"], CELL, rtol=1e-6)
    np.testing.assert_allclose(scale["high"], BACKGROUND + 2 * (CELL - BACKGROUND), rtol=1e-6)
    assert scale["nuclei"].tolist() == [6 * 35] * 2


def test_typical_cell_of_unlike_ones_is_their_mode(tmp_path):
    scale = measured(tmp_path, exposed(plate(spread=0.25, fields=12)))
    np.testing.assert_allclose(scale["cell"] - BACKGROUND, CELL - BACKGROUND, rtol=0.06)


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_cells_much_brighter_or_dimmer_move_percentiles_and_not_the_range(tmp_path, factor):
    clean, spoilt = (
        exposed(plate(fields=12, bright=share, factor=factor, spread=0.2)) for share in (0.0, 0.4)
    )
    by_cells = [
        measured(tmp_path / f"cells{n}", made)["high"] for n, made in enumerate((clean, spoilt))
    ]
    np.testing.assert_allclose(by_cells[1] - BACKGROUND, by_cells[0] - BACKGROUND, rtol=0.03)
    if factor > 1:
        by_pixels = [
            measured(tmp_path / f"pixels{n}", made, nuclei=None)["high"]
            for n, made in enumerate((clean, spoilt))
        ]
        assert (by_pixels[1] > 1.5 * by_pixels[0]).all()


@pytest.mark.parametrize(("light", "offset"), [(0.8, 0.0), (1.2, 0.0), (1.2, 40.0)])
def test_other_light_and_offset_give_the_same_crops(tmp_path, light, offset):
    made = plate(fields=4)
    fields = [exposed(made), exposed(made, light, offset)]
    pixels = []
    for number, planes in enumerate(fields):
        scale = measured(tmp_path / str(number), planes)
        pixels.append(apply_scale(planes[0], lookup_tables(scale, 0.9, "uint8")).astype(int))
    below = pixels[0] < 0.85 * 255  # above the knee the sensor's saturation counts, which stays
    assert np.abs(pixels[0] - pixels[1])[below].max() <= 1


def test_blank_blurred_and_saturated_fields_do_not_move_the_range(tmp_path):
    fields = exposed(plate(fields=9))
    clean = measured(tmp_path / "clean", fields)
    blank = [np.full(SHAPE, level, np.uint16) for level in (150, 220)]
    white = [np.full(SHAPE, 4095, np.uint16)] * 2
    spoilt = measured(tmp_path / "spoilt", [blank, *fields, white])
    for side in ("low", "high"):
        np.testing.assert_allclose(spoilt[side], clean[side], rtol=0.02)


def test_too_few_nuclei_fall_back_to_percentiles_and_say_so(tmp_path):
    scale = measured(tmp_path, [[np.full(SHAPE, 200, np.uint16)] * 2] * 3)
    assert scale["found"].tolist() == ["percentile"] * 2 and scale["cell"].isna().all()
    assert scale["nuclei"].tolist() == [0, 0] and scale["high"].tolist() == [201, 201]


def test_a_channel_without_light_falls_back_alone(tmp_path):
    fields = [[planes[0], np.full(SHAPE, 7, np.uint16)] for planes in exposed(plate())]
    scale = measured(tmp_path, fields)
    assert scale["found"].tolist() == ["cells", "percentile"]
    assert scale["nuclei"].tolist() == [210, 210]


def test_eight_bit_data_have_a_range_within_it(tmp_path):
    fields = exposed(plate(), light=0.12, most=255, dtype=np.uint8)
    scale = measured(tmp_path, fields)
    assert scale["bits"].tolist() == [8, 8] and scale["found"].tolist() == ["cells", "cells"]
    np.testing.assert_allclose(scale["cell"], 0.12 * CELL, rtol=0.06)
    assert (scale["high"] <= 255).all()


def test_the_range_never_passes_saturation(tmp_path):
    scale = measured(tmp_path, exposed(plate(), light=4.0))
    assert scale["high"].tolist()[0] == 4095


def test_level_of_a_nucleus_is_the_median_of_its_disc_in_each_channel():
    plane = np.full((40, 40), 10, np.uint16)
    plane[15:26, 15:26] = 70
    plane[20, 20] = 4000
    levels = nucleus_levels([plane, 2 * plane], np.array([20, 2]), np.array([20, 20]), 10)
    assert levels.tolist() == [[70, 140]]  # the other's disc crosses the border


def test_too_few_levels_above_the_background_have_no_typical_one():
    levels = np.full(FEWEST_NUCLEI, 5.0)
    assert typical(levels) == pytest.approx(5.0)
    assert np.isnan(typical(levels[1:])) and np.isnan(typical(np.r_[levels[1:], -1.0, 0.0]))
    assert np.isnan(typical(np.empty(0)))


def test_standard_error_of_a_usual_sample_is_near_one_percent():
    rng = np.random.default_rng(0)
    found = [typical(np.exp(rng.normal(6, 0.27, 1400))) for _ in range(60)]
    assert np.std(np.log(found)) < 0.015 and abs(np.mean(np.log(found)) - 6) < 0.005
