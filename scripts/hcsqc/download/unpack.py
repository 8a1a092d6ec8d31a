"""Zip archives: every byte checked, unpacked whole or not at all, never outside their folder."""

import lzma
import os
import shutil
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from hcsqc.core.errors import InputError
from hcsqc.download.archives import FOLDER
from hcsqc.download.sizes import ByteProgress, free_bytes, full_disk_as_input_error, in_words

CHUNK_BYTES = 2**20
# What a file manager leaves in archives.
LEFT_OUT = ("__MACOSX", ".DS_Store")
IS_ENCRYPTED = 0x1


@dataclass(frozen=True)
class _Member:
    """A file in an archive, and its place below the images folder."""

    archive: Path
    info: ZipInfo
    path: PurePosixPath


@dataclass(frozen=True)
class Unpacked:
    """What a plate's archives held."""

    files: int
    bytes: int


def damage(archive: Path, label: str) -> str | None:
    """Read every member of a zip archive, check its CRC; return what is wrong with it, or None.

    Raises InputError if it is whole but packed in a way that cannot be read here.
    """
    try:
        with ZipFile(archive) as opened:
            infos = opened.infolist()
            progress = ByteProgress(sum(info.file_size for info in infos), label)
            for info in infos:
                for chunk in _chunks(opened, info, archive):
                    progress.update(len(chunk))
            progress.close()
    except (
        BadZipFile,
        EOFError,
        OverflowError,
        ValueError,
        lzma.LZMAError,
        struct.error,
        zlib.error,
    ) as error:
        return str(error) or type(error).__name__
    return None


def unpack(archives: list[Path], images: Path, temporary: Path, label: str) -> Unpacked:
    """Unpack archives below `images`, by way of the folder `temporary` on the same disk.

    A folder appears under its name when all of it is there. A file that is there already stays if
    it is the same. Raises InputError, before anything is written, for a member that would lie
    elsewhere, for a file that is another one here, and for want of room.
    """
    members = [member for archive in archives for member in _members(archive)]
    _check_places(members)
    missing = _missing(members, images)
    needed, free = _bytes(missing), free_bytes(images)
    if needed > free:
        raise InputError(
            f"{images}: unpacking needs {in_words(needed)}, the disk has {in_words(free)}; free "
            "some and run the same command again"
        )
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with full_disk_as_input_error(images, "free some and run the same command again"):
            _extract(missing, temporary, label)
        # One flush for thousands of files: none may be half on disk under its final name.
        os.sync()
        _move_into(temporary, images)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Unpacked(len(members), _bytes(members))


def _bytes(members: list[_Member]) -> int:
    return sum(member.info.file_size for member in members)


def _members(archive: Path) -> list[_Member]:
    """Return the files of an archive after a check of their names and kinds."""
    try:
        with ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
    except BadZipFile as error:
        raise InputError(
            f"{archive}: {error}; delete it and its receipt {archive.name}.json to fetch it again"
        ) from error
    members = [_Member(archive, info, PurePosixPath(info.filename)) for info in infos]
    members = [member for member in members if not set(LEFT_OUT) & set(member.path.parts)]
    for member in members:
        problem = _problem(member)
        if problem:
            raise InputError(
                f"{archive}: member '{member.info.filename}' {problem}; nothing of it is unpacked. "
                "Is this the right archive?"
            )
    return members


def _problem(member: _Member) -> str | None:
    parts, name = member.path.parts, member.info.filename
    kind = stat.S_IFMT(member.info.external_attr >> 16)
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
        return "would lie outside the images folder"
    if parts[0] == FOLDER:
        return f"would lie among the archives in {FOLDER}/"
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device"
    if member.info.flag_bits & IS_ENCRYPTED:
        return "is encrypted"
    return None


def _check_places(members: list[_Member]) -> None:
    """Refuse two different files in one place, and a file where another needs a folder."""
    seen: dict[PurePosixPath, _Member] = {}
    for member in members:
        first = seen.setdefault(member.path, member)
        if (first.info.file_size, first.info.CRC) != (member.info.file_size, member.info.CRC):
            raise InputError(
                f"{member.path} is one file in {first.archive} and another in {member.archive}; "
                "unpack them by hand"
            )
    for member in members:
        for parent in member.path.parents:
            if parent in seen:
                raise InputError(
                    f"{member.archive}: '{parent}' is both a file and a folder; unpack it by hand"
                )


def _missing(members: list[_Member], images: Path) -> list[_Member]:
    """Return the members that are not below `images` yet."""
    missing, others = [], []
    for member in members:
        path = images / member.path
        if not os.path.lexists(path):
            missing.append(member)
        elif not _is_same(path, member.info):
            others.append(path)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(
            f"{others[0]}{more}: there already, but not as in the archive; move it away to unpack "
            "the archive's"
        )
    return missing


def _is_same(path: Path, info: ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC


def _extract(members: list[_Member], folder: Path, label: str) -> None:
    folder.mkdir(parents=True)
    progress = ByteProgress(_bytes(members), label)
    for archive, own in groupby(members, key=lambda member: member.archive):
        with ZipFile(archive) as opened:
            for member in own:
                path = folder / member.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    for chunk in _chunks(opened, member.info, archive):
                        file.write(chunk)
                        progress.update(len(chunk))
    progress.close()


def _chunks(opened: ZipFile, info: ZipInfo, archive: Path) -> Iterator[bytes]:
    """Yield the bytes of a member: never more than it announces, and at their end their CRC."""
    try:
        with opened.open(info) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except RuntimeError as error:
        # zipfile's NotImplementedError for a compression, RuntimeError for a password.
        raise InputError(
            f"{archive}: member '{info.filename}' cannot be unpacked here ({error}); unpack the "
            "archive by hand"
        ) from error


def _move_into(folder: Path, target: Path) -> None:
    """Move what a folder holds to another, whole subfolders where the other has none such."""
    for path in sorted(folder.iterdir()):
        there = target / path.name
        if there.is_dir():
            _move_into(path, there)
        else:
            os.rename(path, there)
