"""What features are computed of: the crops of shards, as they are or changed when they are read."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd


class CompositeSource(Protocol):
    """Crops by row number, from 0. `read_composite` may be called from several threads at once."""

    @property
    def index(self) -> pd.DataFrame:
        """A row per crop, in the order of the row numbers.

        Has at least `crop_id` and `nucleus_area_px`, the latter in the pixels of the composites.
        """
        ...

    def read_composite(self, rows: Sequence[int] | np.ndarray, chosen: Sequence[str]) -> np.ndarray:
        """Return the `chosen` channels of the crops at `rows`: uint8, n x len(chosen) x H x H.

        Raises InputError for a channel that the screen does not have.
        """
        ...
