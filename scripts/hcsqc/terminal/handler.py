"""Snakemake's log records, shown as a line per stage with its share and the time left.

Takes the place of Snakemake's own handler for the terminal; its log file gets everything as before.
Snakemake's logger plugins would do the same, but a profile that names one stops every Snakemake in
whose environment it is not installed.
"""

import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcsqc.terminal import job_logs, places
from hcsqc.terminal.display import Display
from hcsqc.terminal.stages import SHOWN, STAGES, stage_of
from hcsqc.terminal.tally import Tally, duration, time_left

_LOGGER = "snakemake.logging"
_ITS_HANDLER = "DefaultStreamHandler"
# Settings of its output by which a person asks for Snakemake's own lines.
_ASKS_FOR_ITS_LINES = (
    "dryrun",
    "verbose",
    "quiet",
    "printshellcmds",
    "debug_dag",
    "show_failed_logs",
    "log_handler_settings",
)
# What Snakemake says of itself before it starts, and what it says again at the end.
_ITS_OWN_BUSINESS = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Using shell:",
    "Provided ",
    "Group jobs: inactive",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "SLURM run ID:",
    "Complete log(s):",
    "Elapsed time:",
    "Exiting because a job execution failed",
    "WorkflowError:\nAt least one job did not complete successfully",
)
_NOTHING_TO_DO = "Nothing to be done"
# Of what it says at the lower levels during a run, what a person waits for.
_INTERRUPTED = "Terminating processes on user request"
_TOLD_IN_A_RUN = (_INTERRUPTED, "Will exit after", "Trying to restart job")
# Where rules/*.smk refuse the config: the line of a rule file says nothing to its reader.
_OWN_REFUSAL = re.compile(
    r'WorkflowError in file "[^"]*/rules/[^"]*\.smk", line \d+:\n(?P<text>.*?)(?:\n  File .*)?',
    re.DOTALL,
)
# Seconds. Without a terminal: between two lines, if something has ended; if nothing has.
_BETWEEN_DRAWINGS, _BETWEEN_LINES, _LONGEST_SILENCE = 1.0, 30.0, 300.0
# A clock of a file server may be late by this many seconds.
_LATE_CLOCK = 5.0


@dataclass
class _Job:
    rule: str
    stage: str | None
    label: str
    logs: list[str]
    began: float  # Unix time


def take_terminal(settings: Any, environment: Mapping[str, str]) -> "StageLines | None":
    """Show stages in place of Snakemake's own lines; return None where those are wanted.

    `settings` are Snakemake's of its output. Its lines stay in a dry run, with --verbose, --quiet,
    --printshellcmds, --logger and the like, and where HCSQC_TERMINAL is `snakemake`.
    """
    asks = any(getattr(settings, name, None) for name in _ASKS_FOR_ITS_LINES)
    if asks or environment.get("HCSQC_TERMINAL") == "snakemake":
        return None
    logger = logging.getLogger(_LOGGER)
    own = [handler for handler in logger.handlers if handler.name == _ITS_HANDLER]
    if len(own) != 1:
        return None
    files = [one.baseFilename for one in logger.handlers if isinstance(one, logging.FileHandler)]
    taken = StageLines(own[0], Display(sys.stderr), files[0] if files else None)
    logger.removeHandler(own[0])
    logger.addHandler(taken)
    return taken


class StageLines(logging.Handler):
    """Shows records of Snakemake's log as lines per stage; `study` is where its results lie."""

    def __init__(self, own: logging.Handler, display: Display, log: str | None = None):
        """Take Snakemake's handler, which prints what needs no other words, and its log file."""
        super().__init__()
        self.name = _ITS_HANDLER
        self.study: Path | None = None
        self._own, self._display, self._log = own, display, log
        self._jobs: dict[int, _Job] = {}
        self._progress: dict[int, str | None] = {}
        self._warnings: set[str] = set()
        self._tallies: dict[str, Tally] = {}
        self._total = self._done = self._told = 0
        self._began = self._spoke = time.monotonic()
        self._has_nothing_to_do = self._is_interrupted = self._is_over = False
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; one that is not understood is shown as Snakemake does it."""
        try:
            show = getattr(self, f"_on_{getattr(record, 'event', None) or 'message'}", None)
            if show is not None:
                show(record)
                self._draw()
        except Exception:
            self._as_snakemake(record)

    def tick(self) -> None:
        """Show how time passes; a thread calls this each second."""
        with self._alone():
            silent = time.monotonic() - self._spoke
            if self._is_over:
                return
            if self._display.is_live:
                self._progress = {job: self._progress_of(job) for job in self._shown_jobs()}
                self._draw()
            elif silent >= (_BETWEEN_LINES if self._done > self._told else _LONGEST_SILENCE):
                self._say(self._overview(time.monotonic()))
                self._told = self._done

    def close(self) -> None:
        """Say how it ended and where to look."""
        with self._alone():
            if not self._is_over:
                self._is_over = True
                self._over.set()
                self._display.draw([])
                self._say(*self._last_words())
                self._own.close()
        super().close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()

    # What Snakemake tells: a method for each of its events; those without one are not shown.

    def _on_run_info(self, record: Any) -> None:
        rules = Counter({rule: n for rule, n in record.stats.items() if rule != "total"})
        by_stage: dict[str, Counter[str]] = {}
        for rule, count in rules.items():
            stage = stage_of(rule)
            if stage is not None:
                by_stage.setdefault(stage, Counter())[rule] = count
        order = [*STAGES, *by_stage]
        self._tallies = {
            stage: Tally(by_stage[stage]) for stage in sorted(by_stage, key=order.index)
        }
        self._total = rules.total()
        self._began = time.monotonic()
        self._say(f"{_counted(self._total, 'job')} in {_counted(len(by_stage), 'stage')}")
        self._ticker = threading.Thread(target=self._tick_on, daemon=True)
        self._ticker.start()

    def _on_job_info(self, record: Any) -> None:
        stage = stage_of(record.rule_name)
        job = _Job(record.rule_name, stage, _label(record), list(record.log or []), time.time())
        self._jobs[record.jobid] = job
        if stage is not None:
            self._tallies[stage].start(record.jobid, record.rule_name, time.monotonic())

    def _on_job_finished(self, record: Any) -> None:
        self._done += 1
        job = self._jobs.pop(record.job_id)
        if job.stage is None:
            return
        for warning in job_logs.warnings_in(job.logs):
            self._say(f"warning: {job.stage}, {job.label}: {warning}")
        tally, now = self._tallies[job.stage], time.monotonic()
        tally.finish(record.job_id, now)
        if tally.done == tally.total:
            self._say(self._line(job.stage, now))

    def _on_job_error(self, record: Any) -> None:
        if record.indent:  # of a group, whose error has told it
            return
        self._failed(record.jobid, record.rule_name, list(record.log), record.rule_msg)

    def _on_group_error(self, record: Any) -> None:
        failed = [
            info
            for info in record.job_error_info
            if job_logs.error_in(info["log"], self._began_at(info["jobid"]))
        ]
        failed = failed or record.job_error_info
        for info in record.job_error_info:
            stage = stage_of(info["rule_name"])
            if info not in failed and stage is not None:
                self._tallies[stage].drop(info["jobid"], time.monotonic())
        for info in failed:
            logs = [*info["log"], *record.aux_logs]
            self._failed(info["jobid"], info["rule_name"], logs, info["rule_msg"])

    def _on_error(self, record: logging.LogRecord) -> None:
        text = str(record.msg)
        refusal = _OWN_REFUSAL.fullmatch(text)
        if refusal:
            self._say(f"error: {refusal['text']}")
        # The error of the job, which follows, says it better.
        elif "CalledProcessError" not in text:
            self._on_message(record)

    def _on_message(self, record: logging.LogRecord) -> None:
        text = str(record.msg or "")
        if text.startswith(_NOTHING_TO_DO):
            self._has_nothing_to_do = True
        self._is_interrupted |= text.startswith(_INTERRUPTED)
        is_told = record.levelno > logging.INFO or not self._ticker
        if record.levelno == logging.WARNING:  # some come once per job
            is_told = text not in self._warnings
            self._warnings.add(text)
        if not text.startswith(_ITS_OWN_BUSINESS) and (is_told or text.startswith(_TOLD_IN_A_RUN)):
            self._as_snakemake(record)

    # What is shown.

    def _failed(self, jobid: int, rule: str, logs: list[str], message: str | None) -> None:
        job = self._jobs.get(jobid)
        stage = stage_of(rule) or rule
        if self._is_interrupted:  # a job that was stopped has not failed
            return
        if stage in self._tallies:
            self._tallies[stage].fail(jobid, time.monotonic())
        since = self._began_at(jobid)
        said = (
            job_logs.error_in(logs, since)
            or message
            or job_logs.last_line_in(logs, since)
            or "it ended without a message"
        )
        of = f"{stage}, {job.label}" if job and job.label else stage
        first, *below = said.splitlines()
        below += [f"log: {log}" for log in logs]
        self._say(f"error: {of}: {first}", *(f"       {line.strip()}" for line in below))

    def _began_at(self, jobid: int) -> float:
        job = self._jobs.get(jobid)
        return job.began - _LATE_CLOCK if job else 0.0

    def _draw(self) -> None:
        if self._display.is_live and self._tallies and not self._is_over:
            now = time.monotonic()
            lines = [
                self._line(stage, now) for stage, tally in self._tallies.items() if tally.running
            ]
            self._display.draw([*lines, f"{self._share()}, {duration(now - self._began)} so far"])

    def _line(self, stage: str, now: float) -> str:
        """Return a stage's line: its share, its time, and what runs."""
        tally = self._tallies[stage]
        return f"{stage:<24}{tally.done:>4} of {tally.total:<4}{self._state(stage, now)}".rstrip()

    def _state(self, stage: str, now: float) -> str:
        tally = self._tallies[stage]
        share = f"{100 * tally.done // tally.total:>4} %  "
        if tally.done == tally.total:
            return f"{share}in {duration(now - (tally.began or now))}"
        left = tally.seconds_left(now)
        told = [_counted(len(tally.failed), "failed", "failed")] if tally.failed else []
        told += [time_left(left)] if left else []
        if tally.running:
            oldest, *others = tally.running
            progress = self._progress.get(oldest)
            job = self._jobs[oldest]
            name = job.label or job.rule.replace("_", " ")
            told.append(f"{name} ({progress})" if progress else name)
            told += [f"{len(others)} more"] if others else []
        return share + ", ".join(filter(None, told))

    def _shown_jobs(self) -> list[int]:
        return [next(iter(tally.running)) for tally in self._tallies.values() if tally.running]

    def _progress_of(self, jobid: int) -> str | None:
        return job_logs.progress_in(self._jobs[jobid].logs, self._began_at(jobid))

    def _overview(self, now: float) -> str:
        """Return one line about all stages that run."""
        parts = [self._share()]
        for stage, tally in self._tallies.items():
            if tally.running:
                left = tally.seconds_left(now)
                rest = f", {time_left(left)}" if left else ""
                parts.append(f"{stage} {tally.done} of {tally.total}{rest}")
        return "; ".join(parts)

    def _share(self) -> str:
        return f"{self._done} of {_counted(self._total, 'job')}"

    def _last_words(self) -> list[str]:
        lines = []
        took = duration(time.monotonic() - self._began)
        is_done = self._done == self._total
        if self._ticker and is_done:
            lines.append(f"Done: {_counted(self._total, 'job')} in {took}")
        elif self._ticker:
            now = time.monotonic()
            for tally in self._tallies.values():
                tally.running.clear()
            lines += [
                self._line(stage, now)
                for stage, tally in self._tallies.items()
                if tally.began is not None and tally.done < tally.total
            ]
            failed = sum(len(tally.failed) for tally in self._tallies.values())
            lines.append(
                f"Stopped after {took}: {self._share()} done, {failed} failed. The same command "
                "goes on from here"
            )
        if self._has_nothing_to_do or (self._ticker and is_done and self._makes_pages()):
            lines += places.where_to_look(self.study)
        if self._ticker and self._log:
            lines.append(f"Snakemake's log: {self._log}")
        return lines

    def _makes_pages(self) -> bool:
        return any(stage in self._tallies for stage in (*SHOWN, "runs in MLflow"))

    def _as_snakemake(self, record: logging.LogRecord) -> None:
        with self._display.paused():
            self._own.handle(record)

    def _say(self, *lines: str) -> None:
        self._spoke = time.monotonic()
        self._display.say(*lines)

    def _tick_on(self) -> None:
        while not self._over.wait(_BETWEEN_DRAWINGS):
            self.tick()


def _label(record: Any) -> str:
    """Return what a job is about: `simclr seed 0 knn budget 25`."""
    counted = ("seed", "budget")
    return " ".join(
        f"{name} {value}" if name in counted else str(value)
        for name, value in dict(record.wildcards or {}).items()
    )


def _counted(count: int, what: str, plural: str | None = None) -> str:
    return f"{count} {what if count == 1 else plural or what + 's'}"
