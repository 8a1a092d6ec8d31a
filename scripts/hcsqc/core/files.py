"""Files that appear whole or not at all, and digests of files."""

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcsqc.core.errors import InputError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The file is flushed to disk before the rename, so that a full disk or a crash never
    leaves a half-written file under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        see_onto_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """Wait until no other process of this machine is in a block with the same lock file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def first_here(lock: Path, doing: str) -> Iterator[None]:
    """Refuse a second process in a block with the same lock file, which dies with the first.

    Raises InputError that names the first and says what it is `doing`. A file system without locks
    refuses nobody.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Open for writing, because network file systems lock no other file.
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{lock.parent}: {file.read().strip() or 'another process'} is {doing}, perhaps "
                "left behind by a killed Snakemake; wait until it ends, or stop it (if there is "
                f"none, delete {lock}), and start again"
            ) from error
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def see_onto_disk(path: str | Path) -> None:
    """Wait until all that was written to a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(value: object, path: str | Path) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
