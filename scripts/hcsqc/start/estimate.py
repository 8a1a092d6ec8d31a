"""How long the first flags of a new study will take, said before they are asked for."""

import math
from dataclasses import dataclass

# Rough shares of what whole runs took on two cores of a server without a GPU: the eight fields of
# examples/bbbc022 57 s, twelve 50 to 60 s. Seconds to start and join the jobs, and processor
# seconds for each field, crop, degraded copy of a crop and label of the detector. No large screen
# was timed.
START_S, FIELD_S, CROP_S, COPY_S, LABEL_S = 25.0, 0.5, 0.03, 0.004, 0.03


@dataclass(frozen=True)
class Work:
    """What there is to do: `originals` and `degraded` are the crops of the derived screen.

    `labels` are the most that the config allows; no crop has two.
    """

    fields: int
    crops: float
    originals: float
    degraded: float
    labels: int


def minutes_to_flags(work: Work, cores: int) -> int:
    """Return about how many minutes `snakemake qc` of a zero-label study takes on so many cores."""
    labels = min(work.labels, work.originals + work.degraded)
    seconds = (
        FIELD_S * work.fields + CROP_S * work.crops + COPY_S * work.degraded + LABEL_S * labels
    )
    return math.ceil((START_S + seconds / cores) / 60)
