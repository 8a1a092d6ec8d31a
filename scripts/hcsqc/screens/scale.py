"""The fixed intensity range of a plate, and its use.

Never per crop: that would erase dim and saturated cells. Linear from `low`, the background, to
`high`, a multiple of the plate's typical cell above it, then a flatter line up to `top`, the
sensor's saturation, so that bright normal cells keep their contrast and saturated ones still stand
out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.screens.illumination import Illumination, correct, load_functions, measure_illumination
from hcsqc.screens.images.read import UnreadableField, read_field
from hcsqc.screens.images.remote import Folder, ahead
from hcsqc.screens.levels import NucleusChannel, nucleus_levels, typical
from hcsqc.screens.noise import estimate_noise

# How `high` was found: from cells, or, where there are too few, as a percentile of the pixels.
BY_CELLS, BY_PERCENTILE = "cells", "percentile"
HIGH_PERCENTILE = 99.5
# Depths of most cameras; where no pixel is saturated, the smallest that holds the brightest one of
# the sample is taken for the data's.
BIT_DEPTHS = (8, 12, 16)
# Saturated pixels pile up at one level: so many, so many times as many as at any level of the share
# of the range just below, where a smooth tail to the brightest pixel has no fewer than at its end.
PILE_PIXELS, PILE_TIMES, BELOW = 10, 10, 1 / 32


@dataclass(frozen=True)
class ScaleSettings:
    """How to measure the range."""

    scale_fields: int
    scale_background: float  # percentile of a field's pixels that is its background: `low`
    scale_cells: float  # `high` above the background, in typical cells
    illumination_fields: int


@dataclass(frozen=True)
class PlateImages:
    """Where a plate's images are and what is known of them from the config."""

    plate: str
    folder: Folder
    channels: list[str]
    z_projection: str | None = None
    bits: int | None = None  # None: found from the data
    illumination: str | None = None  # None, "retrospective", or a path with {plate} and {channel}

    def read(self, row) -> list[np.ndarray]:
        """Return the planes of a row of the `fields` table; raises UnreadableField."""
        return read_field(
            self.folder, row.image_path, row.image_page, self.z_projection, self.channels
        ).planes


def measure_scale(
    fields: pd.DataFrame,
    images: PlateImages,
    settings: ScaleSettings,
    nuclei: NucleusChannel | None,
) -> tuple[pd.DataFrame, tuple[int, int], Illumination | None]:
    """Measure the range of each channel on fields spread evenly over the plate.

    Without `nuclei`, or where they are too few, `high` is a percentile, which artefacts move.
    Returns the rows of the `scale` table, the size (rows, columns) that most of the fields have,
    and the plate's illumination if it is to be corrected.
    Bits are those stated, or of `camera_range`; `top` is where the camera saturates.
    Raises InputError if not one field can be read, or one is brighter than the stated bits.
    """
    sample, problems = [], []
    for row in ahead(spread(fields, settings.scale_fields), images.folder):
        try:
            planes = images.read(row)
            if len({plane.shape for plane in planes}) == 1:
                sample.append(planes)
            else:
                problems.append(f"{row.image_path[0]}: its channels differ in size")
        except UnreadableField as error:
            problems.append(str(error))
    if not sample:
        why = problems[0] if problems else "every field lacks a channel"
        raise InputError(f"{images.folder}: no field of the plate can be read; first: {why}")
    shapes = pd.Series([planes[0].shape for planes in sample])
    shape = shapes.mode().iloc[0]
    sample = [planes for planes in sample if planes[0].shape == shape]
    every_plane = [plane for planes in sample for plane in planes]
    if images.bits:
        bits, saturation = images.bits, 2**images.bits - 1
        brightest = max(int(plane.max()) for plane in every_plane)
        if brightest > saturation:
            raise InputError(
                f"{images.folder}: has pixels of {brightest}, more than {bits} bits allow; correct "
                "bits of the screen, or leave it out"
            )
    else:
        bits, saturation = camera_range(every_plane)
    tops = np.full(len(images.channels), float(saturation))
    illumination = _illumination(fields, images, shape, settings)
    if illumination:
        gains = illumination.gains(shape)
        sample = [correct(planes, gains, tops) for planes in sample]
    low, high = np.median(
        [
            np.percentile(planes, [settings.scale_background, HIGH_PERCENTILE], axis=(1, 2))
            for planes in sample
        ],
        axis=0,
    )  # Of each field's own, so that a few spoilt fields change nothing.
    noise = estimate_noise((np.stack(planes) for planes in sample), low)
    levels = _nuclei_of(sample, images.channels, nuclei)
    cells = np.array([typical(of_channel) for of_channel in (levels - low).T])
    found = np.isfinite(cells)
    high = np.where(found, low + settings.scale_cells * cells, high)
    table = pd.DataFrame(
        {
            "channel": images.channels,
            "low": low,
            "high": np.minimum(np.maximum(high, low + 1), tops),
            "top": tops,
            "bits": bits,
            "cell": low + cells,
            "nuclei": len(levels),
            "found": np.where(found, BY_CELLS, BY_PERCENTILE),
            "read_noise": noise.read,
            "shot_noise": noise.shot,
        }
    )
    return table, shape, illumination


def camera_range(planes: Sequence[np.ndarray]) -> tuple[int, int]:
    """Return the bits of a camera and the level at which it saturates, from some of its images.

    Where pixels pile up at the brightest level of all, the camera saturates there, whatever its
    bits: 14-bit data at 16383, and such as are binned or clipped at any other level. Else the bits
    are the fewest of `BIT_DEPTHS` that hold the brightest pixel, and saturation is all of them.
    """
    brightest = max(int(plane.max()) for plane in planes)
    usual = next(bits for bits in BIT_DEPTHS if brightest < 2**bits)
    if brightest < 2 ** BIT_DEPTHS[0]:
        return usual, 2**usual - 1
    lowest = brightest - int(brightest * BELOW)
    counts = np.zeros(brightest - lowest + 1, np.int64)
    for plane in planes:
        bright = plane[plane >= lowest].astype(np.int64)  # one channel may have fewer bits
        counts += np.bincount(bright - lowest, minlength=len(counts))
    below, pile = counts[:-1], counts[-1]
    # Without a tail that reaches it, a level is that of a flat image, unless bits end there.
    reached = below.sum() >= PILE_PIXELS or brightest + 1 == 2 ** brightest.bit_length()
    if reached and pile >= PILE_PIXELS and pile >= PILE_TIMES * below.max():
        return brightest.bit_length(), brightest
    return usual, 2**usual - 1


def _nuclei_of(sample, channels: list[str], nuclei: NucleusChannel | None) -> np.ndarray:
    """Return the grey levels of all nuclei of the sample, n x channels."""
    if nuclei is None:
        return np.empty((0, len(channels)))
    shown = channels.index(nuclei.channel)
    return np.concatenate(
        [nucleus_levels(p, *nuclei.find(p[shown]), nuclei.diameter_px) for p in sample]
    )


def spread(fields: pd.DataFrame, count: int) -> list:
    """Return at most `count` rows without a problem, evenly over the plate."""
    usable = fields[fields["problem"].isna()]
    count = min(count, len(usable))
    places = np.linspace(0, len(usable) - 1, count).round().astype(int) if count else []
    return list(usable.iloc[places].itertuples())


def _illumination(fields, images, shape, settings) -> Illumination | None:
    if images.illumination is None:
        return None
    if images.illumination != "retrospective":
        return load_functions(images.illumination, images.plate, images.channels, shape)

    def readable():
        for row in ahead(spread(fields, settings.illumination_fields), images.folder):
            try:
                planes = images.read(row)
            except UnreadableField:
                continue
            if {plane.shape for plane in planes} == {shape}:
                yield planes

    return measure_illumination(readable())


def lookup_tables(scale: pd.DataFrame, knee: float, dtype: str) -> np.ndarray:
    """Return one table per channel, C x 65536 of `dtype`: grey level in, scaled value out.

    `knee` is the share of the output range below `high`; `dtype` is uint8 or uint16.
    """
    level = np.arange(65536, dtype=np.float64)
    most = float(np.iinfo(dtype).max)
    tables = [np.interp(level, *_line(row, knee, most)) for row in scale.itertuples()]
    return np.rint(tables).astype(dtype)


def apply_scale(planes: Sequence[np.ndarray], tables: np.ndarray) -> np.ndarray:
    """Return the planes of a field, each H x W, as C x H x W of the tables' type."""
    scaled = np.empty((len(planes), *planes[0].shape), tables.dtype)
    for plane, table, target in zip(planes, tables, scaled, strict=True):
        if plane.dtype == np.uint8:
            table = table[:256]
        cv2.LUT(plane, table, dst=target)
    return scaled


def unscale(pixels: np.ndarray, scale: pd.DataFrame, knee: float) -> np.ndarray:
    """Return the grey levels of scaled pixels, both ... x C x H x W, as float32."""
    most = np.iinfo(pixels.dtype).max
    values = np.arange(most + 1, dtype=np.float64)
    tables = [
        np.interp(values, *reversed(_line(row, knee, float(most)))) for row in scale.itertuples()
    ]
    return np.stack(
        [np.float32(table)[pixels[..., index, :, :]] for index, table in enumerate(tables)], axis=-3
    )


def _line(row, knee: float, most: float) -> tuple[list[float], list[float]]:
    """Return the corners of a channel's scale: grey levels, and what becomes of them."""
    if row.high < row.top:
        return [row.low, row.high, row.top], [0.0, most * knee, most]
    return [row.low, row.top], [0.0, most]
