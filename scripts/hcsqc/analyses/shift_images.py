"""Crops of a shift screen as an encoder would see them on another one: channels, pixel size.

Each change undoes one way in which two screens may differ. Their features, of the same labelled
crops, lie in one table by the names of the changes.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from hcsqc.core.errors import InputError
from hcsqc.core.parquet import read_footer, read_parquet
from hcsqc.core.schema import TableSchema, read_metadata, write_table
from hcsqc.crops.shards import Shards

PERMUTED_CHANNELS = "permuted channels"
MATCHED_PIXEL_SIZE = "matched pixel size"


def permutations(channels: int) -> list[tuple[int, ...]]:
    """Return every order of `channels` places, from 1, but their own; there may be none."""
    return list(itertools.permutations(range(1, channels + 1)))[1:]


def permuted_composites(chosen: Sequence[str]) -> dict[str, list[str]]:
    """Return the composite in every other order, by name: `permuted channels 2-1-3`.

    The name lists which channel, from 1, stands at each place: 2-1-3 swaps the first two.
    """
    return {
        f"{PERMUTED_CHANNELS} {'-'.join(map(str, order))}": [chosen[place - 1] for place in order]
        for order in permutations(len(chosen))
    }


def match_pixels(crops: np.ndarray, factor: float) -> np.ndarray:
    """Return crops in which everything is `factor` times as large about the window's centre.

    `crops` is uint8 n x C x H x H, and so is the result: what no longer fits is cut away, what is
    missing around a smaller picture is its reflection. With the pixel size of these crops over
    that of others as the factor, a pixel means the same length in both.
    Resampled as crops are for an encoder's input: by area averages when shrinking, else bilinearly.
    Raises InputError if the factor is no positive number or leaves less than 2 pixels.
    """
    side = crops.shape[2]
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(f"pixel factor is {factor}, expected a positive number; check pixel_um")
    # As many pixels more or less on either side, so that the centre stays where it is.
    margin = round(side * (factor - 1) / 2)
    size = side + 2 * margin
    if size < 2:
        raise InputError(
            f"pixel factor {factor} shrinks crops of {side} px to {size} px; check pixel_um"
        )
    if margin == 0:
        return crops.copy()
    how = cv2.INTER_AREA if margin < 0 else cv2.INTER_LINEAR
    resized = np.empty((*crops.shape[:2], size, size), np.uint8)
    # Plane by plane, because OpenCV rounds several channels otherwise than one: see views.
    for place in np.ndindex(crops.shape[:2]):
        cv2.resize(crops[place], (size, size), dst=resized[place], interpolation=how)
    if margin > 0:
        return resized[:, :, margin:-margin, margin:-margin].copy()
    return np.pad(resized, ((0, 0), (0, 0), (-margin, -margin), (-margin, -margin)), "reflect")


class MatchedPixels:
    """Shards seen with pixels of another length: what `extract_features` reads of them."""

    def __init__(self, shards: Shards, factor: float):
        """Magnify every crop of `shards` by `factor`: see `match_pixels`."""
        self.shards, self.factor = shards, factor

    def __len__(self) -> int:
        return len(self.shards)

    @cached_property
    def index(self) -> pd.DataFrame:
        """The shards' index; areas of nuclei are in the new pixels."""
        index = self.shards.index
        return index.assign(nucleus_area_px=index["nucleus_area_px"] * self.factor**2)

    def read_composite(self, rows: Sequence[int] | np.ndarray, chosen: Sequence[str]) -> np.ndarray:
        """Return the `chosen` channels of the crops at `rows`, magnified."""
        return match_pixels(self.shards.read_composite(rows, chosen), self.factor)


def changed_images(
    shards: Shards,
    chosen: Sequence[str],
    most_channels: int,
    factor: float | None,
    by_role: bool = False,
) -> tuple[dict[str, tuple[Shards | MatchedPixels, Sequence[str]]], dict[str, str]]:
    """Return by name the shards and composite of each change, and why others are not made.

    Composites of more than `most_channels` are not permuted, because the orders of n channels are
    n!; nor are channels that an encoder chooses `by_role`. `factor` is as for `match_pixels`, None
    if a pixel size is not known.
    """
    made, not_made = {}, {}
    if by_role:
        not_made[PERMUTED_CHANNELS] = "the encoder chooses channels by what they show"
    elif len(chosen) == 1:
        not_made[PERMUTED_CHANNELS] = "one channel has no other order"
    elif len(chosen) > most_channels:
        not_made[PERMUTED_CHANNELS] = (
            f"{len(chosen)} channels have too many orders; at most {most_channels} channels are "
            "permuted"
        )
    else:
        made |= {name: (shards, names) for name, names in permuted_composites(chosen).items()}
    if factor is None:
        not_made[MATCHED_PIXEL_SIZE] = "the pixel size of a screen is not known"
    elif factor == 1:
        not_made[MATCHED_PIXEL_SIZE] = "both screens have the same pixel size"
    else:
        made[MATCHED_PIXEL_SIZE] = MatchedPixels(shards, factor), chosen
    return made, not_made


def variants_schema(width: int) -> TableSchema:
    """Return the schema of a table of feature vectors, of `width` values, of changed crops."""
    return TableSchema(
        ("variant", "crop_id"),
        pa.schema(
            [
                pa.field("variant", pa.string(), nullable=False),
                pa.field("crop_id", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
            ]
        ),
    )


def write_variants(
    crop_ids: Sequence[str],
    variants: Mapping[str, np.ndarray],
    width: int,
    not_made: Mapping[str, str],
    path: Path,
) -> None:
    """Write the n x width float32 features of n crops under each change, and why others lack.

    There may be no change at all: the table then has no rows.
    """
    schema = variants_schema(width)
    vectors = np.concatenate([np.empty((0, width), np.float32), *variants.values()])
    table = pa.table(
        [
            pa.array(np.repeat(list(variants), len(crop_ids)).tolist(), pa.string()),
            pa.array(list(crop_ids) * len(variants), pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        ],
        names=schema.columns.names,
    )
    write_table(table, path, schema, {"not_made": dict(not_made)})


def read_variants(path: Path) -> tuple[dict[str, tuple[pd.Index, np.ndarray]], dict[str, str]]:
    """Return crop_ids and n x width features by change, and why others were not made.

    Raises InputError if the file is no such table.
    """
    try:
        if "variant" not in read_footer(path).schema.names:
            raise KeyError("variant")
        table = read_parquet(path, ours=True)
        not_made = read_metadata(path)["not_made"]
        names = np.array(table["variant"].to_pylist(), dtype=object)
        crops = pd.Index(table["crop_id"].to_pylist())
        width = table.schema.field("vector").type.list_size
        vectors = np.asarray(table["vector"].combine_chunks().flatten()).reshape(-1, width)
    except (pa.ArrowInvalid, OSError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: is not a table of features of changed crops ({error}); delete it and run "
            "again"
        ) from error
    found = {name: names == name for name in dict.fromkeys(names)}
    return {name: (crops[rows], vectors[rows]) for name, rows in found.items()}, not_made
