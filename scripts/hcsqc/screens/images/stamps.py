"""What tells that an image was replaced without reading it: its size, and when it changed."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from hcsqc.core.patience import list_folder, look

# Bytes; nanoseconds of the last change of content, name or rights, which nobody can set (ctime).
Stamp = tuple[int, int]
ABSENT: Stamp = (-1, -1)


def stamp(path: str | os.PathLike) -> Stamp:
    """Return the stamp of a file, or of all that lies below a folder (an OME-Zarr image).

    ABSENT if there is no such file. Raises InputError if nobody can say.
    """
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


def stamps(folder: Path, paths: Sequence[str | None]) -> list[Stamp]:
    """Return the stamp of each image of a field, ABSENT where it has none."""
    known: dict[str, Stamp] = {}
    for path in paths:
        if isinstance(path, str) and path not in known:
            known[path] = stamp(os.path.join(folder, path))
    return [known[path] if isinstance(path, str) else ABSENT for path in paths]
