"""Finding nuclei in the DNA channel."""

from dataclasses import dataclass

import cv2
import numpy as np

# A pixel belongs to a nucleus only if it stands out of the background by this many standard
# deviations of it; without that, Otsu's threshold cuts through the noise of an empty field.
BACKGROUND_SIGMAS = 4.0
# What the mean of the darkest quarter of a normal distribution lacks to its 25th percentile.
DARKEST_QUARTER_SIGMAS = 0.597


@dataclass(frozen=True)
class NucleusSettings:
    """What a nucleus looks like, in pixels of the source image."""

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
    """Find the nuclei of a field in its DNA channel, H x W of grey levels.

    Works at half resolution: Otsu's threshold after background subtraction, then one nucleus per
    peak of the smoothed distance transform, so that touching nuclei part. Each foreground pixel
    goes to the nearest peak; a nucleus' centre and area are those of its pixels.
    """
    height, width = dna.shape
    half = cv2.resize(
        dna.astype(np.float32), (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    mask = _foreground(half, settings.nucleus_diameter_px / 2)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    peaks = _peaks(distance, settings.nucleus_diameter_px / 2)
    if not peaks.any():
        empty = np.empty(0, np.int32)
        return Nuclei(empty, empty, empty)
    _, nearest = cv2.distanceTransformWithLabels(
        (~peaks).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    rows, columns = np.nonzero(mask)
    owner = nearest[rows, columns]
    count = np.bincount(owner)
    with np.errstate(invalid="ignore"):
        x = np.bincount(owner, columns) / count
        y = np.bincount(owner, rows) / count
    large = count * 4 >= settings.nucleus_smallest_px
    centres = np.stack([x, y], axis=1)[large] * 2 + 0.5
    centres = np.rint(centres).astype(np.int32)
    # Two nuclei never share a centre, because the centre is what names a nucleus.
    _, distinct = np.unique(centres, axis=0, return_index=True)
    distinct.sort()
    area = (count[large] * 4).astype(np.int32)
    return Nuclei(centres[distinct, 0], centres[distinct, 1], area[distinct])


def _foreground(half: np.ndarray, diameter: float) -> np.ndarray:
    smooth = cv2.GaussianBlur(half, (0, 0), max(1.0, diameter / 12))
    background = np.percentile(smooth, 25)
    below = smooth[smooth <= background]
    noise = max(1.0, float(background - below.mean()) / DARKEST_QUARTER_SIGMAS)
    clipped = np.clip(smooth, background, np.percentile(smooth, 99.5))
    span = max(float(clipped.max() - background), 1e-6)
    scaled = ((clipped - background) * (255 / span)).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # Nuclei are brighter than Otsu's cut between background and the mean nucleus suggests when
    # some are far brighter than others; half of it keeps the dim ones.
    threshold = max(background + otsu / 255 * span * 0.75, background + BACKGROUND_SIGMAS * noise)
    mask = (smooth > threshold).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)


def _peaks(distance: np.ndarray, diameter: float) -> np.ndarray:
    smooth = cv2.GaussianBlur(distance, (0, 0), max(1.0, diameter / 8))
    reach = max(3, int(diameter * 0.6) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return (smooth >= cv2.dilate(smooth, kernel) - 1e-4) & (distance > 1.5)
