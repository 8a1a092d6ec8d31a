"""Which crops a page shows, and these crops as sprite sheets within a budget of bytes.

A sheet is one WebP image of many tiles: thousands of crops cost one header each instead.
"""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.progress import Progress
from hcsqc.crops.shards import Shards, composite
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.field_view.images import coloured
from hcsqc.qc.report.gallery import borderline

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
# Side of a tile in pixels, a multiple of the 8 that WebP codes together, and its quality.
LADDER = ((64, 60), (56, 50), (48, 45), (40, 40), (32, 36), (24, 32))
SHEET_PX = 2048
CROPS_AT_ONCE = 256
ENTRY_BYTES = 16  # of a crop's place in the page


@dataclass(frozen=True)
class CropSheets:
    """Crops in sheets of tiles, `tile_px` square.

    `sheets` and `channel_sheets` are data URIs. `positions` has, by crop, the number of its sheet
    and the left and top of its tile in pixels. In `channel_positions` that is the first of as many
    tiles as `channels` has names, one after the other to the right. Neither has the crops for
    which the budget had no room.
    """

    tile_px: int
    sheets: list[str]
    positions: dict[str, tuple[int, int, int]]
    channels: tuple[str, ...]
    channel_sheets: list[str]
    channel_positions: dict[str, tuple[int, int, int]]


def choose_crops(
    cells: pd.DataFrame, flagged: int, each_side: int, others: int, seed: int
) -> list[str]:
    """Return the crop_id of the crops that a page shows, in the order in which they matter.

    First come at most `flagged` flagged ones: the worst of each field before the second worst of
    any. `each_side` are nearest to the threshold, on either side of it. `others` passed at random,
    as many of each well. No crop is listed twice.
    """
    scored = cells[cells["score"].notna()]
    bad = is_flagged(scored)
    worst = scored[bad].sort_values(["score", "crop_id"], ascending=[False, True])
    worst = worst.iloc[np.argsort(worst.groupby(PLACE).cumcount().to_numpy(), kind="stable")]
    above, below = borderline(scored, each_side)
    passed = scored[~bad & ~scored["crop_id"].isin(below["crop_id"])].sort_values("crop_id")
    passed = passed.iloc[np.random.default_rng([seed, 2]).permutation(len(passed))]
    passed = passed.iloc[np.argsort(passed.groupby(PLACE[:2]).cumcount().to_numpy(), kind="stable")]
    parts = [worst.head(flagged), above, below, passed.head(others)]
    return pd.concat([part["crop_id"] for part in parts]).drop_duplicates().to_list()


def crop_sheets(
    shards: Shards,
    crops: Sequence[str],
    composite_channels: Sequence[str],
    budget_bytes: int,
    channels_of: Collection[str] = (),
) -> CropSheets:
    """Return the composite of each crop, and every channel of those in `channels_of`.

    Tiles shrink, down to the end of LADDER, so that all fit into the budget. Where they do not,
    the last crops lose their channels first, then their place.
    Raises InputError for crops or channels that are not in the shards.
    """
    names = list(dict.fromkeys(crops))
    wanted = set(channels_of)
    detailed = [name for name in names if name in wanted]
    budget_bytes -= ENTRY_BYTES * (len(names) + len(detailed))
    level = _level(shards, names, detailed, composite_channels, budget_bytes)
    colour, grey = _read(shards, names, wanted, composite_channels, LADDER[level][0])
    while True:
        tile, quality = LADDER[level]
        sheets = _sheets(_resized(colour, tile), quality)
        channel_sheets = _sheets(_resized(grey, tile), quality)
        spent = _bytes(sheets) + _bytes(channel_sheets)
        if spent <= budget_bytes:
            break
        if level + 1 < len(LADDER):
            level += 1
        elif len(grey):
            grey = grey[: _kept(len(grey), budget_bytes - _bytes(sheets), _bytes(channel_sheets))]
        elif len(colour):
            colour = colour[: _kept(len(colour), budget_bytes, _bytes(sheets))]
        else:
            break
    channels = shards.format.channels
    return CropSheets(
        tile,
        sheets,
        _positions(names[: len(colour)], tile, tile),
        channels,
        channel_sheets,
        _positions(detailed[: len(grey)], tile * len(channels), tile),
    )


def _kept(count: int, room: int, spent: int) -> int:
    """Return how many of `count` tiles to keep next: fewer, and about as many as fit."""
    return max(0, min(count - 1, int(count * max(room, 0) / max(spent, 1))))


def _level(shards, names, detailed, composite_channels, budget_bytes: int) -> int:
    """Return the first place in LADDER at which all crops fit, by some of them."""
    if not names:
        return 0
    some = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, CROPS_AT_ONCE).astype(int))]
    colour, grey = _read(shards, some, set(some), composite_channels, LADDER[0][0], quiet=True)
    for level, (tile, quality) in enumerate(LADDER):
        if level and tile > shards.format.size_px + 8:
            continue
        spent = _bytes(_sheets(_resized(colour, tile), quality)) / len(some) * len(names)
        if detailed:
            of_channels = _bytes(_sheets(_resized(grey, tile), quality))
            spent += of_channels / len(some) * len(detailed)
        if spent <= budget_bytes:
            return level
    return len(LADDER) - 1


def _read(
    shards: Shards,
    names: Sequence[str],
    wanted: Collection[str],
    composite_channels: Sequence[str],
    tile: int,
    quiet: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return n x tile x tile x 3 (or 1) composites, and m x tile x (channels x tile) x 1 of some.

    The latter are all channels, beside each other, of the crops that are `wanted`.
    """
    channels = shards.format.channels
    rows = shards.rows_of(names)
    depth = 1 if len(composite_channels) == 1 else 3
    colour = np.zeros((len(names), tile, tile, depth), np.uint8)
    places = np.full(len(names), -1)
    inside = [place for place, name in enumerate(names) if name in wanted]
    places[inside] = np.arange(len(inside))
    grey = np.zeros((len(inside), tile, len(channels) * tile, 1), np.uint8)
    order = np.argsort(rows)  # as they lie in the files
    progress = Progress(len(names), "crops", "crops of the page")
    for begin in range(0, len(names), CROPS_AT_ONCE):
        some = order[begin : begin + CROPS_AT_ONCE]
        pixels = shards.read(rows[some])
        of_all = composite(pixels, channels, channels)
        shown = composite(pixels, channels, composite_channels)
        for place, planes, every in zip(some, shown, of_all, strict=True):
            image = coloured(np.stack([_square(plane, tile) for plane in planes]))
            colour[place] = image.reshape(tile, tile, depth)
            if places[place] >= 0:
                grey[places[place], :, :, 0] = np.hstack([_square(plane, tile) for plane in every])
        if not quiet:
            progress.update(len(some))
    return colour, grey


def _square(plane: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA)


def _resized(tiles: np.ndarray, side: int) -> np.ndarray:
    """Return n x height x width x depth tiles with another height, and the width that follows."""
    _, height, width, depth = tiles.shape
    if height == side or not len(tiles):
        return tiles
    size = width * side // height, side
    small = [cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in tiles]
    return np.stack(small).reshape(len(tiles), side, size[0], depth)


def _grid(width: int, height: int) -> tuple[int, int]:
    """Return columns and rows of tiles in a sheet."""
    return max(1, SHEET_PX // width), max(1, SHEET_PX // height)


def _sheets(tiles: np.ndarray, quality: int) -> list[str]:
    """Return n x height x width x depth tiles as data URIs of sheets, row by row."""
    if not len(tiles):
        return []
    _, height, width, depth = tiles.shape
    columns, rows = _grid(width, height)
    sheets = []
    for begin in range(0, len(tiles), columns * rows):
        some = tiles[begin : begin + columns * rows]
        across = min(columns, len(some))
        down = -(-len(some) // across)
        full = np.zeros((down * across, height, width, depth), np.uint8)
        full[: len(some)] = some
        image = full.reshape(down, across, height, width, depth).transpose(0, 2, 1, 3, 4)
        image = np.ascontiguousarray(image.reshape(down * height, across * width, depth))
        done, content = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if not done:
            raise RuntimeError("OpenCV cannot write WebP")
        text = base64.b64encode(content.tobytes()).decode()
        sheets.append("data:image/webp;base64," + text)
    return sheets


def _positions(names: Sequence[str], width: int, height: int) -> dict[str, tuple[int, int, int]]:
    columns, rows = _grid(width, height)
    found = {}
    for number, name in enumerate(names):
        sheet, place = divmod(number, columns * rows)
        found[name] = sheet, place % columns * width, place // columns * height
    return found


def _bytes(sheets: Sequence[str]) -> int:
    return sum(map(len, sheets))
