"""From a folder of images or a LoadData table to the layout, plates and channels of a screen."""

import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc.core.config import CHANNELS
from hcsqc.core.errors import InputError
from hcsqc.core.patience import list_folder, look, patiently
from hcsqc.core.places import parse_plate
from hcsqc.screens.images.planes import Decoded, UnreadableField
from hcsqc.screens.images.read import decode_image
from hcsqc.screens.layouts import (
    LAYOUTS,
    Source,
    bbbc021,
    bbbc022,
    by_pattern,
    list_channels,
    list_plates,
)
from hcsqc.screens.layouts.base import first_few, is_hidden, one_of, walk
from hcsqc.start.naming_schemes import InDoubt, name_files

IMAGE_ENDINGS = (".tif", ".tiff", ".png")
TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet")
ZARR_GROUP = ("zarr.json", ".zattrs", ".zgroup")
# What the schema of the config takes as a channel's name.
CHANNEL_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Files of more pages hold a z-stack of one channel rather than so many channels.
MOST_CHANNELS = 8
_LOADDATA = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
_ILLUMINATION = re.compile(r"(FileName|URL)_Illum")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|[a-z0-9]+://")
_IMAGE_CSV = {
    "bbbc022": {"Metadata_PlateID", "Metadata_CPD_WELL_POSITION", "Metadata_ASSAY_WELL_ROLE"},
    "bbbc021": {"Metadata_Plate_DAPI", "Metadata_Well_DAPI", "Metadata_Compound"},
}
_BBBC = {"bbbc022": bbbc022, "bbbc021": bbbc021}


@dataclass(frozen=True)
class FoundScreen:
    """What a screen's entry in the config says of its images, and what a person should know."""

    source: Source
    plates: list[str]
    naming: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Folder:
    """What lies below a folder; OME-Zarr groups are not entered."""

    path: Path
    table: Path | None = None  # the one that was given instead of a folder

    @cached_property
    def _listing(self) -> tuple[list[str], list[str], list[str]]:
        images, tables, zarrs = [], [], []
        for root, folders, names in walk(self.path):
            below = root.relative_to(self.path)
            if any(look(root / name) for name in ZARR_GROUP):
                zarrs.append(below.as_posix())
                folders.clear()
                continue
            for name in names:
                path = (below / name).as_posix()
                if name.lower().endswith(IMAGE_ENDINGS):
                    images.append(path)
                elif name.lower().endswith(TABLE_ENDINGS):
                    tables.append(path)
        return images, tables, zarrs

    @property
    def images(self) -> list[str]:
        return self._listing[0]

    @property
    def zarrs(self) -> list[str]:
        return self._listing[2]

    @property
    def tables(self) -> list[Path]:
        return [self.table] if self.table else [self.path / name for name in self._listing[1]]

    @cached_property
    def loaddata_tables(self) -> list[Path]:
        return [table for table in self.tables if _is_loaddata(_columns_if_any(table))]


def find_screen(
    path: Path,
    layout: str | None = None,
    pattern: str | None = None,
    scheme: str | None = None,
) -> FoundScreen:
    """Find the layout of the images at `path`, a folder or a LoadData table, or check `layout`.

    Of layout `files`, `pattern` says how the files of a folder are named, or `scheme`, one of
    SCHEMES, which of their names count.
    Raises InDoubt if several layouts fit; InputError if there are no images, no layout fits them, a
    table is none of LoadData, or the pattern places no image or two as one.
    """
    path = path.expanduser().resolve()
    given = look(path)
    is_file = given is not None and not stat.S_ISDIR(given.st_mode)
    if pattern and (is_file or layout not in (None, "files")):
        raise InputError("--pattern: describes the file names of layout files; give their folder")
    if given is not None and not is_file:
        folder = _Folder(path)
    elif is_file:
        folder = _given_table(path)
        layout = layout or "loaddata"
    else:
        raise InputError(f"{path}: no such folder or table; give the path of your images")
    layout = layout or ("files" if pattern or scheme else _only_layout(folder))
    if pattern:
        found = _find_pattern(folder, pattern)
    elif layout == "files":
        found = _find_files(folder, scheme)
    else:
        found = _FINDERS[layout](folder)
    if not found.plates:
        raise InputError(f"{path}: has no plate of layout {layout}")
    wrong = [name for name in found.source.channels if not CHANNEL_NAME.fullmatch(name)]
    if wrong:
        raise InputError(
            f"{path}: channel '{wrong[0]}' cannot be named in a config; rename it with only "
            "letters, digits, points, - and _"
        )
    return found


def _given_table(path: Path) -> _Folder:
    if not path.name.lower().endswith(TABLE_ENDINGS):
        raise InputError(f"{path}: is neither a folder nor a CSV or Parquet table; give a folder")
    columns = _columns(path)
    if not _is_loaddata(columns):
        needed = [name for name in _LOADDATA if name not in columns] or ["FileName_<channel>"]
        raise InputError(
            f"{path}: is not a LoadData table: it has no column {needed[0]}; "
            f"{one_of(needed[0], columns)}. Give such a table, or the folder of the images"
        )
    return _Folder(path.parent, path)


def _only_layout(folder: _Folder) -> str:
    """Return the layout that fits a folder; raises InputError if none does, or several."""
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


def _find_bbbc(layout: str) -> Callable[[_Folder], FoundScreen]:
    def find(folder: _Folder) -> FoundScreen:
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


def _bbbc_channels(folder: _Folder, layout: str) -> tuple[str, ...]:
    """Return the published channels that there are images of."""
    names = map(_BBBC[layout].FILE_NAME.fullmatch, map(posixpath.basename, folder.images))
    there = {"w" + name["channel"] for name in names if name}
    return tuple(channel for channel in CHANNELS[layout] if channel in there)


def _bbbc_root(folder: _Folder, layout: str) -> Path | None:
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


def _image_csv(folder: _Folder, layout: str) -> Path:
    above = folder.path.parent
    names = [name for name in list_folder(above) if name.endswith(".csv") and not is_hidden(name)]
    for table in [*folder.tables, *(above / name for name in names)]:
        if _IMAGE_CSV[layout] <= set(_columns_if_any(table)):
            return table
    raise InputError(
        f"{folder.path}: is laid out as {layout.upper()}, but no CSV there or in the folder above "
        f"has the columns of its image CSV, such as Image_{min(_IMAGE_CSV[layout])}. Put "
        f"{layout.upper()}_v1_image.csv into the folder, or use --layout files"
    )


def _find_files(folder: _Folder, scheme: str | None) -> FoundScreen:
    _require_images(folder)
    named = name_files(folder.path, folder.images, scheme)
    notes = list(named.notes)
    channels = named.channels or _page_channels(folder.path / named.example, notes)
    source = Source("files", named.images, channels, pattern=named.pattern)
    return FoundScreen(source, named.plates, named.scheme, notes)


def _find_pattern(folder: _Folder, text: str) -> FoundScreen:
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


def _check_distinct(folder: _Folder, matches: list[re.Match]) -> None:
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


def _require_images(folder: _Folder) -> None:
    if not folder.images:
        raise InputError(f"{folder.path}: no images found ({', '.join(IMAGE_ENDINGS)})")


def _page_channels(image: Path, notes: list[str]) -> tuple[str, ...]:
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


def _decoded(image: Path) -> Decoded:
    """Return what an image holds; raises InputError if it cannot be read."""
    try:
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


def _find_zarr(folder: _Folder) -> FoundScreen:
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


def _find_loaddata(folder: _Folder) -> FoundScreen:
    tables = folder.loaddata_tables
    if not tables:
        raise InputError(f"{folder.path}: no LoadData table found in it and the folders below")
    plain = [table for table in tables if not any(map(_ILLUMINATION.match, _columns(table)))]
    tables = plain or tables
    table = _one_table(tables, folder.path)
    images, prefix = _image_root(tables, folder)
    source = Source("loaddata", images, (), table=table, table_prefix=prefix)
    plates = list_plates(source)
    channels = tuple(c for c in list_channels(source) if not c.startswith("Illum"))
    return FoundScreen(replace(source, channels=channels), plates, "a LoadData table")


def _one_table(tables: list[Path], folder: Path) -> Path:
    """Return the path of the only table, or with {plate} where each plate has one."""
    if len(tables) == 1:
        return tables[0]
    paths = set()
    for table in tables:
        plate = next(iter(_rows(table)["Metadata_Plate"]), "")
        paths.add(table.as_posix().replace(plate, "{plate}") if plate else table.as_posix())
    path = paths.pop()
    if paths or "{plate}" not in path:
        names = [table.relative_to(folder).as_posix() for table in tables]
        raise InDoubt(
            f"{folder}: holds {len(tables)} LoadData tables, {first_few(names)}; give the path of "
            "one of them",
            {name: {"path": table} for name, table in zip(names, tables, strict=True)},
        )
    return Path(path)


def _image_root(tables: list[Path], folder: _Folder) -> tuple[Path, str | None]:
    """Return the folder of the tables' images, and which start of their paths stands for it."""
    table = tables[0]
    paths = [path for each in tables for path in _image_paths(each) if path]
    if not paths:
        raise InputError(f"{table}: lists no images; is it a LoadData table?")
    path = paths[0]
    if not _ABSOLUTE.match(path):
        for root in (table.parent, folder.path):
            if (root / path).is_file():
                return root, None
    elif Path(path).is_file():
        above = {posixpath.dirname(path) for path in paths}
        return Path(os.path.commonpath([posixpath.normpath(name) for name in above])), None
    # The images were moved since: the longest end of the path that a file here has, too.
    parts = path.split("/")
    alike = [image for image in folder.images if posixpath.basename(image) == parts[-1]]
    ends = [(folder.path / image).as_posix().split("/") for image in alike]
    if not ends:
        raise InputError(
            f"{table}: its images are neither at the listed paths nor below {folder.path}; first: "
            f"{path}. Put the table above the images, or write the screen's entry yourself "
            "(docs/screens.md, table_prefix)"
        )
    shared, end = max((_shared(parts, end), end) for end in ends)
    return Path("/".join(end[:-shared])), "/".join(parts[:-shared]) or None


def _shared(first: list[str], second: list[str]) -> int:
    """Return how many parts two paths have in common, from the end."""
    count = 0
    while count < min(len(first), len(second)) and first[-count - 1] == second[-count - 1]:
        count += 1
    return count


def _image_paths(table: Path) -> list[str]:
    rows, paths = _rows(table), []
    channels = [name.split("_", 1)[1] for name in rows if name.startswith(("FileName_", "URL_"))]
    for row in rows.to_dict("records"):
        for channel in channels:
            name, above = row.get(f"FileName_{channel}", ""), row.get(f"PathName_{channel}", "")
            url = unquote(re.sub(r"^file:(//)?", "", row.get(f"URL_{channel}", "")))
            path = posixpath.join(above.replace("\\", "/"), name) if name else url
            paths.append(path.replace("\\", "/"))
    return paths


def _rows(table: Path) -> pd.DataFrame:
    """Return a LoadData table as text, by column names without `Image_`."""
    wanted = re.compile(r"(Image_)?(Metadata_Plate$|FileName_|PathName_|URL_)")

    def read() -> pd.DataFrame:
        if table.suffix == ".parquet":
            names = [name for name in pq.read_schema(table).names if wanted.match(name)]
            rows = pq.read_table(table, columns=names, partitioning=None).to_pandas()
            return rows.map(lambda value: "" if pd.isna(value) else str(value))
        return pd.read_csv(
            table,
            usecols=lambda name: bool(wanted.match(name)),
            index_col=False,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )

    rows = _reading(table, read).rename(columns=lambda name: re.sub("^Image_", "", name))
    rows = rows.assign(Metadata_Plate=rows["Metadata_Plate"].map(parse_plate))
    return rows[rows["Metadata_Plate"] != ""]


def _columns_if_any(table: Path) -> list[str]:
    """Return a table's columns; none of one that is not to be read, as folders hold many things."""
    try:
        return _columns(table)
    except InputError:
        return []


def _columns(table: Path) -> list[str]:
    """Return a table's columns by their names without `Image_`; raises InputError."""
    names = _reading(
        table,
        lambda: (
            pq.read_schema(table).names
            if table.suffix == ".parquet"
            else list(pd.read_csv(table, nrows=0, dtype=str, encoding="utf-8-sig").columns)
        ),
    )
    return [re.sub("^Image_", "", name) for name in names]


def _reading(table: Path, read: Callable):
    try:
        return read()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{table}: cannot be read as a table ({reason}); remove or correct it"
        ) from error


def _is_loaddata(columns: list[str]) -> bool:
    names_images = any(name.startswith(("FileName_", "URL_")) for name in columns)
    return names_images and {"Metadata_Plate", "Metadata_Well"} <= set(columns)


_FINDERS = {
    "bbbc022": _find_bbbc("bbbc022"),
    "bbbc021": _find_bbbc("bbbc021"),
    "loaddata": _find_loaddata,
    "ome_zarr": _find_zarr,
}
# Layouts that can be found from files.
FOUND_LAYOUTS = (*_FINDERS, "files")
