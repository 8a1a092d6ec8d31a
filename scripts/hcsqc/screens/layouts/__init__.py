"""How a screen's images are named and laid out on disk: from files to a table of fields.

A layout is a module with `find_images`, `list_plates` and `list_channels`, and an entry here.
"""

import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.ids import field_id
from hcsqc.screens.images.remote import Folder
from hcsqc.screens.images.stamps import stamps
from hcsqc.screens.layouts import (
    bbbc021,
    bbbc022,
    by_pattern,
    cell_painting_gallery,
    loaddata,
    ome_zarr,
)
from hcsqc.screens.layouts.base import FoundImages, Image, Source, Treatment, of_plate, one_of

__all__ = ["LAYOUTS", "Source", "index_plate", "list_channels", "list_plates"]

LAYOUTS = {
    "bbbc022": bbbc022,
    "bbbc021": bbbc021,
    "loaddata": loaddata,
    "cell_painting_gallery": cell_painting_gallery,
    "files": by_pattern,
    "ome_zarr": ome_zarr,
}


def index_plate(source: Source, screen: str, plate: str) -> tuple[pd.DataFrame, list[str]]:
    """List the fields of a plate, without opening their images.

    Returns the rows of the `fields` table, ordered by well and site, and the image files that
    could not be placed. A field with a missing or doubled channel is listed with its problem.
    Raises InputError if the plate has no images or a folder cannot be listed, and where the
    screen's entry does not fit it.
    """
    try:
        found = LAYOUTS[source.layout].find_images(source, plate)
    except InputError as error:
        raise InputError(f"screen {screen}: {error}") from error
    _check_channels(found, source, screen, plate)
    sizes = _sizes(of_plate(source.images, plate), found)
    rows = [
        {
            "field_id": field_id(screen, plate, well, site),
            "plate": plate,
            "well": well,
            "site": site,
        }
        | vars(found.treatments.get(well, Treatment()))
        | _image_columns(found, (well, site), source.channels, sizes)
        for well, site in sorted(found.images)
    ]
    return pd.DataFrame(rows), found.strangers


def list_plates(source: Source) -> list[str]:
    """Return the plates that `source` holds, sorted; raises InputError."""
    return LAYOUTS[source.layout].list_plates(source)


def list_channels(source: Source) -> list[str]:
    """Return the channels of the first plate; empty where pages of files have no names."""
    return LAYOUTS[source.layout].list_channels(source)


def _sizes(folder: Folder, found: FoundImages) -> dict[str, int | None]:
    """Return the sizes of images, in bytes, each looked up once; None if there is no such file.

    That of a folder (an OME-Zarr image) is that of all files below it.
    """
    paths = {
        image.path
        for field in found.images.values()
        for images in field.values()
        for image in images
    }
    of_paths = zip(sorted(paths), stamps(folder, sorted(paths)), strict=True)
    return {path: size if size >= 0 else None for path, (size, _) in of_paths}


def _image_columns(
    found: FoundImages,
    place: tuple[str, int],
    channels: tuple[str, ...],
    sizes: dict[str, int | None],
) -> dict:
    images, problems = [], []
    for channel in channels:
        candidates = found.images[place].get(channel, [])
        if len(candidates) != 1:
            count = f"{len(candidates)} images" if candidates else "no image"
            problems.append(f"{count} of channel {channel}")
        elif sizes[candidates[0].path] is None:
            problems.append(f"no image of channel {channel}: {candidates[0].path}")
        else:
            images.append(candidates[0])
            continue
        images.append(Image(None))
    return {
        "image_path": [image.path for image in images],
        "image_page": [image.page for image in images],
        "image_bytes": [image.path and sizes[image.path] for image in images],
        "problem": found.problems.get(place) or "; ".join(problems) or None,
    }


def _check_channels(found: FoundImages, source: Source, screen: str, plate: str) -> None:
    if found.channels is None:
        return
    for channel in source.channels:
        if channel not in found.channels:
            raise InputError(
                f"screen {screen}: plate {plate} has no channel '{channel}'; "
                f"{one_of(channel, found.channels)}. Correct channels of the screen"
            )
