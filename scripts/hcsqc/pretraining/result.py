"""What a pretraining gives: the encoder, evaluated, and the record of its training."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hcsqc.core.devices import device_name, peak_memory_gb
from hcsqc.crops.shards import shuffled_order
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.views import normalise
from hcsqc.pretraining.collapse import feature_rank, feature_spread, is_collapsed
from hcsqc.pretraining.monitor import Diverged, warn_of_collapse
from hcsqc.pretraining.run import PretrainingRun

# So many crops, the same whatever the method, tell whether the trained encoder has collapsed.
EVALUATION_CROPS = 1024


@dataclass(frozen=True)
class PretrainingResult:
    """A trained backbone and the record of its training."""

    backbone: nn.Module  # in eval mode, on the CPU
    input_spec: InputSpec
    curves: list[dict[str, float]]  # a point per logged step: see `pretrain`
    steps: int
    batch_size: int  # pairs of views per step
    seconds: float  # of all calls that it took
    device: str
    precision: str  # float32 or bfloat16
    stall_share: float  # of the seconds, spent waiting for crops and views
    gpu_memory_mb: float | None  # the most that was in use; None without a GPU
    feature_std: float  # see `feature_spread`; both of the trained encoder, in eval mode
    feature_rank: float
    collapsed: bool

    @property
    def metrics(self) -> dict[str, float]:
        """What a record of the training holds beside its curves."""
        return {
            "loss": self.curves[-1]["loss"],
            "feature_std": self.feature_std,
            "feature_rank": self.feature_rank,
            "pairs_per_s": self.steps * self.batch_size / self.seconds,
            "stall_share": self.stall_share,
            "collapsed": float(self.collapsed),
        }


def evaluate(run: PretrainingRun) -> PretrainingResult:
    """Evaluate the backbone of a run whose steps are all taken, and move it to the CPU.

    A collapse is a warning. Raises Diverged if the features are not finite numbers.
    """
    features = evaluation_features(run)
    if not features.isfinite().all():
        raise Diverged(
            f"{run.label}: the trained encoder's features are not finite numbers; lower "
            "learning_rate or lengthen warmup_epochs"
        )
    spread, rank = feature_spread(features), feature_rank(features)
    if is_collapsed(spread, rank):
        warn_of_collapse(run.label, "at the end", spread, rank)
    on_gpu = run.device.type == "cuda"
    return PretrainingResult(
        backbone=run.backbone.to("cpu", memory_format=torch.contiguous_format),
        input_spec=run.input_spec,
        curves=run.curves,
        steps=run.total_steps,
        batch_size=run.recipe.settings.batch_size,
        seconds=run.seconds,
        device=device_name(run.device),
        precision=run.precision,
        stall_share=run.stalled / run.seconds,
        gpu_memory_mb=1024 * peak_memory_gb(run.device) if on_gpu else None,
        feature_std=spread,
        feature_rank=rank,
        collapsed=is_collapsed(spread, rank),
    )


@torch.no_grad()
def evaluation_features(run: PretrainingRun) -> Tensor:
    """Return the features (n x width) of some of the crops as they are, the same at each call.

    The backbone is in eval mode from then on.
    """
    backbone = run.backbone.eval()
    rows = shuffled_order(len(run.source), 0, 0)[:EVALUATION_CROPS]
    batches = np.array_split(rows, math.ceil(len(rows) / run.recipe.settings.batch_size))
    return torch.cat(
        [
            backbone(normalise(run.source.read(batch), run.input_spec, run.device)).cpu()
            for batch in batches
        ]
    )
