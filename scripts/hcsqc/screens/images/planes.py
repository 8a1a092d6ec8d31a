"""The planes of one image, whatever kind of file they lie in."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class UnreadableField(Exception):
    """A field whose images cannot be used; the message is recorded in the plate's summary."""


@dataclass(frozen=True)
class Stack:
    """Planes that are decoded when asked for, `plane(0)` to `plane(count - 1)`."""

    count: int
    plane: Callable[[int], np.ndarray]


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
