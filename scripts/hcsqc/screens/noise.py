"""The noise of a camera, estimated from the grey levels that it recorded.

Shot noise grows with the light, read noise does not: the variance of a pixel is a line over its
grey level (Janesick 2007, "Photon Transfer", doi:10.1117/3.725073).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import nnls

# A second difference in both directions (Immerkaer 1996, "Fast Noise Variance Estimation",
# doi:10.1006/cviu.1996.0060): smooth light has none, and white noise 36 times its variance.
MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
MASK_GAIN = float((MASK**2).sum())
BLOCK_PX = 8
BINS = 16
FEWEST_BLOCKS = 10  # in a bin
# Blocks with texture have more than the noise, so a low quantile of a bin's blocks is taken. Of
# white noise alone that quantile lies below the mean by this factor (90,000 blocks).
SMOOTH, SMOOTH_FACTOR = 0.2, 0.726
ROUNDS = 5
LEAST = 1e-6  # grey levels squared


@dataclass(frozen=True)
class CameraNoise:
    """Noise of each of C channels.

    The variance of a grey level is `read` (grey levels squared) and `shot` times what it lies
    above the `background`.
    """

    background: np.ndarray
    read: np.ndarray
    shot: np.ndarray

    def variance(self, levels: np.ndarray) -> np.ndarray:
        """Return the variance of recorded grey levels, C x H x W."""
        background, read, shot = (
            np.asarray(values, np.float32)[:, None, None]
            for values in (self.background, self.read, self.shot)
        )
        return read + shot * np.maximum(levels - background, 0)


def estimate_noise(images: Iterable[np.ndarray], background: np.ndarray) -> CameraNoise:
    """Return the noise of the camera that recorded images, each C x H x W of grey levels.

    `background` are the C grey levels without light. A line is fitted to the noise of the smoothest
    blocks of 8 x 8 pixels at each brightness. Images without enough blocks have no noise.
    """
    blocks = [_blocks(image) for image in images]
    if not blocks:
        nothing = np.zeros(len(background))
        return CameraNoise(np.asarray(background), nothing, nothing)
    means, variances = (np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True))
    lines = [_line(*of_channel) for of_channel in zip(means, variances, background, strict=True)]
    read, shot = np.transpose(lines)
    return CameraNoise(np.asarray(background), read, shot)


def noise_variance(plane: np.ndarray) -> float:
    """Return the variance of white noise on a smooth plane, H x W."""
    return float((_second_difference(plane) ** 2).mean() / MASK_GAIN)


def _second_difference(plane: np.ndarray) -> np.ndarray:
    """Return the mask's response where it lies inside a plane, (H - 2) x (W - 2)."""
    return cv2.filter2D(plane.astype(np.float32), cv2.CV_32F, MASK)[1:-1, 1:-1]


def _blocks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and noise variance of each block of an image, both C x blocks."""
    rows, columns = ((side - 2) // BLOCK_PX for side in image.shape[1:])
    inside = slice(1, 1 + rows * BLOCK_PX), slice(1, 1 + columns * BLOCK_PX)

    def cut(plane: np.ndarray) -> np.ndarray:
        return plane.reshape(rows, BLOCK_PX, columns, BLOCK_PX).mean(axis=(1, 3)).ravel()

    means = [cut(plane[inside].astype(np.float64)) for plane in image]
    squares = [
        cut(_second_difference(plane)[: rows * BLOCK_PX, : columns * BLOCK_PX] ** 2)
        for plane in image
    ]
    return np.stack(means), np.stack(squares) / MASK_GAIN


def _line(means: np.ndarray, variances: np.ndarray, background: float) -> tuple[float, float]:
    """Return read and shot noise of a channel from its blocks."""
    light = np.maximum(means - background, 0)
    order = np.argsort(light, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part) >= FEWEST_BLOCKS]
    if not bins or not variances.any():
        return 0.0, 0.0
    read, shot = max(float(np.median(variances)), LEAST), 0.0
    at = np.array([light[part].mean() for part in bins])
    for _ in range(ROUNDS):
        # Within a bin the noise grows too: relative to the line of the round before it is alike.
        usual = read + shot * light
        noise = (read + shot * at) * [_smoothest(variances[part] / usual[part]) for part in bins]
        read, shot = _fitted(at, noise)
    return read, shot


def _smoothest(ratios: np.ndarray) -> float:
    return float(np.quantile(ratios, SMOOTH)) / SMOOTH_FACTOR


def _fitted(light: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Return the line nearest to noise, in relative least squares; neither number is below 0."""
    weights = 1 / np.maximum(noise, max(1e-3 * noise.max(), LEAST))
    (read, shot), _ = nnls(np.stack([weights, light * weights], axis=1), noise * weights)
    return max(float(read), LEAST), float(shot)
