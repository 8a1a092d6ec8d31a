"""Curves of a training that MLflow shows while it runs, where the tracking store is a server.

What is sent is for watching alone: the record holds all of it, and the import that follows puts a
complete run in the place of this one.
"""

import os
import queue
import sys
import threading
from collections.abc import Mapping
from contextlib import contextmanager

from hcsqc.tracked_runs import EXPERIMENTS

EVERY_S = 2.0
POINTS_PER_BATCH = 500
# Of the last points, once training has ended: then it goes on without them.
LAST_WAIT_S = 15.0


class LiveCurves:
    """Send points to a server from a thread of its own; whatever goes wrong there stays there."""

    def __init__(self, uri: str, study: str, key: str, params: Mapping[str, object]):
        self.uri, self.study, self.key, self.params = uri, study, key, params
        self.points: queue.SimpleQueue[dict[str, float]] = queue.SimpleQueue()
        self.ended = threading.Event()
        self.broken = False
        self.thread = threading.Thread(target=self._run, daemon=True, name="live curves")
        self.thread.start()

    def add(self, point: Mapping[str, float]) -> None:
        """Have a point of the curves sent: its `step` and values by name. Never waits."""
        if not self.broken:
            self.points.put(dict(point))

    def close(self) -> None:
        """Send what is left, for as long as `LAST_WAIT_S`."""
        self.ended.set()
        self.thread.join(LAST_WAIT_S)

    def _run(self) -> None:
        # Before MLflow is imported, which takes a second: a silent server must not keep a thread.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        try:
            from hcsqc.tracking import begin_live_run, connect, log_points

            client = connect(self.uri)
            stage = self.key.split("/")[0]
            run = begin_live_run(
                client, f"{self.study}/{EXPERIMENTS[stage]}", self.key, self.params
            )
            while not (self.ended.wait(EVERY_S) and self.points.empty()):
                waiting = [self.points.get() for _ in range(self.points.qsize())]
                for first in range(0, len(waiting), POINTS_PER_BATCH):
                    log_points(client, run, waiting[first : first + POINTS_PER_BATCH])
        except Exception as error:  # the training matters, not its spectators
            self.broken = True
            told = str(error).strip().splitlines()
            print(
                f"WARNING live curves end here ({told[0] if told else type(error).__name__}); "
                "training goes on, and track_runs completes the run",
                file=sys.stderr,
            )


@contextmanager
def live_curves(uri: str, study: str, key: str, params: Mapping[str, object]):
    """Give what takes the points of a training: nothing but a server shows them live."""
    if not uri:
        yield lambda point: None
        return
    live = LiveCurves(uri, study, key, params)
    try:
        yield live.add
    finally:
        live.close()
