"""Files from a web server over a line that breaks: resumed, retried, never taken for whole."""

import fcntl
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from hcsqc.core.errors import InputError
from hcsqc.core.files import see_onto_disk, write_json
from hcsqc.core.progress import Progress
from hcsqc.download.sizes import MEGABYTE, full_disk_as_input_error

# At most this is lost of what had come when a connection breaks off.
CHUNK_BYTES = 2**14
# An attempt that came this much further than all before it counts as progress.
LEAST_PROGRESS_BYTES = 2**20
# No wait is longer, whatever the server's Retry-After says.
LONGEST_WAIT_S = 600
# Seldom, because downloads take hours and every line also goes to a log.
PROGRESS_EVERY_S = 10.0
# Answers that may be another one soon: timeout, too early, too many requests, the server's errors.
PASSING = {408, 425, 429, *range(500, 600)}


@dataclass(frozen=True)
class TransferSettings:
    """How patient a transfer is."""

    attempts: int  # in a row without progress
    backoff_s: float  # doubled for each attempt; the second one comes at once
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


class _BrokenOff(Exception):
    """What has come is not the whole file; another attempt may bring the rest."""


class _Patience(Retry):
    """The library's retries, each of them said; none for what waiting cannot mend."""

    def increment(self, *args, **kwargs) -> "_Patience":
        if "CERTIFICATE_VERIFY_FAILED" in str(kwargs.get("error")):
            raise kwargs["error"]
        return super().increment(*args, **kwargs)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        wait_s = (response and self.get_retry_after(response)) or self.get_backoff_time()
        attempt, last = len(self.history) + 1, self.history[-1]
        reason = last.error or f"the server answered {last.status}"
        _say(last.url, f"{reason}; attempt {attempt} of {attempt + self.total} in {wait_s:.1f} s")
        time.sleep(wait_s)


class _Adapter(HTTPAdapter):
    """Sends no password and no cookie, wherever it is from: ~/.netrc, a server, a redirect."""

    def add_headers(self, request: requests.PreparedRequest, **kwargs) -> None:
        request.headers.pop("Authorization", None)
        request.headers.pop("Cookie", None)


class Part:
    """A file that has come in part, and beside it the version that the server was sending."""

    def __init__(self, path: Path):
        self.path = path
        self.about = path.with_name(f"{path.name}.json")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from the file; raise InputError if one has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{self.path}: another process is downloading this file; wait until it ends, "
                    "or stop it"
                ) from error
            except OSError:
                _say(
                    self.path.name,
                    "this disk has no locks; never download a file twice at the same time",
                )
            yield

    @property
    def bytes(self) -> int:
        """How much has come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """Return the version of a partial download that can be continued, or None."""
        try:
            version = Version(**json.loads(self.about.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        can_go_on = version.url == url and version.validator and version.total
        return version if can_go_on and 0 < self.bytes <= version.total else None

    def forget(self) -> None:
        """Drop what has come; the file itself stays, because the lock against others is on it."""
        self.about.unlink(missing_ok=True)
        self.path.open("wb").close()


def _patience(settings: TransferSettings) -> _Patience:
    return _Patience(
        settings.attempts - 1,
        status_forcelist=PASSING,
        backoff_factor=settings.backoff_s,
        backoff_jitter=settings.backoff_s,
        backoff_max=LONGEST_WAIT_S,
        retry_after_max=LONGEST_WAIT_S,
    )


def open_session(settings: TransferSettings) -> requests.Session:
    """Return a session that retries what may pass; proxies and certificates: the environment's."""
    session = requests.Session()
    # A compressed answer would have another length and could not be resumed.
    session.headers["Accept-Encoding"] = "identity"
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(max_retries=_patience(settings)))
    return session


def remote_bytes(session: requests.Session, url: str, settings: TransferSettings) -> int | None:
    """Ask a server how long a file is; None if it does not say.

    Raises NotServed if it does not have it, InputError if it cannot be asked.
    """
    with _web_errors(url):
        response = session.head(url, timeout=settings.timeout_s, allow_redirects=True)
    if response.status_code == 405:
        return None
    return _version(response, url).total


def fetch(url: str, part: Part, settings: TransferSettings) -> Version:
    """Fetch a file into `part`, going on where an earlier attempt or an earlier run stopped.

    The caller keeps others from it with `part.alone()`. The length is checked; nothing else is.
    Raises InputError if the server refuses, if no attempt comes further, or if the disk is full;
    what has come stays for the next run.
    """
    patience, furthest = _patience(settings), part.bytes
    with (
        full_disk_as_input_error(part.path.parent, f"the partial download of {url} was kept"),
        _web_errors(url),
        open_session(settings) as session,
    ):
        while True:
            try:
                return _attempt(session, url, part, settings.timeout_s)
            except _BrokenOff as error:
                if part.bytes >= furthest + LEAST_PROGRESS_BYTES:
                    patience, furthest = _patience(settings), part.bytes
                    _say(url, f"{error}, which was further than before: continues")
                else:
                    patience = patience.increment("GET", url, error=error)
                    patience.sleep()


def _attempt(session: requests.Session, url: str, part: Part, timeout_s: float) -> Version:
    known, have = part.version(url), part.bytes
    if known and have == known.total:
        return known
    rest = {"Range": f"bytes={have}-", "If-Range": known.validator} if known else {}
    with session.get(url, headers=rest, stream=True, timeout=timeout_s) as response:
        if response.status_code in (206, 416) and not _is_rest(response, known, have):
            part.forget()
            raise _BrokenOff("the file on the server has changed; downloading it from the start")
        sent = _version(response, url)
        if response.status_code == 200:
            if have:
                _say(
                    url,
                    "downloading it from the start: it has changed, or the server sends no parts",
                )
            # First the bytes: those of one version must never stand under the name of another.
            part.forget()
            write_json(asdict(sent), part.about)
            known = sent
        _receive(response, part, known)
    return known


def _is_rest(response: requests.Response, known: Version | None, have: int) -> bool:
    """Return whether an answer is the rest of `known`; not every server heeds If-Range."""
    sent = response.headers
    return (
        known is not None
        and sent.get("Content-Range", "").startswith(f"bytes {have}-")
        and sent.get("ETag", known.etag) == known.etag
        and sent.get("Last-Modified", known.last_modified) == known.last_modified
    )


def _receive(response: requests.Response, part: Part, version: Version) -> None:
    total, have = version.total, part.bytes
    megabytes = total and total // MEGABYTE
    progress = Progress(megabytes, "MB", part.path.stem, PROGRESS_EVERY_S, have // MEGABYTE)
    try:
        with part.path.open("ab") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                progress.update(have // MEGABYTE - progress.done)
        see_onto_disk(part.path)
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        kind = type(error.args[0]).__name__
        raise _BrokenOff(f"broken off at {have} of {total} bytes ({kind})") from error
    progress.close()
    if total is None:
        _say(version.url, "the server gave no length; the file may be incomplete")
    elif have != total:
        raise _BrokenOff(f"{have} of {total} bytes arrived")


def _version(response: requests.Response, url: str) -> Version:
    """Return what an answer says of the file; raise InputError if it is not that of the file."""
    code, headers = response.status_code, response.headers
    kind = headers.get("Content-Type", "")
    if code not in (200, 206) or kind.startswith("text/html"):
        raise NotServed(
            f"{url}: the server answered {code} {response.reason} {kind} instead of the file; "
            "correct "
            "archives of its screen in the config, or take the plate out of its plates; if a "
            "browser can download the file, put it where docs/download.md says"
        )
    length = headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    return Version(url, total, headers.get("ETag"), headers.get("Last-Modified"))


@contextmanager
def _web_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (requests.RequestException, MaxRetryError) as error:
        cause = error if isinstance(error, MaxRetryError) else error.args[0]
        reason = str(getattr(cause, "reason", cause))
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            advice = "behind a proxy set REQUESTS_CA_BUNDLE, see docs/download.md"
        else:
            advice = (
                "the partial download was kept: run the same command again, or correct archives.url"
            )
        raise InputError(f"{url}: {reason}; given up, {advice}") from error


def _say(url: str, message: str) -> None:
    print(f"{url.rsplit('/', 1)[-1]}: {message}", file=sys.stderr, flush=True)
