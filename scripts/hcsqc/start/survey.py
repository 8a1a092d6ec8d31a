"""What a person should know of a found screen before its study: its images, nuclei and wells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.screens.images.read import UnreadableField, read_field
from hcsqc.screens.images.remote import Folder, RemoteFolder, ahead, folder_at
from hcsqc.screens.layouts import index_plate
from hcsqc.screens.layouts.base import first_few, of_plate, one_of
from hcsqc.screens.scale import PlateImages, ScaleSettings, measure_scale, spread
from hcsqc.start.find import FoundScreen
from hcsqc.start.outlines import share_by_channel

SAMPLE_FIELDS = 8  # that are opened, over all plates
# With fewer grey levels between background and bright cells, dim cells are rounded away.
FEW_LEVELS = 32
# Channels for red and green in this order, where their names say what they show.
RED_AND_GREEN = (r"(?i)actin|agp|phalloidin", r"(?i)mito|tubulin", r"(?i)(?<![a-z])er$|rna|golgi")
BBBC_RED_AND_GREEN = {"bbbc022": ("w4", "w5"), "bbbc021": ("w4", "w2")}
# Enough for a cross-validation over wells, with one to spare.
EVALUATION_SHARE, FEWEST_EVALUATION_WELLS = 1 / 3, 6
# Two with labels, to train and to test, and one without, which measures are standardised over.
FEWEST_WELLS = 3
WELL_SEED = 0


@dataclass(frozen=True)
class Survey:
    """A screen's fields, and what a few of its images say.

    `fields`: rows of the `fields` table of all plates, with paths from `root_of` the images on;
    `sample`: those that were opened; `shape`: rows and columns; `scale`: intensity range over all
    plates.
    """

    found: FoundScreen
    fields: pd.DataFrame
    sample: pd.DataFrame
    scale: pd.DataFrame
    shape: tuple[int, int]
    z_projection: str | None
    unreadable: list[str]

    @property
    def channels(self) -> tuple[str, ...]:
        return self.found.source.channels

    @property
    def root(self) -> Folder:
        return root_of(self.found)

    @property
    def bits(self) -> int:
        return int(self.scale["bits"].iloc[0])

    @property
    def complete(self) -> pd.DataFrame:
        """Return the fields that have each channel."""
        return self.fields[self.fields["problem"].isna()]

    @property
    def wells(self) -> list[str]:
        """Return the wells that have a complete field, sorted."""
        return sorted(set(self.complete["well"]))

    def planes(self) -> list[tuple[str, list[np.ndarray]]]:
        """Return name and planes of the sample's fields that are of the screen's size."""
        read = []
        for row in ahead(self.sample.itertuples(), self.root):
            planes = read_field(
                self.root,
                row.image_path,
                row.image_page,
                self.z_projection,
                self.found.source.channels,
            ).planes
            if all(plane.shape == self.shape for plane in planes):
                read.append((f"{row.plate} {row.well} s{row.site}", planes))
        return read


def survey(found: FoundScreen, crops: Mapping) -> Survey:
    """Index each plate and open a few of its fields; `crops` is that section of the config.

    Raises InputError if a plate has no field with each channel, or no image can be read.
    """
    plates = [_indexed(found, plate) for plate in found.plates]
    each = -(-SAMPLE_FIELDS // len(plates))
    rows = [row for fields in plates for row in spread(fields, each)]
    chosen = np.unique(np.linspace(0, len(rows) - 1, SAMPLE_FIELDS).round().astype(int))
    sample = pd.DataFrame([rows[place] for place in chosen])
    root = root_of(found)
    if isinstance(root, RemoteFolder):
        count, size = images_of(sample)
        print(f"reading:  {count} images of {len(sample)} fields, {in_units(size)}", flush=True)
    projections, unreadable = set(), []
    readable = []
    for row in ahead(sample.itertuples(), root):
        try:
            projections.add(_needed_projection(root, row, found.source.channels))
            readable.append(True)
        except UnreadableField as error:
            unreadable.append(str(error).removeprefix("/"))
            readable.append(False)
    if not any(readable):
        raise InputError(f"none of {len(sample)} fields tested can be read; first: {unreadable[0]}")
    sample = sample[readable]
    projection = max(projections, key=bool)
    settings = ScaleSettings(len(sample), crops["scale_background"], crops["scale_cells"], 1)
    images = PlateImages("", root, list(found.source.channels), projection)
    scale, shape, _ = measure_scale(sample, images, settings, nuclei=None)
    fields = pd.concat(plates, ignore_index=True)
    return Survey(found, fields, sample, scale, shape, projection, unreadable)


def _indexed(found: FoundScreen, plate: str) -> pd.DataFrame:
    source = found.source
    fields, _ = index_plate(source, "NAME", plate)
    problems = fields[fields["problem"].notna()]
    if len(problems) == len(fields):
        first = problems.iloc[0]
        raise InputError(
            f"plate {plate} of {source.images} has no field with all channels "
            f"({', '.join(source.channels)}): {first['well']} site {first['site']}: "
            f"{first['problem']}. Copy what is missing, or give a folder without this plate"
        )
    folder, start = of_plate(source.images, plate), len(str(root_of(found)).rstrip("/")) + 1
    paths = [
        [path and str(folder / path)[start:] for path in of_field]
        for of_field in fields["image_path"]
    ]
    return fields.assign(image_path=paths)


def root_of(found: FoundScreen) -> Folder:
    """Return what paths of a survey begin at: the root of the disk, or the bucket or server."""
    images = of_plate(found.source.images, found.plates[0])  # even a bucket may be a plate
    if not isinstance(images, RemoteFolder):
        return folder_at("/")
    return folder_at("/".join(images.url.split("/")[:3]))


def images_of(fields: pd.DataFrame, channels: Sequence[int] | None = None) -> tuple[int, int]:
    """Return how many images some fields have, and how many bytes they are.

    `channels` are the places of those that count; None: all.
    """
    sizes = {
        path: size
        for row in fields.itertuples()
        for place, (path, size) in enumerate(zip(row.image_path, row.image_bytes, strict=True))
        if path and (channels is None or place in channels)
    }
    return len(sizes), int(sum(sizes.values()))


def in_units(size: int) -> str:
    """Return a number of bytes in GB, or in MB of less than one."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _needed_projection(root: Folder, row, channels: Sequence[str]) -> str | None:
    """Return None if a field's images are planes, `max` if they are z-stacks."""
    try:
        read_field(root, row.image_path, row.image_page, None, channels)
        return None
    except UnreadableField as error:
        try:
            read_field(root, row.image_path, row.image_page, "max", channels)
        except UnreadableField:
            raise error from None
        return "max"


def outlines(seen: Survey) -> dict[str, float]:
    """Return by channel which share of its light has round outlines of one size."""
    return share_by_channel(seen.channels, [planes for _, planes in seen.planes()])


def checked_channels(seen: Survey, names: Sequence[str], flag: str) -> list[str]:
    """Return `names` if the screen has these channels; raises InputError naming the flag."""
    for name in names:
        if name not in seen.channels:
            raise InputError(
                f"{flag}: '{name}' is not a channel of this screen; {one_of(name, seen.channels)}"
            )
    if len(set(names)) < len(names):
        raise InputError(f"{flag}: lists a channel twice")
    return list(names)


def choose_composite(seen: Survey, nucleus: str) -> list[str]:
    """Return red, green and blue: two channels and the nuclei; fewer if the screen has fewer."""
    others = [name for name in seen.channels if name != nucleus]
    known = BBBC_RED_AND_GREEN.get(seen.found.source.layout, ())
    named = [name for kind in RED_AND_GREEN for name in others if re.search(kind, name)]
    preferred = [name for name in (*known, *named, *others) if name in others]
    return [*list(dict.fromkeys(preferred))[:2], nucleus]


def check_wells(seen: Survey) -> None:
    """Raise InputError if a screen has too few wells for a study that runs."""
    if len(seen.wells) >= FEWEST_WELLS:
        return
    raise InputError(
        f"{seen.found.source.images}: no study is written, because it has fields of "
        f"{' and '.join(seen.wells)} only, and a detector needs {FEWEST_WELLS} wells: one to train "
        "on, one to test on, and one without labels to standardise by. Add wells, or flag these "
        "with a detector of another screen (qc.detector, docs/qc.md)"
    )


def evaluation_wells(wells: Sequence[str]) -> list[str]:
    """Return wells for labels, spread over the plate: one drawn of each few neighbours.

    A third of the wells; of few wells more, because the truth of a derived screen gives labels to
    these wells alone, those that train as well as those that test. The same for the same wells.
    """
    rows = sorted({well[:-2] for well in wells}, key=lambda row: (len(row), row))
    path = []
    for number, row in enumerate(rows):
        of_row = sorted(well for well in set(wells) if well[:-2] == row)
        path += of_row[::-1] if number % 2 else of_row  # to and fro, so that neighbours follow
    few = min(FEWEST_EVALUATION_WELLS, len(path) - 1)
    neighbours = np.array_split(path, max(few, round(EVALUATION_SHARE * len(path))))
    rng = np.random.default_rng(WELL_SEED)
    return sorted(str(rng.choice(group)) for group in neighbours)


def describe(seen: Survey) -> list[str]:
    """Return lines that say what was found."""
    complete, fields = seen.complete, seen.fields
    wells = sorted(set(fields["well"]), key=lambda well: (len(well), well))
    sites = first_few([str(site) for site in sorted(set(fields["site"]))], 9)
    source, (rows, columns) = seen.found.source, seen.shape
    lines = [
        f"layout:   {source.layout} ({seen.found.naming})",
        f"plates:   {len(seen.found.plates)} ({first_few(seen.found.plates)})",
        f"channels: {', '.join(seen.channels)}",
        f"images:   {columns} x {rows} px, {seen.bits} bit",
        f"wells:    {len(wells)} ({wells[0]} to {wells[-1]}), sites: {sites}",
        f"fields:   {len(fields)}, {len(complete)} of them with every channel",
    ]
    lines += [f"note:     {note}" for note in seen.found.notes]
    if seen.z_projection:
        lines.append(f"note:     z-stacks are flattened, z_projection: {seen.z_projection}")
    levels = seen.scale.set_index("channel").eval("high - low")
    few = [name for name in seen.channels if seen.bits == 8 and levels[name] < FEW_LEVELS]
    if few:
        lines.append(
            f"warning:  cells are only {levels[few].max():.0f} of 255 grey levels brighter than "
            f"the background in {first_few(few)}: an export without stretching? Dim cells are "
            "rounded away; export again in 16 bits if you can"
        )
    if seen.unreadable:
        tried = len(seen.unreadable) + len(seen.sample)
        lines.append(
            f"warning:  {len(seen.unreadable)} of {tried} tested fields cannot be read, "
            f"first: {seen.unreadable[0]}"
        )
    return lines
