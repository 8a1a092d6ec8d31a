"""The artefact models: known answers, growth with strength, and what must stay as it was."""

import cv2
import numpy as np
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import ARTEFACTS
from hcsqc.screens.artefacts import REACH_RADII, SIMULATED, Optics, degrade

RADIUS = 12.0
OPTICS = Optics(np.array([160.0, 240.0]), np.array([600.0, 500.0]), 4095.0, RADIUS, dna=0)
CENTRE = (80.0, 90.0)
STRENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Three round cells with granules, 2 x 160 x 180: one at CENTRE."""
    y, x = np.mgrid[:160, :180].astype(np.float32)
    grain = cv2.GaussianBlur(np.random.default_rng(0).standard_normal(y.shape), (0, 0), 1.0)
    pixels = np.empty((2, 160, 180), dtype=np.float32)
    pixels[:] = OPTICS.background[:, None, None]
    for cy, cx in (CENTRE, (30, 30), (125, 145)):
        distance = np.hypot(y - cy, x - cx)
        pixels[0] += 550 * np.clip(RADIUS - distance, 0, 1)
        pixels[1] += 300 * np.exp(-distance / 20) * (1 + grain)
    return pixels


def spoil(pixels, artefact, strength, centre, seed=5):
    return degrade(pixels, artefact, strength, np.random.default_rng(seed), OPTICS, centre)


def signal(pixels):
    return float((pixels - OPTICS.background[:, None, None]).mean())


def sharpness(pixels):
    return float(np.mean([cv2.Laplacian(plane, -1).var() for plane in pixels]))


def condensation(pixels):
    """Brightest DNA over the mean of the second channel around the first nucleus."""
    y, x = np.mgrid[:160, :180]
    away = np.hypot(y - CENTRE[0], x - CENTRE[1]) / RADIUS
    around = pixels[1][(away > 1.9) & (away < 2.1)].mean() - OPTICS.background[1]
    return float(pixels[0][away < 0.7].max() / around)


GROWS = {
    "blur": lambda after, before: -sharpness(after),
    "saturation": lambda after, before: signal(after),
    "debris": lambda after, before: signal(after),
    "noise": lambda after, before: float((after - before).std()),
    "autofluorescence": lambda after, before: signal(after),
    "empty": lambda after, before: -signal(after),
    "dead": lambda after, before: condensation(after),
}


def test_models_are_all_artefacts_but_other():
    assert ("other", *SIMULATED) == (ARTEFACTS[-1], *ARTEFACTS[:-1])


@pytest.mark.parametrize("centre", [None, CENTRE], ids=["field", "cell"])
@pytest.mark.parametrize("artefact", SIMULATED)
def test_artefact_grows_with_strength(cells, artefact, centre):
    sizes = [GROWS[artefact](spoil(cells, artefact, s, centre), cells) for s in STRENGTHS]
    assert sizes == sorted(set(sizes)), sizes
    assert sizes[0] >= GROWS[artefact](cells, cells)


@pytest.mark.parametrize("artefact", SIMULATED)
def test_weak_is_faint_and_strong_is_plain(cells, artefact):
    y, x = (round(value) for value in CENTRE)
    near = (slice(None), slice(y - 24, y + 25), slice(x - 24, x + 25))
    weak, strong = (
        np.abs(spoil(cells, artefact, s, CENTRE) - cells)[near].mean() for s in (0.1, 1.0)
    )
    assert 0 < weak < 60
    assert strong > 4 * weak


@pytest.mark.parametrize("strength", [0.1, 1.0])
@pytest.mark.parametrize("centre", [None, CENTRE, (0, 179)], ids=["field", "cell", "corner"])
@pytest.mark.parametrize("artefact", SIMULATED)
def test_result_keeps_shape_range_and_input(cells, artefact, centre, strength):
    before = cells.copy()
    after = spoil(cells, artefact, strength, centre)
    assert after.shape == cells.shape and after.dtype == np.float32
    assert after.min() >= 0 and after.max() <= OPTICS.top
    assert np.isfinite(after).all()
    np.testing.assert_array_equal(cells, before)
    np.testing.assert_array_equal(after, spoil(cells, artefact, strength, centre))


@pytest.mark.parametrize("artefact", SIMULATED)
def test_artefact_of_a_cell_spares_the_others(cells, artefact):
    y, x = np.mgrid[:160, :180]
    offset = np.maximum(np.abs(y - CENTRE[0]), np.abs(x - CENTRE[1]))
    changed = np.abs(spoil(cells, artefact, 1.0, CENTRE) - cells).max(axis=0)
    assert changed[offset > REACH_RADII * RADIUS + 1].max() == 0
    assert changed[offset < RADIUS].max() > 50


@pytest.mark.parametrize("artefact", sorted({*SIMULATED} - {"dead"}))
def test_whole_field_suffers_without_centre(cells, artefact):
    changed = np.abs(spoil(cells, artefact, 1.0, None) - cells).max(axis=0)
    corners = (changed[:80, :90], changed[:80, 90:], changed[80:, :90], changed[80:, 90:])
    assert min(corner.max() for corner in corners) > 50


def test_blur_spreads_a_point_over_a_disc():
    pixels = np.zeros((2, 101, 101), dtype=np.float32)
    pixels[:, 50, 50] = 4000
    blurred = spoil(pixels, "blur", 1.0, None)
    y, x = np.mgrid[:101, :101]
    away = np.hypot(y - 50, x - 50)
    radius = 1.2 * RADIUS
    np.testing.assert_allclose(blurred.sum(axis=(1, 2)), 4000, rtol=1e-4)
    inside = blurred[0][away < radius - 1]
    np.testing.assert_allclose(inside, 4000 / (np.pi * radius**2), rtol=0.02)
    assert np.abs(blurred[0][away > radius + 1]).max() < 1e-3


def test_saturation_brings_half_a_normal_signal_to_the_top():
    pixels = np.empty((2, 8, 8), dtype=np.float32)
    pixels[:] = (OPTICS.background + OPTICS.signal / 2)[:, None, None]
    np.testing.assert_allclose(spoil(pixels, "saturation", 1.0, None), OPTICS.top, rtol=1e-5)
    assert spoil(pixels, "saturation", 0.5, None).max() < OPTICS.top


def test_empty_fades_towards_the_background():
    pixels = np.empty((2, 8, 8), dtype=np.float32)
    pixels[:] = OPTICS.background[:, None, None] + 100
    expected = np.broadcast_to(OPTICS.background[:, None, None] + 51.5, pixels.shape)
    np.testing.assert_allclose(spoil(pixels, "empty", 0.5, None), expected, rtol=1e-5)


def test_noise_has_the_documented_spread():
    pixels = np.empty((2, 200, 200), dtype=np.float32)
    pixels[:] = (OPTICS.background + OPTICS.signal)[:, None, None]
    spread = spoil(pixels, "noise", 0.5, None).std(axis=(1, 2))
    np.testing.assert_allclose(spread, 0.5 * 0.6 * OPTICS.signal, rtol=0.02)


def test_every_nucleus_of_a_dead_field_condenses(cells):
    dead = spoil(cells, "dead", 1.0, None)
    for cy, cx in (CENTRE, (30, 30), (125, 145)):
        y, x = int(cy), int(cx)
        assert dead[0, y - 6 : y + 7, x - 6 : x + 7].max() > cells[0].max() + 300


def test_a_dead_cell_leaves_its_neighbours_as_they_are(cells):
    dead = spoil(cells, "dead", 1.0, CENTRE)
    away = np.hypot(*(np.indices(cells.shape[1:]) - np.array(CENTRE)[:, None, None]))
    np.testing.assert_array_equal(dead[:, away > 4.5 * RADIUS], cells[:, away > 4.5 * RADIUS])
    middle = away < 0.5 * RADIUS
    assert (dead[:, middle].max(axis=1) > cells[:, middle].max(axis=1) + 100).all()


@pytest.mark.parametrize("artefact", ["other", "scratch"])
def test_unknown_artefact_is_refused(cells, artefact):
    with pytest.raises(InputError, match=f"artefact '{artefact}' has no model; choose one of"):
        spoil(cells, artefact, 0.5, None)


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan")])
def test_strength_out_of_range_is_refused(cells, strength):
    with pytest.raises(InputError, match="of 'blur' must be above 0 and at most 1"):
        spoil(cells, "blur", strength, None)


def test_centre_outside_is_refused(cells):
    with pytest.raises(InputError, match="lies outside the image"):
        spoil(cells, "blur", 0.5, (160, 3))
