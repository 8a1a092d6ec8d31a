"""Whether the images of a plate are still those that were indexed and cropped.

Images are no inputs of the workflow, because a screen has hundreds of thousands. So a rerun
notices a replaced one only when asked to look again.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hcsqc.core.parallel import in_order
from hcsqc.screens.images.planes import UnreadableField
from hcsqc.screens.images.read import read_field

AHEAD = 4  # fields that are read before they are asked for


def other_listing(indexed: pd.DataFrame, found: pd.DataFrame) -> dict[str, str]:
    """Return which fields are listed otherwise now, and how: `new`, `gone` or `other files`.

    Both are `fields` tables: as indexed, and as the folder is found now.
    """
    before, now = (_rows(table) for table in (indexed, found))
    changed = {field: "gone" for field in before if field not in now}
    changed |= {field: "new" for field in now if field not in before}
    changed |= {
        field: "other files"
        for field, row in now.items()
        if field in before and row != before[field]
    }
    return changed


def _rows(fields: pd.DataFrame) -> dict[str, tuple]:
    columns = sorted(set(fields.columns) - {"field_id"})
    rows = fields[columns].itertuples(index=False, name=None)
    return {
        field: tuple(map(_plain, row)) for field, row in zip(fields["field_id"], rows, strict=True)
    }


def _plain(value: object) -> object:
    """Return a value of a cell such that equal cells are equal; null of any kind is None."""
    if pd.api.types.is_list_like(value):
        return tuple(_plain(item) for item in value)
    return None if pd.isna(value) else value


def other_images(
    fields: pd.DataFrame,
    summary: pd.DataFrame,
    images: Path,
    z_projection: str | None,
    since_ns: int,
    threads: int,
    on_field: Callable[[], None],
) -> tuple[dict[str, str], int]:
    """Return the fields whose images hold something else than what was cropped, and how many
    fields were read for it.

    `fields` and `summary` are the plate's tables of these names. Only fields with a file that was
    written, moved or touched after `since_ns` (nanoseconds, as `st_ctime_ns`) are read; their
    digests decide. `on_field` is called after each of these.
    """
    digests = dict(zip(summary["field_id"], summary["image_digest"], strict=True))
    moved = [
        row
        for row in fields[fields["problem"].isna()].itertuples()
        if row.field_id in digests and _changed_at(images, row.image_path) > since_ns
    ]

    def read(row) -> list[str] | str:
        try:
            return read_field(images, row.image_path, row.image_page, z_projection).digests
        except UnreadableField as error:
            return str(error)

    changed = {}
    for row, found in zip(moved, in_order(read, moved, threads, AHEAD), strict=True):
        known = list(digests[row.field_id])
        if isinstance(found, str):
            if known:
                changed[row.field_id] = found
        elif found != known:
            changed[row.field_id] = "other pixels"
        on_field()
    return changed, len(moved)


def _changed_at(images: Path, paths) -> int:
    """Return when a field's files last changed; a change of the clock's time stamp is none."""
    return max(_newest(os.path.join(images, path)) for path in paths)


def _newest(path: str) -> int:
    try:
        newest = os.stat(path).st_ctime_ns
    except FileNotFoundError:
        return 0
    for root, _, names in os.walk(path):  # the chunks of an OME-Zarr image
        newest = max([newest, *(os.stat(os.path.join(root, name)).st_ctime_ns for name in names)])
    return newest
