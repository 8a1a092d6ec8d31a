"""The form in which an encoder that measures is kept; the measures themselves are elsewhere."""

import numpy as np
import torch
from torch import nn


class StandardisedMeasures(nn.Module):
    """Measures by name, minus a centre and divided by a scale: both of `width` values."""

    def __init__(self, name: str, width: int):
        super().__init__()
        self.name = name
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """Return n x width measures as float32, standardised."""
        return ((values - self.centre.numpy()) / self.scale.numpy()).astype(np.float32)
