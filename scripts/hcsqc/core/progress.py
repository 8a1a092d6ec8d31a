"""Progress of long work: count, rate and time left, a line at a time.

Lines, not a bar redrawn in place: several jobs share one terminal, and the same text goes to
their logs.
"""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

Value = float | str | Callable[[], float]


class Progress:
    """Print `label: 45%|####5     | 460/1024 [00:03<00:04, 140 crops/s] loss 4.2` now and then."""

    def __init__(self, total: int, unit: str, label: str, every_s: float = 3.0, start: int = 0):
        """Count to `total` (in `unit`), at most one line per `every_s` seconds.

        `start` is what an earlier, interrupted run has already done; the rate leaves it out.
        """
        self.total, self.unit, self.label, self.every_s = total, unit, label, every_s
        self.done = self.start = start
        self.began = self.shown = time.monotonic()

    def update(self, count: int = 1, **values: Value) -> None:
        """Add `count` and show the line with `values` behind it if it is time to.

        A value that is costly to have may be a function: it is called only for a line.
        """
        self.done += count
        now = time.monotonic()
        if now - self.shown >= self.every_s:
            self._show(now, values)

    def close(self, **values: Value) -> None:
        """Show the last line."""
        self._show(time.monotonic(), values)

    def _show(self, now: float, values: dict[str, Value]) -> None:
        self.shown = now
        values = {name: value() if callable(value) else value for name, value in values.items()}
        postfix = " ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
        )
        meter = tqdm.format_meter(
            n=self.done,
            total=self.total,
            elapsed=now - self.began,
            initial=self.start,
            unit=f" {self.unit}",
            prefix=self.label,
            postfix=postfix,
            ncols=0 if self.total == 0 else None,
        )
        print(meter, file=sys.stderr, flush=True)
