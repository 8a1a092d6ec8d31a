"""What the workflow itself costs: planning the paper's study, one ten times as large, and a job.

Plans are dry runs under the SLURM profile. Jobs are counted from what they print: those that run
on the login node, and submissions, which light jobs share. `parse` is what each job of a cluster
pays before its command: reading all rules, beyond what a workflow of one rule costs.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks import common

ROOT = Path(__file__).resolve().parent.parent

LOCAL_RULE = re.compile(r"^rule (\w+):\n(?:(?: .*)?\n)*?    localrule: True$", re.MULTILINE)
PLATES, ENCODERS, SEEDS = 200, 20, 10
TOY = 'rule all:\n    output: "done"\n    shell: "touch done"\n'


def main() -> None:
    """Read the flags, plan both studies, parse the workflow; print a table."""
    args = common.parser(__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        larger = Path(folder) / "larger.yaml"
        larger.write_text(yaml.safe_dump(ten_times()))
        for name, words in (("paper's study", []), ("ten times", ["--configfile", str(larger)])):
            seconds, memory, printed = plan(words)
            jobs, submissions = count(printed)
            rows.append((name, jobs, submissions, round(seconds, 1), round(memory)))
        (Path(folder) / "Snakefile").write_text(TOY)
        whole = min(parse(ROOT) for _ in range(args.rounds))
        bare = min(parse(Path(folder)) for _ in range(args.rounds))
        rows.append(("parse", None, None, round(whole - bare, 2), None))
    names = ("work", "jobs", "submissions", "seconds", "memory_mb")
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join('' if value is None else str(value) for value in row)} |")
    if args.json:
        args.json.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))


def ten_times() -> dict:
    """Return what to put on top of config.yaml."""
    names = [f"simclr{number:02d}" for number in range(ENCODERS)]
    return {
        "study": {"encoders": names, "not_run": {}, "seeds": list(range(SEEDS))},
        "screens": {
            "BBBC022": {
                "plates": [str(30001 + number) for number in range(PLATES)],
                "pretrain_plates": ["30001"],
            }
        },
        "encoders": {
            name: {"kind": "ssl", "method": "simclr", "preset": "paper"} for name in names
        },
    }


def plan(words: list[str]) -> tuple[float, float, str]:
    """Return the seconds and MB of a dry run, and what it printed."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--dry-run"]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen([*command, *words], cwd=ROOT, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        output.seek(0)
        printed = output.read()
    if status:
        sys.exit(printed[-3000:])
    return seconds, usage.ru_maxrss / 1024, printed


def count(printed: str) -> tuple[int, int]:
    """Return the jobs of a dry run, and the submissions that they are."""
    table = printed.split("Job stats:")[1].split("\n\n")[0]
    rows = [line.split() for line in table.splitlines()[3:] if line.strip()]
    jobs = {name: int(number) for name, number in rows}
    local = {
        name
        for path in (ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk"))
        for name in LOCAL_RULE.findall(path.read_text())
    }
    # Jobs of a group stand below its line, indented.
    alone = re.findall(r"^rule (\w+):", printed, re.MULTILINE)
    groups = len(re.findall(r"Group job ", printed))
    return jobs["total"], groups + sum(name not in local for name in alone)


def parse(folder: Path) -> float:
    """Return the seconds that Snakemake takes to read the rules of a folder."""
    began = time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--list-rules"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
