"""The optimizer of pretraining and the course of its learning rate."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from hcsqc.core.torchvision_mend import mend_torchvision

# What solo-learn's published recipes give its LARS (`--eta_lars 0.02 --grad_clip_lars
# --exclude_bias_n_norm`). timm's is the same bit for bit, if vectors have no weight decay.
LARS = {"trust_coeff": 0.02, "trust_clip": True}


def build_optimizer(
    name: str,
    parameters: Sequence[nn.Parameter],
    momentum: float,
    weight_decay: float,
    at_constant_rate: Sequence[nn.Parameter] = (),
) -> torch.optim.Optimizer:
    """Return SGD, or LARS as in solo-learn, which neither adapts nor decays 1-d parameters.

    `name` is sgd or lars. The learning rate is 0 until it is set: see `learning_rate_at`. Those of
    the parameters that are also `at_constant_rate` are in groups with `constant_rate`, which come
    last.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    constant = {id(parameter) for parameter in at_constant_rate}
    groups = []
    for kind in (False, True):
        part = [p for p in trained if (id(p) in constant) == kind]
        if name == "sgd":
            groups.append({"params": part, "weight_decay": weight_decay, "constant_rate": kind})
            continue
        for decay, members in (
            (weight_decay, [p for p in part if p.ndim > 1]),
            (0.0, [p for p in part if p.ndim == 1]),
        ):
            groups.append({"params": members, "weight_decay": decay, "constant_rate": kind})
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum)
    mend_torchvision()
    from timm.optim import Lars

    return Lars(groups, lr=0.0, momentum=momentum, **LARS)


def learning_rate_at(
    step: int, total: int, warmup: int, base: float, start: float = 0.0, final: float = 0.0
) -> float:
    """Return the learning rate of a step (from 0).

    start + (base - start) * (step + 1) / warmup during the first `warmup` steps, then
    final + (base - final) * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2.
    """
    if step < warmup:
        return start + (base - start) * (step + 1) / warmup
    cosine = math.cos(math.pi * (step - warmup) / (total - warmup))
    return final + (base - final) * (1 + cosine) / 2
