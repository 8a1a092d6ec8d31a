"""OME-Zarr images and plates, written with zarr itself, for tests."""

from pathlib import Path

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

CODECS = {
    2: {"blosc": numcodecs.Blosc("lz4"), "zstd": numcodecs.Zstd(), "gzip": numcodecs.GZip()},
    3: {"blosc": BloscCodec(cname="zstd"), "zstd": ZstdCodec(), "gzip": GzipCodec()},
}
VERSIONS = {2: "0.4", 3: "0.5"}


def write_group(folder: Path, metadata: dict, zarr_format: int = 2) -> Path:
    """Write a group with OME metadata as NGFF 0.4 (Zarr 2) or 0.5 (Zarr 3) keeps them."""
    group = zarr.open_group(str(folder), mode="a", zarr_format=zarr_format)
    if zarr_format == 3:
        metadata = {"ome": {"version": VERSIONS[3], **metadata}}
    group.attrs.update(metadata)
    return folder


def write_image(
    folder: Path,
    pixels: np.ndarray,
    axes: str = "tczyx",
    labels: tuple[str, ...] | None = None,
    zarr_format: int = 2,
    codec: str | None = "blosc",
    chunk: int = 16,
    shard: int | None = None,
) -> Path:
    """Write an image with its full resolution at `0` and one level of a quarter of it at `1`."""
    types = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": types.get(axis, "space")} for axis in axes]
    datasets = [{"path": "0"}, {"path": "1"}]
    metadata = {"multiscales": [{"axes": described, "datasets": datasets}]}
    if labels:
        metadata["omero"] = {"channels": [{"label": label} for label in labels]}
    write_group(folder, metadata, zarr_format)
    for name, level in (("0", pixels), ("1", pixels[..., ::4, ::4])):
        array = zarr.create_array(
            str(folder / name),
            shape=level.shape,
            dtype=level.dtype,
            chunks=(1,) * (level.ndim - 2) + (chunk, chunk),
            shards=(1,) * (level.ndim - 2) + (shard, shard) if shard else None,
            compressors=CODECS[zarr_format][codec] if codec else None,
            zarr_format=zarr_format,
            chunk_key_encoding={"name": "v2", "separator": "/"} if zarr_format == 2 else None,
        )
        array[...] = level
    return folder


def write_plate(
    folder: Path,
    fields: dict[str, list[np.ndarray]],
    labels: tuple[str, ...] | None = None,
    zarr_format: int = 2,
    **options,
) -> Path:
    """Write a plate: `fields` are the images of each well, such as `{"A/1": [pixels]}`."""
    wells = [{"path": path} for path in fields]
    write_group(folder, {"plate": {"wells": wells}}, zarr_format)
    for path, images in fields.items():
        described = [{"path": str(index)} for index in range(len(images))]
        write_group(folder / path, {"well": {"images": described}}, zarr_format)
        for index, pixels in enumerate(images):
            image = folder / path / str(index)
            write_image(image, pixels, labels=labels, zarr_format=zarr_format, **options)
    return folder
