"""Snakemake killed at any moment, alone or with its jobs: the documented commands finish the study.

The last result is that of a study which nothing has disturbed, byte for byte, but for the times of
images in `summary`: the two have copies of their own.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hcsqc.core.schema import read_table
from tests.conftest import Project, results

pytestmark = [pytest.mark.dag, pytest.mark.long, pytest.mark.faults]

KILLS = 3
# Seconds after its start at which Snakemake is killed: while it plans, and in the midst of jobs.
MOMENTS = (3.0, 25.0)
COMMAND = ("--cores", "2", "--max-threads", "1", "--configfile", "tests/tiny/study.yaml")
FOLDERS = ("crops", "encoders", "features", "labels", "predictions", "scores", "splits", "tables")
# Other files hold times and names of folders, which differ between any two runs.
ENDINGS = (".parquet", ".safetensors", ".csv")


def start(project: Project, *words: str) -> subprocess.Popen:
    """Start the documented command, in a session of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (project.folder / "printed.txt").open("w") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *words],
            cwd=project.folder,
            env=os.environ | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run(project: Project, *words: str) -> tuple[int, str]:
    """Run a command; return its status and what it printed."""
    status = start(project, *words).wait()
    return status, (project.folder / "printed.txt").read_text()


def content(path: Path) -> bytes:
    """Return the bytes of a file; of a summary its rows without the times of images."""
    if not path.name.endswith(".summary.parquet"):
        return path.read_bytes()
    return read_table(path, "summary").drop(columns="image_changed_ns").to_json().encode()


def contents(project: Project) -> dict[str, bytes]:
    """Return the bytes of all tables, crops and networks of a study."""
    top = results(project)
    return {
        path.relative_to(top).as_posix(): content(path)
        for folder in FOLDERS
        for path in (top / folder).rglob("*")
        if path.is_file() and path.name.endswith(ENDINGS)
    }


def kill(driver: subprocess.Popen, with_its_jobs: bool) -> None:
    """Kill Snakemake as `kill -9` does, or it and all its jobs as a loss of power does."""
    if with_its_jobs:
        os.killpg(driver.pid, signal.SIGKILL)
    else:
        driver.kill()
    driver.wait()


@pytest.mark.parametrize("seed", [1])
def test_a_study_whose_snakemake_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    seed, tiny, tmp_path
):
    chance = random.Random(seed)
    project = Project(tmp_path / "project")
    killed = 0
    for turn in range(KILLS):
        driver = start(project, *COMMAND)
        time.sleep(chance.uniform(*MOMENTS))
        if driver.poll() is not None:
            break
        killed += 1
        kill(driver, with_its_jobs=turn % 2 == 1)
        assert run(project, "--unlock")[0] == 0
    assert killed >= KILLS // 2, "most must have hit a living Snakemake"
    # What a killed Snakemake left behind may have refused a second copy; once more, as it says.
    for _ in range(3):
        status, printed = run(project, *COMMAND)
        assert "rerun-incomplete" not in printed and "cannot be locked" not in printed, printed
        if not status:
            break
        assert "wait until it ends" in printed, printed[-6000:]
        time.sleep(20)
    assert status == 0, printed[-6000:]
    assert contents(project) == contents(tiny)
    assert not list(results(project).rglob("checkpoints")), "removed when all is in place"
    assert not list(results(project).rglob("*.partial"))
    assert "Nothing to be done" in run(project, *COMMAND)[1]


def test_snakemake_that_was_killed_says_what_to_do_and_the_command_then_goes_on(tmp_path):
    project = Project(tmp_path / "project")
    crops = ("crops", *COMMAND)
    driver = start(project, *crops)
    deadline = time.monotonic() + 300
    while not list((results(project) / "runs/scale").rglob("run.json")):
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.1)
    kill(driver, with_its_jobs=True)
    status, printed = run(project, *crops)
    assert status and "can be removed with the --unlock argument" in printed
    assert run(project, "--unlock")[0] == 0
    status, printed = run(project, *crops)
    assert status == 0, printed[-6000:]
