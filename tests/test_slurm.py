"""The study on a real SLURM: whole, and with everything going wrong that does on a cluster.

`make test-slurm` runs all of it; it wants Debian's slurm-wlm, munge, slurmdbd and mariadb-server, and root, and starts a
cluster of its own on this machine (tests/cluster/up.sh).
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project, results

CLUSTER = ROOT / "tests" / "cluster"
NEEDED = ("sbatch", "slurmctld", "munged", "slurmdbd", "mariadbd")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        os.getuid() != 0
        or not all(shutil.which(f"/usr/sbin/{n}") or shutil.which(n) for n in NEEDED),
        reason="SLURM is not installed, or this is not root (CONTRIBUTING.md)",
    ),
]
PROFILE = ("--profile", "profiles/slurm", "--workflow-profile", "tests/cluster/site")
SMALL = ("--configfile", "tests/tiny/study.yaml", "tests/cluster/small.yaml")
ENCODER = "encoders/deepcluster_v2/seed0"
LOG = "logs/pretrain/deepcluster_v2/seed0.log"
PATIENCE_S = 240


@pytest.fixture(scope="session")
def cluster():
    """Start a cluster for all tests, and stop it after the last."""
    done = subprocess.run([CLUSTER / "up.sh", "dbd"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    yield
    subprocess.run([CLUSTER / "down.sh"], check=True)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Project:
    """The small study, finished on this machine without SLURM: what every other end must equal."""
    project = Project(tmp_path_factory.mktemp("small"))
    done = project.run("tables", "--cores", "2", "--max-threads", "1", *SMALL)
    assert done.returncode == 0, done.stdout[-4000:]
    return project


class Driver:
    """Snakemake on the login node, in a process of its own."""

    def __init__(self, project: Project, *words: str, command: tuple[str, ...] = ()):
        self.project = project
        self.log = project.folder / f"driver{time.monotonic_ns()}.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *(command or ("-m", "snakemake")),
                    "tables",
                    *PROFILE,
                    *words,
                    *SMALL,
                ],
                cwd=project.folder,
                env=os.environ | {"PATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                # A shell that starts a process in the background lets it ignore SIGINT.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def ends(self, code: int = 0) -> str:
        try:
            found = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"does not end\n{queue()}\n{self.text[-4000:]}") from None
        assert found == code, self.text[-4000:]
        return self.text

    def jobs(self, rule: str) -> list[str]:
        """Return the SLURM jobs that were submitted for a rule, in order."""
        return re.findall(rf"SLURM jobid (\d+) \(log: \S*rule_{rule}/", self.text)


def until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S):
    """Wait until something holds; return what it gave."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: waited {patience_s} s\n{queue()}")


def queue() -> str:
    return slurm("squeue", "--format=%A %T %P %N %r %j")


def slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def state_of(job: str) -> str:
    return slurm("squeue", "--noheader", "--format=%T", f"--jobs={job}", "--states=all").strip()


@pytest.fixture
def unfinished(cluster, small, tmp_path):
    """A copy of the small study whose encoder is missing, with all that hangs on it."""
    copy = object.__new__(Project)
    copy.folder = tmp_path / "project"
    shutil.copytree(small.folder, copy.folder, symlinks=True)
    shutil.rmtree(results(copy) / "encoders")
    yield copy
    for job in slurm("squeue", "--noheader", "--format=%A").split():
        subprocess.run(["scancel", job])
    until(lambda: not slurm("squeue", "--noheader"), "an empty queue")


def training(driver: Driver, after: str = "") -> str:
    """Wait until pretraining has made some steps; return its job."""

    def begun() -> bool:
        log = results(driver.project) / LOG
        return log.exists() and "pairs/s" in log.read_text() and len(driver.jobs("pretrain")) > 0

    (results(driver.project) / LOG).unlink(missing_ok=True)
    until(begun, f"pretraining\n{driver.text[-3000:]}")
    until(checkpoints(driver.project), "a checkpoint")
    return driver.jobs("pretrain")[-1]


def checkpoints(project: Project) -> Callable[[], list[Path]]:
    return lambda: list((results(project) / ENCODER / "checkpoints").glob("*.pt"))


def check_end(project: Project, small: Project) -> None:
    """The same tables as without SLURM; nothing lost, doubled, half-written or locked."""
    for number in (1, 2, 3):
        name = f"tables/table{number}.csv"
        assert (results(project) / name).read_bytes() == (results(small) / name).read_bytes()
    weights = f"{ENCODER}/encoder.safetensors"
    assert (results(project) / weights).read_bytes() == (results(small) / weights).read_bytes()
    assert not checkpoints(project)()
    assert not [path for path in results(project).rglob("*.tmp")]
    records = {path.relative_to(results(project)) for path in results(project).rglob("run.json")}
    assert records == {
        path.relative_to(results(small)) for path in results(small).rglob("run.json")
    }
    assert not list((project.folder / ".snakemake/locks").glob("*"))
    done = project.run("tables", "--cores", "1", "--dry-run", *SMALL)
    assert "Nothing to be done" in done.stdout, done.stdout[-3000:]
    assert not slurm("squeue", "--noheader")


def resumed(project: Project) -> bool:
    return "resume" in (results(project) / LOG).read_text()


def test_a_cancelled_job_is_submitted_again_and_goes_on_where_it_was(unfinished, small):
    driver = Driver(unfinished)
    slurm("scancel", training(driver))
    driver.ends()
    assert len(driver.jobs("pretrain")) == 2
    assert resumed(unfinished)
    check_end(unfinished, small)


def test_a_job_over_its_time_saves_before_the_end_and_goes_on_in_the_next(unfinished, small):
    driver = Driver(unfinished, "--set-resources", "pretrain:runtime=0.5*attempt")
    driver.ends()
    assert len(driver.jobs("pretrain")) >= 2
    assert resumed(unfinished)
    assert "saved" in driver.text
    check_end(unfinished, small)


def test_a_driver_killed_while_a_job_runs_is_started_again_by_one_command(unfinished, small):
    driver = Driver(unfinished)
    job = training(driver)
    driver.process.kill()
    driver.process.wait()
    assert state_of(job) == "RUNNING"
    again = Driver(unfinished, command=("scripts/restart_slurm.py",))
    assert "cancel 1 jobs" in until(lambda: "cancel" in again.text and again.text, "cancelling")
    again.ends()
    assert job not in again.jobs("pretrain") and len(again.jobs("pretrain")) == 1
    assert resumed(unfinished)
    check_end(unfinished, small)
