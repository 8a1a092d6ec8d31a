"""The folder of a pretraining's checkpoints, which one process at a time may use."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcsqc.core.errors import InputError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder, which is made if need be, until the block or this ends.

    Raises InputError, with the other's name, if another process holds it. A file system without
    locks refuses nobody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    # A file that is open for writing, because network file systems lock no other.
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{folder}: {file.read().strip() or 'another process'} is training here, perhaps "
                "left behind by a killed Snakemake; wait until it ends, or stop it (if there is "
                f"none, delete {path}), and start again"
            ) from error
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def remove(folder: Path) -> None:
    """Remove the folder of a training whose outputs are in place, unless a process holds it."""
    if not folder.exists():
        return
    try:
        with held(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except InputError:
        return
    shutil.rmtree(folder, ignore_errors=True)  # network file systems keep what is open
