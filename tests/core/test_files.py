"""Files appear whole or not at all; digests are the standard ones."""

import hashlib
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from hcsqc.core.errors import Damaged, InputError
from hcsqc.core.files import (
    atomic,
    check_sha256,
    read_checked_json,
    sha256,
    text_digest,
    write_checked_json,
    write_json,
)

ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_makes_folders_and_leaves_only_the_file(tmp_path):
    with atomic(tmp_path / "a" / "b" / "table.csv") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "table.csv").read_text() == "x"
    assert names(tmp_path / "a" / "b") == ["table.csv"]


def test_atomic_shows_the_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic(str(path)) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # a rename across file systems is no rename
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_keeps_the_old_content_when_the_block_raises(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), atomic(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


def test_atomic_leaves_nothing_when_the_first_write_raises(tmp_path):
    with pytest.raises(ValueError, match="disk"), atomic(tmp_path / "table.csv") as temporary:
        temporary.write_text("half")
        raise ValueError("disk")
    assert names(tmp_path) == []


def test_atomic_refuses_a_block_that_wrote_nothing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic(path):
        pass
    assert path.read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_is_readable_as_the_umask_says_also_where_a_library_hides_it(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "weights.safetensors") as temporary:
            save_file({"a": np.zeros(3)}, temporary)
        with atomic(tmp_path / "text") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert names(tmp_path) == ["text", "weights.safetensors"]
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == mode


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    write_json({"b": [1, None], "a": "x"}, tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text) == {"a": "x", "b": [1, None]}
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json({"auc": 0.5}, tmp_path / "run.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"auc": float("nan")}, tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == {"auc": 0.5}
    assert names(tmp_path) == ["run.json"]


def test_digests_have_the_known_answer(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == text_digest("abc") == ABC_SHA256


def test_digest_of_a_large_file_covers_every_byte(tmp_path):
    content = bytes(range(256)) * 8192
    (tmp_path / "large").write_bytes(content)
    assert sha256(str(tmp_path / "large")) == hashlib.sha256(content).hexdigest()
    (tmp_path / "large").write_bytes(content[:-1] + b"x")
    assert sha256(tmp_path / "large") != hashlib.sha256(content).hexdigest()


CHOICE = {"b": [1, None], "a": {2: 0.1, 10: "\u00e4"}}


def test_checked_json_comes_back_without_its_digest(tmp_path):
    path = tmp_path / "choice.json"
    write_checked_json(CHOICE, path)
    assert read_checked_json(path) == {"b": [1, None], "a": {"2": 0.1, "10": "\u00e4"}}
    assert set(json.loads(path.read_text())) == {"a", "b", "content_sha256"}
    write_json(CHOICE, path)  # of another version
    assert read_checked_json(path)["b"] == [1, None]


@pytest.mark.parametrize(
    ("before", "after"), [(b"0.1", b"0.3"), (b'"b"', b'"c"'), (b"null", b"0000"), (b"}", b"")]
)
def test_changed_json_is_named(tmp_path, before, after):
    path = tmp_path / "choice.json"
    write_checked_json(CHOICE, path)
    path.write_bytes(path.read_bytes().replace(before, after))
    with pytest.raises(Damaged, match=r"choice.json: is damaged.*delete it and run again"):
        read_checked_json(path)


def test_json_that_is_missing_or_no_mapping_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.json: no such file"):
        read_checked_json(tmp_path / "gone.json")
    write_json([1], tmp_path / "list.json")
    with pytest.raises(Damaged, match="list.json: is damaged .it holds no keys"):
        read_checked_json(tmp_path / "list.json")


def test_a_file_with_another_digest_is_named_with_its_source(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    check_sha256(tmp_path / "abc", ABC_SHA256, "about.json")
    (tmp_path / "abc").write_bytes(b"abx")
    with pytest.raises(
        Damaged, match=r"abc: is damaged, or not the file that about.json describes"
    ):
        check_sha256(tmp_path / "abc", ABC_SHA256, "about.json")
    with pytest.raises(InputError, match="gone: cannot be read"):
        check_sha256(tmp_path / "gone", ABC_SHA256, "about.json")
