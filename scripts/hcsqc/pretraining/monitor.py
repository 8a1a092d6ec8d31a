"""What is measured and said of a pretraining on the way."""

import math
import sys
import time

from torch import Tensor

from hcsqc.core.devices import peak_memory_gb
from hcsqc.core.errors import InputError
from hcsqc.pretraining.collapse import feature_rank, feature_spread
from hcsqc.pretraining.run import PretrainingRun


class Diverged(InputError):
    """The loss or the features are no longer finite."""


class Throughput:
    """Pairs per second since they were last asked for."""

    def __init__(self, run: PretrainingRun):
        self.run = run
        self.step, self.time = run.step, time.monotonic()

    def pairs_per_s(self) -> float:
        """Return the rate of the steps since the last call."""
        now = time.monotonic()
        pairs = (self.run.step - self.step) * self.run.recipe.settings.batch_size
        rate = pairs / (now - self.time)
        self.step, self.time = self.run.step, now
        return rate


def curve_point(
    run: PretrainingRun, loss: Tensor, features: Tensor, throughput: Throughput
) -> dict[str, float]:
    """Return the point of the curves for the step just taken; `features` are n x width."""
    return {
        "step": run.step - 1,
        "epoch": (run.step - 1) // run.steps_per_epoch,
        "loss": loss.item(),
        "learning_rate": run.learning_rate,
        "feature_std": feature_spread(features),
        "feature_rank": feature_rank(features),
        "pairs_per_s": throughput.pairs_per_s(),
        "memory_gb": peak_memory_gb(run.device),
    }


def check_finite(run: PretrainingRun, loss: Tensor) -> None:
    """Raise Diverged if the loss is not a finite number."""
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(
            f"{run.label}: the loss is {value} by step {run.step} of {run.total_steps}, learning "
            f"rate {run.learning_rate:g}; lower learning_rate or lengthen warmup_epochs"
        )


def warn_of_collapse(label: str, when: str, spread: float, rank: float) -> None:
    """Print that features of this spread and rank hardly differ."""
    log(
        label,
        f"WARNING collapsed {when}: all crops have nearly the same features (spread {spread:.2g}, "
        f"rank {rank:.3g}); lower learning_rate, or try another method or batch_size",
    )


def log(label: str, text: str) -> None:
    """Print a line to the log at once."""
    print(f"{label}: {text}", file=sys.stderr, flush=True)
