"""What a person sees of records as Snakemake logs them."""

import io
import logging
import os
import time
from types import SimpleNamespace

import pytest

from hcsqc.terminal import handler
from hcsqc.terminal.display import Display
from hcsqc.terminal.handler import StageLines, take_terminal

STATS = {"crop_plate": 3, "probe": 2, "qc": 1, "total": 6}


class Terminal(io.StringIO):
    """A stream that is a terminal; `screen` is what stands there in the end."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        parts = self.getvalue().replace("\r\x1b[", "\x1b[").split("\x1b[")
        lines = parts[0].split("\n")
        for part in parts[1:]:
            if part.startswith("J"):
                rest = part[1:].split("\n")
                lines[-1] += rest[0]
                lines += rest[1:]
            else:
                up = int(part.removesuffix("A"))
                lines = [*lines[: len(lines) - 1 - up], ""]
        return [line for line in lines if line]


class Run:
    """Feeds a handler with the records of a run."""

    def __init__(self, stream, tmp_path, monkeypatch):
        self.now, self.folder, self.stream = 1000.0, tmp_path, stream
        clock = SimpleNamespace(monotonic=lambda: self.now, time=time.time)
        monkeypatch.setattr(handler, "time", clock)
        monkeypatch.setattr(StageLines, "_tick_on", lambda self: None)
        monkeypatch.setenv("TERM", "xterm")
        own = logging.StreamHandler(stream)
        self.lines = StageLines(own, Display(stream), "snakemake.log")
        self.lines.study = tmp_path / "results"

    def tell(self, event, msg=None, level=logging.INFO, after=0.0, **values):
        self.now += after
        record = logging.LogRecord("snakemake.logging", level, "", 0, msg, None, None)
        record.__dict__.update(values | ({"event": event} if event else {}))
        self.lines.handle(record)

    def begin(self, job, rule, after=0.0, **wildcards):
        log = self.folder / f"{job}.log"
        values = {"jobid": job, "rule_name": rule, "wildcards": wildcards, "log": [str(log)]}
        self.tell("job_info", f"Rule: {rule}", after=after, **values)
        return log

    def end(self, job, after=10.0):
        self.tell("job_finished", f"Finished jobid: {job}", after=after, job_id=job)

    def fail(self, job, rule, message=None, **values):
        log = str(self.folder / f"{job}.log")
        values = {"indent": False, "rule_msg": message, "log": [log]} | values
        self.tell("job_error", level=logging.ERROR, jobid=job, rule_name=rule, **values)

    def shown(self) -> list[str]:
        screen = getattr(self.stream, "screen", None)
        return screen() if screen else self.stream.getvalue().splitlines()


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A run whose output is no terminal."""
    return Run(io.StringIO(), tmp_path, monkeypatch)


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A run at a terminal."""
    return Run(Terminal(), tmp_path, monkeypatch)


def test_a_run_is_a_line_per_stage_and_where_to_look(plain):
    (plain.folder / "results/qc/s1").mkdir(parents=True)
    (plain.folder / "results/qc/s1/report.html").touch()
    plain.tell(None, "Building DAG of jobs...")
    plain.tell("workflow_started", "Workflow has started!")
    plain.tell("run_info", "Job stats", stats=STATS | {"make_qc_report": 1})
    for job in (1, 2, 3):
        plain.begin(job, "crop_plate", screen="s1", plate=f"p{job}")
        plain.tell("shellcmd", "Shell command")
        plain.end(job)
        plain.tell("progress", done=job, total=6)
    for job, rule in ((4, "probe"), (5, "probe"), (6, "make_qc_report"), (7, "qc")):
        plain.begin(job, rule)
        plain.end(job)
    plain.tell(None, "Complete log(s): snakemake.log")
    plain.lines.close()
    plain.lines.close()
    assert plain.shown() == [
        "7 jobs in 3 stages",
        "crops                      3 of 3    100 %  in 30 s",
        "probes                     2 of 2    100 %  in 20 s",
        "quality-control pages      1 of 1    100 %  in 10 s",
        "Done: 7 jobs in 1 min 10 s",
        "Look at",
        f"  {plain.folder}/results/qc/s1/report.html  quality control of s1, its tables beside it",
        "Snakemake's log: snakemake.log",
    ]


def test_without_a_terminal_at_most_a_line_comes_in_half_a_minute(plain):
    plain.tell("run_info", "Job stats", stats={"crop_plate": 4, "total": 4})
    plain.begin(1, "crop_plate")
    plain.begin(2, "crop_plate")
    plain.end(1)
    plain.end(2, after=0.0)
    plain.begin(3, "crop_plate")
    plain.lines.tick()
    assert plain.shown() == ["4 jobs in 1 stage"]
    plain.now += 21
    plain.lines.tick()
    plain.lines.tick()
    plain.now += 40
    plain.lines.tick()
    assert plain.shown()[1:] == ["2 of 4 jobs; crops 2 of 4, about 10 s left"]
    plain.now += 300
    plain.lines.tick()
    assert plain.shown()[2:] == ["2 of 4 jobs; crops 2 of 4, about 10 s left"]


def test_a_failed_job_is_its_own_line_of_error_and_its_log(plain):
    plain.tell("run_info", "Job stats", stats=STATS)
    log = plain.begin(1, "crop_plate", screen="s1", plate="p1", seed="0")
    log.write_text("begins\nerror: 2 fields are damaged; copy them again:\n  a.tif\n  b.tif\n")
    plain.tell("error", "RuleException:\nCalledProcessError in file x", logging.ERROR)
    plain.fail(1, "crop_plate")
    plain.begin(2, "probe")
    plain.fail(2, "probe", "SLURM job 7 failed: OUT_OF_MEMORY")
    plain.begin(3, "probe")
    plain.fail(3, "probe")
    plain.tell(None, "Exiting because a job execution failed. Look above", logging.ERROR)
    plain.tell("error", "WorkflowError:\nAt least one job did not complete successfully.", 40)
    plain.lines.close()
    assert plain.shown()[1:] == [
        "error: crops, s1 p1 seed 0: 2 fields are damaged; copy them again:",
        "       a.tif",
        "       b.tif",
        f"       log: {log}",
        "error: probes: SLURM job 7 failed: OUT_OF_MEMORY",
        f"       log: {plain.folder}/2.log",
        "error: probes: it ended without a message",
        f"       log: {plain.folder}/3.log",
        "crops                      0 of 3      0 %  1 failed",
        "probes                     0 of 2      0 %  2 failed",
        "Stopped after 0 s: 0 of 6 jobs done, 3 failed. The same command goes on from here",
        "Snakemake's log: snakemake.log",
    ]


def test_of_a_group_those_jobs_are_named_that_failed(plain):
    plain.tell("run_info", "Job stats", stats=STATS)
    logs = {job: plain.begin(job, "probe", probe=f"p{job}") for job in (1, 2)}
    logs[1].write_text("well\n")
    logs[2].write_text("error: no labels; label some\n")
    told = [
        {"jobid": job, "rule_name": "probe", "rule_msg": None, "log": [str(log)]}
        for job, log in logs.items()
    ]
    plain.tell("group_error", level=40, job_error_info=told, aux_logs=["slurm.log"])
    plain.fail(1, "probe", indent=True)
    plain.fail(2, "probe", indent=True)
    assert plain.shown()[1:] == [
        "error: probes, p2: no labels; label some",
        f"       log: {logs[2]}",
        "       log: slurm.log",
    ]
    plain.now += 300
    plain.lines.tick()
    assert plain.shown()[-1] == "0 of 6 jobs", "the others of the group do not run on"


def test_a_job_that_is_tried_again_is_no_longer_failed(plain):
    plain.tell("run_info", "Job stats", stats={"crop_plate": 1, "total": 1})
    plain.begin(1, "crop_plate")
    plain.fail(1, "crop_plate", "the node died")
    plain.tell(None, "Trying to restart job 1.")
    plain.begin(1, "crop_plate")
    plain.end(1)
    plain.lines.close()
    assert plain.shown()[1:] == [
        "error: crops: the node died",
        f"       log: {plain.folder}/1.log",
        "Trying to restart job 1.",
        "crops                      1 of 1    100 %  in 10 s",
        "Done: 1 job in 10 s",
        "Snakemake's log: snakemake.log",
    ]


def test_jobs_that_an_interrupt_stops_have_not_failed(plain):
    plain.tell("run_info", "Job stats", stats=STATS)
    plain.begin(1, "crop_plate")
    plain.tell(None, "Terminating processes on user request, this might take some time.")
    plain.fail(1, "crop_plate")
    plain.lines.close()
    assert plain.shown()[1:] == [
        "Terminating processes on user request, this might take some time.",
        "crops                      0 of 3      0 %",
        "Stopped after 0 s: 0 of 6 jobs done, 0 failed. The same command goes on from here",
        "Snakemake's log: snakemake.log",
    ]


def test_warnings_of_jobs_are_kept_and_each_of_snakemake_once(plain):
    plain.tell("run_info", "Job stats", stats=STATS)
    log = plain.begin(1, "crop_plate", plate="p1")
    log.write_text("fields: 3\nwarning: plate p1: dim\n")
    plain.tell(None, "Job 1 has been submitted with SLURM jobid 7 (log: x)")
    for _ in range(3):
        plain.tell(None, "The clock is late", logging.WARNING)
    plain.end(1)
    assert plain.shown()[1:] == ["The clock is late", "warning: crops, p1: plate p1: dim"]


def test_where_nothing_is_to_be_done_it_is_said_with_where_to_look(plain):
    (plain.folder / "results/report").mkdir(parents=True)
    (plain.folder / "results/report/index.html").touch()
    plain.tell(None, "Nothing to be done (all requested files are present and up to date).")
    plain.lines.close()
    assert plain.shown()[1:] == [
        "Look at",
        f"  {plain.folder}/results/report/index.html  the study's report",
    ]


def test_a_refused_config_is_one_line_and_other_errors_are_snakemakes(plain):
    where = 'file "/a b/rules/common.smk", line 55'
    text = f'WorkflowError in {where}:\nconfig: qc: bad\n  File "x", line 5, in <module>'
    plain.tell("error", text, logging.ERROR, exception="WorkflowError")
    plain.tell("error", "MissingRuleException:\nNo rule to produce x", logging.ERROR)
    plain.lines.close()
    assert plain.shown() == [
        "error: config: qc: bad",
        "MissingRuleException:",
        "No rule to produce x",
    ]


def test_what_other_commands_say_is_passed_on(plain):
    plain.tell(None, "Unlocked working directory.")
    plain.lines.close()
    assert plain.shown() == ["Unlocked working directory."]


def test_a_record_of_another_form_is_shown_as_snakemake_does(plain):
    plain.tell("run_info", "Job stats: of another version", total=3)
    assert plain.shown() == ["Job stats: of another version"]


def test_at_a_terminal_running_stages_are_redrawn_below_what_stays(live, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((100, 24)))
    live.tell("run_info", "Job stats", stats=STATS)
    log = live.begin(1, "crop_plate", plate="p1")
    log.write_text("crops p1:  50%|###  | 5/10 [00:03<00:04, 2 crops/s]\n")
    live.begin(2, "crop_plate", plate="p2")
    live.begin(4, "probe", encoder="simclr", seed="0")
    live.lines.tick()
    assert live.shown() == [
        "6 jobs in 2 stages",
        "crops                      0 of 3      0 %  p1 (50 %, 00:04 left, 2 crops/s), 1 more",
        "probes                     0 of 2      0 %  simclr seed 0",
        "0 of 6 jobs, 0 s so far",
    ]
    live.end(4)
    live.begin(5, "probe", encoder="swav", seed="0")
    live.end(5)
    live.fail(2, "crop_plate", "no")
    assert live.shown() == [
        "6 jobs in 2 stages",
        "probes                     2 of 2    100 %  in 20 s",
        "error: crops, p2: no",
        f"       log: {live.folder}/2.log",
        "crops                      0 of 3      0 %  1 failed, p1 (50 %, 00:04 left, 2 crops/s)",
        "2 of 6 jobs, 20 s so far",
    ]
    live.lines.close()
    assert live.shown()[-1] == "Snakemake's log: snakemake.log"
    assert not any("so far" in line for line in live.shown())


def test_a_job_of_no_wildcards_is_named_by_its_rule(live):
    live.tell("run_info", "Job stats", stats={"fit_detector": 1, "total": 1})
    live.begin(1, "fit_detector")
    assert live.shown()[1] == "detector                   0 of 1      0 %  fit detector"


def test_lines_never_wrap_where_they_are_redrawn(live, monkeypatch):
    size = os.terminal_size((40, 3))
    monkeypatch.setattr(handler.job_logs, "progress_in", lambda *_: None)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: size)
    live.tell("run_info", "Job stats", stats=STATS)
    live.begin(1, "crop_plate", plate="a plate of a very long name indeed")
    live.begin(4, "probe", encoder="simclr", seed="0")
    live.begin(5, "probe", encoder="swav", seed="0")
    assert len(live.shown()[1:]) == 2  # of three, what fits below a first line
    assert max(map(len, live.shown()[1:])) < 40


def logger_with(monkeypatch, *names):
    monkeypatch.setattr(handler, "_LOGGER", "hcsqc.of_a_test")
    logger = logging.getLogger("hcsqc.of_a_test")
    monkeypatch.setattr(logger, "handlers", [])
    for name in names:
        one = logging.StreamHandler(io.StringIO())
        one.name = name
        logger.addHandler(one)
    return logger


def settings(**asked):
    names = ("dryrun", "verbose", "quiet", "printshellcmds", "log_handler_settings")
    return SimpleNamespace(**(dict.fromkeys(names) | asked))


def test_the_terminal_is_taken_from_snakemakes_own_handler(monkeypatch):
    logger = logger_with(monkeypatch, "DefaultStreamHandler", "another")
    taken = take_terminal(settings(), {})
    assert [type(one) for one in logger.handlers] == [logging.StreamHandler, StageLines]
    taken.close()


@pytest.mark.parametrize(
    ("asked", "environment", "names"),
    [
        ({"dryrun": True}, {}, ["DefaultStreamHandler"]),
        ({"verbose": True}, {}, ["DefaultStreamHandler"]),
        ({"printshellcmds": True}, {}, ["DefaultStreamHandler"]),
        ({"quiet": {"rules"}}, {}, ["DefaultStreamHandler"]),
        ({"log_handler_settings": {"rich": None}}, {}, ["DefaultStreamHandler"]),
        ({}, {"HCSQC_TERMINAL": "snakemake"}, ["DefaultStreamHandler"]),
        ({}, {}, ["of another version of Snakemake"]),
    ],
)
def test_snakemakes_lines_stay_where_they_are_asked_for(monkeypatch, asked, environment, names):
    logger = logger_with(monkeypatch, *names)
    assert take_terminal(settings(**asked), environment) is None
    assert [one.name for one in logger.handlers] == names
