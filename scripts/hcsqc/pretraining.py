"""Self-supervised pretraining of a backbone on unlabelled crops.

One loop, in order of execution: read crops, two random views, the method's loss, a step. It saves
itself at intervals, on SIGTERM or SIGUSR1 and at a deadline; the next call with the same settings
goes on where it stopped and, on a CPU, ends with the same weights bit for bit.
"""

import json
import math
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcsqc import __version__
from hcsqc.errors import InputError
from hcsqc.files import atomic
from hcsqc.methods import METHODS
from hcsqc.methods.base import SelfSupervised
from hcsqc.models import (
    InputSpec,
    build_backbone,
    feature_width,
    imagenet_input,
)
from hcsqc.parallel import in_order
from hcsqc.progress import Progress
from hcsqc.shards import shuffled_order
from hcsqc.views import ViewSettings, two_views

# Feature spread (see `feature_spread`) below which a backbone tells no crop from another.
# An untrained ResNet18 is at about 0.5 on made cells, features of one crop repeated at 0.
COLLAPSED_BELOW = 0.01
LOGGED_STEPS = 1000  # about as many points has a curve, however long the run
# With the paper's 10 million pairs on a GPU one thread could not make views fast enough.
THREADS_ON_GPU = 8


class CropSource(Protocol):
    """The training set. `read` is called from several threads at once."""

    @property
    def channels(self) -> int:
        """Number of channels of the composites."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the composite crops at `rows`: uint8, n x channels x H x H."""
        ...


@dataclass(frozen=True)
class PretrainingSettings:
    """What to train and how; the method's own settings are apart."""

    architecture: str
    method: str  # a key of METHODS
    input_px: int
    epochs: int
    warmup_epochs: int
    batch_size: int
    optimizer: str  # sgd or lars
    learning_rate: float
    momentum: float
    weight_decay: float
    precision: str  # float32 or bfloat16
    checkpoint_every_steps: int

    def __post_init__(self):
        for name, known in (
            ("method", tuple(METHODS)),
            ("optimizer", ("sgd", "lars")),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is '{getattr(self, name)}', expected {', '.join(known)}")
        if not 0 <= self.warmup_epochs <= self.epochs or self.epochs < 1:
            raise InputError(
                f"{self.warmup_epochs} warm-up epochs of {self.epochs}, "
                "expected at least one epoch and no more warm-up than that"
            )
        if self.batch_size < 2 or self.checkpoint_every_steps < 1:
            raise InputError(
                f"batch_size {self.batch_size} and checkpoint_every_steps "
                f"{self.checkpoint_every_steps}, expected at least 2 and 1"
            )


@dataclass(frozen=True)
class PretrainingResult:
    """A trained backbone and the record of its training."""

    backbone: nn.Module  # in eval mode, on the CPU
    input_spec: InputSpec
    curves: list[dict[str, float]]  # step, epoch, loss, learning_rate, feature_std, pairs_per_s
    steps: int
    seconds: float  # of all calls that it took
    device: str
    stall_share: float  # of the seconds, spent waiting for crops and views
    collapsed: bool  # the last feature_std is below COLLAPSED_BELOW


class OutOfTime(Exception):
    """The deadline has passed; all is saved, and the next call goes on from there."""


def pretrain(
    source: CropSource,
    settings: PretrainingSettings,
    views: ViewSettings,
    method_settings: object,
    seed: int,
    checkpoint_folder: str | Path,
    label: str,
    device: str = "auto",
    deadline_s: float | None = None,
) -> PretrainingResult:
    """Pretrain a backbone on the crops of `source` and return it with its curves.

    `method_settings` is the `Settings` of the method's module; `label` begins progress lines and
    messages; `device` is auto (a GPU if there is one), cpu or cuda. Checkpoints lie in
    `checkpoint_folder`, the last two of them, also after the end: whoever has stored the result
    removes the folder.
    Raises OutOfTime after saving once `deadline_s` seconds have passed, SystemExit after saving
    on SIGTERM or SIGUSR1, InputError on too few crops, unusable settings or a non-finite loss.
    """
    began = time.monotonic()
    steps_per_epoch = len(source) // settings.batch_size
    if steps_per_epoch == 0:
        raise InputError(
            f"{label}: {len(source)} crops are fewer than one batch of {settings.batch_size}; "
            "lower batch_size or pretrain on more crops"
        )
    total = settings.epochs * steps_per_epoch
    warmup = settings.warmup_epochs * steps_per_epoch
    log_every = max(1, total // LOGGED_STEPS)
    place = _device(device)
    input_spec = imagenet_input(settings.input_px, source.channels)

    torch.manual_seed(seed)
    backbone = build_backbone(settings.architecture, source.channels)
    width = feature_width(backbone, input_spec)
    method: SelfSupervised = METHODS[settings.method].Method(width, method_settings, len(source))
    backbone.to(place, memory_format=torch.channels_last).train()
    method.to(place).train()
    optimizer = _optimizer(settings, [*backbone.parameters(), *method.parameters()])

    identity = _identity(settings, views, method_settings, seed, source)
    checkpoints = Checkpoints(Path(checkpoint_folder), identity, label)
    state = checkpoints.load(place)
    step, curves, seconds_before, stalled = 0, [], 0.0, 0.0
    if state is not None:
        backbone.load_state_dict(state["backbone"])
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        _set_random_state(state["random"], place)
        step, curves = state["step"], state["curves"]
        seconds_before, stalled = state["seconds"], state["stalled"]
        print(f"{label}: resumes at step {step} of {total}", file=sys.stderr, flush=True)

    def seconds() -> float:
        return seconds_before + time.monotonic() - began

    def save() -> None:
        checkpoints.save(
            {
                "backbone": backbone.state_dict(),
                "method": method.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": _random_state(place),
                "step": step,
                "curves": curves,
                "seconds": seconds(),
                "stalled": stalled,
            }
        )

    @lru_cache(maxsize=2)
    def shuffled(epoch: int) -> np.ndarray:
        return shuffled_order(len(source), seed, epoch)

    def prepare(step: int) -> tuple[Tensor, Tensor, Tensor]:
        epoch, batch = divmod(step, steps_per_epoch)
        start = batch * settings.batch_size
        rows = shuffled(epoch)[start : start + settings.batch_size]
        # The leading 1 keeps these streams apart from the shuffles', which have a 0.
        rng = np.random.default_rng((1, seed, epoch, step))
        view_1, view_2 = two_views(source.read(rows), views, input_spec, rng, place)
        return torch.from_numpy(rows).to(place), view_1, view_2

    threads = THREADS_ON_GPU if place.type == "cuda" else 1
    progress = Progress(
        total * settings.batch_size, "pairs", label, start=step * settings.batch_size
    )
    spread = curves[-1]["feature_std"] if curves else math.nan
    logged_step, logged_at = step, time.monotonic()
    with (
        _deterministic_on_cpu(place),
        _stop_signal() as stop,
        closing(in_order(prepare, range(step, total), threads, threads)) as batches,
    ):
        while step < total:
            epoch = step // steps_per_epoch
            if step % steps_per_epoch == 0:
                method.start_epoch(epoch)
            waiting = time.monotonic()
            rows, view_1, view_2 = next(batches)
            stalled += time.monotonic() - waiting

            learning_rate = learning_rate_at(step, total, warmup, settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            with torch.autocast(
                place.type, torch.bfloat16, enabled=settings.precision == "bfloat16"
            ):
                # Each view by itself: BatchNorm's statistics are those of one view.
                features_1, features_2 = backbone(view_1), backbone(view_2)
            features_1, features_2 = features_1.float(), features_2.float()
            loss = method.loss(features_1, features_2, rows, epoch)
            loss_value = loss.item()
            if not math.isfinite(loss_value):
                raise InputError(
                    f"{label}: the loss is {loss_value} at step {step} of {total}, learning rate "
                    f"{learning_rate:g}; lower learning_rate or lengthen warmup_epochs"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

            if step % log_every == 0 or step == total - 1:
                spread = feature_spread(features_1.detach())
                now = time.monotonic()
                pairs = (step + 1 - logged_step) * settings.batch_size
                curves.append(
                    {
                        "step": step,
                        "epoch": epoch,
                        "loss": loss_value,
                        "learning_rate": learning_rate,
                        "feature_std": spread,
                        "pairs_per_s": pairs / (now - logged_at),
                    }
                )
                logged_step, logged_at = step + 1, now
            step += 1
            progress.update(settings.batch_size, loss=loss_value, lr=learning_rate, spread=spread)

            late = deadline_s is not None and time.monotonic() - began > deadline_s
            interrupted = stop.number is not None or (late and step < total)
            if interrupted or step == total or step % settings.checkpoint_every_steps == 0:
                save()
            if stop.number is not None:
                raise SystemExit(128 + stop.number)
            if interrupted:
                raise OutOfTime(
                    f"{label}: {deadline_s:g} s have passed at step {step} of {total}; "
                    "all is saved, and the next start resumes here"
                )
    progress.close(spread=spread)

    collapsed = spread < COLLAPSED_BELOW
    if collapsed:
        print(
            f"WARNING {label}: collapsed, all crops have nearly the same features "
            f"(spread {spread:.2g}, below {COLLAPSED_BELOW})",
            file=sys.stderr,
            flush=True,
        )
    return PretrainingResult(
        backbone=backbone.to("cpu", memory_format=torch.contiguous_format).eval(),
        input_spec=input_spec,
        curves=curves,
        steps=total,
        seconds=seconds(),
        device=_device_name(place),
        stall_share=stalled / seconds(),
        collapsed=collapsed,
    )


def learning_rate_at(step: int, total: int, warmup: int, base: float) -> float:
    """Return the learning rate of a step (from 0).

    base * (step + 1) / warmup during the first `warmup` steps, then
    base * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2, which ends at 0.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    return base * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def feature_spread(features: Tensor) -> float:
    """Return how far apart features (n x width) point: 0 all the same way, 1 all ways evenly.

    The standard deviation over the batch of the L2-normalised features, averaged over the width,
    times the square root of the width.
    """
    directions = F.normalize(features.float(), dim=1)
    return float(directions.std(dim=0).mean() * math.sqrt(features.shape[1]))


class Checkpoints:
    """The last two checkpoints of a run, in a folder of their own.

    `identity` tells what run they belong to; those of another run are removed, not resumed.
    """

    def __init__(self, folder: Path, identity: dict[str, object], label: str):
        self.folder, self.identity, self.label = folder, identity, label

    def save(self, state: dict[str, object]) -> None:
        """Write the state under its step, and remove all but the last two."""
        with atomic(self.folder / f"step{state['step']:09d}.pt") as temporary:
            torch.save({**state, "identity": json.dumps(self.identity)}, temporary)
        for old in self._paths()[:-2]:
            old.unlink()

    def load(self, place: torch.device) -> dict[str, object] | None:
        """Return the newest readable state of this run, or None."""
        for path in reversed(self._paths()):
            try:
                state = torch.load(path, map_location=place, weights_only=True)
                identity = json.loads(state.pop("identity"))
            except Exception as error:
                self._warn(f"{path} cannot be read ({error}); the one before it is tried")
                path.unlink()
                continue
            differing = [key for key in self.identity if identity.get(key) != self.identity[key]]
            if not differing:
                return state
            self._warn(f"{path} is of another run ({', '.join(differing)} differ); starts afresh")
            for other in self._paths():
                other.unlink()
            return None
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step*.pt"))

    def _warn(self, text: str) -> None:
        print(f"WARNING {self.label}: checkpoint {text}", file=sys.stderr, flush=True)


def _identity(
    settings: PretrainingSettings,
    views: ViewSettings,
    method_settings: object,
    seed: int,
    source: CropSource,
) -> dict[str, object]:
    """Return all that decides the course of a run."""
    training = asdict(settings)
    del training["checkpoint_every_steps"]
    return {
        **training,
        "views": asdict(views),
        "method_settings": asdict(method_settings),
        "seed": seed,
        "crops": len(source),
        "channels": source.channels,
        "hcsqc": __version__,
    }


def _optimizer(settings: PretrainingSettings, parameters: list[nn.Parameter]):
    """Return SGD, or LARS as in solo-learn, which neither adapts nor decays 1-d parameters."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    options = {"lr": settings.learning_rate, "momentum": settings.momentum}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(trained, weight_decay=settings.weight_decay, **options)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    # Here, not above: hcsqc.models must have mended timm's import first.
    from timm.optim import Lars

    return Lars(groups, trust_coeff=0.02, trust_clip=True, **options)


@dataclass
class _Stop:
    number: int | None = None


@contextmanager
def _stop_signal() -> Iterator[_Stop]:
    """Note SIGTERM and SIGUSR1 instead of dying of them; only the main thread can."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number, _frame):
        stop.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _deterministic_on_cpu(place: torch.device) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(place.type == "cpu" or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _random_state(place: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if place.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(place)
    return state


def _set_random_state(state: dict[str, Tensor], place: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if place.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), place)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise InputError(f"device is '{name}', expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch finds no GPU; use auto or cpu")
    return torch.device(name)


def _device_name(place: torch.device) -> str:
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
