"""How far a stage is, and how long it still takes."""

import math
from collections import Counter
from statistics import mean


class Tally:
    """The jobs of one stage: how many there are, which run, how long those took that ended.

    Times are seconds of one clock, which may begin anywhere.
    """

    def __init__(self, jobs: Counter[str]):
        """Take the number of jobs of each rule."""
        self.jobs = jobs
        self.began: float | None = None
        self.running: dict[int, tuple[str, float]] = {}
        self.failed: dict[int, str] = {}
        self._took: dict[str, list[float]] = {rule: [] for rule in jobs}
        self._active = self._busy = self._seen = 0.0

    @property
    def total(self) -> int:
        """Number of jobs."""
        return self.jobs.total()

    @property
    def done(self) -> int:
        """Number of jobs that ended well."""
        return sum(map(len, self._took.values()))

    def start(self, job: int, rule: str, now: float) -> None:
        """Begin a job, perhaps again after a failure."""
        self._pass_time(now)
        self.began = now if self.began is None else self.began
        self.failed.pop(job, None)
        self.running[job] = (rule, now)

    def finish(self, job: int, now: float) -> None:
        """End a job well."""
        self._pass_time(now)
        rule, began = self.running.pop(job)
        self._took[rule].append(now - began)

    def drop(self, job: int, now: float) -> None:
        """End a job that neither failed nor ended well, because its group failed."""
        self._pass_time(now)
        self.running.pop(job, None)

    def fail(self, job: int, now: float) -> None:
        """End a job that failed; it may start again."""
        self._pass_time(now)
        if job in self.running:
            self.failed[job] = self.running.pop(job)[0]

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes, or None if what has ended says nothing about it.

        The rest of every job, by the mean of its rule, on as many jobs side by side as there were
        so far. Jobs that wait for other stages are taken for jobs that can run.
        """
        self._pass_time(now)
        running = Counter(rule for rule, _ in self.running.values())
        failed = Counter(self.failed.values())
        waiting = {
            rule: count - len(self._took[rule]) - running[rule] - failed[rule]
            for rule, count in self.jobs.items()
        }
        open_rules = {rule for rule in self.jobs if waiting[rule] or running[rule]}
        if not running or not all(self._took[rule] for rule in open_rules):
            return None
        if self.done < 2 < self.total:
            return None
        means = {rule: mean(self._took[rule]) for rule in open_rules}
        rests = [max(means[rule] - (now - began), 0.0) for rule, began in self.running.values()]
        work = sum(rests) + sum(waiting[rule] * means[rule] for rule in open_rules)
        side_by_side = max(self._busy / self._active, 1.0) if self._active else 1.0
        left = max(work / side_by_side, *rests, 0.0)
        return left or None

    def _pass_time(self, now: float) -> None:
        passed = max(now - self._seen, 0.0)
        self._busy += passed * len(self.running)
        self._active += passed * bool(self.running)
        self._seen = now


def duration(seconds: float) -> str:
    """Return a duration to read: `8 s`, `1 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def time_left(seconds: float) -> str:
    """Return an estimate to read, no finer than it is good: `about 20 s left`."""
    if seconds <= 50:
        return f"about {math.ceil(seconds / 10) * 10} s left"
    if seconds <= 90 * 60:
        return f"about {math.ceil(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"
