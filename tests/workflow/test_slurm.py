"""The study on a real SLURM: whole, and with everything going wrong that does on a cluster.

`make test-slurm` runs all of it; it wants Debian's slurm-wlm, munge, slurmdbd and mariadb-server,
and root, and starts a cluster of its own on this machine (tests/cluster/up.sh).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, Project, edit, results, study_with

CLUSTER = ROOT / "tests" / "cluster"
SYSTEM = f"{os.environ['PATH']}:/usr/sbin"
NEEDED = ("sbatch", "slurmctld", "munged", "slurmdbd", "mariadbd")
INSTALLED = os.getuid() == 0 and all(shutil.which(name, path=SYSTEM) for name in NEEDED)
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not INSTALLED, reason="SLURM is not installed, or this is not root"),
]
# Those that continuous integration waits for.
ci = pytest.mark.ci
PROFILE = ("--profile", "profiles/slurm", "--workflow-profile", "tests/cluster/site")
SMALL = ("--configfile", "tests/tiny/study.yaml", "tests/cluster/small.yaml")
IMPATIENT = (str(CLUSTER / "driver.py"),)
SEED = "deepcluster_v2/seed0"
LOG = f"logs/pretrain/{SEED}.log"
PATIENCE_S = 480
# Every stage, and each kind of job that wants a GPU.
FEW = {
    "encoders": ["simclr", "image_quality"],
    "probes": ["knn", "logistic", "finetune_paper", "finetune_searched"],
}
ALL = yaml.safe_load((ROOT / "tests/tiny/study.yaml").read_text())["study"]["encoders"]


@pytest.fixture(scope="session")
def cluster():
    """Start a cluster for all tests, and stop it after the last."""
    os.environ.pop("SLURM_CONF", None)
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
    """Snakemake on the login node, in a process of its own.

    `pretrain` are resources of the job that things happen to, beside those of the site.
    """

    def __init__(
        self,
        project: Project,
        *words: str,
        target: str = "tables",
        command: tuple[str, ...] = IMPATIENT,
        environment: Mapping[str, str] | None = None,
        **pretrain: object,
    ):
        self.project = project
        self.log = project.folder / f"driver{time.monotonic_ns()}.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # On the command line they replace the site's.
        own = {"slurm_partition": "gpuall", "mem_mb": 1500} | pretrain
        resources = [f"pretrain:{name}={value}" for name, value in own.items()]
        line = [*command, target, *PROFILE, *words, "--set-resources", *resources, *SMALL]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, *line],
                cwd=project.folder,
                env=os.environ | {"PATH": path} | dict(environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                # Whoever started the tests may have told them to ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def ends(self, well: bool = True) -> str:
        """Wait until it ends, well or not; return what it has printed."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"does not end\n{queue()}\n{self.text[-4000:]}") from None
        assert (code == 0) == well, self.text[-4000:]
        return self.text

    def jobs(self) -> list[str]:
        """Return the SLURM jobs of pretraining, in the order of their submission."""
        return re.findall(r"SLURM jobid (\d+) \(log: \S*rule_pretrain/", self.text)

    def training(self) -> str:
        """Wait until pretraining has saved a state; return its job."""

        def begun() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(self.text[-4000:])
            return bool(self.jobs()) and bool(checkpoints(self.project))

        until(begun, "pretraining")
        return self.jobs()[-1]


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"{what}: waited {PATIENCE_S} s\n{queue()}"
        time.sleep(0.2)


def slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def queue() -> str:
    return slurm("squeue", "--format=%A %T %P %N %r %j")


def about(job: str, what: str) -> str:
    """Return what squeue says of a job: %T is its state, %N its node."""
    return slurm("squeue", "--noheader", f"--format={what}", f"--jobs={job}", "--states=all")


@pytest.fixture
def unfinished(cluster, small, tmp_path):
    """A copy of the small study whose encoder is missing, with all that hangs on it."""
    copy = Project(tmp_path / "project", of=small)
    for name in ("encoders", "features", "predictions", "scores", "replicates", "tables"):
        shutil.rmtree(results(copy) / name)
    (results(copy) / LOG).unlink()
    yield copy
    for job in slurm("squeue", "--noheader", "--format=%A").split():
        subprocess.run(["scancel", job])
    until(lambda: not slurm("squeue", "--noheader"), "an empty queue")


def checkpoints(project: Project) -> list[Path]:
    return list((results(project) / f"encoders/{SEED}/checkpoints").glob("*.pt"))


def resumed(project: Project) -> bool:
    return "resumes at step" in (results(project) / LOG).read_text()


def check_end(project: Project, small: Project) -> None:
    """The same results as without SLURM; nothing lost, doubled, half-written or locked."""
    same = [f"tables/table{number}.csv" for number in (1, 2, 3)]
    same += [f"encoders/{SEED}/encoder.safetensors", "tables/metrics.csv"]
    for name in same:
        assert (results(project) / name).read_bytes() == (results(small) / name).read_bytes(), name
    assert files(project) == files(small)
    assert not list((project.folder / ".snakemake/locks").glob("*"))
    assert not list((project.folder / ".snakemake/incomplete").glob("*"))
    done = project.run("tables", "--cores", "1", "--dry-run", *SMALL)
    assert "Nothing to be done" in done.stdout, done.stdout[-3000:]
    assert not slurm("squeue", "--noheader")


def files(project: Project) -> set[str]:
    """Return the files of a study, but logs and the records of failed attempts."""
    folder = results(project)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("logs/")}


@ci
def test_a_cancelled_job_is_submitted_again_and_goes_on_where_it_was(unfinished, small):
    driver = Driver(unfinished)
    slurm("scancel", driver.training())
    driver.ends()
    assert len(driver.jobs()) == 2
    assert resumed(unfinished)
    check_end(unfinished, small)


def test_a_job_over_its_time_saves_before_the_end_and_goes_on_in_the_next(unfinished):
    edit(unfinished, "tests/cluster/small.yaml", "epochs: 400", "epochs: 1500")
    encoder = f"results/tiny/encoders/{SEED}/encoder.safetensors"
    driver = Driver(unfinished, target=encoder, runtime="attempt")
    alone = Project(unfinished.folder.with_name("alone"), of=unfinished)
    done = alone.run(encoder, "--cores", "1", *SMALL)
    assert done.returncode == 0, done.stdout[-3000:]
    driver.ends()
    assert len(driver.jobs()) >= 2
    assert resumed(unfinished) and not checkpoints(unfinished)
    whole, parts = (project.folder / encoder for project in (alone, unfinished))
    assert whole.read_bytes() == parts.read_bytes()


@ci
def test_a_driver_killed_while_a_job_runs_is_started_again_by_one_command(unfinished, small):
    driver = Driver(unfinished)
    job = driver.training()
    driver.process.kill()
    driver.process.wait()
    assert about(job, "%T") == "RUNNING"
    again = Driver(unfinished, command=("scripts/restart_slurm.py",))
    again.ends()
    assert f"cancel 1 jobs of an earlier run: {job}" in again.text
    assert len(again.jobs()) == 1
    assert resumed(unfinished)
    check_end(unfinished, small)


def test_a_driver_that_is_interrupted_takes_its_jobs_with_it(unfinished, small):
    driver = Driver(unfinished)
    job = driver.training()
    driver.process.send_signal(signal.SIGINT)
    driver.ends(well=False)
    until(lambda: about(job, "%T") != "RUNNING", "the job's end")
    again = Driver(unfinished)
    again.ends()
    assert resumed(unfinished)
    check_end(unfinished, small)


def test_a_driver_that_is_terminated_waits_for_its_jobs(unfinished, small):
    driver = Driver(unfinished)
    job = driver.training()
    driver.process.send_signal(signal.SIGTERM)
    driver.ends(well=False)
    assert about(job, "%T") == "COMPLETED"
    again = Driver(unfinished)
    again.ends()
    assert not again.jobs(), "what was waited for is not done again"
    check_end(unfinished, small)


def test_a_job_over_its_memory_gets_more_in_the_next_attempt(unfinished, small):
    driver = Driver(unfinished, mem_mb="500*attempt")
    driver.ends()
    assert len(driver.jobs()) >= 2
    check_end(unfinished, small)


def test_a_job_whose_node_goes_down_ends_on_another(unfinished, small):
    driver = Driver(unfinished)
    job = driver.training()
    node = about(job, "%N")
    try:
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        # Its daemon is well and would bring it back at once.
        slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        driver.ends()
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"])
    record = json.loads((results(unfinished) / f"runs/pretrain/{SEED}/run.json").read_text())
    assert record["node"] != node
    check_end(unfinished, small)


def test_a_preempted_job_is_queued_again_by_slurm_and_runs_once_at_a_time(unfinished, small):
    driver = Driver(unfinished, slurm_partition="gpu")
    job = driver.training()
    slurm("sbatch", "--partition=urgent", "--nodelist=gpu1", "--cpus-per-task=8", "--wrap=sleep 5")
    until(lambda: about(job, "%T") != "RUNNING", "preemption")
    driver.ends()
    assert driver.jobs() == [job]
    assert resumed(unfinished)
    check_end(unfinished, small)


def test_jobs_and_driver_outlive_a_controller_that_is_restarted(unfinished, small):
    driver = Driver(unfinished)
    driver.training()
    root = Path(os.environ.get("SLURM_ROOT", f"{os.environ.get('TMPDIR', '/tmp')}/slurm-test"))
    pid = int((root / "run/slurmctld.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    time.sleep(10)
    subprocess.run(["slurmctld"], env=os.environ | {"PATH": SYSTEM}, check=True)
    driver.ends()
    check_end(unfinished, small)


def test_a_full_disk_is_one_message_and_the_next_run_ends(unfinished, small):
    folder = results(unfinished) / "encoders"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        driver = Driver(unfinished)
        driver.ends(well=False)
        assert len(driver.jobs()) == 3
        assert "No space left on device" in (results(unfinished) / LOG).read_text()
        assert not list(folder.rglob("encoder.*"))
    finally:
        subprocess.run(["umount", folder], check=True)
    Driver(unfinished).ends()
    check_end(unfinished, small)


def test_a_job_that_fails_on_one_node_only_ends_when_that_node_is_left_out(unfinished, small):
    hook = unfinished.folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, sys\n"
        "here = os.environ.get('SLURMD_NODENAME')\n"
        "if here == 'gpu1' and any('pretrain.py' in word for word in sys.orig_argv[:3]):\n"
        "    sys.exit('this node is broken')\n"
    )
    environment = {"PYTHONPATH": str(hook)}
    driver = Driver(unfinished, environment=environment, slurm_partition="gpu")
    driver.ends(well=False)
    assert "this node is broken" in (results(unfinished) / LOG).read_text()
    left_out = ("--slurm-exclude-failed-nodes", "gpu1")
    Driver(unfinished, *left_out, environment=environment).ends()
    check_end(unfinished, small)


@pytest.mark.parametrize(
    "study", [pytest.param(FEW, marks=ci), {"encoders": ALL}], ids=["few", "all"]
)
def test_the_whole_study_ends_as_without_slurm_on_the_gpus_it_was_given(cluster, tmp_path, study):
    project, alone = (Project(tmp_path / name) for name in ("on_slurm", "alone"))
    for one in (project, alone):
        study_with(one, study=study)
    done = alone.study()
    assert done.returncode == 0, done.stdout[-5000:]
    config = ("--configfile", "tests/tiny/study.yaml")
    report = ("--slurm-efficiency-report", "--slurm-efficiency-report-path", "efficiency")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, *IMPATIENT, *PROFILE, *report, *config],
        cwd=project.folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (tmp_path / "driver.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:]
    tables = sorted((results(alone) / "tables").glob("*.csv"))
    assert tables
    for table in tables:
        assert (results(project) / "tables" / table.name).read_bytes() == table.read_bytes(), table
    records = [json.loads(path.read_text()) for path in results(project).rglob("runs/**/run.json")]
    by_job = [record for record in records if record["slurm_job_id"]]
    assert {record["node"] for record in by_job} == {"cpu1", "gpu1", "gpu2"}
    on_gpus = [record for record in by_job if record["gpus"]]
    assert {record["stage"] for record in on_gpus} == {
        "pretrain",
        "search",
        "probes",
        "probe_search",
    }
    for one, other in combinations(on_gpus, 2):
        same_gpu = (one["node"], one["gpus"]) == (other["node"], other["gpus"])
        assert not (same_gpu and overlap(one, other)), (one["key"], other["key"])
    [efficiency] = (project.folder / "efficiency").glob("*.csv")
    table = pd.read_csv(efficiency)  # a row per job step
    assert set(table["MainJobID"].astype(str)) == {record["slurm_job_id"] for record in by_job}


def overlap(one: dict, other: dict) -> bool:
    """Return whether two jobs ran at the same time, by their records, to the second."""
    spans = []
    for record in (one, other):
        started = pd.Timestamp(record["started"])
        spans.append((started, started + pd.Timedelta(seconds=record["cost"]["wall_s"] - 1)))
    return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]
