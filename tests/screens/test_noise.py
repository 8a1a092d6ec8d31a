"""Noise of a camera: known cameras are recovered, and degraded images keep what they would have."""

import numpy as np
import pytest

from hcsqc.screens.artefacts import Optics, degrade
from hcsqc.screens.noise import CameraNoise, estimate_noise, noise_variance

BACKGROUND = np.array([120.0, 200.0])
CAMERA = CameraNoise(BACKGROUND, np.array([4.0, 60.0]), np.array([0.4, 1.5]))
OPTICS = Optics(BACKGROUND, np.array([700.0, 500.0]), 60_000.0, 12.0, dna=0)
CENTRE = (100.0, 100.0)


def light(brightest=900.0, grain=0.0) -> np.ndarray:
    """Return a ramp of light, 2 x 200 x 200 grey levels, with smooth texture beside it."""
    y, x = np.mgrid[:200, :200] / 200
    texture = grain * np.sin(40 * y) * np.sin(37 * x) * (x > 0.5)
    return (BACKGROUND[:, None, None] + brightest * x + texture).astype(np.float32)


def recorded(levels: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(levels.shape, dtype=np.float32)
    return levels + np.sqrt(CAMERA.variance(levels)) * noise


@pytest.mark.parametrize("grain", [0.0, 60.0])
def test_read_and_shot_noise_are_recovered(grain):
    images = [recorded(light(grain=grain), seed) for seed in range(4)]
    found = estimate_noise(images, BACKGROUND)
    np.testing.assert_allclose(found.read, CAMERA.read, rtol=0.1, atol=2)
    np.testing.assert_allclose(found.shot, CAMERA.shot, rtol=0.1)


def test_edges_and_grains_are_not_taken_for_noise():
    levels = light(0.0)
    levels[:, :, 100:] += 800 * (np.random.default_rng(0).random((200, 100)) > 0.9)
    levels[:, ::40] += 500
    found = estimate_noise([recorded(levels, seed) for seed in range(4)], BACKGROUND)
    np.testing.assert_allclose(found.read, CAMERA.read, rtol=0.5)


def test_no_image_and_images_of_no_block_have_no_noise():
    for images in ([], [np.zeros((2, 5, 5), np.float32)]):
        found = estimate_noise(images, BACKGROUND)
        assert found.read.tolist() == found.shot.tolist() == [0, 0]


def test_constant_images_have_no_noise():
    found = estimate_noise([np.full((2, 200, 200), 300.0)] * 2, BACKGROUND)
    np.testing.assert_allclose([found.read, found.shot], 0, atol=1e-6)


def test_images_of_which_most_is_constant_have_little_noise():
    images = np.full((2, 2, 200, 200), 300.0)
    images[:, :, :20] += np.random.default_rng(0).normal(0, 5, (2, 2, 20, 200))
    found = estimate_noise(images, BACKGROUND)
    assert (found.variance(np.full((2, 1, 1), 300.0)) < 1).all()


# Dead cells of a whole field stand where the image is bright, which its noise would move.
@pytest.mark.parametrize(
    ("artefact", "centre"),
    [("dead", CENTRE)]
    + [
        (artefact, centre)
        for artefact in ("blur", "empty", "debris", "autofluorescence")
        for centre in (None, CENTRE)
    ],
)
def test_a_degraded_image_is_as_noisy_as_one_recorded_of_degraded_light(artefact, centre):
    def spoilt(levels, seed, noise=None):
        rng = np.random.default_rng(seed)
        return degrade(levels, artefact, 0.8, rng, OPTICS, centre, noise)

    clean = light()
    wanted = np.array([spoilt(clean, s) for s in range(10)])
    errors = [spoilt(recorded(clean, 9 + s), s, CAMERA) - wanted[s] for s in range(10)]
    middle = (slice(None), slice(60, 140), slice(60, 140))
    for channel in range(2):
        seen = (wanted[:, channel] < 0.9 * OPTICS.top)[middle]  # not cut off by saturation
        expected = np.array([CAMERA.variance(levels)[channel] for levels in wanted])[middle][seen]
        found = np.square(errors)[:, channel][middle][seen]
        assert found.mean() == pytest.approx(expected.mean(), rel=0.1)


def test_a_blurred_image_is_as_noisy_as_before_and_without_its_camera_it_is_not():
    clean = light(0.0)
    image = recorded(clean, 1)
    rng = np.random.default_rng
    told, untold = (
        degrade(image, "blur", 0.7, rng(2), OPTICS, noise=noise) for noise in (CAMERA, None)
    )
    before = [noise_variance(plane) for plane in image]
    assert [noise_variance(plane) for plane in told] == pytest.approx(before, rel=0.1)
    assert max(noise_variance(plane) for plane in untold) < 0.1 * min(before)
