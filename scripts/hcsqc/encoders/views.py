"""From uint8 composite crops to network input: random views to train on, plain ones to evaluate.

A view is one of the paper's augmentations (section 3.2: 90 degree rotation, flip, transpose,
shift, scale) of every kind, composed into one affine matrix, so that each pixel is interpolated
once: by OpenCV on a CPU, by torch on a GPU, where it takes no time from the threads that read.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hcsqc.core.errors import InputError
from hcsqc.encoders.models import InputSpec


@dataclass(frozen=True)
class ViewSettings:
    """How strongly views differ from their crop; the augmentations are independent."""

    rotate_probability: float  # of a turn by 90, 180 or 270 degrees
    flip_probability: float  # of a horizontal flip, and again of a vertical one
    transpose_probability: float
    shift: float  # largest shift along either axis, share of the window's side
    scale_min: float
    scale_max: float  # above 1 magnifies

    def __post_init__(self):
        for name in ("rotate_probability", "flip_probability", "transpose_probability", "shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"views: {name} is {getattr(self, name)}, expected 0 to 1")
        if not 0 < self.scale_min <= self.scale_max:
            raise InputError(
                f"views: scale_min {self.scale_min} and scale_max {self.scale_max}, "
                "expected 0 < scale_min <= scale_max"
            )


def two_views(
    crops: np.ndarray,
    settings: ViewSettings,
    input_spec: InputSpec,
    rng: np.random.Generator,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return two random views of each crop, normalised, on `device`.

    `crops` is uint8, n x C x H x H; a view is float32, n x C x size_px x size_px, in
    channels-last memory. The same `rng` state gives the same views, on another device to within
    rounding: OpenCV's are of whole grey levels.
    Raises InputError if the crops are of another type or shape, or not of the input's channels.
    """
    _check_crops(crops, input_spec)
    side, size = crops.shape[2], input_spec.size_px
    matrices = [random_matrices(len(crops), side, size, settings, rng) for _ in range(2)]
    if torch.device(device).type == "cuda":
        images = _moved(crops, device)
        pixels = [warp_by_torch(images, of_view, size) for of_view in matrices]
    else:
        groups = _grouped(crops)
        pixels = [
            torch.from_numpy(_joined([_warp(images, of_view, size) for images in groups]))
            for of_view in matrices
        ]
    return _standardise(pixels[0], input_spec), _standardise(pixels[1], input_spec)


def normalise(
    crops_uint8: np.ndarray, input_spec: InputSpec, device: torch.device | str = "cpu"
) -> Tensor:
    """Return crops as network input without augmentation: float32, n x C x size_px x size_px.

    `crops_uint8` is n x C x H x H; the result lies on `device`, in channels-last memory. Resized
    if need be: by area averages when shrinking, else bilinearly. Raises InputError as `two_views`
    does.
    """
    _check_crops(crops_uint8, input_spec)
    side, size = crops_uint8.shape[2], input_spec.size_px
    if side == size:
        pixels = _moved(crops_uint8, device).permute(0, 2, 3, 1).contiguous()
    else:
        resized = _joined([_resize(images, size) for images in _grouped(crops_uint8)])
        pixels = _moved(resized, device)
    return _standardise(pixels, input_spec)


def random_matrices(
    n: int, side: int, size: int, settings: ViewSettings, rng: np.random.Generator
) -> np.ndarray:
    """Return n x 2 x 3 matrices that map a pixel of a view to its place in the crop.

    `side` and `size` are the pixels along a crop and along a view. Pixel centres are at whole
    numbers, and the centre of the view maps to the centre of the crop plus the shift.
    """
    linear = np.tile(np.eye(2), (n, 1, 1))
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    turns = np.stack([np.linalg.matrix_power(quarter, k) for k in range(4)])
    turned = rng.random(n) < settings.rotate_probability
    linear = turns[np.where(turned, rng.integers(1, 4, n), 0)] @ linear
    for axis in (0, 1):
        flipped = rng.random(n) < settings.flip_probability
        linear[flipped, axis] *= -1
    transposed = rng.random(n) < settings.transpose_probability
    linear[transposed] = linear[transposed][:, ::-1]
    scale = rng.uniform(settings.scale_min, settings.scale_max, n)
    linear *= (side / size / scale)[:, None, None]
    shift = rng.uniform(-settings.shift, settings.shift, (n, 2)) * side
    offset = (side - 1) / 2 + shift - linear @ np.full(2, (size - 1) / 2)
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _grouped(crops: np.ndarray) -> list[np.ndarray]:
    """Return n x C x H x H crops as n x H x H x 3 for each three channels, and x 1 for each left.

    OpenCV rounds two channels, or more than four, otherwise than one, by several grey levels, or
    refuses them; in these groups a channel looks the same whatever others there are.
    """
    channels = crops.shape[1]
    threes = channels - channels % 3
    groups = [crops[:, first : first + 3] for first in range(0, threes, 3)]
    groups += [crops[:, [left]] for left in range(threes, channels)]
    return [_channels_last(group) for group in groups]


def _channels_last(crops: np.ndarray) -> np.ndarray:
    images = np.empty((len(crops), *crops.shape[2:], crops.shape[1]), np.uint8)
    for crop, target in zip(crops, images, strict=True):
        cv2.merge(tuple(crop), dst=target)
    return images


def _joined(groups: list[np.ndarray]) -> np.ndarray:
    """Return n x H x H x C of groups of its channels; without a copy if there is one."""
    return groups[0] if len(groups) == 1 else np.concatenate(groups, axis=3)


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 n x size x size x C of n x H x H x C images."""
    how = cv2.INTER_AREA if size < images.shape[1] else cv2.INTER_LINEAR
    pixels = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, target in zip(images, pixels, strict=True):
        cv2.resize(image, (size, size), dst=target, interpolation=how)
    return pixels


def _warp(images: np.ndarray, matrices: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 n x size x size x C: each image seen through its matrix."""
    pixels = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, matrix, target in zip(images, matrices, pixels, strict=True):
        cv2.warpAffine(
            image,
            matrix,
            (size, size),
            dst=target,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    return pixels


def warp_by_torch(images: Tensor, matrices: np.ndarray, size: int) -> Tensor:
    """Return what `_warp` does, on the device of `images`, not rounded to grey levels.

    `images` is uint8 n x C x H x H, `matrices` as from `random_matrices`; the result is float32
    n x size x size x C.
    """
    side = images.shape[2]
    # grid_sample has places from -1 to 1, at the centres of the outermost pixels.
    half = (size - 1) / 2
    to_pixels = np.array([[half, 0, half], [0, half, half], [0, 0, 1]])
    theta = 2 / (side - 1) * (matrices @ to_pixels)
    theta[:, :, 2] -= 1
    theta = torch.from_numpy(theta.astype(np.float32)).to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, [len(images), 1, size, size], align_corners=True)
    # What "reflection" does at aligned corners is OpenCV's BORDER_REFLECT_101.
    seen = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=True)
    return seen.permute(0, 2, 3, 1).contiguous()


def _moved(pixels: np.ndarray, device: torch.device | str) -> Tensor:
    """Return bytes on a device; to a GPU from pinned memory, so that nobody waits for it here."""
    # A copy only of what is in pieces or read-only, which PyTorch warns of.
    images = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    if torch.device(device).type == "cuda":
        images = images.pin_memory()
    return images.to(device, non_blocking=True)


def _standardise(pixels: Tensor, input_spec: InputSpec) -> Tensor:
    """Map n x H x W x C of 0 to 255 to float32 n x C x H x W, normalised: see `InputSpec`."""
    how = input_spec.normalisation
    white = 255 if how == "fixed" else 1
    levels = pixels.float() if how == "fixed" else _per_image(pixels.float(), how)
    mean = _per_channel(tuple(input_spec.mean), pixels.device, white)
    std = _per_channel(tuple(input_spec.std), pixels.device, white)
    return levels.sub_(mean).div_(std).permute(0, 3, 1, 2)


def _per_image(pixels: Tensor, how: str) -> Tensor:
    """Map each channel of n x H x W x C float32 to mean 0 and deviation 1, or to 0 to 1.

    A constant channel becomes 0.
    """
    flat = pixels.flatten(1, 2)
    lowest, highest = flat.aminmax(dim=1, keepdim=True)
    spread = highest - lowest
    levels = flat - lowest  # small numbers, whose mean is exact enough in a nearly white crop
    if how == "per_image_zscore":
        variance, mean = torch.var_mean(levels, 1, correction=0, keepdim=True)
        levels, scale = levels - mean, variance.sqrt()
    else:
        scale = spread
    return torch.where(spread > 0, levels / scale, 0).view_as(pixels)


@lru_cache  # a fresh copy to a GPU would wait for the work queued there
def _per_channel(values: tuple[float, ...], device: torch.device, white: int) -> Tensor:
    return torch.tensor(values, device=device) * white


def _check_crops(crops: np.ndarray, input_spec: InputSpec) -> None:
    wanted = input_spec.channels
    square = crops.ndim == 4 and crops.shape[1] == wanted and crops.shape[2] == crops.shape[3]
    if crops.dtype != np.uint8 or not square:
        raise InputError(
            f"crops are {crops.dtype} {crops.shape}, expected uint8 n x {wanted} x H x H composites"
        )
