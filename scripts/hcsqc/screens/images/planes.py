"""The planes of one image, whatever kind of file they lie in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hcsqc.screens.images.stamps import Stamp


class UnreadableField(Exception):
    """A field whose images cannot be used; the message is recorded in the plate's summary.

    `stamps` are those of the field's images when they were read; none if it was not tried.
    """

    stamps: Sequence[Stamp] = ()


@dataclass(frozen=True)
class Stack:
    """Planes that are decoded when asked for, `plane(0)` to `plane(count - 1)`."""

    count: int
    plane: Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Plane:
    """What is read of one channel: pixels, the digest of what they were made from, what is odd."""

    pixels: np.ndarray
    digest: str
    odd: str | None = None


@dataclass(frozen=True)
class Decoded:
    """What a file holds: all of its pages, and its channels if the file itself says what they are.

    `channels` are the planes of each along z; `names` as many, None where one has no name.
    """

    pages: Stack
    channels: Sequence[Stack] | None = None
    names: Sequence[str | None] = ()


def place_channel(
    decoded: Decoded,
    place: int,
    wanted: Sequence[str | None],
    screen: Sequence[str] = (),
) -> Stack:
    """Return the planes of the channel `wanted[place]`, one of all that a file should provide.

    Where the file names its channels, they are found by name, whatever its case. If it has none of
    the names, or none is given, its channels are those that are wanted in order, and so are its
    pages if it says nothing; one that is wanted alone has all of these.
    Raises UnreadableField on names of which the file has only some, or one twice, on names of other
    channels of the screen, `screen`, and on another number of channels or pages than is wanted.
    """
    if decoded.channels is None:
        if len(wanted) == 1:
            return decoded.pages
        if decoded.pages.count != len(wanted):
            raise UnreadableField(
                f"has {decoded.pages.count} pages without a description, but "
                f"{len(wanted)} channels of the screen lie in it; list a channel for each page"
            )
        return Stack(1, lambda _: decoded.pages.plane(place))
    own, asked, known = (
        [name and name.strip().casefold() for name in names]
        for names in (decoded.names, wanted, screen)
    )
    counts = [own.count(name) if name else 0 for name in asked]
    if all(count == 1 for count in counts):
        return decoded.channels[own.index(asked[place])]
    if not any(counts) and len(own) == len(asked):
        strays = [
            name for name, key in zip(decoded.names, own, strict=True) if key and key in known
        ]
        if strays:
            raise UnreadableField(
                f"calls itself channel {strays[0]}, but stands for {', '.join(map(str, wanted))}; "
                "correct its place or its description, or give the screen's channels other names"
            )
        return decoded.channels[place]
    missing = ", ".join(str(wanted[i]) for i, count in enumerate(counts) if count != 1)
    named = ", ".join(name or "without a name" for name in decoded.names)
    raise UnreadableField(
        f"has {len(own)} channels{f' ({named})' if any(own) else ''}, but {len(asked)} of the "
        f"screen lie in it{f' (not once by name: {missing})' if any(counts) else ''}; "
        "list all of them in channels of the screen, named as in the file"
    )


def choose_plane(stack: Stack, page: int | None, z_projection: str | None) -> np.ndarray:
    """Return one page of a stack, or with `page` None the stack flattened to one plane.

    The result is H x W of uint8 or uint16, C-contiguous. A projection is `max`, `mean` (rounded
    to the nearest grey level) or `middle` (of an even number the upper one).
    Raises UnreadableField on a page beyond the end, on several planes without a projection and on
    planes that are not grey levels of 8 or 16 bit.
    """
    if page is not None:
        if not 0 <= page < stack.count:
            raise UnreadableField(f"has no page {page}; its {stack.count} are counted from 0")
        return grey_plane(stack.plane(page))
    if stack.count == 1:
        return grey_plane(stack.plane(0))
    if z_projection is None:
        raise UnreadableField(
            f"has {stack.count} planes; set z_projection of the screen to max, mean or middle, or "
            "name pages"
        )
    if z_projection == "middle":
        return grey_plane(stack.plane(stack.count // 2))
    return _flatten(stack, {"max": np.maximum, "mean": np.add}[z_projection])


def _flatten(stack: Stack, combine: np.ufunc) -> np.ndarray:
    """Combine the planes one after the other, so that memory does not grow with the stack."""
    first = grey_plane(stack.plane(0))
    flat = first.astype(np.uint32)
    for index in range(1, stack.count):
        plane = grey_plane(stack.plane(index))
        if plane.shape != first.shape:
            raise UnreadableField(f"its planes differ in size: {first.shape} and {plane.shape}")
        combine(flat, plane, out=flat)
    if combine is np.add:
        flat = (flat + stack.count // 2) // stack.count
    return flat.astype(first.dtype)


def grey_plane(plane: np.ndarray) -> np.ndarray:
    """Return H x W of uint8 or uint16 in the machine's byte order, C-contiguous.

    Raises UnreadableField on any other kind of image.
    """
    if plane.ndim != 2 or plane.dtype.kind != "u" or plane.dtype.itemsize > 2:
        raise UnreadableField(
            f"{plane.dtype.name} image of shape {plane.shape}, expected one grey-level plane of "
            "unsigned 8 or 16 bit"
        )
    return np.require(plane, plane.dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED"])
