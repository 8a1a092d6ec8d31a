"""A web server that breaks off, refuses, stalls, changes and damages files, and small archives."""

import io
import random
import re
import threading
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from hcsqc.download import transfer

BYTES = random.Random(1).randbytes(50_000)


@dataclass(frozen=True)
class Answer:
    """How the server answers one request, where that is not the file as asked for."""

    status: int | None = None
    headers: dict = field(default_factory=dict)
    body: bytes | None = None  # instead of the file's
    stop_after: int | None = None  # bytes of the body, then the connection breaks off
    stalls: bool = False  # instead of breaking off
    ranges: bool = True  # False: the whole file, whatever is asked for
    if_range: bool = True  # False: the rest of the file, even of another version
    length: bool = True


class Server:
    """An HTTP server of `files` that answers as told and remembers what it was asked."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, dict] = {}  # headers
        self.answers: dict[str, list[Answer]] = defaultdict(list)  # one per GET, then as it should
        self.always: dict[str, Answer] = {}
        self.head: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict]] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (_Handler,), {"of": self})
        )
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # of clients that were killed
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, content: bytes, etag: str | None = '"one"', date: str | None = None):
        version = {"ETag": etag, "Last-Modified": date}
        self.files[name] = content
        self.versions[name] = {key: value for key, value in version.items() if value}
        return self.url + name

    def gets(self) -> list[dict]:
        """Return the headers of the GETs, in order."""
        return [headers for method, _, headers in self.asked if method == "GET"]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.gets()]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: Server

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(self.of.head.get(self.path.lstrip("/"), Answer()))

    def do_GET(self):
        name = self.path.lstrip("/")
        queue = self.of.answers[name]
        self._answer(queue.pop(0) if queue else self.of.always.get(name, Answer()))

    def _answer(self, answer: Answer):
        name = self.path.lstrip("/")
        self.of.asked.append((self.command, name, dict(self.headers)))
        body = self.of.files.get(name, b"") if answer.body is None else answer.body
        status = answer.status or (200 if name in self.of.files else 404)
        headers = dict(self.of.versions.get(name, {}))
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = not answer.if_range or self.headers.get("If-Range") in headers.values()
        if status == 200 and asked and answer.ranges and is_same:
            start, size = int(asked[1]), len(body)
            status, span = (206, f"{start}-{size - 1}") if start < size else (416, "*")
            headers["Content-Range"] = f"bytes {span}/{size}"
            body = body[start:]
        headers |= {"Content-Length": str(len(body))} if answer.length else {"Connection": "close"}
        self.send_response(status)
        for key, value in (headers | answer.headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: answer.stop_after])
            if answer.stalls:
                self.of.released.wait(30)
            self.close_connection = answer.stop_after is not None or not answer.length


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Waits are noted, not waited; bytes come by hundreds, a thousand are progress and one MB."""
    noted = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=noted.append))
    monkeypatch.setattr(transfer, "MEGABYTE", 1000)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 100)
    monkeypatch.setattr(transfer, "LEAST_PROGRESS_BYTES", 1000)
    return noted


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def patched(content: bytes, record: bytes, offset: int, value: bytes) -> bytes:
    """Return an archive with other bytes so far into the last record that begins with a mark."""
    place = content.rindex(record) + offset
    return content[:place] + value + content[place + len(value) :]
