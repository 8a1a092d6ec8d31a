"""Nuclei per second, and fields per second from three TIFFs to crops on disk, on simulated fields.

The usual way: scikit-image for nuclei; tifffile, scikit-image and a PNG per crop for the rest.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile
from PIL import Image
from scipy.optimize import linear_sum_assignment

from benchmarks import common
from hcsqc.crops.cut import CropSettings, Plate, crop_plate, cut_windows, window_inside
from hcsqc.crops.nuclei import Nuclei, NucleusSettings, find_nuclei, nuclei_shown
from hcsqc.crops.shards import Shards
from hcsqc.screens.scale import (
    PlateImages,
    ScaleSettings,
    apply_scale,
    lookup_tables,
    measure_scale,
)
from hcsqc.screens.simulate.camera import make_shading
from hcsqc.screens.simulate.cell_lines import CELL_LINES
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_field
from hcsqc.screens.simulate.textures import make_textures

FIELDS, SHAPE, CELLS, TOUCHING = 48, (520, 696), 45, 0.2
FEW = 6  # fields for the usual way, which is slow
PLATE_FIELDS = 480  # of a plate whose images are those of the simulated fields, again and again
MATCH_PX = 6  # from a found centre to the planted one
INSIDE_PX = 15  # a nucleus nearer to the border is cut by it, and its centre moves
FAST = NucleusSettings("fast", 25, 80)
CHANNELS = ["w1", "w4", "w5"]
NUCLEI = nuclei_shown("w1", FAST.nucleus_diameter_px, FAST.nucleus_smallest_px)
CROPPING = CropSettings(128, 1.0, "drop", "uint8", 0.9, 0.0)


def main() -> None:
    """Read the flags, make the fields, time both ways."""
    args = common.parser(__doc__).parse_args()
    cv2.setNumThreads(1)
    fields = make_fields()
    rows = [detection(fields, args.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        rows.append(to_shards(fields, Path(folder), args.rounds))
    common.report(rows, args.json)


def make_fields() -> list[tuple[np.ndarray, pd.DataFrame]]:
    """Return simulated five-channel fields, each with the truth about its nuclei."""
    simulation = SimulationSettings("u2os", ("B02",), 9, *SHAPE, CELLS, TOUCHING, 0.0, 0.0, 7)
    textures = make_textures()
    shading = make_shading(simulation, "20001", len(CELL_LINES["u2os"].channels))
    places = [(f"B{2 + n // 9:02d}", 1 + n % 9) for n in range(FIELDS)]
    return [simulate_field(simulation, "20001", *place, textures, shading) for place in places]


def detection(fields, rounds: int) -> dict:
    """Time the fast method against scikit-image's watershed, one field after the other."""
    images = [image[0] for image, _ in fields]
    reference = replace(FAST, nucleus_method="watershed")
    times = common.seconds(
        {
            "ours": lambda: [find_nuclei(image, FAST) for image in images],
            "baseline": lambda: [find_nuclei(image, reference) for image in images[:FEW]],
        },
        rounds,
    )
    scores = [f1(fields, settings) for settings in (FAST, reference)]
    return common.row(
        "detect nuclei",
        "fields/s",
        {"ours": len(images) / times["ours"], "baseline": FEW / times["baseline"]},
        f"F1 {scores[0]:.3f}, baseline {scores[1]:.3f}",
    )


def f1(fields, settings: NucleusSettings) -> float:
    """Return F1 over nuclei that lie whole in their field."""
    hits = misses = false_alarms = 0
    for image, truth in fields:
        nuclei = find_nuclei(image[0], settings)
        found = np.stack([nuclei.x_px, nuclei.y_px], axis=1)
        planted = truth[["x_px", "y_px"]].to_numpy()
        apart = np.linalg.norm(planted[:, None] - found[None], axis=2)
        pairs = np.stack(linear_sum_assignment(np.minimum(apart, 1000)))
        pairs = pairs[:, apart[tuple(pairs)] <= MATCH_PX]
        hit, hitting = inside(planted), inside(found)
        hits += hit[pairs[0]].sum()
        misses += np.delete(hit, pairs[0]).sum()
        false_alarms += np.delete(hitting, pairs[1]).sum()
    return 2 * hits / (2 * hits + misses + false_alarms)


def inside(centres: np.ndarray) -> np.ndarray:
    """Return which centres are so far from the border that their nuclei are whole."""
    limits = np.array(SHAPE[::-1]) - INSIDE_PX
    return ((centres >= INSIDE_PX) & (centres < limits)).all(axis=1)


def to_shards(fields, folder: Path, rounds: int) -> dict:
    """Time the way from three TIFFs to crops on disk."""
    plate = write_plate(fields, folder, PLATE_FIELDS)
    pictures = folder / "png"
    pictures.mkdir()
    few = plate.fields.head(FEW)
    times = common.seconds(
        {
            "ours": lambda: crop_plate(plate, CROPPING, FAST, folder / "p.parquet", 1, "ours"),
            "baseline": lambda: usual_way(few, plate, pictures),
        },
        rounds,
    )
    per_s = {"ours": PLATE_FIELDS / times["ours"], "baseline": FEW / times["baseline"]}
    return common.row("images to shards", "fields/s", per_s, f"{check(few, plate, folder)} equal")


def check(fields: pd.DataFrame, plate: Plate, folder: Path) -> str:
    """Return how many crops of the shard are what the source's pixels give; all must be."""
    crops = Shards([folder / "p.parquet"])
    for field in fields.itertuples():
        planes = [tifffile.imread(plate.images / path) for path in field.image_path]
        scaled = apply_scale(planes, lookup_tables(plate.scale, CROPPING.scale_knee, "uint8"))
        own = crops.index[crops.index["field_id"] == field.field_id]
        windows = cut_windows(scaled, own["x_px"].to_numpy(), own["y_px"].to_numpy(), 128)
        assert (crops.read(own.index.to_numpy()) == np.stack(windows)).all()
    return f"{crops.index['field_id'].isin(fields['field_id']).sum()} crops"


def write_plate(fields, folder: Path, count: int) -> Plate:
    """Write three channels of each field as TIFF and return a plate of `count` fields of them."""
    for number, (image, _) in enumerate(fields):
        for channel, plane in zip(CHANNELS, image[[0, 3, 4]], strict=True):
            tifffile.imwrite(folder / f"{number}{channel}.tif", plane)
    table = pd.DataFrame(
        {
            "field_id": [f"s/p/B02/s{site}" for site in range(count)],
            "plate": "p",
            "well": "B02",
            "site": range(count),
            "image_path": [
                [f"{site % len(fields)}{channel}.tif" for channel in CHANNELS]
                for site in range(count)
            ],
            "image_page": [[None] * 3] * count,
            "problem": None,
        }
    )
    images = PlateImages("p", folder, CHANNELS)
    scale, shape, _ = measure_scale(table, images, ScaleSettings(16, 0.5, 2, 1), NUCLEI)
    return Plate(table, folder, CHANNELS, "w1", scale, shape)


def usual_way(fields: pd.DataFrame, plate: Plate, pictures: Path) -> None:
    """Crop as a script would: tifffile, scikit-image's watershed, a PNG per crop."""
    reference = replace(FAST, nucleus_method="watershed")
    for field in fields.itertuples():
        planes = [tifffile.imread(plate.images / path) for path in field.image_path]
        found: Nuclei = find_nuclei(planes[0], reference)
        ranges = zip(planes, plate.scale["low"], plate.scale["high"], strict=True)
        scaled = [np.clip((plane - low) / (high - low), 0, 1) for plane, low, high in ranges]
        pixels = np.stack([np.uint8(255 * plane) for plane in scaled])
        kept = window_inside(found.x_px, found.y_px, plate.shape, 128)
        crops = cut_windows(pixels, found.x_px[kept], found.y_px[kept], 128)
        for number, crop in enumerate(crops):
            picture = Image.fromarray(crop.transpose(1, 2, 0))
            picture.save(pictures / f"{field.site}_{number}.png")


if __name__ == "__main__":
    main()
