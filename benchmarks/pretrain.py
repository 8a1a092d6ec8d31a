"""Pairs of views per second in pretraining: from the disk to the optimizer's step.

The usual way is solo-learn's: a PNG per crop, read by PIL and augmented by torchvision in workers
of a DataLoader, then an eager step on NCHW tensors with solo-learn's loss, in float32 on a CPU and
in float16 by autocast on a GPU. Both ways have the same network and optimizer, and are timed in the
second epoch, because some methods do less in the first. A few made crops stand for the many of an
epoch.

The limit is what eager execution could reach if each operation of our step ran at a measured peak:
its multiplications at the rate of a large matrix product of its type, or its tensors, each read or
written once, at the bandwidth of a large copy, whichever takes longer. Reading crops and making
views is no part of it. What stays in a cache between two operations may move faster than that.
"""

import argparse
import dataclasses
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks import common
from benchmarks.roofline import Roofline, peaks
from benchmarks.shards import CHANNELS, FEW, USUAL_VIEW, write_crops
from hcsqc.core.devices import choose_device, device_name, precision_on
from hcsqc.core.torchvision_mend import mend_torchvision
from hcsqc.crops.shards import Shards
from hcsqc.encoders.models import build_backbone, feature_width, imagenet_input
from hcsqc.encoders.views import ViewSettings
from hcsqc.pretraining import loop as pretraining
from hcsqc.pretraining.loop import pretrain
from hcsqc.pretraining.methods import METHODS, barlow_twins, vicreg
from hcsqc.pretraining.methods.base import SelfSupervised
from hcsqc.pretraining.methods.momentum import MomentumMethod
from hcsqc.pretraining.settings import PretrainingSettings, Recipe
from hcsqc.report.tables import PAPER_METHODS

mend_torchvision()
from solo.losses.barlow import barlow_loss_func  # noqa: E402
from solo.losses.vicreg import vicreg_loss_func  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

# Of two epochs `pretrain` then logs the first step of each and the last of all, whose rate is that
# of the steps since the second epoch's first.
pretraining.LOGGED_STEPS = 2


def main() -> None:
    """Read the flags, write the crops in both forms, time both ways with each method."""
    args = read_flags()
    place = choose_device(args.device)
    precision = precision_on(place, args.precision)
    torch.set_num_threads(args.threads)
    rates, bandwidth = peaks(place, {torch.float32, getattr(torch, precision)})
    print(f"{device_name(place)}, batch {args.batch}, {args.input_px} px")
    for kind, rate in rates.items():
        print(f"matrix product, {kind}: {rate / 1e9:,.0f} GFLOP/s")
    print(f"copy, read and written: {bandwidth / 1e9:,.1f} GB/s", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shards, pictures = write_both(Path(folder), args.crops)
        for method in args.methods:
            run = run_of(method, args, precision)
            ours, baseline = [], []
            for _ in range(args.rounds):
                ours.append(our_rate(shards, run, place))
                baseline.append(baseline_rate(pictures, run, args, place))
            rate, stall = np.median(ours, axis=0).tolist()
            per_s = {"ours": rate, "baseline": statistics.median(baseline)}
            per_s["limit"] = limit(run, place, rates, bandwidth)
            quality = f"stall {stall:.1%}, {precision}"
            rows.append(common.row(f"pretraining step {method}", "pairs/s", per_s, quality))
    common.report(rows, args.json)


def read_flags() -> argparse.Namespace:
    """Return the flags, with the defaults of the device."""
    parser = common.parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(PAPER_METHODS))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--batch", type=int, help="128 on a GPU, 32 on a CPU")
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--crops", type=int, help="to make; 512, or four batches if more")
    parser.add_argument("--steps", type=int, help="to time; 200 on a GPU, 3 on a CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--workers", type=int, help="the baseline's; 16 on a GPU, or one per core")
    args = parser.parse_args()
    on_gpu = choose_device(args.device).type == "cuda"
    args.batch = args.batch or (128 if on_gpu else 32)
    args.crops = args.crops or max(FEW, 4 * args.batch)
    args.steps = args.steps or (200 if on_gpu else 3)
    args.workers = args.workers or (16 if on_gpu else os.cpu_count())
    return args


def write_both(folder: Path, count: int) -> tuple[Shards, list[Path]]:
    """Write simulated crops as shards, and each as a PNG file."""
    shards, bare, _ = write_crops(folder, count)
    pictures = [folder / f"{row}.png" for row in range(count)]
    for path, crop in zip(pictures[FEW:], bare[FEW:], strict=True):  # write_crops wrote a few
        Image.fromarray(crop.transpose(1, 2, 0)).save(path)
    return shards, pictures


class Run(NamedTuple):
    """The recipe of pretraining by one method, and what its second epoch is."""

    recipe: Recipe
    warm_up: int  # steps before those that are timed
    crops: int

    def with_settings(self, **changes) -> "Run":
        """Return the run with some settings of its training changed."""
        settings = dataclasses.replace(self.recipe.settings, **changes)
        return self._replace(recipe=dataclasses.replace(self.recipe, settings=settings))


def run_of(method: str, args: argparse.Namespace, precision: str) -> Run:
    """Return the config's preset `paper`, with epochs as long as steps and clusters need."""
    preset = yaml.safe_load((ROOT / "config.yaml").read_text())["presets"]["paper"]
    values = preset["common"] | preset[method]
    values |= {"method": method, "input_px": args.input_px, "batch_size": args.batch}
    values |= {"precision": precision, "epochs": 2, "snapshots": 0, "checkpoint_minutes": math.inf}
    warm_up = max(1, args.steps // 10)
    clusters = values["prototypes"] if method == "deepcluster_v2" else 0  # no more than crops
    steps = max(warm_up + args.steps, math.ceil(clusters / args.batch))
    if method == "moco_v2_plus":  # its queue is no longer than an epoch
        values["queue_size"] = min(values["queue_size"], steps * args.batch)
    settings = [
        kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
        for kind in (PretrainingSettings, ViewSettings, METHODS[method].Settings)
    ]
    return Run(Recipe(*settings, seed=0), warm_up, steps * args.batch)


@dataclasses.dataclass(frozen=True)
class Crops:
    """An epoch's crops: those of the shards, again and again."""

    shards: Shards
    count: int
    channels: int = len(CHANNELS)

    def __len__(self) -> int:
        return self.count

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return composite crops: uint8, n x channels x H x W."""
        return self.shards.read_composite(rows % len(self.shards), CHANNELS)


def our_rate(shards: Shards, run: Run, place: torch.device) -> tuple[float, float]:
    """Return the pairs per second of `pretrain`, and the share of time it waits for crops."""
    crops, name = Crops(shards, run.crops), run.recipe.settings.method
    with tempfile.TemporaryDirectory() as checkpoints:
        result = pretrain(crops, run.recipe, checkpoints, name, place.type)
    return result.curves[-1]["pairs_per_s"], result.stall_share


class Pictures(Dataset):
    """Two views of each of an epoch's crops: those of the PNG files, again and again."""

    def __init__(self, paths: list[Path], count: int, size_px: int):
        self.paths, self.count = paths, count
        self.view = v2.Compose([v2.Resize(size_px), USUAL_VIEW])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[int, Tensor, Tensor]:
        with Image.open(self.paths[row % len(self.paths)]) as picture:
            return row, self.view(picture), self.view(picture)


def baseline_rate(pictures: list[Path], run: Run, args, place) -> float:
    """Return the pairs per second of the usual loop."""
    on_gpu = place.type == "cuda"
    backbone, method, optimizer = build(run, place)
    scaler = torch.amp.GradScaler(place.type, enabled=on_gpu)
    dataset = Pictures(pictures, run.crops, run.recipe.settings.input_px)
    # One long epoch: workers start once, and are at work to the end of what is timed.
    steps = run.warm_up + args.steps + 2 * args.workers + 1
    loader = DataLoader(
        dataset,
        args.batch,
        sampler=RandomSampler(dataset, num_samples=steps * args.batch),
        num_workers=args.workers,
        pin_memory=on_gpu,
    )
    for step, batch in enumerate(loader):
        if step == run.warm_up:
            began = time.perf_counter()
        if step == run.warm_up + args.steps:
            break
        rows, view_1, view_2 = (values.to(place, non_blocking=True) for values in batch)
        with torch.autocast(place.type, torch.float16, enabled=on_gpu):
            loss = usual_loss(method, method.features(backbone, view_1, view_2), rows)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        method.after_step(backbone, step, steps)
        loss.item()  # as a logger does
    return args.steps * args.batch / (time.perf_counter() - began)


def usual_loss(method: SelfSupervised, features: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Return the loss by solo-learn's function, also where the method has its own."""
    if isinstance(method, barlow_twins.Method):
        z1, z2 = map(method.projector, features)
        weight, scale = method.settings.lambda_off_diagonal, method.settings.loss_scale
        return barlow_loss_func(z1, z2, weight, scale)
    if isinstance(method, vicreg.Method):
        z1, z2 = map(method.projector, features)
        settings = method.settings
        weights = settings.invariance_weight, settings.variance_weight, settings.covariance_weight
        return vicreg_loss_func(z1, z2, *weights)
    return method.loss(features, rows, 1)


def build(run: Run, place: torch.device) -> tuple[nn.Module, SelfSupervised, SGD]:
    """Return the network, the method and the optimizer as a first epoch leaves them."""
    settings = run.recipe.settings
    with place:
        backbone = build_backbone(settings.architecture, len(CHANNELS))
        width = feature_width(backbone, imagenet_input(settings.input_px, len(CHANNELS)))
        method = METHODS[settings.method].Method(
            backbone, width, run.recipe.method_settings, run.crops
        )
        seen = 4 if isinstance(method, MomentumMethod) else 2
        with torch.no_grad():
            for rows in torch.arange(run.crops).split(settings.batch_size):
                method.loss(torch.randn(seen, len(rows), width), rows, 0)
        method.start_epoch(1)
    optimizer = SGD(
        [*backbone.parameters(), *method.parameters()],
        settings.learning_rate,
        settings.momentum,
        weight_decay=settings.weight_decay,
    )
    return backbone, method, optimizer


def limit(run: Run, place, rates: dict[torch.dtype, float], bandwidth: float) -> float:
    """Return the pairs per second of our step at the peaks."""
    settings = run.recipe.settings
    backbone, method, optimizer = build(run, place)
    backbone.to(memory_format=torch.channels_last)
    shape = settings.batch_size, len(CHANNELS), settings.input_px, settings.input_px
    view = torch.randn(shape, device=place).to(memory_format=torch.channels_last)
    rows = torch.arange(settings.batch_size, device=place)

    def step() -> None:  # as in `PretrainingRun.training_step`
        with torch.autocast(place.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            seen = method.features(backbone, view, view)
        loss = method.loss([features.float() for features in seen], rows, 1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(backbone, 0, 1)

    step()  # the optimizer's first makes its buffers
    with Roofline(rates, bandwidth) as roofline:
        step()
    return settings.batch_size / roofline.seconds


if __name__ == "__main__":
    main()
