"""From a LoadData table, or one per plate, to where it says that the images are."""

import os
import posixpath
import re
from pathlib import Path

from hcsqc.core.config import refuse_secret
from hcsqc.core.errors import InputError
from hcsqc.screens.images.remote import Folder, RemoteFolder, can_list, folder_at, is_remote
from hcsqc.screens.layouts import Source, list_channels, list_plates
from hcsqc.screens.layouts.base import first_few, is_there
from hcsqc.start.folder import GivenFolder
from hcsqc.start.naming_schemes import InDoubt
from hcsqc.start.tables import columns, image_paths, rows

_ILLUMINATION = re.compile(r"(FileName|URL)_Illum")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|[A-Za-z0-9]+://")


def find_source(folder: GivenFolder) -> tuple[Source, list[str]]:
    """Return the source of a folder's LoadData tables, and the plates that they list.

    Raises InDoubt for several tables, InputError for none, and where there are no images.
    """
    tables = folder.loaddata_tables
    if not tables:
        raise InputError(f"{folder.path}: no LoadData table found in it and the folders below")
    plain = [table for table in tables if not any(map(_ILLUMINATION.match, columns(table)))]
    tables = plain or tables
    table = _one_table(tables, folder.path)
    images, prefix = _image_root(tables, folder)
    given = {"table": table, "table_prefix": prefix}
    channels = own_channels(list_channels(Source("loaddata", images, (), **given)))
    source = Source("loaddata", images, channels, **given)
    return source, list_plates(source)


def own_channels(channels: list[str]) -> tuple[str, ...]:
    """Return channels without the illumination functions that some tables list beside them."""
    return tuple(name for name in channels if not name.startswith("Illum"))


def _one_table(tables: list[Folder], folder: Folder) -> Folder:
    """Return the path of the only table, or with {plate} where each plate has one."""
    if len(tables) == 1:
        return tables[0]
    paths = set()
    for table in tables:
        plate = next(iter(rows(table)["Metadata_Plate"]), "")
        paths.add(str(table).replace(plate, "{plate}") if plate else str(table))
    path = paths.pop()
    if paths or "{plate}" not in path:
        names = [table.relative_to(folder).as_posix() for table in tables]
        raise InDoubt(
            f"{folder}: holds {len(tables)} LoadData tables, {first_few(names)}; give the path of "
            "one of them",
            {name: {"path": table} for name, table in zip(names, tables, strict=True)},
        )
    return folder_at(path)


def _image_root(tables: list[Folder], folder: GivenFolder) -> tuple[Folder, str | None]:
    """Return the folder of the tables' images, and which start of their paths stands for it."""
    table = tables[0]
    paths = [path for each in tables for path in image_paths(each) if path]
    if not paths:
        raise InputError(f"{table}: lists no images; is it a LoadData table?")
    for path in paths:
        refuse_secret(path, table)
    path, remote = paths[0], isinstance(folder.path, RemoteFolder)
    if not _ABSOLUTE.match(path):
        within = posixpath.normpath(path)
        for root in () if within.startswith("../") else (table.parent, folder.path):
            if is_there(root / within):
                return root, None
    elif not is_remote(path) and Path(path).is_file():
        return Path(_common_folder(paths)), None
    elif remote and is_remote(path) and is_there(folder_at(path)):
        return _at_urls(table, paths), None
    # The images were moved since: the longest end of the path that a file here has, too.
    parts = path.split("/")
    images = folder.images if not remote or can_list(folder.path) else []
    alike = [image for image in images if posixpath.basename(image) == parts[-1]]
    ends = [str(folder.path / image).split("/") for image in alike]
    if not ends and is_remote(path) and is_there(folder_at(path)):
        return _at_urls(table, paths), None
    if not ends:
        raise InputError(
            f"{table}: its images are neither at the listed paths nor below {folder.path}; first: "
            f"{path}. Put the table above the images, or write the screen's entry yourself "
            "(docs/screens.md, table_prefix)"
        )
    shared, end = max((_shared(parts, end), end) for end in ends)
    return folder_at("/".join(end[:-shared])), "/".join(parts[:-shared]) or None


def _at_urls(table: Folder, paths: list[str]) -> Folder:
    """Return the folder of all images that a table lists by their URLs."""
    servers = sorted({"/".join(path.split("/")[:3]) for path in paths})
    if len(servers) > 1:
        raise InputError(
            f"{table}: lists images of {first_few(servers)}; give a table for each of them"
        )
    below = [path.removeprefix(servers[0]) for path in paths]
    return folder_at(servers[0] + _common_folder(below).rstrip("/"))


def _common_folder(paths: list[str]) -> str:
    above = {posixpath.dirname(path) for path in paths}
    return os.path.commonpath([posixpath.normpath(name) for name in above])


def _shared(first: list[str], second: list[str]) -> int:
    """Return how many parts two paths have in common, from the end."""
    count = 0
    while count < min(len(first), len(second)) and first[-count - 1] == second[-count - 1]:
        count += 1
    return count
