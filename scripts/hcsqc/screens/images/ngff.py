"""OME-Zarr, by the specifications NGFF 0.4 (Zarr 2) and 0.5 (Zarr 3): metadata and planes."""

import itertools
import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from xxhash import xxh3_128_hexdigest

from hcsqc.core.patience import list_folder, look, patiently
from hcsqc.screens.images.planes import Plane, Stack, UnreadableField, choose_plane
from hcsqc.screens.images.remote import Folder, RemoteFolder, all_below, read_all, read_remote

# Images older than 0.3 name no axes and have these.
_FIRST_AXES = ["t", "c", "z", "y", "x"]


def ome_attributes(group: Folder) -> dict:
    """Return the OME metadata of a Zarr group: `plate`, `well`, `multiscales`, `omero`.

    Raises UnreadableField if the folder is no Zarr group or its metadata are damaged.
    """
    stored = _read_json(group / "zarr.json")
    if stored is not None:
        attributes = _mapping(stored.get("attributes", {}), "attributes")
        return _mapping(attributes.get("ome", attributes), "ome")
    stored = _read_json(group / ".zattrs")
    if stored is not None:
        return stored
    raise UnreadableField("has no OME-Zarr metadata (neither zarr.json nor .zattrs)")


def channel_names(group: Folder) -> list[str]:
    """Return the names of an image's channels, in order: omero's labels, or else c0, c1, ...

    The second of one label has `_2` after it, the third `_3`, so that each can be named.
    Raises UnreadableField if the image's metadata are missing or damaged.
    """
    attributes = ome_attributes(group)
    axes, dataset = _first_dataset(attributes)
    stored = _read_json(group / dataset / "zarr.json") or _read_json(group / dataset / ".zarray")
    shape = (stored or {}).get("shape")
    if not isinstance(shape, list) or [type(n) for n in shape] != [int] * len(axes):
        raise UnreadableField(f"array '{dataset}' is missing or does not fit the axes")
    count = shape[axes.index("c")] if "c" in axes else 1
    described = _mapping(attributes.get("omero", {}), "omero").get("channels")
    described = described if isinstance(described, list) else []
    labels = [entry.get("label") if isinstance(entry, dict) else None for entry in described]
    labels += [None] * count
    names = [str(label) if label else f"c{index}" for index, label in enumerate(labels[:count])]
    return distinct_names(names)


def distinct_names(names: list[str]) -> list[str]:
    """Return names in which the second of one has `_2` after it, the third `_3`: no two alike."""
    found: list[str] = []
    for name in names:
        number, own = 1, name
        while own in found or (number > 1 and own in names):
            number += 1
            own = f"{name}_{number}"
        found.append(own)
    return found


def open_image(group: Folder) -> Callable[[int | None, str | None], Plane]:
    """Open an image's highest resolution, to be read channel by channel.

    Returns a function of the index along axis c (None: the only one) and the z projection that
    gives the plane, H x W of uint8 or uint16, and the XXH3 of the channel's decoded pixels
    (z x H x W, little-endian). Chunks that are not stored hold the array's fill value; how many
    there are is what is odd about the plane (inside a shard that cannot be seen). The function
    raises UnreadableField, also if no chunk of the image is stored or there is no fill value.
    """
    import zarr

    axes, dataset = _first_dataset(ome_attributes(group))
    chunks: _Chunks
    if isinstance(group, RemoteFolder):
        chunks = _RemoteChunks(group / dataset)
    else:
        chunks = _LocalChunks(group / dataset)
    array = zarr.open_array(chunks.store, mode="r")
    if len(axes) != array.ndim:
        raise UnreadableField(f"array of {array.ndim} dimensions, but axes {', '.join(axes)}")
    size = dict(zip(axes, array.shape, strict=True))
    if size.get("t", 1) != 1:
        raise UnreadableField(f"has {size['t']} time points, expected one")

    def read(page: int | None, z_projection: str | None) -> Plane:
        channels = size.get("c", 1)
        if page is None and channels > 1:
            raise UnreadableField(f"has {channels} channels; name one of them")
        channel = page or 0
        if not 0 <= channel < channels:
            raise UnreadableField(f"has no channel {channel}; its {channels} are counted from 0")
        place = {"t": 0, "c": channel}
        absent = _absent_chunks(array, chunks, [place.get(axis) for axis in axes])
        pixels = array[tuple(place.get(axis, slice(None)) for axis in axes)]
        kept = [axis for axis in axes if axis not in place]
        pixels = np.transpose(pixels, [kept.index(axis) for axis in "zyx" if axis in kept])
        pixels = pixels.reshape(-1, *pixels.shape[-2:])
        little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        stack = Stack(len(pixels), lambda index: pixels[index])
        plane = choose_plane(stack, None, z_projection)
        odd = f"{absent} chunks are not stored and hold {array.fill_value}" if absent else None
        return Plane(plane, xxh3_128_hexdigest(little), odd)

    return read


def _first_dataset(attributes: dict) -> tuple[list[str], str]:
    """Return the names of an image's axes, and where below it the highest resolution lies."""
    try:
        multiscale = attributes["multiscales"][0]
        dataset = multiscale["datasets"][0]["path"]
        described = multiscale.get("axes", _FIRST_AXES)
        axes = [str(axis if isinstance(axis, str) else axis["name"]) for axis in described]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnreadableField("its multiscales metadata are missing or damaged") from error
    if not {"y", "x"} <= set(axes) <= set(_FIRST_AXES) or not isinstance(dataset, str):
        raise UnreadableField(f"has axes {', '.join(axes)}, expected y, x and perhaps t, c, z")
    return axes, dataset


class _LocalChunks:
    """The chunks of an array on disk."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.store = str(folder)

    def fetch(self, keys: list[str]) -> None:
        """Nothing: zarr reads them from the disk."""

    def header_and_size(self, key: str) -> tuple[bytes, int]:
        """Return the first bytes of a chunk and its size; raises FileNotFoundError."""
        with open(self.folder / key, "rb") as file:
            return file.read(16), file.seek(0, os.SEEK_END)

    def any_stored(self) -> bool:
        """Return whether there is a file beside the array's metadata."""
        return _has_chunks(self.folder)


class _RemoteChunks:
    """The chunks of an array at a URL, in memory: only those of the channels that are read."""

    def __init__(self, folder: RemoteFolder):
        from zarr.storage import MemoryStore

        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.buffers: dict = {}
        self.store = MemoryStore(self.buffers)
        self.fetch(list(_ARRAY_METADATA))

    def fetch(self, keys: list[str]) -> None:
        """Download the chunks of these keys, many at once; those that are not stored are left."""
        from zarr.buffer.cpu import Buffer

        new = [key for key in keys if key not in self.files]
        for key, content in zip(new, read_all(self.folder / key for key in new), strict=True):
            if content is not None:
                self.files[key] = content
                self.buffers[key] = Buffer.from_bytes(content)

    def header_and_size(self, key: str) -> tuple[bytes, int]:
        """Return the first bytes of a chunk and its size; raises FileNotFoundError."""
        if key not in self.files:
            raise FileNotFoundError(key)
        return self.files[key][:16], len(self.files[key])

    def any_stored(self) -> bool:
        """Return whether there is a file beside the array's metadata."""
        return any(path not in _ARRAY_METADATA for path, _ in all_below(self.folder))


_Chunks = _LocalChunks | _RemoteChunks
_ARRAY_METADATA = ("zarr.json", ".zarray", ".zattrs")


def _absent_chunks(array, stored_chunks: _Chunks, place: list[int | None]) -> int:
    """Return how many chunks of a channel are not stored; raises UnreadableField on damaged ones.

    Zarr need not store chunks that hold nothing but the fill value.
    """
    name = stored_chunks.folder.name
    stored = array.shards or array.chunks
    grid = [
        range(-(-length // chunk)) if index is None else [index // chunk]
        for index, length, chunk in zip(place, array.shape, stored, strict=True)
    ]
    blosc = bool(array.compressors) and "Blosc" in type(array.compressors[-1]).__name__
    keys = [array.metadata.encode_chunk_key(chunk) for chunk in itertools.product(*grid)]
    stored_chunks.fetch(keys)
    absent = []
    for key in keys:
        try:
            header, size = stored_chunks.header_and_size(key)
        except FileNotFoundError:
            absent.append(key)
            continue
        # Blosc's decoder believes the size in the header and reads on in memory.
        if blosc and array.shards is None and header[12:] != struct.pack("<I", size):
            raise UnreadableField(f"chunk {name}/{key} is truncated; copy the image again")
    if absent and array.metadata.fill_value is None:
        raise UnreadableField(f"chunk {name}/{absent[0]} is missing; copy the image again")
    if len(absent) == len(keys) and not stored_chunks.any_stored():
        raise UnreadableField("none of its chunks exists; copy the image again")
    return len(absent)


def _has_chunks(folder: Path) -> bool:
    """Return whether an array's folder holds a file beside its metadata."""
    for name in list_folder(folder):
        status = look(folder / name)
        if status is None or name.startswith(".") or name == "zarr.json":
            continue
        if not stat.S_ISDIR(status.st_mode) or _has_chunks(folder / name):
            return True
    return False


def _read_json(path: Folder) -> dict | None:
    """Return what a JSON file holds; None if there is no such file."""
    try:
        if isinstance(path, RemoteFolder):
            text, _ = read_remote(path)
        else:
            text = patiently(path.read_bytes, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _mapping(json.loads(text), path.name)
    except ValueError as error:
        raise UnreadableField(f"{path.name} is damaged ({error})") from error


def _mapping(value: object, name: str) -> dict:
    if not isinstance(value, dict):
        raise UnreadableField(f"{name} is damaged: expected names and values")
    return value
