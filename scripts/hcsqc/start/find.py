"""From a folder of images or a LoadData table to the layout, plates and channels of a screen."""

import posixpath
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from hcsqc.core.config import CHANNELS
from hcsqc.core.errors import InputError
from hcsqc.core.patience import look, patiently
from hcsqc.screens.images.planes import Decoded, UnreadableField
from hcsqc.screens.images.read import decode_image
from hcsqc.screens.images.remote import Folder, RemoteFolder, folder_at, read_remote
from hcsqc.screens.layouts import (
    LAYOUTS,
    Source,
    bbbc021,
    bbbc022,
    by_pattern,
    cell_painting_gallery,
    list_plates,
)
from hcsqc.screens.layouts.base import entries, first_few, is_hidden, one_of
from hcsqc.start.folder import IMAGE_ENDINGS, GivenFolder
from hcsqc.start.load_data import find_source, own_channels
from hcsqc.start.naming_schemes import InDoubt, name_files
from hcsqc.start.tables import (
    LOADDATA,
    TABLE_ENDINGS,
    columns,
    columns_if_any,
    is_loaddata,
    may_be_table,
)

# What the schema of the config takes as a channel's name.
CHANNEL_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Files of more pages hold a z-stack of one channel rather than so many channels.
MOST_CHANNELS = 8
_IMAGE_CSV = {
    "bbbc022": {"Metadata_PlateID", "Metadata_CPD_WELL_POSITION", "Metadata_ASSAY_WELL_ROLE"},
    "bbbc021": {"Metadata_Plate_DAPI", "Metadata_Well_DAPI", "Metadata_Compound"},
}
_BBBC = {"bbbc022": bbbc022, "bbbc021": bbbc021}


@dataclass(frozen=True)
class FoundScreen:
    """What a screen's entry in the config says of its images, and what a person should know.

    `nucleus`, `composite` and further keys of the screen's `entry` are there if they are published.
    """

    source: Source
    plates: list[str]
    naming: str
    notes: list[str] = field(default_factory=list)
    nucleus: str | None = None
    composite: list[str] | None = None
    entry: dict = field(default_factory=dict)


def find_screen(
    path: str | Folder,
    layout: str | None = None,
    pattern: str | None = None,
    scheme: str | None = None,
    plates: Collection[str] = (),
) -> FoundScreen:
    """Find the layout of the images at `path`, a folder or a LoadData table, or check `layout`.

    Both may be at a URL. Of layout `files`, `pattern` says how the files of a folder are named, or
    `scheme`, one of SCHEMES, which of their names count. Without `plates` all are found.
    Raises InDoubt if several layouts fit; InputError if there are no images, no layout fits them, a
    table is none of LoadData, the pattern places no image or two as one, or a plate is not there.
    """
    place = folder_at(path)
    if isinstance(place, Path):
        place = place.expanduser().resolve()
    is_file = _is_file(place)
    if pattern and (is_file or layout not in (None, "files")):
        raise InputError("--pattern: describes the file names of layout files; give their folder")
    if is_file:
        folder = _given_table(place, plates)
        layout = layout or "loaddata"
    else:
        folder = GivenFolder(place, plates=plates)
    layout = layout or ("files" if pattern or scheme else _only_layout(folder))
    if pattern:
        found = _find_pattern(folder, pattern)
    elif layout == "files":
        found = _find_files(folder, scheme)
    else:
        found = _FINDERS[layout](folder)
    if not found.plates:
        raise InputError(f"{path}: has no plate of layout {layout}")
    for plate in plates:
        if plate not in found.plates:
            raise InputError(
                f"--plates: {path} has no plate {plate}; {one_of(plate, found.plates)}"
            )
    if plates:
        found = replace(found, plates=[plate for plate in found.plates if plate in plates])
    wrong = [name for name in found.source.channels if not CHANNEL_NAME.fullmatch(name)]
    if wrong:
        raise InputError(
            f"{path}: channel '{wrong[0]}' cannot be named in a config; rename it with only "
            "letters, digits, points, - and _"
        )
    return found


def _is_file(place: Folder) -> bool:
    """Return whether a table is given, not a folder; at a URL its ending says it."""
    if isinstance(place, RemoteFolder):
        return place.name.lower().endswith(TABLE_ENDINGS)
    status = look(place)
    if status is None:
        raise InputError(f"{place}: no such folder or table; give the path of your images")
    return not stat.S_ISDIR(status.st_mode)


def _given_table(path: Folder, plates: Collection[str]) -> GivenFolder:
    if not path.name.lower().endswith(TABLE_ENDINGS):
        raise InputError(f"{path}: is neither a folder nor a CSV or Parquet table; give a folder")
    names = columns(path)
    if not is_loaddata(names):
        needed = [name for name in LOADDATA if name not in names] or ["FileName_<channel>"]
        raise InputError(
            f"{path}: is not a LoadData table: it has no column {needed[0]}; "
            f"{one_of(needed[0], names)}. Give such a table, or the folder of the images"
        )
    return GivenFolder(path.parent, path, plates)


def _only_layout(folder: GivenFolder) -> str:
    """Return the layout that fits a folder; raises InputError if none does, or several."""
    if folder.is_gallery:
        return "cell_painting_gallery"
    named = [name for name in _BBBC if _bbbc_root(folder, name)]
    if folder.zarrs and (folder.images or folder.loaddata_tables):
        other = folder.images[0] if folder.images else folder.loaddata_tables[0].name
        layout = "loaddata" if folder.loaddata_tables else named[0] if named else "files"
        raise InDoubt(
            f"{folder.path}: mixed layouts: OME-Zarr ({folder.zarrs[0]}) and others ({other}). "
            "Give a folder with only one of them, or set --layout",
            {
                f"OME-Zarr, {folder.zarrs[0]}": {"layout": "ome_zarr"},
                f"{layout}, {other}": {"layout": layout},
            },
        )
    if len(named) > 1:
        raise InDoubt(
            f"{folder.path}: mixed layouts: {' and '.join(named)}. Give the folder of one of them, "
            "or set --layout",
            {layout: {"layout": layout} for layout in named},
        )
    if folder.zarrs:
        return "ome_zarr"
    if folder.loaddata_tables:
        return "loaddata"
    if not folder.images:
        raise InputError(
            f"{folder.path}: no images found; looked for {', '.join(IMAGE_ENDINGS)}, OME-Zarr and "
            "LoadData tables in it and the folders below"
        )
    return named[0] if named else "files"


def _find_bbbc(layout: str) -> Callable[[GivenFolder], FoundScreen]:
    def find(folder: GivenFolder) -> FoundScreen:
        root = _bbbc_root(folder, layout)
        if root is None:
            raise InputError(
                f"{folder.path}: no image of layout {layout}: looked for folders like "
                f"{_BBBC[layout].PLATE_FOLDER.pattern} that hold files like "
                f"{_BBBC[layout].FILE_NAME.pattern}; omit --layout to detect it"
            )
        image_csv = _image_csv(folder, layout)
        source = Source(layout, root, _bbbc_channels(folder, layout), image_csv=image_csv)
        return FoundScreen(source, list_plates(source), f"as {layout.upper()}")

    return find


def _bbbc_channels(folder: GivenFolder, layout: str) -> tuple[str, ...]:
    """Return the published channels that there are images of."""
    names = map(_BBBC[layout].FILE_NAME.fullmatch, map(posixpath.basename, folder.images))
    there = {"w" + name["channel"] for name in names if name}
    return tuple(channel for channel in CHANNELS[layout] if channel in there)


def _bbbc_root(folder: GivenFolder, layout: str) -> Folder | None:
    """Return the folder of most plates that are laid out as BBBC022 or BBBC021 are."""
    module, roots = _BBBC[layout], Counter()
    for image in folder.images:
        above, name = posixpath.split(image)
        plate = module.PLATE_FOLDER.fullmatch(posixpath.basename(above))
        if plate and module.FILE_NAME.fullmatch(name):
            root = posixpath.dirname(above)
            if layout == "bbbc021" and posixpath.basename(root) == plate["plate"].split("_")[0]:
                root = posixpath.dirname(root)  # by week
            roots[root] += 1
    return folder.path / roots.most_common(1)[0][0] if roots else None


def _image_csv(folder: GivenFolder, layout: str) -> Folder:
    for table in chain(folder.tables, _tables_above(folder.path)):
        if may_be_table(table) and _IMAGE_CSV[layout] <= set(columns_if_any(table)):
            return table
    raise InputError(
        f"{folder.path}: is laid out as {layout.upper()}, but no CSV there or in the folder above "
        f"has the columns of its image CSV, such as Image_{min(_IMAGE_CSV[layout])}. Put "
        f"{layout.upper()}_v1_image.csv into the folder, or use --layout files"
    )


def _tables_above(folder: Folder) -> Iterator[Folder]:
    """Yield the CSV tables in the folder above, which is only listed if they are asked for."""
    if isinstance(folder, RemoteFolder) and not folder.depth:
        return
    for name in entries(folder.parent):
        if name.endswith(".csv") and not is_hidden(name):
            yield folder.parent / name


def _find_files(folder: GivenFolder, scheme: str | None) -> FoundScreen:
    _require_images(folder)
    named = name_files(folder.path, folder.images, scheme, folder.plates)
    notes = list(named.notes)
    channels = named.channels or _page_channels(folder.path / named.example, notes)
    source = Source("files", named.images, channels, pattern=named.pattern)
    return FoundScreen(source, named.plates, named.scheme, notes)


def _find_pattern(folder: GivenFolder, text: str) -> FoundScreen:
    """Find the images that a pattern names; without a group `plate` the folder is the plate."""
    _require_images(folder)
    pattern = by_pattern.compile_pattern(text)
    matches = by_pattern.match_files(pattern, folder.images)
    if not matches:
        raise InputError(
            f"{folder.path}: --pattern {text} matches none of {len(folder.images)} images, such as "
            f"{first_few(folder.images)}{_part_matched(pattern, folder.images)}"
        )
    _check_distinct(folder, matches)
    notes, groups = [], [match.groupdict() for match in matches]
    matched = {match.string for match in matches}
    others = [path for path in folder.images if path not in matched]
    if others:
        notes.append(f"images with other names are ignored: {first_few(others)}")
    channels = tuple(sorted({names["channel"] for names in groups if "channel" in names}))
    channels = channels or _page_channels(folder.path / matches[0].string, notes)
    if "plate" in pattern.groupindex:
        images, plates = folder.path, sorted({names["plate"] for names in groups})
    else:
        images, plates = folder.path.parent / "{plate}", [folder.path.name]
    source = Source("files", images, channels, pattern=text)
    return FoundScreen(source, plates, "the given pattern", notes)


def _part_matched(pattern: re.Pattern, images: list[str]) -> str:
    """Return the end of a message about a pattern that matches no image: what it does match."""
    found = next((match for match in map(pattern.search, images) if match and match[0]), None)
    if found is None:
        return "; try it on one of them, from left to right"
    if found[0] != found.string:
        return f"; it matches '{found[0]}' of {found.string}, but must match the whole path"
    return f"; of {found.string} it has neither a well such as A01 nor a number as site"


def _check_distinct(folder: GivenFolder, matches: list[re.Match]) -> None:
    seen: dict[tuple, str] = {}
    for match in matches:
        names = match.groupdict()
        key = (names.get("plate"), names.get("channel"), by_pattern.place_of(match))
        if key in seen:
            raise InputError(
                f"{folder.path}: --pattern gives {seen[key]} and {match.string} the same well, "
                "site and channel; distinguish them by a group, such as (?P<plate>[^/]+), or "
                "match only one of them"
            )
        seen[key] = match.string


def _require_images(folder: GivenFolder) -> None:
    if not folder.images:
        raise InputError(f"{folder.path}: no images found ({', '.join(IMAGE_ENDINGS)})")


def _page_channels(image: Folder, notes: list[str]) -> tuple[str, ...]:
    """Return names for the channels of a file, and add to the notes what they are.

    They are those that the file itself says it has, or else its pages.
    """
    decoded = _decoded(image)
    if decoded.channels is not None:
        return _described_channels(decoded, notes)
    pages = decoded.pages.count
    stack = pages > MOST_CHANNELS
    channels = tuple(f"c{number + 1}" for number in range(1 if stack else pages))
    if pages > 1:
        notes.append(
            f"the {pages} pages of a file are taken as "
            + ("a z-stack of one channel" if stack else f"the channels {', '.join(channels)}")
        )
    return channels


def _described_channels(decoded: Decoded, notes: list[str]) -> tuple[str, ...]:
    """Return the names that a file gives its channels, or c1, c2, ... if they are not distinct."""
    names = [(name or "").strip() for name in decoded.names]
    if "" in names or len({name.casefold() for name in names}) < len(names):
        names = [f"c{number + 1}" for number in range(len(names))]
    if len(names) > 1:
        notes.append(f"according to the file, its channels are {', '.join(names)}")
    return tuple(names)


def _decoded(image: Folder) -> Decoded:
    """Return what an image holds; raises InputError if it cannot be read."""
    try:
        if isinstance(image, RemoteFolder):
            return decode_image(read_remote(image)[0])
        return decode_image(patiently(image.read_bytes, image))
    except UnreadableField as error:
        raise InputError(f"{image}: {error}; copy it again, or remove it") from error
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever they do on damaged files
        raise InputError(
            f"{image}: cannot be read as an image ({type(error).__name__}: {error}); copy it "
            "again, or remove it"
        ) from error


def _find_zarr(folder: GivenFolder) -> FoundScreen:
    parents = {posixpath.dirname(name) for name in folder.zarrs if name != "."}
    if not folder.zarrs:
        raise InputError(f"{folder.path}: no OME-Zarr plate found in it and the folders below")
    if len(parents) > 1:
        raise InputError(
            f"{folder.path}: its OME-Zarr plates lie in several folders, "
            f"{first_few(sorted(parents))}; give one of them"
        )
    if folder.zarrs == ["."]:
        images, names = folder.path.parent, [folder.path.name]
    else:
        images = folder.path / parents.pop()
        names = [posixpath.basename(name) for name in folder.zarrs]
    plates = [re.sub(r"(\.ome)?\.zarr$", "", name) for name in names]
    if not all(name.endswith(".zarr") for name in names):
        images = images / "{plate}"
    source = Source("ome_zarr", images, ())
    for plate in plates:
        found = LAYOUTS["ome_zarr"].find_images(source, plate)
        # In the images' order, which a set of names has lost.
        channels = next(tuple(held) for held in found.images.values() if held)
        source = replace(source, channels=source.channels or channels)
    return FoundScreen(source, plates, "OME-Zarr plates")


def _find_loaddata(folder: GivenFolder) -> FoundScreen:
    source, plates = find_source(folder)
    return FoundScreen(source, plates, "a LoadData table")


def _find_gallery(folder: GivenFolder) -> FoundScreen:
    if not folder.can_be_of_gallery:
        raise InputError(
            f"{folder.path}: is no source of the Cell Painting Gallery, which lies in the folder "
            "of its project in a bucket; omit --layout to detect the layout"
        )
    above = folder.path.parent
    source = Source(
        "cell_painting_gallery",
        above.parent,
        (),
        project=above.name,
        source=folder.path.name,
    )
    return find_in_gallery(source, folder.plates)


def find_in_gallery(source: Source, plates: Collection[str]) -> FoundScreen:
    """Return what is found of some plates of a source of the Cell Painting Gallery.

    Raises InputError that names plates of the source if none is given, or one is not there.
    """
    if not plates:
        there = list_plates(source)
        if not there:
            raise InputError(f"{source.images}/{source.project}/{source.source}: has no plates")
        raise InputError(
            f"{source.project}, {source.source}, has {len(there)} plates; choose some by "
            f"--plates, such as {' '.join(there[:2])}. There are: {first_few(there, 12)}"
        )
    channels = own_channels(cell_painting_gallery.plate_channels(source, min(plates)))
    naming = f"{source.project} of the Cell Painting Gallery"
    return FoundScreen(replace(source, channels=channels), sorted(set(plates)), naming)


_FINDERS = {
    "bbbc022": _find_bbbc("bbbc022"),
    "bbbc021": _find_bbbc("bbbc021"),
    "loaddata": _find_loaddata,
    "cell_painting_gallery": _find_gallery,
    "ome_zarr": _find_zarr,
}
# Layouts that can be found from files.
FOUND_LAYOUTS = (*_FINDERS, "files")
