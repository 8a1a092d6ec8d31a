"""How microscopes name their files; from a folder of such files to a pattern of layout `files`.

A new scheme is one entry of SCHEMES: its groups are those of layout `files`, and `plane` and
`time`, of which one value is chosen and written into the pattern.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hcsqc.core.errors import InputError
from hcsqc.core.places import parse_well, well_name
from hcsqc.screens.images.remote import Folder
from hcsqc.screens.layouts.base import first_few

_UUID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}"
_ENDING = r"(?:\.(?i:ome))?\.(?i:tiff?|png)"


def _named_by_well(well: str, before: str, site: str) -> dict[str, str]:
    """Return the schemes of names with a well such as B02 in the middle.

    `before` is what may stand before the well where the rest of the name says little; `site` is
    ImageXpress'.
    """
    well = f"(?P<well>{well})"
    # What stands before the well becomes the plate where it tells plates apart.
    imagexpress = rf"(?:(?P<plate>[^/]+)_)?{well}{site}"
    number = r"(?i:site|field|fld|f|s)?(?P<site>\d+)"
    return {
        "ImageXpress": (
            rf"{imagexpress}_(?P<channel>w\d)(?:_z(?P<plane>\d+))?(?:{_UUID})?{_ENDING}"
        ),
        "ImageXpress, z before the channel": (
            rf"{imagexpress}_z(?P<plane>\d+)_(?P<channel>w\d)(?:{_UUID})?{_ENDING}"
        ),
        "well and site, channels as pages": rf"{before}{well}[_-]{number}(?:{_UUID})?{_ENDING}",
        "well, site and channel": (
            rf"{before}{well}[_-]{number}[_-](?P<channel>[A-Za-z0-9]+){_ENDING}"
        ),
        "well, channel and site": (
            rf"{before}{well}[_-](?P<channel>[A-Za-z][A-Za-z0-9]*)[_-]{number}{_ENDING}"
        ),
        "well and channel": rf"{before}{well}[_-](?P<channel>[A-Za-z][A-Za-z0-9]*){_ENDING}",
        "well, channels as pages": rf"{before}{well}{_ENDING}",
    }


_WELL = r"[A-Z]{1,2}\d{1,2}"
# Only before a well of two digits: in B02_C1_s1.tif, C1 is the channel.
_BY_WELL = _named_by_well(
    _WELL, r"(?:(?P<plate>[^/]+)_(?=[A-Z]{1,2}\d\d\D))?", r"(?:_s(?P<site>\d+))?"
)
# Other words begin with small letters too: in b02_f01_w1.tif, f01 is the site, in c1.tif no well.
_BY_SMALL_WELL = _named_by_well(
    r"[a-p]\d{1,2}",
    r"(?:(?P<plate>[^/]+)(?<![A-Pa-p]\d\d)_(?=[a-p]\d\d\D))?",
    r"_s(?P<site>\d+)",
)
del _BY_SMALL_WELL["well, channels as pages"]
_CELLVOYAGER = "Yokogawa CellVoyager"
# Of schemes that explain the images as well, the first is taken.
SCHEMES = {
    "Opera Phenix, Operetta": (
        r"r(?P<row>\d\d)c(?P<column>\d\d)f(?P<site>\d+)p(?P<plane>\d+)-(?P<channel>ch\d+)"
        rf"sk(?P<time>\d+)fk1fl1{_ENDING}"
    ),
    _CELLVOYAGER: (
        rf"[^/]*_(?P<well>{_WELL})_T(?P<time>\d{{4}})F(?P<site>\d{{3}})L\d\dA\d\dZ(?P<plane>\d\d)"
        rf"(?P<channel>C\d\d){_ENDING}"
    ),
    "Columbus": (
        r"(?P<row>\d{3})(?P<column>\d{3})-(?P<site>\d+)-(?P<plane>\d{3})(?P<time>\d{3})"
        rf"(?P<channel>\d{{3}}){_ENDING}"
    ),
    "IN Cell Analyzer": (
        r"(?:[^/]*_)?(?P<row>[A-Z]) - (?P<column>\d{1,2})\(fld (?P<site>\d+) wv "
        r"(?P<channel>[A-Za-z0-9.-]+)(?: (?!z \d)[^() ]+)*(?: z (?P<plane>\d+))?\)" + _ENDING
    ),
    "Cellomics ArrayScan": (rf"[^/]*_(?P<well>[A-Z]\d\d)f(?P<site>\d+)(?P<channel>d\d){_ENDING}"),
    # Well, step of the protocol, number of the channel, image in the well, channel, read.
    "Gen5 (Cytation)": (
        rf"(?:[^/]*_)?(?P<well>{_WELL})_\d\d_\d+_(?P<site>\d+)(?:Z(?P<plane>\d+))?_"
        rf"(?P<channel>[A-Za-z0-9.-]+)[^/_]*_(?P<time>\d{{3}}){_ENDING}"
    ),
    **_BY_WELL,
    **{f"{name}, wells in lower case": pattern for name, pattern in _BY_SMALL_WELL.items()},
}
_COMPILED = {name: re.compile(pattern) for name, pattern in SCHEMES.items()}
# Folders that hold a part of a plate: no plates themselves.
_PARTS = re.compile(r"(?i:TimePoint_\d+|ZStep_\d+|Images|w\d)")
_ZSTEP = re.compile(r"(?i)(?<=ZStep_)\d+")
_THUMBNAIL = re.compile(r"(?i:[_-]thumb)")
# Beside its images CellVoyager leaves what corrects them: shading and dark current.
_CORRECTION = re.compile(r"[SD]C_")
# Where file names tell no channel, a word of their folder does: blanks are not for the config.
_WORD = r"[A-Za-z0-9_.-]+"
_CHANNEL_FOLDER = re.compile(
    r"(?i)(?:w|c|ch|channel|wave|wavelength)[ _-]?\d+|(?:(?:DAPI|Hoechst|H33342|DNA|nuclei|DRAQ5"
    r"|[EY]?GFP|FITC|RFP|YFP|CFP|TRITC|PE|TxRed|Texas ?Red|mCherry|tdTomato|Cy[357](?:\.5)?"
    r"|Alexa ?\w*|AF\d+|ER|RNA|AGP|Mito\w*|Actin|Phalloidin|Tubulin|Golgi|BF|Bright ?field|Phase)"
    r"(?:[ _-]?\w+)?)|\d{3}(?:[ _-]?nm)?"
)
# A second scheme with this share of the files is no accident; below that share, no scheme fits.
MIXED_SHARE, KNOWN_SHARE = 0.1, 0.5


class InDoubt(InputError):
    """A folder that may be read in several ways.

    `choices`: for each way, what it is called, the arguments of `find_screen` that choose it.
    """

    def __init__(self, message: str, choices: Mapping[str, Mapping[str, object]]):
        super().__init__(message)
        self.choices = choices


@dataclass(frozen=True)
class NamedFiles:
    """An entry of layout `files`: where plates lie and how files are named.

    `channels` are those that the names tell; none if the pages of a file are the channels.
    `example` is the path of one of the files.
    """

    images: Folder
    pattern: str
    plates: list[str]
    channels: tuple[str, ...]
    example: str
    scheme: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    """An image whose name a scheme has read."""

    path: str
    folders: tuple[str, ...]
    groups: dict[str, str | None]

    @property
    def place(self) -> tuple[str, str, str | None]:
        """Return well, site and channel."""
        groups = self.groups
        if "well" in groups:
            well = parse_well(groups["well"])
        else:
            well = well_name(groups["row"], groups["column"])
        return well, str(int(groups.get("site") or 1)), groups.get("channel")


def name_files(
    folder: Folder,
    paths: Sequence[str],
    scheme: str | None = None,
    plates_given: Collection[str] = (),
) -> NamedFiles:
    """Return how the images at `paths` (posix, below `folder`) are named and where plates lie.

    The folders called like `plates_given` are plates. With a `scheme` of SCHEMES, files of other
    names are left out. Raises InputError if no scheme is known for them or
    two files would be the same channel of a field, InDoubt if several are mixed.
    """
    scheme, files, others = _recognised(folder, paths, scheme)
    notes: list[str] = []
    if others:
        notes.append(f"images with other names are ignored: {first_few(others)}")
    files, channel_folder = _channels_of_folders(files)
    files, fixed = _one_plane(files, notes)
    pattern = SCHEMES[scheme]
    if channel_folder:
        pattern = f"{channel_folder}/{pattern}"
        scheme = scheme.replace("channels as pages", "a folder per channel")
    for group in ("plane", "time"):
        named = re.search(rf"\(\?P<{group}>([^)]*)\)", pattern)
        if named:
            pattern = pattern.replace(named[0], fixed.get(group, named[1]))
    prefixes = {file.groups.get("plate") for file in files}
    level = _level_of(files, plates_given)
    if level is None:
        level = _plate_level(files, several=True)
    if level is None and not (len(prefixes) > 1 and _prefix_is_plate(files)):
        level = _plate_level(files, several=False)
    if level is not None:
        images, before = _above_plates(folder, files, level)
        plates = sorted({file.folders[level] for file in files})
        pattern = _without_plate(pattern)
    elif _prefix_is_plate(files):
        images, before, plates = folder, "", sorted(prefixes)
    else:
        plate, parts = folder, []
        while _PARTS.fullmatch(plate.name):
            plate, parts = plate.parent, [plate.name, *parts]
        images, before = plate.parent / "/".join(("{plate}", *parts)), ""
        plates = [plate.name]
        pattern = _without_plate(pattern)
    kept, inside = _inside_plate(files, -1 if level is None else level, notes)
    _check_doubles(folder, kept, level, "(?P<plate>" in pattern)
    channels = tuple(sorted({file.groups.get("channel") for file in kept} - {None}))
    pattern = before + inside + pattern
    return NamedFiles(images, pattern, plates, channels, kept[0].path, scheme, notes)


def _recognised(
    folder: Folder, paths: Sequence[str], scheme: str | None
) -> tuple[str, list[_File], list[str]]:
    """Return the scheme that explains most images, the images that it reads, and the others."""
    paths = _images_among(paths)
    if scheme:
        files = _read_names(_COMPILED[scheme], paths)
        read = {file.path for file in files}
        return scheme, files, [path for path in paths if path not in read]
    found = {name: _read_names(pattern, paths) for name, pattern in _COMPILED.items()}
    best = max(found, key=lambda name: _explained(found[name]))
    files = found[best]
    read = {file.path for file in files}
    unknown = [path for path in paths if path not in read]
    others = {
        name: [file for file in strangers if file.path not in read]
        for name, strangers in found.items()
    }
    second = max(others, key=lambda name: len(others[name]))
    if len(others[second]) > MIXED_SHARE * len(files):
        examples = {best: files[0].path, second: others[second][0].path}
        raise InDoubt(
            f"{folder}: mixed layouts: {files[0].path} ({best}) and {others[second][0].path} "
            f"({second}). Give a folder that holds one of them, or describe the file names "
            "with --pattern",
            {f"{name}, {path}": {"scheme": name} for name, path in examples.items()},
        )
    # Pictures of another kind, such as overviews in PNG beside TIFF, say nothing of the images.
    kinds = {_kind(path) for path in read}
    alike = sum(_kind(path) in kinds for path in unknown)
    if not files or len(files) < KNOWN_SHARE * (len(files) + alike):
        raise InputError(
            f"{folder}: unknown layout: no naming scheme fits {len(unknown)} of {len(paths)} "
            f"images, such as {first_few(unknown)}. Describe their names with --pattern "
            "(docs/screens.md, files named by a pattern)"
        )
    return best, files, unknown


def _kind(path: str) -> str:
    return "png" if path.lower().endswith("png") else "tiff"


def _images_among(paths: Sequence[str]) -> list[str]:
    """Return the paths without thumbnails, and without CellVoyager's corrections beside images."""
    names = {path: posixpath.basename(path) for path in paths}
    images = [path for path in paths if not _THUMBNAIL.search(names[path])]
    voyager = {path for path in images if _COMPILED[_CELLVOYAGER].fullmatch(names[path])}
    if not voyager:
        return images
    return [path for path in images if path in voyager or not _CORRECTION.match(names[path])]


def _explained(files: Sequence[_File]) -> float:
    """Return how many images a scheme explains: each counts by how complete its field is."""
    fields = defaultdict(set)
    for file in files:
        well, site, channel = file.place
        fields[file.groups.get("plate"), well, site].add(channel)
    channels = set().union(*fields.values())
    return sum(
        len(fields[file.groups.get("plate"), *file.place[:2]]) / len(channels) for file in files
    )


def _read_names(pattern: re.Pattern, paths: Sequence[str]) -> list[_File]:
    read = []
    for path in paths:
        *folders, name = path.split("/")
        match = pattern.fullmatch(name)
        file = match and _File(path, tuple(folders), match.groupdict())
        if file and file.place[0]:
            read.append(file)
    return read


def _channels_of_folders(files: list[_File]) -> tuple[list[_File], str]:
    """Return the files with the channels that their folders tell, and the pattern of these folders.

    The pattern is empty if the folders tell no channels.
    """
    if any("channel" in file.groups or not file.folders for file in files):
        return files, ""
    if not all(_CHANNEL_FOLDER.fullmatch(file.folders[-1]) for file in files):
        return files, ""
    pattern = _channel_word({file.folders for file in files})
    return [
        replace(
            file,
            folders=file.folders[:-1],
            groups=file.groups | re.fullmatch(pattern, file.folders[-1]).groupdict(),
        )
        for file in files
    ], pattern


def _channel_word(folders: set[tuple[str, ...]]) -> str:
    """Return a pattern of the folders' names whose group `channel` is the word that tells it.

    This is the first word, or the second after a first word that several folders side by side
    share: 488 and 568 of `Alexa 488` and `Alexa 568`.
    """
    first = Counter((path[:-1], re.match(_WORD, path[-1])[0]) for path in folders)
    shared = sorted({word for (_, word), count in first.items() if count > 1})
    skipped = f"(?:(?:{'|'.join(map(re.escape, shared))}) +)?" if shared else ""
    return f"{skipped}(?P<channel>{_WORD})[^/]*"


def _one_plane(files: list[_File], notes: list[str]) -> tuple[list[_File], dict[str, str]]:
    """Return the files of the middle plane and the first time, and what their names say of it."""
    fixed = {}
    for group, what in (("plane", "z planes"), ("time", "time points")):
        values = sorted({file.groups.get(group) for file in files} - {None}, key=int)
        if not values:
            continue
        fixed[group] = values[len(values) // 2 if group == "plane" else 0]
        files = [file for file in files if file.groups[group] in (None, fixed[group])]
        if len(values) > 1:
            notes.append(f"{len(values)} {what} in separate files: only {fixed[group]} is used")
    return files, fixed


def _level_of(files: list[_File], plates: Collection[str]) -> int | None:
    """Return which folder of the paths is always one of some plates; None if none is."""
    for level in range(min(len(file.folders) for file in files)):
        if {file.folders[level] for file in files} <= set(plates):
            return level
    return None


def _plate_level(files: list[_File], several: bool) -> int | None:
    """Return which folder of the paths is the plate, counted from 0; None if none is.

    It is the first with `several` names of which most hold every channel, or else with one; names
    of wells and of parts of a plate are none.
    """
    channels = {file.groups.get("channel") for file in files}
    for level in range(min(len(file.folders) for file in files)):
        held = defaultdict(set)
        for file in files:
            held[file.folders[level]].add(file.groups.get("channel"))
        if any(_PARTS.fullmatch(name) for name in held):
            continue
        if all(parse_well(file.folders[level]) == file.place[0] for file in files):
            continue
        complete = sum(found == channels for found in held.values())
        if several == (len(held) > 1) and 2 * complete >= len(held):
            return level
    return None


def _above_plates(folder: Folder, files: list[_File], level: int) -> tuple[Folder, str]:
    """Return the images' folder with or without {plate}, and the pattern of what is between."""
    above = {file.folders[:level] for file in files}
    if len(above) == 1:
        return folder / "/".join((*above.pop(), "{plate}")), ""
    return folder, "[^/]+/" * level + "(?P<plate>[^/]+)/"


def _prefix_is_plate(files: list[_File]) -> bool:
    """Return whether the start of the names tells the plate: one for all, or wells under many."""
    prefixes = defaultdict(set)
    for file in files:
        prefixes[file.groups.get("plate")].add(file.place[0])
    if None in prefixes:
        return False
    wells = Counter(well for found in prefixes.values() for well in found)
    return len(prefixes) == 1 or 2 * sum(n > 1 for n in wells.values()) >= len(wells)


def _without_plate(pattern: str) -> str:
    return pattern.replace("(?P<plate>[^/]+)", "[^/]+")


def _inside_plate(files: list[_File], level: int, notes: list[str]) -> tuple[list[_File], str]:
    """Return the files to use and the pattern of the folders between plate and file.

    If several folders hold equal fields, as those of time points do, only the first is used.
    """
    below = [file.folders[level + 1 :] for file in files]
    names = sorted(set(below), key=lambda folders: (len(folders), [_numbers(f) for f in folders]))
    if names == [()]:
        return files, ""
    places = Counter((file.folders[: level + 1], file.groups.get("plate"), file.place)
                     for file in files)  # fmt: skip
    if len(names) > 1 and max(places.values()) > 1:
        used = _middle_step(names)
        files = [file for file, inside in zip(files, below, strict=True) if inside == used]
        notes.append(
            f"the same fields are in several folders: only {'/'.join(used) or '.'} is used"
        )
        names = [used]
    if len(names) > 1:
        return files, "(?:.*/)?"
    return files, "".join(re.escape(name) + "/" for name in names[0])


def _middle_step(names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the first of some folders; if it is a z step, the middle one of its steps."""
    without_step = [[_ZSTEP.sub("", part) for part in folders] for folders in names]
    steps = [folders for folders, alike in zip(names, without_step, strict=True)
             if alike == without_step[0]]  # fmt: skip
    return steps[len(steps) // 2]


def _numbers(name: str) -> list:
    """Return a key that sorts TimePoint_10 after TimePoint_9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else part)
            for part in re.split(r"(\d+)", name)]  # fmt: skip


def _check_doubles(
    folder: Folder, files: list[_File], level: int | None, plate_in_name: bool
) -> None:
    seen: dict[tuple, str] = {}
    for file in files:
        plate = file.folders[level] if level is not None else None
        prefix = file.groups.get("plate") if plate_in_name and level is None else None
        key = (plate, prefix, file.place)
        if key in seen:
            raise InputError(
                f"{folder}: {seen[key]} and {file.path} are the same channel of the same field; "
                "give the folder of one plate, or distinguish them with --pattern "
                "(docs/screens.md, files named by a pattern)"
            )
        seen[key] = file.path
