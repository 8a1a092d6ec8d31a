"""Reading the images of a field: TIFF, PNG, OME-Zarr."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from xxhash import xxh3_128_hexdigest

from hcsqc.screens.images.planes import Stack, UnreadableField, choose_plane
from hcsqc.screens.images.tiff import SIGNATURES, decode_tiff

__all__ = ["FieldImages", "UnreadableField", "read_field"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = 0
# From a page and a projection to the plane, and the digest of what it was made from.
_Image = Callable[[int | None, str | None], tuple[np.ndarray, str]]


@dataclass(frozen=True)
class FieldImages:
    """The images of a field, one per channel.

    `planes`: H x W of uint8 or uint16, C-contiguous, some of them read-only. `digests`: XXH3 of
    the channel's file; of an OME-Zarr image that of the channel's decoded pixels, before any
    projection (z x H x W, little-endian), because chunks may hold several channels.
    """

    planes: list[np.ndarray]
    digests: list[str]


def read_field(
    images: Path,
    paths: Sequence[str | None],
    pages: Sequence[int | None] | None = None,
    z_projection: str | None = None,
) -> FieldImages:
    """Read the image of each channel of a field, each file once.

    `paths` are below the folder `images`. `pages` says which page of its file is the channel,
    from 0; None (or NaN, as pandas reads null) where the file holds that channel alone, and then
    several planes are a z-stack that `z_projection` flattens: `max`, `mean` or `middle`. A path
    may be an OME-Zarr image, where the page is the index along axis c. Safe to call from threads.
    Raises UnreadableField naming the file and what is wrong with it.
    """
    opened: dict[str, _Image] = {}
    planes, digests = [], []
    for index, path in enumerate(paths):
        if not isinstance(path, str):
            raise UnreadableField(f"no image of channel {index + 1}")
        page = None if pages is None else pages[index]
        try:
            if path not in opened:
                opened[path] = _open(images / path)
            no_page = page is None or page != page
            plane, digest = opened[path](None if no_page else int(page), z_projection)
        except UnreadableField as error:
            raise UnreadableField(f"{path}: {error}") from error
        except MemoryError:
            raise  # the job's fault, not the image's
        except Exception as error:  # decoders raise whatever they do on damaged files
            raise UnreadableField(
                f"{path}: cannot be read as an image ({type(error).__name__}: {error})"
            ) from error
        planes.append(plane)
        digests.append(digest)
    return FieldImages(planes, digests)


def _open(path: Path) -> _Image:
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise UnreadableField("no such file") from error
    except IsADirectoryError:
        # zarr takes a second to import, and most screens need it not.
        from hcsqc.screens.images.ngff import open_image

        return open_image(path)
    digest = xxh3_128_hexdigest(content)
    stack = _decode(content)
    return lambda page, z_projection: (choose_plane(stack, page, z_projection), digest)


def _decode(content: bytes) -> Stack:
    if content.startswith(SIGNATURES):
        return decode_tiff(content)
    if content.startswith(_PNG_SIGNATURE):
        return _decode_png(content)
    if not content:
        raise UnreadableField("is empty")
    raise UnreadableField("is neither TIFF nor PNG")


def _decode_png(content: bytes) -> Stack:
    bits, colour = content[24:25], content[25:26]
    if colour and (colour[0] != _PNG_GREY or bits[0] not in (8, 16)):
        raise UnreadableField(
            f"PNG of colour type {colour[0]} and {bits[0]} bit, expected grey levels (colour type "
            "0) of 8 or 16 bit"
        )
    plane = imagecodecs.png_decode(content)
    return Stack(1, lambda _: plane)
