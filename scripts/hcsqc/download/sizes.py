"""Bytes for people, and the room for them on a disk."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from hcsqc.core.errors import InputError

MEGABYTE = 10**6


def in_words(count: int) -> str:
    """Return a number of bytes as `2.40GB`, in powers of 1000 as disks are sold."""
    return tqdm.format_sizeof(count, "B")


def existing_parent(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


@contextmanager
def full_disk_as_input_error(folder: Path, kept: str) -> Iterator[None]:
    """Turn what writing to a full disk raises into an InputError that says what is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"the disk of {folder} is full; {kept}: free some space and run the same command again"
        ) from error
