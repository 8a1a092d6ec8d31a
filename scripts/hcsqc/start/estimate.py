"""How long the first flags of a new study will take, said before they are asked for."""

import math

# Measured on the eight fields and 391 crops of examples/bbbc022, on two cores of a server without
# a GPU: seconds to start and join the jobs, and processor seconds for each field (index, scale,
# nuclei, crops), for each crop (scores and measures) and for each label of the detector.
START_S, FIELD_S, CROP_S, LABEL_S = 25.0, 0.5, 0.03, 0.03


def minutes_to_flags(fields: int, crops: float, labels: float, cores: int) -> int:
    """Return about how many minutes `snakemake qc` of a zero-label study takes on so many cores."""
    work = FIELD_S * fields + CROP_S * crops + LABEL_S * min(labels, 4 * crops)
    return math.ceil((START_S + work / cores) / 60)
