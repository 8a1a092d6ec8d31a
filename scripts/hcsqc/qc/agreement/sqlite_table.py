"""A table of an SQLite file, on disk or at a URL; of one at a URL only the pages that it needs.

CellProfiler's databases of a plate hold gigabytes of cells beside a few megabytes of images.
SQLite reads pages through a virtual file system (VFS), here one that asks the server for ranges.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import apsw
import pandas as pd

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.screens.images.remote import (
    ABSENT,
    Folder,
    RemoteFolder,
    read_range,
    remote_stamp,
)

TABLE = "Image"
ENDINGS = (".sqlite", ".sqlite3", ".db")
# What is asked for at once. Rows of images are scattered among those of cells: twice as much would
# be twice the bytes, half as much a tenth more requests.
BLOCK_BYTES = 2**15
KEPT_BLOCKS = 512  # 16 MiB
# What another program or the folder may be to blame for.
_IN_USE = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.IOError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)
_ADVICE = (
    "close the program that writes to it; else copy it, with a -wal or -journal file beside it, to "
    "a folder that you can write to"
)
_READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


class Blocks:
    """A file at a URL that is read in blocks; those used last stay in memory.

    `bytes_read` counts what came from the server, of `size`. Raises FileNotFoundError if there is
    no such file, and InputError if its server does not give it.
    """

    def __init__(self, file: RemoteFolder):
        stamp = remote_stamp(file)
        if stamp == ABSENT:
            raise FileNotFoundError(str(file))
        self.file, self.size, self.bytes_read = file, stamp[0], 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def read(self, amount: int, offset: int) -> bytes:
        """Return so many bytes from an offset on, fewer at the end of the file."""
        end = min(offset + amount, self.size)
        first = offset // BLOCK_BYTES
        blocks = [self._block(number) for number in range(first, -(-end // BLOCK_BYTES))]
        start = offset - first * BLOCK_BYTES
        return b"".join(blocks)[start : start + end - offset]

    def _block(self, number: int) -> bytes:
        if number not in self._kept:
            start = number * BLOCK_BYTES
            content = read_range(self.file, start, min(start + BLOCK_BYTES, self.size))
            self.bytes_read += len(content)
            self._kept[number] = content
            if len(self._kept) > KEPT_BLOCKS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


class _File:
    """What SQLite asks of an open file that nobody changes."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks

    def xRead(self, amount: int, offset: int) -> bytes:
        return self.blocks.read(amount, offset)

    def xFileSize(self) -> int:
        return self.blocks.size

    def xFileControl(self, _op: int, _pointer: int) -> bool:
        return False

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_IMMUTABLE

    def xSectorSize(self) -> int:
        return 4096

    def xClose(self) -> None:
        pass


class _FileSystem(apsw.VFS):
    """A file system that holds one file."""

    def __init__(self, name: str, blocks: Blocks):
        super().__init__(name, "")
        self.blocks = blocks

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, _name: str, _flags: int) -> bool:
        return False  # no journal beside it

    def xOpen(self, _name: Any, flags: list[int]) -> Any:
        flags[1] = flags[0]
        return _File(self.blocks)


class ImageTable:
    """The table `Image` of an open database; `shown` is what messages call the file."""

    def __init__(self, connection: apsw.Connection, shown: str):
        self._ask, self.shown = connection.execute, shown
        found = [name for (name,) in self._ask("select name from sqlite_schema where type='table'")]
        own = [name for name in found if name.casefold() == TABLE.casefold()]
        if not own:
            raise InputError(
                f"{shown}: has no table {TABLE}; it has {', '.join(sorted(found)[:8]) or 'none'}"
            )
        self._name = _quoted(own[0])

    def column_names(self) -> list[str]:
        """Return the columns of the table, in its order."""
        return [row[1] for row in self._ask(f"pragma table_info({self._name})")]

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of all rows, each value as it is stored."""
        wanted = ", ".join(map(_quoted, columns))
        rows = self._ask(f"select {wanted} from {self._name}").fetchall()
        return pd.DataFrame(rows, columns=list(columns), dtype=object)


@contextmanager
def image_table(file: Folder) -> Iterator[tuple[ImageTable, Blocks | None]]:
    """Yield the table `Image` of an SQLite file, and for a URL what is read of it.

    What a `-wal` or `-journal` beside a file on disk holds counts. Without these, and at a URL, the
    file is read as one that nobody writes to (`immutable`). Raises FileNotFoundError if there is
    none, and InputError if it is no SQLite file, has no such table, cannot be read together with
    its `-wal`, or its server does not give it.
    """
    blocks = Blocks(file) if isinstance(file, RemoteFolder) else None
    if blocks is None and not Path(str(file)).is_file():
        raise FileNotFoundError(str(file))
    name = f"hcsqc-{uuid4().hex}"
    system = _FileSystem(name, blocks) if blocks else None
    path = f"/{name}" if blocks else quote(str(Path(str(file)).absolute()))
    path += "?mode=ro" if blocks is None and _is_in_use(Path(str(file))) else "?immutable=1"
    try:
        connection = apsw.Connection(f"file:{path}", flags=_READ_ONLY, vfs=name if blocks else None)
        try:
            yield ImageTable(connection, str(file)), blocks
        finally:
            connection.close()
    except apsw.Error as error:
        advice = "" if blocks or not isinstance(error, _IN_USE) else f"; {_ADVICE}"
        raise InputError(
            f"{file}: cannot be read as SQLite ({in_one_line(error)}){advice}"
        ) from error
    finally:
        if system:
            system.unregister()


def _is_in_use(file: Path) -> bool:
    """Return whether a `-wal` or `-journal` lies beside a file, where SQLite then writes too."""
    return any(file.with_name(file.name + end).exists() for end in ("-wal", "-journal"))


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
