"""The microscope's camera: uneven light, noise and saturation."""

import numpy as np

from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.seeds import random_generator

TOP = 4095.0  # 12-bit cameras in 16-bit files
CAMERA_OFFSET = 120.0  # grey levels without light
GREY_LEVELS_PER_ELECTRON = 0.4
READ_NOISE = 2.0  # grey levels
SHADING = 0.15  # loss of light from the brightest place of a field to the darkest


def make_shading(settings: SimulationSettings, plate: str, channels: int) -> np.ndarray:
    """Return a plate's uneven illumination, C x H x W: 1 at the brightest place."""
    rng = random_generator(settings.seed, plate)
    y = np.linspace(-1, 1, settings.height_px, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, settings.width_px, dtype=np.float32)[None, :]
    planes = []
    for _ in range(channels):
        top, left = rng.uniform(-0.3, 0.3, 2)
        fall = (y - np.float32(top)) ** 2 + (x - np.float32(left)) ** 2
        planes.append(1 - SHADING * (fall - fall.min()) / max(np.ptp(fall), 1e-6))
    return np.stack(planes).astype(np.float32)


def expose(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what the camera records of noise-free grey levels of any shape: uint16, 12 bits.

    Shot noise is drawn as a normal deviate, since a pixel collects a hundred electrons or more.
    A level at the top stands for any light beyond it, so that it stays there.
    """
    shot_variance = GREY_LEVELS_PER_ELECTRON * np.maximum(levels - CAMERA_OFFSET, 0)
    noisy = rng.standard_normal(levels.shape, dtype=np.float32)
    noisy *= np.sqrt(shot_variance + READ_NOISE**2)
    noisy += levels
    noisy[levels >= TOP] = TOP
    return np.clip(np.rint(noisy), 0, TOP).astype(np.uint16)
