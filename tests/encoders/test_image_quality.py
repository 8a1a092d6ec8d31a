"""Classical image quality: CellProfiler's values, answers by hand, other libraries, invariants."""

import cv2
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.feature
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hcsqc.core.errors import InputError
from hcsqc.encoders.image_quality import MEASURES, image_quality

pytestmark = pytest.mark.filterwarnings("error")

# What CellProfiler 4.2.8 with centrosome 1.2.3 measured on `cell()` and `haze()` over 255.
# Its Correlation depends on rounding where (pixel - lowest) * 8 / range is whole; none is here
# that matters.
CELLPROFILER = {
    "cell": {
        "PowerLogLogSlope": -4.336898891303789,
        "FocusScore": 0.3713045587381326,
        "LocalFocusScore": 0.03626244445258316,
        "Correlation": 0.5570369987426764,
        "PercentMaximal": 0.012987012987012988,
        "PercentMinimal": 54.36363636363637,
        "MeanIntensity": 0.22822001527883884,
        "MedianIntensity": 0.0,
        "StdIntensity": 0.29109986614273653,
        "MADIntensity": 0.0,
    },
    "haze": {
        "PowerLogLogSlope": -3.8766215379993567,
        "FocusScore": 0.07042097995083384,
        "LocalFocusScore": 0.022309416624838943,
        "Correlation": 0.5377840094224161,
        "PercentMaximal": 0.03896103896103896,
        "PercentMinimal": 0.07792207792207792,
        "MeanIntensity": 0.27808097784568375,
        "MedianIntensity": 0.24313725490196078,
        "StdIntensity": 0.13993832557801728,
        "MADIntensity": 0.08627450980392157,
    },
}
OF_A_CONSTANT = dict.fromkeys(MEASURES, 0.0) | {"PercentMaximal": 100, "PercentMinimal": 100}
LEVEL_MEASURES = ("MeanIntensity", "MedianIntensity", "Percentile1", "Percentile99")


def cell(height=100, width=77):
    """Return a plane with a grained disc on black, its boxes of 20 px partly black."""
    y, x = np.mgrid[:height, :width]
    body = np.maximum(190 - ((y - 45) ** 2 + (x - 30) ** 2) // 6, 0)
    grain = (7 * x * x + 3 * y * y + 5 * x * y) % 61
    return np.minimum(body + np.where(body > 0, grain, 0), 251).astype(np.uint8)


def haze():
    y, x = np.mgrid[:100, :77]
    return (cell() // 2 + x // 2 + y // 3 + 7).astype(np.uint8)


def noise(shape, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)


def blurred(plane, sigma):
    return cv2.GaussianBlur(plane, (0, 0), sigma)


def halves(low, high, shape=(20, 20)):
    """Return a plane whose columns are by turns low and high."""
    plane = np.full(shape, low, dtype=np.uint8)
    plane[:, ::2] = high
    return plane


def quality(plane) -> dict[str, float]:
    return dict(zip(MEASURES, image_quality(plane[None, None])[0].tolist(), strict=True))


@pytest.mark.parametrize("plane", [cell, haze])
def test_cellprofiler_measured_the_same(plane):
    expected = CELLPROFILER[plane.__name__]
    measured = quality(plane())
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_half_black_half_bright_has_the_answers_by_hand():
    measured = quality(halves(0, 200))
    expected = {
        "FocusScore": 100**2 / 100 / 255,
        "PercentMaximal": 50,
        "PercentMinimal": 50,
        "PercentSaturated": 0,
        "MeanIntensity": 100 / 255,
        "MedianIntensity": 100 / 255,
        "StdIntensity": 100 / 255,
        "MADIntensity": 100 / 255,
        "Percentile1": 0,
        "Percentile99": 200 / 255,
        "Entropy": 1,
    }
    assert {name: measured[name] for name in expected} == pytest.approx(expected)


def test_local_focus_is_the_spread_of_the_boxes_focus():
    # Variance over mean is 1, 4, 9 and 16 grey levels.
    boxes = [halves(100 - change, 100 + change) for change in (10, 20, 30, 40)]
    plane = np.block([boxes[:2], boxes[2:]])
    assert quality(plane)["LocalFocusScore"] == pytest.approx(32.25 / 6.5 / 255)


def test_black_boxes_do_not_count_in_local_focus():
    boxes = [halves(100 - change, 100 + change) for change in (10, 20, 30)]
    plane = np.block([boxes[:2], [boxes[2], np.zeros_like(boxes[2])]])
    assert quality(plane)["LocalFocusScore"] == pytest.approx(np.var([1, 4, 9]) / 4 / 255)


def test_local_focus_is_zero_where_most_boxes_are_flat():
    flat = np.full((20, 20), 100, dtype=np.uint8)
    plane = np.block([[flat, flat], [flat, halves(90, 110)]])
    assert quality(plane)["LocalFocusScore"] == 0


@pytest.mark.parametrize("size, counts", [(32, [12, 20]), (40, [12, 20, 24]), (47, [12, 20, 24])])
def test_slope_of_a_point_is_that_of_the_rings_sizes(size, counts):
    # A point has the same power at every frequency, so a ring's power is its number of pixels:
    # four corners with those at a distance of 1 to 2, 2 to 3 and 3 to 4 px: 3, 5 and 6.
    plane = np.zeros((size, size), dtype=np.uint8)
    plane[5, 9] = 255
    radii = np.arange(2, 2 + len(counts))
    expected = np.polyfit(np.log(radii), np.log(counts), 1)[0]
    assert quality(plane)["PowerLogLogSlope"] == pytest.approx(expected, rel=1e-5)


def test_slope_does_not_depend_on_contrast_or_background():
    plane = cell() // 5
    slope = quality(plane)["PowerLogLogSlope"]
    assert quality(4 * plane + 20)["PowerLogLogSlope"] == pytest.approx(slope, rel=1e-5)


def test_rings_without_power_are_left_out_of_the_slope():
    # Stripes with a period of 32 px: waves 4 and 12 of 128, each also one ring further in.
    plane = np.kron([[0, 200] * 4] * 8, np.ones((16, 16))).astype(np.uint8)
    power = np.sin(np.pi * np.array([4, 4, 12, 12]) / 128) ** -2.0
    expected = np.polyfit(np.log([4, 5, 12, 13]), np.log(power), 1)[0]
    assert quality(plane)["PowerLogLogSlope"] == pytest.approx(expected, rel=1e-5)


def test_slope_of_a_plane_without_slow_waves_is_zero():
    # Only rounding is left in the rings, of which CellProfiler would fit the slope.
    assert quality(halves(0, 255, (254, 254)))["PowerLogLogSlope"] == 0


def test_correlation_is_one_along_a_period_and_minus_one_along_half():
    strip = 255 * noise((64, 20), high=2)
    assert quality(np.hstack([strip, strip, strip]))["Correlation"] == pytest.approx(1)
    assert quality(np.hstack([strip, 255 - strip, strip]))["Correlation"] == pytest.approx(-1)


def test_correlation_runs_along_rows_only():
    strip = noise((20, 120))
    assert abs(quality(np.vstack([strip, strip, strip]))["Correlation"]) < 0.1


def test_correlation_is_zero_where_one_side_of_the_pairs_is_constant():
    plane = noise((40, 40))
    plane[:, 20:] = 7
    assert quality(plane)["Correlation"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_correlation_is_skimage_s_of_the_cooccurrence_matrix(seed):
    plane = blurred(noise((60, 90), seed=seed), 1 + 3 * seed)
    fractions = (plane - plane.min()) / np.ptp(plane)
    levels = np.minimum(np.floor(fractions * 8), 7).astype(np.uint8)
    matrix = skimage.feature.graycomatrix(levels, distances=[20], angles=[0], levels=8)
    expected = skimage.feature.graycoprops(matrix, "correlation").item()
    assert quality(plane)["Correlation"] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_laplacian_variance_of_a_point_is_the_answer_by_hand():
    plane = np.zeros((16, 16), dtype=np.uint8)
    plane[7, 7] = 200
    expected = (800**2 + 4 * 200**2) / 256 / 255**2
    assert quality(plane)["LaplacianVariance"] == pytest.approx(expected)


@pytest.mark.parametrize("plane", [cell(), haze(), noise((31, 16)), noise((16, 33), 90, 94)])
def test_other_libraries_measure_the_same(plane):
    fractions = plane / 255
    laplacian = scipy.ndimage.laplace(plane.astype(float), mode="mirror")
    expected = {
        "LaplacianVariance": laplacian.var() / 255**2,
        "MeanIntensity": fractions.mean(),
        "MedianIntensity": np.median(fractions),
        "StdIntensity": fractions.std(),
        "MADIntensity": scipy.stats.median_abs_deviation(fractions, axis=None),
        "Percentile1": np.percentile(fractions, 1),
        "Percentile99": np.percentile(fractions, 99),
        "Entropy": skimage.measure.shannon_entropy(plane),
    }
    measured = quality(plane)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_blur_lowers_the_focus_measures_and_steepens_the_spectrum():
    sharp = cell(128, 128)
    series = [
        quality(plane) for plane in (sharp, *(blurred(sharp, sigma) for sigma in (0.8, 1.5, 3)))
    ]
    for name in ("FocusScore", "LaplacianVariance", "PowerLogLogSlope"):
        values = [measured[name] for measured in series]
        assert values == sorted(set(values), reverse=True), (name, values)


def test_saturation_raises_the_shares_of_maximal_and_white_pixels():
    plane = cell()
    clipped = np.minimum(plane * 1.5, 255).astype(np.uint8)
    before, after = quality(plane), quality(clipped)
    assert after["PercentMaximal"] > before["PercentMaximal"]
    assert before["PercentSaturated"] == 0
    assert after["PercentSaturated"] == after["PercentMaximal"]
    assert after["PercentSaturated"] == pytest.approx(100 * np.mean(plane >= 170))


def test_maximal_pixels_below_white_are_not_saturated():
    measured = quality(np.minimum(cell(), 150))
    assert measured["PercentMaximal"] > 1
    assert measured["PercentSaturated"] == 0


def test_permuting_channels_permutes_their_blocks():
    crops = noise((3, 4, 24, 40))
    blocks = image_quality(crops).reshape(3, 4, -1)
    order = [2, 0, 3, 1]
    permuted = image_quality(crops[:, order]).reshape(3, 4, -1)
    np.testing.assert_allclose(permuted, blocks[:, order], rtol=1e-6)


def test_a_crop_s_values_do_not_depend_on_its_batch():
    crops = np.concatenate([noise((37, 2, 35, 33)), np.zeros((2, 2, 35, 33), np.uint8)])
    together = image_quality(crops)
    apart = np.concatenate([image_quality(crop[None]) for crop in crops])
    np.testing.assert_allclose(together, apart, rtol=1e-6)


def test_views_of_crops_measure_like_copies():
    crops = noise((2, 2, 40, 80))
    view = crops[::-1, :, ::-1, ::2]
    np.testing.assert_array_equal(image_quality(view), image_quality(view.copy()))


def test_crops_stay_as_they_were():
    crops = noise((2, 2, 32, 32))
    before = crops.copy()
    image_quality(crops)
    np.testing.assert_array_equal(crops, before)


def test_measures_come_channel_by_channel():
    values = image_quality(np.stack([halves(0, 0), halves(0, 200)])[None])
    assert values.shape == (1, 2 * len(MEASURES)) and values.dtype == np.float32
    assert values.reshape(2, -1)[:, MEASURES.index("Entropy")].tolist() == [0, 1]


def test_no_crops_give_no_rows():
    assert image_quality(np.empty((0, 3, 16, 16), np.uint8)).shape == (0, 3 * len(MEASURES))


@pytest.mark.parametrize("shape", [(16, 16), (20, 21), (37, 64), (128, 128)])
@pytest.mark.parametrize("level", [0, 37, 128, 254, 255])
def test_constant_crop_has_the_documented_values(level, shape):
    expected = OF_A_CONSTANT | dict.fromkeys(LEVEL_MEASURES, level / 255)
    expected["PercentSaturated"] = 100 * (level == 255)
    assert quality(np.full(shape, level, np.uint8)) == pytest.approx(expected)


def test_small_crops_lack_the_documented_measures():
    assert quality(noise((31, 64)))["PowerLogLogSlope"] == 0
    assert quality(noise((32, 64)))["PowerLogLogSlope"] != 0
    assert quality(noise((64, 20)))["Correlation"] == 0
    assert quality(noise((64, 21)))["Correlation"] != 0
    assert quality(noise((20, 20)))["LocalFocusScore"] == 0
    assert quality(noise((20, 21)))["LocalFocusScore"] != 0


@pytest.mark.parametrize("shape", [(16, 16), (17, 50), (33, 21), (64, 64)])
@pytest.mark.parametrize("background, spot", [(0, 1), (0, 255), (255, 254), (255, 0), (100, 101)])
def test_one_odd_pixel_keeps_every_value_finite(background, spot, shape):
    for place in ((0, 0), (9, 12), (shape[0] - 1, shape[1] - 1)):
        plane = np.full(shape, background, np.uint8)
        plane[place] = spot
        assert np.isfinite(list(quality(plane).values())).all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(*[st.just(1)] * 2, *[st.integers(16, 48)] * 2)))
def test_every_value_is_finite_and_shares_are_shares(crops):
    values = dict(zip(MEASURES, image_quality(crops)[0], strict=True))
    assert np.isfinite(list(values.values())).all()
    assert -1 - 1e-6 <= values["Correlation"] <= 1 + 1e-6
    assert 0 <= values["Entropy"] <= 8
    assert all(0 <= values[name] <= 100 for name in MEASURES if name.startswith("Percent"))


@pytest.mark.parametrize(
    "crops, given",
    [
        (np.zeros((2, 3, 32, 32), np.float32), r"float32 of shape \(2, 3, 32, 32\)"),
        (np.zeros((2, 3, 32, 32), np.uint16), r"uint16 of shape \(2, 3, 32, 32\)"),
        (np.zeros((3, 32, 32), np.uint8), r"uint8 of shape \(3, 32, 32\)"),
        (np.zeros((2, 3, 32, 15), np.uint8), r"uint8 of shape \(2, 3, 32, 15\)"),
    ],
)
def test_other_arrays_are_refused_with_what_was_given(crops, given):
    expected = "crops must be uint8, n x C x H x W with sides of at least 16 px, but are "
    with pytest.raises(InputError, match=expected + given):
        image_quality(crops)
