"""OME-Zarr plates: NGFF `plate` metadata, wells, and a multiscale image per field."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hcsqc.core.errors import InputError
from hcsqc.core.places import well_name, whole_number
from hcsqc.screens.images.ngff import channel_names, ome_attributes
from hcsqc.screens.images.planes import UnreadableField
from hcsqc.screens.images.remote import Folder, RemoteFolder, connections
from hcsqc.screens.layouts.base import (
    FoundImages,
    Image,
    Source,
    entries,
    is_hidden,
    is_there,
    of_plate,
    plates_by_path,
)

Answer = TypeVar("Answer")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the fields of a plate; site is the number of the field in its well, from 1.

    Fields and wells that are missing or damaged are listed with their problem.
    Raises InputError if the plate itself is, and if it holds several acquisitions and the screen
    does not say which one is meant.
    """
    found, acquisitions = _find(source, plate)
    if len(acquisitions) > 1 or source.acquisition is not None:
        _check_acquisitions(source, plate, acquisitions)
    return found


def _find(source: Source, plate: str) -> tuple[FoundImages, set[int | None]]:
    """Return the fields of a plate, and which acquisitions its wells hold."""
    images = of_plate(source.images, plate)
    zarr = _plate_folder(images, plate)
    below = zarr.relative_to(images)
    found = FoundImages(channels=set())
    acquisitions: set[int | None] = set()
    paths = _well_paths(zarr)
    places = []
    for path, fields in zip(paths, _of_each(_fields, [zarr / path for path in paths]), strict=True):
        well = _well(path, zarr)
        if isinstance(fields, UnreadableField):
            found.images[well, 1] = {}
            found.problems[well, 1] = f"well {(below / path).as_posix()}: {fields}"
            continue
        acquisitions |= {acquisition for _, acquisition in fields}
        chosen = [name for name, number in fields if source.acquisition in (None, number)]
        places += [
            (well, site, (below / path / field).as_posix())
            for site, field in enumerate(chosen, start=1)
        ]
    named = _of_each(channel_names, [images / image for _, _, image in places])
    for (well, site, image), names in zip(places, named, strict=True):
        placed = found.images[well, site]
        if isinstance(names, UnreadableField):
            found.problems[well, site] = f"{image}: {names}"
            continue
        found.channels.update(names)
        for page, name in enumerate(names):
            placed[name].append(Image(image, page))
    if not found.channels and (source.acquisition in (None, *acquisitions)):
        first = next(iter(found.problems.values()), "its wells have no images")
        raise InputError(f"{zarr}: no field of the plate can be read; first: {first}")
    return found, acquisitions


def list_plates(source: Source) -> list[str]:
    """Return the plates in the images' folder, or that its `{plate}` stands for, sorted."""
    if "{plate}" in str(source.images):
        return plates_by_path(source.images)
    names = entries(source.images)
    plates = [name for name in names if name.endswith(".zarr") and not is_hidden(name)]
    return sorted({re.sub(r"(\.ome)?\.zarr$", "", name) for name in plates})


def list_channels(source: Source) -> list[str]:
    """Return the channels of the first field that can be read, in the images' order."""
    for plate in list_plates(source):
        found, _ = _find(source, plate)
        for channels in found.images.values():
            if channels:
                return list(channels)
    return []


def _plate_folder(images: Folder, plate: str) -> Folder:
    candidates = [images, images / f"{plate}.zarr", images / f"{plate}.ome.zarr"]
    for folder in candidates:
        if any(is_there(folder / name) for name in ("zarr.json", ".zattrs", ".zgroup")):
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise InputError(
        f"plate {plate} has no OME-Zarr; looked for Zarr groups at {looked}. Correct images of the "
        "screen or take the plate out of its plates"
    )


def _well_paths(zarr: Folder) -> list[str]:
    try:
        wells = ome_attributes(zarr)["plate"]["wells"]
        return sorted(str(well["path"]) for well in wells)
    except UnreadableField as error:
        raise InputError(f"{zarr}: {error}; copy the plate again") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{zarr}: has no NGFF plate metadata with wells; is it a plate?"
        ) from error


def _of_each(
    read: Callable[[Folder], Answer], folders: Iterable[Folder]
) -> list[Answer | UnreadableField]:
    """Return what `read` gives or raises of each folder; at a URL many are read at once."""

    def answer(folder: Folder) -> Answer | UnreadableField:
        try:
            return read(folder)
        except UnreadableField as error:
            return error

    folders = list(folders)
    if not any(isinstance(folder, RemoteFolder) for folder in folders):
        return [answer(folder) for folder in folders]
    with ThreadPoolExecutor(connections()) as pool:
        return list(pool.map(answer, folders))


def _fields(well: Folder) -> list[tuple[str, int | None]]:
    """Return the path of each field of a well, and its acquisition."""
    try:
        fields = [
            (str(image["path"]), _acquisition(image))
            for image in ome_attributes(well)["well"]["images"]
        ]
        hash(tuple(fields))  # an acquisition may be anything
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableField("has no NGFF well metadata with images") from error
    return fields


def _acquisition(image: dict) -> int | None:
    """Return the number of an image's acquisition, which some write as text."""
    stored = image.get("acquisition")
    number = whole_number(stored)
    return stored if number is None else number


def _check_acquisitions(source: Source, plate: str, acquisitions: set[int | None]) -> None:
    """Refuse several acquisitions of a well, which are no sites, and one that is not there."""
    chosen = source.acquisition
    if chosen is not None and chosen in acquisitions:
        return
    zarr = _plate_folder(of_plate(source.images, plate), plate)
    described = ome_attributes(zarr)["plate"].get("acquisitions")
    described = described if isinstance(described, list) else []
    names = {str(one.get("id")): one.get("name") for one in described if isinstance(one, dict)}
    listed = ", ".join(
        f"{number} ({names[number]})" if names.get(number) else number
        for number in sorted(map(str, acquisitions))
    )
    raise InputError(
        f"{zarr}: its wells have the acquisitions {listed}"
        + (f", but not {chosen}" if chosen is not None else "")
        + "; choose one by acquisition in the screen's entry"
    )


def _well(path: str, zarr: Folder) -> str:
    row, _, column = path.partition("/")
    well = well_name(row, column)
    if well is None:
        raise InputError(f"{zarr}: '{path}' is not a well such as A/1")
    return well
