"""What lies below a folder of images, on disk or at a URL."""

import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import PurePosixPath

from hcsqc.core.errors import InputError
from hcsqc.core.patience import look
from hcsqc.screens.images.remote import (
    Folder,
    RemoteFolder,
    can_list,
    connections,
    first_names,
    folders_and_files,
)
from hcsqc.screens.layouts.base import entries, is_hidden, walk
from hcsqc.start.tables import TABLE_ENDINGS, columns_if_any, is_loaddata, may_be_table

IMAGE_ENDINGS = (".tif", ".tiff", ".png")
ZARR_GROUP = ("zarr.json", ".zattrs", ".zgroup")
# The folders of a source of the Cell Painting Gallery, and the one that has its tables.
GALLERY_FOLDERS, GALLERY_TABLES = {"images", "workspace"}, "load_data_csv"
SHOWN_EVERY_S = 5.0
_Level = tuple[str, list[str], list[str]]


@dataclass(frozen=True)
class GivenFolder:
    """What lies below a folder; OME-Zarr groups are not entered.

    Where folders are called like all of `plates`, the folders beside them are not entered either,
    unless they hold tables and no images.
    """

    path: Folder
    table: Folder | None = None  # the one that was given instead of a folder
    plates: Collection[str] = ()

    @cached_property
    def _listing(self) -> tuple[list[str], list[str], list[str]]:
        images, tables, zarrs = [], [], []
        remote = isinstance(self.path, RemoteFolder)
        for below, folders, names in self._remote_levels() if remote else self._levels():
            if not set(names).isdisjoint(ZARR_GROUP):
                zarrs.append(below)
                folders.clear()
                continue
            if self.plates and set(self.plates) <= set(folders):
                above = self.path / below
                others = sorted(set(folders) - set(self.plates))
                with ThreadPoolExecutor(connections()) as pool:
                    kept = list(pool.map(_holds_tables, [above / name for name in others]))
                folders[:] = sorted({*self.plates, *compress(others, kept)})
            for name in names:
                if is_hidden(name):
                    continue
                path = (PurePosixPath(below) / name).as_posix()
                if name.lower().endswith(IMAGE_ENDINGS):
                    images.append(path)
                elif name.lower().endswith(TABLE_ENDINGS):
                    tables.append(path)
        return images, tables, zarrs

    def _levels(self) -> Iterator[_Level]:
        """Yield each folder on disk, its folders and files; those taken out are not entered."""
        for root, folders, names in walk(self.path):
            hidden = [name for name in ZARR_GROUP if is_hidden(name) and look(root / name)]
            yield root.relative_to(self.path).as_posix(), folders, names + hidden

    def _remote_levels(self) -> Iterator[_Level]:
        """Yield the same of a folder at a URL, level by level, many requests at once.

        Says how many there are so far. Raises InputError for several sources of the gallery.
        """
        print(f"listing:  {self.path}", flush=True)
        level, folders_seen, files_seen, shown = ["."], 0, 0, time.monotonic()
        with ThreadPoolExecutor(connections()) as pool:
            while level:
                places = [self.path / below for below in level]
                following: list[str] = []
                listed = pool.map(folders_and_files, places)
                for below, (folders, names) in zip(level, listed, strict=True):
                    if set(folders) >= GALLERY_FOLDERS and below != ".":
                        raise InputError(
                            f"{self.path}: is laid out as the Cell Painting Gallery; give one of "
                            f"its sources, such as {self.path / below}, with --plates"
                        )
                    folders_seen, files_seen = folders_seen + 1, files_seen + len(names)
                    if time.monotonic() - shown >= SHOWN_EVERY_S:
                        shown = time.monotonic()
                        print(
                            f"          {files_seen:,} files in {folders_seen:,} folders so far; "
                            "with --plates only their folders are listed",
                            file=sys.stderr,
                        )
                    folders = [name for name in folders if not is_hidden(name)]
                    yield below, folders, names
                    above = PurePosixPath(below)
                    following += [(above / name).as_posix() for name in folders]
                level = following
        print(f"          {files_seen:,} files in {folders_seen:,} folders", flush=True)

    @property
    def images(self) -> list[str]:
        """Paths of images below the folder."""
        return self._listing[0]

    @property
    def zarrs(self) -> list[str]:
        """Paths of OME-Zarr groups below the folder; `.` if it is one itself."""
        return self._listing[2]

    @property
    def tables(self) -> list[Folder]:
        """Tables below the folder, or the one that was given."""
        return [self.table] if self.table else [self.path / name for name in self._listing[1]]

    @cached_property
    def loaddata_tables(self) -> list[Folder]:
        """Those that are LoadData tables; at a URL, of those whose names say that they may be."""
        tables = [table for table in self.tables if table == self.table or may_be_table(table)]
        return [table for table in tables if is_loaddata(columns_if_any(table))]

    @property
    def can_be_of_gallery(self) -> bool:
        """Whether project and source can be its last two levels."""
        return not isinstance(self.path, RemoteFolder) or (
            can_list(self.path) and self.path.depth >= 2
        )

    @property
    def is_gallery(self) -> bool:
        """Whether this is a source of the Cell Painting Gallery, at a URL."""
        if not isinstance(self.path, RemoteFolder) or not self.can_be_of_gallery:
            return False
        return GALLERY_TABLES in entries(self.path / "workspace")


def _holds_tables(folder: Folder) -> bool:
    """Return whether a folder holds tables and no images, by its first files at a URL."""
    names = first_names(folder) if isinstance(folder, RemoteFolder) else entries(folder)
    images = any(name.lower().endswith(IMAGE_ENDINGS) for name in names)
    tables = (folder / name for name in names if name.lower().endswith(TABLE_ENDINGS))
    return not images and any(map(may_be_table, tables))
