"""Shards: the crops of one plate, with all channels, as Parquet read in place.

Pixels are a non-null fixed-size binary column in CHW order, uncompressed, without dictionary, one
page per row group. To everyone else it is ordinary Parquet; here its rows are read through a
memory map, by address. Where a file's layout is another, pyarrow reads it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.errors import InputError
from hcsqc.schema import file_metadata

ROWS_PER_GROUP = 256
# A data page's header with its statistics; more than this is a layout that is not ours.
LARGEST_PAGE_HEADER_BYTES = 256
COLUMNS = ("crop_id", "field_id", "x_px", "y_px", "nucleus_area_px", "pixels")


@dataclass(frozen=True)
class ShardFormat:
    """What the pixels of a shard are: shape, channel names, type, and the plate's scale."""

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
                pa.field("pixels", pa.binary(self.row_bytes), nullable=False),
            ],
            metadata=file_metadata(metadata),
        )


class ShardWriter:
    """Write the crops of a plate to one shard; use inside `atomic(path)`."""

    def __init__(self, path: str | Path, shard_format: ShardFormat):
        self.format = shard_format
        self.schema = shard_format.arrow_schema()
        self.writer = pq.ParquetWriter(
            path,
            self.schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=2**30,
            write_batch_size=ROWS_PER_GROUP,
        )
        self.pending: list[tuple[pd.DataFrame, np.ndarray]] = []
        self.count = 0

    def add(self, crops: pd.DataFrame, pixels: np.ndarray) -> None:
        """Append crops: every column but the pixels, and `pixels` as n x C x H x W.

        Raises ValueError if shape or type are not the shard's.
        """
        if pixels.shape != (len(crops), *self.format.shape) or pixels.dtype != self.format.dtype:
            raise ValueError(
                f"pixels {pixels.shape} {pixels.dtype} in a shard of "
                f"{self.format.shape} {self.format.dtype}"
            )
        self.pending.append((crops, pixels))
        self.count += len(crops)
        if self.count >= ROWS_PER_GROUP:
            self._flush(everything=False)

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush(everything=True)
        self.writer.close()

    def _flush(self, everything: bool) -> None:
        if not self.pending:
            return
        crops = pd.concat([crops for crops, _ in self.pending], ignore_index=True)
        pixels = np.concatenate([pixels for _, pixels in self.pending])
        whole = len(crops) if everything else len(crops) // ROWS_PER_GROUP * ROWS_PER_GROUP
        for start in range(0, whole, ROWS_PER_GROUP):
            stop = min(start + ROWS_PER_GROUP, whole)
            self.writer.write_table(self._rows(crops[start:stop], pixels[start:stop]))
        self.pending = [(crops[whole:], pixels[whole:])] if whole < len(crops) else []
        self.count = len(crops) - whole

    def _rows(self, crops: pd.DataFrame, pixels: np.ndarray) -> pa.Table:
        buffer = pa.py_buffer(np.ascontiguousarray(pixels).data)
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(self.format.row_bytes), len(crops), [None, buffer]
        )
        columns = [crops[name].to_numpy() for name in COLUMNS[:-1]]
        return pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, self.schema, strict=False)] + [column],
            schema=self.schema,
        )


def read_format(path: str | Path) -> ShardFormat:
    """Return the format of a shard.

    Raises InputError if the file is no shard.
    """
    try:
        stored = pq.read_schema(path).metadata or {}
        values = {key: json.loads(stored[b"hcsqc." + key.encode()]) for key in _FORMAT_KEYS}
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(
            f"{path}: is no shard of crops ({error}); delete and crop again"
        ) from error
    return ShardFormat(
        tuple(values["channels"]), values["size_px"], values["dtype"], values["scale"]
    )


_FORMAT_KEYS = ("channels", "size_px", "dtype", "scale")


class Shards:
    """The crops of one or more plates of a screen, read by row number."""

    def __init__(self, paths: Sequence[str | Path]):
        """Open the shards in the order of `paths`; rows are numbered through.

        Raises InputError if they do not share channels, size and type.
        """
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
        self.index = pd.concat(
            [pq.read_table(path, columns=list(COLUMNS[:-1])).to_pandas() for path in self.paths],
            ignore_index=True,
        )
        self._maps = [np.memmap(path, np.uint8, "r") for path in self.paths]
        addresses = [row_addresses(path) for path in self.paths]
        self._in_place = [found is not None for found in addresses]
        lengths = [pq.read_metadata(path).num_rows for path in self.paths]
        self._file = np.repeat(np.arange(len(self.paths)), lengths)
        self._address = np.concatenate(
            [
                found if found is not None else np.arange(length)
                for found, length in zip(addresses, lengths, strict=True)
            ]
        )
        self._read_by_arrow: dict[int, pa.ChunkedArray] = {}

    def __len__(self) -> int:
        return len(self._file)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the crops at `rows` as n x C x H x W of the shard's type."""
        batch = np.empty((len(rows), self.format.row_bytes), np.uint8)
        for place, row in enumerate(rows):
            file, address = self._file[row], self._address[row]
            if self._in_place[file]:
                batch[place] = self._maps[file][address : address + self.format.row_bytes]
            else:
                batch[place] = np.frombuffer(self._arrow_pixels(file)[address].as_py(), np.uint8)
        return batch.view(self.format.dtype).reshape(len(rows), *self.format.shape)

    def rows_of(self, crop_ids: Sequence[str]) -> np.ndarray:
        """Return the row numbers of crops.

        Raises InputError naming those that are not in the shards.
        """
        rows = pd.Index(self.index["crop_id"]).get_indexer(list(crop_ids))
        if (rows < 0).any():
            missing = [crop for crop, row in zip(crop_ids, rows, strict=True) if row < 0]
            raise InputError(
                f"{len(missing)} crops are not in {', '.join(self.paths)}, first {missing[0]}"
            )
        return rows

    def _arrow_pixels(self, file: int) -> pa.ChunkedArray:
        if file not in self._read_by_arrow:
            table = pq.read_table(self.paths[file], columns=["pixels"], memory_map=True)
            self._read_by_arrow[file] = table["pixels"]
        return self._read_by_arrow[file]


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
        column = metadata.row_group(group).column(len(COLUMNS) - 1)
        count = metadata.row_group(group).num_rows
        header = column.total_compressed_size - count * row_bytes
        plain = (
            column.path_in_schema == "pixels"
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
    value = None
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
    """Return the `chosen` channels of n x C x H x W crops as n x 3 x H x W (red, green, blue).

    Raises InputError for a channel that the screen does not have.
    """
    unknown = [name for name in chosen if name not in channels]
    if unknown:
        raise InputError(f"channel '{unknown[0]}' is not one of {', '.join(channels)}")
    return pixels[:, [list(channels).index(name) for name in chosen]]
