"""Crops per second: shuffled from the disk, and from there to two augmented views of each.

The usual way is a folder of PNG files, one per crop, read through PIL and augmented by torchvision.
The limit of a shuffled read is a bare memory map, an array of the same pixels and nothing else.
What it costs that a job compares each crop with its digest once is measured against the same reads
without: over as many epochs as the others and over one from the page cache, and over one from disk.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks import common
from hcsqc.core.torchvision_mend import mend_torchvision
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter, shuffled_order
from hcsqc.encoders.models import imagenet_input
from hcsqc.encoders.views import ViewSettings, normalise, two_views
from hcsqc.screens.simulate.cell_lines import CELL_LINES
from hcsqc.screens.simulate.cells import place_cells
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.paint import paint_field
from hcsqc.screens.simulate.textures import make_textures

mend_torchvision()
from torchvision.transforms import v2  # noqa: E402

WINDOW_PX, BATCH, EPOCHS, FEW = 128, 128, 8, 512  # the usual way is slow: it reads but few
CHANNELS = ("w4", "w5", "w1")
INPUT = imagenet_input(WINDOW_PX, len(CHANNELS))
# As the config's preset `paper`.
VIEWS = ViewSettings(0.75, 0.5, 0.5, 0.1, 0.8, 1.2)
USUAL_VIEW = v2.Compose(
    [
        v2.RandomChoice([v2.RandomRotation((turn, turn)) for turn in (0, 90, 180, 270)]),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomAffine(0, (0.1, 0.1), (0.8, 1.2), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(INPUT.mean, INPUT.std),
    ]
)


def main() -> None:
    """Read the flags, write the crops in each form, time both ways."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--crops", type=int, default=2048, help="in the shards, 48 KiB each; 1024 or more"
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards, bare, pictures = write_crops(Path(folder), args.crops)
        same = check_pixels(shards, bare, pictures)
        rows = [
            shuffled_reads(shards, bare, pictures, args.rounds, same),
            digests_compared(shards, EPOCHS, args.rounds),
            digests_compared(shards, 1, args.rounds),
            digests_compared(shards, 1, args.rounds, is_input=True),
            digests_compared_from_disk(shards, Path(folder), args.rounds),
            disk_to_two_views(shards, pictures, args.rounds),
        ]
    common.report(rows, args.json)


def write_crops(folder: Path, count: int) -> tuple[Shards, np.ndarray, list[Path]]:
    """Write simulated crops as two shards, as a bare array, and some of them as PNG files."""
    field = simulated_field()
    rng = np.random.default_rng(7)
    tops = rng.integers(0, field.shape[1] - WINDOW_PX, count)
    lefts = rng.integers(0, field.shape[2] - WINDOW_PX, count)
    bare = np.memmap(
        folder / "bare", np.uint8, "w+", shape=(count, len(CHANNELS), WINDOW_PX, WINDOW_PX)
    )
    for row, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        bare[row] = field[:, top : top + WINDOW_PX, left : left + WINDOW_PX]
    bare.flush()
    paths = [folder / "a.parquet", folder / "b.parquet"]
    for path, half in zip(paths, np.array_split(np.arange(count), 2), strict=True):
        writer = ShardWriter(path, ShardFormat(CHANNELS, WINDOW_PX, "uint8", {}))
        names = [f"s/p/A01/s1/x{row:06d}" for row in half]
        numbers = dict.fromkeys(("x_px", "y_px", "nucleus_area_px"), half)
        writer.add({"crop_id": names, "field_id": names, **numbers}, bare[half])
        writer.close()
    pictures = [folder / f"{row}.png" for row in range(FEW)]
    for path, crop in zip(pictures, bare, strict=False):
        Image.fromarray(crop.transpose(1, 2, 0)).save(path)
    return Shards(paths), np.memmap(folder / "bare", np.uint8, "r").reshape(bare.shape), pictures


def simulated_field() -> np.ndarray:
    """Return a field as three channels of uint8, each over its whole range."""
    simulation = SimulationSettings("u2os", ("B02",), 1, 1040, 1392, 180, 0.2, 0.0, 0.0, 7)
    line, textures, rng = CELL_LINES["u2os"], make_textures(), np.random.default_rng(7)
    cells = place_cells(simulation, line, textures, rng)
    levels = paint_field(cells, line, (1040, 1392), textures, rng)[[3, 4, 0]]
    noisy = levels + rng.normal(0, 8, levels.shape)
    low, high = np.percentile(noisy, (0.5, 99.5), axis=(1, 2), keepdims=True)
    return np.uint8(np.clip(255 * (noisy - low) / (high - low), 0, 255))


def check_pixels(shards: Shards, bare: np.ndarray, pictures: list[Path]) -> str:
    """Return what was found of the pixels: the three forms must hold the same."""
    rows = np.random.default_rng(1).permutation(FEW)[:64]
    ours = shards.read(rows)
    assert (ours == bare[rows]).all()
    assert (ours == [read_picture(pictures[row]) for row in rows]).all()
    return "the same pixels"


def read_picture(path: Path) -> np.ndarray:
    """Return a PNG's pixels, 3 x H x W."""
    with Image.open(path) as picture:
        return np.asarray(picture).transpose(2, 0, 1)


def epoch_batches(count: int, epoch: int) -> np.ndarray:
    """Return the rows of an epoch's full batches, those that pretraining reads."""
    return shuffled_order(count, 0, epoch)[: count // BATCH * BATCH].reshape(-1, BATCH)


def shuffled_reads(shards, bare, pictures, rounds: int, quality: str) -> dict:
    """Time epochs in random order."""
    order = np.random.default_rng(2).permutation(FEW)
    batches = [rows for epoch in range(EPOCHS) for rows in epoch_batches(len(shards), epoch)]
    out = np.empty((BATCH, *shards.format.shape), np.uint8)
    times = common.seconds(
        {
            "ours": lambda: [shards.read(rows, out) for rows in batches],
            "limit": lambda: [np.take(bare, rows, 0, out, "clip") for rows in batches],
            "baseline": lambda: [np.stack([read_picture(pictures[row]) for row in order[:BATCH]])],
        },
        rounds,
    )
    counts = dict.fromkeys(("ours", "limit"), len(batches) * BATCH) | {"baseline": BATCH}
    per_s = {name: counts[name] / seconds for name, seconds in times.items()}
    return common.row("shuffled reads", "crops/s", per_s, quality)


def digests_compared(shards: Shards, epochs: int, rounds: int, is_input: bool = False) -> dict:
    """Time a job's epochs with each crop compared with its digest once, and without.

    With `is_input` each batch becomes a network's input, as where features are computed. By the
    processor's time: the difference is small.
    """
    batches = [rows for epoch in range(epochs) for rows in epoch_batches(len(shards), epoch)]
    out = np.empty((BATCH, *shards.format.shape), np.uint8)

    def read(compared: bool) -> None:
        shards._checked[:] = not compared
        for rows in batches:
            if is_input:
                normalise(shards.read_composite(rows, CHANNELS), INPUT)
            else:
                shards.read(rows, out)

    ways = {"ours": lambda: read(True), "baseline": lambda: read(False)}
    times = common.seconds(ways, rounds, time.process_time)
    per_s = {name: len(batches) * BATCH / seconds for name, seconds in times.items()}
    told = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    told += " to a network's input" if is_input else ""
    return common.row(f"digests compared, {told}", "crops/s", per_s, "damage is noticed")


def digests_compared_from_disk(shards: Shards, folder: Path, rounds: int) -> dict:
    """Time one pass in order, with and without comparing, where the page cache holds no crop.

    It reads copies in `folder`, because pages that another map holds stay in the cache.
    """
    paths = [shutil.copy(path, folder / f"{n}.cold.parquet") for n, path in enumerate(shards.paths)]
    batches = np.arange(len(shards) // BATCH * BATCH).reshape(-1, BATCH)
    out = np.empty((BATCH, *shards.format.shape), np.uint8)

    def read(compared: bool) -> None:
        for path in paths:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        cold = Shards(paths)
        cold._checked[:] = not compared
        for rows in batches:
            cold.read(rows, out)

    times = common.seconds({"ours": lambda: read(True), "baseline": lambda: read(False)}, rounds)
    per_s = {name: batches.size / seconds for name, seconds in times.items()}
    return common.row("digests compared, from disk", "crops/s", per_s, "damage is noticed")


def disk_to_two_views(shards, pictures, rounds: int) -> dict:
    """Time reading in random order and augmenting, on one core."""

    def ours() -> None:
        rng = np.random.default_rng(3)
        for rows in epoch_batches(len(shards), 0)[:8]:
            crops = shards.read_composite(rows, CHANNELS)
            two_views(crops, VIEWS, INPUT, rng)

    def usual() -> None:
        for path in pictures:
            with Image.open(path) as picture:
                torch.stack([USUAL_VIEW(picture), USUAL_VIEW(picture)])

    times = common.seconds({"ours": ours, "baseline": usual}, rounds)
    per_s = {"ours": 8 * BATCH / times["ours"], "baseline": FEW / times["baseline"]}
    return common.row("disk to two views", "crops/s", per_s, "turns, flips, shift, scale")


if __name__ == "__main__":
    main()
