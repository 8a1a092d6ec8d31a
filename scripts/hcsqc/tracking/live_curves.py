"""Curves of a training that MLflow shows while it runs, where the tracking store is a server.

What is sent is for watching alone: the record holds all of it, and the import that follows puts a
complete run in the place of this one.
"""

import math
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager

from hcsqc.core.ids import stage_of

EXPERIMENT = "pretraining"
EVERY_S = 2.0
# MLflow's limits per batch, and of one parameter.
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
LONGEST_PARAM = 6000
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
            from mlflow import MlflowClient

            client = MlflowClient(self.uri)
            run = self._begin(client)
            while not (self.ended.wait(EVERY_S) and self.points.empty()):
                waiting = [self.points.get() for _ in range(self.points.qsize())]
                self._send(client, run, waiting)
        except Exception as error:  # the training matters, not its spectators
            self.broken = True
            told = str(error).strip().splitlines()
            print(
                f"WARNING live curves end here ({told[0] if told else type(error).__name__}); "
                "training continues, and track_runs will complete the run",
                file=sys.stderr,
            )

    def _begin(self, client) -> str:
        """Begin a run and return its id; it has no digest, so the next import replaces it."""
        from mlflow.entities import Param

        name = f"{self.study}/{EXPERIMENT}"
        found = client.get_experiment_by_name(name)
        number = found.experiment_id if found else client.create_experiment(name)
        tags = {"job_key": self.key, "stage": stage_of(self.key), "live": "true"}
        run = client.create_run(number, tags=tags, run_name=self.key).info.run_id
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in self.params.items()]
        client.log_batch(run, params=params[:PARAMS_PER_BATCH])
        return run

    def _send(self, client, run: str, points: list[dict[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(f"train/{name}", float(value), now, int(point["step"]))
            for point in points
            for name, value in point.items()
            if name != "step" and math.isfinite(value)
        ]
        for first in range(0, len(metrics), METRICS_PER_BATCH):
            client.log_batch(run, metrics[first : first + METRICS_PER_BATCH])


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
