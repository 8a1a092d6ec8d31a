"""Textures: periodic tiles of noise, and the pieces that are cut from them."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

TILE = 512  # pixels, each way; textures repeat beyond


@dataclass(frozen=True)
class Textures:
    """Periodic noise tiles, from fine to wide grain: TILE x TILE float32, mean 0, deviation 1."""

    fine: np.ndarray
    medium: np.ndarray
    coarse: np.ndarray
    wide: np.ndarray
    fibres: np.ndarray  # elongated along x


def make_textures() -> Textures:
    """Return the noise tiles, the same for every plate; what is cut from them differs."""
    rng = np.random.default_rng(0)
    return Textures(
        fine=_noise_tile(rng, 0.9, 0.9),
        medium=_noise_tile(rng, 2.0, 2.0),
        coarse=_noise_tile(rng, 7.0, 7.0),
        wide=_noise_tile(rng, 22.0, 22.0),
        fibres=_noise_tile(rng, 16.0, 1.2),
    )


def _noise_tile(rng: np.random.Generator, grain_x: float, grain_y: float) -> np.ndarray:
    """Return periodic Gaussian noise whose grains have deviations of `grain_x`, `grain_y` px."""
    noise = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]
    noise *= np.exp(-2 * math.pi**2 * ((grain_x * fx) ** 2 + (grain_y * fy) ** 2))
    noise[0, 0] = 0
    tile = np.fft.irfft2(noise, (TILE, TILE))
    return (tile / tile.std()).astype(np.float32)


def cut(
    tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, step: int = 1
) -> np.ndarray:
    """Return a piece of `shape`, H x W, of a tile at a random place, of every `step`-th pixel."""
    top, left = rng.integers(0, TILE, 2)
    rows = (top + step * np.arange(shape[0])) % TILE
    columns = (left + step * np.arange(shape[1])) % TILE
    return tile.take(rows, axis=0).take(columns, axis=1)


def cut_turned(
    tile: np.ndarray, shape: tuple[int, int], angle: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a piece of `shape`, H x W, of a tile at a random place, turned by `angle` radians."""
    offset = rng.uniform(0, TILE, 2)
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, sine, offset[0]], [-sine, cosine, offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, turn, shape[::-1], flags=flags, borderMode=cv2.BORDER_WRAP)
