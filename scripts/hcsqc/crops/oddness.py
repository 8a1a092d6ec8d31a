"""How far a real crop is from the usual ones of its plate, by simple measures of its cell.

Without labels nobody knows which crops are good. Those that look least like the others are the
first to doubt.
"""

import numpy as np

CONSISTENT = 1.4826  # of a normal distribution: standard deviation over median absolute deviation
LEAST_SPREAD = 1.0  # grey level or pixel: what is steadier than it can be measured tells nothing
RING = 2.0  # outer radius of the cell's surroundings, nucleus radii


def cell_measures(pixels: np.ndarray, area_px: float, nucleus_radius_px: float) -> np.ndarray:
    """Return the measures of one crop, C x H x W: 4 for each channel, and its nucleus' area.

    Mean and standard deviation, in grey levels of 8 bits, of the disc of a typical nucleus in the
    middle and of the ring about it. A window without room for the ring has no measures of it.
    """
    levels = pixels.astype(np.float64)
    if pixels.dtype == np.uint16:
        levels /= 257
    y, x = (np.arange(side) - side / 2 for side in pixels.shape[1:])
    radii = np.hypot(y[:, None], x[None, :]) / nucleus_radius_px
    found = []
    for place in (radii <= 1, (radii > 1) & (radii <= RING)):
        if place.any():
            inside = levels[:, place]
            found += [inside.mean(axis=1), inside.std(axis=1)]
    return np.append(np.concatenate(found), area_px)


def oddness(measures: np.ndarray) -> np.ndarray:
    """Return how odd each of n crops of a plate is, from its row of n x m measures.

    The mean over the measures of the distance from the plate's median, in robust standard
    deviations: odd is a cell that differs in much, rather than by far in one thing.
    """
    if not len(measures):
        return np.zeros(0)
    away = np.abs(measures - np.median(measures, axis=0))
    spread = np.maximum(CONSISTENT * np.median(away, axis=0), LEAST_SPREAD)
    return (away / spread).mean(axis=1)
