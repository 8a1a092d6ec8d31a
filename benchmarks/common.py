"""What the benchmarks share: interleaved rounds, and the table and JSON that they print."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def parser(about: str, rounds: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark has."""
    made = argparse.ArgumentParser(description=about)
    if rounds:
        made.add_argument("--rounds", type=int, default=5, help="of each way, in turn")
    made.add_argument("--json", type=Path, help="write the rows there as well")
    return made


def seconds(
    ways: dict[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median time of each way over `rounds` rounds, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for counted in [False, *[True] * rounds]:
        for name, way in ways.items():
            began = clock()
            way()
            if counted:
                times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def row(work: str, unit: str, per_s: dict[str, float], quality: str | None = None) -> dict:
    """Return a row from rates: `ours`, `baseline`, and `limit` where there is one."""
    limit = per_s.get("limit")
    return {
        "work": work,
        "unit": unit,
        "ours": per_s["ours"],
        "baseline": per_s["baseline"],
        "ratio": per_s["ours"] / per_s["baseline"],
        "limit": limit,
        "share_of_limit": per_s["ours"] / limit if limit else None,
        "quality": quality,
    }


def report(rows: list[dict], path: Path | None) -> None:
    """Print rows as a Markdown table, and write them as JSON if asked to."""
    columns = list(rows[0])
    print("|", " | ".join(columns), "|")
    print("|", " | ".join("---" for _ in columns), "|")
    for values in rows:
        cells = [values[name] for name in columns]
        texts = [f"{cell:.3g}" if isinstance(cell, float) else str(cell or "") for cell in cells]
        print("|", " | ".join(texts), "|")
    if path:
        path.write_text(json.dumps(rows, indent=1) + "\n")
