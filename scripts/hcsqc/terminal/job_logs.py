"""What the log of a job says: its warnings, its error, how far it is.

Only the end of a long log is read; a log that cannot be read says nothing.
"""

import re
from collections.abc import Sequence
from itertools import islice, takewhile
from pathlib import Path

_MOST_BYTES = 1 << 20
_END_BYTES = 4096
# Of what an error lists below it.
_MOST_LINES = 5
_WARNING = re.compile(r"^(?:.{1,120}?: )?(?:warning: +|WARNING +)(?P<text>.+)")
# Of ours, and of flags that a script does not know.
_ERROR = re.compile(r"^(?:\w+\.py: )?error: (?P<text>.+)")
# The last line of a traceback: `ValueError: text`, `torch.OutOfMemoryError: text`.
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Warning|Exit)\b(?:: .*)?$")
# As `hcsqc.core.progress` has it: `label:  45%|####5   | 460/1024 [00:03<00:04, 140 crops/s]`.
_PROGRESS = re.compile(
    r"(?P<share>\d+)%\|[^|]*\| *\d+/\d+ \[[\d:]+<(?P<left>[\d:]+)(?:, *(?P<values>[^\]]*))?\]"
)


def warnings_in(logs: Sequence[str]) -> list[str]:
    """Return the warnings that a job printed, each once."""
    lines = (line for log in logs for line in _lines(log, _MOST_BYTES))
    found = (_WARNING.match(line) for line in lines)
    return list(dict.fromkeys(match["text"].strip() for match in found if match))


def last_line_in(logs: Sequence[str], since: float) -> str | None:
    """Return the last line of a log, if it is more than progress: `Segmentation fault`."""
    for log in logs:
        lines = [line for line in _new_lines(log, since, _END_BYTES) if line.strip()]
        if lines and not _PROGRESS.search(lines[-1]):
            return lines[-1].strip()
    return None


def error_in(logs: Sequence[str], since: float) -> str | None:
    """Return the line by which a job failed, and what it lists below it, or None.

    `since` leaves older logs out (Unix time).
    """
    for log in logs:
        lines = _new_lines(log, since, _MOST_BYTES)
        for number in reversed(range(len(lines))):
            match = _ERROR.match(lines[number])
            if match:
                more = takewhile(lambda line: line.startswith("  "), lines[number + 1 :])
                return "\n".join([match["text"], *islice(more, _MOST_LINES)])
        raised = [line for line in lines if _RAISED.match(line)]
        if raised:
            return raised[-1]
    return None


def progress_in(logs: Sequence[str], since: float) -> str | None:
    """Return how far a job is by the last line of its log: `45 %, 00:04 left, 140 crops/s`."""
    for log in logs:
        lines = _new_lines(log, since, _END_BYTES)
        match = _PROGRESS.search(lines[-1]) if lines else None
        if match and match["share"] != "100":  # what comes after it is not counted
            said = (f"{match['share']} %", f"{match['left']} left", match["values"])
            return ", ".join(filter(None, said))
    return None


def _new_lines(log: str, since: float, most_bytes: int) -> list[str]:
    """Return the lines of a log that was written since then: an earlier run's says nothing."""
    try:
        return _lines(log, most_bytes) if Path(log).stat().st_mtime >= since else []
    except OSError:
        return []


def _lines(log: str, most_bytes: int) -> list[str]:
    try:
        with Path(log).open("rb") as file:
            file.seek(max(file.seek(0, 2) - most_bytes, 0))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
