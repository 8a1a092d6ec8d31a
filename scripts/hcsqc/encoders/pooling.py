"""How the maps of a network become features: which of them, and of which part of the window.

A network's own features are its last layer's mean over the whole window. Sharpness, noise and
brightness are in the maps before it, and what is judged is the cell in the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hcsqc.core.errors import InputError
from hcsqc.encoders.models import EachChannel, PooledFeatures

Pool = Literal["last", "stages", "cls", "mean", "cls_mean", "per_channel"]
# Pools that weigh the pixels of maps, and so may do so about the cell.
OF_MAPS = ("last", "stages")

# Standard deviation of the weight about the centre, in diameters of the crop's nucleus. On real
# labelled crops .5 to .75 are alike (docs/encoders.md).
CELL_SDS = 0.6
# A nucleus' diameter as a share of the window's side: bounds, and what an unknown one is.
SMALLEST, LARGEST, UNKNOWN = 1 / 8, 1 / 2, 1 / 4
# Of a network with more maps of one size, such as a vision transformer, so many are taken.
MOST_STAGES, STAGES_TAKEN = 6, 4


@dataclass(frozen=True)
class Pooling:
    """What becomes features, and of which region: see `PooledNetwork`."""

    pool: Pool = "last"
    region: Literal["window", "cell"] = "window"

    @property
    def is_plain(self) -> bool:
        """Whether features are what the network itself gives."""
        return self == Pooling()

    @property
    def is_trainable(self) -> bool:
        """Whether a network can be trained through them.

        The gradient of a standard deviation has no limit where a map is constant.
        """
        return self.pool != "stages" and self.region == "window"

    def check(self) -> None:
        """Raise InputError for the cell of features that have no maps."""
        if self.region == "cell" and self.pool not in OF_MAPS:
            raise InputError(
                f"pool {self.pool}: has no maps to weigh about the cell; state region: window"
            )


class PooledNetwork(nn.Module):
    """A network's features by `pooling`, which is not plain.

    `last` are means of the last map, `stages` means and standard deviations of the map of every
    stage. Over the cell, pixels count by a Gaussian about the centre, as wide as the nucleus is.

    Of a transformer, `cls` is the class token, `mean` the mean of the patches' tokens, `cls_mean`
    both side by side, each as the network normalises it in the end. Of a convolutional network,
    `mean` is its own features. `per_channel` are the features of every channel side by side, of a
    network that sees channels one by one or has tokens for each.
    Raises InputError for a network without such features.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling):
        super().__init__()
        pooling.check()
        self.backbone, self.pooling = backbone, pooling
        self.sees_each = isinstance(backbone, EachChannel)
        network = backbone.backbone if isinstance(backbone, EachChannel) else backbone
        if pooling.pool in OF_MAPS:
            if not hasattr(network, "forward_intermediates"):
                raise InputError(
                    f"pooling: {type(network).__name__} shows no maps of its stages "
                    "(timm's forward_intermediates); use its own features"
                )
            self.stages = _stages(len(network.feature_info)) if pooling.pool == "stages" else 1
        else:
            _check_features(network, pooling.pool, self.sees_each)

    def forward(self, images: Tensor, diameters: Tensor | None = None) -> Tensor:
        """Map N x C x H x W and N nucleus diameters (share of the side) to N x width, float32.

        Only features of the cell need the diameters.
        """
        if isinstance(self.backbone, EachChannel):
            network, seen_as = self.backbone.backbone, self.backbone.seen_as
            channels = (channel.expand(-1, seen_as, -1, -1) for channel in images.split(1, 1))
            return torch.cat([self._features(network, one, diameters) for one in channels], 1)
        return self._features(self.backbone, images, diameters)

    def _features(self, network: nn.Module, images: Tensor, diameters: Tensor | None) -> Tensor:
        pool = self.pooling.pool
        if pool in OF_MAPS:
            return self._pooled(network, images, diameters)
        if pool == "per_channel" and not self.sees_each:
            return network.forward_channels(images).flatten(1).float()
        if pool == "per_channel" or not _has_tokens(network):
            return network(images).float()
        tokens, parts = network.forward_features(images).float(), []
        if pool in ("cls", "cls_mean"):
            parts.append(tokens[:, 0])
        if pool in ("mean", "cls_mean"):
            parts.append(tokens[:, network.num_prefix_tokens :].mean(1))
        last_norm = getattr(network, "fc_norm", nn.Identity())
        return torch.cat([last_norm(part).float() for part in parts], 1)

    def _pooled(self, network: nn.Module, images: Tensor, diameters: Tensor | None) -> Tensor:
        maps = network.forward_intermediates(
            images, indices=self.stages, intermediates_only=True, output_fmt="NCHW"
        )
        parts: list[Tensor] = []
        with torch.autocast(images.device.type, enabled=False):
            for one in maps:
                mean, deviation = self._moments(one, diameters)
                parts += [mean] if self.pooling.pool == "last" else [mean, deviation]
        return torch.cat(parts, 1)

    def _moments(self, maps: Tensor, diameters: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of N x C x H x W maps, each N x C, float32."""
        pixels = maps.permute(0, 2, 3, 1).flatten(1, 2)
        weights = self._pixel_weights(maps, diameters)[:, None]
        # The maps of a few images fit into a processor's cache; a GPU takes all at once.
        at_once = len(maps) if maps.is_cuda else torch.get_num_threads()
        means, variances = [], []
        for few, weight in zip(pixels.split(at_once), weights.split(at_once), strict=True):
            levels = few.float()
            mean = weight @ levels
            means.append(mean)
            variances.append(weight @ (levels - mean).square_())
        deviation = torch.cat(variances).clamp_min(0).sqrt()
        return torch.cat(means).squeeze(1), deviation.squeeze(1)

    def _pixel_weights(self, maps: Tensor, diameters: Tensor | None) -> Tensor:
        """Return what each pixel of N maps counts, N x HW, in sum 1."""
        height, width = maps.shape[2:]
        if self.pooling.region == "window" or diameters is None:
            return torch.full((len(maps), height * width), 1 / (height * width), device=maps.device)
        rows, columns = (_weights(side, diameters) for side in (height, width))
        return (rows[:, :, None] * columns[:, None, :]).flatten(1)


def nucleus_diameters(area_px: np.ndarray, side_px: int) -> np.ndarray:
    """Return the diameters of nuclei as shares of the window's side, n float32.

    Of circles of these areas, within an eighth and half of the side; a quarter where an area is 0,
    which is to say unknown.
    """
    shares = 2 * np.sqrt(np.asarray(area_px, np.float64) / np.pi) / side_px
    return np.where(shares > 0, np.clip(shares, SMALLEST, LARGEST), UNKNOWN).astype(np.float32)


def _has_tokens(network: nn.Module) -> bool:
    """Return whether a network's last layer is tokens, those of no patch first, as in timm."""
    return hasattr(network, "num_prefix_tokens")


def _check_features(network: nn.Module, pool: str, sees_each: bool) -> None:
    """Raise InputError if a network has no features for `pool`, which is not of maps."""
    name = type(network).__name__
    if pool == "per_channel":
        if not (sees_each or hasattr(network, "forward_channels")):
            raise InputError(
                f"pool per_channel: {name} sees all channels together; state channels: each, or "
                "another pool"
            )
    elif "cls" in pool and getattr(network, "cls_token", None) is None:
        raise InputError(
            f"pool {pool}: {name} has no class token; state pool: mean, stages or last"
        )
    elif pool == "mean" and not (_has_tokens(network) or _averages(network)):
        raise InputError(
            f"pool mean: {name} shows neither tokens nor a mean of its last map; state pool: last"
        )


def _averages(network: nn.Module) -> bool:
    """Return whether a network's own features are means."""
    if isinstance(network, PooledFeatures) or hasattr(network, "forward_channels"):
        return True
    head = getattr(network, "head", None)
    own = getattr(network, "global_pool", None) or getattr(head, "global_pool", None)
    return "avg" in str(own if isinstance(own, str) else getattr(own, "pool_type", ""))


def _weights(side: int, diameters: Tensor) -> Tensor:
    """Return N x side weights along one axis of a map, which sum to 1."""
    places = (torch.arange(side, device=diameters.device) + 0.5) / side - 0.5
    weights = torch.exp(-0.5 * (places[None] / (CELL_SDS * diameters[:, None])) ** 2)
    return weights / weights.sum(1, keepdim=True)


def _stages(count: int) -> Sequence[int]:
    """Return the numbers of the stages that are pooled: all, or some of many, evenly spaced."""
    if count <= MOST_STAGES:
        return list(range(count))
    return [round(count * (number + 1) / STAGES_TAKEN) - 1 for number in range(STAGES_TAKEN)]
