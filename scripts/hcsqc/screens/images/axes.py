"""Which planes of a TIFF belong to which channel, by the file's own words.

OME-TIFF says it in XML, ImageJ and tifffile in the first page's description.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import tifffile

from hcsqc.screens.images.planes import UnreadableField

# Axes of tifffile's own descriptions that say what planes are; others (Q, I) only count them.
_KNOWN = set("TCZYXS")
_OME = re.compile(r"<(\w+:)?OME[\s>]")
_IMAGEJ = {"C": "channel", "Z": "slice", "T": "frame"}


@dataclass(frozen=True)
class Axes:
    """The planes of a file, by number: `planes[channel][z]`; names of channels where they have."""

    planes: list[list[int]]
    names: list[str | None]


def read_axes(tif: tifffile.TiffFile, planes: Sequence[int]) -> Axes | None:
    """Return what a file says of its planes, None if it says nothing.

    `planes` are the numbers of its full-size pages, or those of the planes that its one page
    stands for.
    Raises UnreadableField if its words do not fit its planes, and on several time points or images.
    """
    description = tif.pages.first.description
    if len(planes) == 1:
        return axes_of_only_plane(description)
    if _OME.search(description, 0, 4096):
        return _of_ome(description, planes)
    if tif.is_imagej:
        stored = tif.imagej_metadata or {}
        sizes = {axis: int(stored.get(f"{name}s", 1)) for axis, name in _IMAGEJ.items()}
        order = str(stored.get("order", "czt")).upper()
        if set(sizes.values()) == {1} or sorted(order) != ["C", "T", "Z"]:
            return None
        return _of_sizes(order, sizes, planes)
    if tif.is_shaped:
        stored = tif.shaped_metadata[0]
        axes, shape = str(stored.get("axes", "")), stored["shape"]
        if len(axes) != len(shape) or not set(axes) <= _KNOWN or not {"C", "Z", "T"} & set(axes):
            return None
        sizes = {axis: int(size) for axis, size in zip(axes, shape, strict=True)}
        order = "".join(axis for axis in reversed(axes) if axis in "CZT")
        return _of_sizes(order, sizes, planes)
    return None


def axes_of_only_plane(description: str) -> Axes | None:
    """Return the axes of a file's only plane if its OME-XML names the plane's channel, else None.

    The plane can be read whatever else is said of it, and whatever is damaged about that.
    """
    if not _OME.search(description, 0, 4096):
        return None
    try:
        axes = _of_ome(description, [0])
    except UnreadableField:
        return None
    return axes if axes and axes.names[0] else None


def _of_sizes(order: str, sizes: dict[str, int], planes: Sequence[int]) -> Axes:
    """Return the axes of planes that lie in order, the axis named first the fastest."""
    said = math.prod(sizes.get(axis, 1) for axis in order)
    if said != len(planes):
        raise UnreadableField(f"claims {said} planes, but has {len(planes)}")
    places = {}
    for index, number in enumerate(planes):
        rest, place = index, dict.fromkeys("CZT", 0)
        for axis in order:
            rest, place[axis] = divmod(rest, sizes.get(axis, 1))
        places[place["C"], place["Z"], place["T"]] = number
    return _axes(places, [None] * sizes.get("C", 1))


def _axes(places: dict[tuple[int, int, int], int], names: Sequence[str | None]) -> Axes:
    """Return the axes of planes by their channel, z and time."""
    times = {time for _, _, time in places}
    if len(times) != 1:
        raise UnreadableField(f"has {len(times)} time points, expected one")
    channels = sorted({channel for channel, _, _ in places})
    stacks = [
        [places[place] for place in sorted(places) if place[0] == channel] for channel in channels
    ]
    if len({len(stack) for stack in stacks}) != 1:
        counts = ", ".join(str(len(stack)) for stack in stacks)
        raise UnreadableField(f"its channels have different numbers of planes ({counts})")
    return Axes(stacks, [names[c] if c < len(names) else None for c in channels])


def _of_ome(text: str, planes: Sequence[int]) -> Axes | None:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UnreadableField(f"its OME-XML is damaged ({error})") from error
    described = [
        (image, pixels)
        for image in root.iterfind("{*}Image")
        for pixels in image.iterfind("{*}Pixels")
    ]
    own = _own_identity(root)
    found = [(image, _of_pixels(pixels, own, len(planes))) for image, pixels in described]
    found = [(image, places) for image, places in found if places[0]]
    if len(found) > 1:
        named = ", ".join(str(image.get("Name") or image.get("ID")) for image, _ in found)
        raise UnreadableField(f"holds {len(found)} images ({named}), expected those of one site")
    if not found:
        raise UnreadableField("its OME-XML does not describe its planes (it names other files)")
    places, names = found[0][1]
    if sorted(places.values()) != list(planes):
        raise UnreadableField(
            f"its OME-XML describes {len(set(places.values()))} planes, but it has {len(planes)}"
        )
    return _axes(places, names)


def _own_identity(root: ElementTree.Element) -> str | None:
    """Return by which UUID the XML means the file it lies in; None if there is no other."""
    named = {(uuid.text or "").strip() for uuid in root.iterfind(".//{*}TiffData/{*}UUID")}
    own = (root.get("UUID") or "").strip()
    if own in named:
        return own
    if len(named) > 1:
        raise UnreadableField(
            "its OME-XML describes several files and does not say which one this is"
        )
    return None


def _of_pixels(
    pixels: ElementTree.Element, own: str | None, most: int
) -> tuple[dict[tuple[int, int, int], int], list[str | None]]:
    """Return the numbers of the planes in this file by channel, z and time; the channels' names."""
    order = re.sub("[XY]", "", pixels.get("DimensionOrder", "")).upper()
    try:
        sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "CZT"}
        if sorted(order) != ["C", "T", "Z"] or min(sizes.values()) < 1:
            raise ValueError(f"DimensionOrder {pixels.get('DimensionOrder')}, sizes {sizes}")
        elements = pixels.findall("{*}TiffData") or [ElementTree.Element("TiffData")]
        blocks = [
            _block(data, order, sizes, most)
            for data in elements
            if own is None or data.findtext("{*}UUID", own).strip() == own
        ]
    except ValueError as error:
        raise UnreadableField(f"its OME-XML is damaged ({error})") from error
    places: dict[tuple[int, int, int], int] = {}
    for block in blocks:
        if not places.keys().isdisjoint(block):
            raise UnreadableField("its OME-XML describes a plane twice")
        places |= block
    return places, [channel.get("Name") for channel in pixels.iterfind("{*}Channel")]


def _block(
    data: ElementTree.Element, order: str, sizes: dict[str, int], most: int
) -> dict[tuple[int, int, int], int]:
    """Return the planes of one TiffData element, by channel, z and time."""
    total = math.prod(sizes.values())
    first = int(data.get("IFD", "0"))
    count = int(data.get("PlaneCount", "1" if "IFD" in data.attrib else str(total)))
    start, step = 0, 1
    for axis in order:
        start += int(data.get(f"First{axis}", "0")) * step
        step *= sizes[axis]
    if first < 0 or start < 0 or start + count > total:
        raise ValueError(f"planes {start} to {start + count - 1} of {total}")
    if count > most:
        raise UnreadableField(f"its OME-XML describes {count} planes, but it has {most}")
    block = {}
    for number in range(count):
        rest, place = start + number, {}
        for axis in order:
            rest, place[axis] = divmod(rest, sizes[axis])
        block[place["C"], place["Z"], place["T"]] = first + number
    return block
