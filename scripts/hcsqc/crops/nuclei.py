"""Finding nuclei in the DNA channel: a fast method of ours, and others to choose from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.spatial import cKDTree

from hcsqc.core.errors import InputError
from hcsqc.crops import segmentation
from hcsqc.screens.levels import NucleusChannel

# The fast method shrinks a field until a nucleus is so wide.
SHRUNK_DIAMETER_PX = 10.5
# Otsu's threshold lies midway between background and typical nuclei; dim ones stand lower.
OTSU_SHARE = 0.65
# A pixel belongs to a nucleus only if it stands out of the background by this many standard
# deviations of it; without that, the threshold cuts through the noise of an empty field.
BACKGROUND_SIGMAS, LEAST_NOISE = 4.0, 1.0
# What the mean of the darkest quarter of a normal distribution lacks to its 25th percentile.
DARKEST_QUARTER_SIGMAS = 0.597
BACKGROUND_PERCENTILE, BRIGHT_PERCENTILE = 25.0, 99.5
# An export to 8 bits that was not stretched leaves nuclei a few grey levels above the background,
# and rounds the noise away. Each level is then divided into so many parts, which averaging fills.
FEW_LEVELS, PARTS_OF_A_LEVEL = 32, 64
# In levels: the standard deviation of rounding, 0.29, in a mean of four pixels, as shrinking takes.
ROUNDING_NOISE = 0.15
SMOOTHING_PX = 0.7  # of the shrunken field, so that the steps of rounding are no outlines
# In a field of few nuclei, their glow and uneven light weigh as much as they do. It is one if fewer
# than this share of its pixels are so many deviations bright; what is dimmer in it than the other
# share of a nucleus is none.
SPARSE_SHARE, CLEAR_SIGMAS, DIMMEST_SHARE = 0.04, 12.0, 0.05
# Shares of a nucleus' diameter: blur of the distance transform, and where only one peak may be.
PEAK_SIGMA, PEAK_REACH = 0.12, 0.5
# A slope over the distance transform, too small to matter, so that no two neighbours are equal.
TIE_BREAK = 2e-5
# From so many peaks on, a tree finds the nearest sooner than a table of all distances.
MANY_PEAKS = 40


@dataclass(frozen=True)
class NucleusSettings:
    """How to find nuclei, and what one looks like in pixels of the source image."""

    nucleus_method: str
    nucleus_diameter_px: float
    nucleus_smallest_px: int


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of a field: centres (column, row) and areas, in pixels of the source image."""

    x_px: np.ndarray
    y_px: np.ndarray
    area_px: np.ndarray

    def __len__(self) -> int:
        return len(self.x_px)


def find_nuclei(dna: np.ndarray, settings: NucleusSettings) -> Nuclei:
    """Find the nuclei of a field in its DNA channel, H x W of uint8 or uint16.

    Those smaller than `nucleus_smallest_px` are left out; no two have the same centre.
    Raises InputError if the method is not known, or its package or weights are not there.
    """
    if settings.nucleus_method not in SEGMENTATION_METHODS:
        known = ", ".join(SEGMENTATION_METHODS)
        raise InputError(f"nucleus_method '{settings.nucleus_method}' is not one of {known}")
    x, y, area = SEGMENTATION_METHODS[settings.nucleus_method](dna, settings.nucleus_diameter_px)
    large = area >= settings.nucleus_smallest_px
    height, width = dna.shape
    x = np.clip(np.rint(x[large]), 0, width - 1).astype(np.int32)
    y = np.clip(np.rint(y[large]), 0, height - 1).astype(np.int32)
    area = np.rint(area[large]).astype(np.int32)
    # Two nuclei never share a centre, because the centre is what names a nucleus.
    _, distinct = np.unique(y.astype(np.int64) * width + x, return_index=True)
    distinct.sort()
    return Nuclei(x[distinct], y[distinct], area[distinct])


def nuclei_shown(channel: str, diameter_px: float, smallest_px: int) -> NucleusChannel:
    """Return how a plate's scale finds nuclei: always by the fast method, a few would do."""
    settings = NucleusSettings("fast", diameter_px, smallest_px)

    def centres(dna: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = find_nuclei(dna, settings)
        return found.x_px, found.y_px

    return NucleusChannel(channel, diameter_px, centres)


Regions = tuple[np.ndarray, np.ndarray, np.ndarray]
Levels = tuple[int, float, int, int, float]


def _fast(dna: np.ndarray, diameter: float) -> Regions:
    """Otsu's threshold of the shrunken field, then a nucleus per peak of the distance transform.

    Grey levels above the background are replaced by their square roots, which evens out shot
    noise and brings dim nuclei near to bright ones. In a clump of several peaks each pixel goes
    to the nearest; a nucleus' centre and area are those of its pixels.
    """
    shrink = max(1.0, diameter / SHRUNK_DIAMETER_PX)
    height, width = int(dna.shape[0] / shrink), int(dna.shape[1] / shrink)
    if not height or not width:
        return _none()
    small, levels = _shrunk_finely(dna, width, height, diameter / shrink)
    mask = _foreground(small, levels)
    peaks = _peaks(mask, diameter / shrink)
    if not len(peaks):
        return _none()
    clumps, clump_of = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
    clump_of = clump_of.ravel()
    pixels = np.flatnonzero(mask.view(bool))
    rows, columns = _unravelled(pixels, width)
    owner = _owners(
        (*_unravelled(peaks, width), clump_of[peaks]),
        (rows, columns, clump_of[pixels]),
        clumps,
        height + width,
    )
    # The last owner has the pixels of clumps that are too thin for a peak.
    area, sum_x, sum_y = (
        np.bincount(owner, weights, len(peaks) + 1)[:-1] for weights in (None, columns, rows)
    )
    found = area > 0
    area = area[found]
    x, y = sum_x[found] / area, sum_y[found] / area
    step_x, step_y = dna.shape[1] / width, dna.shape[0] / height
    return (x + 0.5) * step_x - 0.5, (y + 0.5) * step_y - 0.5, area * (step_x * step_y)


def _shrunk(dna: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the field at another size: averaged by a whole number, the rest interpolated."""
    whole = dna.shape[1] // (2 * width)
    if whole > 1:
        size = dna.shape[1] // whole, dna.shape[0] // whole
        dna = cv2.resize(dna, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(dna, (width, height), interpolation=cv2.INTER_LINEAR)


def _shrunk_finely(
    dna: np.ndarray, width: int, height: int, diameter: float
) -> tuple[np.ndarray, Levels]:
    """Return the field at another size, of more grey levels if it has few, and its levels.

    `diameter` is in pixels of the shrunken field.
    """
    small = _shrunk(dna, width, height)
    levels = _levels(small, diameter, LEAST_NOISE)
    background, noise, _, peak, _ = levels
    if noise > LEAST_NOISE or not 0 < peak - background < FEW_LEVELS:
        return small, levels
    lowest = max(0, background - FEW_LEVELS)
    few = np.clip(dna.astype(np.int32) - lowest, 0, 65535 // PARTS_OF_A_LEVEL)
    small = _shrunk((PARTS_OF_A_LEVEL * few).astype(np.uint16), width, height)
    small = cv2.GaussianBlur(small, (0, 0), SMOOTHING_PX)
    return small, _levels(small, diameter, PARTS_OF_A_LEVEL * ROUNDING_NOISE)


def _foreground(dna: np.ndarray, levels: Levels) -> np.ndarray:
    """Return which pixels belong to nuclei: 255 or 0."""
    background, noise, bright, peak, clear = levels
    least = BACKGROUND_SIGMAS * noise
    if clear < SPARSE_SHARE:
        bright = max(bright, background + round(0.25 * (peak - background)))
        least = max(least, DIMMEST_SHARE * (peak - background))
    span = max(1.0, float(bright - background))
    roots = np.full(256 if dna.dtype == np.uint8 else 65536, 255, np.uint8)
    roots[: background + 1] = 0
    roots[background : bright + 1] = np.rint(
        255 * np.sqrt(np.arange(bright - background + 1) / span)
    )
    scaled = cv2.LUT(dna, roots)
    sample = np.ascontiguousarray(scaled[::2, ::2])
    otsu, _ = cv2.threshold(sample, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    least = 255 * np.sqrt(least / span)
    return cv2.threshold(scaled, max(OTSU_SHARE * otsu, least), 255, cv2.THRESH_BINARY)[1]


def _levels(dna: np.ndarray, diameter: float, least_noise: float) -> Levels:
    """Return grey levels of a shrunken field and the share of its pixels that are clearly bright.

    The levels are the background, its noise, the brightest pixels, and half a nucleus of them.
    """
    counts = np.bincount(dna[::2, ::2].ravel())  # every fourth pixel is enough
    cumulated = np.cumsum(counts)
    shares = np.array([BACKGROUND_PERCENTILE, BRIGHT_PERCENTILE]) / 100 * cumulated[-1]
    half_a_nucleus = np.pi / 4 * diameter**2 / 8
    top = max(cumulated[-1] - half_a_nucleus, shares[1])
    background, bright, peak = np.searchsorted(cumulated, [*shares, top])
    below = counts[: background + 1] @ np.arange(background + 1) / cumulated[background]
    noise = max(least_noise, (background - below) / DARKEST_QUARTER_SIGMAS)
    clear = counts[background + round(CLEAR_SIGMAS * noise) :].sum() / cumulated[-1]
    return background, noise, bright, peak, clear


def _peaks(mask: np.ndarray, diameter: float) -> np.ndarray:
    """Return the places (into the flattened mask) furthest from the background."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    side = 2 * max(1, round(1.5 * PEAK_SIGMA * diameter)) + 1
    cv2.GaussianBlur(distance, (side, side), PEAK_SIGMA * diameter, dst=distance)
    cv2.add(distance, _slope(distance.shape), dst=distance)
    reach = max(3, int(PEAK_REACH * diameter) | 1)
    highest = cv2.dilate(distance, np.ones((reach, reach), np.uint8))
    at_peak = cv2.bitwise_and(cv2.compare(distance, highest, cv2.CMP_GE), mask)
    return np.flatnonzero(at_peak.view(bool))


def _unravelled(places: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of places in a flattened image; NumPy's divmod takes longer."""
    rows = places // width
    return rows, places - rows * width


Places = tuple[np.ndarray, np.ndarray, np.ndarray]


def _owners(peaks: Places, pixels: Places, clumps: int, far: int) -> np.ndarray:
    """Return the nearest peak in the clump of each pixel; one past the last where there is none.

    Peaks and pixels are rows, columns and clumps; no two places are `far` from each other.
    """
    number = len(peaks[2])
    only = np.full(clumps, number)
    only[peaks[2]] = np.arange(number)
    owner = only[pixels[2]]
    several = np.bincount(peaks[2], minlength=clumps) > 1
    shared = np.flatnonzero(several[pixels[2]])
    if not len(shared):
        return owner
    rivals = np.flatnonzero(several[peaks[2]])
    # Clumps lie in planes far from each other, so that the nearest peak is one of the same clump.
    plane = far * np.cumsum(several)
    places, asked = (
        np.array([rows[chosen], columns[chosen], plane[clump[chosen]]], float)
        for (rows, columns, clump), chosen in ((peaks, rivals), (pixels, shared))
    )
    if len(rivals) > MANY_PEAKS:
        nearest = cKDTree(places.T).query(asked.T)[1]
    else:
        # Squared distances, but for a part that is the same for all peaks.
        nearest = ((places * places).sum(axis=0)[:, None] - (2 * places).T @ asked).argmin(axis=0)
    owner[shared] = rivals[nearest]
    return owner


def _none() -> Regions:
    return np.empty(0), np.empty(0), np.empty(0)


@lru_cache(maxsize=4)
def _slope(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape, np.float32)
    return TIE_BREAK * (columns + 1.5 * rows)


def _labelled(method: Callable[[np.ndarray, float], np.ndarray]) -> Callable:
    """Return a method that gives centres and areas from one that labels pixels."""

    def find(dna: np.ndarray, diameter: float) -> Regions:
        labels = method(dna, diameter)
        pixels = np.flatnonzero(labels)
        owner = labels.ravel()[pixels].astype(np.int64)
        rows, columns = np.divmod(pixels, labels.shape[1])
        count = np.bincount(owner)
        real = count > 0
        x, y = np.bincount(owner, columns)[real], np.bincount(owner, rows)[real]
        return x / count[real], y / count[real], count[real]

    return find


SEGMENTATION_METHODS: dict[str, Callable[[np.ndarray, float], Regions]] = {
    "fast": _fast,
    "watershed": _labelled(segmentation.watershed),
    "cellpose": _labelled(segmentation.cellpose),
    "stardist": _labelled(segmentation.stardist),
}
