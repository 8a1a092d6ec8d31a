"""Shards: the crops of one plate, with all channels, as Parquet read in place.

Pixels are a non-null fixed-size binary column in CHW order, uncompressed, without dictionary, one
page per row group. To everyone else it is ordinary Parquet; here its rows are read through a
memory map, by address. Where a file's layout is another, pyarrow reads it.

Each crop has the digest of its pixels as a column. It is compared when a job reads the crop for the
first time, so that a job that needs few crops reads no others. All else has a seal
(`hcsqc.core.parquet`), which is compared when the shard is opened.
"""

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from hcsqc.core.errors import Damaged, InputError, in_one_line
from hcsqc.core.files import see_onto_disk
from hcsqc.core.parquet import (
    check_body,
    damage,
    is_sealed,
    promise_seal,
    set_seal,
)
from hcsqc.core.places import BLACK
from hcsqc.core.schema import file_metadata

ROWS_PER_GROUP, BYTES_PER_GROUP = 256, 2**26  # whichever is less
# A data page's header with its statistics; more than this is a layout that is not ours.
LARGEST_PAGE_HEADER_BYTES = 256
COLUMNS = ("crop_id", "field_id", "x_px", "y_px", "nucleus_area_px")  # all but these:
DIGEST, PIXELS = "pixels_xxh3", "pixels"  # XXH3, 64 bits, of a crop's bytes; pixels are the last


@dataclass(frozen=True)
class ShardFormat:
    """What the pixels of a shard are: shape, channel names, type, and the plate's scale.

    The scale is low, high, top and knee of each channel, as in `scale.lookup_tables`.
    """

    channels: tuple[str, ...]
    size_px: int
    dtype: str
    scale: dict[str, list[float]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return len(self.channels), self.size_px, self.size_px

    @property
    def row_bytes(self) -> int:
        """Bytes of one crop."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def rows_per_group(self) -> int:
        """Crops of a row group that is full."""
        return max(1, min(ROWS_PER_GROUP, BYTES_PER_GROUP // self.row_bytes))

    def arrow_schema(self) -> pa.Schema:
        """Return the columns of a shard of this format, with the format in its metadata."""
        metadata = {
            "channels": list(self.channels),
            "size_px": self.size_px,
            "dtype": self.dtype,
            "scale": self.scale,
            "layout": "CHW",
        }
        return pa.schema(
            [
                pa.field("crop_id", pa.string(), nullable=False),
                pa.field("field_id", pa.string(), nullable=False),
                pa.field("x_px", pa.int32(), nullable=False),
                pa.field("y_px", pa.int32(), nullable=False),
                pa.field("nucleus_area_px", pa.int32(), nullable=False),
                pa.field(DIGEST, pa.uint64(), nullable=False),
                pa.field(PIXELS, pa.binary(self.row_bytes), nullable=False),
            ],
            metadata=file_metadata(metadata),
        )


class ShardWriter:
    """Write the crops of a plate to one shard, under a name that it does not keep.

    Memory holds one row group and what was added last. `groups` lists where the pixels of each
    group that is written begin in the file, how many crops it has, and `digest_of_group`.
    """

    def __init__(self, path: str | Path, shard_format: ShardFormat):
        self.format = shard_format
        self.schema = shard_format.arrow_schema()
        self.groups: list[tuple[int, int, str]] = []
        self.path = path
        self._file = pa.OSFile(str(path), "wb")  # a Python file would copy the pixels once more
        # No checksums of pages: each byte has a digest already.
        self._writer = pq.ParquetWriter(
            self._file,
            self.schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=2**30,
            write_batch_size=shard_format.rows_per_group,
        )
        self._waiting: list[pa.Table] = []

    def add(self, crops: Mapping[str, Sequence] | pd.DataFrame, pixels: np.ndarray) -> None:
        """Append crops: every column but the pixels, and pixels n x C x H x W.

        The pixels are not copied, so that they must not change until their group is written.
        Raises ValueError if shape or type are not the shard's.
        """
        count = len(crops[COLUMNS[0]])
        if len(pixels) != count:
            raise ValueError(f"pixels of {len(pixels)} crops for {count} rows")
        if pixels.shape[1:] != self.format.shape or pixels.dtype != self.format.dtype:
            raise ValueError(
                f"pixels {pixels.shape[1:]} {pixels.dtype} in a shard of "
                f"{self.format.shape} {self.format.dtype}"
            )
        if not count:
            return
        pixels = np.ascontiguousarray(pixels)
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(self.format.row_bytes), count, [None, pa.py_buffer(pixels.data)]
        )
        named = [pa.array(crops[name], self.schema.field(name).type) for name in COLUMNS]
        columns = [*named, pa.array(crop_digests(pixels)), column]
        self._waiting.append(pa.Table.from_arrays(columns, schema=self.schema))
        rows_per_group = self.format.rows_per_group
        while sum(len(rows) for rows in self._waiting) >= rows_per_group:
            self._write_group(rows_per_group)

    def end_group(self) -> None:
        """Write what was added since the last full row group as a shorter one."""
        if self._waiting:
            self._write_group(sum(len(rows) for rows in self._waiting))

    def flush(self) -> None:
        """End the row group and see all that was added onto the disk."""
        self.end_group()
        self._file.flush()
        see_onto_disk(self.path)

    def close(self) -> None:
        """Write what is left and the footer."""
        self.end_group()
        promise_seal(self._writer)
        self._writer.close()
        self._file.close()
        set_seal(self.path, _pixel_ranges(pq.read_metadata(self.path)))

    def abandon(self) -> None:
        """Stop without the crops that no row group holds yet; what is written stays."""
        with suppress(OSError):
            self._writer.close()
            self._file.close()

    def _write_group(self, count: int) -> None:
        rows = pa.concat_tables(self._waiting)
        group = rows[:count]
        self._writer.write_table(group)
        # Pixels are the last column, so that a group ends with them.
        begin = self._file.tell() - count * self.format.row_bytes
        self.groups.append((begin, count, digest_of_group(group[DIGEST].to_numpy())))
        self._waiting = [rows[count:]] if len(rows) > count else []


def read_format(path: str | Path) -> ShardFormat:
    """Return the format of a shard.

    Raises InputError if the file is no shard, or its footer is damaged.
    """
    try:
        is_sealed(path)
        stored = pq.read_schema(path).metadata or {}
        values = {key: json.loads(stored[b"hcsqc." + key.encode()]) for key in _FORMAT_KEYS}
    except Damaged:
        raise
    except (InputError, pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: is not a shard of crops ({in_one_line(error)}); delete and crop again"
        ) from error
    return ShardFormat(
        tuple(values["channels"]), values["size_px"], values["dtype"], values["scale"]
    )


_FORMAT_KEYS = ("channels", "size_px", "dtype", "scale")


class Shards:
    """The crops of one or more plates of a screen, read by row number."""

    def __init__(self, paths: Sequence[str | Path]):
        """Open the shards in the order of `paths`; rows are numbered through.

        Raises InputError if there are none, one is damaged, or they do not share channels, size
        and type.
        """
        if not paths:
            raise InputError("no shard of crops is given; list at least one plate")
        self.paths = [str(path) for path in paths]
        formats = [read_format(path) for path in self.paths]
        self.format = formats[0]
        for path, other in zip(self.paths, formats, strict=True):
            if (other.channels, other.size_px, other.dtype) != (
                self.format.channels,
                self.format.size_px,
                self.format.dtype,
            ):
                raise InputError(
                    f"{path}: crops of {other.channels} {other.size_px} px {other.dtype}, but "
                    f"{self.paths[0]} has {self.format.channels} {self.format.size_px} px "
                    f"{self.format.dtype}; crop all plates of a screen alike"
                )
        for path in self.paths:
            if is_sealed(path):
                check_body(path, _pixel_ranges(pq.read_metadata(path)))
        self._maps = [np.memmap(path, np.uint8, "r").data for path in self.paths]
        addresses = [row_addresses(path) for path in self.paths]
        self._in_place = [found is not None for found in addresses]
        digests = [_read(path, [DIGEST])[DIGEST].to_numpy() for path in self.paths]
        self._digest = np.concatenate(digests)
        # Of each row whether its pixels were compared with their digest.
        self._checked = np.zeros(len(self._digest), bool)
        lengths = [len(own) for own in digests]
        self._file = np.repeat(np.arange(len(self.paths), dtype=np.int32), lengths)
        self._address = np.concatenate(
            [
                found if found is not None else np.arange(length)
                for found, length in zip(addresses, lengths, strict=True)
            ]
        )
        self._read_by_arrow: dict[int, pa.ChunkedArray] = {}
        self._scratch = threading.local()

    def __len__(self) -> int:
        return len(self._file)

    @cached_property
    def index(self) -> pd.DataFrame:
        """Everything but the pixels: a row per crop, in the order of the row numbers."""
        return pd.concat(
            [_read(path, list(COLUMNS)).to_pandas() for path in self.paths],
            ignore_index=True,
        )

    @property
    def digests(self) -> np.ndarray:
        """The digest of each crop's pixels, as uint64, in the order of the row numbers."""
        return self._digest

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the crops at `rows` as n x C x H x W of the shard's type.

        They are put into `out`, contiguous and of that shape and type, if it is given: memory that
        was used before is filled three times as fast as new memory. Raises Damaged at the first
        reading of a crop whose pixels are not those that were written.
        """
        shape = len(rows), *self.format.shape
        if out is None:
            out = np.empty(shape, self.format.dtype)
        elif out.shape != shape or out.dtype != self.format.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.shape} {out.dtype}, not contiguous {shape} {self.format.dtype}"
            )
        rows, row_bytes = np.asarray(rows, np.intp), self.format.row_bytes
        files, addresses = self._file[rows].tolist(), self._address[rows].tolist()
        target = out.reshape(-1).view(np.uint8).data
        begins = range(0, len(target), row_bytes)
        places = zip(rows.tolist(), begins, files, addresses, self._to_compare(rows), strict=True)
        for row, begin, file, address, digest in places:
            if self._in_place[file]:
                crop = self._maps[file][address : address + row_bytes]
            else:
                crop = self._arrow_pixels(file)[address].as_py()
            # Digested while it is near the processor; the map's own bytes could change in between.
            copied = target[begin : begin + row_bytes]
            copied[:] = crop
            if digest is not None and xxhash.xxh3_64_intdigest(copied) != digest:
                name = self.index["crop_id"].iloc[row]
                why = f"the pixels of crop {name} do not match their digest"
                raise damage(self.paths[file], why)
        self._checked[rows] = True
        return out

    def read_composite(self, rows: Sequence[int] | np.ndarray, chosen: Sequence[str]) -> np.ndarray:
        """Return the `chosen` channels of the crops at `rows`: see `composite`. Safe in threads."""
        scratch = getattr(self._scratch, "pixels", None)
        if scratch is None or len(scratch) < len(rows):
            scratch = np.empty((len(rows), *self.format.shape), self.format.dtype)
            self._scratch.pixels = scratch
        pixels = self.read(rows, scratch[: len(rows)])
        return composite(pixels, self.format.channels, chosen)

    def rows_of(self, crop_ids: Collection[str]) -> np.ndarray:
        """Return the row numbers of crops.

        Raises InputError naming those that are not in the shards.
        """
        wanted = list(crop_ids)
        # Looked up among these only: a table of all crops of a screen would take half a minute.
        known = pc.is_in(self._crop_ids, value_set=pa.array(wanted, self._crop_ids.type))
        found = np.flatnonzero(known.to_numpy())
        places = pd.Index(self._crop_ids.take(found).to_pylist()).get_indexer(wanted)
        if (places < 0).any():
            missing = [crop for crop, place in zip(wanted, places, strict=True) if place < 0]
            raise InputError(
                f"{len(missing)} crops are not in {', '.join(self.paths)}, first {missing[0]}"
            )
        return found[places]

    @cached_property
    def _crop_ids(self) -> pa.ChunkedArray:
        return pa.concat_tables(_read(path, ["crop_id"]) for path in self.paths)["crop_id"]

    def _to_compare(self, rows: np.ndarray) -> list[int | None]:
        """Return the digest of each row, None if it was compared before."""
        checked, digests = self._checked[rows], self._digest[rows]
        if checked.all():
            return [None] * len(rows)
        pairs = zip(checked.tolist(), digests.tolist(), strict=True)
        return [None if done else digest for done, digest in pairs]

    def _arrow_pixels(self, file: int) -> pa.ChunkedArray:
        if file not in self._read_by_arrow:
            self._read_by_arrow[file] = _read(self.paths[file], [PIXELS])[PIXELS]
        return self._read_by_arrow[file]


def shuffled_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the rows 0 to `count` - 1 in an epoch.

    The shuffle is global: any crop may follow any other. It takes 8 bytes per crop, no pixels.
    """
    return np.random.default_rng((0, seed, epoch)).permutation(count)


def crop_digests(pixels: np.ndarray) -> np.ndarray:
    """Return the digest of each of n crops, contiguous n x C x H x W pixels, as uint64."""
    return np.array([xxhash.xxh3_64_intdigest(crop.data) for crop in pixels], np.uint64)


def digest_of_group(digests: np.ndarray) -> str:
    """Return what stands for the digests of the crops of a row group."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(digests, np.uint64).data)


def _read(path: str, columns: list[str]) -> pa.Table:
    """Read some columns of a shard that is known to be whole, except for its pixels."""
    try:
        return pq.read_table(
            path,
            columns=columns,
            partitioning=None,
            memory_map=True,
            page_checksum_verification=True,  # if another program wrote it with them
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path}: is not a shard of crops ({in_one_line(error)}); delete and crop again"
        ) from error


def _pixel_ranges(metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the pixels of each row group of a shard of ours."""
    size = metadata.schema.column(metadata.num_columns - 1).length
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        column = group.column(metadata.num_columns - 1)
        end = column.data_page_offset + column.total_compressed_size
        yield end - group.num_rows * size, end


def row_addresses(path: str | Path) -> np.ndarray | None:
    """Return the byte offset of every row's pixels in a shard, or None for another layout.

    A row group holds one page of plain values, so its rows start after the page's header, whose
    length is what the column's size has in excess of the rows.
    """
    metadata = pq.read_metadata(path)
    row_bytes = read_format(path).row_bytes
    content = np.memmap(path, np.uint8, "r")
    addresses = []
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(metadata.num_columns - 1)
        count = metadata.row_group(group).num_rows
        header = column.total_compressed_size - count * row_bytes
        plain = (
            column.path_in_schema == PIXELS
            and column.compression == "UNCOMPRESSED"
            and not column.has_dictionary_page
            and set(column.encodings) <= {"PLAIN", "RLE"}
            and 0 < header <= LARGEST_PAGE_HEADER_BYTES
            and _page_bytes(content, column.data_page_offset) == count * row_bytes
        )
        if not plain:
            return None
        addresses.append(column.data_page_offset + header + np.arange(count) * row_bytes)
    return np.concatenate(addresses) if addresses else np.empty(0, np.int64)


def _page_bytes(content: np.ndarray, offset: int) -> int | None:
    """Return the size of the page whose header (Thrift's compact protocol) is at `offset`.

    A header starts with three 32-bit fields: type, uncompressed size and compressed size.
    """
    value = 0
    for _ in range(3):
        if content[offset] != 0x15:
            return None
        offset, value, shift = offset + 1, 0, 0
        while True:
            byte = int(content[offset])
            offset, value, shift = offset + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
    return value >> 1


def composite(pixels: np.ndarray, channels: Sequence[str], chosen: Sequence[str]) -> np.ndarray:
    """Return the `chosen` channels of n x C x H x W crops as n x len(chosen) x H x W of uint8.

    Three of them are red, green and blue. Crops of uint16 are brought down to uint8. `BLACK` stands
    for a channel of zeros. Raises InputError for a channel that the screen does not have.
    """
    unknown = [name for name in chosen if name not in channels and name != BLACK]
    if unknown:
        raise InputError(f"channel '{unknown[0]}' is not one of {', '.join(channels)}")
    black = [place for place, name in enumerate(chosen) if name == BLACK]
    picked = pixels[:, [0 if name == BLACK else list(channels).index(name) for name in chosen]]
    picked[:, black] = 0
    if picked.dtype == np.uint16:
        # 65535 = 257 x 255: the nearest of 256 levels.
        picked = ((picked.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return picked
