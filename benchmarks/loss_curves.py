"""Whether speed costs accuracy: the loss of 200 steps, ours against plain float32.

Plain is a loop of a dozen lines: the same first weights, batches and views, but tensors in NCHW
order and no autocast. Ours is `pretrain`, in each precision asked for; a CPU without instructions
for bfloat16 takes 20 times as long in it. What another seed does to plain is the noise to compare
with.
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks import common
from benchmarks.pretrain import Crops, Run, run_of
from benchmarks.shards import CHANNELS, write_crops
from hcsqc.core.devices import choose_device
from hcsqc.crops.shards import shuffled_order
from hcsqc.encoders.models import build_backbone, feature_width, imagenet_input
from hcsqc.encoders.views import two_views
from hcsqc.pretraining import loop as pretraining
from hcsqc.pretraining.loop import pretrain
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.optimizers import learning_rate_at
from hcsqc.report.tables import PAPER_METHODS

STEPS, EPOCHS = 200, 4
SMOOTHED = 10  # steps, for the comparison
PLAIN, NOISE = "plain float32", "plain float32, another seed"


def main() -> None:
    """Read the flags, train each way, print how far apart the losses are, draw them."""
    parser = common.parser(__doc__, rounds=False)
    parser.add_argument("--methods", nargs="+", choices=PAPER_METHODS, default=list(PAPER_METHODS))
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="float32 bfloat16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--input-px", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    parser.add_argument("--figure", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pretraining.LOGGED_STEPS = STEPS
    args.steps = 1
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        shards, _, _ = write_crops(Path(folder), max(512, STEPS // EPOCHS * args.batch))
        crops = Crops(shards, STEPS // EPOCHS * args.batch)
        for method in args.methods:
            run = run_of(method, args, "float32")
            run = run.with_settings(epochs=EPOCHS)
            fast = {f"ours {kind}": ours(crops, run, kind) for kind in args.precisions}
            curves[method] = {PLAIN: plain(crops, run, 0), **fast, NOISE: plain(crops, run, 1)}
    common.report([apart(method, losses) for method, losses in curves.items()], args.json)
    draw(curves, args.figure)


def ours(crops: Crops, run: Run, precision: str) -> np.ndarray:
    """Return the loss of each step of `pretrain`."""
    recipe = run.with_settings(precision=precision).recipe
    with tempfile.TemporaryDirectory() as folder:
        result = pretrain(crops, recipe, folder, recipe.settings.method)
    return np.array([point["loss"] for point in result.curves])


def plain(crops: Crops, run: Run, seed: int) -> np.ndarray:
    """Return the loss of each step of a loop without anything for speed."""
    settings, place = run.recipe.settings, choose_device("auto")
    spec = imagenet_input(settings.input_px, len(CHANNELS))
    torch.manual_seed(seed)
    backbone = build_backbone(settings.architecture, len(CHANNELS))
    width = feature_width(backbone, spec)
    method = METHODS[settings.method].Method(
        backbone, width, run.recipe.method_settings, len(crops)
    )
    method.to(place).train()
    backbone.to(place).train()
    optimizer = torch.optim.SGD(
        [*backbone.parameters(), *method.parameters()],
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    epoch_steps, losses = STEPS // EPOCHS, []
    for step in range(STEPS):
        epoch, batch = divmod(step, epoch_steps)
        if batch == 0:
            method.start_epoch(epoch)
        rows = np.split(shuffled_order(len(crops), seed, epoch), epoch_steps)[batch]
        rng = np.random.default_rng((1, seed, epoch, step))
        views = [
            view.contiguous().to(place)
            for view in two_views(crops.read(rows), run.recipe.views, spec, rng)
        ]
        warmup = settings.warmup_epochs * epoch_steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, STEPS, warmup, settings.peak_rate)
        features = method.features(backbone, *views)
        loss = method.loss(features, torch.from_numpy(rows).to(place), epoch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def apart(method: str, losses: dict[str, np.ndarray]) -> dict:
    """Return how far smoothed losses are from plain ones, on average over the steps."""
    smooth = {
        way: np.convolve(values, np.ones(SMOOTHED) / SMOOTHED, "valid")
        for way, values in losses.items()
    }
    base = smooth.pop(PLAIN)
    return {"method": method, f"mean loss, {PLAIN}": base.mean()} | {
        f"mean difference, {way}": np.abs(values - base).mean() for way, values in smooth.items()
    }


def draw(curves: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Draw the losses, a panel per method."""
    figure, axes = plt.subplots(
        1, len(curves), figsize=(3.2 * len(curves), 3.4), squeeze=False, layout="constrained"
    )
    for axis, (method, losses) in zip(axes[0], curves.items(), strict=True):
        for way, values in losses.items():
            style = (
                {"color": "0.75"} if way == NOISE else {"linestyle": "-" if way == PLAIN else "--"}
            )
            axis.plot(values, label=way, linewidth=1.2, **style)
        axis.set_title(method)
        axis.set_xlabel("step")
    axes[0][0].set_ylabel("loss")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
