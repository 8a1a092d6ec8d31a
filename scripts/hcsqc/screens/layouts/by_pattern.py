"""A folder of files whose names say everything, by the screen's own pattern."""

import re
from collections.abc import Iterable

from hcsqc.core.errors import InputError
from hcsqc.core.places import parse_well, well_name, whole_number, why_other
from hcsqc.screens.layouts.base import (
    FoundImages,
    Image,
    Source,
    files_below,
    first_few,
    of_plate,
    one_of,
    plates_by_path,
)

GROUPS = ("plate", "well", "row", "column", "site", "channel")
_IMAGE_ENDINGS = (".tif", ".tiff", ".png")


def find_images(source: Source, plate: str) -> FoundImages:
    """Find the images of a plate by the names of the files below the images' folder.

    Without a group `channel`, each file holds all of the screen's channels.
    Raises InputError on a pattern that cannot place files and if none belongs to the plate.
    """
    pattern = compile_pattern(source.pattern)
    folder = of_plate(source.images, plate)
    found, others, seen = FoundImages(), set(), []
    if "channel" in pattern.groupindex:
        found.channels = set()
    for path in files_below(folder):
        seen.append(path)
        match = pattern.fullmatch(path)
        place = place_of(match) if match else None
        if place is None:
            if path.lower().endswith(_IMAGE_ENDINGS):
                found.strangers.append(path)
        elif match.groupdict().get("plate", plate) != plate:
            others.add(match["plate"])
        else:
            _add(found, place, match.groupdict().get("channel"), path, source.channels)
    if not found.images and others:
        raise InputError(
            f"{folder}: no image of plate {plate}; {one_of(plate, others)}"
            f"{why_other(others, [plate])}"
        )
    if not found.images:
        raise InputError(
            f"{folder}: no file matches pattern {source.pattern} says; "
            f"files there: {first_few(seen)}"
        )
    return found


def list_plates(source: Source) -> list[str]:
    """Return the plates that `{plate}` stands for, or else those that the file names tell, sorted.

    Raises InputError if neither the folder nor the pattern names the plate.
    """
    pattern = compile_pattern(source.pattern)
    if "{plate}" in str(source.images):
        return plates_by_path(source.images)
    if "plate" not in pattern.groupindex:
        raise InputError(
            "the plates cannot be identified; put {plate} into images or a group "
            f"(?P<plate>...) into pattern {source.pattern}"
        )
    return sorted({match["plate"] for match in match_files(pattern, files_below(source.images))})


def list_channels(source: Source) -> list[str]:
    """Return the channels that the file names of (the first plate's) images tell, sorted.

    Empty without a group `channel`: channels are then pages and have no names.
    """
    pattern = compile_pattern(source.pattern)
    if "channel" not in pattern.groupindex:
        return []
    plates = list_plates(source)
    folder = of_plate(source.images, plates[0]) if plates else source.images
    return sorted({match["channel"] for match in match_files(pattern, files_below(folder))})


def match_files(pattern: re.Pattern, paths: Iterable[str]) -> list[re.Match]:
    """Return the matches of paths, posix and below the images' folder, that say a well and site."""
    matches = [pattern.fullmatch(path) for path in paths]
    return [match for match in matches if match and place_of(match)]


def _add(
    found: FoundImages, place, channel: str | None, path: str, channels: tuple[str, ...]
) -> None:
    images = found.images[place]
    if found.channels is not None:
        found.channels.add(channel)
        images[channel].append(Image(path))
    else:
        for name in channels:
            images[name].append(Image(path))


def place_of(match: re.Match) -> tuple[str, int] | None:
    """Return the well and the site that a file name says; None if it does not say them."""
    groups = match.groupdict()
    if any(groups.get(name, "") is None for name in ("plate", "channel")):
        return None
    if "well" in groups:
        well = parse_well(groups["well"] or "")
    else:
        well = well_name(groups["row"] or "", groups["column"] or "")
    site = whole_number(groups.get("site") or "1")
    return (well, site) if well and site is not None else None


def compile_pattern(text: str) -> re.Pattern:
    """Return a screen's pattern; raises InputError if it cannot place files."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"pattern {text} is not a regular expression ({error})") from error
    groups = set(pattern.groupindex)
    if "z" in groups:
        raise InputError(
            f"pattern {text}: planes in separate files are not supported (group z); name one plane "
            "in the pattern, or write stacks, which z_projection flattens"
        )
    unknown = groups - set(GROUPS)
    if unknown:
        raise InputError(
            f"pattern {text}: unknown group '{min(unknown)}'; {one_of(min(unknown), GROUPS)}"
        )
    if not ("well" in groups or {"row", "column"} <= groups):
        raise InputError(
            f"pattern {text}: needs a group (?P<well>...), or (?P<row>...) and (?P<column>...)"
        )
    return pattern
