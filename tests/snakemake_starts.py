"""Starts of Snakemake by a process that has imported it: a start is a fork, not seconds of imports.

A process of its own all the same, with its own folder, environment and output; nothing of the
project is imported before it starts.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def start(
    words: Sequence[object], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder; return its status, and what it and its jobs printed."""
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as printed:
        asked = {
            "words": [str(word) for word in words],
            "folder": str(folder),
            "environment": dict(environment),
            "printed": printed.name,
        }
        server = _server()
        server.stdin.write(f"{json.dumps(asked)}\n")
        server.stdin.flush()
        status = server.stdout.readline()
        if not status:
            raise RuntimeError(f"Snakemake's server ended with status {server.wait()}")
        return subprocess.CompletedProcess(words, int(status), printed.read())


@cache
def _server() -> Any:
    server = subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    import pandas  # noqa: F401
    import pydantic  # noqa: F401
    from snakemake.cli import get_argument_parser, main

    get_argument_parser()  # loads all plugins
    assert "hcsqc" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                _become(json.loads(line))
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict) -> None:
    """Make a fork what `python -m snakemake` would be."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path.insert(0, asked["folder"])
    sys.argv = ["snakemake", *asked["words"]]
    printed = os.open(asked["printed"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(source, target)
    os.close(printed)
    os.close(nothing)


if __name__ == "__main__":
    _serve()
