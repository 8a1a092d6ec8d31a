"""Self-supervised pretraining of a backbone on unlabelled crops.

One loop, in order of execution: read crops, two random views, the method's loss, a step. It saves
itself at intervals, on SIGTERM or SIGUSR1 and at a deadline; the next call with the same settings
goes on where it stopped and, on a CPU, ends with the same weights bit for bit.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hcsqc import __version__
from hcsqc.core.devices import (
    choose_device,
    deterministic_on_cpu,
    device_name,
    peak_memory_gb,
    precision_on,
)
from hcsqc.core.errors import InputError
from hcsqc.core.parallel import in_order
from hcsqc.core.progress import Progress
from hcsqc.crops.shards import shuffled_order
from hcsqc.encoders.models import InputSpec, build_backbone, feature_width, imagenet_input
from hcsqc.encoders.views import ViewSettings, normalise, two_views
from hcsqc.pretraining.checkpoints import Checkpoints, random_state, set_random_state
from hcsqc.pretraining.collapse import feature_rank, feature_spread, is_collapsed
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.methods.base import SelfSupervised
from hcsqc.pretraining.optimizers import build_optimizer, learning_rate_at

LOGGED_STEPS = 1000  # about as many points has a curve, however long the run
# With the paper's 10 million pairs on a GPU one thread could not read crops fast enough.
THREADS_ON_GPU = 8
# So many crops, the same whatever the method, tell whether the trained encoder has collapsed.
JUDGED_CROPS = 1024
# solo-learn's recipes state the rate for a batch of this size.
RATE_IS_PER_BATCH = 256


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
    learning_rate_scaled: bool  # true: times batch_size / 256
    warmup_start_rate: float  # learning rate that the warm-up begins at
    final_rate: float  # learning rate that the cosine ends at
    momentum: float
    weight_decay: float
    precision: str  # float32, bfloat16, or auto: bfloat16 where the hardware computes in it
    checkpoint_minutes: float  # 0: after every step
    snapshots: int  # encoders kept along the epochs

    def __post_init__(self):
        for name, known in (
            ("method", tuple(METHODS)),
            ("optimizer", ("sgd", "lars")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is '{getattr(self, name)}', expected {', '.join(known)}")
        if not 0 <= self.warmup_epochs <= self.epochs or self.epochs < 1:
            raise InputError(
                f"{self.warmup_epochs} warm-up epochs of {self.epochs}, "
                "expected at least one epoch and no more warm-up than that"
            )
        if self.batch_size < 2:
            raise InputError(f"batch_size is {self.batch_size}, expected at least 2")

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        if self.learning_rate_scaled:
            return self.learning_rate * self.batch_size / RATE_IS_PER_BATCH
        return self.learning_rate

    @property
    def snapshot_epochs(self) -> set[int]:
        """The epochs after which the encoder is kept, evenly apart; 0 is before the first."""
        kept = min(self.snapshots, self.epochs)
        return {round(self.epochs * part / kept) for part in range(kept + 1)} if kept else set()


@dataclass(frozen=True)
class PretrainingResult:
    """A trained backbone and the record of its training."""

    backbone: nn.Module  # in eval mode, on the CPU
    input_spec: InputSpec
    curves: list[dict[str, float]]  # a point per logged step: see `pretrain`
    steps: int
    seconds: float  # of all calls that it took
    device: str
    precision: str  # float32 or bfloat16
    stall_share: float  # of the seconds, spent waiting for crops and views
    gpu_memory_mb: float | None  # the most that was in use; None without a GPU
    feature_std: float  # see `feature_spread`; both of the trained encoder, in eval mode
    feature_rank: float
    collapsed: bool


class Diverged(InputError):
    """The loss or the features are no longer finite."""


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
    on_epoch: Callable[[int, nn.Module, InputSpec], None] = lambda *_: None,
    on_point: Callable[[Mapping[str, float]], None] = lambda _: None,
    trained_on: Mapping[str, object] | None = None,
) -> PretrainingResult:
    """Pretrain a backbone on the crops of `source` and return it with its curves.

    `method_settings` is the `Settings` of the method's module; `label` begins progress lines and
    messages; `device` is auto (a GPU if there is one), cpu or cuda. `on_epoch` is given the
    epochs done, the backbone and its input at each of `settings.snapshot_epochs`, perhaps again
    after a resume; an InputError of it is a warning. `on_point` is given each new point of the
    curves, and must not wait. `trained_on` is what else, of crops and code,
    decides the course of the run, as plain values: a checkpoint with another is not resumed.
    A curve's point has step, epoch, loss, learning_rate, feature_std and feature_rank of
    the first views of the batch, pairs_per_s and memory_gb.
    Checkpoints lie in `checkpoint_folder`, the last two of them, also after the end: whoever has
    stored the result removes the folder. One that cannot be written is a warning, and tried again.
    Raises OutOfTime after saving once `deadline_s` seconds have passed, SystemExit after saving
    on SIGTERM or SIGUSR1, Diverged on a non-finite loss, InputError on too few crops or unusable
    settings, or if what it must save before it stops cannot be written.
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
    place = choose_device(device)
    precision = precision_on(place, settings.precision)
    input_spec = imagenet_input(settings.input_px, source.channels)

    torch.manual_seed(seed)
    backbone = build_backbone(settings.architecture, source.channels, settings.input_px)
    width = feature_width(backbone, input_spec)
    method: SelfSupervised = METHODS[settings.method].Method(width, method_settings, len(source))
    backbone.to(place, memory_format=torch.channels_last).train()
    method.to(place).train()
    optimizer = build_optimizer(
        settings.optimizer,
        [*backbone.parameters(), *method.parameters()],
        settings.momentum,
        settings.weight_decay,
    )

    identity = _identity(settings, views, method_settings, seed, source) | dict(trained_on or {})
    hardware = {"device": device_name(place), "precision": precision}
    checkpoints = Checkpoints(Path(checkpoint_folder), identity, label)
    state = checkpoints.load()
    step, curves, seconds_before, stalled = 0, [], 0.0, 0.0
    if state is not None:
        backbone.load_state_dict(state["backbone"])
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"], place)
        step, curves = state["step"], state["curves"]
        seconds_before, stalled = state["seconds"], state["stalled"]
        _say(label, f"resumes at step {step} of {total}")
        if state["hardware"] != hardware:
            before, now = (", ".join(each.values()) for each in (state["hardware"], hardware))
            _say(label, f"WARNING it ran on {before}, now on {now}: not the same bit for bit")

    def seconds() -> float:
        return seconds_before + time.monotonic() - began

    def save(required: bool) -> None:
        state = {
            "backbone": backbone.state_dict(),
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": random_state(place),
            "hardware": hardware,
            "step": step,
            "curves": curves,
            "seconds": seconds(),
            "stalled": stalled,
        }
        try:
            checkpoints.save(state)
        except OSError as error:
            problem = f"the checkpoint of step {step} cannot be written ({error})"
            if required:
                raise InputError(
                    f"{label}: {problem}; make room in {checkpoint_folder} and start again, "
                    "it resumes from the checkpoint before"
                ) from error
            _say(label, f"WARNING {problem}; training goes on and tries again later")

    def hand_over(epochs_done: int) -> None:
        if epochs_done not in settings.snapshot_epochs:
            return
        try:
            on_epoch(epochs_done, backbone, input_spec)
        except InputError as error:
            _say(label, f"WARNING the encoder after epoch {epochs_done} is not kept: {error}")

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
    spread, rank = (
        curves[-1][key] if curves else math.nan for key in ("feature_std", "feature_rank")
    )
    warned = False
    logged_step, logged_at = step, time.monotonic()
    saved_at = time.monotonic()
    with (
        deterministic_on_cpu(place),
        _stop_signal() as stop,
        closing(in_order(prepare, range(step, total), threads, threads)) as batches,
    ):
        if step % steps_per_epoch == 0:  # also if it was killed just before
            hand_over(step // steps_per_epoch)
        while step < total:
            epoch = step // steps_per_epoch
            if step % steps_per_epoch == 0:
                method.start_epoch(epoch)
            waiting = time.monotonic()
            rows, view_1, view_2 = next(batches)
            stalled += time.monotonic() - waiting

            learning_rate = learning_rate_at(
                step,
                total,
                warmup,
                settings.peak_rate,
                settings.warmup_start_rate,
                settings.final_rate,
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
                # Each view by itself: BatchNorm's statistics are those of one view.
                features_1, features_2 = backbone(view_1), backbone(view_2)
            features_1, features_2 = features_1.float(), features_2.float()
            loss = method.loss(features_1, features_2, rows, epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

            step += 1
            late = deadline_s is not None and time.monotonic() - began > deadline_s
            interrupted = stop.number is not None or (late and step < total)
            due = time.monotonic() - saved_at >= 60 * settings.checkpoint_minutes
            saving = interrupted or step == total or due
            logging = (step - 1) % log_every == 0 or step == total
            # To read a loss waits for all that a GPU still has to do, so not at every step there.
            if place.type == "cpu" or logging or saving:
                _check_finite(loss.item(), label, step, total, learning_rate)
            if logging:
                spread = feature_spread(features_1.detach())
                rank = feature_rank(features_1.detach())
                now = time.monotonic()
                curves.append(
                    {
                        "step": step - 1,
                        "epoch": epoch,
                        "loss": loss.item(),
                        "learning_rate": learning_rate,
                        "feature_std": spread,
                        "feature_rank": rank,
                        "pairs_per_s": (step - logged_step)
                        * settings.batch_size
                        / (now - logged_at),
                        "memory_gb": peak_memory_gb(place),
                    }
                )
                on_point(curves[-1])
                logged_step, logged_at = step, now
            # Before anything is printed: who signals a job may have ended what reads its output.
            if saving:
                save(required=interrupted)
                saved_at = time.monotonic()
            if stop.number is not None:
                raise SystemExit(128 + stop.number)
            if interrupted:
                raise OutOfTime(
                    f"{label}: {deadline_s:g} s have passed at step {step} of {total}; "
                    "all is saved, and the next start resumes here"
                )
            if logging and is_collapsed(spread, rank) and not warned:
                _warn_of_collapse(label, f"at step {step} of {total}", spread, rank)
                warned = True
            progress.update(
                settings.batch_size,
                loss=loss.item,
                lr=learning_rate,
                spread=spread,
                rank=rank,
                memory_gb=lambda: peak_memory_gb(place),
            )
            if step % steps_per_epoch == 0:
                hand_over(epoch + 1)
    progress.close(spread=spread, rank=rank)

    features = _features(backbone.eval(), source, input_spec, settings.batch_size, place)
    if not features.isfinite().all():
        raise Diverged(
            f"{label}: the trained encoder's features are not finite numbers; lower learning_rate "
            "or lengthen warmup_epochs"
        )
    spread, rank = feature_spread(features), feature_rank(features)
    if is_collapsed(spread, rank):
        _warn_of_collapse(label, "at the end", spread, rank)
    return PretrainingResult(
        backbone=backbone.to("cpu", memory_format=torch.contiguous_format),
        input_spec=input_spec,
        curves=curves,
        steps=total,
        seconds=seconds(),
        device=device_name(place),
        precision=precision,
        stall_share=stalled / seconds(),
        gpu_memory_mb=1024 * peak_memory_gb(place) if place.type == "cuda" else None,
        feature_std=spread,
        feature_rank=rank,
        collapsed=is_collapsed(spread, rank),
    )


@torch.no_grad()
def _features(
    backbone: nn.Module, source: CropSource, input_spec: InputSpec, batch_size: int, place
) -> Tensor:
    """Return the features of some of the crops as they are, the same crops at each call."""
    rows = shuffled_order(len(source), 0, 0)[:JUDGED_CROPS]
    batches = np.array_split(rows, math.ceil(len(rows) / batch_size))
    return torch.cat(
        [backbone(normalise(source.read(batch), input_spec, place)).cpu() for batch in batches]
    )


def _check_finite(loss: float, label: str, step: int, total: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        raise Diverged(
            f"{label}: the loss is {loss} by step {step} of {total}, learning rate "
            f"{learning_rate:g}; lower learning_rate or lengthen warmup_epochs"
        )


def _warn_of_collapse(label: str, when: str, spread: float, rank: float) -> None:
    _say(
        label,
        f"WARNING collapsed {when}: all crops have nearly the same features (spread {spread:.2g}, "
        f"rank {rank:.3g}); lower learning_rate, or another method or batch_size may hold",
    )


def _say(label: str, text: str) -> None:
    print(f"{label}: {text}", file=sys.stderr, flush=True)


def _identity(
    settings: PretrainingSettings,
    views: ViewSettings,
    method_settings: object,
    seed: int,
    source: CropSource,
) -> dict[str, object]:
    """Return all that decides the course of a run."""
    training = asdict(settings)
    del training["checkpoint_minutes"]
    return {
        **training,
        "views": asdict(views),
        "method_settings": asdict(method_settings),
        "seed": seed,
        "crops": len(source),
        "channels": source.channels,
        "hcsqc": __version__,
    }


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
