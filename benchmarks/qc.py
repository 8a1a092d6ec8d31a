"""Crops per second that `snakemake qc` scores of a screen, against the encoder alone.

`screen scoring` reads shards, embeds, classifies, measures focus and saturation, and compares with
the detector's reference: `qc.scoring.score_crops`, the work of one plate's job without its start.
The limit is the bare forward pass of the same network, frozen in the same way, on batches that are
already in memory as its input; the baseline is the usual loop: an eager network on float32 batches
read from the same shards, then scikit-learn's logistic regression.
"""

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks import common
from benchmarks.features import usual_way
from benchmarks.shards import CHANNELS, write_crops
from hcsqc.core.devices import choose_device, device_name
from hcsqc.encoders.store import random_encoder
from hcsqc.encoders.views import normalise
from hcsqc.features.extract import CPU_IMAGES, embed, extract_features, frozen
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import QUANTILES, Detector, fit_detector, reference_of, standardised
from hcsqc.qc.scoring import score_crops

BATCH = 256
NUCLEUS_DIAMETER_PX = 25
ON_GPU = 128 * BATCH  # the start of a job counts for less
LABELS = 100
SETTINGS = LogisticSettings(penalties=(0.01,), folds=3)
GOOD_CELLS_LOST = 0.05


def main() -> None:
    """Read the flags, write crops, and score them with each network."""
    parser = common.parser(__doc__)
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "convnext_tiny"])
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--crops", type=int, help=f"{ON_GPU} on a GPU, {2 * BATCH} on a CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    place = choose_device("auto")
    crops = args.crops or (ON_GPU if place.type == "cuda" else 2 * BATCH)
    print(f"{device_name(place)}, {args.input_px} px, {crops} crops")
    table = []
    with tempfile.TemporaryDirectory() as folder:
        shards, _, _ = write_crops(Path(folder), max(crops, LABELS))
        rows = np.arange(len(shards))
        for name in args.encoders:
            encoder = random_encoder(name, args.input_px, len(CHANNELS), seed=0)
            encoder.backbone.eval()
            features, precision = extract_features(
                encoder, shards, CHANNELS, rows[:LABELS], BATCH, "auto", name
            )
            detector, usual = fitted(encoder, features)
            ours = partial(
                score_crops,
                detector,
                shards,
                list(CHANNELS),
                CHANNELS[0],
                BATCH,
                "auto",
                name,
                rows[:LABELS],
                NUCLEUS_DIAMETER_PX,
            )
            ways = {
                "baseline": lambda e=encoder, c=usual, d=detector: c.predict_proba(
                    standardised(usual_way(e, shards, rows, place), d.reference)
                ),
                "ours": ours,
                "limit": partial(bare, encoder, shards, rows, place, precision),
            }
            times = common.seconds(ways, args.rounds)
            per_s = {way: len(rows) / taken for way, taken in times.items()}
            told = ours()[0]["score"].to_numpy() - ways["baseline"]()[:, 1]
            quality = f"scores within {np.abs(told).max():.1g}, {precision}"
            table.append(common.row(f"screen scoring {name}", "crops/s", per_s, quality))
    common.report(table, args.json)


def fitted(encoder, features: np.ndarray) -> tuple[Detector, LogisticRegression]:
    """Return a detector of made labels, and its classifier as one of scikit-learn's."""
    abnormal = np.arange(len(features)) % 2 == 1
    labels = pd.DataFrame(
        {
            "group": [f"B{1 + i % 10:02d}" for i in range(len(features))],
            "label": np.where(abnormal, "abnormal", "normal"),
            "artefact": np.where(
                abnormal, np.where(np.arange(len(features)) % 4 == 1, "blur", "debris"), None
            ),
        }
    )
    reference = reference_of(features)
    seen = standardised(features, reference)
    artefacts = fit_detector(labels, seen, SETTINGS, GOOD_CELLS_LOST).artefacts
    # Without names, so that there is one classifier, as usual.
    labels = labels.assign(artefact=None)
    classifier = fit_detector(labels, seen, SETTINGS, GOOD_CELLS_LOST).classifier
    reference["score_quantiles"] = np.quantile(classifier.scores(seen), QUANTILES)
    detector = Detector(encoder, classifier, artefacts, reference, {})
    usual = LogisticRegression()
    usual.classes_ = np.array([False, True])
    usual.coef_ = (classifier.weight / classifier.scale)[None]
    usual.intercept_ = classifier.intercept - usual.coef_ @ classifier.centre
    return detector, usual


def bare(encoder, shards, rows: np.ndarray, place, precision: str) -> None:
    """Run the network alone, on one batch over and over."""
    backbone = frozen(encoder.backbone, place)
    at_once = BATCH if place.type == "cuda" else CPU_IMAGES
    crops = shards.read_composite(rows[:at_once], CHANNELS)
    images = normalise(crops, encoder.input_spec, place)
    with torch.inference_mode():
        for _ in range(0, len(rows), at_once):
            embed(backbone, images, precision=precision)


if __name__ == "__main__":
    main()
