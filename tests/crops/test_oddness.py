"""How odd a crop is: by all its measures together, beside the usual ones of its plate."""

import numpy as np
import pytest

from hcsqc.crops.oddness import cell_measures, oddness

RADIUS = 8.0


def cell(rng, level=100.0, side=64, channels=3):
    """Return a crop of a bright nucleus in the middle of a dim cell."""
    y, x = np.mgrid[:side, :side] - side / 2
    radii = np.hypot(y, x) / RADIUS
    light = np.where(radii <= 1, level, np.where(radii <= 2.5, 0.4 * level, 5))
    pixels = light + rng.normal(0, 4, (channels, side, side))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def plate(count=200):
    rng = np.random.default_rng(0)
    return [cell(rng, rng.normal(100, 10)) for _ in range(count)]


def oddness_of(crops, area=200.0):
    return oddness(np.array([cell_measures(crop, area, RADIUS) for crop in crops]))


def test_measures_of_a_known_crop():
    pixels = np.zeros((2, 64, 64), dtype=np.uint8)
    y, x = np.mgrid[:64, :64] - 32
    disc, ring = np.hypot(y, x) <= 8, (np.hypot(y, x) > 8) & (np.hypot(y, x) <= 16)
    pixels[0, disc], pixels[0, ring], pixels[1] = 90, 30, 7
    found = cell_measures(pixels, 123, RADIUS)
    assert found.tolist() == [90, 7, 0, 0, 30, 7, 0, 0, 123]
    wide = cell_measures(pixels.astype(np.uint16) * 257, 123, RADIUS)
    np.testing.assert_allclose(wide, found)
    assert len(cell_measures(pixels[:, 27:37, 27:37], 123, RADIUS)) == 5, "no room for the ring"


def test_planted_outliers_are_the_oddest():
    crops = plate()
    rng = np.random.default_rng(1)
    crops[3] = cell(rng, 230)  # far too bright
    crops[40] = cell(rng, 20)  # a ghost
    noisy = crops[77] + rng.normal(0, 60, crops[77].shape)
    crops[77] = np.clip(noisy, 0, 255).astype(np.uint8)
    assert set(np.argsort(-oddness_of(crops))[:3]) == {3, 40, 77}


def test_oddness_goes_with_the_crop_whatever_the_order():
    crops, order = plate(50), np.random.default_rng(3).permutation(50)
    np.testing.assert_array_equal(oddness_of([crops[i] for i in order]), oddness_of(crops)[order])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_crops_are_not_odd(count):
    measures = np.full((count, 4), 7.0)
    assert oddness(measures).tolist() == [0.0] * count


def test_what_never_varies_is_measured_in_whole_levels():
    measures = np.full((9, 2), 7.0)
    measures[0, 0] = 9
    assert oddness(measures).tolist() == [1.0] + [0.0] * 8
