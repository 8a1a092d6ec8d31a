"""TIFF files, from their bytes to planes: the plainest kind directly, the others by tifffile."""

import io
import math
import struct
from collections.abc import Callable

import numpy as np
import tifffile

from hcsqc.screens.images.axes import Axes, axes_of_only_plane, read_axes
from hcsqc.screens.images.compressed import decode_whole
from hcsqc.screens.images.planes import Decoded, Stack, UnreadableField

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags that must have these values, as they do where they are absent, for pixels to lie as they are:
# subfile type, compression, fill order, orientation, samples per pixel, predictor, sample format.
_PLAIN_VALUES = {254: 0, 259: 1, 266: 1, 274: 1, 277: 1, 317: 1, 339: 1}
# Tags of images that have more than their one plane or lie otherwise: tiles, sub-images, depth,
# planes of a MetaMorph stack, Zeiss LSM.
_OTHER_TAGS = {322, 323, 324, 325, 330, 32997, 33629, 34412}
_KINDS = {1: "B", 3: "H", 4: "I"}
_MINISWHITE, _MINISBLACK = 0, 1
LONGEST_SIDE = 2**20  # pixels; memory for more than any camera has is not asked for


def decode_tiff(content: bytes) -> Decoded:
    """Return the full-size planes of a TIFF file, in the order of its pages, and its channels.

    Planes of the plainest kind are read-only views of `content`.
    Raises UnreadableField if the file is truncated, holds colours or several time points, or if
    what it says of its planes does not fit them; tifffile raises other exceptions on other damage.
    """
    directories = _directories(content)
    if len(directories) == 1 and content.startswith(b"II*\0"):
        plain = _plain_plane(content, directories[0])
        if plain is not None:
            pixels, description = plain
            return _decoded([0], lambda _: pixels, axes_of_only_plane(description))
    return _decode_any(content, len(directories))


def _directories(content: bytes) -> list[int]:
    """Return where each page's directory lies; a chain that leaves the file is truncated."""
    order = "<" if content.startswith(b"II") else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    first, number, offset, entry_size = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    found = []
    place = first
    try:
        while True:
            (directory,) = struct.unpack_from(order + offset, content, place)
            if not directory:
                break
            if directory in found:
                raise UnreadableField("damaged: its list of pages is circular")
            (entries,) = struct.unpack_from(order + number, content, directory)
            place = directory + struct.calcsize(order + number) + entries * entry_size
            found.append(directory)
    except struct.error as error:
        raise UnreadableField(f"truncated: page {len(found)} lies beyond its end") from error
    if not found:
        raise UnreadableField("holds no image: its list of pages is empty")
    return found


def _plain_plane(content: bytes, directory: int) -> tuple[np.ndarray, str] | None:
    """Return the plane of a little-endian file if it is uncompressed grey in contiguous strips.

    With its description. None where anything else is said of it, which is then tifffile's to read.
    """
    (count,) = struct.unpack_from("<H", content, directory)
    tags = {}
    for place in range(directory + 2, directory + 2 + 12 * count, 12):
        code, kind, number = struct.unpack_from("<HHI", content, place)
        tags[code] = (place + 8, kind, number)
    try:
        if len(tags) != count or not _OTHER_TAGS.isdisjoint(tags):
            return None
        for code, plain in _PLAIN_VALUES.items():
            if code in tags and _values(content, tags[code]) != (plain,):
                return None
        (width,), (height,) = _values(content, tags[256]), _values(content, tags[257])
        (bits,), (photometric,) = _values(content, tags[258]), _values(content, tags[262])
        if bits not in (8, 16) or photometric != _MINISBLACK:
            return None
        description = _text(content, tags[270]) if 270 in tags else b""
        if _describes_more(description, height, width):
            return None
        rows = min(_values(content, tags[278])[0], height) if 278 in tags else height
        offsets, sizes = _values(content, tags[273]), _values(content, tags[279])
    except KeyError:
        return None
    size = height * width * bits // 8
    if not size or not rows:
        return None
    strip = rows * width * bits // 8
    strips = -(-height // rows)
    if len(offsets) != strips:
        return None
    start = offsets[0]
    if offsets != tuple(range(start, start + strips * strip, strip)):
        return None
    if sizes != (strip,) * (strips - 1) + (size - strip * (strips - 1),):
        return None
    if start + size > len(content):
        raise UnreadableField(_truncated(start + size, content))
    plane = np.frombuffer(content, f"<u{bits // 8}", height * width, start)
    return plane.reshape(height, width), description.decode("utf-8", "replace")


def _values(content: bytes, entry: tuple[int, int, int]) -> tuple[int, ...]:
    """Return a tag's whole numbers; KeyError if it holds something else."""
    place, kind, number = entry
    form = f"<{number}{_KINDS[kind]}"
    if struct.calcsize(form) > 4:
        (place,) = struct.unpack_from("<I", content, place)
    try:
        return struct.unpack_from(form, content, place)
    except struct.error as error:
        raise UnreadableField("truncated: its tags lie beyond its end") from error


def _text(content: bytes, entry: tuple[int, int, int]) -> bytes:
    place, _, number = entry
    if number > 4:
        (place,) = struct.unpack_from("<I", content, place)
    return content[place : place + number].rstrip(b"\0")


def _describes_more(description: bytes, height: int, width: int) -> bool:
    """Return whether the description may announce planes beyond the page's own.

    ImageJ and tifffile append the planes of a stack to the first one's, without pages.
    """
    if description.startswith(f'{{"shape": [{height}, {width}]'.encode()):
        return False
    return description.startswith((b"ImageJ=", b"{", b"shape="))


def _decode_any(content: bytes, directories: int) -> Decoded:
    tif = tifffile.TiffFile(io.BytesIO(content))
    if len(tif.pages) != directories:
        raise UnreadableField(f"damaged: {len(tif.pages)} of its {directories} pages can be read")
    # Bit 0 marks a smaller copy (a thumbnail, a level of a pyramid), bit 2 a mask.
    whole = [number for number, page in enumerate(tif.pages) if not page.subfiletype & 0b101]
    numbers = whole or list(range(directories))
    pages = {number: tif.pages[number] for number in numbers}
    for page in pages.values():
        if max(page.imagewidth, page.imagelength) > LONGEST_SIDE:
            raise UnreadableField(
                f"damaged: says that it has {page.imagewidth} x {page.imagelength} pixels"
            )
    appended = _appended_planes(tif) if directories == 1 else 1
    if appended > 1:
        numbers = list(range(appended))
        plane = _appended_plane(pages[0], content, appended)
    else:

        def plane(number: int) -> np.ndarray:
            return _decode_page(pages[number], content)

    return _decoded(numbers, plane, read_axes(tif, numbers))


def _decoded(numbers: list[int], plane: Callable[[int], np.ndarray], axes: Axes | None) -> Decoded:
    def stack(chosen: list[int]) -> Stack:
        return Stack(len(chosen), lambda index: plane(chosen[index]))

    if axes is None:
        return Decoded(stack(numbers))
    return Decoded(stack(numbers), [stack(chosen) for chosen in axes.planes], axes.names)


def _appended_planes(tif: tifffile.TiffFile) -> int:
    """Return how many planes the only page stands for."""
    if tif.is_stk:
        return int(tif.stk_metadata["NumberPlanes"])
    if tif.is_imagej:
        return int(tif.imagej_metadata.get("images", 1))
    if tif.is_shaped:
        return math.prod(tif.shaped_metadata[0]["shape"]) // tif.pages.first.size
    return 1


def _appended_plane(
    page: tifffile.TiffPage, content: bytes, count: int
) -> Callable[[int], np.ndarray]:
    _check_grey(page)
    if not page.is_contiguous or page.ndim != 2:
        raise UnreadableField(
            f"has {count} planes in one page, which can be read only if uncompressed"
        )
    end = page.dataoffsets[0] + count * page.nbytes
    if end > len(content):
        raise UnreadableField(_truncated(end, content))
    stored = page.dtype.newbyteorder(page.parent.byteorder)
    pixels = np.frombuffer(content, stored, count * page.size, page.dataoffsets[0])
    planes = pixels.reshape(count, *page.shape)
    return lambda index: planes[index]


def _decode_page(page: tifffile.TiffPage, content: bytes) -> np.ndarray:
    _check_grey(page)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    # tifffile fills what is not stored with zeros.
    if len(places) != math.prod(page.chunked):
        raise UnreadableField(f"damaged: has {len(places)} of {math.prod(page.chunked)} strips")
    if any(not size for _, size in places):
        raise UnreadableField("damaged: has an empty strip")
    end = max(start + size for start, size in places)
    if end > len(content):
        raise UnreadableField(_truncated(end, content))
    return decode_whole(page, content)


def _check_grey(page: tifffile.TiffPage) -> None:
    if page.photometric == _MINISWHITE and page.bitspersample in (8, 16):
        raise UnreadableField(
            "0 is white (MINISWHITE), expected one grey-level plane of unsigned 8 or 16 bit, "
            "0 for black"
        )
    if page.photometric not in (_MINISWHITE, _MINISBLACK) or page.samplesperpixel != 1:
        kind = getattr(page.photometric, "name", page.photometric)
        raise UnreadableField(
            f"colour image ({kind}, {page.samplesperpixel} samples per pixel), expected one "
            "grey-level plane of unsigned 8 or 16 bit"
        )


def _truncated(end: int, content: bytes) -> str:
    return f"truncated: {len(content)} of at least {end} bytes"
