"""Uneven illumination of a plate: measured from its own fields or taken from CellProfiler.

A function says, for each channel and place, how much brighter the light is there than where it
is weakest: 1 there, more elsewhere. Correction divides by it, as CellProfiler's
CorrectIlluminationApply does. Saturated pixels stay saturated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile

from hcsqc.core.errors import InputError, in_one_line

# Illumination is smooth, so that a coarse grid holds it; pixels along the longer side.
GRID_PX = 96
# CellProfiler's robust rescaling: so many percent of the places may lie below 1.
WEAKEST_PERCENTILE = 1.0
STRETCHED = 0.02  # how much a smaller copy's shape may differ from the images', by rounding
COLUMNS = ["channel", "rows", "columns", "values"]


@dataclass(frozen=True)
class Illumination:
    """The functions of a plate's channels: C x h x w of float32 on a coarse grid."""

    functions: np.ndarray

    def gains(self, shape: tuple[int, int]) -> np.ndarray:
        """Return 1 / function for images of `shape`, C x H x W of float32."""
        return np.stack(
            [
                1 / cv2.resize(function, shape[::-1], interpolation=cv2.INTER_LINEAR)
                for function in self.functions
            ]
        )

    def table(self, channels: Sequence[str]) -> pd.DataFrame:
        """Return the rows of the `illumination` table."""
        rows, columns = self.functions.shape[1:]
        values = [function.ravel() for function in self.functions]
        return pd.DataFrame(
            {"channel": channels, "rows": rows, "columns": columns, "values": values}
        )


def from_table(rows: pd.DataFrame) -> Illumination | None:
    """Return what `Illumination.table` has put into rows; None if there are none."""
    if rows.empty:
        return None
    functions = [
        np.reshape(row["values"], (row["rows"], row["columns"])) for _, row in rows.iterrows()
    ]
    return Illumination(np.stack(functions).astype(np.float32))


def measure_illumination(fields: Iterable[Sequence[np.ndarray]]) -> Illumination:
    """Estimate a plate's illumination from fields of one shape, each a list of H x W planes.

    As CellProfiler's CorrectIlluminationCalculate does with a "Regular" function over all images,
    smoothed by "Fit Polynomial" and rescaled; but from the median over fields, which a few bright
    ones do not move. The camera's offset is not known and not taken off, so the correction
    is only partial. Raises InputError if there is no field.
    """
    coarse = [[_shrink(plane) for plane in planes] for planes in fields]
    if not coarse:
        raise InputError("illumination: none of the plate's fields to average can be read")
    medians = np.median(np.asarray(coarse, np.float32), axis=0)
    return Illumination(np.stack([_rescaled(_polynomial(median)) for median in medians]))


def load_functions(
    template: str, plate: str, channels: Sequence[str], shape: tuple[int, int]
) -> Illumination:
    """Read a plate's CellProfiler illumination functions (.npy, or .tif of floats).

    `template` is a path with {plate} and {channel}; `shape` is that of the images, of which the
    functions may be smaller copies. Raises InputError naming the file.
    """
    functions = []
    for channel in channels:
        path = Path(template.format(plate=plate, channel=channel))
        try:
            values = (
                tifffile.imread(path)
                if path.suffix.lower() in (".tif", ".tiff")
                else np.load(path, allow_pickle=False)
            )
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such illumination function") from error
        except Exception as error:  # whatever a damaged file makes the readers raise
            raise InputError(
                f"{path}: is not an illumination function ({in_one_line(error)})"
            ) from error
        if values.ndim != 2 or not np.isfinite(values).all() or (values <= 0).any():
            raise InputError(
                f"{path}: an illumination function is one plane of positive numbers, this is "
                f"{values.dtype} {values.shape} from {np.min(values)} to {np.max(values)}"
            )
        stretched = (values.shape[0] * shape[1]) / (values.shape[1] * shape[0])
        if abs(stretched - 1) > STRETCHED:
            raise InputError(
                f"{path}: an illumination function of {values.shape[0]} x {values.shape[1]} for "
                f"images of {shape[0]} x {shape[1]}; does it belong to another plate?"
            )
        functions.append(_shrink(values))
    if len({function.shape for function in functions}) > 1:
        raise InputError(f"{template}: the functions of plate {plate} differ in shape")
    return Illumination(np.stack(functions))


def correct(planes: Sequence[np.ndarray], gains: np.ndarray, top: np.ndarray) -> list[np.ndarray]:
    """Return planes as if evenly lit; `top` is each channel's saturation, which stays."""
    corrected = []
    for plane, gain, highest in zip(planes, gains, top, strict=True):
        kind = cv2.CV_8U if plane.dtype == np.uint8 else cv2.CV_16U
        even = cv2.multiply(plane, gain, dtype=kind)
        np.putmask(even, plane >= highest, plane)
        corrected.append(even)
    return corrected


def _shrink(plane: np.ndarray) -> np.ndarray:
    shrink = max(1.0, max(plane.shape) / GRID_PX)
    shape = max(1, round(plane.shape[1] / shrink)), max(1, round(plane.shape[0] / shrink))
    return cv2.resize(plane.astype(np.float32), shape, interpolation=cv2.INTER_AREA)


def _polynomial(mean: np.ndarray) -> np.ndarray:
    """Return the polynomial of second order in x and y that fits best."""
    rows, columns = mean.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1).reshape(-1, 6)
    coefficients, *_ = np.linalg.lstsq(terms, mean.ravel(), rcond=None)
    return (terms @ coefficients).reshape(mean.shape)


def _rescaled(function: np.ndarray) -> np.ndarray:
    weakest = np.percentile(function, WEAKEST_PERCENTILE)
    if weakest <= 0:
        return np.ones(function.shape, np.float32)
    return np.maximum(function / weakest, 1.0).astype(np.float32)
