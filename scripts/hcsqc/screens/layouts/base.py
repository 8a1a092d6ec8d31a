"""What the layouts share: what is asked of them, what they answer."""

import os
import re
import stat
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hcsqc.core.errors import InputError
from hcsqc.core.patience import is_absent, list_folder, look, patiently
from hcsqc.screens.images.remote import (
    Folder,
    RemoteFolder,
    all_below,
    exists,
    folder_at,
    names_in,
    read_remote,
)

# Of two that threads make at once, a cache forgets one, whose files are then deleted.
_ONE_FOLDER = threading.Lock()


@dataclass(frozen=True)
class Source:
    """Where a screen's images lie and how they are named.

    `images`, `image_csv` and `table` are paths or URLs, and may hold `{plate}`. What a layout does
    not use is None.
    """

    layout: str
    images: Folder
    channels: tuple[str, ...]
    image_csv: Folder | None = None
    table: Folder | None = None
    table_prefix: str | None = None
    pattern: str | None = None
    acquisition: int | None = None
    project: str | None = None
    source: str | None = None
    batch: str | None = None

    def __post_init__(self):
        for name in ("images", "image_csv", "table"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, folder_at(getattr(self, name)))


def source_of(entry: Mapping, channels: Sequence[str]) -> Source:
    """Return where the images of a screen lie, from its entry in the config and its channels."""
    known = {field.name for field in fields(Source)} - {"channels"}
    given = {key: value for key, value in entry.items() if key in known}
    return Source(channels=tuple(channels), **given)


@dataclass(frozen=True)
class Image:
    """A channel of a field: its path below the images' folder; its page, None if it is alone."""

    path: str
    page: int | None = None


@dataclass(frozen=True)
class Treatment:
    """What was done to a well; None where nothing says."""

    role: str | None = None
    compound: str | None = None
    concentration_um: float | None = None


@dataclass
class FoundImages:
    """What a layout finds of a plate.

    `images`: by (well, site) and channel. `channels`: those that the plate has, where the layout
    lets the screen choose. `problems`: what makes a field unusable, by (well, site).
    `strangers`: image files that could not be placed.
    """

    images: dict[tuple[str, int], dict[str, list[Image]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    channels: set[str] | None = None
    problems: dict[tuple[str, int], str] = field(default_factory=dict)
    treatments: dict[str, Treatment] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)


def of_plate(path: Any, plate: str) -> Any:
    """Return a path or URL with the plate's name in place of `{plate}`."""
    return folder_at(str(path).replace("{plate}", plate))


@contextmanager
def on_disk(table: Folder) -> Iterator[Path]:
    """Yield a table as a file on disk, downloaded once in the life of a job if it is at a URL.

    Messages of the block name the URL. Raises InputError if there is no such table at the URL.
    """
    if not isinstance(table, RemoteFolder):
        yield table
        return
    path = _downloaded(table)
    try:
        yield path
    except InputError as error:
        raise InputError(str(error).replace(str(path), str(table))) from error


@cache
def _downloaded(table: RemoteFolder) -> Path:
    try:
        content, _ = read_remote(table)
    except FileNotFoundError as error:
        raise InputError(f"{table}: no such table; correct its URL") from error
    with _ONE_FOLDER:
        above = _temporary().name
    path = Path(tempfile.mkdtemp(dir=above)) / table.name
    path.write_bytes(content)
    return path


@cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="hcsqc_")  # deleted when the job ends


def plates_by_path(path: Folder) -> list[str]:
    """Return the plates for which a path that holds `{plate}` exists, sorted.

    Raises InputError if a folder cannot be listed.
    """
    above, part = _first_part_with_plate(path)
    before, _, after = part.partition("{plate}")
    name = re.compile(f"{re.escape(before)}(?P<plate>.+?){_repeated(after)}")
    matches = [name.fullmatch(entry) for entry in entries(above)]
    plates = {match["plate"] for match in matches if match and not is_hidden(match["plate"])}
    return sorted(plate for plate in plates if is_there(of_plate(path, plate)))


def _first_part_with_plate(path: Folder) -> tuple[Folder, str]:
    """Return the folder above the first part of a path that holds `{plate}`, and this part."""
    head, _, _ = str(path).partition("{plate}")
    above, _, _ = head.rpartition("/")
    part = str(path)[len(above) :].strip("/").partition("/")[0]
    return folder_at(above or ("/" if head.startswith("/") else ".")), part


def entries(folder: Folder) -> list[str]:
    """Return the names in a folder, sorted; none if there is no such folder.

    Raises InputError if it cannot be listed.
    """
    return names_in(folder) if isinstance(folder, RemoteFolder) else list_folder(folder)


def is_there(path: Folder) -> bool:
    """Return whether there is such a file or folder; raises InputError if nobody can say."""
    return exists(path) if isinstance(path, RemoteFolder) else look(path) is not None


def _repeated(after: str) -> str:
    return "(?P=plate)".join(re.escape(part) for part in after.split("{plate}"))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, as `._x`, which a Mac leaves beside each x."""
    return name.startswith(".")


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder from `folder` on, its subfolders and its files, in order.

    Links are followed, unless they lead back to a folder above them, or, below a link, to one
    where a link has led before; what is hidden is left out. Those that are taken out of the
    subfolders are not entered.
    Raises InputError if a folder cannot be listed.
    """
    reached: set[tuple[int, int]] = set()  # by links, as device and inode
    parents = frozenset(
        (status.st_dev, status.st_ino)
        for status in map(look, Path(os.path.realpath(folder)).parents)
        if status
    )
    waiting: list[tuple[Path, frozenset[tuple[int, int]], bool]] = [(folder, parents, False)]
    while waiting:
        root, above, below_link = waiting.pop()
        status = look(root)
        if status is None:
            continue  # it was deleted since its parent was listed
        above |= {(status.st_dev, status.st_ino)}
        folders, files, links = [], [], set()
        for entry, is_link, is_directory in _entries(root):
            target = look(entry.path) if is_link else None
            if target and stat.S_ISDIR(target.st_mode):
                place = target.st_dev, target.st_ino
                if place in above or (below_link and place in reached):
                    continue
                reached.add(place)
                links.add(entry.name)
                folders.append(entry.name)
            else:
                (folders if is_directory else files).append(entry.name)
        yield root, folders, files
        waiting += [(root / name, above, below_link or name in links) for name in reversed(folders)]


def _entries(folder: Path) -> list[tuple[os.DirEntry, bool, bool]]:
    """Return what a folder holds, in order, without what is hidden: is it a link, is it a folder.

    None of it if the folder was deleted meanwhile.
    """

    def scan() -> list[tuple[os.DirEntry, bool, bool]]:
        with os.scandir(folder) as entries:
            return [
                (entry, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not is_hidden(entry.name)
            ]

    try:
        return sorted(patiently(scan, folder), key=lambda entry: entry[0].name)
    except OSError as error:
        if is_absent(error):
            return []
        raise


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; raises InputError if nobody can say."""
    status = look(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def files_below(folder: Folder) -> Iterator[str]:
    """Yield the files below a folder as posix paths relative to it, in order, without hidden ones.

    Raises InputError if there is no such folder, or one below it cannot be listed.
    """
    if isinstance(folder, RemoteFolder):
        found = [path for path, _ in all_below(folder)]
        if not found:
            raise InputError(f"{folder}: no such folder; correct images of the screen")
        yield from (path for path in found if not any(map(is_hidden, path.split("/"))))
        return
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder; correct images of the screen")
    for root, _, names in walk(folder):
        below = root.relative_to(folder)
        for name in names:
            yield (below / name).as_posix()


def folders_below(folder: Folder) -> set[str]:
    """Return the names of a folder and of all folders below it, without hidden ones.

    Raises InputError if one of them cannot be listed.
    """
    if isinstance(folder, RemoteFolder):
        parts = [path.split("/")[:-1] for path, _ in all_below(folder)]
        below = {name for path in parts if not any(map(is_hidden, path)) for name in path}
        return {folder.name, *below}
    return {root.name for root, _, _ in walk(folder)}


def one_of(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, and all there are."""
    known = sorted(known)
    lower = {entry.lower(): entry for entry in known}
    near = get_close_matches(name.lower(), list(lower), n=1)
    meant = f"did you mean '{lower[near[0]]}'? " if near else ""
    return f"{meant}there are: {first_few(known, 12)}"


def first_few(names: list[str], count: int = 3) -> str:
    """Return some names as a text, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(names[:count]) or "none") + more
