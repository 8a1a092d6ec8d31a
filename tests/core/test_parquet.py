"""Sealed Parquet: whole for everyone, and any changed byte is noticed."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hcsqc.core.errors import Damaged, InputError
from hcsqc.core.parquet import (
    check_body,
    is_sealed,
    promise_seal,
    read_footer,
    read_parquet,
    set_seal,
    write_sealed,
)

ROWS = pa.table({"name": [f"crop {n}" for n in range(40)], "value": np.arange(40.0)})


@pytest.fixture
def path(tmp_path):
    write_sealed(ROWS, tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def changed(path, place):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_sealed_table_is_ordinary_parquet(path):
    assert is_sealed(path) and read_footer(path).num_rows == 40
    assert read_parquet(path, ours=True).equals(ROWS)
    assert pq.read_table(path, page_checksum_verification=True).equals(ROWS)
    pd.testing.assert_frame_equal(pd.read_parquet(path), ROWS.to_pandas())
    with duckdb.connect() as base:
        assert base.execute(f"select sum(value) from '{path}'").fetchone() == (780.0,)


def test_a_changed_byte_is_noticed_by_the_files_name(path):
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content)
        changed(path, place)
        with pytest.raises(InputError, match=r"t.parquet: .*delete it and run again"):
            read_parquet(path, ours=True)


def test_pages_carry_checksums(path):
    column = read_footer(path).row_group(0).column(1)
    changed(path, column.dictionary_page_offset + column.total_compressed_size - 3)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_table_of_ones_own_needs_no_seal_but_ours_does(tmp_path):
    pq.write_table(ROWS, tmp_path / "own.parquet")
    assert read_parquet(tmp_path / "own.parquet", ["value"]).equals(ROWS.select(["value"]))
    with pytest.raises(Damaged, match="own.parquet: .*it has no digest: another version"):
        read_parquet(tmp_path / "own.parquet", ours=True)


def test_a_table_that_another_program_wrote_anew_has_no_seal(path):
    pq.write_table(pq.read_table(path), path)
    assert not is_sealed(path) and read_parquet(path).equals(ROWS)


def test_what_is_left_out_may_change_and_nothing_else(tmp_path):
    path, (begin, end) = tmp_path / "t.parquet", (20, 30)
    with pq.ParquetWriter(path, ROWS.schema) as writer:
        writer.write_table(ROWS)
        promise_seal(writer)
    set_seal(path, [(begin, end)])
    content = path.read_bytes()
    for place in range(10, 40):
        path.write_bytes(content)
        changed(path, place)
        assert is_sealed(path)
        if begin <= place < end:
            check_body(path, [(begin, end)])
        else:
            with pytest.raises(Damaged, match="its content does not match its digest"):
                check_body(path, [(begin, end)])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text, no Parquet", b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_is_named(tmp_path, content):
    (tmp_path / "t.parquet").write_bytes(content)
    for read in (read_parquet, read_footer, is_sealed):
        with pytest.raises(InputError, match="t.parquet: cannot be read as Parquet"):
            read(tmp_path / "t.parquet")
