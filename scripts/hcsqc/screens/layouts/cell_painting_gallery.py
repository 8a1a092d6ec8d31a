"""The Cell Painting Gallery's own layout: LoadData tables and images at the places of its rules.

The bucket, or a copy of it, has a LoadData table in each folder
`<project>/<source>/workspace/load_data_csv/<batch>/<plate>`; the table's paths are those of the
bucket.
"""

from dataclasses import replace

from hcsqc.core.errors import InputError
from hcsqc.screens.images.remote import Folder
from hcsqc.screens.layouts.base import FoundImages, Source, entries, is_hidden, is_there, one_of
from hcsqc.screens.layouts.loaddata import find_images as find_in_table
from hcsqc.screens.layouts.loaddata import plate_channels as channels_in_table

TABLES = ("load_data.parquet", "load_data.csv.gz", "load_data.csv")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the images of a plate in its table; raises InputError naming the table."""
    return find_in_table(replace(source, table=_table(source, plate)), plate)


def list_plates(source: Source) -> list[str]:
    """Return the plates of the batch, or of all batches, sorted; raises InputError."""
    return sorted({plate for batch in _batches(source) for plate in _plates(source, batch)})


def list_channels(source: Source) -> list[str]:
    """Return the channels of the first plate's table, sorted."""
    plates = list_plates(source)
    return plate_channels(source, plates[0]) if plates else []


def plate_channels(source: Source, plate: str) -> list[str]:
    """Return the channels of a plate's table, sorted; raises InputError if it has no table."""
    return channels_in_table(replace(source, table=_table(source, plate)), plate)


def _above(source: Source) -> Folder:
    return source.images / f"{source.project}/{source.source}/workspace/load_data_csv"


def _batches(source: Source) -> list[str]:
    if source.batch is not None:
        return [source.batch]
    return [name for name in entries(_above(source)) if not is_hidden(name)]


def _plates(source: Source, batch: str) -> list[str]:
    return [name for name in entries(_above(source) / batch) if not is_hidden(name)]


def _table(source: Source, plate: str) -> Folder:
    """Return the table of a plate; raises InputError if there is none, or one in two batches."""
    found = []
    for batch in _batches(source):
        folder = _above(source) / batch / plate
        tables = (folder / name for name in TABLES)
        found += [table for table in [next(filter(is_there, tables), None)] if table]
    if len(found) == 1:
        return found[0]
    if found:
        where = ", ".join(map(str, found))
        raise InputError(f"plate {plate} has several tables: {where}; state batch of the screen")
    batches = _batches(source)
    if not batches:
        raise InputError(
            f"{_above(source)}: no such folder; correct project and source of the screen"
        )
    where = _above(source) / source.batch if source.batch else _above(source)
    raise InputError(
        f"{where}: no {TABLES[-1]} of plate {plate}; {one_of(plate, list_plates(source))}. Correct "
        "plates or batch of the screen"
    )
