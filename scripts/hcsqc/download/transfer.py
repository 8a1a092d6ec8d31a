"""Files from a web server over a line that breaks: resumed, retried, never taken for whole."""

import fcntl
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TypeVar

import requests
from urllib3.exceptions import ReadTimeoutError

from hcsqc.core.errors import InputError
from hcsqc.core.files import write_json
from hcsqc.download.sizes import ByteProgress, full_disk_as_input_error

# At most this is lost of what had come when a connection breaks off.
CHUNK_BYTES = 2**14
# An attempt that came this much further than all before it counts as progress.
LEAST_PROGRESS_BYTES = 2**20
# No wait is longer, whatever the server's Retry-After says.
LONGEST_WAIT_S = 600.0
# Answers beside 5xx that may be another one soon: timeout, too early, too many requests.
PASSING = (408, 425, 429)
# Answers of servers that do not answer HEAD.
NO_HEAD = (405, 501)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class TransferSettings:
    """How patient a transfer is."""

    attempts: int  # in a row without progress
    backoff_s: float  # before the second attempt, doubled for each later one
    timeout_s: float  # without a byte


@dataclass(frozen=True)
class Version:
    """What a server said of a file when it began to send it."""

    url: str
    total: int | None  # bytes
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What tells the server which version to go on with; a weak ETag (W/...) cannot."""
        is_strong = self.etag and not self.etag.startswith("W/")
        return self.etag if is_strong else self.last_modified


class NotServed(InputError):
    """The server answered that it does not have the file, or does not hand it out."""


class _Passing(Exception):
    """A failure that may pass: `wait_s` is how long the server asked to wait."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


class _Session(requests.Session):
    """Proxies and certificates are the environment's, but no cookies and no passwords are sent."""

    def __init__(self):
        super().__init__()
        # A compressed answer would have another length and could not be resumed.
        self.headers["Accept-Encoding"] = "identity"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Without an `auth` of its own a session would send what it finds in ~/.netrc.
        self.auth = lambda request: request

    def rebuild_auth(self, prepared_request, response) -> None:
        """Add no password before a redirect is followed, and take away what cookie there is."""
        prepared_request.headers.pop("Cookie", None)


class Part:
    """A file that has come in part, and beside it the version that the server was sending."""

    def __init__(self, path: Path):
        self.path = path
        self._about = path.with_name(f"{path.name}.json")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from the file; raise InputError if one has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{self.path}: another process is fetching this file; wait for it, or end it"
                ) from error
            except OSError:
                _say(
                    self.path.name, "this disk knows no locks; do not fetch a file twice at a time"
                )
            try:
                yield
            finally:
                if self.bytes == 0:
                    self.remove()

    @property
    def bytes(self) -> int:
        """How much has come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """Return the version that can be gone on with, or None."""
        try:
            version = Version(**json.loads(self._about.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        can_go_on = version.url == url and version.validator and version.total is not None
        return version if can_go_on and self.bytes <= version.total else None

    def start(self, version: Version) -> None:
        """Begin anew with a version."""
        # First the bytes: those of one version must never stand under the name of another.
        self.path.open("wb").close()
        write_json(asdict(version), self._about)

    def forget(self) -> None:
        """Drop what has come; the file itself stays, because the lock against others is on it."""
        self._about.unlink(missing_ok=True)
        self.path.open("wb").close()

    def remove(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def move_to(self, target: Path) -> None:
        """Give the whole file its final name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path, target)
        self._about.unlink(missing_ok=True)


def open_session() -> requests.Session:
    """Return a session for `remote_bytes`."""
    return _Session()


def remote_bytes(session: requests.Session, url: str, settings: TransferSettings) -> int | None:
    """Ask a server how long a file is; None if it does not say.

    Raises NotServed if it does not have it, InputError if it cannot be asked.
    """

    def ask() -> int | None:
        with _web_errors(url, settings):
            response = session.head(url, timeout=settings.timeout_s, allow_redirects=True)
        if response.status_code in NO_HEAD:
            return None
        _check_status(response, url)
        return _version(url, response).total

    return _persist(ask, url, settings, lambda: False)


def fetch(url: str, part: Part, settings: TransferSettings) -> Version:
    """Fetch a file into `part`, going on where an earlier attempt or an earlier run stopped.

    The caller keeps others from it with `part.alone()`. The length is checked; nothing else is.
    Raises InputError if the server refuses, if no attempt comes further, or if the disk is full;
    what has come stays for the next run.
    """
    furthest = part.bytes

    def came_further() -> bool:
        nonlocal furthest
        is_further = part.bytes >= furthest + LEAST_PROGRESS_BYTES
        furthest = part.bytes if is_further else furthest
        return is_further

    advice = f"what has come of {url} is kept: free some and run the same command again"
    with full_disk_as_input_error(part.path.parent, advice), _Session() as session:
        return _persist(lambda: _attempt(session, url, part, settings), url, settings, came_further)


def _attempt(
    session: requests.Session, url: str, part: Part, settings: TransferSettings
) -> Version:
    known, have = part.version(url), part.bytes
    if known and have == known.total:
        return known
    headers = {}
    if known and have:
        headers = {"Range": f"bytes={have}-", "If-Range": known.validator}
    with (
        _web_errors(url, settings),
        session.get(url, headers=headers, stream=True, timeout=settings.timeout_s) as response,
    ):
        if headers and response.status_code in (206, 416) and not _is_rest(response, known, have):
            part.forget()
            raise _Passing("the file on the server has changed, so it is fetched from its start")
        _check_status(response, url)
        if response.status_code == 200:
            sent = _version(url, response)
            if have:
                _say(url, f"{_why_anew(known, sent)}, so it is fetched from its start")
            known, have = sent, 0
            part.start(sent)
        elif not headers:
            raise _Passing("the server sent a part that was not asked for")
        _receive(response, part, known, have)
    return known


def _receive(response: requests.Response, part: Part, version: Version, have: int) -> None:
    progress = ByteProgress(version.total, _name(version.url), start=have)
    try:
        with part.path.open("ab") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                _append(file, chunk)
                have += len(chunk)
                progress.update(len(chunk))
            os.fsync(file.fileno())
    finally:
        progress.close()
    if version.total is None:
        _say(version.url, "the server gave no length; whether this is all of it cannot be told")
    elif have > version.total:
        part.forget()
        raise _Passing(f"more came than the {version.total} bytes announced")
    elif have < version.total:
        raise _Passing(f"the connection broke off at {have} of {version.total} bytes")


def _append(file, chunk: bytes) -> None:
    file.write(chunk)
    # So that a killed process leaves what has come.
    file.flush()


def _is_rest(response: requests.Response, known: Version, have: int) -> bool:
    """Return whether the answer to a Range is the rest of the version that has come in part."""
    span = re.match(r"bytes (\d+)-\d+/(\d+)$", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not span:
        return False
    sent = response.headers
    same_version = (
        sent.get("ETag", known.etag) == known.etag
        and sent.get("Last-Modified", known.last_modified) == known.last_modified
    )
    return same_version and (int(span[1]), int(span[2])) == (have, known.total)


def _why_anew(known: Version | None, sent: Version) -> str:
    if known is None:
        return "what is here may be of another version"
    return (
        "the server cannot send a part" if sent == known else "the file on the server has changed"
    )


def _version(url: str, response: requests.Response) -> Version:
    headers = response.headers
    length = headers.get("Content-Length", "")
    # The length of what is compressed against our wish says nothing of the file's.
    is_plain = headers.get("Content-Encoding", "identity") == "identity"
    total = int(length) if length.isdigit() and is_plain else None
    return Version(url, total, headers.get("ETag"), headers.get("Last-Modified"))


def _check_status(response: requests.Response, url: str) -> None:
    code = response.status_code
    answer = f"the server answered {code} {response.reason}".rstrip()
    if code >= 500 or code in PASSING:
        raise _Passing(answer, _retry_after(response))
    if code in (404, 410):
        raise NotServed(
            f"{url}: {answer}; correct archives of its screen in the config, or take the plate "
            "out of its plates"
        )
    if code >= 400:
        raise NotServed(
            f"{url}: {answer}; it does not hand this file out. If a browser gets it, put it where "
            "docs/download.md says and run the same command again"
        )
    if code not in (200, 206):
        raise _Passing(answer)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _Passing("a web page came instead of the file: a login page, or a proxy's message?")


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that the server asks to wait, given as a number or a date; else 0."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdigit():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _persist(
    attempt: Callable[[], Answer],
    url: str,
    settings: TransferSettings,
    came_further: Callable[[], bool],
) -> Answer:
    """Attempt until it works, or too often in a row without coming further."""
    # The same for a file at each run, so that a run can be told; another for each file.
    jitter = random.Random(url)
    failures = 0
    while True:
        try:
            return attempt()
        except _Passing as error:
            failures = 0 if came_further() else failures + 1
            if failures >= settings.attempts:
                raise InputError(
                    f"{url}: {error}; given up after {failures} attempts that came no further. "
                    "What has come is kept: run the same command again to go on"
                ) from error
            doublings = max(failures - 1, 0)
            backoff = settings.backoff_s * 2**doublings * jitter.uniform(0.8, 1.2)
            wait = min(max(backoff, error.wait_s), LONGEST_WAIT_S)
            _say(url, f"{error}; attempt {failures + 1} of {settings.attempts} in {wait:.1f} s")
            time.sleep(wait)


@contextmanager
def _web_errors(url: str, settings: TransferSettings) -> Iterator[None]:
    try:
        yield
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.exceptions.TooManyRedirects,
    ) as error:
        raise NotServed(f"{url}: {error}; correct archives.url of its screen") from error
    except requests.Timeout as error:
        raise _Passing(f"no answer for {settings.timeout_s:g} s") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Passing("the connection broke off") from error
    except requests.RequestException as error:
        cause = error.args[0] if error.args else error
        reason = str(getattr(cause, "reason", cause))
        if isinstance(cause, ReadTimeoutError):
            raise _Passing(f"not a byte for {settings.timeout_s:g} s") from error
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise InputError(
                f"{url}: the server's certificate is not trusted ({reason}); behind a proxy with a "
                "certificate of its own set REQUESTS_CA_BUNDLE, see docs/download.md"
            ) from error
        raise _Passing(reason) from error


def _name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _say(url: str, message: str) -> None:
    print(f"{_name(url)}: {message}", file=sys.stderr, flush=True)
