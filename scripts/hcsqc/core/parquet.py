"""Parquet in which damage is noticed, and which is ordinary Parquet to everyone else.

Pages carry checksums. These cover neither the headers of pages nor the footer, so a file of ours
also has a seal: 32 characters of its key-value metadata, the digest (XXH3, 64 bits) of the footer,
in which the seal itself counts as zeros, and that of all before the footer. Another program that
writes the table again leaves the seal out.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from hcsqc.core.errors import Damaged, InputError, in_one_line

SEAL = "hcsqc.seal"
_EMPTY = b"0" * 32
# In Thrift's compact protocol: the key, then a field that is a string of 32 bytes.
_BEFORE_SEAL = SEAL.encode() + b"\x18\x20"
_MAGIC = b"PAR1"
_CHUNK_BYTES = 2**22


def write_sealed(table: pa.Table, path: str | Path) -> None:
    """Write a table with page checksums and a seal."""
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        promise_seal(writer)
    set_seal(path)


def promise_seal(writer: pq.ParquetWriter) -> None:
    """Leave room for the seal in the footer of a file that is about to be closed."""
    writer.add_key_value_metadata({SEAL: _EMPTY.decode()})


def set_seal(path: str | Path, skipped: Iterable[tuple[int, int]] = ()) -> None:
    """Put the seal in its place; `skipped` are the begins and ends of what it does not cover."""
    with open(path, "r+b") as file:
        begin, footer = _footer(file)
        place = _place(footer)
        if place is None:
            raise ValueError(f"{path}: has no space for a seal")
        seal = _digest(footer) + _body_digest(file, begin, skipped)
        file.seek(begin + place)
        file.write(seal)


def read_footer(path: str | Path) -> pq.FileMetaData:
    """Return the rows, columns and metadata of a file; raises as `is_sealed` does."""
    is_sealed(path)
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({in_one_line(error)})") from error


def is_sealed(path: str | Path) -> bool:
    """Return whether a file has a seal, and raise Damaged if its footer does not match it.

    What the footer says can be trusted then; `check_body` has the rest.
    """
    seal, footer = _read_seal(path)
    if seal is not None and seal[:16] != _digest(footer):
        raise damage(path, "its footer does not match its digest")
    return seal is not None


def read_seal(path: str | Path) -> str | None:
    """Return the seal of a file, if it has one: files with the same seal hold the same."""
    seal, _ = _read_seal(path)
    return None if seal is None else seal.decode()


def check_body(path: str | Path, skipped: Iterable[tuple[int, int]] = ()) -> None:
    """Raise Damaged if what lies before the footer of a sealed file is not what was written."""
    seal, footer = _read_seal(path)
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size - len(footer)
        if seal is None or seal[16:] != _body_digest(file, end, skipped):
            raise damage(path, "its content does not match its digest")


def check_sealed(path: str | Path) -> None:
    """Raise Damaged unless the whole file is as `write_sealed` left it."""
    if not is_sealed(path):
        raise damage(path, "it has no digest: another version or program wrote it")
    check_body(path)


def read_parquet(
    path: str | Path,
    columns: list[str] | None = None,
    ours: bool = False,
    filters: list[tuple] | None = None,
) -> pa.Table:
    """Read a table that may be of ours, or must be; one that another program wrote has no seal.

    With `filters`, as pyarrow takes them, other rows are left out while reading. Raises InputError
    if it cannot be read, Damaged if it is not what was written.
    """
    if ours:
        check_sealed(path)
    elif is_sealed(path):
        check_body(path)
    try:
        return pq.read_table(
            path,
            columns=columns,
            filters=filters,
            partitioning=None,
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({in_one_line(error)})") from error


def damage(path: str | Path, why: str) -> Damaged:
    """Return the error that names a damaged file and says what to do."""
    return Damaged(f"{path}: is damaged ({why}); delete it and run again, which remakes it")


def _read_seal(path: str | Path) -> tuple[bytes | None, bytes]:
    """Return the seal, or None, and the footer; raises InputError if the file has no footer."""
    try:
        with open(path, "rb") as file:
            _, footer = _footer(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({in_one_line(error)})") from error
    place = _place(footer)
    return None if place is None else footer[place : place + len(_EMPTY)], footer


def _footer(file) -> tuple[int, bytes]:
    """Return where the footer begins, and the footer with its length and the closing word."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    begin = size - 8 - int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or begin < len(_MAGIC):
        raise ValueError("it is truncated or not Parquet; delete it and run again")
    file.seek(begin)
    return begin, file.read(size - begin)


def _place(footer: bytes) -> int | None:
    """Return where in the footer the seal lies."""
    found = footer.rfind(_BEFORE_SEAL)
    place = found + len(_BEFORE_SEAL)
    return place if found >= 0 and place + len(_EMPTY) <= len(footer) else None


def _digest(footer: bytes) -> bytes:
    place = _place(footer) or 0
    blank = footer[:place] + _EMPTY + footer[place + len(_EMPTY) :]
    return xxhash.xxh3_64_hexdigest(blank).encode()


def _body_digest(file, end: int, skipped: Iterable[tuple[int, int]]) -> bytes:
    digest, begin = xxhash.xxh3_64(), 0
    for stop, goes_on in [*skipped, (end, end)]:
        file.seek(begin)
        while begin < stop:
            content = file.read(min(_CHUNK_BYTES, stop - begin))
            if not content:
                break
            digest.update(content)
            begin += len(content)
        begin = goes_on
    return digest.hexdigest().encode()
