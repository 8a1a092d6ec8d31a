"""Records of jobs: what they hold, when they appear, and what they are called."""

import json
import os
import platform
import re
import resource
import socket
import subprocess
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest

from hcsqc.core import records
from hcsqc.core.digest import SCRIPTS, code_digest
from hcsqc.core.ids import job_key
from hcsqc.core.records import Record

SCRIPT = "report/save_config.py"


def recorded(path: Path, job=lambda record: None, **arguments) -> dict:
    """Return what a job's record says."""
    with Record(path, SCRIPT, {"record": path, **arguments}) as record:
        job(record)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "results/tiny/runs/probes/simclr/seed0/knn/budget25/run.json"


def test_a_record_holds_what_ran_where_and_how_long(path):
    before = datetime.now(UTC).replace(microsecond=0)
    found = recorded(path, neighbours=5)
    assert found["key"] == "probes/simclr/seed0/knn/budget25"
    assert found["stage"] == "probes"
    assert (found["script"], found["status"]) == (SCRIPT, "FINISHED")
    assert before <= datetime.fromisoformat(found["started"]) <= datetime.now(UTC)
    assert found["node"] == socket.gethostname()
    assert found["code_digest"] == code_digest(SCRIPT)
    assert found["versions"]["python"] == platform.python_version()
    for package in ("torch", "timm", "scikit-learn", "numpy"):
        assert found["versions"][package] == version(package)


def test_a_record_tells_the_cost(path):
    def work(record):
        record.device, record.gpu_memory_mb = "cuda", 12.5
        sum(i * i for i in range(300_000))

    cost = recorded(path, work)["cost"]
    assert cost["wall_s"] >= 0 and cost["cpu_s"] > 0
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kb = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])
    children_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of other tests
    assert cost["peak_memory_mb"] == pytest.approx(max(peak_kb, children_kb) / 1024, rel=0.2)
    assert (cost["device"], cost["gpu_memory_mb"]) == ("cuda", 12.5)


def test_a_record_names_the_commit_that_git_names(path):
    done = subprocess.run(
        ["git", "-C", SCRIPTS, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    commit = done.stdout.strip() if done.returncode == 0 else None
    assert recorded(path)["git"]["commit"] == commit


def test_a_machine_without_git_names_no_commit_and_says_so(path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert recorded(path)["git"] == {"commit": None, "dirty": None}
    assert "git is not installed" in capsys.readouterr().err


def test_a_record_names_the_slurm_job(path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert recorded(path)["slurm_job_id"] is None
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert recorded(path)["slurm_job_id"] == "4711"


def test_a_record_names_the_node_and_the_gpus_that_slurm_gave(path, monkeypatch):
    for name in ("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    plain = recorded(path)
    assert plain["node"] and plain["gpus"] is None
    monkeypatch.setenv("SLURMD_NODENAME", "gpu7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    given = recorded(path)
    assert (given["node"], given["gpus"]) == ("gpu7", "2,3")


def test_files_among_the_arguments_are_inputs_with_their_digests(path, tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_bytes(b"a,b\n")
    two.write_bytes(b"")
    found = recorded(path, labels=[one, two], output=tmp_path / "none.csv", budget=25)
    assert found["inputs"] == {
        str(one): {"bytes": 4, "sha256": sha256(b"a,b\n").hexdigest()},
        str(two): {"bytes": 0, "sha256": sha256(b"").hexdigest()},
    }
    assert found["parameters"] == {"budget": 25}


def test_an_output_of_an_earlier_run_is_no_input(path, tmp_path):
    data, output = tmp_path / "data.csv", tmp_path / "output.csv"
    data.write_bytes(b"data")
    output.write_bytes(b"of an earlier run")
    found = recorded(path, lambda record: output.write_bytes(b"new"), data=data, output=output)
    assert found["inputs"] == {str(data): {"bytes": 4, "sha256": sha256(b"data").hexdigest()}}


def test_a_large_input_is_recorded_by_size_alone(path, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LARGEST_DIGESTED_BYTES", 3)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"123")
    large.write_bytes(b"1234")
    found = recorded(path, files=[small, large])["inputs"]
    assert found[str(small)]["sha256"] and found[str(large)] == {"bytes": 4, "sha256": None}


def test_the_config_digest_follows_the_parameters_and_nothing_else(path, tmp_path):
    data = tmp_path / "data.csv"
    data.write_bytes(b"x")
    first = recorded(path, rate=0.1, data=data, threads=1)
    again = recorded(path, rate=0.1, data=tmp_path / "elsewhere", threads=8)
    other = recorded(path, rate=0.2, data=data, threads=1)
    assert first["config_digest"] == again["config_digest"] != other["config_digest"]
    assert "threads" not in first["parameters"]


def test_what_the_job_adds_is_recorded(path):
    def job(record):
        record.parameters = {"crops": 12}
        record.metrics = {"loss": 0.5}
        record.curves = [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 0.5}]

    found = recorded(path, job, epochs=2)
    assert found["parameters"] == {"epochs": 2, "crops": 12}
    assert found["metrics"] == {"loss": 0.5}
    assert [point["loss"] for point in found["curves"]] == [2.0, 0.5]


def test_a_failed_attempt_leaves_a_record_that_success_removes(path):
    def fail(record):
        record.metrics = {"steps": 3}
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        recorded(path, fail)
    failed = path.with_name("failed.json")
    assert not path.exists()
    found = json.loads(failed.read_text())
    assert found["status"] == "FAILED"
    assert found["error"].endswith("ValueError: the disk is full\n")
    assert found["error"].startswith("Traceback (most recent call last):")
    assert found["key"] == job_key(path) and found["metrics"] == {"steps": 3}
    recorded(path)
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]


def test_a_long_error_is_cut_at_its_beginning(path):
    def fail(record):
        raise ValueError("x" * 5000 + "the end")

    with pytest.raises(ValueError, match="the end"):
        recorded(path, fail)
    error = json.loads(path.with_name("failed.json").read_text())["error"]
    assert len(error) == 2000 and error.endswith("the end\n")


def test_a_record_that_cannot_be_renamed_into_place_leaves_nothing_behind(path, monkeypatch):
    recorded(path, rate=1)
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"), Record(path, SCRIPT, {"record": path, "rate": 2}):
        pass
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]
    assert json.loads(path.read_text())["parameters"] == {"rate": 1}, "the old one is whole"


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ("results/demo/runs/report/run.json", "report"),
        ("results/demo/runs/crops/sim022/30001/run.json", "crops/sim022/30001"),
        ("/abs/results/demo/runs/figures/scores/failed.json", "figures/scores"),
        ("somewhere/else/run.json", "else"),
    ],
)
def test_a_jobs_key_is_its_path_below_runs(record, key):
    assert job_key(Path(record)) == key
