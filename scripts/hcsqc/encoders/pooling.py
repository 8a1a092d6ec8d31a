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
from hcsqc.encoders.models import EachChannel

# Standard deviation of the weight about the centre, in diameters of the crop's nucleus. On real
# labelled crops .5 to .75 are alike (docs/encoders.md).
CELL_SDS = 0.6
# A nucleus' diameter as a share of the window's side: bounds, and what an unknown one is.
SMALLEST, LARGEST, UNKNOWN = 1 / 8, 1 / 2, 1 / 4
# Of a network with more maps of one size, such as a vision transformer, so many are taken.
MOST_STAGES, STAGES_TAKEN = 6, 4


@dataclass(frozen=True)
class Pooling:
    """Which maps are pooled, `last` or those of all `stages`, and over the window or the cell."""

    pool: Literal["last", "stages"] = "last"
    region: Literal["window", "cell"] = "window"

    @property
    def is_plain(self) -> bool:
        """Whether features are what the network itself gives."""
        return self == Pooling()


class PooledNetwork(nn.Module):
    """A network's features by `pooling`, which is not plain.

    `last` are means of the last map, `stages` means and standard deviations of the map of every
    stage. Over the cell, pixels count by a Gaussian about the centre, as wide as the nucleus is.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling):
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        network = backbone.backbone if isinstance(backbone, EachChannel) else backbone
        if not hasattr(network, "forward_intermediates"):
            raise InputError(
                f"pooling: {type(network).__name__} shows no maps of its stages "
                "(timm's forward_intermediates); use its own features"
            )
        self.stages = _stages(len(network.feature_info)) if pooling.pool == "stages" else 1

    def forward(self, images: Tensor, diameters: Tensor) -> Tensor:
        """Map N x C x H x W and N nucleus diameters (share of the side) to N x width, float32."""
        if isinstance(self.backbone, EachChannel):
            network = self.backbone.backbone
            channels = (channel.expand(-1, 3, -1, -1) for channel in images.split(1, 1))
            return torch.cat([self._pooled(network, one, diameters) for one in channels], 1)
        return self._pooled(self.backbone, images, diameters)

    def _pooled(self, network: nn.Module, images: Tensor, diameters: Tensor) -> Tensor:
        maps = network.forward_intermediates(
            images, indices=self.stages, intermediates_only=True, output_fmt="NCHW"
        )
        parts: list[Tensor] = []
        with torch.autocast(images.device.type, enabled=False):
            for one in maps:
                mean, deviation = self._moments(one, diameters)
                parts += [mean] if self.pooling.pool == "last" else [mean, deviation]
        return torch.cat(parts, 1)

    def _moments(self, maps: Tensor, diameters: Tensor) -> tuple[Tensor, Tensor]:
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

    def _pixel_weights(self, maps: Tensor, diameters: Tensor) -> Tensor:
        """Return what each pixel of N maps counts, N x HW, in sum 1."""
        height, width = maps.shape[2:]
        if self.pooling.region == "window":
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
