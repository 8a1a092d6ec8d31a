"""The width of a nucleus' edge: known widths, noise, neighbours, what has no edge."""

import cv2
import numpy as np
import pytest

from hcsqc.crops.focus import edge_widths

# Of an edge that was blurred by a Gaussian: 10 to 90% of its rise are 2.563 standard deviations.
RISE = 2.563


def nucleus(sd_px=2.0, side=96, radius=14.0, others=(), level=120.0, background=10.0) -> np.ndarray:
    """Return a disc in the middle, and others at (y, x), seen through a Gaussian; H x W."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    plane = np.full((side, side), background, np.float32)
    for cy, cx in ((side / 2, side / 2), *others):
        plane = np.maximum(plane, background + level * (np.hypot(y - cy, x - cx) < radius))
    return cv2.GaussianBlur(plane, (0, 0), sd_px)


def recorded(plane: np.ndarray, noise: float = 0.0) -> np.ndarray:
    noisy = plane + np.random.default_rng(0).normal(0, noise, plane.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sd_px", [1.5, 2.0, 3.0, 4.0, 5.0])
def test_the_width_is_that_of_the_blur(sd_px):
    (width,) = edge_widths(recorded(nucleus(sd_px))[None])
    assert width == pytest.approx(RISE * sd_px, rel=0.15)


@pytest.mark.parametrize("noise", [2.0, 6.0, 12.0])
def test_noise_does_not_move_it(noise):
    for sd_px in (2.0, 5.0):
        (width,) = edge_widths(recorded(nucleus(sd_px), noise)[None])
        assert width == pytest.approx(RISE * sd_px, rel=0.25)


def test_brightness_and_size_do_not_move_it():
    planes = [nucleus(radius=10), nucleus(radius=18), nucleus(level=30), nucleus(background=60)]
    widths = edge_widths(np.stack([recorded(plane) for plane in planes]))
    np.testing.assert_allclose(widths, RISE * 2, rtol=0.15)


def test_a_neighbour_does_not_widen_it():
    planes = [nucleus(others=others) for others in ((), ((48, 82),), ((48, 82), (14, 40)))]
    widths = edge_widths(np.stack([recorded(plane) for plane in planes]))
    np.testing.assert_allclose(widths, widths[0], rtol=0.1)


def test_what_has_no_nucleus_in_the_middle_has_no_width():
    empty = np.full((96, 96), 12, np.uint8)
    faint = recorded(nucleus(level=4))
    beside = np.roll(recorded(nucleus()), 30, axis=(0, 1))
    assert np.isnan(edge_widths(np.stack([empty, faint, beside]))).all()
    assert edge_widths(np.empty((0, 96, 96), np.uint8)).shape == (0,)
