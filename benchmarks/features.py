"""Crops per second of feature extraction, from shards to vectors, for several encoders.

The usual way is an eager network in evaluation, on NCHW tensors of float32, that sees each batch as
it was read. Ours is `extract_features`. Both read the same shards and normalise alike, take turns
in one process, and have the same random weights. Quality is the least cosine similarity, over the
crops, of our features and the usual ones. The limit is what eager execution could reach if each
operation of the usual network ran at a measured peak, in our precision: see `pretrain.py`.
`stages of` a network are the features of all its stages about the cell; their baseline are its own
last layer's, by `extract_features` too.
`--models` instead gives, for registered models with random weights, the crops of 128 px that one
core embeds in a second of its own time, so that other work on the machine counts for little.
"""

import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import common
from benchmarks.roofline import Roofline, peaks
from benchmarks.shards import CHANNELS, FEW, write_crops
from hcsqc.core.devices import choose_device, device_name, precision_on
from hcsqc.crops.shards import Shards
from hcsqc.encoders.given import transfer_encoder
from hcsqc.encoders.models import build_backbone
from hcsqc.encoders.pooling import Pooling
from hcsqc.encoders.registry import CELL_PAINTING, REGISTRY
from hcsqc.encoders.roles import Sight
from hcsqc.encoders.store import Encoder, pooled_encoder, random_encoder
from hcsqc.encoders.views import normalise
from hcsqc.encoders.weights import Weights
from hcsqc.features.extract import CPU_IMAGES, Embedder, extract_features

NETWORKS = ("resnet18", "vgg16", "convnext_tiny", "tf_efficientnet_lite0", "vit_small_patch16_224")
CELL = Pooling("stages", "cell")
BATCH = 256
FEW_CROPS = 4  # of a registered model, which may take seconds for each
ON_GPU = 32 * BATCH  # the start of a job counts for less


def main() -> None:
    """Read the flags, write crops, and embed them both ways with each network."""
    parser = common.parser(__doc__)
    parser.add_argument("--encoders", nargs="+", default=NETWORKS, help="timm names")
    parser.add_argument("--models", nargs="*", help="registered models, all if none is named")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--crops", type=int, help=f"to embed; {ON_GPU} on a GPU, {BATCH} on a CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    args = parser.parse_args()
    if args.models is not None:
        torch.set_num_threads(1)
        rows = [model_row(name, args.rounds) for name in args.models or REGISTRY]
        common.report(rows, args.json)
        return
    torch.set_num_threads(args.threads)
    place = choose_device("auto")
    kinds = {torch.float32, getattr(torch, precision_on(place, args.precision))}
    rates, bandwidth = peaks(place, kinds)
    print(f"{device_name(place)}, {args.input_px} px")
    for kind, rate in rates.items():
        print(f"matrix product, {kind}: {rate / 1e9:,.0f} GFLOP/s")
    print(f"copy, read and written: {bandwidth / 1e9:,.1f} GB/s", flush=True)
    table = []
    with tempfile.TemporaryDirectory() as folder:
        rows = np.arange(args.crops or (ON_GPU if place.type == "cuda" else BATCH))
        shards, _, _ = write_crops(Path(folder), max(len(rows), FEW))
        for name in args.encoders:
            encoder = random_encoder(name, args.input_px, len(CHANNELS), seed=0)
            encoder.backbone.eval()
            ours = partial(extract_features, encoder, shards, CHANNELS, rows, BATCH)
            ours = partial(ours, args.precision, name)
            usual = partial(usual_way, encoder, shards, rows, place)
            times = common.seconds({"baseline": usual, "ours": ours}, args.rounds)
            per_s = {way: len(rows) / taken for way, taken in times.items()}
            found, precision = ours()
            quality = f"cosine {least_cosine(found, usual()):.5f}, {precision}"
            per_s["limit"] = limit(encoder, place, precision, rates, bandwidth)
            table.append(common.row(f"features {name}", "crops/s", per_s, quality))
            pooled = partial(extract_features, pooled_encoder(encoder, CELL), *ours.args[1:])
            times = common.seconds({"baseline": ours, "ours": pooled}, args.rounds)
            per_s = {way: len(rows) / taken for way, taken in times.items()}
            table.append(common.row(f"stages of {name}", "crops/s", per_s, pooled()[1]))
    common.report(table, args.json)


def model_row(name: str, rounds: int) -> dict:
    """Return what a registered model sees and gives, and its crops per second of one core."""
    model = REGISTRY[name]
    channels = len(CELL_PAINTING) if model.channels in ("each", "any") else model.network_channels
    with torch.random.fork_rng():
        network = build_backbone(
            model.architecture,
            channels if model.channels == "any" else model.network_channels,
            model.input_px,
            model.network_options,
        )
    weights = Weights(
        model.architecture,
        network.state_dict(),
        model.mean,
        model.std,
        {"weights": "random", "random": name},
        model.network_options,
    )
    sight = Sight(model.normalisation, model.roles)
    encoder = transfer_encoder(weights, model.input_px, channels, model.channels, model.pool, sight)
    embedder = Embedder(encoder, torch.device("cpu"), "float32")
    crops = np.random.default_rng(0).integers(0, 256, (FEW_CROPS, channels, 128, 128), np.uint8)
    areas = np.full(len(crops), 400)

    def embed() -> np.ndarray:
        return embedder.features(embedder.inputs(crops, areas, CPU_IMAGES))

    taken = common.seconds({"ours": embed}, rounds, time.process_time)["ours"]
    return {
        "model": name,
        "channels": f"{channels} {model.channels}",
        "px": model.input_px,
        "width": encoder.width,
        "crops/s": len(crops) / taken,
    }


def usual_way(encoder: Encoder, shards: Shards, rows: np.ndarray, place) -> np.ndarray:
    """Return the features of a plain loop over batches."""
    backbone = encoder.backbone.to(place, memory_format=torch.contiguous_format)
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            crops = shards.read_composite(rows[start : start + BATCH], CHANNELS)
            images = normalise(crops, encoder.input_spec).contiguous().to(place)
            found.append(backbone(images).cpu().numpy())
    return np.concatenate(found)


def limit(encoder: Encoder, place, precision: str, rates, bandwidth: float) -> float:
    """Return the crops per second of a network at the peaks."""
    side = encoder.input_spec.size_px
    images = torch.randn(CPU_IMAGES, len(CHANNELS), side, side, device=place)
    half = torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16")
    with torch.no_grad(), half, Roofline(rates, bandwidth) as roofline:
        encoder.backbone(images)
    return len(images) / roofline.seconds


def least_cosine(ours: np.ndarray, usual: np.ndarray) -> float:
    """Return the least cosine similarity of two n x width features of the same crops."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(usual, axis=1)
    return float(((ours * usual).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    main()
