"""Images, crops and labels that are there more than once, and where.

A copied image is a cell that counts twice, perhaps on both sides of a split, perhaps with two
labels. Images and crops are compared by the digests that were recorded when they were read, and
labelled crops by their pixels.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.ids import plate_of
from hcsqc.crops.shards import Shards

COLUMNS = ["kind", "first", "second", "likeness", "first_label", "second_label"]
IMAGE, CROP, NEAR = ("image", "crop", "near-duplicate crop")
SIDE = 16  # of the small pictures that are compared, pixels
LIKENESS = 0.97  # correlation of two small pictures, from which on crops are near-duplicates
AT_ONCE = 1000  # crops compared with all others at a time


def duplicates(
    shards: Shards,
    labels: pd.DataFrame,
    summaries: pd.DataFrame,
    fields: pd.DataFrame,
    composite: Sequence[str],
) -> pd.DataFrame:
    """Return a row of `COLUMNS` for each image and crop that is there again, with its first place.

    Images and crops of the same content are those of the whole screen, near-duplicates are among
    the labelled crops alone. `labels` has crop_id and label; `summaries` and `fields` are those
    tables of all plates.
    """
    known = labels.set_index("crop_id")["label"]
    crops = pd.concat([same_crops(shards), near_duplicates(shards, known.index, composite)])
    named = {name: crops[name].map(known) for name in ("first", "second")}
    crops = crops.assign(first_label=named["first"], second_label=named["second"])
    return pd.concat([same_images(summaries, fields), crops], ignore_index=True)[COLUMNS]


def same_images(summaries: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Return the images whose file has the same content as an earlier one, of whatever channel.

    Places are fields with the file's path. Channels that are pages of one file are no duplicates.
    """
    images = summaries[["field_id", "image_digest"]].merge(fields[["field_id", "image_path"]])
    rows = [
        (digest, field, path)
        for field, digests, paths in images.itertuples(index=False)
        for digest, path in zip(digests, paths, strict=False)
        if path and digest
    ]
    found = pd.DataFrame(rows, columns=["digest", "field_id", "path"])
    found["plate"] = found["field_id"].map(plate_of)
    found = found.drop_duplicates(["digest", "plate", "path"])
    return _again(found["digest"], found["field_id"] + ": " + found["path"], IMAGE)


def same_crops(shards: Shards) -> pd.DataFrame:
    """Return the crops with the same pixels, in all channels, as an earlier one."""
    return _again(pd.Series(shards.digests), shards.index["crop_id"], CROP)


def near_duplicates(
    shards: Shards, crop_ids: Sequence[str] | pd.Index, composite: Sequence[str]
) -> pd.DataFrame:
    """Return pairs of crops that look nearly the same, except for those with the same pixels.

    The composite, shrunken to `SIDE` x `SIDE` pixels, correlates by at least `LIKENESS` in the mean
    over channels. Moves of a pixel, noise, compression and other light hardly change that.
    """
    rows = shards.rows_of(crop_ids)
    digests = shards.digests[rows]
    pictures = np.concatenate(
        [
            small_pictures(shards.read_composite(rows[start : start + AT_ONCE], composite))
            for start in range(0, len(rows), AT_ONCE)
        ]
        or [np.empty((0, 1))]
    )
    pairs = []
    for start in range(0, len(pictures), AT_ONCE):
        likeness = pictures[start : start + AT_ONCE] @ pictures.T
        first, second = np.nonzero(likeness >= LIKENESS)
        later = second > first + start
        pairs += [
            (first + start, second, likeness[first, second])
            for first, second in zip(first[later], second[later], strict=True)
            if digests[first + start] != digests[second]
        ]
    names = list(crop_ids)
    found = [(NEAR, names[one], names[other], value) for one, other, value in pairs]
    table = pd.DataFrame(found, columns=["kind", "first", "second", "likeness"])
    return table.sort_values("likeness", ascending=False, kind="stable", ignore_index=True)


def small_pictures(crops: np.ndarray) -> np.ndarray:
    """Return a unit vector for each of n x C x H x W crops; the product of two is their likeness.

    Each channel counts alike. One without any contrast is like no other.
    """
    n, channels, height, width = crops.shape
    planes = crops.reshape(-1, height, width)
    small = np.stack(
        [cv2.resize(plane, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for plane in planes]
    ).reshape(n, channels, -1)
    centred = small - small.mean(axis=2, keepdims=True)
    length = np.linalg.norm(centred, axis=2, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    return unit.reshape(n, -1) / np.sqrt(channels)


def _again(contents: pd.Series, places: pd.Series, kind: str) -> pd.DataFrame:
    """Return a row for each place whose content is that of an earlier place."""
    contents, places = contents.reset_index(drop=True), places.reset_index(drop=True)
    again = contents.duplicated()
    first = places.groupby(contents).transform("first")
    return pd.DataFrame(
        {"kind": kind, "first": first[again], "second": places[again], "likeness": 1.0}
    )
