"""Numbers as the report writes them."""

import numpy as np
import pandas as pd


def percent(share: float | None) -> str:
    """Return a share, 0 to 1, as percent: `3.1%`; a dash where there is none."""
    return "–" if share is None or is_missing(share) else f"{100 * share:.1f}%"


def number(value: object) -> str:
    """Return a number of any size in few digits, a dash where there is none."""
    if is_missing(value):
        return "–"
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}"


def is_missing(value: object) -> bool:
    """Return whether a value of a table is none."""
    return value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value))


def counted(value: int, noun: str, plural: str | None = None) -> str:
    """Return how many there are of what: `1 well`, `2,000 wells`."""
    return f"{int(value):,} {noun if value == 1 else plural or noun + 's'}"
