"""Copies of downloaded images on a local disk: no more than so many bytes, the oldest go first."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from xxhash import xxh3_64_hexdigest, xxh3_128_hexdigest

from hcsqc.core.files import atomic

# Where copies are kept and how many GiB they may take; the rules set both from the config.
FOLDER, GIB = "HCSQC_IMAGE_COPIES", "HCSQC_IMAGE_COPIES_GIB"
# The folder is measured again after so large a share of its limit was written.
MEASURED_AGAIN = 1 / 16
DIGEST_BYTES = 16
# More than any few fields take.
MEANWHILE_GIB = 8


@dataclass
class LocalCopies:
    """A folder of copies, each named after its URL, size and time and ended by its digest."""

    folder: Path
    most_bytes: int
    written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, url: str, stamp: tuple[int, int]) -> bytes | None:
        """Return the copy of a file of this size and time; None if there is none that is whole."""
        path = self._path(url, stamp)
        try:
            stored = path.read_bytes()
            os.utime(path)  # it was used last now
        except OSError:
            return None
        content, digest = stored[:-DIGEST_BYTES], stored[-DIGEST_BYTES:]
        return content if xxh3_64_hexdigest(content).encode() == digest else None

    def keep(self, url: str, stamp: tuple[int, int], content: bytes) -> None:
        """Keep a copy, and delete the oldest ones beyond the limit.

        Nothing is kept, and nothing is said, if it cannot be written, as when the folder of all
        copies was deleted meanwhile: a copy only saves time.
        """
        path = self._path(url, stamp)
        try:
            path.parent.mkdir(exist_ok=True)
            with atomic(path) as temporary:
                temporary.write_bytes(content + xxh3_64_hexdigest(content).encode())
        except OSError:
            return
        with self.lock:
            before = self.written
            self.written += len(content)
            step = max(1, int(self.most_bytes * MEASURED_AGAIN))
            if before == 0 or before // step != self.written // step:
                self._delete_oldest()

    def _path(self, url: str, stamp: tuple[int, int]) -> Path:
        name = xxh3_128_hexdigest(f"{url} {stamp}".encode())
        return self.folder / name[:2] / name

    def _delete_oldest(self) -> None:
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # another job may have deleted it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.most_bytes:
                return
            with suppress(OSError):
                path.unlink()
            total -= size


@contextmanager
def meanwhile() -> Iterator[None]:
    """Keep copies in a temporary folder while a block runs that reads images several times.

    Where the environment says already where copies are kept, they are kept there.
    """
    if from_environment() is not None:
        yield
        return
    # Downloads that an error leaves under way may still write while the folder is deleted.
    with tempfile.TemporaryDirectory(prefix="hcsqc_", ignore_cleanup_errors=True) as folder:
        os.environ |= {FOLDER: folder, GIB: str(MEANWHILE_GIB)}
        try:
            yield
        finally:
            del os.environ[FOLDER], os.environ[GIB]


def from_environment() -> LocalCopies | None:
    """Return the copies that the config asks for; None if it asks for none."""
    folder, gib = os.environ.get(FOLDER), os.environ.get(GIB)
    return _copies(folder, float(gib)) if folder and gib else None


@cache
def _copies(folder: str, gib: float) -> LocalCopies:
    with suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    return LocalCopies(Path(folder), int(gib * 2**30))
