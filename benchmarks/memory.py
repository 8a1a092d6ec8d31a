"""Peak memory and time of the crop job for plates of 60, 600 and 3456 fields: 5 GB of disk."""

import multiprocessing
import re
import tempfile
import time
from pathlib import Path

import cv2

from benchmarks import common
from benchmarks.crops import CROPPING, FAST, make_fields, write_plate
from hcsqc.crops.cut import Plate, crop_plate

PLATES = (60, 600, 3456)  # fields; the last is one of BBBC022's
THREADS = 2


def main() -> None:
    """Read the flags, print a row per plate."""
    args = common.parser(__doc__, rounds=False).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        fields = make_fields()[:24]
        for count in PLATES:
            plate = write_plate(fields, Path(folder), count)
            # A process of its own, because a peak never sinks.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (plate, Path(folder))))
    common.report(rows, args.json)


def measure(plate: Plate, folder: Path) -> dict:
    """Crop a plate and return what it took."""
    cv2.setNumThreads(1)
    before = peak_mb()
    began = time.perf_counter()
    crop_plate(plate, CROPPING, FAST, folder / "p.parquet", THREADS, "plate")
    seconds = time.perf_counter() - began
    count = len(plate.fields)
    return {
        "fields": count,
        "before, MB": before,
        "peak, MB": peak_mb(),
        "ms per field": 1000 * seconds / count,
    }


def peak_mb() -> float:
    """Return the most memory that this process has held; getrusage's is its parent's as well."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
