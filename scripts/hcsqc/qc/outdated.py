"""Flags of an earlier run, put aside when a screen's threshold is refused.

Snakemake removes what the refused job would have written, and leaves what earlier runs made of it:
flags and a report of other labels, at the paths where a notebook looks for those of today.
"""

import os
import shutil
from pathlib import Path

FOLDER, NOTE = "outdated", "why.txt"
# All that is made with the threshold, and made again with the next; a page to label stays, because
# it helps.
MADE_OF_THRESHOLD = (
    "report.html",
    "report",
    "plates_mqc.json",
    "artefacts_mqc.json",
    "cells.parquet",
    "fields.csv",
    "wells.csv",
    "plates.csv",
    "compounds.csv",
    "corrections.csv",
    "trend.csv",
    "prevalence.json",
    "prevalence.csv",
    "plates",
    "planted.csv",
    "published_flags.csv",
    "published_fields.csv",
    "load_data",
)


def put_aside(folder: Path, why: str) -> bool:
    """Move a screen's flags and report into `outdated` in its folder, beside a note of why.

    What lies there of the same name is replaced. Returns whether there was anything to move.
    """
    found = [folder / name for name in MADE_OF_THRESHOLD if (folder / name).exists()]
    if not found:
        return False
    aside = folder / FOLDER
    aside.mkdir(exist_ok=True)
    # First, so that nothing lies there without it.
    (aside / NOTE).write_text(
        f"These flags are from an earlier run. A later run stopped before it made flags:\n{why}\n",
        encoding="utf-8",
    )
    for path in found:
        target = aside / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    return True
