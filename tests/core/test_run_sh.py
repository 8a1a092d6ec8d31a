"""How jobs start: what they print is logged, and the log decides nothing."""

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

RUN_SH = ROOT / "scripts" / "run.sh"
JOB = """
import os, signal, sys, time

def save(number, frame):
    print("saved", flush=True)
    sys.exit(128 + number)

print("begins", flush=True)
print("an error", file=sys.stderr, flush=True)
if sys.argv[1] == "waits":
    signal.signal(signal.SIGTERM, save)
    print("waits", flush=True)
    time.sleep(60)
if sys.argv[1] == "talks":
    for number in range(20_000):
        print("a line that fills pipes", number, flush=True)
if sys.argv[1] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
print("ends", flush=True)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def job(tmp_path):
    """Return the command of a job, and its log."""
    (tmp_path / "run.sh").write_bytes(RUN_SH.read_bytes())
    (tmp_path / "job.py").write_text(JOB)
    log = tmp_path / "job.log"

    def command(*words: str, log=log) -> list[str]:
        return ["bash", str(tmp_path / "run.sh"), "--log", str(log), "job.py", *words]

    return command, log


def run(command, **options) -> subprocess.CompletedProcess:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
    environment = os.environ | {"HCSQC_PYTHON": sys.executable}
    return subprocess.run(command, text=True, **({"env": environment} | options))


def test_a_job_whose_workflow_shows_stages_prints_to_its_log_alone(job, tmp_path):
    command, log = job
    quiet = {"env": os.environ | {"HCSQC_PYTHON": sys.executable, "HCSQC_ECHO": "no"}}
    done = run(command("quiet", "7"), **quiet)
    assert (done.returncode, done.stdout) == (7, "")
    assert log.read_text() == "begins\nan error\nends\n"
    unwritable = run(command("talks", "0", log=tmp_path / "no_folder" / "job.log"), **quiet)
    assert unwritable.returncode == 0


@pytest.mark.parametrize("status", [0, 1, 7])
def test_a_job_prints_to_the_terminal_and_the_log_and_its_status_counts(status, job):
    command, log = job
    done = run(command("quiet", str(status)))
    assert done.returncode == status
    assert done.stdout == log.read_text() == "begins\nan error\nends\n"


def test_a_killed_job_fails(job):
    assert run(job[0]("dies", "0")).returncode == 128 + signal.SIGKILL


def test_a_job_that_cannot_start_is_logged_and_fails(job):
    command, log = job
    done = run(command("quiet", "0"), env=os.environ | {"HCSQC_PYTHON": "no_such_python"})
    assert done.returncode == 127
    assert "no_such_python" in log.read_text()


@pytest.mark.parametrize("log", ["/dev/full", "no_such_folder/job.log", "."])
@pytest.mark.parametrize("status", [0, 7])
def test_a_log_that_cannot_be_written_decides_nothing(log, status, job, tmp_path):
    done = run(job[0]("talks", str(status), log=log), cwd=tmp_path)
    assert done.returncode == status
    assert done.stdout.endswith("ends\n")


def test_a_terminal_that_is_gone_ends_neither_job_nor_log(job):
    command, log = job
    reading, writing = os.pipe()
    os.close(reading)
    assert run(command("talks", "0"), stdout=writing, stderr=writing).returncode == 0
    os.close(writing)
    assert log.read_text().endswith("ends\n")


def test_tee_that_dies_does_not_end_the_job(job, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "tee").write_text("#!/bin/sh\nread line\nkill -9 $$\n")
    (tools / "tee").chmod(0o755)
    environment = os.environ | {"HCSQC_PYTHON": sys.executable}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    assert run(job[0]("talks", "0"), env=environment).returncode == 0


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_to_one_or_all_processes_reaches_the_job_and_its_last_words_the_log(send, job):
    command, log = job
    environment = os.environ | {"HCSQC_PYTHON": sys.executable}
    child = subprocess.Popen(
        command("waits", "0"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while child.stdout.readline() != "waits\n":
        pass
    send(child.pid, signal.SIGTERM)
    assert child.stdout.read() == "saved\n"
    assert child.wait(timeout=60) == 128 + signal.SIGTERM
    child.stdout.close()
    assert log.read_text().endswith("saved\n")


def test_ctrl_c_on_a_terminal_interrupts_the_job(job):
    command, log = job
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests may run in the background
        os.environ["HCSQC_PYTHON"] = sys.executable
        os.execvp("bash", command("waits", "0"))
    shown = b""
    while b"waits" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in (0, 143)
    os.close(terminal)
    assert "KeyboardInterrupt" in log.read_text()


def test_every_rule_leaves_its_log_to_run_sh():
    commands = 0
    for path in sorted((ROOT / "rules").glob("*.smk")):
        text = path.read_text()
        assert "tee" not in re.findall(r"\w+", text), path
        started = re.findall(r'"\$HCSQC" (\S+ \S+) \w+/\w+\.py', text)
        assert set(started) <= {"--log {log:q}"}, path
        assert len(started) == text.count("    shell:\n"), path
        inherited = len(re.findall("(?m)^use rule", text))  # with a log of its own
        assert len(started) + inherited == text.count("    log:\n"), path
        commands += len(started)
    assert commands > 50
