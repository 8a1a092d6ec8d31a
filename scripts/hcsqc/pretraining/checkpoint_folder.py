"""The folder of a pretraining's checkpoints, which one process at a time may use."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.files import first_here


def held(folder: Path) -> AbstractContextManager[None]:
    """Keep others from the folder, which is made if need be; raises InputError if one has it."""
    return first_here(folder / "lock", "training here")


def remove(folder: Path) -> None:
    """Remove the folder of a training whose outputs are in place, unless a process has it."""
    if not folder.exists():
        return
    try:
        with held(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except InputError:
        return
    shutil.rmtree(folder, ignore_errors=True)  # network file systems keep what is open
