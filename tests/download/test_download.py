"""Downloads, from a server that breaks off, refuses, stalls, changes and damages files."""

import errno
import fcntl
import io
import json
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256
from hcsqc.download import sizes, transfer
from hcsqc.download.archives import Remote, sources, steps
from hcsqc.download.obtain import obtain, part_of
from hcsqc.download.plan import PlanSettings, announcement, ask, check_room, disks
from hcsqc.download.transfer import NotServed, Part, TransferSettings, fetch
from hcsqc.download.unpack import damage, unpack
from scripts.download import unpack_plate
from tests.conftest import ROOT, Project

QUICK = TransferSettings(attempts=3, backoff_s=2.0, timeout_s=0.5)
BYTES = random.Random(1).randbytes(50_000)


@dataclass(frozen=True)
class Answer:
    """How the server answers one GET, where that is not the file as asked for."""

    status: int | None = None
    headers: dict = field(default_factory=dict)
    body: bytes | None = None  # instead of the file's
    stop_after: int | None = None  # bytes of the body, then the connection breaks off
    stalls: bool = False  # instead of breaking off
    ranges: bool = True  # False: the whole file, whatever is asked for
    if_range: bool = True  # False: the rest of the file, even of another version
    length: bool = True
    pause_s: float = 0.0  # before each 10,000 bytes


class Server:
    """An HTTP server of `files` that answers as told and remembers what it was asked."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str | None] = {}
        self.answers: dict[str, list[Answer]] = defaultdict(list)  # one per GET, then as it should
        self.always: dict[str, Answer] = {}
        self.head: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict]] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # of clients that were killed
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, content: bytes, etag: str | None = '"one"') -> str:
        self.files[name], self.etags[name] = content, etag
        return self.url + name

    def gets(self, name: str | None = None) -> list[dict]:
        """Return the headers of the GETs, in order."""
        return [
            headers
            for method, path, headers in self.asked
            if method == "GET" and name in (None, path)
        ]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.gets()]

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                name = self._note()
                self._send(name, server.head.get(name, Answer()), is_head=True)

            def do_GET(self):
                name = self._note()
                queue = server.answers[name]
                self._send(name, queue.pop(0) if queue else server.always.get(name, Answer()))

            def _note(self) -> str:
                name = self.path.lstrip("/")
                server.asked.append((self.command, name, dict(self.headers)))
                return name

            def _send(self, name: str, answer: Answer, is_head: bool = False):
                body = server.files.get(name, b"") if answer.body is None else answer.body
                status = answer.status or (200 if name in server.files else 404)
                etag, headers = server.etags.get(name), {}
                asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                is_same = not answer.if_range or self.headers.get("If-Range", etag) == etag
                if status == 200 and asked and answer.ranges and is_same:
                    status, start = 206, int(asked[1])
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                    if start >= len(body):
                        status, headers = 416, {"Content-Range": f"bytes */{len(body)}"}
                    body = body[start:]
                if etag:
                    headers["ETag"] = etag
                headers |= {"Content-Length": str(len(body))} if answer.length else {}
                headers |= answer.headers
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if not answer.length:
                    self.send_header("Connection", "close")
                self.end_headers()
                if is_head:
                    return
                end = len(body) if answer.stop_after is None else answer.stop_after
                step = 10_000 if answer.pause_s else max(end, 1)
                for start in range(0, end, step):
                    time.sleep(answer.pause_s)
                    self.wfile.write(body[start : min(start + step, end)])
                if answer.stalls:
                    server.released.wait(30)
                if answer.stop_after is not None or not answer.length:
                    self.close_connection = True

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Waits are noted, not waited; bytes come by hundreds, and a thousand are progress."""
    noted = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=noted.append))
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 100)
    monkeypatch.setattr(transfer, "LEAST_PROGRESS_BYTES", 1000)
    return noted


def zipped(files: dict[str, bytes], **attributes) -> bytes:
    """Return a zip archive; attributes are those of every ZipInfo."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return memory.getvalue()


PLATE = zipped({f"folder/{number}.tif": BYTES[number:] for number in range(3)})


def damaged(content: bytes) -> bytes:
    """Return the archive with one bit of a member's bytes turned."""
    place = content.index(BYTES[100:200])
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def get(server: Server, folder: Path, name: str = "a.csv", settings=QUICK) -> dict:
    """Obtain a file as the script does; return its receipt."""
    target, receipt = folder / name, folder / "downloaded" / f"{name}.json"
    return obtain(server.url + name, target, receipt, settings)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- Transfers


def test_a_file_comes_whole_and_its_receipt_says_what_it_is(server, tmp_path):
    url = server.put("a.csv", BYTES)
    receipt = get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert files_in(tmp_path) == {"a.csv", "downloaded/a.csv.json"}
    assert json.loads((tmp_path / "downloaded/a.csv.json").read_text()) == receipt
    assert (receipt["url"], receipt["bytes"], receipt["etag"]) == (url, 50_000, '"one"')
    assert receipt["sha256"] == sha256(tmp_path / "a.csv")
    assert receipt["fetched"] and datetime.fromisoformat(receipt["finished"]).tzinfo
    assert server.ranges() == [None]


def test_a_broken_transfer_goes_on_where_it_stopped_with_the_same_version(server, tmp_path, capsys):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000), Answer(stop_after=10_000)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges() == [None, "bytes=20000-", "bytes=30000-"]
    assert [headers.get("If-Range") for headers in server.gets()] == [None, '"one"', '"one"']
    assert "a.csv: the connection broke off; attempt 1 of 3" in capsys.readouterr().err


def test_without_an_etag_the_date_of_the_file_tells_its_version(server, tmp_path):
    server.put("a.csv", BYTES, etag=None)
    dated = {"Last-Modified": "Mon, 01 Jun 2015 10:00:00 GMT"}
    server.answers["a.csv"] = [Answer(stop_after=20_000, headers=dated)]
    server.always["a.csv"] = Answer(headers=dated, if_range=False)
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.gets()[1]["If-Range"] == dated["Last-Modified"]
    assert server.ranges() == [None, "bytes=20000-"]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_it_starts_over(server, tmp_path, capsys, etag):
    server.put("a.csv", BYTES, etag=etag)
    server.answers["a.csv"] = [Answer(stop_after=20_000)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges() == [None, None]
    assert "may be of another version, so it is fetched from its start" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_breaks_the_bytes_are_the_servers(server, tmp_path, seed):
    chance = random.Random(seed)
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [
        Answer(stop_after=chance.randrange(0, 20_000), ranges=chance.random() < 0.9)
        for _ in range(chance.randrange(1, 8))
    ]
    settings = TransferSettings(attempts=20, backoff_s=1.0, timeout_s=1.0)
    get(server, tmp_path, settings=settings)
    assert (tmp_path / "a.csv").read_bytes() == BYTES


def test_attempts_count_anew_after_each_one_that_came_further(server, tmp_path, waits):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=5000) for _ in range(9)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert len(waits) == 9 > QUICK.attempts
    assert max(waits) <= QUICK.backoff_s * 1.2


def test_attempts_that_come_no_further_end_and_what_has_come_is_kept(server, tmp_path, waits):
    url = server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000)]
    server.always["a.csv"] = Answer(stop_after=100)
    with pytest.raises(InputError) as caught:
        get(server, tmp_path)
    assert str(caught.value).startswith(
        f"{url}: the connection broke off; given up after 3 attempts that came no further"
    )
    assert len(waits) == 3
    assert not (tmp_path / "a.csv").exists()
    assert (tmp_path / "downloaded/a.csv.part").read_bytes() == BYTES[:20_300]
    server.always.clear()
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges()[-1] == "bytes=20300-"


def test_a_server_that_ever_starts_over_and_breaks_off_does_not_hold_us_forever(server, tmp_path):
    server.put("a.csv", BYTES)
    stops = [40_000, 10_000] * 10
    server.answers["a.csv"] = [Answer(stop_after=stop, ranges=False) for stop in stops]
    with pytest.raises(InputError, match="given up after 3 attempts"):
        get(server, tmp_path)
    assert len(server.gets()) == 4  # the first came further


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_errors_that_may_pass_are_waited_out_twice_as_long_each_time(
    server, tmp_path, waits, capsys, status
):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(status), Answer(status)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert 2.0 * 0.8 <= waits[0] <= 2.0 * 1.2
    assert 4.0 * 0.8 <= waits[1] <= 4.0 * 1.2
    assert f"a.csv: the server answered {status}" in capsys.readouterr().err


def test_an_error_page_never_becomes_part_of_the_file(server, tmp_path):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000), Answer(503, body=b"sorry")]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("7", (7, 7)),
        ("86400", (600, 600)),
        ("soon", (1.6, 2.4)),
        (timedelta(seconds=300), (240, 300)),  # a date so far from now
        (timedelta(seconds=-300), (1.6, 2.4)),
    ],
)
def test_a_server_that_asks_for_patience_gets_it_within_reason(
    server, tmp_path, waits, asked, expected
):
    if isinstance(asked, timedelta):
        asked = format_datetime(datetime.now(UTC) + asked, usegmt=True)
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(429, headers={"Retry-After": asked})]
    get(server, tmp_path)
    assert expected[0] <= waits[0] <= expected[1]


def test_a_server_that_cannot_send_a_part_makes_it_start_over(server, tmp_path, capsys):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000), Answer(ranges=False)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges() == [None, "bytes=20000-"]
    assert "the server cannot send a part, so it is fetched from" in capsys.readouterr().err


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("length", [50_000, 60_000, 10_000])
def test_a_file_that_changes_meanwhile_is_fetched_from_its_start(
    server, tmp_path, capsys, if_range, length
):
    """With and without a server that heeds If-Range; the new version longer, as long, shorter."""
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000), Answer(stop_after=0)]
    server.always["a.csv"] = Answer(if_range=if_range)
    target = tmp_path / "a.csv"
    with pytest.raises(InputError):
        get(server, tmp_path, settings=TransferSettings(1, 1.0, 1.0))
    changed = random.Random(2).randbytes(length)
    server.put("a.csv", changed, etag='"two"')
    receipt = get(server, tmp_path)
    assert target.read_bytes() == changed
    assert receipt["etag"] == '"two"'
    assert "the file on the server has changed, so it is fetched from" in capsys.readouterr().err


@pytest.mark.parametrize(("date", "length"), [("2 Jun", 50_000), ("1 Jun", 60_000)])
def test_a_part_of_another_version_is_told_by_its_date_or_length(server, tmp_path, date, length):
    """From a server without ETags that does not heed If-Range."""

    def dated(day: str, **answer) -> Answer:
        sent = {"Last-Modified": f"Mon, {day} 2015 10:00:00 GMT"}
        return Answer(headers=sent, if_range=False, **answer)

    server.put("a.csv", BYTES, etag=None)
    server.answers["a.csv"] = [dated("1 Jun", stop_after=20_000), dated("1 Jun", stop_after=0)]
    with pytest.raises(InputError):
        get(server, tmp_path, settings=TransferSettings(1, 1.0, 1.0))
    changed = random.Random(2).randbytes(length)
    server.put("a.csv", changed, etag=None)
    server.always["a.csv"] = dated(date)
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == changed
    assert server.ranges() == [None, "bytes=20000-", "bytes=20000-", None]


def test_another_address_is_another_file(server, tmp_path):
    server.put("a.csv", BYTES)
    server.put("b.csv", BYTES[::-1])
    part = Part(tmp_path / "x.part")
    server.answers["a.csv"] = [Answer(stop_after=20_000), Answer(stop_after=0)]
    with pytest.raises(InputError):
        fetch(server.url + "a.csv", part, TransferSettings(1, 1.0, 1.0))
    fetch(server.url + "b.csv", part, QUICK)
    assert part.path.read_bytes() == BYTES[::-1]


def test_without_a_length_it_says_that_the_end_cannot_be_told(server, tmp_path, capsys):
    server.put("a.csv", BYTES)
    server.always["a.csv"] = Answer(length=False)
    assert get(server, tmp_path)["bytes"] == 50_000
    assert "gave no length; whether this is all of it cannot be told" in capsys.readouterr().err


def test_without_a_length_a_short_archive_is_found_out(server, tmp_path):
    server.put("a.zip", PLATE)
    server.answers["a.zip"] = [Answer(length=False, stop_after=len(PLATE) - 5000)]
    get(server, tmp_path, "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == PLATE


@pytest.mark.parametrize("answer", [Answer(404), Answer(410), Answer(403), Answer(401)])
def test_what_the_server_does_not_have_or_give_fails_at_once(server, tmp_path, waits, answer):
    server.always["a.csv"] = answer
    with pytest.raises(NotServed) as caught:
        get(server, tmp_path)
    advice = "correct archives of its screen" if answer.status in (404, 410) else "hand this file"
    assert f"{server.url}a.csv: the server answered {answer.status}" in str(caught.value)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.gets()) == 1 and waits == []
    assert files_in(tmp_path) == set()


def test_a_login_page_is_no_file(server, tmp_path):
    server.put("a.csv", BYTES)
    page = Answer(
        headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>", length=False
    )
    server.always["a.csv"] = page
    with pytest.raises(InputError, match="a web page came instead of the file"):
        get(server, tmp_path)
    assert files_in(tmp_path) == set()


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, capsys):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000, stalls=True)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges() == [None, "bytes=20000-"]
    assert "not a byte for 0.5 s" in capsys.readouterr().err


def test_no_server_is_said_in_one_line_after_the_attempts(tmp_path, server):
    server.close()
    with pytest.raises(InputError, match="refused.*given up after 3 attempts") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)


def test_redirects_lead_to_the_file_but_only_on_the_web(server, tmp_path):
    server.put("real", BYTES)
    server.always["a.csv"] = Answer(302, headers={"Location": "/real"})
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    for elsewhere in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.always["b.csv"] = Answer(302, headers={"Location": elsewhere})
        with pytest.raises(NotServed, match="correct archives.url"):
            get(server, tmp_path, "b.csv")
    server.always["c.csv"] = Answer(302, headers={"Location": "/c.csv"})
    with pytest.raises(NotServed, match="redirects"):
        get(server, tmp_path, "c.csv")


def test_no_password_and_no_cookie_is_ever_sent(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.put("real", BYTES)
    cookie = {"Set-Cookie": "a=b; Path=/"}
    server.answers["a.csv"] = [
        Answer(503, headers=cookie),
        Answer(302, headers=cookie | {"Location": "/real"}),
    ]
    get(server, tmp_path)
    assert len(server.asked) == 3
    for _, _, headers in server.asked:
        assert not {"Authorization", "Cookie"} & set(headers)
        assert headers["Accept-Encoding"] == "identity"


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.put("http://images.invalid/a.csv", BYTES)
    target, receipt = tmp_path / "a.csv", tmp_path / "downloaded/a.csv.json"
    obtain("http://images.invalid/a.csv", target, receipt, QUICK)
    assert target.read_bytes() == BYTES


def test_a_full_disk_is_said_and_what_has_come_is_kept(server, tmp_path, monkeypatch):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=20_000)]

    def full(file, chunk):
        if file.tell() + len(chunk) > 30_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(chunk)

    with monkeypatch.context() as patched:
        patched.setattr(transfer, "_append", full)
        with pytest.raises(InputError, match="no room left on the disk of .*run the same command"):
            get(server, tmp_path)
    assert not (tmp_path / "a.csv").exists()
    get(server, tmp_path)
    assert server.ranges() == [None, "bytes=20000-", "bytes=30000-"]
    assert (tmp_path / "a.csv").read_bytes() == BYTES


def test_two_processes_do_not_fetch_one_file(server, tmp_path):
    server.put("a.csv", BYTES)
    part = part_of(tmp_path / "downloaded/a.csv.json").path
    part.parent.mkdir()
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching this file"):
            get(server, tmp_path)
    get(server, tmp_path)


def test_a_damaged_memory_of_the_version_starts_over(server, tmp_path):
    server.put("a.csv", BYTES)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "a.csv.part").write_bytes(b"x" * 20_000)
    (folder / "a.csv.part.json").write_text("{")
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges() == [None]


# --- Archives


@pytest.mark.parametrize("wrong", [damaged(PLATE), PLATE[:-3000] + bytes(3000)])
def test_a_damaged_archive_is_fetched_once_more(server, tmp_path, capsys, wrong):
    server.put("a.zip", PLATE)
    server.answers["a.zip"] = [Answer(body=wrong)]
    get(server, tmp_path, "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == PLATE
    assert server.ranges() == [None, None]
    assert "a.zip has come damaged (" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [damaged(PLATE), PLATE[:-3000] + bytes(3000), b"", b"no zip"])
def test_an_archive_that_is_always_damaged_never_gets_its_name(server, tmp_path, wrong):
    server.put("a.zip", wrong)
    with pytest.raises(InputError, match="damaged twice .*the server's copy is damaged"):
        get(server, tmp_path, "a.zip")
    assert len(server.gets()) == 2
    assert files_in(tmp_path) == set()


def test_an_archive_damaged_on_the_way_is_told_from_one_damaged_there(server, tmp_path):
    server.put("a.zip", PLATE)
    server.answers["a.zip"] = [
        Answer(body=damaged(PLATE)),
        Answer(body=PLATE[:-3000] + bytes(3000)),
    ]
    with pytest.raises(InputError, match="the line damages it"):
        get(server, tmp_path, "a.zip")


def test_an_archive_that_is_here_is_checked_and_not_fetched(server, tmp_path):
    server.put("a.zip", PLATE)
    (tmp_path / "a.zip").write_bytes(PLATE)
    receipt = get(server, tmp_path, "a.zip")
    assert server.asked == [] and not receipt["fetched"]
    assert receipt["sha256"] == sha256(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(damaged(PLATE))
    with pytest.raises(InputError, match="b.zip is damaged .*delete it to have it fetched"):
        get(server, tmp_path, "b.zip")
    assert (tmp_path / "b.zip").exists()


def test_damage_is_named_and_a_whole_archive_has_none(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(PLATE)
    assert damage(path, "verify") is None
    path.write_bytes(damaged(PLATE))
    assert damage(path, "verify") == "Bad CRC-32 for file 'folder/0.tif'"
    for end in range(0, len(PLATE), 7919):
        path.write_bytes(PLATE[:end])
        assert damage(path, "verify")


def test_an_archive_that_cannot_be_read_here_is_not_called_damaged(tmp_path):
    path = tmp_path / "a.zip"
    content = bytearray(PLATE)
    place = PLATE.index(b"PK\x01\x02") + 10
    content[place : place + 2] = (9).to_bytes(2, "little")  # Deflate64
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="cannot be unpacked here"):
        damage(path, "verify")


# --- Unpacking


def archive(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "images" / "downloaded" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def unpack_all(folder: Path, *archives: Path):
    images = folder / "images"
    return unpack(list(archives), images, images / "downloaded" / ".1.unpacking", "unpack 1")


def outside_archives(folder: Path) -> dict[str, bytes]:
    """Return everything below a folder but the archives themselves."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".zip" and path.name not in ("images", "downloaded")
    }


def test_archives_unpack_into_their_folders_and_nothing_else_is_left(tmp_path):
    first = archive(tmp_path, "1w1.zip", zipped({"1w1/a.tif": b"a", "1w1/deep/b.tif": b"bb"}))
    second = archive(tmp_path, "1w2.zip", zipped({"1w2/a.tif": b"c", "1w2/.DS_Store": b"junk"}))
    unpacked = unpack_all(tmp_path, first, second)
    assert (unpacked.files, unpacked.bytes) == (3, 4)
    assert outside_archives(tmp_path) == {
        "images/1w1": b"folder",
        "images/1w1/a.tif": b"a",
        "images/1w1/deep": b"folder",
        "images/1w1/deep/b.tif": b"bb",
        "images/1w2": b"folder",
        "images/1w2/a.tif": b"c",
    }


def test_plates_may_share_a_folder_and_unpacking_twice_changes_nothing(tmp_path):
    first = archive(tmp_path, "1.zip", zipped({"Week1/1/a.tif": b"a", "Week1/about.txt": b"x"}))
    second = archive(tmp_path, "2.zip", zipped({"Week1/2/a.tif": b"b", "Week1/about.txt": b"x"}))
    unpack_all(tmp_path, first)
    unpack_all(tmp_path, second)
    found = outside_archives(tmp_path)
    assert found["images/Week1/1/a.tif"] == b"a" and found["images/Week1/2/a.tif"] == b"b"
    age = (tmp_path / "images/Week1/1/a.tif").stat().st_mtime_ns
    unpack_all(tmp_path, first, second)
    assert outside_archives(tmp_path) == found
    assert (tmp_path / "images/Week1/1/a.tif").stat().st_mtime_ns == age


def test_a_file_that_is_here_already_and_differs_is_named_and_stays(tmp_path):
    path = archive(tmp_path, "1.zip", zipped({"1/a.tif": b"a", "1/b.tif": b"b", "1/c.tif": b"c"}))
    mine = tmp_path / "images/1"
    mine.mkdir()
    (mine / "b.tif").write_bytes(b"B")
    (mine / "c.tif").write_bytes(b"cc")
    before = outside_archives(tmp_path)
    with pytest.raises(InputError, match=r"images/1/b\.tif and 1 more: there already, but not as"):
        unpack_all(tmp_path, path)
    assert outside_archives(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "attributes", "problem"),
    [
        ("../evil", {}, "outside the images folder"),
        ("1/../../evil", {}, "outside the images folder"),
        ("/tmp/hcsqc_evil", {}, "outside the images folder"),
        ("C:/evil", {}, "outside the images folder"),
        ("..\\evil", {}, "outside the images folder"),
        ("downloaded/x.zip.json", {}, "among the archives"),
        ("1/link", {"external_attr": (stat.S_IFLNK | 0o777) << 16}, "is a link or a device"),
        ("1/pipe", {"external_attr": (stat.S_IFIFO | 0o666) << 16}, "is a link or a device"),
        ("1/disk", {"external_attr": (stat.S_IFBLK | 0o666) << 16}, "is a link or a device"),
        ("1/secret", {"flag_bits": 1}, "is encrypted"),
    ],
)
def test_an_archive_that_would_write_elsewhere_writes_nothing(tmp_path, name, attributes, problem):
    content = bytearray(zipped({"1/good.tif": b"good"} | {name: b"../../evil"}))
    for key, value in attributes.items():
        # In the central directory, after the name that it belongs to begins: 38 and 8 bytes in.
        place = content.rindex(b"PK\x01\x02") + {"external_attr": 38, "flag_bits": 8}[key]
        size = {"external_attr": 4, "flag_bits": 2}[key]
        content[place : place + size] = value.to_bytes(size, "little")
    good = archive(tmp_path, "0.zip", zipped({"0/good.tif": b"good"}))
    path = archive(tmp_path, "1.zip", bytes(content))
    with pytest.raises(InputError, match=f"1.zip: member '.*' .*{problem}"):
        unpack_all(tmp_path, good, path)
    assert outside_archives(tmp_path) == {}
    assert not Path("/tmp/hcsqc_evil").exists()


def test_two_archives_with_different_files_of_one_name_are_refused(tmp_path):
    first = archive(tmp_path, "1.zip", zipped({"1/a.tif": b"a"}))
    second = archive(tmp_path, "2.zip", zipped({"1/a.tif": b"b"}))
    with pytest.raises(InputError, match="1/a.tif is one file in .*1.zip and another in .*2.zip"):
        unpack_all(tmp_path, first, second)
    third = archive(tmp_path, "3.zip", zipped({"1/a.tif/b.tif": b"b"}))
    with pytest.raises(InputError, match="'1/a.tif' is both a file and a folder"):
        unpack_all(tmp_path, first, third)
    assert outside_archives(tmp_path) == {}


def test_half_of_a_plate_is_never_to_be_seen(tmp_path):
    """An archive that breaks in the middle, though its list of members is whole."""
    good = archive(tmp_path, "1.zip", zipped({"1w1/a.tif": b"a"}))
    bad = archive(tmp_path, "2.zip", damaged(PLATE))
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        unpack_all(tmp_path, good, bad)
    assert outside_archives(tmp_path) == {}


def test_what_a_killed_unpacking_left_is_replaced(tmp_path):
    path = archive(tmp_path, "1.zip", zipped({"1/a.tif": b"a", "2/b.tif": b"b"}))
    rest = tmp_path / "images/downloaded/.1.unpacking/1"
    rest.mkdir(parents=True)
    (rest / "half.tif").write_bytes(b"half")
    (tmp_path / "images/2").mkdir()  # the kill came between two folders
    (tmp_path / "images/2/b.tif").write_bytes(b"b")
    unpack_all(tmp_path, path)
    assert set(outside_archives(tmp_path)) == {
        "images/1",
        "images/1/a.tif",
        "images/2",
        "images/2/b.tif",
    }


def room(monkeypatch, free: int) -> None:
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def test_unpacking_that_would_fill_the_disk_does_not_begin(tmp_path, monkeypatch):
    """Nor does a bomb: what the members announce is what is counted, and all that is unpacked."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1/a.tif", bytes(10**7))
    path = archive(tmp_path, "1.zip", bomb.getvalue())
    room(monkeypatch, 10**7 - 1)
    with pytest.raises(InputError, match="unpacking needs 10.0 MB, the disk has 10.0 MB"):
        unpack_all(tmp_path, path)
    assert outside_archives(tmp_path) == {}
    room(monkeypatch, 10**7)
    assert unpack_all(tmp_path, path).bytes == 10**7
    room(monkeypatch, 0)  # what is there already needs no room
    unpack_all(tmp_path, path)


def test_a_bomb_that_lies_about_its_size_is_damaged(tmp_path):
    content = bytearray(zipped({"1/a.tif": BYTES}))
    for mark, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = content.index(mark) + place
        content[start : start + 4] = (100).to_bytes(4, "little")
    path = archive(tmp_path, "1.zip", bytes(content))
    assert damage(path, "verify") is not None
    with pytest.raises(zipfile.BadZipFile):
        unpack_all(tmp_path, path)
    assert outside_archives(tmp_path) == {}


# --- Scripts


FLAGS = ["--attempts", "3", "--backoff-s", "0.1", "--timeout-s", "5"]


def script(name: str, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "download" / name), *map(str, words)]


def unpack_words(folder: Path, deletes: bool) -> list[object]:
    downloaded = folder / "images/downloaded"
    words = ["--plate", "1", "--images", folder / "images", "--delete-archives", deletes]
    words += ["--archives", downloaded / "1.zip", "--receipts", downloaded / "1.zip.json"]
    words += ["--output", downloaded / "1.unpacked.json"]
    return [*words, "--record", folder / "results/x/runs/unpack/s/1/run.json"]


def received_plate(folder: Path) -> Path:
    """Put a plate's archive and receipt into place; return the archive."""
    path = archive(folder, "1.zip", PLATE)
    receipt = {"url": "http://x/1.zip", "bytes": len(PLATE), "sha256": sha256(path)}
    path.with_name("1.zip.json").write_text(json.dumps(receipt))
    return path


@pytest.mark.parametrize("deletes", [False, True])
def test_a_plate_is_unpacked_by_hand_and_its_archives_stay_or_go(tmp_path, deletes):
    path = received_plate(tmp_path)
    digest = sha256(path)
    done = subprocess.run(script("unpack_plate.py", *unpack_words(tmp_path, deletes)))
    assert done.returncode == 0
    marker = json.loads((tmp_path / "images/downloaded/1.unpacked.json").read_text())
    size = sum(len(BYTES[number:]) for number in range(3))
    assert marker == {"files": 3, "bytes": size, "archives": {"1.zip": digest}}
    assert (tmp_path / "images/folder/2.tif").read_bytes() == BYTES[2:]
    assert path.exists() != deletes
    record = json.loads((tmp_path / "results/x/runs/unpack/s/1/run.json").read_text())
    assert (record["key"], record["stage"]) == ("unpack/s/1", "unpack")


def test_archives_stay_until_the_marker_is_written(tmp_path, monkeypatch):
    path = received_plate(tmp_path)
    monkeypatch.setattr(
        sys, "argv", [unpack_plate.__file__, *map(str, unpack_words(tmp_path, True))]
    )

    def full(value, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpack_plate, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        unpack_plate.main()
    assert path.exists()


def test_an_archive_that_went_before_it_was_unpacked_is_named_with_its_receipt(tmp_path):
    received_plate(tmp_path).unlink()
    words = script("unpack_plate.py", *unpack_words(tmp_path, True))
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: plate 1: archives that were fetched are gone" in done.stderr
    assert f"delete {tmp_path}/images/downloaded/1.zip.json\n" in done.stderr


def test_a_killed_process_goes_on_where_it_was(server, tmp_path):
    content = random.Random(3).randbytes(400_000)
    server.put("a.zip", zipped({"a.tif": content}))
    server.answers["a.zip"] = [Answer(pause_s=0.05)]
    target, receipt = tmp_path / "a.zip", tmp_path / "downloaded/a.zip.json"
    words = script("download_file.py", "--url", server.url + "a.zip", *FLAGS)
    words += ["--target", str(target), "--receipt", str(receipt)]
    words += ["--record", str(tmp_path / "results/x/runs/download/s/a.zip/run.json")]
    process = subprocess.Popen(words)
    part = tmp_path / "downloaded/a.zip.part"
    until = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < 100_000:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    came = part.stat().st_size
    assert not target.exists() and not receipt.exists()
    assert subprocess.run(words).returncode == 0
    assert server.ranges() == [None, f"bytes={came}-"]
    assert zipfile.ZipFile(target).read("a.tif") == content
    record = json.loads((tmp_path / "results/x/runs/download/s/a.zip/run.json").read_text())
    assert record["key"] == "download/s/a.zip"
    assert record["parameters"]["sha256"] == sha256(target)


# --- The plan


PLAN = PlanSettings(delete_archives=False, expected_mb_per_s=0.001, unpacked_factor=2.0)


def entry(server: Server, folder: Path, **changes) -> dict:
    """Return a screen of two plates with two archives each, and a file."""
    archives = {"url": server.url, "plate": ["x_{plate}w1.zip", "x_{plate}w2.zip"]}
    return {
        "images": str(folder / "images"),
        "plates": ["7", "8"],
        "archives": archives | {"files": ["image.csv"]},
    } | changes


def put_screen(server: Server, sizes_of: dict[str, int]) -> None:
    for name, size in sizes_of.items():
        server.put(name, bytes(size))


WHOLE = {
    "image.csv": 1000,
    "x_7w1.zip": 20_000,
    "x_7w2.zip": 30_000,
    "x_8w1.zip": 40_000,
    "x_8w2.zip": 50_000,
}


def test_the_plan_tells_sizes_and_time_and_gets_nothing(server, tmp_path):
    put_screen(server, WHOLE)
    found = sources({"mine": entry(server, tmp_path)})
    states = ask(found, QUICK)
    lines, value = announcement(found, states, PLAN)
    assert lines[0] == ("mine: 5 files, 141.0 kB; to fetch: 5 files, 141.0 kB, 2 min at 0.001 MB/s")
    assert "about 421.0 kB needed (141.0 kB of archives, 280.0 kB of images)" in lines[1]
    assert value["screens"]["mine"]["seconds"] == 141
    assert {method for method, _, _ in server.asked} == {"HEAD"}
    assert files_in(tmp_path) == set()
    assert json.loads(json.dumps(value)) == value


def test_the_plan_counts_what_is_here_wholly_or_in_part(server, tmp_path):
    put_screen(server, WHOLE)
    found = sources({"mine": entry(server, tmp_path)})
    remotes = {remote.name: remote for remote in found[0].remotes}
    remote = remotes["image.csv"]
    obtain(remote.url, remote.target, remote.receipt, QUICK)
    downloaded = tmp_path / "images/downloaded"
    (downloaded / "x_7w1.zip").write_bytes(bytes(20_000))  # brought by hand
    server.answers["x_7w2.zip"] = [Answer(stop_after=10_000), Answer(stop_after=0)]
    remote = remotes["x_7w2.zip"]
    with pytest.raises(InputError):
        fetch(remote.url, part_of(remote.receipt), TransferSettings(1, 1.0, 1.0))
    server.asked.clear()
    states = ask(found, QUICK)
    assert {path for _, path, _ in server.asked} == {"x_7w2.zip", "x_8w1.zip", "x_8w2.zip"}
    lines, _ = announcement(found, states, PLAN)
    assert "here: 2 files, 31.0 kB; to fetch: 3 files, 110.0 kB" in lines[0]


def test_the_plan_says_what_it_cannot_know(server, tmp_path):
    put_screen(server, WHOLE)
    server.head["x_7w1.zip"] = Answer(length=False)
    server.head["x_7w2.zip"] = Answer(405)
    found = sources({"mine": entry(server, tmp_path)})
    lines, value = announcement(found, ask(found, QUICK), PLAN)
    assert "to fetch: 5 files, 91.0 kB and 2 files of unknown size" in lines[0]
    assert value["screens"]["mine"]["unknown_files"] == 2


def test_the_plan_names_all_files_that_cannot_be_had(server, tmp_path):
    put_screen(server, WHOLE)
    del server.files["x_7w2.zip"], server.files["x_8w1.zip"]
    with pytest.raises(NotServed, match="2 of 5 files cannot be had: x_7w2.zip, x_8w1.zip. The"):
        ask(sources({"mine": entry(server, tmp_path)}), QUICK)


def test_room_is_checked_for_all_archives_or_for_one_plates_at_a_time(
    server, tmp_path, monkeypatch
):
    put_screen(server, WHOLE)
    found = sources({"mine": entry(server, tmp_path)})
    states = ask(found, QUICK)
    deleting = PlanSettings(True, 1.0, 2.0)
    # 1 kB file, 140 kB archives (90 of the larger plate), 280 kB images.
    for settings, needed in ((PLAN, 421_000), (deleting, 371_000)):
        room(monkeypatch, needed)
        check_room(disks(found, states, settings), settings)
        room(monkeypatch, needed - 1)
        with pytest.raises(InputError, match=f"about {needed / 1000} kB are needed") as caught:
            check_room(disks(found, states, settings), settings)
        advises = "delete_archives to true (371.0 kB)" in str(caught.value)
        assert advises != settings.delete_archives
    (tmp_path / "images/downloaded").mkdir(parents=True)
    (tmp_path / "images/downloaded/8.unpacked.json").write_text("{}")
    assert disks(found, states, PLAN)[0].images == 100_000


def test_screens_that_share_a_folder_share_what_they_share(server, tmp_path):
    put_screen(server, WHOLE)
    one, two = entry(server, tmp_path, plates=["7"]), entry(server, tmp_path)
    found = sources({"one": one, "two": two})
    states = ask(found, QUICK)
    assert len(server.asked) == len(states) == 5
    lines, value = announcement(found, states, PLAN)
    assert lines[2].startswith("together: 5 files, 141.0 kB")
    assert [disk["needed"] for disk in value["disks"]] == [421_000]
    order = [path.name for path in steps(found)]
    assert order == [
        "image.csv.json",
        "x_7w1.zip.json",
        "x_7w2.zip.json",
        "7.unpacked.json",
        "x_8w1.zip.json",
        "x_8w2.zip.json",
        "8.unpacked.json",
    ]


def archives_with(**changes) -> dict:
    plain = {"url": "https://x/y", "plate": ["{plate}.zip"], "files": ["image.csv"]}
    return {"images": "images", "plates": ["7", "8"], "archives": plain | changes}


def test_names_become_addresses_and_places():
    screen = sources({"s": archives_with(files=["a b.csv"])})[0]
    assert screen.files[0] == Remote(
        "s",
        "a b.csv",
        "https://x/y/a%20b.csv",
        Path("images/a b.csv"),
        Path("images/downloaded/a b.csv.json"),
    )
    assert screen.plates[0].archives[0].target == Path("images/downloaded/7.zip")
    assert sources({"s": {"images": "images", "plates": ["7"]}}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "ftp://x"}, "'ftp://x' must be http:// or https:// and a server's name"),
        ({"url": "file:///x"}, "'file:///x' must be http://"),
        ({"url": "https://me:secret@x/y"}, "must be http:// or https:// and a server's name"),
        ({"plate": ["all.zip"]}, "'all.zip' must hold {plate} and end with .zip"),
        ({"plate": ["{plate}.tar"]}, "'{plate}.tar' must hold {plate} and end with .zip"),
        ({"files": ["../x.csv"]}, "'../x.csv' is not a plain file name"),
        ({"plate": ["a/{plate}.zip"]}, "'a/7.zip' is not a plain file name"),
        ({"files": ["x.csv", "x.csv"]}, "two files would be images/downloaded/x.csv"),
        ({"files": ["7.unpacked"]}, "plate 7 would be unpacked into images from two sets"),
    ],
)
def test_archives_that_cannot_be_are_named(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        sources({"s": archives_with(**changes)})


def test_two_screens_with_other_files_under_one_name_are_refused():
    one, two = archives_with(), archives_with(url="https://z")
    with pytest.raises(InputError, match="screens.two.archives: two files would be images/down"):
        sources({"one": one, "two": two})
    three = archives_with(plate=["{plate}.zip", "{plate}b.zip"])
    with pytest.raises(InputError, match="screens.three: plate 7 would be unpacked into images"):
        sources({"one": one, "three": three})
    assert len(sources({"one": one, "two": two | {"images": "elsewhere"}})) == 2


def test_sizes_and_times_in_words():
    words = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 233 * 10**9: "233.0 GB"}
    assert {count: sizes.in_words(count) for count in words} == words
    assert sizes.in_words(3 * 10**12) == "3.0 TB"
    times = {0: "less than a minute", 60: "1 min", 9360: "2 h 36 min"}
    assert {seconds: sizes.duration_in_words(seconds) for seconds in times} == times


def test_progress_in_bytes_is_shown_in_megabytes(capsys):
    progress = sizes.ByteProgress(5_500_000, "x.zip", start=2_000_000)
    for _ in range(35):
        progress.update(100_000)
    progress.close()
    assert "x.zip: 100%" in capsys.readouterr().err
    unknown = sizes.ByteProgress(None, "y.zip")
    unknown.update(3_000_000)
    unknown.close()
    assert "y.zip: 3 MB" in capsys.readouterr().err


# --- The workflow

HEADER = ["PlateID", "CPD_WELL_POSITION", "ASSAY_WELL_ROLE", "SOURCE_COMPOUND_NAME"]
IMAGE_CSV = ",".join(f"Image_Metadata_{name}" for name in (*HEADER, "CPD_MMOL_CONC"))


def bbbc022_archive(plate: str, channel: str) -> bytes:
    folder = f"BBBC022_v1_images_{plate}{channel}"
    name = "IXMtest_{}_s1_{}00000000-0000-0000-0000-0000000000{}.tif"
    return zipped(
        {
            f"{folder}/{name.format(well, channel, number)}": BYTES[number:]
            for number, well in enumerate(("B02", "B03"), start=10)
        }
    )


@pytest.mark.dag
def test_the_workflow_announces_then_fetches_a_plate_at_a_time_and_never_twice(server, tmp_path):
    project = Project(tmp_path / "project")
    images = tmp_path / "images"
    plates, channels = ("20585", "20586"), ("w1", "w2")
    server.put("image.csv", f"{IMAGE_CSV}\n20585,B02,mock,DMSO,0\n".encode())
    for plate in plates:
        for channel in channels:
            name = f"BBBC022_v1_images_{plate}{channel}.zip"
            server.put(name, bbbc022_archive(plate, channel))
    first = "BBBC022_v1_images_20585w1.zip"
    server.answers[first] = [Answer(stop_after=60_000)]
    screen = {
        "layout": "bbbc022",
        "images": str(images),
        "image_csv": str(images / "image.csv"),
        "archives": {
            "url": server.url,
            "plate": [f"BBBC022_v1_images_{{plate}}{channel}.zip" for channel in channels],
            "files": ["image.csv"],
        },
        "plates": list(plates),
        "pretrain_plates": [],
        "evaluation_wells": ["B02"],
        "nucleus_channel": "w1",
        "composite": ["w1", "w2", "w1"],
        "labels": [],
    }
    study = {
        "study": {"name": "got", "train": "mine", "test": [], "encoders": ["random_resnet18"]},
        "screens": {"mine": screen},
        "download": {"backoff_s": 0.1, "delete_archives": True},
    }
    (project.folder / "got.yaml").write_text(yaml.safe_dump(study))

    def snakemake(*words: str) -> str:
        done = project.run(*words, "--cores", "4", "--configfile", "got.yaml")
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    printed = snakemake("download")
    size = sum(len(content) for content in server.files.values())
    said = f"mine: 5 files, {sizes.in_words(size)}; to fetch: 5 files"
    assert printed.index(said) < printed.index("localrule download_file")
    order = [(method, path) for method, path, _ in server.asked]
    names = [f"BBBC022_v1_images_{plate}{channel}.zip" for plate in plates for channel in channels]
    assert order[:5] == [("HEAD", "image.csv"), *(("HEAD", name) for name in names)]
    assert [path for _, path in order[5:]] == ["image.csv", first, *names]
    assert server.ranges()[2].startswith("bytes=")
    made = [Path(path).name for path in re.findall(r"output: (\S+json)$", printed, re.MULTILINE)]
    receipts = [f"{name}.json" for name in names]
    chain = ["image.csv.json", *receipts[:2], "20585.unpacked.json"]
    assert made == [*chain, *receipts[2:], "20586.unpacked.json"]

    downloaded = images / "downloaded"
    assert {path.name for path in downloaded.iterdir()} == set(made)
    for plate in plates:
        for channel in channels:
            with zipfile.ZipFile(io.BytesIO(bbbc022_archive(plate, channel))) as packed:
                for name in packed.namelist():
                    assert (images / name).read_bytes() == packed.read(name)
    runs = project.folder / "results/got/runs"
    keys = {json.loads(path.read_text())["key"] for path in runs.rglob("run.json")}
    assert keys == (
        {"download/plan"}
        | {f"download/mine/{name}" for name in ["image.csv", *names]}
        | {f"unpack/mine/{plate}" for plate in plates}
    )

    # Nothing is fetched again: not by another study, not with other settings, not by force.
    server.asked.clear()
    study["study"]["name"], study["download"]["attempts"] = "other", 3
    (project.folder / "got.yaml").write_text(yaml.safe_dump(study))
    assert "Nothing to be done" in snakemake("download")
    snakemake("--forceall", "download")
    assert server.asked == []

    # What was deleted is fetched again, and nothing else; what was fetched is what indexing reads.
    shutil.rmtree(images / "BBBC022_v1_images_20586w1")
    for name in ("20586.unpacked", names[2], names[3]):
        (downloaded / f"{name}.json").unlink()
    fields = "results/other/screens/mine/20585.fields.parquet"
    snakemake("download", fields)
    assert [path for method, path, _ in server.asked if method == "GET"] == names[2:]
    assert (images / "BBBC022_v1_images_20586w1").is_dir()
    assert pd.read_parquet(project.folder / fields)["well"].tolist() == ["B02", "B03"]


@pytest.mark.dag
def test_a_study_without_archives_says_so(tmp_path):
    done = Project(tmp_path / "project").study("--", "download")
    assert done.returncode != 0
    assert "error: no screen of the study has archives to download" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.dag
def test_archives_that_cannot_be_stop_the_workflow_with_one_message(tmp_path):
    project = Project(tmp_path / "project")
    wrong = {"screens": {"BBBC022": {"archives": {"url": "ftp://x"}}}}
    (project.folder / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    done = project.run("--cores", "1", "--configfile", "wrong.yaml", "--dry-run", "download")
    assert done.returncode != 0
    assert (
        "config: screens.BBBC022.archives.url: 'ftp://x' must be http:// or https://" in done.stdout
    )
    assert "Traceback" not in done.stdout
