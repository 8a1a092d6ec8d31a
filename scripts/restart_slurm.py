"""Start a study again after its Snakemake on the login node was killed or lost its terminal.

Cancels what it left in the queue, so that no job runs twice, waits until it is gone, removes the
lock, and starts Snakemake with the arguments given: python scripts/restart_slurm.py --profile slurm
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

# A job that is told to stop may still save its state: pretraining does.
PATIENCE_S = 300


def main() -> None:
    """Cancel, wait, unlock, start."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        sys.exit(__doc__)
    living = snakemakes_here(Path.cwd())
    if living:
        sys.exit(
            f"error: Snakemake is still running in this folder (process {living[0]}); end it "
            f"first: kill -INT {living[0]}"
        )
    left = jobs_of(run_ids(Path(".snakemake/log")))
    if left:
        print(f"cancel {len(left)} jobs of an earlier run: {' '.join(left)}", flush=True)
        slurm("scancel", *left)
        wait_until_gone(left)
    snakemake = [sys.executable, "-m", "snakemake", *words]
    if subprocess.run([*snakemake, "--unlock"], stdout=sys.stderr).returncode:
        sys.exit("error: the folder could not be unlocked; Snakemake says why above")
    os.execv(sys.executable, [*snakemake, "--rerun-incomplete"])


def snakemakes_here(folder: Path) -> list[int]:
    """Return the processes of this machine that run Snakemake in a folder, but cluster jobs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            here = Path(os.readlink(process / "cwd")) == folder
            in_job = b"SLURM_JOB_ID=" in (process / "environ").read_bytes()
        except OSError:  # ended, or another user's
            continue
        runs = any(Path(os.fsdecode(word)).name == "snakemake" for word in words[:3])
        if here and runs and not in_job:
            found.append(int(process.name))
    return found


def run_ids(logs: Path) -> set[str]:
    """Return the names that Snakemake's runs in this folder gave to their SLURM jobs."""
    return {
        run
        for log in logs.glob("*.snakemake.log")
        for run in re.findall(
            r"SLURM run ID: (\S+)", log.read_text(encoding="utf-8", errors="replace")
        )
    }


def jobs_of(names: set[str]) -> list[str]:
    """Return the ids of the queued and running jobs of these names."""
    if not names:
        return []
    rows = slurm("squeue", "--noheader", "--format=%A %j", f"--name={','.join(sorted(names))}")
    return [row.split()[0] for row in rows.splitlines()]


def wait_until_gone(jobs: list[str]) -> None:
    """Wait until no job is in the queue any more, because one that ends may still be writing."""
    until = time.monotonic() + PATIENCE_S
    while True:
        rows = slurm("squeue", "--noheader", "--format=%A")
        left = sorted(set(jobs) & set(rows.split()))
        if not left:
            return
        if time.monotonic() > until:
            sys.exit(f"error: jobs {' '.join(left)} do not end; check with squeue, then try again")
        time.sleep(1)


def slurm(*words: str) -> str:
    """Return what a command of SLURM prints; an error of it ends this script."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"error: {words[0]} is not installed here; run this on the cluster's login node")
    if done.returncode:
        sys.exit(f"error: {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
