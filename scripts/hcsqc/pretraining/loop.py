"""Self-supervised pretraining of a backbone on unlabelled crops.

One loop, in order of execution: read crops, two random views, the method's loss, a step. It saves
itself at intervals, on SIGTERM or SIGUSR1 and at a deadline; the next call with the same settings
continues where it stopped and, on a CPU, ends with the same weights bit for bit.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hcsqc.core.devices import deterministic_on_cpu, peak_memory_gb
from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress
from hcsqc.encoders.models import InputSpec
from hcsqc.pretraining.batches import CropSource
from hcsqc.pretraining.checkpoints import Checkpoints
from hcsqc.pretraining.collapse import is_collapsed
from hcsqc.pretraining.monitor import Throughput, check_finite, curve_point, log, warn_of_collapse
from hcsqc.pretraining.result import PretrainingResult, evaluate
from hcsqc.pretraining.run import PretrainingRun
from hcsqc.pretraining.settings import Recipe
from hcsqc.pretraining.stop_signal import stop_signal

LOGGED_STEPS = 1000  # about as many points has a curve, however long the run


class OutOfTime(Exception):
    """The deadline has passed; all is saved, and the next call goes on from there."""


@dataclass(frozen=True)
class Callbacks:
    """What is called on the way.

    `on_epoch` is given the epochs done, the backbone and its input at each of the settings'
    `snapshot_epochs`, perhaps again after a resume; an InputError of it is a warning. `on_point`
    is given each new point of the curves, and must not wait.
    """

    on_epoch: Callable[[int, nn.Module, InputSpec], None] = lambda *_: None
    on_point: Callable[[Mapping[str, float]], None] = lambda _: None


NO_CALLBACKS = Callbacks()


def pretrain(
    source: CropSource,
    recipe: Recipe,
    checkpoint_folder: str | Path,
    label: str,
    device: str = "auto",
    deadline_s: float | None = None,
    callbacks: Callbacks = NO_CALLBACKS,
    trained_on: Mapping[str, object] | None = None,
) -> PretrainingResult:
    """Pretrain a backbone on the crops of `source` and return it with its curves.

    `label` begins progress lines and messages; `device` is auto (a GPU if there is one), cpu or
    cuda. `trained_on` is what else, of crops and code, decides the course of the run, as plain
    values: a checkpoint with another is not resumed.
    A curve's point has step, epoch, loss, learning_rate, feature_std and feature_rank of
    the first views of the batch, pairs_per_s and memory_gb.
    Checkpoints lie in `checkpoint_folder`, the last two of them. After the end the last is left,
    and the next call returns the same at once: whoever knows that the result is safe removes the
    folder. One that cannot be written is a warning, and tried again.
    Raises OutOfTime after saving once `deadline_s` seconds have passed, SystemExit after saving
    on SIGTERM or SIGUSR1, Diverged on a non-finite loss, InputError on too few crops or unusable
    settings, or if what it must save before it stops cannot be written.
    """
    run = PretrainingRun(source, recipe, label, device)
    identity = run.identity | dict(trained_on or {})
    checkpoints = Checkpoints(Path(checkpoint_folder), identity, label)
    resume(run, checkpoints)
    train(run, checkpoints, deadline_s, callbacks)
    result = evaluate(run)
    checkpoints.keep_last(run.total_steps)
    return result


def train(
    run: PretrainingRun, checkpoints: Checkpoints, deadline_s: float | None, callbacks: Callbacks
) -> None:
    """Take the steps that are left, and save on the way; raises what `pretrain` does."""
    settings = run.recipe.settings
    batch_size, total_steps = settings.batch_size, run.total_steps
    log_every = max(1, total_steps // LOGGED_STEPS)
    progress = Progress(total_steps * batch_size, "pairs", run.label, start=run.step * batch_size)
    throughput = Throughput(run)
    warned = False
    saved_at = time.monotonic()
    with (
        deterministic_on_cpu(run.device),
        stop_signal() as stop,
        closing(run.loader.load_ahead(range(run.step, total_steps))) as batches,
    ):
        if run.between_epochs:  # also if it was killed just before
            take_snapshot(run, callbacks)
        while run.step < total_steps:
            if run.between_epochs:
                run.method.start_epoch(run.epoch)
            waiting = time.monotonic()
            batch = next(batches)
            run.stalled += time.monotonic() - waiting

            loss, features = run.training_step(batch)

            late = deadline_s is not None and time.monotonic() - run.began > deadline_s
            signalled = stop.number  # once: a signal that comes later is seen at the next step
            interrupted = signalled is not None or (late and run.step < total_steps)
            due = time.monotonic() - saved_at >= 60 * settings.checkpoint_minutes
            saving = interrupted or run.step == total_steps or due
            logging = (run.step - 1) % log_every == 0 or run.step == total_steps
            # To read a loss waits for all that a GPU still has to do, so not at every step there.
            if run.device.type == "cpu" or logging or saving:
                check_finite(run, loss)
            if logging:
                run.curves.append(curve_point(run, loss, features, throughput))
                callbacks.on_point(run.curves[-1])
            # Before anything is printed: who signals a job may have ended what reads its output.
            if saving:
                save(run, checkpoints, required=interrupted)
                saved_at = time.monotonic()
            if signalled is not None:
                raise SystemExit(128 + signalled)
            if interrupted:
                raise OutOfTime(
                    f"{run.label}: {deadline_s:g} s passed at step {run.step} of "
                    f"{total_steps}; the state is saved, and the next start resumes here"
                )
            if logging and is_collapsed(run.feature_std, run.feature_rank) and not warned:
                when = f"at step {run.step} of {total_steps}"
                warn_of_collapse(run.label, when, run.feature_std, run.feature_rank)
                warned = True
            progress.update(
                batch_size,
                loss=loss.item,
                lr=run.learning_rate,
                spread=run.feature_std,
                rank=run.feature_rank,
                memory_gb=lambda: peak_memory_gb(run.device),
            )
            if run.between_epochs:
                take_snapshot(run, callbacks)
    progress.close(spread=run.feature_std, rank=run.feature_rank)


def resume(run: PretrainingRun, checkpoints: Checkpoints) -> None:
    """Go on from the newest checkpoint, if there is one, and say so."""
    state = checkpoints.load()
    if state is None:
        return
    run.load_state_dict(state)
    log(run.label, f"resumes at step {run.step} of {run.total_steps}")
    if state["hardware"] != run.hardware:
        before, now = (", ".join(each.values()) for each in (state["hardware"], run.hardware))
        log(
            run.label,
            f"WARNING it ran on {before}, now on {now}: the result will not be the same bit for "
            "bit",
        )


def save(run: PretrainingRun, checkpoints: Checkpoints, required: bool) -> None:
    """Write a checkpoint; one that cannot be written is a warning, or InputError if required."""
    try:
        checkpoints.save(run.state_dict())
    except OSError as error:
        problem = f"the checkpoint of step {run.step} cannot be written ({error})"
        if required:
            raise InputError(
                f"{run.label}: {problem}; make room in {checkpoints.folder} and start again, "
                "it resumes from the previous checkpoint"
            ) from error
        log(run.label, f"WARNING {problem}; training continues and will try again later")


def take_snapshot(run: PretrainingRun, callbacks: Callbacks) -> None:
    """Give the backbone to `on_epoch` if the settings keep a snapshot of it."""
    if run.epoch not in run.recipe.settings.snapshot_epochs:
        return
    try:
        callbacks.on_epoch(run.epoch, run.backbone, run.input_spec)
    except InputError as error:
        log(run.label, f"WARNING the encoder after epoch {run.epoch} cannot be stored: {error}")
