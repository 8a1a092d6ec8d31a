"""The record of a job: what ran, with what, on what, how long, and what came out."""

import math
import os
import platform
import resource
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hcsqc.core.digest import SCRIPTS, code_digest
from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256, text_digest, write_checked_json, write_json
from hcsqc.core.ids import job_key, stage_of

PACKAGES = (
    "snakemake",
    "torch",
    "timm",
    "solo-learn",
    "scikit-learn",
    "numpy",
    "pandas",
    "pyarrow",
    "opencv-python-headless",
    "tifffile",
    "imagecodecs",
    "zarr",
)
# Larger inputs (shards of a whole plate) are recorded by name and size alone.
LARGEST_DIGESTED_BYTES = 64 * 2**20
# Flags that say where and how a job runs, not what it computes.
NO_PARAMETERS = ("images", "plate_images", "record", "threads", "scratch", "tracking_uri", "study")
# Kept of an error and its traceback, from the end.
LAST_CHARACTERS = 2000


class Record:
    """Time a job and write `run.json` when it ends well, `failed.json` beside it when not.

    Until it ends `failed.json` says that it runs, which is what is left of a killed job.

    The job adds `parameters`, `curves` (a list of points), `metrics` and `device`; inputs are the
    files among the arguments.
    """

    def __init__(
        self,
        path: Path,
        script: str,
        arguments: Mapping[str, object],
        plugin: str | None = None,
    ):
        """Record a job of `script`, and of the plugin that it runs, as `code_digest` has them."""
        self.path, self.script, self.arguments, self.plugin = path, script, arguments, plugin
        self.parameters: dict[str, object] = {}
        self.metrics: dict[str, float] = {}
        self.curves: list[dict[str, float]] = []
        self.device = "cpu"
        self.gpu_memory_mb: float | None = None

    def __enter__(self) -> "Record":
        self.started = datetime.now(UTC)
        self.wall = time.monotonic()
        self.inputs = _input_digests(self.arguments)
        self.input_times = {path: Path(path).stat().st_mtime_ns for path in self.inputs}
        # Of the code that runs, whatever is edited meanwhile.
        self.git, self.code_digest = _git(), code_digest(self.script, self.plugin)
        self.failed = self.path.with_name("failed.json")
        write_json(self._as_json("RUNNING"), self.failed)
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._leave_out_outputs()
        if error is None:
            write_checked_json(self._as_json("FINISHED"), self.path)
            self.failed.unlink(missing_ok=True)
        elif isinstance(error, KeyboardInterrupt):
            self.failed.unlink(missing_ok=True)
        else:
            short = isinstance(error, InputError)
            told = str(error) if short else "".join(traceback.format_exception(error))
            write_json(self._as_json("FAILED") | {"error": told[-LAST_CHARACTERS:]}, self.failed)

    def _leave_out_outputs(self) -> None:
        """Drop the files that the job has written: outputs that an earlier run had left."""
        self.inputs = {
            path: about
            for path, about in self.inputs.items()
            if Path(path) != self.path
            and Path(path).is_file()
            and Path(path).stat().st_mtime_ns == self.input_times[path]
        }

    def _as_json(self, status: str) -> dict[str, object]:
        plain = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in self.arguments.items()
            if not _is_file_argument(value) and name not in NO_PARAMETERS
        }
        return {
            "key": job_key(self.path),
            "stage": stage_of(job_key(self.path)),
            "script": self.script,
            "status": status,
            "started": self.started.isoformat(timespec="seconds"),
            "parameters": plain | self.parameters,
            "metrics": _finite(self.metrics),
            "curves": [_finite(point) for point in self.curves],
            "cost": self._cost(),
            "inputs": self.inputs,
            "versions": {"python": platform.python_version()} | _versions(),
            "git": self.git,
            "code_digest": self.code_digest,
            "config_digest": text_digest(repr(sorted(plain.items())))[:16],
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }

    def _cost(self) -> dict[str, object]:
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        return {
            "wall_s": round(time.monotonic() - self.wall, 2),
            "cpu_s": round(cpu, 2),
            "peak_memory_mb": round(max(own.ru_maxrss, children.ru_maxrss) / 1024),
            "device": self.device,
            "gpu_memory_mb": self.gpu_memory_mb,
        }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values with null for what JSON cannot hold: infinity and not-a-number."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _is_file_argument(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(item, Path) for item in values)


def _input_digests(arguments: Mapping[str, object]) -> dict[str, dict[str, object]]:
    values = [
        v for value in arguments.values() for v in (value if isinstance(value, list) else [value])
    ]
    files = [value for value in values if isinstance(value, Path) and value.is_file()]
    digests: dict[str, dict[str, object]] = {}
    for path in files:
        size = path.stat().st_size
        digests[str(path)] = {
            "bytes": size,
            "sha256": sha256(path) if size <= LARGEST_DIGESTED_BYTES else None,
        }
    return digests


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, object]:
    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", SCRIPTS, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        print("git is not installed; the record states no commit", file=sys.stderr)
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes) if commit else None}
