"""What encoders cost, by what their jobs recorded."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from hcsqc.core.ids import names_of

COLUMNS = [
    "encoder",
    "features",
    "seconds",
    "device",
    "measured_on",
    "pretraining_seconds",
    "pretraining_device",
]


def encoder_costs(
    encoders: Sequence[str],
    widths: Mapping[str, int],
    records: Iterable[Mapping],
    made_of: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Return what each encoder costs, a row each.

    `widths` are the numbers of features, `records` the `run.json` of jobs that extract features or
    pretrain, `made_of` maps an encoder to itself and the encoders that it is made of. Columns:
    encoder, features (per cell), seconds (of wall time per 1,000 cells, the mean over seeds, with
    the start of the program), device, measured_on (cells), pretraining_seconds (of one seed, nought
    where nothing is pretrained) and pretraining_device. What no record tells is missing.
    """
    extracted: dict[str, list[Mapping]] = {}
    pretrained: dict[str, list[Mapping]] = {}
    for record in records:
        names = names_of(record["key"])
        jobs = extracted if names["stage"] == "features" else pretrained
        jobs.setdefault(names["encoder"], []).append(record)
    rows = []
    for encoder in encoders:
        own = [job for job in extracted.get(encoder, []) if job["metrics"].get("crops")]
        training = [pretrained[part] for part in made_of[encoder] if part in pretrained]
        rows.append(
            {
                "encoder": encoder,
                "features": widths.get(encoder),
                "seconds": _mean(
                    1000 * job["cost"]["wall_s"] / job["metrics"]["crops"] for job in own
                ),
                "device": _devices(own),
                "measured_on": _mean(job["metrics"]["crops"] for job in own),
                "pretraining_seconds": sum(
                    _mean(job["cost"]["wall_s"] for job in jobs) for jobs in training
                ),
                "pretraining_device": _devices([job for jobs in training for job in jobs]),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def duration(seconds: float) -> str:
    """Return a time in the unit that reads best: `0.8 s`, `21 s`, `14 min`, `3.2 h`."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")


def _devices(jobs: Sequence[Mapping]) -> str | None:
    names = sorted({_device(str(job["cost"]["device"])) for job in jobs})
    return " and ".join(names) or None


def _device(recorded: str) -> str:
    """Return a device as recorded, its settings in brackets: `AMD EPYC CPU (1 thread, float32)`."""
    name, *settings = recorded.replace(" 1 threads", " 1 thread").split(", ")
    return f"{name} ({', '.join(settings)})" if settings else name
