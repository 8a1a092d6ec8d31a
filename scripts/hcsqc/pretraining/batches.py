"""The batches of a pretraining: crops of the training set, each in two random views."""

from collections.abc import Generator
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from hcsqc.core.parallel import in_order
from hcsqc.crops.shards import shuffled_order
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.views import two_views
from hcsqc.pretraining.settings import Recipe

# With the paper's 10 million pairs on a GPU one thread could not read crops fast enough.
THREADS_ON_GPU = 8


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


class Batch(NamedTuple):
    """The crops of one step, on the device that trains."""

    rows: Tensor  # n, int64: which crops of the training set
    view_1: Tensor  # n x channels x input_px x input_px, float32
    view_2: Tensor


class BatchLoader:
    """Make the batch of any step: the same whenever, and in whatever thread, it is made."""

    def __init__(
        self, source: CropSource, recipe: Recipe, input_spec: InputSpec, device: torch.device
    ):
        self.source, self.recipe = source, recipe
        self.input_spec, self.device = input_spec, device
        # Two epochs at a time: while one ends, batches of the next are made.
        self.shuffled = lru_cache(maxsize=2)(partial(shuffled_order, len(source), recipe.seed))

    def load(self, step: int) -> Batch:
        """Return the batch of a step (from 0). The last crops, less than a batch, are left out."""
        batch_size, seed = self.recipe.settings.batch_size, self.recipe.seed
        epoch, batch = divmod(step, len(self.source) // batch_size)
        start = batch * batch_size
        rows = self.shuffled(epoch)[start : start + batch_size]
        # The leading 1 keeps these streams apart from the shuffles', which have a 0.
        rng = np.random.default_rng((1, seed, epoch, step))
        crops = self.source.read(rows)
        view_1, view_2 = two_views(crops, self.recipe.views, self.input_spec, rng, self.device)
        return Batch(torch.from_numpy(rows).to(self.device), view_1, view_2)

    def load_ahead(self, steps: range) -> Generator[Batch]:
        """Yield the batches of `steps` in order, made by threads while the caller trains."""
        threads = THREADS_ON_GPU if self.device.type == "cuda" else 1
        return in_order(self.load, steps, threads, threads)
