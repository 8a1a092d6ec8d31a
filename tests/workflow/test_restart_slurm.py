"""Starting again after a killed Snakemake: what it left in the queue is cancelled first."""

import os
import subprocess
import sys
import time

import pytest

from scripts import restart_slurm
from scripts.restart_slurm import jobs_of, run_ids, snakemakes_here, wait_until_gone

RUN = "7f0ed1ad-6435-40af-b7f2-299e51d94654"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A squeue and a scancel that work on a file of `id name` lines."""
    queue = tmp_path / "queue"
    queue.write_text(f"11 {RUN}\n12 another\n13 {RUN}\n")
    folder = tmp_path / "bin"
    folder.mkdir()
    squeue = f"""#!/bin/sh
for word in "$@"; do case "$word" in --name=*) names=",${{word#--name=}},";; esac; done
while read -r id name; do
  case "${{names:-,$name,}}" in *",$name,"*) echo "$id $name";; esac
done < {queue}
"""
    scancel = f"""#!/bin/sh
for id in "$@"; do sed -i "/^$id /d" {queue}; done
"""
    for name, text in (("squeue", squeue), ("scancel", scancel)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return queue


def project(tmp_path):
    folder = tmp_path / "study"
    logs = folder / ".snakemake/log"
    logs.mkdir(parents=True)
    (logs / "2026-01-01T000000.000000.snakemake.log").write_text(f"host\nSLURM run ID: {RUN}\n")
    (folder / "Snakefile").write_text('rule all:\n    output: "done"\n    shell: "touch done"\n')
    return folder


def restart(folder, *words):
    command = [sys.executable, restart_slurm.__file__, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_run_ids_are_those_of_this_folders_logs(tmp_path):
    folder = project(tmp_path)
    assert run_ids(folder / ".snakemake/log") == {RUN}
    assert run_ids(tmp_path / "none") == set()


def test_only_jobs_of_these_runs_are_meant(commands):
    assert jobs_of({RUN}) == ["11", "13"]
    assert jobs_of({"nobody"}) == jobs_of(set()) == []


def test_what_was_left_is_cancelled_the_lock_is_gone_and_the_study_runs(commands, tmp_path):
    folder = project(tmp_path)
    locks = folder / ".snakemake/locks"
    locks.mkdir()
    (locks / "0.output.lock").write_text("done\n")
    plain = [sys.executable, "-m", "snakemake", "--cores", "1"]
    refused = subprocess.run(plain, cwd=folder, capture_output=True, text=True)
    assert refused.returncode != 0 and "lock" in refused.stdout + refused.stderr
    done = restart(folder, "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert "cancel 2 jobs of an earlier run: 11 13" in done.stdout
    assert commands.read_text() == "12 another\n"
    assert (folder / "done").exists()


def test_a_living_snakemake_in_the_folder_is_left_alone(commands, tmp_path):
    folder = project(tmp_path)
    (folder / "Snakefile").write_text('rule all:\n    output: "done"\n    shell: "sleep 60"\n')
    environment = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    words = [sys.executable, "-m", "snakemake", "--cores", "1"]
    living = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 30
        while not snakemakes_here(folder) and time.monotonic() < until:
            time.sleep(0.1)
        assert snakemakes_here(folder) == [living.pid]
        assert snakemakes_here(tmp_path) == []
        refused = restart(folder, "--cores", "1")
        assert refused.returncode == 1
        assert f"Snakemake is still running in this folder (process {living.pid})" in refused.stderr
        assert "11" in commands.read_text(), "nothing was cancelled"
    finally:
        living.terminate()
        living.wait()


def test_jobs_that_do_not_end_are_named(commands, monkeypatch):
    monkeypatch.setattr(restart_slurm, "PATIENCE_S", 0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(SystemExit, match="jobs 11 do not end"):
        wait_until_gone(["11"])


def test_without_slurm_it_says_where_to_run(tmp_path, monkeypatch):
    folder = project(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = restart(folder, "--cores", "1")
    assert refused.returncode == 1
    assert "squeue is not installed here; run this on the cluster's login node" in refused.stderr


def test_without_arguments_it_says_how_it_is_used(tmp_path):
    said = restart(tmp_path)
    assert said.returncode == 1 and "restart_slurm.py --profile slurm" in said.stderr
