"""Bytes for people: sizes in words, progress in megabytes, room on a disk."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress

MEGABYTE = 10**6
# Seldom, because downloads take hours and every line also goes to a log.
PROGRESS_EVERY_S = 10.0


class ByteProgress:
    """Progress of so many bytes, in whole megabytes (10^6 bytes) so that the line stays short."""

    def __init__(self, total: int | None, label: str, start: int = 0):
        """Count to `total` bytes (None: unknown); `start` of them were there before."""
        megabytes = None if total is None else total // MEGABYTE
        self._bytes = start
        self._lines = Progress(megabytes, "MB", label, PROGRESS_EVERY_S, start // MEGABYTE)

    def update(self, count: int) -> None:
        """Add `count` bytes."""
        self._bytes += count
        self._lines.update(self._bytes // MEGABYTE - self._lines.done)

    def close(self) -> None:
        """Show the last line."""
        self._lines.close()


def in_words(count: int) -> str:
    """Return a number of bytes as `2.4 GB`, in powers of 1000 as disks are sold."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration_in_words(seconds: float) -> str:
    """Return a time as `2 h 36 min`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def existing_parent(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def free_bytes(folder: Path) -> int:
    """Return the room on the disk that holds a folder, or will hold it."""
    return shutil.disk_usage(existing_parent(folder)).free


@contextmanager
def full_disk_as_input_error(folder: Path, advice: str) -> Iterator[None]:
    """Turn what writing to a full disk raises into an InputError that ends with `advice`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"no room left on the disk of {folder}; {advice}") from error
