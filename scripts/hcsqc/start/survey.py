"""What a person should know of a found screen before its study: its images, nuclei and wells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.crops.cut import cut_windows, window_inside
from hcsqc.crops.nuclei import NucleusSettings, find_nuclei
from hcsqc.crops.shards import composite
from hcsqc.figures.style import plt, save_figure
from hcsqc.screens.images.read import UnreadableField, read_field
from hcsqc.screens.layouts import index_plate
from hcsqc.screens.layouts.base import first_few, of_plate, one_of
from hcsqc.screens.scale import (
    PlateImages,
    ScaleSettings,
    apply_scale,
    lookup_tables,
    measure_scale,
    spread,
)
from hcsqc.start.find import FoundScreen

# Fields that are opened, over all plates, and crops that are shown.
SAMPLE_FIELDS, SHOWN_CROPS, GAP_PX = 8, 8, 6
NUCLEUS_NAME = re.compile(r"(?i)dna|hoechst|dapi|h33342|nucle")
# By custom the first wavelength of ImageXpress, and so of BBBC022 and BBBC021.
NUCLEUS_BY_CUSTOM = "w1"
# Channels for red and green in this order, where their names say what they show.
RED_AND_GREEN = (r"(?i)actin|agp|phalloidin", r"(?i)mito|tubulin", r"(?i)(?<![a-z])er$|rna|golgi")
BBBC_RED_AND_GREEN = {"bbbc022": ("w4", "w5"), "bbbc021": ("w4", "w2")}
# An outline is a nucleus' if it fills its convex hull and is this round; 1 is a circle.
LEAST_SOLIDITY, LEAST_ROUNDNESS, LEAST_AREA_PX = 0.9, 0.65, 30
OUTLINE_SIGMA_PX = 1.5
# The nucleus channel's round share must be so large, and so many times the next channel's. On eight
# fields of BBBC022: DNA 0.85, RNA 0.27, the others below 0.2.
CLEAR_SHARE, CLEAR_LEAD = 0.4, 1.25
# Outlines of nuclei of BBBC022 are 30 px wide, where the fast method wants to hear 25.
OUTLINE_EXCESS = 1.2
# Beyond this factor from the config's diameter the screen gets one of its own.
USUAL_FACTOR = 1.5
# Enough for a cross-validation over wells, with one to spare.
EVALUATION_SHARE, FEWEST_EVALUATION_WELLS = 1 / 3, 6
# Two with labels, to train and to test, and one without, which measures are standardised over.
FEWEST_WELLS = 3
WELL_SEED, CROP_SEED = 0, 0


@dataclass(frozen=True)
class Survey:
    """A screen's fields, and what a few of its images say.

    `fields`: rows of the `fields` table of all plates, with absolute paths; `sample`: those that
    were opened; `shape`: rows and columns; `scale`: intensity range over all plates.
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
    def bits(self) -> int:
        return int(self.scale["bits"].iloc[0])

    @property
    def complete(self) -> pd.DataFrame:
        """Return the fields that have each channel."""
        return self.fields[self.fields["problem"].isna()]

    def planes(self) -> list[tuple[str, list[np.ndarray]]]:
        """Return name and planes of the sample's fields that are of the screen's size."""
        read = []
        for row in self.sample.itertuples():
            planes = read_field(Path("/"), row.image_path, row.image_page, self.z_projection).planes
            if all(plane.shape == self.shape for plane in planes):
                read.append((f"{row.plate} {row.well} s{row.site}", planes))
        return read


@dataclass(frozen=True)
class Examples:
    """Nuclei of the sampled fields: some crops to show, and what all of them are like."""

    crops: np.ndarray  # n x C x window x window of uint8
    names: list[str]  # of their fields
    nuclei_per_field: float
    crops_per_field: float  # those whose window lies inside the field
    nucleus: NucleusSettings


def survey(found: FoundScreen, crops: Mapping) -> Survey:
    """Index each plate and open a few of its fields; `crops` is that section of the config.

    Raises InputError if a plate has no field with each channel, or no image can be read.
    """
    plates = [_indexed(found, plate) for plate in found.plates]
    usable = [fields["well"][fields["problem"].isna()] for fields in plates]
    wells = sorted(set(pd.concat(usable)))
    if len(wells) < FEWEST_WELLS:
        raise InputError(
            f"{found.source.images}: has {len(wells)} wells, {', '.join(wells)}; a study needs at "
            f"least {FEWEST_WELLS}, as crops that test come from other wells than crops that train"
        )
    each = -(-SAMPLE_FIELDS // len(plates))
    rows = [row for fields in plates for row in spread(fields, each)]
    chosen = np.unique(np.linspace(0, len(rows) - 1, SAMPLE_FIELDS).round().astype(int))
    sample = pd.DataFrame([rows[place] for place in chosen])
    projections, unreadable = set(), []
    readable = []
    for row in sample.itertuples():
        try:
            projections.add(_needed_projection(row))
            readable.append(True)
        except UnreadableField as error:
            unreadable.append(str(error).removeprefix("/"))
            readable.append(False)
    if not any(readable):
        raise InputError(
            f"none of {len(sample)} fields that were tried can be read; first: {unreadable[0]}"
        )
    sample = sample[readable]
    projection = max(projections, key=bool)
    settings = ScaleSettings(len(sample), crops["scale_background"], crops["scale_cells"], 1)
    images = PlateImages("", Path("/"), list(found.source.channels), projection)
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
            f"plate {plate} of {source.images} holds no complete channel set "
            f"({', '.join(source.channels)}): {first['well']} site {first['site']}: "
            f"{first['problem']}. Copy what is missing, or give a folder without this plate"
        )
    folder = of_plate(source.images, plate)
    paths = [
        [path and str(folder / path) for path in of_field] for of_field in fields["image_path"]
    ]
    return fields.assign(image_path=paths)


def _needed_projection(row) -> str | None:
    """Return None if a field's images are planes, `max` if they are z-stacks."""
    try:
        read_field(Path("/"), row.image_path, row.image_page)
        return None
    except UnreadableField as error:
        try:
            read_field(Path("/"), row.image_path, row.image_page, "max")
        except UnreadableField:
            raise error from None
        return "max"


def round_outlines(plane: np.ndarray) -> tuple[float, float]:
    """Return which share of a plane's bright area has round outlines, and their median diameter.

    `plane` is H x W. The diameter, in pixels, is that of a circle of the same area; 0 if none.
    """
    low, high = np.percentile(plane, [1, 99.8])
    grey = np.clip((plane.astype(np.float32) - low) / max(1.0, high - low), 0, 1)
    # Roots bring dim nuclei near to bright ones.
    grey = cv2.GaussianBlur(np.sqrt(grey), (0, 0), OUTLINE_SIGMA_PX)
    levels = np.rint(255 * grey).astype(np.uint8)
    _, mask = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = np.array([cv2.contourArea(outline) for outline in outlines])
    is_round = np.array([_is_round(*pair) for pair in zip(outlines, areas, strict=True)], bool)
    if not is_round.any():
        return 0.0, 0.0
    diameter = 2 * np.sqrt(np.median(areas[is_round]) / np.pi)
    return float(areas[is_round].sum() / areas.sum()), float(diameter)


def _is_round(outline: np.ndarray, area: float) -> bool:
    if area < LEAST_AREA_PX:
        return False
    solidity = area / cv2.contourArea(cv2.convexHull(outline))
    roundness = 4 * np.pi * area / cv2.arcLength(outline, True) ** 2
    return solidity > LEAST_SOLIDITY and roundness > LEAST_ROUNDNESS


def nucleus_channel(seen: Survey) -> tuple[str | None, str]:
    """Return the channel of the nuclei and how it was found, None if that cannot be said.

    By name if one channel is named as DNA is, or else w1; otherwise by round outlines.
    """
    names = [name for name in seen.channels if NUCLEUS_NAME.search(name)]
    if len(seen.channels) == 1:
        return seen.channels[0], "the only channel"
    if len(names) == 1:
        return names[0], "by its name"
    if not names and NUCLEUS_BY_CUSTOM in seen.channels:
        return NUCLEUS_BY_CUSTOM, "by its name"
    candidates = names or list(seen.channels)
    planes = [planes for _, planes in seen.planes()]
    shares = {
        name: float(np.median([round_outlines(p[seen.channels.index(name)])[0] for p in planes]))
        for name in candidates
    }
    best, second = sorted(candidates, key=lambda name: -shares[name])[:2]
    if shares[best] >= max(CLEAR_SHARE, CLEAR_LEAD * shares[second]):
        return best, "it shows the roundest outlines"
    return None, ", ".join(f"{name} {share:.2f}" for name, share in shares.items())


def checked_channels(seen: Survey, names: Sequence[str], flag: str) -> list[str]:
    """Return `names` if the screen has these channels; raises InputError naming the flag."""
    for name in names:
        if name not in seen.channels:
            raise InputError(
                f"{flag}: '{name}' is no channel of this screen; {one_of(name, seen.channels)}"
            )
    if len(set(names)) < len(names):
        raise InputError(f"{flag}: names a channel twice")
    return list(names)


def choose_composite(seen: Survey, nucleus: str) -> list[str]:
    """Return red, green and blue: two channels and the nuclei; fewer if the screen has fewer."""
    others = [name for name in seen.channels if name != nucleus]
    known = BBBC_RED_AND_GREEN.get(seen.found.source.layout, ())
    named = [name for kind in RED_AND_GREEN for name in others if re.search(kind, name)]
    preferred = [name for name in (*known, *named, *others) if name in others]
    return [*list(dict.fromkeys(preferred))[:2], nucleus]


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


def find_examples(seen: Survey, nucleus: str, crops: Mapping) -> Examples:
    """Find nuclei in the sampled fields with the fast method, and cut a few crops.

    `crops` is that section of the config. Raises InputError if there is no nucleus to show.
    """
    place, side = seen.channels.index(nucleus), crops["window_px"]
    read = seen.planes()
    settings = _nucleus_settings([planes[place] for _, planes in read], crops)
    tables = lookup_tables(seen.scale, crops["scale_knee"], "uint8")
    rng, found, kept, cut = np.random.default_rng(CROP_SEED), 0, 0, []
    for field, (name, planes) in enumerate(read):
        nuclei = find_nuclei(planes[place], settings)
        whole = np.flatnonzero(window_inside(nuclei.x_px, nuclei.y_px, seen.shape, side))
        found, kept = found + len(nuclei), kept + len(whole)
        chosen = rng.permutation(whole)[:SHOWN_CROPS]
        pixels = apply_scale(planes, tables)
        windows = cut_windows(pixels, nuclei.x_px[chosen], nuclei.y_px[chosen], side)
        cut += [(turn, field, name, window) for turn, window in enumerate(windows)]
    if not cut:
        raise InputError(
            f"{found} nuclei found in channel {nucleus} of {len(read)} fields of "
            f"{seen.shape[1]} x {seen.shape[0]} px, and none has a whole window of {side} px "
            "around it; name the channel of the nuclei with --nucleus-channel if it is another"
        )
    # Fields take turns, so that each is seen.
    shown = sorted(cut, key=lambda entry: entry[:2])[:SHOWN_CROPS]
    shown.sort(key=lambda entry: entry[1])
    return Examples(
        np.stack([window for *_, window in shown]),
        [name for _, _, name, _ in shown],
        found / len(read),
        kept / len(read),
        settings,
    )


def _nucleus_settings(planes: Sequence[np.ndarray], crops: Mapping) -> NucleusSettings:
    """Return the size of nuclei: the config's where it is about right, else as outlines tell."""
    usual, smallest = crops["nucleus_diameter_px"], crops["nucleus_smallest_px"]
    measured = [diameter for _, diameter in map(round_outlines, planes) if diameter]
    diameter = float(np.median(measured)) / OUTLINE_EXCESS if measured else usual
    if usual / USUAL_FACTOR <= diameter <= usual * USUAL_FACTOR:
        return NucleusSettings("fast", usual, smallest)
    rounded = max(3, round(diameter))
    return NucleusSettings("fast", rounded, max(1, round(smallest * (rounded / usual) ** 2)))


def draw_preview(
    examples: Examples, channels: Sequence[str], chosen: Sequence[str], nucleus: str, path: Path
) -> None:
    """Draw the examples as PNG: a row of composites, and below each its nucleus channel."""
    count, _, side, _ = examples.crops.shape
    figure, axes = plt.subplots(2, 1, figsize=(1.6 * count, 3.7), layout="constrained")
    colours = composite(examples.crops, channels, chosen)
    grey = composite(examples.crops, channels, [nucleus])
    for axis, crops in zip(axes, (colours, grey), strict=True):
        axis.imshow(_strip([_picture(crop) for crop in crops]))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    middles = np.arange(count) * (side + GAP_PX) + side / 2
    axes[0].set_xticks(middles, examples.names, fontsize=7)
    axes[0].tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    shown = zip(("red", "green", "blue"), chosen, strict=False)
    named = [f"{colour}: {name}" for colour, name in shown]
    axes[0].set_ylabel("\n".join(named) if len(chosen) > 1 else f"grey: {chosen[0]}", fontsize=7)
    axes[1].set_ylabel(f"nuclei: {nucleus}", fontsize=7)
    save_figure(figure, path)


def _strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return H x W x 3 pictures side by side, with white between them."""
    gap = np.full((len(pictures[0]), GAP_PX, 3), 255, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, gap)][:-1])


def _picture(crop: np.ndarray) -> np.ndarray:
    """Return C x H x W as H x W x 3: red, green, blue; of two channels red and green."""
    if len(crop) == 1:
        crop = np.repeat(crop, 3, axis=0)
    elif len(crop) == 2:
        crop = np.concatenate([crop, np.zeros_like(crop[:1])])
    return crop[:3].transpose(1, 2, 0)


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
    if seen.unreadable:
        tried = len(seen.unreadable) + len(seen.sample)
        lines.append(
            f"warning:  {len(seen.unreadable)} of {tried} fields that were tried cannot be read, "
            f"first: {seen.unreadable[0]}"
        )
    return lines
