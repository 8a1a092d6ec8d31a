"""From the fields of a plate to its shard of crops, one whole window around each nucleus."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.errors import InputError
from hcsqc.files import atomic, sha256
from hcsqc.images import UnreadableField, read_field
from hcsqc.nuclei import NucleusSettings, find_nuclei
from hcsqc.progress import Progress
from hcsqc.scale import apply_scale, lookup_tables
from hcsqc.shards import ShardFormat, ShardWriter

NUCLEI_COLUMNS = ["crop_id", "field_id", "x_px", "y_px", "area_px", "kept", "reason"]


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut: side of the window in source pixels, the scale's knee, and tolerance."""

    window_px: int
    scale_knee: float
    failed_fields: float


@dataclass(frozen=True)
class Plate:
    """What is known of a plate before it is cropped."""

    fields: pd.DataFrame
    images: Path
    channels: list[str]
    nucleus_channel: str
    scale: pd.DataFrame
    shape: tuple[int, int]


@dataclass
class CroppedField:
    """What one field gives."""

    summary: dict
    nuclei: pd.DataFrame
    pixels: np.ndarray | None = field(default=None, repr=False)


def crop_plate(
    plate: Plate,
    settings: CropSettings,
    nucleus: NucleusSettings,
    shard: Path,
    threads: int,
    label: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the plate's shard and return its `nuclei` and `summary` tables.

    Every nucleus found is kept or listed with the reason why not; every field ends in the
    summary, read or failed. Raises InputError, listing fields, if more than the allowed share
    failed.
    """
    scale = {row.channel: [row.low, row.high, row.top] for row in plate.scale.itertuples()}
    shard_format = ShardFormat(tuple(plate.channels), settings.window_px, "uint8", scale)
    progress = Progress(len(plate.fields), "fields", label)
    summaries, nuclei = [], []
    with atomic(shard) as temporary:
        writer = ShardWriter(temporary, shard_format)
        for cropped in _crop_fields(plate, settings, nucleus, threads):
            summaries.append(cropped.summary)
            nuclei.append(cropped.nuclei)
            kept = cropped.nuclei[cropped.nuclei["kept"]]
            if len(kept):
                writer.add(kept.rename(columns={"area_px": "nucleus_area_px"}), cropped.pixels)
            progress.update(1, crops=sum(summary["kept"] for summary in summaries))
        writer.close()
        summary = pd.DataFrame(summaries)
        _check_failures(summary, settings.failed_fields)
    progress.close(crops=int(summary["kept"].sum()))
    return pd.concat(nuclei, ignore_index=True), summary


def _crop_fields(plate, settings, nucleus, threads) -> Iterator[CroppedField]:
    """Crop fields in order, a few at a time, so that memory does not grow with the plate."""
    tables = lookup_tables(plate.scale, settings.scale_knee)
    rows = plate.fields.itertuples()
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(rows, 2 * threads)):
            yield from pool.map(
                lambda row: _crop_field(row, plate, tables, settings, nucleus), chunk
            )


def _crop_field(row, plate: Plate, tables, settings, nucleus) -> CroppedField:
    base = {"field_id": row.field_id, "plate": row.plate, "well": row.well, "site": row.site}
    paths = list(row.image_path)
    try:
        if pd.notna(row.problem):
            raise UnreadableField(row.problem)
        planes = read_field(plate.images, paths)
        wrong = [plane.shape for plane in planes if plane.shape != plate.shape]
        if wrong:
            raise UnreadableField(
                f"image of {wrong[0][0]} x {wrong[0][1]} px, the plate's are "
                f"{plate.shape[0]} x {plate.shape[1]}"
            )
        digests = [sha256(plate.images / path) for path in paths]
    except UnreadableField as error:
        summary = base | {
            "found": 0,
            "kept": 0,
            "dropped": 0,
            "status": "failed",
            "reason": str(error),
            "image_sha256": [],
        }
        return CroppedField(summary, pd.DataFrame(columns=NUCLEI_COLUMNS).astype({"kept": bool}))
    found = find_nuclei(planes[plate.channels.index(plate.nucleus_channel)], nucleus)
    inside = window_inside(found.x_px, found.y_px, plate.shape, settings.window_px)
    nuclei = pd.DataFrame(
        {
            "crop_id": [
                crop_id(row.field_id, x, y) for x, y in zip(found.x_px, found.y_px, strict=True)
            ],
            "field_id": row.field_id,
            "x_px": found.x_px,
            "y_px": found.y_px,
            "area_px": found.area_px,
            "kept": inside,
            "reason": np.where(inside, None, "border"),
        },
        columns=NUCLEI_COLUMNS,
    )
    pixels = cut_windows(
        apply_scale(planes, tables), found.x_px[inside], found.y_px[inside], settings.window_px
    )
    summary = base | {
        "found": len(nuclei),
        "kept": int(inside.sum()),
        "dropped": int((~inside).sum()),
        "status": "ok",
        "reason": None,
        "image_sha256": digests,
    }
    return CroppedField(summary, nuclei, pixels)


def crop_id(field_id: str, x_px: int, y_px: int) -> str:
    """Return the name of the crop around a nucleus' centre."""
    return f"{field_id}/x{x_px:04d}y{y_px:04d}"


def window_inside(
    x_px: np.ndarray, y_px: np.ndarray, shape: tuple[int, int], window_px: int
) -> np.ndarray:
    """Return which windows lie whole inside a field of `shape` (rows, columns).

    A window's first column is `x - window // 2`.
    """
    left, top = x_px - window_px // 2, y_px - window_px // 2
    return (left >= 0) & (top >= 0) & (left + window_px <= shape[1]) & (top + window_px <= shape[0])


def cut_windows(
    pixels: np.ndarray, x_px: np.ndarray, y_px: np.ndarray, window_px: int
) -> np.ndarray:
    """Cut square windows of C x H x W pixels, centred on whole pixels; n x C x window x window."""
    half = window_px // 2
    windows = [
        pixels[:, y - half : y - half + window_px, x - half : x - half + window_px]
        for x, y in zip(x_px, y_px, strict=True)
    ]
    if not windows:
        return np.empty((0, pixels.shape[0], window_px, window_px), pixels.dtype)
    return np.stack(windows)


def _check_failures(summary: pd.DataFrame, allowed: float) -> None:
    failed = summary[summary["status"] == "failed"]
    if len(failed) > allowed * len(summary):
        listed = "\n".join(
            f"  {row.field_id}: {row.reason}" for row in failed.head(20).itertuples()
        )
        raise InputError(
            f"{len(failed)} of {len(summary)} fields cannot be cropped, more than "
            f"crops.failed_fields = {allowed} allows:\n{listed}"
        )
