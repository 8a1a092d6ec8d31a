"""Reading the images of a field."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile


class UnreadableField(Exception):
    """A field whose images cannot be used; the message is recorded in the plate's summary."""


def read_field(images: Path, paths: Sequence[str | None]) -> list[np.ndarray]:
    """Read the images of a field, one per channel, each H x W of unsigned integers.

    Raises UnreadableField naming the file that is missing, truncated or no image.
    """
    return [read_image(images / path) for path in paths]


def read_image(path: Path) -> np.ndarray:
    """Read one grey-level image as H x W of uint8 or uint16.

    Raises UnreadableField.
    """
    try:
        image = tifffile.imread(path)
    except FileNotFoundError as error:
        raise UnreadableField(f"{path.name}: no such file") from error
    except Exception as error:  # tifffile raises whatever its decoders do on damaged files
        raise UnreadableField(
            f"{path.name}: cannot be read as TIFF ({type(error).__name__}: {error})"
        ) from error
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise UnreadableField(
            f"{path.name}: {image.dtype} image of shape {image.shape}, expected one grey-level "
            "plane of 8 or 16 bit"
        )
    return image
