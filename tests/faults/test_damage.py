"""Flipped bits, zeroed blocks and cut ends of our files: noticed by name, or without effect.

HCSQC_TRIALS sets how often each kind of file is damaged.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hcsqc.core.errors import InputError
from tests.faults.kinds import HEALING, KINDS

TRIALS = int(os.environ.get("HCSQC_TRIALS", 30))
BLOCK_BYTES = 4096


def flip_a_bit(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Change one bit somewhere."""
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


def zero_a_block(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Zero one of the blocks of a disk, or of a small file a part."""
    if len(content) > 2 * BLOCK_BYTES:
        begin = BLOCK_BYTES * rng.integers(len(content) // BLOCK_BYTES)
        end = begin + BLOCK_BYTES
    else:
        begin, end = np.sort(rng.integers(len(content) + 1, size=2))
    content[begin:end] = bytes(len(content[begin:end]))
    return content


def cut_the_end(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Keep the first bytes only."""
    return content[: rng.integers(len(content))]


@pytest.mark.long
@pytest.mark.parametrize("damage", [flip_a_bit, zero_a_block, cut_the_end])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_noticed_by_name_or_changes_nothing(kind, damage, tmp_path, capsys):
    make, read = KINDS[kind]
    whole = tmp_path / "whole"
    whole.mkdir()
    make(whole)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    expected = read(copied(whole, tmp_path / "read"))
    noticed = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng(trial)
        name = names[trial % len(names)]
        folder = copied(whole, tmp_path / "damaged")
        content = (whole / name).read_bytes()
        changed = bytes(damage(bytearray(content), rng))
        if changed == content:
            continue
        (folder / name).write_bytes(changed)
        capsys.readouterr()
        try:
            found = read(folder)
        except InputError as error:
            assert kind not in HEALING
            assert name.name in str(error) and "\n" not in str(error), error
            noticed += 1
            continue
        told = capsys.readouterr().err
        if kind == "checkpoints":
            first = found[0] == 1  # the one before
            noticed += first
            assert name.name in told if first else found == expected
            assert found[1][7] == 7.0 * found[0]
        else:
            assert found == expected, (trial, name)
            noticed += name.name in told
    assert noticed > TRIALS / 3  # of checkpoints only the newest is read


def copied(folder: Path, to: Path) -> Path:
    """Return a fresh copy of a folder."""
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(folder, to)
