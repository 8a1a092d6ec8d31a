"""OME-Zarr plates: NGFF `plate` metadata, wells, and a multiscale image per field."""

import os
import re
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.places import well_name
from hcsqc.screens.images.ngff import channel_names, ome_attributes
from hcsqc.screens.images.planes import UnreadableField
from hcsqc.screens.layouts.base import (
    FoundImages,
    Image,
    Source,
    is_hidden,
    of_plate,
    plates_by_path,
)


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the fields of a plate; site is the number of the field in its well, from 1.

    Fields and wells that are missing or damaged are listed with their problem.
    Raises InputError if the plate itself is.
    """
    images = of_plate(source.images, plate)
    zarr = _plate_folder(images, plate)
    below = zarr.relative_to(images)
    found = FoundImages(channels=set())
    for path in _well_paths(zarr):
        well = _well(path, zarr)
        try:
            fields = _field_paths(zarr / path)
        except UnreadableField as error:
            found.images[well, 1] = {}
            found.problems[well, 1] = f"well {(below / path).as_posix()}: {error}"
            continue
        for site, field in enumerate(fields, start=1):
            image = (below / path / field).as_posix()
            placed = found.images[well, site]
            try:
                names = channel_names(images / image)
            except UnreadableField as error:
                found.problems[well, site] = f"{image}: {error}"
                continue
            found.channels.update(names)
            for page, name in enumerate(names):
                placed[name].append(Image(image, page))
    if not found.channels:
        first = next(iter(found.problems.values()), "its wells have no images")
        raise InputError(f"{zarr}: no field of the plate can be read; first: {first}")
    return found


def list_plates(source: Source) -> list[str]:
    """Return the plates in the images' folder, or that its `{plate}` stands for, sorted."""
    if "{plate}" in str(source.images):
        return plates_by_path(source.images)
    names = os.listdir(source.images) if source.images.is_dir() else []
    plates = [name for name in names if name.endswith(".zarr") and not is_hidden(name)]
    return sorted({re.sub(r"(\.ome)?\.zarr$", "", name) for name in plates})


def list_channels(source: Source) -> list[str]:
    """Return the channels of the first field that can be read, in the images' order."""
    for plate in list_plates(source):
        found = find_images(source, plate)
        for channels in found.images.values():
            if channels:
                return list(channels)
    return []


def _plate_folder(images: Path, plate: str) -> Path:
    candidates = [images, images / f"{plate}.zarr", images / f"{plate}.ome.zarr"]
    for folder in candidates:
        if any((folder / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup")):
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise InputError(
        f"plate {plate} has no OME-Zarr; looked for Zarr groups at {looked}. Correct images of the "
        "screen or take the plate out of its plates"
    )


def _well_paths(zarr: Path) -> list[str]:
    try:
        wells = ome_attributes(zarr)["plate"]["wells"]
        return sorted(str(well["path"]) for well in wells)
    except UnreadableField as error:
        raise InputError(f"{zarr}: {error}; copy the plate again") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{zarr}: has no NGFF plate metadata with wells; is it a plate?"
        ) from error


def _field_paths(well: Path) -> list[str]:
    try:
        return [str(image["path"]) for image in ome_attributes(well)["well"]["images"]]
    except (KeyError, TypeError) as error:
        raise UnreadableField("has no NGFF well metadata with images") from error


def _well(path: str, zarr: Path) -> str:
    row, _, column = path.partition("/")
    well = well_name(row, column)
    if well is None:
        raise InputError(f"{zarr}: '{path}' is no well such as A/1")
    return well
