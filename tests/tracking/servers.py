"""Servers on loopback for tests: MLflow's own, and PostgreSQL where it is installed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

PATIENCE_S = 90


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


class MlflowServer:
    """`mlflow server` in a process group of its own, over a database in a folder."""

    def __init__(self, folder: Path, database: str | None = None):
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'server.db'}"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "MlflowServer":
        self.log = open(self.folder / "server.log", "w", encoding="utf-8")
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        words += ["--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", self.database]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            words,
            env=os.environ | quiet,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE_S
        while not self._answers():
            log = self.folder / "server.log"
            assert self.process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.3)
        return self

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server and its workers at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __exit__(self, *_) -> None:
        self.kill()
        self.log.close()


POSTGRES = next(
    (
        folder
        for folder in (
            *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
            Path(shutil.which("postgres") or "/none").resolve().parent,
        )
        if (folder / "initdb").exists()
    ),
    None,
)


class PostgresServer:
    """PostgreSQL with a database `tracking`, on loopback, under the user that may run it."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder / "postgres", free_port()
        self.uri = f"postgresql://tracker@127.0.0.1:{self.port}/tracking"

    def _run(self, *words: str) -> None:
        # PostgreSQL refuses to run as root.
        before = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        done = subprocess.run([*before, *words], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    def __enter__(self) -> "PostgresServer":
        self.folder.mkdir(mode=0o700)
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
            for parent in self.folder.parents:
                if parent != Path("/") and parent.stat().st_uid == 0 and parent != Path("/tmp"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        data = str(self.folder / "data")
        self._run(str(POSTGRES / "initdb"), "-D", data, "-U", "tracker", "-A", "trust")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        log = str(self.folder / "log")
        self._run(str(POSTGRES / "pg_ctl"), "-D", data, "-w", "-l", log, "-o", options, "start")
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "tracker")
        self._run(str(POSTGRES / "createdb"), *where, "tracking")
        return self

    def __exit__(self, *_) -> None:
        self._run(str(POSTGRES / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "fast", "stop")
