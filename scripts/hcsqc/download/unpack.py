"""Zip archives: every byte checked, unpacked whole or not at all, never outside their folder."""

import errno
import filecmp
import lzma
import os
import shutil
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from hcsqc.core.errors import InputError
from hcsqc.core.files import first_here
from hcsqc.core.progress import Progress
from hcsqc.download.archives import FOLDER
from hcsqc.download.sizes import existing_parent, full_disk_as_input_error, in_words

# What a file manager leaves in archives.
LEFT_OUT = {"__MACOSX", ".DS_Store"}
# What zipfile raises for bytes that are not as they were written.
DAMAGE = (BadZipFile, EOFError, OverflowError, ValueError, lzma.LZMAError, struct.error, zlib.error)
# Bytes that one byte of an archive can become, of those ways to pack that have a limit.
LARGEST_FACTOR = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}
AT_ONCE = 2**20


class Damaged(InputError):
    """An archive is not as it was written."""


def verify(archive: Path) -> None:
    """Read every member of a zip archive and check its CRC and its size.

    Raises Damaged, or InputError if it is packed in a way that cannot be read here.
    """
    with _reading(archive), ZipFile(archive) as opened:
        for info in opened.infolist():
            with opened.open(info) as member:
                read = sum(map(len, iter(partial(member.read, AT_ONCE), b"")))
            _check_size(info, read)


def unpack(archives: list[Path], images: Path, temporary: Path, label: str) -> dict:
    """Unpack archives below `images`, by way of the folder `temporary` on the same disk.

    Returns how many `files` they hold, and their `bytes`.
    A folder appears under its name when all of it is there. A file that is there already stays if
    it is the same. Raises InputError, and leaves `images` as it was, for a member that would lie
    elsewhere, for a file that is another one here, for want of room, and if another process unpacks
    by way of the same folder.
    """
    lock = temporary.with_name(f"{temporary.name}.lock")
    with ExitStack() as stack:
        stack.enter_context(first_here(lock, f"unpacking this plate ({label})"))
        stack.callback(lock.unlink, missing_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        members = _members(archives, stack)
        needed = sum(info.file_size for _, info in members)
        free = shutil.disk_usage(existing_parent(images)).free
        if needed > free:
            raise InputError(
                f"{images}: unpacking needs {in_words(needed)}, the disk has {in_words(free)}; "
                "free some space and run the same command again"
            )
        progress = Progress(len(members), "files", label)
        with full_disk_as_input_error(images, "the archives are kept"):
            temporary.mkdir(parents=True)
            for opened, info in members:
                with _reading(opened.filename):
                    _check_size(info, Path(opened.extract(info, temporary)).stat().st_size)
                progress.update()
        progress.close()
        moves = list(_moves(temporary, images))
        # One flush for thousands of files: none may be half on disk under its final name.
        os.sync()
        for path, there in moves:
            os.rename(path, there)
    return {"files": len(members), "bytes": needed}


def _check_size(info: ZipInfo, read: int) -> None:
    if read != info.file_size:
        raise BadZipFile(f"{info.filename} has {read} bytes instead of {info.file_size}")


@contextmanager
def _reading(archive: str | Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise _damaged(archive, error) from error
    except (RuntimeError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        # zipfile's NotImplementedError for a compression, RuntimeError for a password; the system's
        # for a member that is a file where another needs a folder.
        raise InputError(f"{archive}: {_shown(error)}; unpack it manually") from error
    except OSError as error:
        # The system's, but for a place that no file has; those of bz2 have no number.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(archive, error) from error


def _damaged(archive: str | Path, error: Exception) -> Damaged:
    return Damaged(
        f"{archive} is damaged ({_shown(error)}); delete it and its receipt to download it again"
    )


def _shown(error: Exception) -> str:
    """Return what is said of an error; names of members may hold what breaks lines."""
    return repr(str(error) or type(error).__name__)[1:-1]


def _members(archives: list[Path], stack: ExitStack) -> list[tuple[ZipFile, ZipInfo]]:
    """Open archives; return the files to unpack, after a check of their names and kinds."""
    members: dict[PurePosixPath, tuple[ZipFile, ZipInfo]] = {}
    for archive in archives:
        with _reading(archive):
            opened = stack.enter_context(ZipFile(archive))
        for info in opened.infolist():
            path = PurePosixPath(info.filename)
            if info.filename.endswith("/") or LEFT_OUT.intersection(path.parts):
                continue
            problem = _problem(info, path)
            first = members.setdefault(path, (opened, info))[1]
            if (first.file_size, first.CRC) != (info.file_size, info.CRC):
                problem = "differs from the first file of that name"
            if problem:
                raise InputError(
                    f"{archive}: member {info.filename!r} {problem}; nothing was unpacked. Is this "
                    "the right archive?"
                )
    return list(members.values())


def _problem(info: ZipInfo, path: PurePosixPath) -> str | None:
    name, parts = info.filename, path.parts
    if not parts or path.is_absolute() or ".." in parts or "\\" in name or ":" in parts[0]:
        return "would lie outside the images folder"
    if parts[0] == FOLDER:
        return f"would lie among the archives in {FOLDER}/"
    if any(ord(letter) < ord(" ") for letter in name):
        return "has a name with a line break or another unprintable character"
    largest = LARGEST_FACTOR.get(info.compress_type)
    if largest and info.file_size > largest * (info.compress_size + 1):
        return f"announces {in_words(info.file_size)}, more than its compressed bytes can hold"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    return None


def _moves(folder: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield what is to move where, in whole subfolders where the target has none such.

    Raises InputError for what would take the place of something else.
    """
    for path in sorted(folder.iterdir()):
        there = target / path.name
        if not there.exists():
            yield path, there
        elif path.is_dir() and there.is_dir():
            yield from _moves(path, there)
        elif not filecmp.cmp(path, there, shallow=False):
            raise InputError(
                f"{there}: exists already, but differs from the archive; move it away to unpack "
                "the archive's"
            )
