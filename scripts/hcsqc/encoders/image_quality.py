"""Classical image quality: CellProfiler's MeasureImageQuality, for each channel of a crop.

The measures without machine learning that laboratories screen their images with (Bray et al.
2012, "Workflow and metrics for image quality control in large-scale high-content screens",
doi:10.1177/1087057111420292). They follow CellProfiler 4.2.8: the methods named below are in its
`cellprofiler/modules/measureimagequality.py`, `rps` and `Haralick` in its library centrosome.
PercentSaturated, the percentiles, Entropy and LaplacianVariance are additions. Left out are its
thresholds, TotalIntensity (the mean times a fixed area), and the minimum and maximum, for which
the percentiles stand.

Intensities run from 0 to 1, as CellProfiler reads 8-bit images: grey levels over 255. What it sums
as such fractions is summed here as whole grey levels, so what should be 0 is not a rounding error.
"""

import cv2
import numpy as np
import scipy.fft
from scipy.special import entr

from hcsqc.core.errors import InputError

MEASURES = (
    "PowerLogLogSlope",
    "FocusScore",
    "LocalFocusScore",
    "Correlation",
    "LaplacianVariance",
    "PercentMaximal",
    "PercentMinimal",
    "PercentSaturated",
    "MeanIntensity",
    "MedianIntensity",
    "StdIntensity",
    "MADIntensity",
    "Percentile1",
    "Percentile99",
    "Entropy",
)

SCALE_PX = 20  # CellProfiler's default "spatial scale for blur measurements".
TEXTURE_LEVELS = 8  # `nlevels` of Haralick
MIN_SIDE_PX = 16
WHITE = 255

# A ring of the spectrum with less than this share of all power holds only the transform's rounding
# (some 1e-31); one pixel of one grey level in a contrasty crop of 4096 px has 1e-19.
ROUNDING = 1e-24

PLANES_AT_ONCE = 32  # of 128 px fill a processor's cache; more are slower.


def image_quality(crops: np.ndarray) -> np.ndarray:
    """Return the MEASURES of each channel of uint8 crops (n x C x H x W), n x (C * measures).

    float32, always finite. In a constant channel, PercentMaximal and PercentMinimal are 100,
    PercentSaturated is 100 if it is white, mean, median and percentiles are its intensity, and
    all else is 0, as in CellProfiler except for rounding. Small crops lack some measures, which are
    then 0, as in CellProfiler: PowerLogLogSlope below sides of 32 px, Correlation up to a width
    of SCALE_PX, LocalFocusScore up to sides of SCALE_PX.

    Raises InputError for another dtype or shape.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or min(crops.shape[2:]) < MIN_SIDE_PX:
        raise InputError(
            f"crops must be uint8, n x C x H x W with sides of at least {MIN_SIDE_PX} px, "
            f"but are {crops.dtype} of shape {crops.shape}"
        )
    n, channels, height, width = crops.shape
    planes = crops.reshape(n * channels, height, width)
    values = np.empty((len(planes), len(MEASURES)), dtype=np.float32)
    for start in range(0, len(planes), PLANES_AT_ONCE):
        part = planes[start : start + PLANES_AT_ONCE]
        measured = {
            "PowerLogLogSlope": _power_slopes(part),
            "LocalFocusScore": _local_focus_scores(part),
            "Correlation": _correlations(part),
            "LaplacianVariance": _laplacian_variances(part),
            **_intensity_measures(part),
        }
        values[start : start + len(part)] = np.stack([measured[name] for name in MEASURES], axis=1)
    return values.reshape(n, channels * len(MEASURES))


def _power_slopes(planes: np.ndarray) -> np.ndarray:
    """Return the slope of log power over log radius in the spectra of planes (n x H x W).

    `calculate_power_spectrum` and `rps`: the power is summed, not averaged, over rings one pixel
    wide, from the second up to an eighth of the shorter side. As there, no window is applied and
    frequency -k counts as k - 1. `rps` also divides by the median distance from the mean, which
    changes no slope and may be 0. 0 where fewer than two rings have power.
    """
    height, width = planes.shape[1:]
    rings = np.arange(2, min(height, width) // 8)
    radii = np.hypot(_distances_to_edge(height)[:, None], _distances_to_edge(width))
    radii = np.floor(radii).astype(int) + 1
    inside = np.isin(radii, rings)
    pixels = planes - planes.mean(axis=(1, 2), keepdims=True)
    spectra = scipy.fft.fft2(pixels)[:, inside]
    power = np.abs(spectra) ** 2 @ (radii[inside][:, None] == rings).astype(float)
    total = (pixels**2).sum(axis=(1, 2)) * pixels[0].size
    valid = power > ROUNDING * total[:, None]

    # Least squares over each plane's valid rings.
    x = np.broadcast_to(np.log(rings), power.shape)
    y = np.log(power, out=np.zeros_like(power), where=valid)
    x = valid * (x - _ratio((valid * x).sum(axis=1), valid.sum(axis=1))[:, None])
    return _ratio((x * y).sum(axis=1), (x * x).sum(axis=1))


def _distances_to_edge(length: int) -> np.ndarray:
    return np.minimum(np.arange(length), np.arange(length)[::-1])


def _local_focus_scores(planes: np.ndarray) -> np.ndarray:
    """Return how much the focus score varies between the boxes of planes (n x H x W).

    `calculate_focus_scores`: the variance over the median of the boxes' variance over mean. The
    boxes, SCALE_PX wide or somewhat less, cover the plane; black ones do not count. 0 where all
    are black or the median is 0.
    """
    rows, columns = (_boxes(length) for length in planes.shape[1:])
    pixels = planes.astype(float)
    sums, squares, sizes = (
        (rows @ values @ columns.T).reshape(len(values), -1)
        for values in (pixels, pixels**2, np.ones_like(pixels[:1]))
    )
    black = sums == 0
    scores = (sizes * squares - sums**2) / (sizes * np.where(black, 1, sums)) / WHITE
    scores = np.ma.masked_array(scores, black)
    return (scores.var(axis=1) / np.ma.median(scores, axis=1)).filled(0)


def _boxes(length: int) -> np.ndarray:
    """Return which of `length` pixels each box holds, 1 or 0, boxes x length."""
    count = -(-length // SCALE_PX)
    return (np.arange(length) * count // length == np.arange(count)[:, None]).astype(float)


def _correlations(planes: np.ndarray) -> np.ndarray:
    """Return Haralick's correlation of pixels SCALE_PX apart along the rows of planes (n x H x W).

    `calculate_correlation` and `Haralick.H3`: each plane's range is cut into TEXTURE_LEVELS. The
    correlation of a co-occurrence matrix is Pearson's of the pairs that it counts. 0 where one
    side of the pairs is constant.
    """
    if planes.shape[2] <= SCALE_PX:
        return np.zeros(len(planes))
    above = (planes - planes.min(axis=(1, 2), keepdims=True)).astype(np.int16)
    spread = np.maximum(above.max(axis=(1, 2), keepdims=True), 1)
    levels = np.minimum(above * TEXTURE_LEVELS // spread, TEXTURE_LEVELS - 1)
    left, right = levels[:, :, :-SCALE_PX], levels[:, :, SCALE_PX:]
    left, right = (side - side.mean(axis=(1, 2), keepdims=True) for side in (left, right))
    covariance, *variances = (
        np.einsum("nhw,nhw->n", a, b) for a, b in ((left, right), (left, left), (right, right))
    )
    return _ratio(covariance, np.sqrt(variances[0] * variances[1]))


def _laplacian_variances(planes: np.ndarray) -> np.ndarray:
    """Return the variance of the Laplacian of planes (n x H x W).

    Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy: a comparative
    study", doi:10.1109/ICPR.2000.903548, with the usual kernel of four neighbours.
    """
    laplacians = np.stack([cv2.Laplacian(plane, cv2.CV_16S) for plane in planes])
    return laplacians.var(axis=(1, 2)) / WHITE**2


def _intensity_measures(planes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of planes (n x H x W) that follow from their histograms.

    FocusScore is the variance over the mean, 0 if the mean is (`calculate_focus_scores`).
    PercentMaximal and PercentMinimal count the pixels at the plane's own extremes
    (`calculate_saturation`), PercentSaturated those at 255. MADIntensity is the median distance
    from the median, unscaled (`run_intensity_measurement`). Entropy is in bits per pixel.
    """
    counts = np.stack([np.bincount(plane.ravel(), minlength=WHITE + 1) for plane in planes])
    shares = counts / planes[0].size
    levels = np.broadcast_to(np.arange(WHITE + 1), counts.shape)
    mean = counts @ levels[0] / planes[0].size
    variance = (shares * (levels - mean[:, None]) ** 2).sum(axis=1)
    median = _quantile(levels, counts, 0.5)
    distances = np.abs(levels - median[:, None])
    order = distances.argsort(axis=1)
    by_distance = (np.take_along_axis(array, order, axis=1) for array in (distances, counts))
    return {
        "FocusScore": _ratio(variance, mean) / WHITE,
        "PercentMaximal": 100 * _take(shares, planes.max(axis=(1, 2))),
        "PercentMinimal": 100 * _take(shares, planes.min(axis=(1, 2))),
        "PercentSaturated": 100 * shares[:, WHITE],
        "MeanIntensity": mean / WHITE,
        "MedianIntensity": median / WHITE,
        "StdIntensity": np.sqrt(variance) / WHITE,
        "MADIntensity": _quantile(*by_distance, 0.5) / WHITE,
        "Percentile1": _quantile(levels, counts, 0.01) / WHITE,
        "Percentile99": _quantile(levels, counts, 0.99) / WHITE,
        "Entropy": entr(shares).sum(axis=1) / np.log(2),
    }


def _quantile(values: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Return the quantile of each row of ascending values (n x k) that occur `counts` times, n.

    What np.quantile gives for the pixels themselves, which it would have to sort.
    """
    seen = counts.cumsum(axis=1)
    position = share * (seen[0, -1] - 1)
    below, above = (
        _take(values, (seen <= rank).sum(axis=1))
        for rank in (np.floor(position), np.ceil(position))
    )
    return below + position % 1 * (above - below)


def _take(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return one value of each row, the one at its place, n."""
    return np.take_along_axis(rows, places[:, None], axis=1)[:, 0]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, or 0 where the denominator is 0."""
    quotient = np.zeros(len(denominator))
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)
