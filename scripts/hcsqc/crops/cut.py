"""From the fields of a plate to its shard of crops, one window around each nucleus."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from hcsqc.core.digest import code_digest
from hcsqc.core.errors import InputError
from hcsqc.core.files import text_digest
from hcsqc.core.ids import crop_id
from hcsqc.core.parallel import in_order
from hcsqc.core.progress import Progress
from hcsqc.crops.nuclei import Nuclei, NucleusSettings, find_nuclei
from hcsqc.crops.resume import PartialPlate
from hcsqc.crops.shards import ShardFormat
from hcsqc.screens.illumination import Illumination, correct
from hcsqc.screens.images.read import FieldImages, UnreadableField, read_field
from hcsqc.screens.images.remote import Folder, ahead
from hcsqc.screens.images.stamps import Stamp, stamps
from hcsqc.screens.layouts.base import first_few
from hcsqc.screens.scale import apply_scale, lookup_tables

# After so many fields a killed job need not begin again.
CHECKPOINT_FIELDS = 64
# So many fields may wait to be written, because a row group takes as long to write as several
# fields to crop, unless their crops take more memory than this.
AHEAD_FIELDS, AHEAD_BYTES = 16, 2**28


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut."""

    window_px: int  # side of a crop
    crop_px_per_px: float  # pixels of the crop along one pixel of the source image
    border: str  # drop: no crop that crosses it; reflect: mirror the field
    dtype: str  # of the shard: uint8 or uint16
    scale_knee: float
    failed_fields: float  # the share of fields that may fail


@dataclass(frozen=True)
class Plate:
    """What is known of a plate before it is cropped."""

    fields: pd.DataFrame
    images: Folder
    channels: list[str]
    nucleus_channel: str
    scale: pd.DataFrame
    shape: tuple[int, int]
    z_projection: str | None = None
    illumination: Illumination | None = None
    locations: dict[tuple[str, int], Nuclei] | None = None


@dataclass
class CroppedField:
    """What one field gives."""

    summary: dict
    nuclei: dict[str, list]  # columns of the `nuclei` table
    crops: np.ndarray | None = None  # n x C x window x window; None of a field that failed
    above_top: bool = False


def crop_plate(
    plate: Plate,
    settings: CropSettings,
    nucleus: NucleusSettings,
    shard: Path,
    threads: int,
    label: str,
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Write the plate's shard and return its `nuclei` and `summary` tables.

    Every nucleus found is kept or listed with the reason why not; every field ends in the
    summary, read or failed. What an earlier, killed job has finished is not done again, unless its
    images changed since: the number that is returned counts the fields that were done now.
    Raises InputError, listing fields, if more than the allowed share failed, or if published
    nuclei are of other fields; and if the machine cannot read an image, which is no field's fault.
    """
    _check_locations(plate, settings.failed_fields, label)
    scale = {
        channel: [low, high, top, settings.scale_knee]
        for channel, low, high, top in plate.scale[["channel", "low", "high", "top"]].itertuples(
            index=False
        )
    }
    shard_format = ShardFormat(tuple(plate.channels), settings.window_px, settings.dtype, scale)
    identity = _identity(plate, settings, nucleus)
    partial = PartialPlate(
        shard, shard_format, identity, settings.crop_px_per_px, _Unchanged(plate)
    )
    progress = Progress(len(plate.fields), "fields", label, start=partial.fields)
    before = partial.fields
    if before:
        print(f"{label}: {before} fields were done already", flush=True)
    cutter = _Cutter(plate, settings, nucleus)
    crops, above_top, read_mb, began = partial.crops, 0, 0.0, time.monotonic()
    rows = ahead(plate.fields.iloc[before:].itertuples(), plate.images)
    at_once = threads + AHEAD_FIELDS
    fields = in_order(cutter.crop, rows, threads, at_once, _crop_bytes, AHEAD_BYTES)
    try:
        with closing(rows), closing(fields):
            for done, cropped in enumerate(fields, start=1):
                partial.add(cropped.summary, cropped.nuclei, cropped.crops)
                crops += cropped.summary["kept"]
                above_top += cropped.above_top
                if done % CHECKPOINT_FIELDS == 0:
                    partial.checkpoint()
                read_mb += sum(cropped.summary["image_bytes"]) / 1e6
                speed = read_mb / (time.monotonic() - began)
                progress.update(1, crops=crops, MB_per_s=speed)
        partial.checkpoint()
    except BaseException:
        partial.stop()
        raise
    nuclei, summary = partial.tables()
    try:
        _check_failures(summary, settings.failed_fields)
    except InputError:
        partial.discard()
        raise
    partial.finish()
    progress.close(crops=int(summary["kept"].sum()))
    _announce(nuclei, summary, label)
    if above_top:
        top = int(plate.scale["top"].max())
        print(
            f"warning: {label}: {above_top} fields have pixels brighter than {top}, which the "
            "sample took for the camera's saturation; they became as bright as saturated ones. "
            "State the camera's bits in the screen's config",
            flush=True,
        )
    return nuclei, summary, len(summary) - before


def _announce(nuclei: pd.DataFrame, summary: pd.DataFrame, label: str) -> None:
    """Say what a user should know before going on."""
    failed = summary[summary["status"] == "failed"]
    if len(failed):
        reasons = [f"{row.field_id}: {row.reason}" for row in failed.itertuples()]
        print(f"warning: {label}: failed fields: {first_few(reasons)}", flush=True)
    if len(nuclei) and not nuclei["kept"].any():
        counts = nuclei["reason"].value_counts().to_dict()
        why = ", ".join(f"{reason}: {count}" for reason, count in counts.items())
        print(
            f"warning: {label}: not one of {len(nuclei)} nuclei has a crop ({why}); is the window "
            "larger than the field, or are published places in other units?",
            flush=True,
        )


def _check_locations(plate: Plate, allowed: float, label: str) -> None:
    """Say which published nuclei lie in fields that the plate does not have.

    Raises InputError if, beside that, more than the allowed share of the plate has none.
    """
    if plate.locations is None:
        return
    fields = set(zip(plate.fields["well"], plate.fields["site"], strict=True))
    strange = {place: len(found) for place, found in plate.locations.items() if place not in fields}
    if not strange:
        return
    named, without = (
        first_few([f"{well} s{site}" for well, site in sorted(places)])
        for places in (strange, fields - plate.locations.keys())
    )
    if len(fields - plate.locations.keys()) > allowed * len(fields):
        raise InputError(
            f"{label}: the published nuclei are of fields that the plate does not have, {named}, "
            f"and none are of its own {without}; are sites counted from another number?"
        )
    print(
        f"warning: {label}: {sum(strange.values())} published nuclei are of {len(strange)} fields "
        f"that the plate does not have: {named}",
        flush=True,
    )


def _identity(plate: Plate, settings: CropSettings, nucleus: NucleusSettings) -> str:
    """Return a digest of all that decides what the crops of a plate are."""
    return text_digest(
        json.dumps(
            [
                asdict(settings),
                asdict(nucleus),
                plate.fields.to_json(),
                plate.scale.to_json(),
                [plate.channels, plate.nucleus_channel, plate.z_projection, list(plate.shape)],
                plate.illumination.functions.tolist() if plate.illumination else None,
                sorted(
                    (place, found.x_px.tolist(), found.y_px.tolist(), found.area_px.tolist())
                    for place, found in (plate.locations or {}).items()
                ),
                _own_code(),
            ],
            default=int,
        )
    )


@lru_cache(maxsize=1)
def _own_code() -> str:
    return code_digest("crops/crop_plate.py")


class _Unchanged:
    """Whether the images of fields that were cropped are still those that were read."""

    def __init__(self, plate: Plate):
        fields = plate.fields
        self.images = plate.images
        self.paths = dict(zip(fields["field_id"], fields["image_path"], strict=True))

    def __call__(self, summary: pd.DataFrame) -> bool:
        columns = (summary[name] for name in ("field_id", "image_bytes", "image_changed_ns"))
        return all(
            stamps(self.images, self.paths[field]) == list(zip(sizes, times, strict=True))
            for field, sizes, times in zip(*columns, strict=True)
            if len(sizes)
        )


def _crop_bytes(field: CroppedField) -> int:
    return 0 if field.crops is None else field.crops.nbytes


class _Cutter:
    """What does not change from field to field, and how a field is cropped with it."""

    def __init__(self, plate: Plate, settings: CropSettings, nucleus: NucleusSettings):
        self.plate, self.settings, self.nucleus = plate, settings, nucleus
        self.tables = lookup_tables(plate.scale, settings.scale_knee, settings.dtype)
        self.top = plate.scale["top"].to_numpy()
        self.dna = plate.channels.index(plate.nucleus_channel)
        self.gains = plate.illumination.gains(plate.shape) if plate.illumination else None

    def crop(self, row) -> CroppedField:
        """Crop one field: a row of the `fields` table."""
        summary = {"field_id": row.field_id, "plate": row.plate, "well": row.well, "site": row.site}
        if pd.notna(row.problem):
            return _failed(summary, row.problem)
        try:
            read = read_field(
                self.plate.images,
                row.image_path,
                row.image_page,
                self.plate.z_projection,
                self.plate.channels,
            )
        except UnreadableField as error:
            return _failed(summary, str(error), error.stamps)
        wrong = [plane.shape for plane in read.planes if plane.shape != self.plate.shape]
        if wrong:
            reason = (
                f"image of {wrong[0][0]} x {wrong[0][1]} px, the plate's are "
                f"{self.plate.shape[0]} x {self.plate.shape[1]}"
            )
            return _failed(summary, reason, read.stamps, read.digests)
        planes = read.planes
        brightest = [int(plane.max()) for plane in planes]
        odd = self._odd(read, brightest) or self._alike(read, row.image_path)
        if self.gains is not None:
            planes = correct(planes, self.gains, self.top)
        found = self._find(row, planes[self.dna], odd)
        nuclei, crops = self._cut(row.field_id, planes, found)
        kept = len(crops)
        summary |= {
            "found": len(found),
            "kept": kept,
            "dropped": len(found) - kept,
            "status": "odd" if odd else "ok",
            "reason": "; ".join(odd) or None,
        }
        summary |= _as_read(read.stamps, read.digests)
        return CroppedField(summary, nuclei, crops, bool((brightest > self.top).any()))

    def _odd(self, read: FieldImages, brightest: list[int]) -> list[str]:
        """Return what is odd about images that can be read."""
        odd = []
        for channel, plane, most, of_image in zip(
            self.plate.channels, read.planes, brightest, read.odd, strict=True
        ):
            if of_image:
                odd.append(f"{channel}: {of_image}")
            if plane[0, 0] == most and plane.min() == most:
                odd.append(f"{channel}: every pixel is {most}")
        return odd

    def _alike(self, read: FieldImages, paths: Sequence[str]) -> list[str]:
        """Return which channels are files of the same content, as a link or a copy is."""
        alike, first = [], dict[str, int]()
        for index, digest in enumerate(read.digests):
            other = first.setdefault(digest, index)
            if paths[other] != paths[index]:
                names = self.plate.channels
                alike.append(f"{names[index]}: its file is the same as that of {names[other]}")
        return alike

    def _find(self, row, dna: np.ndarray, odd: list[str]) -> Nuclei:
        if self.plate.locations is None:
            return find_nuclei(dna, self.nucleus)
        found = self.plate.locations.get((row.well, row.site))
        if found is None:
            odd.append("no published nucleus")
            return Nuclei(*(np.empty(0, np.int32) for _ in range(3)))
        return found

    def _cut(self, field_id, planes, found: Nuclei) -> tuple[dict, np.ndarray]:
        settings, side = self.settings, self.settings.window_px
        height, width = self.plate.shape
        x, y = found.x_px, found.y_px
        outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
        if settings.crop_px_per_px != 1:
            planes = [resample(plane, settings.crop_px_per_px) for plane in planes]
            x = resampled_place(x, planes[0].shape[1] / width)
            y = resampled_place(y, planes[0].shape[0] / height)
        pixels = apply_scale(planes, self.tables)
        inside = window_inside(x, y, pixels.shape[1:], side)
        kept = ~outside if settings.border == "reflect" else inside & ~outside
        if settings.border == "reflect" and not inside[kept].all():
            pixels, x, y = reflect(pixels, side // 2), x + side // 2, y + side // 2
        reason = np.full(len(found), "border", object)
        reason[kept] = None
        reason[outside] = "outside"
        return (
            _nuclei_columns(field_id, found, kept, reason),
            cut_windows(pixels, x[kept], y[kept], side),
        )


def _failed(
    summary: dict, reason: str, found: Sequence[Stamp] = (), digests: Sequence[str] = ()
) -> CroppedField:
    counts = {"found": 0, "kept": 0, "dropped": 0}
    outcome = {"status": "failed", "reason": reason}
    return CroppedField(summary | counts | outcome | _as_read(found, digests), {})


def _as_read(found: Sequence[Stamp], digests: Sequence[str]) -> dict[str, list]:
    """Return the columns of `summary` that say what the images were when they were read."""
    return {
        "image_digest": list(digests),
        "image_bytes": [size for size, _ in found],
        "image_changed_ns": [changed_ns for _, changed_ns in found],
    }


def _nuclei_columns(field_id: str, found: Nuclei, kept: np.ndarray, reason: np.ndarray) -> dict:
    """Return the rows of `nuclei` of one field, by column: a data frame would cost more time."""
    x_px, y_px = found.x_px.tolist(), found.y_px.tolist()
    return {
        "crop_id": [crop_id(field_id, x, y) for x, y in zip(x_px, y_px, strict=True)],
        "field_id": [field_id] * len(found),
        "x_px": x_px,
        "y_px": y_px,
        "area_px": found.area_px.tolist(),
        "kept": kept.tolist(),
        "reason": reason.tolist(),
    }


def resample(plane: np.ndarray, factor: float) -> np.ndarray:
    """Return H x W pixels with `factor` times as many along each side."""
    shape = max(1, round(plane.shape[1] * factor)), max(1, round(plane.shape[0] * factor))
    return cv2.resize(
        plane, shape, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )


def resampled_place(places: np.ndarray, factor: float) -> np.ndarray:
    """Return where pixels come to lie along one side after `resample`."""
    return np.floor((places + 0.5) * factor).astype(places.dtype)


def reflect(pixels: np.ndarray, border: int) -> np.ndarray:
    """Return C x H x W pixels with a border of their mirror image on all sides."""
    return np.stack(
        [
            cv2.copyMakeBorder(plane, border, border, border, border, cv2.BORDER_REFLECT_101)
            for plane in pixels
        ]
    )


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
    """Return n square windows of C x H x W pixels, centred on whole pixels: n x C x side x side."""
    if not len(x_px):
        return np.empty((0, len(pixels), window_px, window_px), pixels.dtype)
    windows = sliding_window_view(pixels, (window_px, window_px), axis=(1, 2))
    return windows.transpose(1, 2, 0, 3, 4)[y_px - window_px // 2, x_px - window_px // 2]


def _check_failures(summary: pd.DataFrame, allowed: float) -> None:
    failed = summary[summary["status"] == "failed"]
    if len(failed) > allowed * len(summary):
        listed = "\n".join(f"  {row.field_id}: {row.reason}" for row in failed.itertuples())
        raise InputError(
            f"{len(failed)} of {len(summary)} fields cannot be cropped, more than "
            f"crops.failed_fields = {allowed} allows:\n{listed}"
        )
