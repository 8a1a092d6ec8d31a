"""Shards: what is written is what pyarrow, pandas, duckdb and the reading in place give back."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.parquet import SEAL
from hcsqc.crops.shards import (
    ROWS_PER_GROUP,
    ShardFormat,
    Shards,
    ShardWriter,
    composite,
    read_format,
    row_addresses,
    shuffled_order,
)

SCALE = {"w1": [100.0, 2000.0, 4095.0], "w2": [150.5, 1800.25, 4095.0]}
FORMAT = ShardFormat(("w1", "w2"), 6, "uint8", SCALE)
PLAIN = {"compression": "none", "use_dictionary": False}


def random_pixels(shard_format, count, seed=0):
    highest = np.iinfo(shard_format.dtype).max
    rng = np.random.default_rng(seed)
    shape = (count, *shard_format.shape)
    return rng.integers(0, highest, shape, shard_format.dtype, endpoint=True)


def crops_named(count, first=0):
    numbers = np.arange(first, first + count)
    return pd.DataFrame(
        {
            "crop_id": [f"s/p/B02/s1/x{number:04d}y0001" for number in numbers],
            "field_id": "s/p/B02/s1",
            "x_px": numbers,
            "y_px": 1,
            "nucleus_area_px": 100 + numbers,
        }
    )


def write_shard(path, shard_format, count, parts=(), seed=0, first=0):
    """Write `count` random crops, cut at `parts`, and return their pixels."""
    pixels = random_pixels(shard_format, count, seed)
    crops = crops_named(count, first)
    writer = ShardWriter(path, shard_format)
    cuts = [0, *sorted(parts), count]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        writer.add(crops[start:stop], pixels[start:stop])
    writer.close()
    return pixels


def by_arrow(path, shard_format):
    """Read all pixels with pyarrow alone."""
    rows = pq.read_table(path)["pixels"].to_pylist()
    values = np.frombuffer(b"".join(rows), shard_format.dtype)
    return values.reshape(len(rows), *shard_format.shape)


@st.composite
def shards(draw):
    channels = tuple(f"w{number}" for number in range(1, 1 + draw(st.integers(1, 5))))
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    shard_format = ShardFormat(channels, draw(st.integers(1, 12)), dtype, SCALE)
    near = [n * ROWS_PER_GROUP + step for n in (1, 2) for step in (-1, 0, 1)]
    count = draw(st.one_of(st.integers(0, 20), st.sampled_from(near), st.integers(0, 800)))
    return shard_format, count, draw(st.lists(st.integers(0, count), max_size=6))


@settings(max_examples=60, deadline=None)
@given(shards(), st.randoms(use_true_random=False), st.integers(0, 2**16))
def test_any_rows_in_any_order_are_what_was_written(shard, random, seed):
    shard_format, count, parts = shard
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.parquet"
        pixels = write_shard(path, shard_format, count, parts, seed)
        crops = Shards([path])
        assert len(crops) == count and crops.format == shard_format
        assert row_addresses(path).shape == (count,)  # not None: read in place
        rows = [random.randrange(count) for _ in range(min(count, 40))] if count else []
        read = crops.read(rows)
        assert read.dtype == shard_format.dtype and read.shape == (len(rows), *shard_format.shape)
        np.testing.assert_array_equal(read, pixels[rows])
        np.testing.assert_array_equal(by_arrow(path, shard_format), pixels)
        np.testing.assert_array_equal(crops.read(np.arange(count)), pixels)
        named = crops_named(count)
        pd.testing.assert_frame_equal(crops.index, named, check_dtype=False)


def test_addresses_point_at_the_bytes_of_the_file(tmp_path):
    pixels = write_shard(tmp_path / "p.parquet", FORMAT, 300)
    content = (tmp_path / "p.parquet").read_bytes()
    for row, address in enumerate(row_addresses(tmp_path / "p.parquet")):
        assert content[address : address + FORMAT.row_bytes] == pixels[row].tobytes()


def test_layout_is_plain_whole_groups_however_crops_arrive(tmp_path):
    write_shard(tmp_path / "p.parquet", FORMAT, 700, parts=range(0, 700, 37))
    metadata = pq.read_metadata(tmp_path / "p.parquet")
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [256, 256, 188]
    pixels = [group.column(6) for group in groups]
    assert {column.path_in_schema for column in pixels} == {"pixels"}
    assert {column.compression for column in pixels} == {"UNCOMPRESSED"}
    assert not any(column.has_dictionary_page for column in pixels)
    assert not pq.read_schema(tmp_path / "p.parquet").field("pixels").nullable


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy", "use_dictionary": False},
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": True},
        PLAIN | {"data_page_size": 1024, "write_batch_size": 8},
        PLAIN | {"row_group_size": 100},
        PLAIN | {"data_page_version": "2.0"},
    ],
    ids=["snappy", "zstd", "dictionary", "pages", "groups", "page version 2"],
)
def test_rewritten_file_gives_the_same_pixels(tmp_path, options):
    pixels = write_shard(tmp_path / "p.parquet", FORMAT, 600)
    pq.write_table(pq.read_table(tmp_path / "p.parquet"), tmp_path / "q.parquet", **options)
    order = np.random.default_rng(0).permutation(600)
    crops = Shards([tmp_path / "q.parquet"])
    assert crops.format == FORMAT
    np.testing.assert_array_equal(crops.read(order), pixels[order])


@pytest.mark.parametrize("options", [{"compression": "snappy"}, {"compression": "none"}])
def test_compressed_or_dictionary_file_is_not_read_in_place(tmp_path, options):
    write_shard(tmp_path / "p.parquet", FORMAT, 300)
    pq.write_table(pq.read_table(tmp_path / "p.parquet"), tmp_path / "q.parquet", **options)
    assert row_addresses(tmp_path / "q.parquet") is None


def test_group_of_two_pages_gives_the_same_pixels(tmp_path):
    shard_format = ShardFormat(("w1", "w2"), 24, "uint8", SCALE)
    pixels = write_shard(tmp_path / "p.parquet", shard_format, 1100)
    table = pq.read_table(tmp_path / "p.parquet")
    pq.write_table(table, tmp_path / "q.parquet", write_statistics=False, **PLAIN)
    assert (Shards([tmp_path / "q.parquet"]).read(range(1100)) == pixels).all()


def test_byte_stream_split_gives_the_same_pixels(tmp_path):
    pixels = write_shard(tmp_path / "p.parquet", FORMAT, 300)
    options = {"compression": "none", "use_dictionary": ["crop_id"]}
    options |= {"column_encoding": {"pixels": "BYTE_STREAM_SPLIT"}}
    pq.write_table(pq.read_table(tmp_path / "p.parquet"), tmp_path / "q.parquet", **options)
    assert (Shards([tmp_path / "q.parquet"]).read(range(300)) == pixels).all()


def test_pandas_and_duckdb_open_a_shard(tmp_path):
    path = tmp_path / "p.parquet"
    pixels = write_shard(path, FORMAT, 300)
    frame = pd.read_parquet(path)
    pd.testing.assert_frame_equal(
        frame.drop(columns=["pixels", "pixels_xxh3"]), crops_named(300), check_dtype=False
    )
    assert frame["pixels"][299] == pixels[299].tobytes()
    with duckdb.connect() as base:
        rows = base.execute(
            f"select crop_id, x_px, pixels from '{path}' where x_px = 257"
        ).fetchall()
    assert rows == [("s/p/B02/s1/x0257y0001", 257, pixels[257].tobytes())]


def test_format_comes_back_with_the_scale(tmp_path):
    write_shard(tmp_path / "p.parquet", FORMAT, 1)
    assert read_format(tmp_path / "p.parquet") == FORMAT
    assert FORMAT.shape == (2, 6, 6) and FORMAT.row_bytes == 72
    assert ShardFormat(("w1",), 3, "uint16", {}).row_bytes == 18


def test_several_shards_are_numbered_through(tmp_path):
    counts, paths, parts = [300, 0, 7, 256], [], []
    for number, count in enumerate(counts):
        paths.append(tmp_path / f"{number}.parquet")
        parts.append(write_shard(paths[-1], FORMAT, count, seed=number, first=1000 * number))
    pq.write_table(pq.read_table(paths[2]), paths[2])  # one of them is read by pyarrow
    crops, pixels = Shards(paths), np.concatenate(parts)
    order = np.random.default_rng(1).permutation(len(pixels))
    assert len(crops) == 563
    np.testing.assert_array_equal(crops.read(order), pixels[order])
    ids = crops.index["crop_id"].iloc[order].tolist()
    np.testing.assert_array_equal(crops.rows_of(ids), order)
    assert crops.index["crop_id"][307] == "s/p/B02/s1/x3000y0001"


@pytest.mark.parametrize(
    "other",
    [
        ShardFormat(("w1", "w4"), 6, "uint8", SCALE),
        ShardFormat(("w1", "w2"), 5, "uint8", SCALE),
        ShardFormat(("w1", "w2"), 6, "uint16", SCALE),
    ],
    ids=["channels", "size", "type"],
)
def test_shards_of_other_formats_are_refused_by_name(tmp_path, other):
    write_shard(tmp_path / "p.parquet", FORMAT, 3)
    write_shard(tmp_path / "q.parquet", other, 3)
    with pytest.raises(InputError, match=r"q.parquet: crops of .*, but .*p.parquet has"):
        Shards([tmp_path / "p.parquet", tmp_path / "q.parquet"])


def test_shards_of_other_scales_are_read_together(tmp_path):
    first = write_shard(tmp_path / "p.parquet", FORMAT, 3)
    second = ShardFormat(("w1", "w2"), 6, "uint8", {"w1": [0.0, 1.0, 2.0]})
    write_shard(tmp_path / "q.parquet", second, 3, seed=1)
    np.testing.assert_array_equal(
        Shards([tmp_path / "p.parquet", tmp_path / "q.parquet"]).read([0, 1, 2]), first
    )


def test_rows_of_names_a_crop_that_is_missing(tmp_path):
    write_shard(tmp_path / "p.parquet", FORMAT, 5)
    crops = Shards([tmp_path / "p.parquet"])
    wanted = ["s/p/B02/s1/x0003y0001", "gone", "s/p/B02/s1/x0000y0001", "lost"]
    with pytest.raises(InputError, match=r"2 crops are not in .*p.parquet, first gone"):
        crops.rows_of(wanted)
    np.testing.assert_array_equal(crops.rows_of([wanted[0], wanted[2], wanted[0]]), [3, 0, 3])


def test_file_that_is_no_shard_is_named(tmp_path):
    text = tmp_path / "text.parquet"
    text.write_text("crops")
    table = tmp_path / "table.parquet"
    crops_named(2).to_parquet(table)
    cut = tmp_path / "cut.parquet"
    write_shard(cut, FORMAT, 300)
    cut.write_bytes(cut.read_bytes()[:-10])
    for path in (text, table, cut, tmp_path / "gone.parquet"):
        with pytest.raises(InputError, match=rf"{path.name}: is not a shard of crops .*crop again"):
            Shards([path])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 2, 6, 6), np.uint16),
        np.zeros((2, 6, 6, 2), np.uint8),
        np.zeros((3, 2, 6, 6), np.uint8),
    ],
    ids=["type", "order of axes", "count"],
)
def test_writer_refuses_other_pixels(tmp_path, pixels):
    writer = ShardWriter(tmp_path / "p.parquet", FORMAT)
    message = r"pixels \(.*\) uint.* in a shard of \(2, 6, 6\) uint8|pixels of 3 crops for 2 rows"
    with pytest.raises(ValueError, match=message):
        writer.add(crops_named(2), pixels)
    writer.close()
    assert len(Shards([tmp_path / "p.parquet"])) == 0


def test_composite_takes_channels_in_the_chosen_order():
    channels = ["w1", "w2", "w3", "w4", "w5"]
    pixels = np.arange(5, dtype=np.uint8)[None, :, None, None] * np.ones((2, 1, 3, 3), np.uint8)
    chosen = composite(pixels, channels, ["w4", "w5", "w1"])
    assert chosen.shape == (2, 3, 3, 3)
    assert chosen[1, :, 0, 0].tolist() == [3, 4, 0]


def test_crops_can_be_read_into_memory_that_was_used_before(tmp_path):
    pixels = write_shard(tmp_path / "p.parquet", FORMAT, 20, [], 3)
    crops, out = Shards([tmp_path / "p.parquet"]), np.zeros((5, *FORMAT.shape), FORMAT.dtype)
    for rows in ([3, 1, 19, 0, 3], [7, 8, 9, 10, 11]):
        assert crops.read(rows, out) is out
        np.testing.assert_array_equal(out, pixels[rows])


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((4, *FORMAT.shape), FORMAT.dtype),
        np.zeros((5, *FORMAT.shape), np.int64),
        np.zeros((10, *FORMAT.shape), FORMAT.dtype)[::2],
    ],
    ids=["too short", "another type", "not contiguous"],
)
def test_memory_that_does_not_fit_is_refused(tmp_path, out):
    write_shard(tmp_path / "p.parquet", FORMAT, 20, [], 3)
    with pytest.raises(ValueError, match="out is .* not contiguous"):
        Shards([tmp_path / "p.parquet"]).read([0, 1, 2, 3, 4], out)


def test_composites_read_by_several_threads_at_once_are_those_of_their_rows(tmp_path):
    pixels = write_shard(tmp_path / "p.parquet", FORMAT, 300, [], 3)
    crops, chosen = Shards([tmp_path / "p.parquet"]), FORMAT.channels[::-1]
    batches = [np.random.default_rng(n).integers(0, 300, 1 + n % 40) for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda rows: crops.read_composite(rows, chosen), batches))
    for rows, composites in zip(batches, read, strict=True):
        np.testing.assert_array_equal(composites, composite(pixels[rows], FORMAT.channels, chosen))


def test_composite_names_an_unknown_channel():
    pixels = np.zeros((1, 3, 2, 2), np.uint8)
    with pytest.raises(InputError, match="channel 'w3' is not one of w1, w2, w4"):
        composite(pixels, ["w1", "w2", "w4"], ["w4", "w3", "w1"])


def test_uint16_crops_become_the_nearest_of_256_levels():
    pixels = np.arange(65536, dtype=np.uint16).reshape(1, 1, 256, 256)
    chosen = composite(pixels, ["w1"], ["w1"])
    assert chosen.dtype == np.uint8
    np.testing.assert_array_equal(chosen, np.rint(pixels / 65535 * 255))


def test_no_shard_at_all_is_refused():
    with pytest.raises(InputError, match="no shard of crops is given"):
        Shards([])


def test_writer_knows_where_each_group_lies(tmp_path):
    writer = ShardWriter(tmp_path / "p.parquet", FORMAT)
    pixels = random_pixels(FORMAT, 600)
    for start, stop in ((0, 300), (300, 310), (310, 600)):
        writer.add(crops_named(stop - start, start), pixels[start:stop])
        writer.flush()
    writer.close()
    assert [count for _, count, _ in writer.groups] == [256, 44, 10, 256, 34]
    places = [
        begin + i * FORMAT.row_bytes for begin, count, _ in writer.groups for i in range(count)
    ]
    np.testing.assert_array_equal(row_addresses(tmp_path / "p.parquet"), places)


def test_flushed_crops_are_in_the_file_before_it_is_closed(tmp_path):
    path = tmp_path / "p.parquet"
    writer = ShardWriter(path, FORMAT)
    pixels = random_pixels(FORMAT, 5)
    writer.add(crops_named(5), pixels)
    writer.flush()
    ((begin, count, _),) = writer.groups
    assert path.read_bytes()[begin : begin + count * FORMAT.row_bytes] == pixels.tobytes()
    writer.close()


def flip(path, place):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 8
    path.write_bytes(content)


def test_a_changed_pixel_is_noticed_when_its_crop_is_read_and_no_other(tmp_path):
    path = tmp_path / "p.parquet"
    pixels = write_shard(path, FORMAT, 300)
    flip(path, int(row_addresses(path)[271]) + 40)
    crops = Shards([path])
    whole = np.delete(np.arange(300), 271)
    np.testing.assert_array_equal(crops.read(whole), pixels[whole])
    for _ in range(2):
        message = r"p.parquet: is damaged .*crop s/p/B02/s1/x0271y0001 .* delete it and run again"
        with pytest.raises(InputError, match=message):
            crops.read([3, 271])


def test_any_other_changed_byte_is_noticed_when_a_shard_is_opened(tmp_path):
    path = tmp_path / "p.parquet"
    pixels = write_shard(path, FORMAT, 3)
    content, addresses = path.read_bytes(), row_addresses(path)
    name_of_seal = content.index(SEAL.encode())
    for place in [*range(0, len(content), 7), name_of_seal]:
        if addresses[0] <= place < addresses[-1] + FORMAT.row_bytes:
            continue
        path.write_bytes(content)
        flip(path, place)
        if name_of_seal <= place < name_of_seal + len(SEAL):  # as if another program wrote it
            crops = Shards([path])
            assert crops.format == FORMAT
            np.testing.assert_array_equal(crops.read([0, 1, 2]), pixels)
            continue
        with pytest.raises(InputError, match="p.parquet: .*(run|crop) again"):
            Shards([path])


def test_a_rewritten_shard_is_compared_with_the_digests_of_its_crops(tmp_path):
    write_shard(tmp_path / "p.parquet", FORMAT, 20)
    table = pq.read_table(tmp_path / "p.parquet")
    pixels = table["pixels"].to_pylist()
    pixels[7] = bytes(FORMAT.row_bytes)
    column = pa.array(pixels, table.schema.field("pixels").type)
    table = table.set_column(6, table.schema.field("pixels"), column)
    pq.write_table(table, tmp_path / "q.parquet")
    crops = Shards([tmp_path / "q.parquet"])
    crops.read([6, 8])
    with pytest.raises(InputError, match="q.parquet: is damaged .*x0007y0001"):
        crops.read([7])


def test_epochs_are_shuffled_anew_and_globally():
    first, second = (shuffled_order(9000, 0, epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == list(range(9000)) and (first == second).mean() < 0.01
    # Neighbours of an epoch come from anywhere: on average a third of the whole lies between.
    assert np.abs(np.diff(first)).mean() == pytest.approx(3000, rel=0.05)


def test_row_groups_of_large_crops_hold_fewer(tmp_path):
    large = ShardFormat(("w1", "w2"), 2048, "uint16", SCALE)
    assert large.rows_per_group == 4
    pixels = write_shard(tmp_path / "p.parquet", large, 9)
    assert pq.read_metadata(tmp_path / "p.parquet").num_row_groups == 3
    np.testing.assert_array_equal(Shards([tmp_path / "p.parquet"]).read([8, 3]), pixels[[8, 3]])
