"""Whether an encoder still tells crops apart: the spread and the rank of its features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Below either an encoder tells no crop from another. An untrained ResNet18 on 64 made cells has a
# spread of 0.1 to 0.5 and a rank above 11; features of one crop repeated have 0 and 1.
LEAST_SPREAD, LEAST_RANK = 0.01, 1.5


def feature_spread(features: Tensor) -> float:
    """Return how far apart features (n x width) point: 0 all the same way, 1 all ways evenly.

    The standard deviation over the batch of the L2-normalised features, averaged over the width,
    times the square root of the width.
    """
    directions = F.normalize(features.float(), dim=1)
    return float(directions.std(dim=0).mean() * math.sqrt(features.shape[1]))


def feature_rank(features: Tensor) -> float:
    """Return RankMe of features (n x width): 1 if all point one way, up to the smaller of n, width.

    The exponential of the entropy of the singular values' shares (Garrido et al. 2023, equation 1,
    https://arxiv.org/abs/2210.02885), which foretells a linear probe's accuracy without labels.
    """
    singular = torch.linalg.svdvals(features.float().cpu())
    shares = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    return float(torch.exp(torch.special.entr(shares).sum()))


def is_collapsed(spread: float, rank: float) -> bool:
    """Return whether features of this spread and rank hardly differ between crops, or are none."""
    return not (spread >= LEAST_SPREAD and rank >= LEAST_RANK)
