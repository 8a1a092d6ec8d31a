"""What passes is waited out, what stays is named, and what is absent is neither."""

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcsqc.core import patience
from hcsqc.core.errors import InputError
from hcsqc.core.patience import list_folder, look, patiently

ABSENT = [errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG]
OF_THE_FILE = [*ABSENT, errno.EISDIR, errno.EINVAL, errno.EOVERFLOW]
REFUSED = [errno.EACCES, errno.EPERM]
PASSING = sorted(set(errno.errorcode) - set(OF_THE_FILE) - set(REFUSED))
TRIES = len(patience.WAITS_S) + 1


@pytest.fixture(autouse=True)
def waited(monkeypatch):
    seconds = []
    monkeypatch.setattr(patience.time, "sleep", seconds.append)
    return seconds


def failing(times, number, path="/plate/B02.tif"):
    """Return an action that fails so many times, and the list of its calls."""
    calls = []

    def action():
        calls.append(1)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number), path)
        return "pixels"

    return action, calls


@given(number=st.sampled_from(PASSING), times=st.integers(0, TRIES - 1))
def test_an_error_that_passes_costs_nothing(number, times):
    action, calls = failing(times, number)
    assert patiently(action, "x") == "pixels" and len(calls) == times + 1


@given(number=st.sampled_from(PASSING))
def test_an_error_that_stays_is_one_line_that_names_the_file(number):
    action, calls = failing(99, number)
    with pytest.raises(InputError) as caught:
        patiently(action, "x")
    assert len(calls) == TRIES
    text = str(caught.value)
    assert text.startswith("/plate/B02.tif: cannot be read, not even after 3.75 s (")
    assert os.strerror(number) in text and "\n" not in text


def test_waits_grow_and_end(waited):
    with pytest.raises(InputError):
        patiently(failing(99, errno.ESTALE)[0], "x")
    assert waited == list(patience.WAITS_S) == sorted(waited) and 1 < sum(waited) < 10


@pytest.mark.parametrize("number", REFUSED)
def test_what_is_not_permitted_is_not_tried_again(waited, number):
    action, calls = failing(1, number)
    message = "^/plate/B02.tif: permission denied; make it readable for this account$"
    with pytest.raises(InputError, match=message):
        patiently(action, "x")
    assert len(calls) == 1 and not waited


@pytest.mark.parametrize("number", OF_THE_FILE)
def test_an_error_of_the_file_itself_passes_through(waited, number):
    action, calls = failing(1, number)
    with pytest.raises(OSError):
        patiently(action, "x")
    assert len(calls) == 1 and not waited


def test_an_error_of_a_decoder_that_calls_it_an_oserror_passes_through():
    def action():
        raise OSError("not a gzipped file")

    with pytest.raises(OSError, match="not a gzipped file"):
        patiently(action, "x")


def test_only_what_is_absent_is_absent(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("x")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert list_folder(tmp_path) == ["a", "b", "circle"]
    assert stat.S_ISDIR(look(tmp_path / "b").st_mode)
    for name in ("gone", "a/b", "circle", "x" * 300):
        assert look(tmp_path / name) is None and list_folder(tmp_path / name) == []
    for number in (errno.ESTALE, errno.EACCES):
        for function in ("stat", "listdir"):
            action, _ = failing(99, number, str(tmp_path))
            monkeypatch.setattr(patience.os, function, lambda path, action=action: action())
        for ask in (look, list_folder):
            with pytest.raises(InputError, match=f"^{tmp_path}: "):
                ask(tmp_path)
