"""Files appear whole or not at all; digests are the standard ones."""

import hashlib
import json

import pytest

from hcsqc.core.files import atomic, sha256, text_digest, write_json

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
