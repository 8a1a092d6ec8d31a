"""Reading what others wrote: missing files differ from files that cannot be read just now.

A folder that may not be listed is not empty, and a disk that does not answer has lost nothing.
Errors that pass are waited out; those that stay end the job with one line.
"""

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from hcsqc.core.errors import InputError

Result = TypeVar("Result")

# Between tries, in seconds. A file server that is restarted takes longer; the job then fails, and
# what is done stays.
WAITS_S = (0.25, 0.5, 1.0, 2.0)
# There is no such file, or the path leads nowhere.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Decoders seek by what a damaged file says.
_OF_THE_FILE = _ABSENT | {errno.EISDIR, errno.EINVAL, errno.EOVERFLOW}
_REFUSED = {errno.EACCES, errno.EPERM}


def is_absent(error: OSError) -> bool:
    """Return whether an error says that there is no such file or folder."""
    return error.errno in _ABSENT


def of_the_machine(error: BaseException) -> bool:
    """Return whether an error says nothing about the file that was to be read."""
    return (
        isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_THE_FILE
    )


def patiently(action: Callable[[], Result], path: str | os.PathLike) -> Result:
    """Return what `action` returns; on an error of the machine it is tried again, after a while.

    Errors of the file itself (there is none, it is a folder) and those that are no OSErrors of
    the operating system pass through. Raises InputError naming the file, or else `path`, if the
    machine's error stays, and at once if permission is denied.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return action()
        except OSError as error:
            if not of_the_machine(error):
                raise
            named = path if error.filename is None else error.filename
            if error.errno in _REFUSED:
                raise InputError(
                    f"{os.fsdecode(named)}: permission denied; make it readable for this account"
                ) from error
            if wait_s is None:
                raise InputError(
                    f"{os.fsdecode(named)}: cannot be read, not even after {sum(WAITS_S):g} s "
                    f"({error.strerror}); run again when its disk responds"
                ) from error
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def look(path: str | os.PathLike) -> os.stat_result | None:
    """Return the status of a file or folder, None if there is none.

    Raises InputError if nobody can say.
    """
    try:
        return patiently(lambda: os.stat(path), path)
    except OSError as error:
        if is_absent(error):
            return None
        raise


def list_folder(path: str | os.PathLike) -> list[str]:
    """Return the names in a folder, sorted; none if there is no such folder.

    Raises InputError if it cannot be listed.
    """
    try:
        return sorted(patiently(lambda: os.listdir(path), path))
    except OSError as error:
        if is_absent(error):
            return []
        raise
