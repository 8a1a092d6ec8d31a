"""The image of a field as its crops show it: the same channels, colours and brightness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hcsqc.core.ids import plate_of, screen_and_plate
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import ShardFormat, read_format
from hcsqc.screens.images.read import UnreadableField, read_field
from hcsqc.screens.images.remote import Folder
from hcsqc.screens.layouts.base import of_plate
from hcsqc.screens.scale import apply_scale, lookup_tables


@dataclass(frozen=True)
class FieldSource:
    """Where the images of a screen's fields are."""

    fields: pd.DataFrame  # the `fields` tables of all plates
    images: Folder  # or URL; may hold {plate}
    z_projection: str | None = None

    def folder(self, plate: str) -> Folder:
        """Return the folder of a plate's images."""
        return of_plate(self.images, plate)


def field_source(
    fields: Sequence[Path], images: Path | None, z_projection: str | None
) -> FieldSource | None:
    """Return where the images of fields are, if it is known.

    `fields` are paths of these tables. Raises InputError for another table.
    """
    if not fields or images is None:
        return None
    tables = pd.concat([read_table(path, "fields") for path in fields], ignore_index=True)
    return FieldSource(tables, images, z_projection)


def scale_tables(paths: Sequence[str | Path], channels: Sequence[str]) -> dict[str, np.ndarray]:
    """Return, by plate, the tables that turn grey levels into those of crops, as uint8.

    `paths` are the shards of the plates. Each value is len(channels) x 65536: see `lookup_tables`.
    """
    tables = {}
    for path in paths:
        shard = pq.ParquetFile(path)
        plate = screen_and_plate(Path(path))[1]
        if shard.metadata.num_rows:
            crop = shard.read_row_group(0, columns=["field_id"])["field_id"][0].as_py()
            plate = plate_of(crop)
        scale = read_format(path).scale
        if any(name not in scale for name in channels):
            continue
        rows = pd.DataFrame(
            [scale[name] for name in channels], columns=["low", "high", "top", "knee"]
        )
        tables[plate] = lookup_tables(rows, rows["knee"].iloc[0], "uint8")
    return tables


def read_scaled(
    source: FieldSource,
    field: Mapping,
    shard_format: ShardFormat,
    channels: Sequence[str],
    tables: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return some channels of a field as C x H x W of uint8, as bright as its crops.

    `field` is a row of the `fields` table, `tables` are those of `scale_tables` for these
    channels. Uneven light is not corrected. Raises UnreadableField where the image is gone, damaged
    or of a plate without a scale, and InputError on errors of the machine that stay.
    """
    if field["plate"] not in tables:
        raise UnreadableField(
            f"plate {field['plate']}: its shard is missing, or has no scale of "
            f"{', '.join(channels)}; crop the plate again"
        )
    planes = read_field(
        source.folder(field["plate"]),
        field["image_path"],
        field["image_page"],
        source.z_projection,
        shard_format.channels,
        [shard_format.channels.index(name) for name in channels],
    ).planes
    if len({plane.shape for plane in planes}) > 1:
        raise UnreadableField(f"{field['image_path'][0]}: its channels differ in size")
    return apply_scale(planes, tables[field["plate"]])


def coloured(pixels: np.ndarray) -> np.ndarray:
    """Return C x H x W of uint8 as the pages colour a composite, for OpenCV.

    The first three channels are red, green and blue, two are red and green: H x W x 3 in OpenCV's
    order, blue first. A single channel is grey: H x W.
    """
    if len(pixels) == 1:
        return np.ascontiguousarray(pixels[0])
    colours = np.zeros((*pixels.shape[1:], 3), np.uint8)
    for place, channel in enumerate(pixels[:3]):
        colours[:, :, 2 - place] = channel
    return colours
