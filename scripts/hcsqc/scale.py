"""The fixed intensity range of a plate, and its use.

Never per crop: that would erase dim and saturated cells. Linear from `low` to `high` (robust
percentiles), then a flatter line up to `top`, the sensor's saturation, so that bright normal cells
keep their contrast and saturated ones still stand out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.errors import InputError
from hcsqc.images import UnreadableField, read_field

# Depths of cameras; the smallest that holds the brightest pixel of the sample is the data's.
BIT_DEPTHS = (8, 12, 16)


@dataclass(frozen=True)
class ScaleSettings:
    """How to measure the range: number of fields, percentiles, and the knee (a share of 1)."""

    scale_fields: int
    scale_low: float
    scale_high: float


def measure_scale(
    fields: pd.DataFrame, images: Path, channels: list[str], settings: ScaleSettings
) -> tuple[pd.DataFrame, tuple[int, int]]:
    """Measure the range of each channel on fields spread evenly over the plate.

    Returns the rows of the `scale` table and the size (rows, columns) that most of them have.
    Raises InputError if not one field can be read.
    """
    usable = fields[fields["problem"].isna()]
    count = min(settings.scale_fields, len(usable))
    places = np.linspace(0, len(usable) - 1, count).round().astype(int) if count else []
    sample, problems = [], []
    for paths in usable["image_path"].iloc[places]:
        try:
            planes = read_field(images, list(paths))
            if len({plane.shape for plane in planes}) == 1:
                sample.append(planes)
            else:
                problems.append(f"{paths[0]}: its channels differ in size")
        except UnreadableField as error:
            problems.append(str(error))
    if not sample:
        why = problems[0] if problems else "every field lacks a channel"
        raise InputError(f"{images}: no field of the plate can be read; first: {why}")
    shapes = pd.Series([planes[0].shape for planes in sample])
    shape = shapes.mode().iloc[0]
    sample = [planes for planes in sample if planes[0].shape == shape]
    brightest = max(int(plane.max()) for planes in sample for plane in planes)
    bits = next(bits for bits in BIT_DEPTHS if brightest < 2**bits)
    rows = []
    for index, channel in enumerate(channels):
        # Each field's own percentiles, then their median: a few spoilt fields change nothing.
        percentiles = [settings.scale_low, settings.scale_high]
        low, high = np.median([np.percentile(p[index], percentiles) for p in sample], axis=0)
        top = float(2**bits - 1)
        high = min(max(high, low + 1), top)
        rows.append({"channel": channel, "low": low, "high": high, "top": top, "bits": bits})
    return pd.DataFrame(rows), shape


def lookup_tables(scale: pd.DataFrame, knee: float) -> np.ndarray:
    """Return one table per channel, C x 65536 of uint8: grey level in, scaled value out.

    `knee` is the share of the output range below `high`.
    """
    level = np.arange(65536, dtype=np.float64)
    tables = [
        np.interp(level, [row.low, row.high, row.top], [0.0, 255 * knee, 255.0])
        if row.high < row.top
        else np.interp(level, [row.low, row.top], [0.0, 255.0])
        for row in scale.itertuples()
    ]
    return np.rint(tables).astype(np.uint8)


def apply_scale(planes: list[np.ndarray], tables: np.ndarray) -> np.ndarray:
    """Return the planes of a field, each H x W, as C x H x W of uint8."""
    return np.stack([table[plane] for table, plane in zip(tables, planes, strict=True)])


def unscale(pixels: np.ndarray, scale: pd.DataFrame, knee: float) -> np.ndarray:
    """Return the grey levels of scaled pixels, both ... x C x H x W, as float32."""
    values = np.arange(256, dtype=np.float64)
    tables = [
        np.interp(values, [0.0, 255 * knee, 255.0], [row.low, row.high, row.top])
        if row.high < row.top
        else np.interp(values, [0.0, 255.0], [row.low, row.top])
        for row in scale.itertuples()
    ]
    return np.stack(
        [np.float32(table)[pixels[..., index, :, :]] for index, table in enumerate(tables)], axis=-3
    )
