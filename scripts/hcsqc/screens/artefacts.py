"""Artefacts in images of cells, as graded models on grey levels.

The same models degrade simulated fields and real crops. They imitate what a microscopist sees
(the kinds are ours, after the paper's list of aberrations); none is fitted to data. Each acts on
light. A recorded image holds its camera's noise as well, and what a model takes of that is put
back: a true defocus is as noisy as a sharp image, and a detector must not find it by its silence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from hcsqc.core.errors import InputError
from hcsqc.core.schema import ARTEFACTS
from hcsqc.screens.noise import CameraNoise

Centre = tuple[float, float] | None

SIMULATED = tuple(kind for kind in ARTEFACTS if kind != "other")

# An artefact of one cell acts fully up to CORE_RADII and not at all beyond REACH_RADII, both in
# nucleus radii from the nucleus' centre.
CORE_RADII = 1.5
REACH_RADII = 3.0
# What a dead cell is drawn in, radii of its ball from the centre.
REACH_OF_BALL = 3.0


@dataclass(frozen=True)
class Optics:
    """Grey levels and size that the models need."""

    background: np.ndarray  # (C,) grey level where there is no cell
    signal: np.ndarray  # (C,) grey levels of a bright part of a normal cell, above background
    top: float  # grey level of saturation
    nucleus_radius_px: float
    dna: int  # which channel is the DNA stain


@dataclass(frozen=True)
class _Changed:
    """Degraded grey levels, C x H x W, and what became of the noise in them.

    `kept` is the share of its variance, `alike` that of its covariance with the noise before.
    """

    levels: np.ndarray
    kept: float | np.ndarray = 1.0
    alike: float | np.ndarray = 1.0


def degrade(
    pixels: np.ndarray,
    artefact: str,
    strength: float,
    rng: np.random.Generator,
    optics: Optics,
    centre: Centre = None,
    noise: CameraNoise | None = None,
) -> np.ndarray:
    """Return a copy of `pixels` (C x H x W grey levels, float32) with an artefact in it.

    `strength` runs from just above 0 (hardly visible) to 1 (unmistakable). With `centre`, the
    (y, x) of a nucleus in pixels, only that cell suffers; without, the whole array does. The
    result lies in [0, optics.top]. Dead cells without a centre stand at the bright spots of the
    DNA stain. `noise` is that of the camera that recorded the pixels, and is put back where the
    artefact took of it; without, pixels are light that nobody recorded yet.
    """
    if artefact not in SIMULATED:
        raise InputError(f"artefact '{artefact}' has no model; choose one of {list(SIMULATED)}")
    if not 0 < strength <= 1:
        raise InputError(f"strength {strength} of '{artefact}' must be above 0 and at most 1")
    degraded = pixels.astype(np.float32)
    window = degraded if centre is None else _around(degraded, centre, optics)
    local = None if centre is None else _local_centre(centre, optics)
    changed = _MODELS[artefact](window.copy(), strength, rng, optics, local)
    weight: np.ndarray | float = 1.0
    if local is not None and artefact != "debris":  # Dirt ends sharply by itself.
        weight = _disc(window.shape[1:], local, optics)
    levels = window + weight * (changed.levels - window)
    if noise is not None and artefact != "noise":
        rest = 1 - weight
        kept = weight**2 * changed.kept + 2 * weight * rest * changed.alike + rest**2
        lost = np.maximum(noise.variance(levels) - kept * noise.variance(window), 0)
        levels += np.sqrt(lost) * rng.standard_normal(levels.shape, dtype=np.float32)
    window[:] = levels
    return np.clip(degraded, 0, optics.top, out=degraded)


def _reach_px(optics: Optics) -> int:
    return math.ceil(REACH_RADII * optics.nucleus_radius_px)


def _around(pixels: np.ndarray, centre: tuple[float, float], optics: Optics) -> np.ndarray:
    """Return the view of `pixels` that an artefact of the cell at `centre` can reach."""
    y, x = (round(value) for value in centre)
    if not (0 <= y < pixels.shape[1] and 0 <= x < pixels.shape[2]):
        raise InputError(f"centre (y, x) = {centre} lies outside the image {pixels.shape[1:]}")
    reach = _reach_px(optics)
    return pixels[:, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]


def _local_centre(centre: tuple[float, float], optics: Optics) -> tuple[float, float]:
    """Return `centre` in pixels of the view that `_around` gives."""
    reach = _reach_px(optics)
    y, x = (value - max(round(value) - reach, 0) for value in centre)
    return y, x


def _distance(shape: tuple[int, ...], centre: tuple[float, float]) -> np.ndarray:
    """Return each pixel's distance from `centre`, H x W, in pixels."""
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    return np.sqrt(y * y + x * x)


def _disc(shape: tuple[int, ...], centre: tuple[float, float], optics: Optics) -> np.ndarray:
    """Return weights H x W: 1 on the cell at `centre`, falling smoothly to 0."""
    return _ramp(shape, centre, optics, CORE_RADII, REACH_RADII)


def _ramp(
    shape: tuple[int, ...], centre: tuple[float, float], optics: Optics, full: float, end: float
) -> np.ndarray:
    """Return weights H x W: 1 up to `full` nucleus radii from `centre`, smoothly to 0 at `end`."""
    radii = _distance(shape, centre) / optics.nucleus_radius_px
    ramp = np.clip((end - radii) / (end - full), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _levels(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[:, None, None]


def _blur(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """Defocus: each point becomes a disc of up to 1.2 nucleus radii."""
    radius = 1.2 * strength * optics.nucleus_radius_px
    half = math.ceil(radius + 0.5)
    kernel = np.clip(radius + 0.5 - _distance((2 * half + 1,) * 2, (half, half)), 0, 1)
    kernel /= kernel.sum()
    blurred = [cv2.filter2D(plane, -1, kernel, borderType=cv2.BORDER_REFLECT) for plane in pixels]
    return _Changed(np.stack(blurred), float((kernel**2).sum()), float(kernel[half, half]))


def _saturation(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """Too much exposure or stain: at strength 1 half of a normal signal reaches the top."""
    background = _levels(optics.background)
    strongest = np.maximum(2 * (optics.top - background) / _levels(optics.signal), 1)
    gain = 1 + (strongest - 1) * strength**1.5
    return _Changed(background + (pixels - background) * gain, gain**2, gain)


def _noise(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """Too little light, amplified: read noise everywhere and shot noise on the signal."""
    signal = _levels(optics.signal)
    above = np.maximum(pixels - _levels(optics.background), 0)
    deviation = strength * (0.2 * signal + 0.4 * np.sqrt(above * signal))
    return _Changed(pixels + deviation * rng.standard_normal(pixels.shape, dtype=np.float32))


def _autofluorescence(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """A smooth glow that ignores the cells, such as a fluorescent compound's; hues differ."""
    height, width = pixels.shape[1:]
    if centre is None:
        clouds, spread = 4, (0.15 * min(height, width), 0.45 * min(height, width))
    else:
        clouds, spread = 2, (1.2 * optics.nucleus_radius_px, 2 * optics.nucleus_radius_px)
    haze = np.zeros((height, width), dtype=np.float32)
    for _ in range(clouds):
        if centre is None:
            place = rng.uniform(0, height), rng.uniform(0, width)
        else:
            shift = rng.uniform(-1, 1, 2) * optics.nucleus_radius_px
            place = centre[0] + shift[0], centre[1] + shift[1]
        haze += np.exp(-0.5 * (_distance(haze.shape, place) / rng.uniform(*spread)) ** 2)
    colour = rng.uniform(0.2, 1, len(pixels)).astype(np.float32)
    colour[rng.integers(len(pixels))] = 1
    brightest = 2.5 * strength / haze.max()
    return _Changed(pixels + brightest * haze * _levels(colour * optics.signal))


def _empty(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """Nothing there, or a ghost: the signal fades into the background."""
    background = _levels(optics.background)
    left = 1 - 0.97 * strength
    return _Changed(background + (pixels - background) * left, left**2, left)


def _dead(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """The cell has rounded up into a bright granular ball or two, its nucleus into dense pieces.

    Neighbours stay as they are: a dead cell lies on them or beside. Where no cell is meant, all
    else fades.
    """
    radius = optics.nucleus_radius_px
    centres = _bright_spots(pixels[optics.dna], optics) if centre is None else [centre]
    body = np.zeros(pixels.shape[1:], dtype=np.float32)
    core = np.zeros_like(body)
    for place in centres:
        size = rng.uniform(0.75, 1.2) * (1.2 - 0.2 * strength) * radius
        turn = rng.uniform(0, 2 * math.pi)
        apart = 1.5 * size * np.array([math.sin(turn), math.cos(turn)])
        for number in range(rng.integers(1, 3)):
            _stamp_dead(body, core, np.asarray(place) + number * apart, size, rng)
    # Stains differ in how much of them a dead cell takes up, and cells too.
    of_body = rng.uniform(0.7, 2.5, len(pixels)).astype(np.float32)
    of_core = rng.uniform(0.2, 0.8, len(pixels)).astype(np.float32)
    of_body[optics.dna], of_core[optics.dna] = rng.uniform(0.1, 0.7), rng.uniform(1.5, 3.5)
    light = of_body[:, None, None] * body + of_core[:, None, None] * core
    gone = 0.9 * strength
    fading = gone if centre is None else gone * _ramp(pixels.shape[1:], centre, optics, 1.2, 1.7)
    left = 1 - fading
    background = _levels(optics.background)
    faded = background + (pixels - background) * left
    return _Changed(faded + strength * _levels(optics.signal) * light, left**2, left)


def _stamp_dead(
    body: np.ndarray,
    core: np.ndarray,
    place: np.ndarray,
    size: float,
    rng: np.random.Generator,
) -> None:
    """Add a ball of granules to `body` and pieces of its nucleus to `core`, both H x W."""
    half = math.ceil(REACH_OF_BALL * size)
    top, left = (max(round(value) - half, 0) for value in place)
    view = np.s_[top : max(round(place[0]) + half, top), left : max(round(place[1]) + half, left)]
    ball = np.zeros_like(body[view])
    if not ball.size:  # a second ball beyond the border
        return
    pieces, middle = np.zeros_like(ball), place - (top, left)
    _stamp_ball(ball, tuple(middle), size)
    for _ in range(rng.integers(3, 8)):
        granule = np.zeros_like(ball)
        beside = middle + rng.normal(0, 0.45 * size, 2)
        _stamp_ball(granule, tuple(beside), rng.uniform(0.25, 0.6) * size)
        ball += rng.uniform(0.2, 0.9) * granule
    for _ in range(rng.integers(1, 5)):
        beside = middle + rng.normal(0, 0.3 * size, 2)
        _stamp_ball(pieces, tuple(beside), rng.uniform(0.25, 0.75) * size)
    body[view] += cv2.GaussianBlur(ball, (0, 0), 0.1 * size)
    core[view] += cv2.GaussianBlur(pieces, (0, 0), 0.1 * size)


def _bright_spots(dna: np.ndarray, optics: Optics) -> np.ndarray:
    """Return the (y, x) of the maxima of the smoothed DNA stain, N x 2."""
    radius = optics.nucleus_radius_px
    smooth = cv2.GaussianBlur(dna, (0, 0), radius / 3)
    reach = 2 * round(0.8 * radius) + 1
    highest = cv2.dilate(smooth, np.ones((reach, reach), dtype=np.uint8))
    bright = smooth > optics.background[optics.dna] + 0.2 * optics.signal[optics.dna]
    return np.argwhere((smooth >= highest) & bright)


def _stamp_ball(canvas: np.ndarray, centre: tuple[float, float], radius: float) -> None:
    """Raise `canvas` (H x W) to the thickness, 0 to 1, of a ball seen from above."""
    half = math.ceil(radius) + 1
    top, left = max(round(centre[0]) - half, 0), max(round(centre[1]) - half, 0)
    view = canvas[top : round(centre[0]) + half + 1, left : round(centre[1]) + half + 1]
    distance = _distance(view.shape, (centre[0] - top, centre[1] - left)) / radius
    np.maximum(view, np.sqrt(np.clip(1 - distance * distance, 0, 1)), out=view)


def _debris(
    pixels: np.ndarray, strength: float, rng: np.random.Generator, optics: Optics, centre: Centre
) -> _Changed:
    """Bright, sharp dirt: fibres, specks and clumps, seen in every channel, often saturated.

    Over a whole array it is so dense that at medium strength most cells have some in reach.
    """
    radius = optics.nucleus_radius_px
    height, width = pixels.shape[1:]
    dirt = np.zeros_like(pixels)
    squares = height * width / (2 * REACH_RADII * radius) ** 2
    for _ in range(1 if centre is not None else math.ceil((0.2 + strength) * squares)):
        if centre is None:
            place = rng.uniform(0, height), rng.uniform(0, width)
            longest = rng.uniform(1.5, 5) * radius
        else:
            angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1) * radius
            place = centre[0] + away * math.sin(angle), centre[1] + away * math.cos(angle)
            longest = rng.uniform(1.2, 1.6) * radius
        # Colour before shape: the draws must not depend on the strength that shapes it.
        colour = rng.uniform(0.3, 1, len(pixels)).astype(np.float32)
        shape = _debris_shape((height, width), place, (0.25 + 0.75 * strength) * longest, rng)
        np.maximum(dirt, colour[:, None, None] * shape, out=dirt)
    glow = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.3 * radius) for plane in dirt])
    brightest = 1.5 * strength**1.3 * (optics.top - _levels(optics.background))
    return _Changed(pixels + brightest * (dirt + 0.1 * glow))


def _debris_shape(
    shape: tuple[int, int],
    place: tuple[float, float],
    longest: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the mask H x W, 0 to 1, of a fibre, a speck or a clump of `longest` px half-length."""
    mask = np.zeros(shape, dtype=np.uint8)
    kind = rng.integers(3)
    fraction_bits = 4  # OpenCV draws at fixed-point coordinates: sixteenths of a pixel.

    def fixed(points: np.ndarray) -> np.ndarray:
        return np.round((points + np.array(place[::-1])) * 2**fraction_bits).astype(np.int32)

    if kind == 0:
        along = np.linspace(-1, 1, 24)
        bend, wave, turn = rng.uniform(-0.4, 0.4), rng.uniform(0, 0.2), rng.uniform(0, math.pi)
        across = bend * (1 - along**2) + wave * np.sin(5 * along + turn)
        angle = rng.uniform(0, math.pi)
        turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        points = fixed(0.9 * longest * np.stack([along, across], axis=1) @ turned)
        thickness = max(round(0.12 * longest), 1)
        cv2.polylines(mask, [points], False, 255, thickness, cv2.LINE_AA, fraction_bits)
    else:
        pieces = 1 if kind == 1 else 5
        for _ in range(pieces):
            size = (0.4 if pieces == 1 else rng.uniform(0.15, 0.4)) * longest
            shift = np.zeros(2) if pieces == 1 else rng.uniform(-0.4, 0.4, 2) * longest
            angles = np.linspace(0, 2 * math.pi, 9, endpoint=False)
            radii = size * rng.uniform(0.5, 1, 9)
            corners = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) + shift
            cv2.fillPoly(mask, [fixed(corners)], 255, cv2.LINE_AA, fraction_bits)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.6)


_MODELS: dict[str, Callable[..., _Changed]] = {
    "blur": _blur,
    "saturation": _saturation,
    "debris": _debris,
    "noise": _noise,
    "autofluorescence": _autofluorescence,
    "empty": _empty,
    "dead": _dead,
}
