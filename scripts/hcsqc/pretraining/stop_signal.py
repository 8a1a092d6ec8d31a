"""Signals by which a scheduler ends a job, noted so that the job can save first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stop:
    """The number of the signal that came, or None."""

    number: int | None = None


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Note SIGTERM and SIGUSR1 instead of dying of them; only the main thread can."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number, _frame):
        stop.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
