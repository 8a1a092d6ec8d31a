"""Crops on a node's own disk: copied with their times, gone afterwards, refused without room."""

import os
import shutil
from collections import namedtuple

import pytest

from hcsqc.core.errors import InputError
from hcsqc.pretraining.scratch import on_scratch


@pytest.fixture
def shards(tmp_path):
    paths = []
    for name in ("a/p1.parquet", "a/p2.parquet", "b/p1.parquet"):
        path = tmp_path / "crops" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, ns=(5, 123_456_789))
        paths.append(path)
    return paths


def test_without_a_folder_shards_are_read_where_they_lie(shards):
    with on_scratch(shards, "") as paths:
        assert paths == shards


def test_copies_keep_content_name_screen_and_time_and_are_gone_afterwards(
    shards, tmp_path, monkeypatch
):
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "node"))
    with on_scratch(shards, "$NODE_DISK") as paths:
        assert [path.read_text() for path in paths] == [path.read_text() for path in shards]
        assert [(p.parent.name, p.name) for p in paths] == [(p.parent.name, p.name) for p in shards]
        assert {path.stat().st_mtime_ns for path in paths} == {123_456_789}
        assert all(path.is_relative_to(tmp_path / "node") for path in paths)
    assert list((tmp_path / "node").iterdir()) == []


def test_copies_are_gone_after_an_error(shards, tmp_path):
    with pytest.raises(ZeroDivisionError), on_scratch(shards, str(tmp_path)):
        raise ZeroDivisionError
    assert not list(tmp_path.glob("hcsqc-*"))


@pytest.mark.parametrize("folder", ["/no/such/place", "$UNSET_VARIABLE_OF_NOBODY"])
def test_a_folder_that_is_not_there_is_named(shards, folder):
    with pytest.raises(InputError, match="no such folder on this node"), on_scratch(shards, folder):
        pass


def test_a_disk_without_room_is_refused_before_anything_is_copied(shards, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10))
    with pytest.raises(InputError, match="do not fit"), on_scratch(shards, str(tmp_path)):
        pass
    assert not list(tmp_path.glob("hcsqc-*"))
