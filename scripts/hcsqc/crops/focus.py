"""Focus in absolute terms: how wide the edge of a nucleus is.

Sharpness relative to a plate's own median says nothing of a plate that is blurred altogether, and
the Laplacian measures the camera's noise as much as the focus. The width of an edge, averaged along
the whole outline, does neither: noise averages out, and a width has a unit.
"""

import cv2
import numpy as np

SMOOTHING_PX = 1.0  # standard deviation, of what finds the outline, not of what is measured
STEP_PX = 0.5  # of the profile across the edge
LOWER, UPPER = 0.1, 0.9  # of the rise, between which an edge's width is measured
FEWEST_PIXELS = 15  # of a step of the profile
LEAST_CONTRAST = 5.0  # grey levels of 8 bits between nucleus and surroundings


def edge_widths(planes: np.ndarray) -> np.ndarray:
    """Return the edge width of the nucleus in the middle of planes, n x H x W, in pixels.

    Planes are of uint8, or of uint16 that uses all 16 bits.
    From 10 to 90% of the rise, along the distance from the outline at half height. nan where there
    is no nucleus in the middle, or none that stands out by five grey levels.
    """
    scale = np.float32(1 / 257 if planes.dtype == np.uint16 else 1)
    return np.array([_edge_width(scale * plane.astype(np.float32)) for plane in planes])


def _edge_width(plane: np.ndarray) -> float:
    smooth = cv2.GaussianBlur(plane, (0, 0), SMOOTHING_PX)
    outlined = _outline(smooth)
    if outlined is None:
        return float("nan")
    own, others = outlined
    away = _signed_distance(own)
    # Beyond half the way to a neighbour its light counts.
    free = own | (cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 5) > away)
    return _rise(plane[free].astype(np.float64), away[free])


def _outline(smooth: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mask of the object in the middle at half its height, and that of all others."""
    height, width = smooth.shape
    middle = smooth[height * 3 // 8 : height * 5 // 8 + 1, width * 3 // 8 : width * 5 // 8 + 1]
    background = float(np.percentile(smooth, 10))
    top = float(np.percentile(middle, 75))
    if top - background < LEAST_CONTRAST:
        return None
    bright = (smooth > (background + top) / 2).astype(np.uint8)
    _, parts = cv2.connectedComponents(bright)
    label = parts[height // 2, width // 2]
    if not label:
        return None
    own = parts == label
    return own, (parts > 0) & ~own


def _signed_distance(own: np.ndarray) -> np.ndarray:
    """Return each pixel's distance from an object's outline, in pixels; below 0 inside."""
    outside, inside = (
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for mask in (~own, own)
    )
    return np.where(own, 0.5 - inside, outside - 0.5)


def _rise(levels: np.ndarray, away: np.ndarray) -> float:
    """Return the distance between a tenth and nine tenths of the rise of levels across an edge."""
    steps = np.round(away / STEP_PX).astype(int)
    steps -= steps.min()
    count = np.bincount(steps)
    enough = count >= FEWEST_PIXELS
    profile = np.bincount(steps, weights=levels)[enough] / count[enough]
    places = np.flatnonzero(enough) * STEP_PX
    if len(profile) < 4:
        return float("nan")
    # From inside outwards light falls; granules and neighbours must not make it rise again.
    falling = np.minimum.accumulate(profile[np.argmax(profile) :])
    places = places[np.argmax(profile) :]
    high, low = falling[0], falling[-1]
    if high - low < LEAST_CONTRAST:
        return float("nan")
    at = [low + share * (high - low) for share in (UPPER, LOWER)]
    ends = np.interp(at, falling[::-1], places[::-1])
    return float(ends[1] - ends[0])
