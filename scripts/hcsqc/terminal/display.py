"""Lines that stay and, in a terminal, lines below them that are redrawn."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO


class Display:
    """Prints to a stream; in a terminal the last lines are redrawn in place."""

    def __init__(self, stream: TextIO):
        """Take a stream; what is no terminal, or a dumb one, gets only lines that stay."""
        self.stream = stream
        self.is_live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn: list[str] = []

    def say(self, *lines: str) -> None:
        """Print lines that stay."""
        with self.paused():
            self.stream.writelines(f"{line}\n" for line in lines)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines below all others, in place of those drawn last."""
        if not self.is_live:
            return
        width, height = shutil.get_terminal_size()
        shown = [line[: width - 1] for line in lines[-(height - 1) :]]
        if shown != self._drawn:
            self._erase()
            self.stream.writelines(f"{line}\n" for line in shown)
            self.stream.flush()
            self._drawn = shown

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the drawn lines away while something else is printed."""
        drawn = self._drawn
        self._erase()
        yield
        self.stream.flush()
        self.draw(drawn)

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\r\x1b[{len(self._drawn)}A\x1b[J")
            self._drawn = []
