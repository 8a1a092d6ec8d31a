"""Images at a URL: on S3, Google Cloud Storage or a web server, read into memory.

Downloads run ahead of the job that reads them, many at once. What breaks off is continued, and
what a server refuses for a moment is asked for again. Credentials are those of the environment;
without any, requests are anonymous, as public data allow.
"""

import errno
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from hcsqc.core import patience
from hcsqc.core.errors import InputError, in_one_line
from hcsqc.screens.images import local_copies

# How many images are downloaded at once; the rules set it from the config.
CONNECTIONS, USUAL_CONNECTIONS = "HCSQC_CONNECTIONS", 16
# Each of the tries of `patience.WAITS_S`; together a minute.
RETRIES, RETRY_S = 8, 12
# What a server says if it is asked for a list: that there is no such bucket, or no access to it.
NO_BUCKET, REFUSED = "404 Not Found", ("403 Forbidden", "401 Unauthorized", "AccessDenied")
LISTED_AT_ONCE = 1000  # by S3 and Google Cloud Storage
CONNECT_S, READ_S = 10, 30
# Any of these says that the environment has credentials of S3.
_S3_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_GCS_CREDENTIALS = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)
_REMOTE = re.compile(r"(s3|gs|https?)://", re.IGNORECASE)
Stamp = tuple[int, int]  # as of a local image: see `stamps`
ABSENT: Stamp = (-1, -1)
IMAGE_ENDINGS = (".tif", ".tiff", ".png")


@dataclass(frozen=True)
class RemoteFolder:
    """A folder, or a file, at a URL; it can be joined and named like a pathlib path."""

    url: str  # without a slash at its end

    def __truediv__(self, below: str | PurePosixPath) -> "RemoteFolder":
        return RemoteFolder(f"{self.url}/{below}") if str(below) not in ("", ".") else self

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def depth(self) -> int:
        """How many levels it lies below its bucket or server; 0 is the bucket itself."""
        return self.url.partition("://")[2].count("/")

    @property
    def parent(self) -> "RemoteFolder":
        """The folder above; that of a bucket has no server, so nobody can list it."""
        return RemoteFolder(self.url.rpartition("/")[0])

    def relative_to(self, above: "RemoteFolder") -> PurePosixPath:
        """Return the path from a folder above to this one; raises ValueError if it is not above."""
        if self == above:
            return PurePosixPath()
        if not self.url.startswith(above.url + "/"):
            raise ValueError(f"{self} is not below {above}")
        return PurePosixPath(self.url[len(above.url) + 1 :])


Folder = Path | RemoteFolder


class NoBucket(InputError):
    """There is no bucket of this name, so that nothing can be listed in it."""


def is_remote(text: object) -> bool:
    """Return whether a folder is a URL of a kind that can be read."""
    return bool(_REMOTE.match(str(text)))


def folder_at(text: object) -> Folder:
    """Return a folder of images, on disk or at a URL, by how it is written.

    Raises InputError for a URL that holds a password or a signature: both would stay in records.
    """
    if isinstance(text, RemoteFolder):
        return text
    if not is_remote(text):
        return Path(str(text))
    scheme, _, rest = str(text).rstrip("/").partition("://")
    url = f"{scheme.lower()}://{rest}"
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InputError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}: the URL of images holds a "
            "user or password, which records would keep; set credentials in the environment "
            "(docs/screens.md)"
        )
    if parts.scheme.startswith("http") and (parts.query or parts.fragment):
        raise InputError(
            f"{url.partition('?')[0]}: the URL of images has a query, as signed URLs do; give a "
            "URL without one and set credentials in the environment (docs/screens.md)"
        )
    if not parts.netloc:
        raise InputError(f"{url}: the URL of images names no bucket or server")
    return RemoteFolder(url)


def read_remote(file: RemoteFolder) -> tuple[bytes, Stamp]:
    """Return what a file at a URL holds, and its stamp: bytes, and nanoseconds of its last change.

    Taken from the downloads that `ahead` has begun, if it is among them.
    Raises FileNotFoundError if there is no such file, and InputError if its server refuses to give
    it or does not respond.
    """
    begun = _downloads().take(file.url)
    return begun.result() if begun else _download(file)


def ahead(rows: Iterable[Any], folder: Folder) -> Generator[Any, None, None]:
    """Yield rows of the `fields` table while the images of the next ones are on their way.

    So many rows are ahead that all connections are used. Nothing is downloaded from a folder on
    disk, nor of a row that has a problem, because nobody reads it.
    """
    if not isinstance(folder, RemoteFolder):
        yield from rows
        return
    downloads, waiting, begun = _downloads(), deque[tuple[Any, int]](), list[RemoteFolder]()
    try:
        for row in rows:
            files = [] if isinstance(getattr(row, "problem", None), str) else _files(row, folder)
            for file in files:
                downloads.begin(file)
            begun += files
            waiting.append((row, len(files)))
            # The first row is what is read now.
            while sum(count for _, count in waiting) - waiting[0][1] >= downloads.connections:
                yield waiting.popleft()[0]
        yield from (row for row, _ in waiting)
    except BaseException:
        downloads.forget(begun)  # the job ends early; else the last ones are still to be read
        raise


def forget(files: Iterable[RemoteFolder]) -> None:
    """Forget files that `ahead` has begun to download and that nobody will read."""
    _downloads().forget(files)


def _files(row: Any, folder: RemoteFolder) -> list[RemoteFolder]:
    return [
        folder / path
        for path in dict.fromkeys(row.image_path)
        if isinstance(path, str) and PurePosixPath(path).suffix.lower() in IMAGE_ENDINGS
    ]


class _Downloads:
    """Files that are being downloaded, or are in memory and have not been read yet."""

    def __init__(self, connections: int):
        self.connections = connections
        self.pool = ThreadPoolExecutor(connections, thread_name_prefix="download")
        self.begun: dict[str, Future] = {}
        self.lock = threading.Lock()

    def begin(self, file: RemoteFolder) -> None:
        with self.lock:
            if file.url not in self.begun:
                self.begun[file.url] = self.pool.submit(_download, file)

    def take(self, url: str) -> Future | None:
        with self.lock:
            return self.begun.pop(url, None)

    def forget(self, files: Iterable[RemoteFolder]) -> None:
        for file in files:
            future = self.take(file.url)
            if future:
                future.cancel()


@cache
def _downloads() -> _Downloads:
    return _Downloads(connections())


def connections() -> int:
    """Return how many requests may be under way at the same time."""
    return int(os.environ.get(CONNECTIONS) or USUAL_CONNECTIONS)


def _download(file: RemoteFolder) -> tuple[bytes, Stamp]:
    """Return a file and its stamp: from its server, or from the copy that is kept of it."""
    copies = local_copies.from_environment()
    if copies is None:
        return _get(file)
    stamp = remote_stamp(file)
    if stamp == ABSENT:
        raise _no_such(file)
    content = copies.read(file.url, stamp)
    if content is None:
        content, stamp = _get(file)
        copies.keep(file.url, stamp, content)
    return content, stamp


def _get(file: RemoteFolder) -> tuple[bytes, Stamp]:
    import obstore

    def get() -> tuple[bytes, Stamp]:
        store, key = _store_and_key(file)
        found = obstore.get(store, key)
        return bytes(found.bytes()), _stamp_of(found.meta)

    return _ask(get, file)


def read_range(file: RemoteFolder, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` to before `end`; raises as `read_remote` does."""
    import obstore

    def get() -> bytes:
        store, key = _store_and_key(file)
        return bytes(obstore.get_range(store, key, start=start, end=end))

    return _ask(get, file)


def remote_stamp(file: RemoteFolder) -> Stamp:
    """Return size and time of a file, or of all files below a folder; ABSENT if there is none.

    A folder of a bucket is listed once in the life of a job, a thousand files at a time.
    Raises InputError without the bucket.
    """
    if not can_list(file):
        return _head(file)
    found = _listing(file.parent.url).files.get(file.name) if file.depth else None
    if found is not None:
        return found
    below = [stamp for _, stamp in all_below(file)]
    if not below:
        return ABSENT
    return sum(size for size, _ in below), max(changed for _, changed in below)


def read_all(files: Iterable[RemoteFolder]) -> list[bytes | None]:
    """Return what files hold, downloaded many at once; None for one that is not there."""

    def read(file: RemoteFolder) -> bytes | None:
        try:
            return read_remote(file)[0]
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(connections()) as pool:
        return list(pool.map(read, files))


def stamps_at_once(files: Iterable[RemoteFolder]) -> list[Stamp]:
    """Return `remote_stamp` of many files, of different folders at the same time."""
    files = list(files)
    with ThreadPoolExecutor(connections()) as pool:
        # First each folder once: what two threads ask for at once, a cache does not save.
        above = {file.parent.url for file in files if can_list(file) and file.depth}
        list(pool.map(_listing, sorted(above)))
        return list(pool.map(remote_stamp, files))


def _head(file: RemoteFolder) -> Stamp:
    import obstore

    try:
        return _ask(lambda: _stamp_of(obstore.head(*_store_and_key(file))), file)
    except FileNotFoundError:
        return ABSENT


def exists(place: RemoteFolder) -> bool:
    """Return whether there is a file or folder at a URL; False too if its bucket does not exist."""
    if not can_list(place):
        return _head(place) != ABSENT
    try:
        above = _listing(place.parent.url if place.depth else place.url)
    except NoBucket:
        return False
    return not place.depth or place.name in above.files or place.name in above.folders


def names_in(folder: RemoteFolder) -> list[str]:
    """Return the names of the files and folders in a folder of a bucket, sorted.

    Raises InputError for a web server, which cannot be asked for them.
    """
    folders, files = folders_and_files(folder)
    return sorted({*folders, *files})


def folders_and_files(folder: RemoteFolder) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder of a bucket, and those of the files, sorted.

    Raises InputError for a web server, which cannot be asked for them, and without the bucket.
    """
    _check_can_list(folder)
    found = _listing(folder.url)
    return sorted(found.folders), sorted(found.files)


def all_below(folder: RemoteFolder) -> list[tuple[str, Stamp]]:
    """Return all files below a folder of a bucket, as paths relative to it, with their stamps.

    Raises InputError for a web server, which cannot be asked for them, and without the bucket.
    """
    import obstore

    _check_can_list(folder)

    def ask() -> list[tuple[str, Stamp]]:
        store, prefix = _store_and_key(folder)
        start = f"{prefix}/" if prefix else ""
        found = [
            (entry["path"].removeprefix(start), _stamp_of(entry))
            for entries in obstore.list(store, start or None)
            for entry in entries
        ]
        return sorted(found)

    return _ask(ask, folder)


def first_names(folder: RemoteFolder) -> list[str]:
    """Return the names of the first files below a folder of a bucket, so many as one request gives.

    Raises InputError for a web server, which cannot be asked for them, and without the bucket.
    """
    import obstore

    _check_can_list(folder)

    def ask() -> list[str]:
        store, prefix = _store_and_key(folder)
        listed = obstore.list(store, f"{prefix}/" if prefix else None, chunk_size=LISTED_AT_ONCE)
        return [entry["path"].rpartition("/")[2] for entry in next(iter(listed), [])]

    return _ask(ask, folder)


class _Level(NamedTuple):
    """What is directly in a folder: the names of folders, and the stamps of files by name."""

    folders: set[str]
    files: dict[str, Stamp]


@cache
def _listing(url: str) -> _Level:
    import obstore

    folder = RemoteFolder(url)

    def ask() -> _Level:
        store, prefix = _store_and_key(folder)
        found = obstore.list_with_delimiter(store, prefix or None)
        return _Level(
            {path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]},
            {entry["path"].rpartition("/")[2]: _stamp_of(entry) for entry in found["objects"]},
        )

    return _ask(ask, folder)


def _stamp_of(meta: Any) -> Stamp:
    # Listings have milliseconds where answers have whole seconds.
    changed: datetime = meta["last_modified"]
    return int(meta["size"]), int(changed.timestamp()) * 10**9


def can_list(place: RemoteFolder) -> bool:
    """Return whether a server says which files it has: buckets do, web servers do not."""
    return not place.url.startswith("http")


def _check_can_list(folder: RemoteFolder) -> None:
    if not can_list(folder):
        raise InputError(
            f"{folder}: a web server cannot be asked which images it has; list them in a LoadData "
            "table (layout: loaddata)"
        )


def _ask(action: Callable[[], Any], place: RemoteFolder) -> Any:
    """Return what a server answers; says in one line what is wrong if it does not."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    for wait_s in (*patience.WAITS_S, None):
        try:
            return action()
        except FileNotFoundError as error:
            raise _no_such(place) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise _refused(place) from error
        except ValueError as error:
            raise InputError(f"{place}: is not a valid URL ({in_one_line(error)})") from error
        except BaseError as error:  # says nothing about the file
            if NO_BUCKET in str(error):
                raise NoBucket(f"{place}: there is no such bucket; correct the URL") from error
            if any(words in str(error) for words in REFUSED):
                raise _refused(place) from error
            if wait_s is None:
                raise InputError(
                    f"{place}: its server does not give it ({_short(error)}); run again when it "
                    "responds"
                ) from error
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def _no_such(place: RemoteFolder) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such file", place.url)


def _refused(place: RemoteFolder) -> InputError:
    return InputError(
        f"{place}: its server refuses access; correct the path, or set credentials in the "
        "environment if the images are private (docs/screens.md)"
    )


def _short(error: Exception) -> str:
    return in_one_line(error).partition("Debug source")[0].strip()


def _store_and_key(place: RemoteFolder) -> tuple[Any, str]:
    scheme, _, rest = place.url.partition("://")
    server, _, key = rest.partition("/")
    return _store(scheme, server), key  # type: ignore[arg-type]


@cache
def _store(scheme: Literal["s3", "gs", "http", "https"], server: str) -> Any:
    """Return the store of a bucket or server; its connections are used again."""
    from obstore.store import GCSStore, HTTPStore, S3Store

    retry: Any = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {"max_backoff": timedelta(seconds=5)},
    }
    client: Any = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=READ_S),
        "allow_http": scheme == "http" or _own_http_endpoint(),
    }
    if scheme == "s3":
        anonymous = not any(os.environ.get(name) for name in _S3_CREDENTIALS)
        return S3Store(server, skip_signature=anonymous, retry_config=retry, client_options=client)
    if scheme == "gs":
        anonymous = not any(os.environ.get(name) for name in _GCS_CREDENTIALS)
        return GCSStore(server, skip_signature=anonymous, retry_config=retry, client_options=client)
    return HTTPStore.from_url(f"{scheme}://{server}", retry_config=retry, client_options=client)


def _own_http_endpoint() -> bool:
    """Return whether the environment names an S3 server, as of a lab, that has no TLS."""
    names = "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"
    return any(os.environ.get(name, "").startswith("http://") for name in names)
