"""Downloads, from a server that breaks off, refuses, stalls, changes and damages files."""

import errno
import json
import random
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import urllib3
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.files import first_here, sha256
from hcsqc.download import transfer
from hcsqc.download.archives import steps
from hcsqc.download.obtain import obtain, part_of
from hcsqc.download.plan import PlanSettings, announcement, ask, check_room
from hcsqc.download.sizes import in_words
from hcsqc.download.transfer import NotServed, TransferSettings
from hcsqc.download.unpack import Damaged, unpack, verify
from scripts.download import unpack_plate
from tests.conftest import ROOT, Project
from tests.download.conftest import BYTES, Answer, patched, zipped

QUICK = TransferSettings(attempts=3, backoff_s=2.0, timeout_s=0.5)
ONCE = TransferSettings(attempts=1, backoff_s=1.0, timeout_s=0.5)
PLATE = zipped({f"folder/{number}.tif": BYTES[number:] for number in range(3)})
CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"  # what records of an archive begin with
WRONG_BYTE = patched(PLATE, BYTES[100:200], 0, b"?")
WRONG_END = PLATE[:-3000] + bytes(3000)
CUT = [PLATE[:end] for end in range(0, len(PLATE), 29_999)]
JUNE_1, JUNE_2 = "Mon, 01 Jun 2015 10:00:00 GMT", "Tue, 02 Jun 2015 10:00:00 GMT"


def get(server, folder: Path, name: str = "a.csv", settings=QUICK) -> dict:
    """Obtain a file as the script does; return its receipt."""
    receipt = folder / "downloaded" / f"{name}.json"
    return obtain(server.url + name, folder / name, receipt, settings)


def get_in_part(server, folder: Path, name: str = "a.csv", size: int = 20_000) -> Path:
    """Obtain so many bytes of a file; return where they are."""
    server.answers[name] = [Answer(stop_after=size), Answer(stop_after=0)]
    with pytest.raises(InputError, match="broken off.* the partial download was kept"):
        get(server, folder, name, ONCE)
    part = folder / "downloaded" / f"{name}.part"
    assert part.stat().st_size == size and not (folder / name).exists()
    return part


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- Transfers


def test_a_file_comes_whole_and_its_receipt_says_what_it_is(server, tmp_path, capsys):
    url = server.put("a.csv", BYTES)
    receipt = get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert files_in(tmp_path) == {"a.csv", "downloaded/a.csv.json"}
    assert json.loads((tmp_path / "downloaded/a.csv.json").read_text()) == receipt
    assert (receipt["url"], receipt["bytes"], receipt["etag"]) == (url, 50_000, '"one"')
    assert receipt["sha256"] == sha256(tmp_path / "a.csv")
    assert receipt["fetched"] and datetime.fromisoformat(receipt["finished"]).tzinfo
    assert server.ranges() == [None]
    assert re.match(r"a\.csv: 100%.* 50/50 \[.*<.* MB/s\]\n", capsys.readouterr().err)


STOP = Answer(stop_after=20_000)
ANEW = "downloading it from the start"


@pytest.mark.parametrize(
    ("version", "answers", "starts", "said"),
    [
        ({}, [STOP, Answer(stop_after=10_000)], [20_000, 30_000], "at 30000 of 50000.* continues"),
        ({"etag": None, "date": JUNE_1}, [STOP], [20_000], "broken off at 20000 of 50000"),
        ({}, [Answer(stop_after=20_000, stalls=True)], [20_000], "ReadTimeoutError"),
        ({}, [STOP, Answer(ranges=False)], [20_000], ANEW),
        ({"etag": None}, [STOP], [None], ANEW),
        ({"etag": 'W/"weak"'}, [STOP], [None], ANEW),
        ({}, [STOP, Answer(503, body=b"sorry")], [20_000] * 2, "the server answered 503"),
        *[({}, [Answer(s)] * 2, [None] * 2, f"answered {s}") for s in (408, 425, 429, 500, 502)],
        ({}, [Answer(206, body=BYTES[:9])], [None], "the file on the server has changed"),
        ({}, [Answer(length=False)], [], "gave no length; the file may be incomplete"),
    ],
)
def test_a_transfer_that_fails_is_said_and_goes_on_if_it_can(
    server, tmp_path, capsys, version, answers, starts, said
):
    server.put("a.csv", BYTES, **version)
    server.answers["a.csv"] = list(answers)
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges() == [None, *[start and f"bytes={start}-" for start in starts]]
    validator = version.get("date") or '"one"'
    assert all(headers.get("If-Range", validator) == validator for headers in server.gets())
    assert all(("Range" in headers) == ("If-Range" in headers) for headers in server.gets())
    assert re.search(rf"^a\.csv: .*{said}", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_breaks_the_bytes_are_the_servers(server, tmp_path, seed):
    chance = random.Random(seed)
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [
        Answer(stop_after=chance.randrange(0, 20_000), ranges=chance.random() < 0.9)
        for _ in range(chance.randrange(1, 8))
    ]
    get(server, tmp_path, settings=TransferSettings(attempts=20, backoff_s=1.0, timeout_s=1.0))
    assert (tmp_path / "a.csv").read_bytes() == BYTES


def test_attempts_count_anew_after_each_one_that_came_further(server, tmp_path, waits):
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(stop_after=5000) for _ in range(9)]
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert waits == []


@pytest.mark.parametrize("ranges", [True, False])
def test_attempts_that_come_no_further_end_and_what_has_come_is_kept(server, tmp_path, ranges):
    """Also from a server that ever starts over, and breaks off earlier."""
    url = server.put("a.csv", BYTES)
    server.answers["a.csv"] = [STOP]
    server.always["a.csv"] = Answer(stop_after=100, ranges=ranges)
    with pytest.raises(InputError, match=f"^{url}: broken off at .*given up, the partial"):
        get(server, tmp_path)
    assert len(server.gets()) == 4  # the first came further
    came = 20_300 if ranges else 100
    assert (tmp_path / "downloaded/a.csv.part").read_bytes() == BYTES[:came]
    server.always.clear()
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.ranges()[-1] == f"bytes={came}-"


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("7", 7, 7), ("86400", 600, 600), (timedelta(seconds=300), 240, 300), (None, 0, 0)],
)
def test_a_server_that_asks_for_patience_gets_it_within_reason(
    server, tmp_path, waits, asked, least, most
):
    """In seconds or with a date; if it does not ask, the waits grow."""
    if isinstance(asked, timedelta):
        asked = format_datetime(datetime.now(UTC) + asked, usegmt=True)
    server.put("a.csv", BYTES)
    server.answers["a.csv"] = [Answer(429, {"Retry-After": asked} if asked else {}), Answer(500)]
    get(server, tmp_path)
    assert least <= waits[0] <= most
    assert 4.0 <= waits[1] <= 6.0  # twice backoff_s, and up to one more by chance


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "length"),
    [
        *[({"etag": '"one"'}, {"etag": '"two"'}, length) for length in (50_000, 60_000, 10_000)],
        ({"etag": None, "date": JUNE_1}, {"etag": None, "date": JUNE_2}, 50_000),
        ({"etag": None, "date": JUNE_1}, {"etag": None, "date": JUNE_1}, 60_000),
    ],
)
def test_a_file_that_changes_meanwhile_is_fetched_from_its_start(
    server, tmp_path, capsys, if_range, before, after, length
):
    """With and without a server that heeds If-Range; the new version longer, as long, shorter."""
    server.put("a.csv", BYTES, **before)
    get_in_part(server, tmp_path)
    changed = random.Random(2).randbytes(length)
    server.put("a.csv", changed, **after)
    server.always["a.csv"] = Answer(if_range=if_range)
    receipt = get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == changed
    assert (receipt["etag"], receipt["last_modified"]) == (after["etag"], after.get("date"))
    assert ANEW in capsys.readouterr().err


def test_what_is_here_of_another_address_or_of_unknown_version_is_not_gone_on_with(
    server, tmp_path
):
    server.put("a.csv", BYTES)
    server.put("b.csv", BYTES[::-1])
    part = get_in_part(server, tmp_path)
    obtain(server.url + "b.csv", tmp_path / "b", tmp_path / "downloaded/a.csv.json", QUICK)
    assert (tmp_path / "b").read_bytes() == BYTES[::-1]
    part.write_bytes(b"x" * 20_000)
    part.with_name("a.csv.part.json").write_text("{")
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES


def test_what_had_come_whole_before_a_kill_is_not_fetched_again(server, tmp_path):
    server.put("a.csv", BYTES)
    get_in_part(server, tmp_path).write_bytes(BYTES)
    server.asked.clear()
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    assert server.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        *[Answer(status) for status in (404, 410, 403, 401, 204)],
        Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>", length=False),
    ],
)
def test_what_the_server_does_not_have_or_give_fails_at_once(server, tmp_path, waits, answer):
    """A login page is no file."""
    server.put("a.csv", BYTES)
    server.always["a.csv"] = answer
    with pytest.raises(NotServed) as caught:
        get(server, tmp_path)
    assert f"{server.url}a.csv: the server answered {answer.status or 200}" in str(caught.value)
    assert "correct archives of its screen" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.gets()) == 1 and waits == []
    assert not (tmp_path / "a.csv").exists()


def test_no_server_is_said_in_one_line_after_the_attempts(tmp_path, server, waits):
    server.close()
    with pytest.raises(InputError, match="refused; given up") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(waits) == 2


def test_a_certificate_that_is_not_trusted_is_said_at_once(server, tmp_path, monkeypatch, waits):
    def refuse(*_, **__):
        raise ssl.SSLCertVerificationError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "_make_request", refuse)
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED.*set REQUESTS_CA_BUNDLE"):
        get(server, tmp_path)
    assert waits == []


def test_redirects_lead_to_the_file_but_only_on_the_web(server, tmp_path):
    server.put("real", BYTES)
    server.always["a.csv"] = Answer(302, headers={"Location": "/real"})
    get(server, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BYTES
    for elsewhere in ("file:///etc/passwd", "ftp://127.0.0.1/x", "/b.csv"):
        server.always["b.csv"] = Answer(302, headers={"Location": elsewhere})
        with pytest.raises(InputError, match="(adapters|redirects).*correct archives.url"):
            get(server, tmp_path, "b.csv")


def test_no_password_and_no_cookie_is_ever_sent(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.put("real", BYTES)
    cookie = {"Set-Cookie": "a=b; Path=/"}
    with_password = server.url.replace("//", "//me:secret@") + "real"
    server.answers["a.csv"] = [
        Answer(503, headers=cookie),
        Answer(302, headers=cookie | {"Location": "/real"}),
        Answer(302, headers=cookie | {"Location": with_password}),
    ]
    server.answers["real"] = [STOP]
    get(server, tmp_path)
    assert len(server.asked) == 5
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

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer.Progress, "update", full)  # after the first bytes
        with pytest.raises(InputError, match="the disk of .* is full.*run the same command"):
            get(server, tmp_path)
    assert not (tmp_path / "a.csv").exists()
    get(server, tmp_path)
    assert server.ranges() == [None, "bytes=100-"]
    assert (tmp_path / "a.csv").read_bytes() == BYTES


def test_two_processes_do_not_fetch_one_file(server, tmp_path, monkeypatch, capsys):
    """Where the disk knows no locks it is said, and the file comes."""
    server.put("a.csv", BYTES)
    with (
        part_of(tmp_path / "downloaded/a.csv.json").alone(),
        pytest.raises(InputError, match="another process is downloading this file"),
    ):
        get(server, tmp_path)

    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(transfer.fcntl, "flock", flock)
    get(server, tmp_path)
    assert "this disk has no locks" in capsys.readouterr().err


# --- Archives


@pytest.mark.parametrize("wrong", [WRONG_BYTE, WRONG_END, *CUT, b"no zip"])
def test_a_damaged_archive_is_fetched_once_more(server, tmp_path, capsys, wrong):
    server.put("a.zip", PLATE)
    server.answers["a.zip"] = [Answer(body=wrong, length=False)]
    get(server, tmp_path, "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == PLATE
    assert server.ranges() == [None, None]
    assert "a.zip arrived damaged (" in capsys.readouterr().err
    server.put("b.zip", wrong)
    with pytest.raises(Damaged, match="b.zip arrived damaged twice"):
        get(server, tmp_path, "b.zip")
    assert len(server.gets()) == 4
    assert not (tmp_path / "b.zip").exists()


def test_an_archive_that_is_here_is_checked_and_not_fetched(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(PLATE)
    receipt = get(server, tmp_path, "a.zip")
    assert server.asked == [] and not receipt["fetched"]
    assert receipt["sha256"] == sha256(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(WRONG_BYTE)
    with pytest.raises(Damaged, match="b.zip is damaged .*delete it"):
        get(server, tmp_path, "b.zip")
    assert (tmp_path / "b.zip").exists()


@pytest.mark.parametrize("change", [(CENTRAL, 10, b"\x09\x00"), (CENTRAL, 8, b"\x01\x00")])
def test_an_archive_that_cannot_be_read_here_is_not_called_damaged(tmp_path, change):
    """Of a compression that zipfile does not know (Deflate64), or encrypted."""
    path = tmp_path / "a.zip"
    path.write_bytes(patched(PLATE, *change))
    with pytest.raises(InputError, match="unpack it manually") as caught:
        verify(path)
    assert not isinstance(caught.value, Damaged)


# --- Unpacking


def archive(folder: Path, name: str, content: bytes | dict[str, bytes]) -> Path:
    path = folder / "images" / "downloaded" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else zipped(content))
    return path


def unpack_all(folder: Path, *archives: Path) -> dict:
    images = folder / "images"
    return unpack(list(archives), images, images / "downloaded" / ".1.unpacking", "unpack 1")


def unpacked(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder but the archives themselves."""
    names = files_in(folder / "images")
    return {name: (folder / "images" / name).read_bytes() for name in names if name[-4:] != ".zip"}


def test_archives_unpack_into_their_folders_and_nothing_else_is_left(tmp_path):
    first = archive(tmp_path, "1w1.zip", {"1w1/a.tif": b"a", "1w1/deep/b.tif": b"bb"})
    second = archive(tmp_path, "1w2.zip", {"1w2/a.tif": b"c", "1w2/.DS_Store": b"junk"})
    rest = tmp_path / "images/downloaded/.1.unpacking/1w1"  # of an unpacking that was killed
    rest.mkdir(parents=True)
    (rest / "half.tif").write_bytes(b"half")
    assert unpack_all(tmp_path, first, second) == {"files": 3, "bytes": 4}
    found = {"1w1/a.tif": b"a", "1w1/deep/b.tif": b"bb", "1w2/a.tif": b"c"}
    assert unpacked(tmp_path) == found
    assert set((tmp_path / "images/downloaded").iterdir()) == {first, second}


def test_a_second_unpacking_beside_one_that_was_left_behind_is_refused_and_harms_nothing(tmp_path):
    path = archive(tmp_path, "1.zip", {"1/a.tif": b"a"})
    others = tmp_path / "images/downloaded/.1.unpacking"
    with first_here(others.with_name(".1.unpacking.lock"), "unpacking this plate"):
        others.mkdir()
        (others / "half.tif").write_bytes(b"half")
        with pytest.raises(InputError, match=r"process \d+ on .* is unpacking this plate.*wait"):
            unpack_all(tmp_path, path)
        assert (others / "half.tif").exists() and not (tmp_path / "images/1").exists()
    unpack_all(tmp_path, path)
    assert unpacked(tmp_path) == {"1/a.tif": b"a"}


def test_plates_may_share_a_folder_and_unpacking_twice_changes_nothing(tmp_path):
    first = archive(tmp_path, "1.zip", {"Week1/1/a.tif": b"a", "Week1/about.txt": b"x"})
    second = archive(tmp_path, "2.zip", {"Week1/2/a.tif": b"b", "Week1/about.txt": b"x"})
    unpack_all(tmp_path, first)
    unpack_all(tmp_path, second)
    found = unpacked(tmp_path)
    assert found["Week1/1/a.tif"] == b"a" and found["Week1/2/a.tif"] == b"b"
    age = (tmp_path / "images/Week1/1/a.tif").stat().st_mtime_ns
    assert unpack_all(tmp_path, first, second)["files"] == 3
    assert unpacked(tmp_path) == found
    assert (tmp_path / "images/Week1/1/a.tif").stat().st_mtime_ns == age


def of_kind(kind: int) -> bytes:
    """Return an archive with a link or a device."""
    mode = ((kind | 0o666) << 16).to_bytes(4, "little")
    return patched(zipped({"1/x": b"../../evil"}), CENTRAL, 38, mode)


A, B = {"1/a.tif": b"a"}, {"1/a.tif/b.tif": b"b"}
OUTSIDE = ("../evil", "1/../../evil", "/tmp/hcsqc_evil", "C:/evil", "..\\evil")
LIE = (100).to_bytes(4, "little")  # of the size, as a bomb does
# Of a size that stored bytes, or so few packed ones, cannot have; and of one that they could have.
HUGE, LONGER = (2**32 - 2).to_bytes(4, "little"), (301).to_bytes(4, "little")
PACKED = zipped({"1/a.tif": bytes(300)}, zipfile.ZIP_DEFLATED)
LIAR = patched(patched(zipped({"1/a.tif": BYTES}), CENTRAL, 24, LIE), LOCAL, 22, LIE)


@pytest.mark.parametrize(
    ("contents", "mine", "problem"),
    [
        *[
            ([{name: b"evil"}], [], "member '.*would lie outside the images folder")
            for name in OUTSIDE
        ],
        ([{"downloaded/x.zip.json": b"evil"}], [], "member 'downloaded/x.*among the archives"),
        *[
            ([of_kind(k)], [], "link or a device")
            for k in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK)
        ],
        ([A, {"1/a.tif": b"b"}], [], "2.zip: member '1/a.tif' differs from the first file"),
        ([A, B], [], "2.zip: .*unpack it manually"),
        ([B, A], [], "2.zip: .*unpack it manually"),
        ([A, WRONG_BYTE], [], "2.zip is damaged .*Bad CRC-32.*delete it and its receipt"),
        ([A, WRONG_END], [], "2.zip is damaged"),
        ([LIAR], [], "1.zip is damaged .*Bad CRC-32"),
        (
            [patched(PACKED, CENTRAL, 24, HUGE)],
            [],
            "announces 4.29GB, more than its compressed bytes",
        ),
        ([patched(zipped(A), CENTRAL, 24, HUGE)], [], "announces 4.29GB, more than its"),
        ([patched(PACKED, CENTRAL, 24, LONGER)], [], "has 300 bytes instead of 301"),
        ([{"1/a\nb.tif": b"x"}], [], r"member '1/a\\nb.tif' has a name with a line break"),
        *[
            ([A], [mine], "exists already, but differs from")
            for mine in ("1", "1/a.tif", "1/a.tif/b")
        ],
    ],
)
def test_what_cannot_be_unpacked_is_named_and_all_stays_as_it_was(
    tmp_path, contents, mine, problem
):
    """Half of a plate is never to be seen, nor anything outside, nor a file of ours replaced."""
    paths = [archive(tmp_path, f"{n}.zip", of) for n, of in enumerate([{"0/a": b"a"}, *contents])]
    for name in mine:
        place = tmp_path / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"mine")
    before = unpacked(tmp_path)
    with pytest.raises(InputError, match=problem):
        unpack_all(tmp_path, *paths)
    assert unpacked(tmp_path) == before
    assert not Path("/tmp/hcsqc_evil").exists()


@hypothesis_settings(deadline=None, max_examples=80)
@given(st.data())
def test_an_archive_that_was_changed_anywhere_is_read_right_or_refused_in_one_line(data):
    members = {f"1/{n}.tif": BYTES[:200] for n in range(4)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.zip"
        with zipfile.ZipFile(path, "w") as made:
            kinds = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
            for (name, content), kind in zip(members.items(), kinds, strict=True):
                made.writestr(name, content, kind)
        changed = bytearray(path.read_bytes())
        places = st.integers(0, len(changed) - 1)
        for place in data.draw(st.lists(places, min_size=1, max_size=3)):
            changed[place] = data.draw(st.integers(0, 255))
        path.write_bytes(changed)
        try:
            verify(path)
            unpack_all(Path(folder), path)
        except InputError as error:
            assert "\n" not in str(error)
            assert not unpacked(Path(folder))
        else:
            assert set(unpacked(Path(folder)).values()) <= {*members.values()}


def room(monkeypatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def test_unpacking_that_would_fill_the_disk_does_not_begin(tmp_path, monkeypatch):
    """Nor does a bomb: what the members announce is what is counted, and all that is unpacked."""
    bomb = zipped({"1/a.tif": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    path = archive(tmp_path, "1.zip", bomb)
    room(monkeypatch, 10**7 - 1)
    with pytest.raises(InputError, match="unpacking needs 10.0MB, the disk has 10.0MB"):
        unpack_all(tmp_path, path)
    assert unpacked(tmp_path) == {}
    room(monkeypatch, 10**7)
    assert unpack_all(tmp_path, path)["bytes"] == 10**7


# --- Scripts


def script(name: str, *words: object) -> subprocess.Popen:
    words = [sys.executable, str(ROOT / "scripts" / "download" / name), *map(str, words)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def unpack_words(folder: Path, deletes: bool) -> list[object]:
    """Put a plate's archive and receipt into place; return the words that unpack it."""
    path = archive(folder, "1.zip", PLATE)
    receipt = path.with_name("1.zip.json")
    content = {"url": "http://x/1.zip", "bytes": len(PLATE), "sha256": sha256(path)}
    receipt.write_text(json.dumps(content))
    words = ["--plate", "1", "--images", folder / "images", "--delete-archives", deletes]
    words += ["--archives", path, "--receipts", receipt]
    words += ["--output", path.with_name("1.unpacked.json")]
    return [*words, "--record", folder / "results/x/runs/unpack/s/1/run.json"]


@pytest.mark.parametrize("deletes", [False, True])
def test_a_plate_is_unpacked_by_hand_and_its_archives_stay_or_go(tmp_path, deletes):
    words = unpack_words(tmp_path, deletes)
    assert script("unpack_plate.py", *words).wait() == 0
    downloaded = tmp_path / "images/downloaded"
    digest = json.loads((downloaded / "1.zip.json").read_text())["sha256"]
    marker = json.loads((downloaded / "1.unpacked.json").read_text())
    assert marker == {"files": 3, "bytes": 149_997, "archives": {"1.zip": digest}}
    assert (tmp_path / "images/folder/2.tif").read_bytes() == BYTES[2:]
    assert (downloaded / "1.zip").exists() != deletes
    record = json.loads((tmp_path / "results/x/runs/unpack/s/1/run.json").read_text())
    assert (record["key"], record["stage"]) == ("unpack/s/1", "unpack")


def test_archives_stay_until_the_marker_is_written(tmp_path, monkeypatch, capsys):
    words = unpack_words(tmp_path, True)
    monkeypatch.setattr(sys, "argv", [unpack_plate.__file__, *map(str, words)])

    def full(value, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpack_plate, "write_json", full)
    with pytest.raises(SystemExit):
        unpack_plate.main()
    assert "No space left on device; make room" in capsys.readouterr().err
    assert (tmp_path / "images/downloaded/1.zip").exists()


def test_an_archive_that_went_before_it_was_unpacked_is_named_with_its_receipt(tmp_path):
    words = unpack_words(tmp_path, True)
    (tmp_path / "images/downloaded/1.zip").unlink()
    process = script("unpack_plate.py", *words)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "error: plate 1: downloaded archives are gone" in said
    assert f"delete {tmp_path}/images/downloaded/1.zip.json\n" in said


def test_a_killed_process_goes_on_where_it_was(server, tmp_path):
    server.put("a.zip", PLATE)
    server.answers["a.zip"] = [Answer(stop_after=100_000, stalls=True)]
    target, receipt = tmp_path / "a.zip", tmp_path / "downloaded/a.zip.json"
    words = ["--url", server.url + "a.zip", "--target", target, "--receipt", receipt]
    words += ["--attempts", 3, "--backoff-s", 0.1, "--timeout-s", 20]
    words += ["--record", tmp_path / "results/x/runs/download/s/a.zip/run.json"]
    process = script("download_file.py", *words)
    part, until = tmp_path / "downloaded/a.zip.part", time.monotonic() + 20
    while not part.exists() or part.stat().st_size < 80_000:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    came = part.stat().st_size
    assert not target.exists() and not receipt.exists()
    assert script("download_file.py", *words).wait() == 0
    assert server.ranges() == [None, f"bytes={came}-"]
    assert target.read_bytes() == PLATE
    record = json.loads((tmp_path / "results/x/runs/download/s/a.zip/run.json").read_text())
    assert record["key"] == "download/s/a.zip"
    assert record["parameters"]["sha256"] == sha256(target)


# --- The plan


PLAN = PlanSettings(delete_archives=False, expected_mb_per_s=0.001, unpacked_factor=2.0)
KB = {"image.csv": 1, "x_7w1.zip": 20, "x_7w2.zip": 30, "x_8w1.zip": 40, "x_8w2.zip": 50}


def screen(server, folder: Path, **changes) -> dict:
    """Return a screen of two plates with two archives each, and a file; the server has them."""
    for name, size in KB.items():
        server.put(name, bytes(1000 * size))
    archives = {"url": server.url, "plate": ["x_{plate}w1.zip", "x_{plate}w2.zip"]}
    return {
        "images": str(folder / "images"),
        "plates": ["7", "8"],
        "archives": archives | {"files": ["image.csv"]},
    } | changes


def test_the_plan_tells_sizes_and_time_and_gets_nothing(server, tmp_path):
    made = steps({"mine": screen(server, tmp_path)})
    lines, value = announcement(made, ask(made, QUICK), PLAN)
    assert lines[0] == "mine: 5 files, 141kB; to download: 5 files, 141kB, 0:02:21 at 0.001 MB/s"
    assert "about 421kB needed (141kB of archives, 280kB of images)" in lines[1]
    assert value["screens"]["mine"]["seconds"] == 141
    assert {method for method, _, _ in server.asked} == {"HEAD"}
    assert files_in(tmp_path) == set()
    assert json.loads(json.dumps(value)) == value


def test_the_plan_counts_what_is_here_wholly_or_in_part(server, tmp_path):
    made = steps({"mine": screen(server, tmp_path)})
    images = tmp_path / "images"
    server.put("x_7w2.zip", BYTES[:30_000])
    get_in_part(server, images, "x_7w2.zip", 10_000)
    get(server, images, "image.csv")
    (images / "downloaded/x_7w1.zip").write_bytes(bytes(20_000))  # brought by hand
    server.asked.clear()
    states = ask(made, QUICK)
    assert {path for _, path, _ in server.asked} == {"x_7w2.zip", "x_8w1.zip", "x_8w2.zip"}
    lines, _ = announcement(made, states, PLAN)
    assert "mine: 5 files, 141kB; to download: 3 files, 110kB" in lines[0]
    (images / "downloaded/image.csv.json").write_text("{")
    with pytest.raises(InputError, match="image.csv.json: damaged .*delete it and run again"):
        ask(made, QUICK)


def test_the_plan_says_what_it_cannot_know(server, tmp_path):
    made = steps({"mine": screen(server, tmp_path)})
    server.head = {"x_7w1.zip": Answer(length=False), "x_7w2.zip": Answer(405)}
    lines, value = announcement(made, ask(made, QUICK), PLAN)
    assert "to download: 5 files, 91.0kB and 2 files of unknown size" in lines[0]
    assert value["screens"]["mine"]["unknown_files"] == 2


def test_the_plan_names_all_files_that_cannot_be_had(server, tmp_path):
    made = steps({"mine": screen(server, tmp_path)})
    del server.files["x_7w2.zip"], server.files["x_8w1.zip"]
    with pytest.raises(
        NotServed, match="2 of 5 files are not available: x_7w2.zip, x_8w1.zip. The"
    ):
        ask(made, QUICK)


def test_room_is_checked_for_all_archives_or_for_one_plates_at_a_time(
    server, tmp_path, monkeypatch
):
    made = steps({"mine": screen(server, tmp_path)})
    states = ask(made, QUICK)
    # 1 kB file, 140 kB archives (90 of the larger plate), 280 kB images.
    for settings, needed in ((PLAN, 421_000), (PlanSettings(True, 1.0, 2.0), 371_000)):
        room(monkeypatch, needed)
        check_room(announcement(made, states, settings)[1], settings)
        room(monkeypatch, needed - 1)
        with pytest.raises(InputError, match=f"about {needed // 1000}kB are needed") as caught:
            check_room(announcement(made, states, settings)[1], settings)
        assert ("delete_archives to true" in str(caught.value)) != settings.delete_archives
    (tmp_path / "images/downloaded").mkdir(parents=True)
    (tmp_path / "images/downloaded/8.unpacked.json").write_text("{}")
    assert announcement(made, states, PLAN)[1]["disks"][0]["images"] == 100_000


def test_screens_that_share_a_folder_share_what_they_share(server, tmp_path):
    one, two = screen(server, tmp_path, plates=["7"]), screen(server, tmp_path)
    made = steps({"one": one, "two": two})
    states = ask(made, QUICK)
    assert len(server.asked) == len(states) == 5
    lines, value = announcement(made, states, PLAN)
    assert lines[0].startswith("one: 3 files, 51.0kB; ")
    assert lines[1].startswith("two: 2 files, 90.0kB; ")
    assert lines[2].startswith("together: 5 files, 141kB; ")
    assert [disk["needed"] for disk in value["disks"]] == [421_000]
    order = "image.csv x_7w1.zip x_7w2.zip 7.unpacked x_8w1.zip x_8w2.zip 8.unpacked"
    assert [path.stem for path in made] == order.split()


def archives_with(**changes) -> dict:
    plain = {"url": "https://x/y", "plate": ["{plate}.zip"], "files": ["image.csv"]}
    return {"images": "images", "plates": ["7", "8"], "archives": plain | changes}


def test_names_become_addresses_and_places():
    made = steps({"s": archives_with(files=["a b.csv"]), "t": {"images": "i", "plates": ["7"]}})
    file = made[Path("images/downloaded/a b.csv.json")]
    assert (file.key, file.url) == ("s/a b.csv", "https://x/y/a%20b.csv")
    assert file.target == Path("images/a b.csv")
    plate = made[Path("images/downloaded/7.unpacked.json")]
    assert (plate.key, plate.images) == ("s/7", Path("images"))
    assert plate.archives[0].target == Path("images/downloaded/7.zip")
    assert len(made) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "ftp://x"}, "'ftp://x' must be http:// or https:// and a server's name"),
        ({"url": "file:///x"}, "'file:///x' must be http://"),
        ({"url": "https://me:secret@x/y"}, "must be http:// or https:// and a server's name"),
        ({"plate": ["all.zip"]}, "'all.zip' must contain {plate} and end with .zip"),
        ({"plate": ["{plate}.tar"]}, "'{plate}.tar' must contain {plate} and end with .zip"),
        ({"files": ["../x.csv"]}, "'../x.csv' is not a plain file name"),
        ({"plate": ["a/{plate}.zip"]}, "'a/7.zip' is not a plain file name"),
        ({"files": ["7.unpacked"]}, "images/downloaded/7.unpacked has two different"),
    ],
)
def test_archives_that_cannot_be_are_named(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        steps({"s": archives_with(**changes)})


def test_two_screens_with_other_files_under_one_name_are_refused():
    one, two = archives_with(), archives_with(url="https://z")
    with pytest.raises(InputError, match="screens.two.archives: images/downloaded/image.csv has"):
        steps({"one": one, "two": two})
    three = archives_with(plate=["{plate}.zip", "{plate}b.zip"])
    with pytest.raises(InputError, match="screens.three.archives: .*/7.unpacked has two different"):
        steps({"one": one, "three": three})
    assert len(steps({"one": one, "two": two | {"images": "elsewhere"}})) == 10
    with pytest.raises(InputError, match="give the folder to unpack them into as images"):
        steps({"one": {"archives": one["archives"]}})


# --- The workflow


@pytest.mark.dag
def test_the_workflow_announces_then_fetches_a_plate_at_a_time_and_never_twice(server, tmp_path):
    project = Project(tmp_path / "project")
    images = tmp_path / "images"
    about_well = ["CPD_WELL_POSITION", "ASSAY_WELL_ROLE", "SOURCE_COMPOUND_NAME", "CPD_MMOL_CONC"]
    header = ",".join(f"Image_Metadata_{column}" for column in ("PlateID", *about_well))
    server.put("image.csv", f"{header}\n20585,B02,mock,DMSO,0\n".encode())
    channels = ("w1", "w2")
    sets = [
        f"BBBC022_v1_images_{plate}{channel}" for plate in (20585, 20586) for channel in channels
    ]
    names = [f"{name}.zip" for name in sets]
    tiffs = {
        f"{name}/IXMtest_{well}_s1_{name[-2:]}00000000-0000-0000-0000-0000000000{site}.tif": of
        for name in sets
        for site, well, of in ((10, "B02", BYTES), (11, "B03", BYTES[1:]))
    }
    for name in sets:
        of_set = {path: content for path, content in tiffs.items() if path.startswith(name)}
        server.put(f"{name}.zip", zipped(of_set))
    server.answers[names[0]] = [Answer(stop_after=60_000)]
    screen = {
        "layout": "bbbc022",
        "images": str(images),
        "image_csv": str(images / "image.csv"),
        "archives": {
            "url": server.url,
            "plate": [f"BBBC022_v1_images_{{plate}}{channel}.zip" for channel in channels],
            "files": ["image.csv"],
        },
        "plates": ["20585", "20586"],
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
    said = f"mine: 5 files, {in_words(size)}; to download: 5 files"
    assert printed.index(said) < printed.index("localrule download_file")
    asked = [(method, path) for method, path, _ in server.asked]
    assert asked[:5] == [("HEAD", name) for name in ["image.csv", *names]]
    assert asked[5:] == [("GET", name) for name in ["image.csv", names[0], *names]]
    assert server.ranges()[2].startswith("bytes=")
    made = [Path(path).name for path in re.findall(r"output: (\S+json)$", printed, re.MULTILINE)]
    receipts = [f"{name}.json" for name in names]
    chain = ["image.csv.json", *receipts[:2], "20585.unpacked.json"]
    assert made == [*chain, *receipts[2:], "20586.unpacked.json"]
    assert files_in(images) == {*tiffs, "image.csv", *(f"downloaded/{name}" for name in made)}
    assert {name: (images / name).read_bytes() for name in tiffs} == tiffs
    runs = (project.folder / "results/got/runs").rglob("run.json")
    assert {json.loads(path.read_text())["key"] for path in runs} == {
        "download/plan",
        *(f"download/mine/{name}" for name in ["image.csv", *names]),
        *(f"unpack/mine/{plate}" for plate in ("20585", "20586")),
    }

    # Nothing is fetched again: not by another study, not with other settings, not by force.
    server.asked.clear()
    study["study"]["name"], study["download"]["attempts"] = "other", 3
    (project.folder / "got.yaml").write_text(yaml.safe_dump(study))
    assert "Nothing to be done" in snakemake("download")
    snakemake("--forceall", "download")
    assert server.asked == []

    # What was deleted is fetched again, and nothing else; what was fetched is what indexing reads.
    shutil.rmtree(images / sets[2])
    for name in ("20586.unpacked", names[2], names[3]):
        (images / f"downloaded/{name}.json").unlink()
    fields = "results/other/screens/mine/20585.fields.parquet"
    snakemake("download", fields)
    assert [path for method, path, _ in server.asked if method == "GET"] == names[2:]
    assert (images / sets[2]).is_dir()
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
