"""What tells that an image was replaced without reading it: its size, and when it changed."""

import os
import stat
from collections.abc import Sequence

from hcsqc.core.patience import list_folder, look
from hcsqc.screens.images.remote import (
    ABSENT,
    Folder,
    RemoteFolder,
    Stamp,
    remote_stamp,
    stamps_at_once,
)

__all__ = ["ABSENT", "Stamp", "stamp", "stamps"]


def stamp(path: str | os.PathLike | RemoteFolder) -> Stamp:
    """Return the stamp of a file, or of all that lies below a folder (an OME-Zarr image).

    It is the size in bytes, and the nanoseconds of the last change of content, name or rights,
    which nobody can set (ctime); of a file at a URL, what its server says of both.

    ABSENT if there is no such file. Raises InputError if nobody can say.
    """
    if isinstance(path, RemoteFolder):
        return remote_stamp(path)
    status = look(path)
    if status is None:
        return ABSENT
    size, changed_ns = status.st_size, status.st_ctime_ns
    if stat.S_ISDIR(status.st_mode):
        size = 0
        for name in list_folder(path):
            of_part = stamp(os.path.join(path, name))
            size += max(0, of_part[0])
            changed_ns = max(changed_ns, of_part[1])
    return size, changed_ns


def stamps(folder: Folder, paths: Sequence[str | None]) -> list[Stamp]:
    """Return the stamp of each image of a field, ABSENT where it has none."""
    named = list(dict.fromkeys(path for path in paths if isinstance(path, str)))
    if isinstance(folder, RemoteFolder):
        found = stamps_at_once(folder / path for path in named)
    else:
        found = [stamp(os.path.join(folder, path)) for path in named]
    known = dict(zip(named, found, strict=True))
    return [known[path] if isinstance(path, str) else ABSENT for path in paths]
