"""How bright the typical cell of a plate is: what its normal cells have in common.

A high percentile of a plate's pixels rises with its share of artefacts, so that the same cells
look dimmer on a worse plate. Here each nucleus counts once, by the median of a disc as wide as a
nucleus, and the level that most of them are near is taken: the mode, not the mean or the median,
which a third of bright or faded cells would move.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter1d

# Brightness of normal cells varies by about a quarter: standard deviation of its natural logarithm,
# 0.23 to 0.33 for most channels of simulated U2OS cells and of BBBC022.
SPREAD = 0.25
STEP = 0.01  # of the logarithm, from which the mode is refined
REFINEMENTS = 20
# So many nuclei give the level within 5% or so (SPREAD over their square root).
FEWEST_NUCLEI = 25


@dataclass(frozen=True)
class NucleusChannel:
    """The channel that shows nuclei, and how they are found in it.

    `find` takes a plane and returns the columns and rows of the centres, whole pixels.
    """

    channel: str
    diameter_px: float
    find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def nucleus_levels(
    planes: Sequence[np.ndarray], x: np.ndarray, y: np.ndarray, diameter_px: float
) -> np.ndarray:
    """Return the median grey level of a disc around each centre, n x channels.

    Those whose disc crosses the field's border are left out.
    """
    reach = max(1, round(diameter_px / 2))
    height, width = planes[0].shape
    inside = (x >= reach) & (y >= reach) & (x < width - reach) & (y < height - reach)
    x, y = x[inside], y[inside]
    levels = np.empty((len(x), len(planes)))
    if not len(x):
        return levels
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = rows**2 + columns**2 <= reach**2
    for channel, plane in enumerate(planes):
        windows = sliding_window_view(plane, disc.shape)[y - reach, x - reach]
        levels[:, channel] = np.median(windows[:, disc], axis=1)
    return levels


def typical(levels: np.ndarray) -> float:
    """Return the mode of n grey levels above the background, on a logarithmic scale.

    Gaussian kernels of `SPREAD`; levels that are not positive do not count. nan if there are fewer
    than `FEWEST_NUCLEI` others.
    """
    logs = np.log(levels[levels > 0])
    if len(logs) < FEWEST_NUCLEI:
        return np.nan
    lowest = logs.min()
    counts = np.bincount(((logs - lowest) / STEP).astype(int))
    density = gaussian_filter1d(counts.astype(float), SPREAD / STEP, mode="constant")
    mode = lowest + (density.argmax() + 0.5) * STEP
    for _ in range(REFINEMENTS):
        weights = np.exp(-(((logs - mode) / SPREAD) ** 2) / 2)
        mode = weights @ logs / weights.sum()
    return float(np.exp(mode))
