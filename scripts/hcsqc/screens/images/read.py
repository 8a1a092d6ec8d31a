"""Reading the images of a field: TIFF, PNG, OME-Zarr."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np
from xxhash import xxh3_128_hexdigest

from hcsqc.core.errors import InputError
from hcsqc.core.patience import of_the_machine, patiently
from hcsqc.screens.images.planes import (
    Decoded,
    Plane,
    Stack,
    UnreadableField,
    choose_plane,
    place_channel,
)
from hcsqc.screens.images.remote import IMAGE_ENDINGS, Folder, RemoteFolder, forget, read_remote
from hcsqc.screens.images.stamps import ABSENT, Stamp, stamps
from hcsqc.screens.images.tiff import SIGNATURES, decode_tiff

__all__ = ["FieldImages", "UnreadableField", "read_field"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = 0
# From a page (or None and which of the channels that share the file is wanted, among those of the
# screen) to the plane.
_Wanted = tuple[int, Sequence[str | None], Sequence[str]]
_Image = Callable[[int | None, _Wanted, str | None], Plane]


@dataclass(frozen=True)
class FieldImages:
    """The images of a field, one per channel.

    `planes`: H x W of uint8 or uint16, C-contiguous, some of them read-only. `digests`: XXH3 of
    the channel's file; of an OME-Zarr image that of the channel's decoded pixels, before any
    projection (z x H x W, little-endian), because chunks may hold several channels. `stamps`:
    size and time of each image when it was read. `odd`: what should be known of a channel
    although it was read; None if nothing.
    """

    planes: list[np.ndarray]
    digests: list[str]
    stamps: list[Stamp]
    odd: list[str | None]


def read_field(
    images: Folder,
    paths: Sequence[str | None],
    pages: Sequence[int | None] | None = None,
    z_projection: str | None = None,
    channels: Sequence[str] | None = None,
    only: Sequence[int] | None = None,
) -> FieldImages:
    """Read the image of each channel of a field, each file once.

    `paths` are below the folder `images`. `pages` says which page of its file is the channel,
    from 0. Without one (None, or NaN, as pandas reads null) the file holds that channel, or those
    that share it: `place_channel` finds them by their names, `channels`, or in order. The other
    planes of a channel are a z-stack that `z_projection` flattens: `max`, `mean` or `middle`. A
    path may be an OME-Zarr image, where the page is the index along axis c. `only` says which of
    the channels are read, and in which order; None: all. Safe to call from threads.
    Raises UnreadableField naming the file and what is wrong with it; InputError on errors of the
    machine that stay, and on an image that is written while it is read.
    """

    if isinstance(images, RemoteFolder):
        return _read_remote_field(images, paths, pages, z_projection, channels, only)

    def read() -> FieldImages:
        before = stamps(images, paths)
        try:
            found = _read_channels(images, paths, pages, z_projection, channels, only)
        except UnreadableField as error:
            error.stamps = before
            _check_unchanged(images, paths, before)
            raise
        _check_unchanged(images, paths, before)
        return _field(found, [before[index] for index in only] if only is not None else before)

    return patiently(read, images)


def _field(planes: list[Plane], of_images: list[Stamp]) -> FieldImages:
    return FieldImages(
        [plane.pixels for plane in planes],
        [plane.digest for plane in planes],
        of_images,
        [plane.odd for plane in planes],
    )


def _read_remote_field(
    images: RemoteFolder, paths, pages, z_projection, channels, only
) -> FieldImages:
    """Read a field at a URL: what a server sends of a file is whole and of one moment."""
    read: dict[str, Stamp] = {}

    def of_paths() -> list[Stamp]:
        chosen = paths if only is None else [paths[index] for index in only]
        known = [path for path in chosen if isinstance(path, str) and path not in read]
        read.update(zip(known, stamps(images, known), strict=True))
        return [read[path] if isinstance(path, str) else ABSENT for path in chosen]

    try:
        found = _read_channels(images, paths, pages, z_projection, channels, only, read)
    except UnreadableField as error:
        error.stamps = of_paths()
        raise
    finally:
        forget(images / path for path in paths if isinstance(path, str))
    return _field(found, of_paths())


def _check_unchanged(images: Folder, paths, before: list[Stamp]) -> None:
    for path, was, now in zip(paths, before, stamps(images, paths), strict=True):
        if was != now:
            raise OSError(errno.EAGAIN, "it is still being written", str(images / path))


def _read_channels(
    images: Folder, paths, pages, z_projection, channels, only, stamped: dict | None = None
) -> list[Plane]:
    """Return the planes of the chosen channels; `stamped` takes the stamps of remote files."""
    opened: dict[str, _Image] = {}
    pages = [None] * len(paths) if pages is None else pages
    numbers = [None if page is None or page != page else int(page) for page in pages]
    read = []
    for index in range(len(paths)) if only is None else only:
        path = paths[index]
        if not isinstance(path, str):
            raise UnreadableField(f"no image of channel {index + 1}")
        sharing = [i for i, other in enumerate(paths) if other == path and numbers[i] is None]
        names = [channels[i] if channels else None for i in sharing]
        place = sharing.index(index) if index in sharing else 0
        try:
            if path not in opened:
                opened[path], found = _open(images / path)
                if stamped is not None and found is not None:
                    stamped[path] = found
            read.append(opened[path](numbers[index], (place, names, channels or ()), z_projection))
        except UnreadableField as error:
            raise UnreadableField(f"{path}: {error}") from error
        except (MemoryError, InputError):
            raise  # the job's fault, not the image's
        except Exception as error:  # decoders raise whatever they do on damaged files
            if of_the_machine(error):
                raise
            raise UnreadableField(
                f"{path}: cannot be read as an image ({type(error).__name__}: {error})"
            ) from error
    return read


def _open(path: Folder) -> tuple[_Image, Stamp | None]:
    """Return an image, and its stamp if it is a file at a URL."""
    try:
        if isinstance(path, RemoteFolder):
            content, of_file = read_remote(path)
            return _decoded(content), of_file
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except FileNotFoundError as error:
        # A bucket has no folders, so an OME-Zarr image is what has no file of its name.
        if isinstance(path, RemoteFolder) and not path.url.lower().endswith(IMAGE_ENDINGS):
            return _open_zarr(path), None
        raise UnreadableField("no such file") from error
    except IsADirectoryError:
        return _open_zarr(path), None
    return _decoded(content), None


def _open_zarr(path: Folder) -> _Image:
    # zarr takes a second to import, and most screens need it not.
    from hcsqc.screens.images.ngff import open_image

    read_channel = open_image(path)
    return lambda page, _, z_projection: read_channel(page, z_projection)


def _decoded(content: bytes) -> _Image:
    digest = xxh3_128_hexdigest(content)
    decoded = decode_image(content)

    def read(page, wanted, z_projection) -> Plane:
        stack = decoded.pages if page is not None else place_channel(decoded, *wanted)
        return Plane(choose_plane(stack, page, z_projection), digest)

    return read


def decode_image(content: bytes) -> Decoded:
    """Return what the bytes of a TIFF or PNG file hold.

    Raises UnreadableField on another file; on damage decoders raise whatever they do.
    """
    if content.startswith(SIGNATURES):
        return decode_tiff(content)
    if content.startswith(_PNG_SIGNATURE):
        return _decode_png(content)
    if not content:
        raise UnreadableField("is empty")
    raise UnreadableField("is neither TIFF nor PNG")


def _decode_png(content: bytes) -> Decoded:
    bits, colour = content[24:25], content[25:26]
    if colour and (colour[0] != _PNG_GREY or bits[0] not in (8, 16)):
        raise UnreadableField(
            f"PNG of colour type {colour[0]} and {bits[0]} bit, expected grey levels (colour type "
            "0) of 8 or 16 bit"
        )
    plane = imagecodecs.png_decode(content)
    return Decoded(Stack(1, lambda _: plane))
