"""Fits or splits per second of the probes, against scikit-learn's and PyTorch's plain loops.

Features are made: two Gaussian classes, in 20 draws of training and test crops. Frozen probes run
in one thread, as their rule does, and all rows but the last are per draw of --train-crops labels.

- linear_paper: all draws side by side, against a loop of `nn.Linear`, `torch.optim.SGD` and
  `MultiStepLR` from the same start and batches.
- logistic: `fit_logistic` against scikit-learn's LogisticRegression with its default solver, to
  the same tolerance, for the same penalties and folds, on the features as wide as they are.
- knn: the draws of one job, which share their distances, against a KNeighborsClassifier per draw.
- fine-tuning: `finetune` of a ResNet18, against an eager loop on NCHW images, on --threads.

Quality is the largest difference of the scores.
"""

import copy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from benchmarks import common
from hcsqc.encoders.store import Encoder, random_encoder
from hcsqc.encoders.views import normalise
from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.finetune import FinetuneSettings, finetune, finetuned_scores
from hcsqc.probes.frozen.knn import KnnDraw, KnnSettings, knn_scores_by_draw
from hcsqc.probes.frozen.linear import _initial_layers, linear_scores
from hcsqc.probes.frozen.logistic import TOLERANCE, LogisticSettings, fit_logistic
from hcsqc.probes.sgd import SgdSettings

ROOT = Path(__file__).resolve().parent.parent

DRAWS = 20
APART = 0.1  # standard deviations between the means of the classes, in each feature
WELLS = 64
KNN = KnnSettings(5, "euclidean")
LOGISTIC = LogisticSettings(tuple(10.0**power for power in range(-5, 3)), 5)
TUNING = FinetuneSettings(2, 32, 0.001, 0.9, 0.0, (1,), 0.1, "train", 0)
TUNED_CROPS = 96
TUNED_PX = 64
TUNED_BATCH = 64  # of the crops that are scored


def main() -> None:
    """Read the flags, make features, and run each probe both ways."""
    parser = common.parser(__doc__)
    works = ("linear_paper", "logistic", "knn", "fine-tuning")
    parser.add_argument("--work", nargs="+", choices=works, default=works)
    parser.add_argument("--width", type=int, default=512, help="of the features: 512, 1280, ...")
    parser.add_argument("--train-crops", type=int, default=350)
    parser.add_argument("--test-crops", type=int, default=130, help="of the same labels")
    parser.add_argument("--shift-crops", type=int, default=400, help="tested in every draw")
    parser.add_argument("--threads", type=int, default=1, help="of fine-tuning")
    args = parser.parse_args()
    study = made(args.width, args.train_crops, args.test_crops, args.shift_crops)
    ways = {"linear_paper": linear_row, "logistic": logistic_row, "knn": knn_row}
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [ways[work](study, args.rounds) for work in args.work if work in ways]
    if "fine-tuning" in args.work:
        torch.set_num_threads(args.threads)
        rows.append(finetune_row(args.rounds))
    common.report(rows, args.json)


class Study(NamedTuple):
    """Features, crops x width, and rows of them to train and to test on, draw by draw."""

    features: np.ndarray
    draws: list[KnnDraw]
    wells: np.ndarray

    def matrices(self) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Return the training features, targets and test features of all draws."""
        train = [self.features[draw.train] for draw in self.draws]
        test = [self.features[draw.test] for draw in self.draws]
        return train, [draw.targets for draw in self.draws], test


def made(width: int, train: int, test: int, shift: int) -> Study:
    """Return two Gaussian classes; each draw divides the labels anew and tests on all of shift."""
    rng = np.random.default_rng(0)
    labelled = train + test
    targets = np.arange(labelled + shift) % 2
    features = rng.standard_normal((labelled + shift, width), dtype=np.float32)
    features += APART * targets[:, None].astype(np.float32)
    orders = [rng.permutation(labelled) for _ in range(DRAWS)]
    draws = [
        KnnDraw(
            order[:train],
            targets[order[:train]],
            np.concatenate([order[train:], np.arange(labelled, labelled + shift)]),
        )
        for order in orders
    ]
    return Study(features, draws, rng.integers(0, WELLS, labelled).astype(str))


def linear_row(study: Study, rounds: int) -> dict:
    """Compare the paper's linear probe: all draws with one plain loop."""
    preset = yaml.safe_load((ROOT / "config.yaml").read_text())["probes"]["linear_paper"]
    names = SgdSettings.__dataclass_fields__
    settings = SgdSettings(**{name: preset.get(name, 0.0) for name in names})
    train, targets, test = study.matrices()

    def ours() -> list[np.ndarray]:
        rngs = [np.random.default_rng(draw) for draw in range(DRAWS)]
        return linear_scores(train, targets, test, settings, rngs)

    def usual() -> np.ndarray:
        rng = np.random.default_rng(0)
        return usual_linear(train[0], targets[0], test[0], settings, rng)

    times = common.seconds({"baseline": usual, "ours": ours}, rounds)
    per_s = {"baseline": 1 / times["baseline"], "ours": DRAWS / times["ours"]}
    return common.row("linear_paper", "fits/s", per_s, difference([ours()[0]], [usual()]))


def usual_linear(train, targets, test, settings: SgdSettings, rng) -> np.ndarray:
    """Return the scores of PyTorch's layer, optimizer and schedule, as one writes them."""
    layer = nn.Linear(train.shape[1], 2)
    weight, bias = _initial_layers(train.shape[1], [rng])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight[0].T))
        layer.bias.copy_(torch.from_numpy(bias[0, 0]))
    optimizer = torch.optim.SGD(
        layer.parameters(),
        settings.learning_rate,
        settings.momentum,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(settings.milestones), settings.gamma
    )
    x, y = torch.from_numpy(train), torch.from_numpy(targets)
    for _ in range(settings.epochs):
        order = torch.from_numpy(rng.permutation(len(x)))
        for rows in order.split(settings.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        return layer(torch.from_numpy(test)).softmax(dim=1)[:, 1].numpy()


def logistic_row(study: Study, rounds: int) -> dict:
    """Compare the search for a penalty and the fit with it, on one draw."""
    draw = study.draws[0]
    train, test = study.features[draw.train], study.features[draw.test]
    wells = study.wells[draw.train]

    def ours() -> np.ndarray:
        return fit_logistic(train, draw.targets, wells, LOGISTIC, 0).scores(test)

    usual = partial(usual_logistic, train, draw.targets, wells, test)
    times = common.seconds({"baseline": usual, "ours": ours}, rounds)
    per_s = {way: 1 / taken for way, taken in times.items()}
    return common.row("logistic", "fits/s", per_s, difference([ours()], [usual()]))


def usual_logistic(train, targets, wells, test) -> np.ndarray:
    """Return the scores of a loop over folds and penalties."""

    def fitted(penalty: float, rows=slice(None)):
        model = LogisticRegression(C=penalty, tol=TOLERANCE, max_iter=100_000)
        return make_pipeline(StandardScaler(), model).fit(train[rows], targets[rows])

    losses = {}
    folds = grouped_folds(targets, wells, LOGISTIC.folds, 0)
    for penalty in LOGISTIC.penalties:
        lost = [
            log_loss(
                targets[held], fitted(penalty, fit).predict_proba(train[held]), normalize=False
            )
            for fit, held in folds
        ]
        losses[penalty] = sum(lost)
    return fitted(min(losses, key=losses.get)).predict_proba(test)[:, 1]


def knn_row(study: Study, rounds: int) -> dict:
    """Compare the nearest neighbours of all draws."""

    def usual() -> list[np.ndarray]:
        scores = []
        for draw in study.draws:
            model = KNeighborsClassifier(KNN.neighbours, metric=KNN.metric, algorithm="brute")
            model.fit(study.features[draw.train], draw.targets)
            scores.append(model.predict_proba(study.features[draw.test])[:, 1])
        return scores

    ours = partial(knn_scores_by_draw, study.features, study.draws, KNN)
    times = common.seconds({"baseline": usual, "ours": ours}, rounds)
    per_s = {way: DRAWS / taken for way, taken in times.items()}
    return common.row("knn", "splits/s", per_s, difference(ours(), usual()))


def finetune_row(rounds: int) -> dict:
    """Compare a short fine-tuning and the scores of as many crops again."""
    encoder = random_encoder("resnet18", TUNED_PX, 3, seed=0)
    rng = np.random.default_rng(0)
    targets = np.arange(2 * TUNED_CROPS) % 2
    level = 90 + 60 * targets[:, None, None, None]
    crops = (level + rng.integers(-60, 60, (len(targets), 3, TUNED_PX, TUNED_PX))).astype(np.uint8)
    train, test = crops[:TUNED_CROPS], crops[TUNED_CROPS:]
    targets = targets[:TUNED_CROPS]

    def ours() -> np.ndarray:
        network = finetune(encoder, train, targets, TUNING, (0, 0), lambda count, loss: None)
        return finetuned_scores(network, encoder, test, TUNED_BATCH)

    usual = partial(usual_finetuning, encoder, train, targets, test)
    times = common.seconds({"baseline": usual, "ours": ours}, rounds)
    per_s = {way: 1 / taken for way, taken in times.items()}
    return common.row("fine-tuning", "fits/s", per_s, difference([ours()], [usual()]))


def usual_finetuning(encoder: Encoder, train, targets, test) -> np.ndarray:
    """Return the scores of an eager loop on NCHW images, from the same start and batches."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng((0, 0))
    torch.manual_seed(int(rng.integers(2**31)))
    network = nn.Sequential(copy.deepcopy(encoder.backbone), nn.Linear(encoder.width, 2))
    network = network.to(device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        TUNING.learning_rate,
        TUNING.momentum,
        weight_decay=TUNING.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(TUNING.milestones), TUNING.gamma
    )
    for _ in range(TUNING.epochs):
        order = rng.permutation(len(train))
        for start in range(0, len(train), TUNING.batch_size):
            rows = order[start : start + TUNING.batch_size]
            images = normalise(train[rows], encoder.input_spec).contiguous().to(device)
            loss = nn.functional.cross_entropy(
                network(images), torch.from_numpy(targets[rows]).to(device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    network.eval()
    scores = []
    with torch.inference_mode():
        for start in range(0, len(test), TUNED_BATCH):
            images = normalise(test[start : start + TUNED_BATCH], encoder.input_spec)
            logits = network(images.contiguous().to(device))
            scores.append(logits.softmax(dim=1)[:, 1].cpu().numpy())
    return np.concatenate(scores)


def difference(ours: list[np.ndarray], usual: list[np.ndarray]) -> str:
    """Return the largest difference of scores, draw by draw."""
    largest = max(np.abs(a - b).max() for a, b in zip(ours, usual, strict=True))
    return f"scores differ by {largest:.1g}"


if __name__ == "__main__":
    main()
