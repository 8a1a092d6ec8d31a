"""Methods that label every pixel of a field with its nucleus: other people's work, to choose from.

Each takes the DNA channel, H x W of uint8 or uint16, and the typical diameter of a nucleus in
pixels, and returns H x W of integers: 0 for background, from 1 for nuclei.
"""

import threading
from functools import lru_cache

import numpy as np

from hcsqc.core.errors import InputError
from hcsqc.core.torchvision_mend import mend_torchvision

# Of the reference: blur of the image in pixels, blur of the distance transform in pixels, and the
# least distance of two peaks as a share of the diameter. Chosen on simulated fields; ours.
IMAGE_SIGMA_PX, DISTANCE_SIGMA_PX, PEAK_DISTANCE = 1.5, 2.0, 0.3
STARDIST_MODEL = "2D_versatile_fluo"
STARDIST_PERCENTILES = 1.0, 99.8  # as in StarDist's examples
# The networks are not made for several threads of one process.
_network_lock = threading.Lock()


def watershed(dna: np.ndarray, diameter: float) -> np.ndarray:
    """Otsu's threshold, then a watershed of the distance transform: scikit-image, the reference."""
    from scipy import ndimage
    from skimage import feature, filters, segmentation

    smooth = filters.gaussian(dna, IMAGE_SIGMA_PX, preserve_range=True)
    if smooth.min() == smooth.max():
        return np.zeros(dna.shape, np.int32)
    mask = smooth > filters.threshold_otsu(smooth)
    distance = filters.gaussian(ndimage.distance_transform_edt(mask), DISTANCE_SIGMA_PX)
    peaks = feature.peak_local_max(
        distance,
        min_distance=max(1, round(PEAK_DISTANCE * diameter)),
        labels=ndimage.label(mask)[0],
        exclude_border=False,
    )
    markers = np.zeros(dna.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-distance, markers, mask=mask)


def cellpose(dna: np.ndarray, diameter: float) -> np.ndarray:
    """Cellpose (Stringer et al. 2021; Pachitariu et al. 2025) with its default weights.

    Raises InputError if it is not installed or its weights cannot be had.
    """
    with _network_lock:
        masks, *_ = _cellpose_model().eval(dna, diameter=diameter)
    return masks


def stardist(dna: np.ndarray, diameter: float) -> np.ndarray:
    """StarDist (Schmidt et al. 2018) with its network for fluorescent nuclei, which needs no size.

    Raises InputError if it is not installed or its weights cannot be had.
    """
    low, high = np.percentile(dna, STARDIST_PERCENTILES)
    scaled = ((dna - low) / max(high - low, 1e-6)).astype(np.float32)
    with _network_lock:
        labels, _ = _stardist_model().predict_instances(scaled)
    return labels


@lru_cache(maxsize=1)
def _cellpose_model():
    mend_torchvision()  # which cellpose imports
    try:
        from cellpose import core, models
    except ImportError as error:
        raise _not_installed("cellpose") from error
    try:
        return models.CellposeModel(gpu=core.use_gpu())
    except Exception as error:  # URLError, or RuntimeError for a file cut off
        raise _no_weights("cellpose", models.MODEL_DIR, error) from error


@lru_cache(maxsize=1)
def _stardist_model():
    try:
        from stardist.models import StarDist2D
    except (ImportError, RuntimeError) as error:  # RuntimeError: TensorFlow is missing
        raise _not_installed("stardist") from error
    folder = f"$KERAS_HOME (~/.keras)/models/StarDist2D/{STARDIST_MODEL}"
    try:
        model = StarDist2D.from_pretrained(STARDIST_MODEL)
    except Exception as error:  # Keras raises no narrower class when a download fails
        raise _no_weights("stardist", folder, error) from error
    if model is None:  # what StarDist returns for a download with the wrong digest
        raise _no_weights("stardist", folder, ValueError("the downloaded file is not the network"))
    return model


def _not_installed(package: str) -> InputError:
    return InputError(
        f"crops.nucleus_method is '{package}', but the package is not installed; install it beside "
        "hcsqc (docs/crops.md), or choose 'fast'"
    )


def _no_weights(package: str, folder, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [""])[0]
    return InputError(
        f"crops.nucleus_method is '{package}', but its network cannot be loaded from {folder} nor "
        f"fetched ({type(error).__name__}: {reason}); fetch it once where there is a network "
        "(docs/crops.md), or choose 'fast'"
    )
