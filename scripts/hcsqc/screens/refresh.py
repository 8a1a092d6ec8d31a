"""Whether the images of a plate are still those that were indexed and cropped.

Images are no inputs of the workflow, because a screen has hundreds of thousands. So a rerun
notices a replaced one only when asked to look again.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from hcsqc.core.parallel import in_order
from hcsqc.screens.images.planes import UnreadableField
from hcsqc.screens.images.read import FieldImages, read_field
from hcsqc.screens.images.remote import Folder, ahead
from hcsqc.screens.images.stamps import Stamp, stamps

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
    images: Folder,
    z_projection: str | None,
    channels: Sequence[str],
    checked: Mapping[str, Sequence[Sequence[int]]],
    threads: int,
    on_field: Callable[[], None],
) -> tuple[dict[str, str], dict[str, list[Stamp]], int]:
    """Return the fields whose images hold something else than what was cropped.

    `fields` and `summary` are the plate's tables of these names. Read are fields that failed, and
    those of which a file's size or time is neither as it was when it was cropped nor as `checked`
    has it; digests decide. Returned are also the stamps of the fields that were read and are no
    change, which is what `checked` holds, and how many fields were read. `on_field` is called
    after each of these.
    Raises InputError if an image cannot be read for a reason that is not its own.
    """
    known = {row.field_id: row for row in summary.itertuples()}
    suspect = []
    for row in fields[fields["problem"].isna()].itertuples():
        cropped = known.get(row.field_id)
        if cropped is None:
            continue
        now = stamps(images, row.image_path)
        as_cropped = list(zip(cropped.image_bytes, cropped.image_changed_ns, strict=True))
        as_checked = [tuple(of_image) for of_image in checked.get(row.field_id, ())]
        if not len(cropped.image_digest) or now not in (as_cropped, as_checked):
            suspect.append(row)

    def read(row) -> FieldImages | UnreadableField:
        try:
            return read_field(images, row.image_path, row.image_page, z_projection, channels)
        except UnreadableField as error:
            return error

    changed, same = {}, {}
    for row, found in zip(
        suspect, in_order(read, ahead(suspect, images), threads, AHEAD), strict=True
    ):
        before = list(known[row.field_id].image_digest)
        if isinstance(found, UnreadableField):
            if before:
                changed[row.field_id] = str(found)
        elif not before:
            changed[row.field_id] = "can be read now"
        elif found.digests != before:
            changed[row.field_id] = "other pixels"
        else:
            same[row.field_id] = found.stamps
        on_field()
    return changed, same, len(suspect)
