"""What the quality-control page of a large plate costs: bytes, seconds to write, seconds to open.

The plate is made (`benchmarks.made_plate`) and kept in `--folder`, so that a second run measures at
once. The page is opened in headless Chromium from the disk, each time by a new browser. It is
usable when its document is complete and two frames have been drawn since. There is no usual way to
compare with.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright

from benchmarks import common
from benchmarks.made_plate import (
    CHANNELS,
    COLUMNS,
    NUCLEUS_PX,
    ROWS,
    SCREEN,
    SITES,
    MadePlate,
    join,
)
from benchmarks.made_plate import make_plate as make
from tests.conftest import CHROMIUM

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (400, 1000, 1600)
HEIGHT = 900
USABLE = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    """Read the flags; make the plate if it is not there; render and open its page."""
    parser = common.parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the plate, kept there")
    parser.add_argument("--plates", type=int, default=1)
    parser.add_argument("--rows", type=int, default=ROWS, help="of wells on a plate")
    parser.add_argument("--columns", type=int, default=COLUMNS, help="of wells on a plate")
    parser.add_argument("--sites", type=int, default=SITES, help="fields of a well")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    made = MadePlate(args.folder)
    shape = {name: getattr(args, name) for name in ("plates", "rows", "columns", "sites")}
    kept = made.folder / "shape.json"
    plates = [f"P{number + 1}" for number in range(args.plates)]
    if not kept.exists():
        make(args.folder, *shape.values())
        kept.write_text(json.dumps(shape), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    if found != shape:
        sys.exit(f"error: {args.folder} has {found}, not {shape}; give another --folder")
    print(f"the plate is that of {args.folder}", file=sys.stderr)
    page = made.qc / "report.html"
    began = time.perf_counter()
    join(made, plates, yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["qc"])
    joined = time.perf_counter() - began
    seconds = render(made, plates, page, args.threads)
    rows = [
        {"work": f"join the flags of {len(plates)}", "unit": "s", "ours": joined, "quality": ""},
        {"work": "write the page", "unit": "s", "ours": seconds, "quality": ""},
        {"work": "the page", "unit": "MB", "ours": page.stat().st_size / 1e6, "quality": ""},
    ]
    for width in WIDTHS:
        taken, said = zip(*(opened(page, width) for _ in range(args.rounds)), strict=True)
        errors = sorted({line for lines in said for line in lines})
        rows.append(
            {
                "work": f"open it, {width} px wide",
                "unit": "s",
                "ours": statistics.median(taken),
                "quality": "; ".join(errors) or "nothing on the console",
            }
        )
    common.report(rows, args.json)


def render(made: MadePlate, plates: list[str], page: Path, threads: int) -> float:
    """Write the page by its command, as a study does, and return the seconds that this took."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["qc"]
    words: list[object] = ["--screen", SCREEN, "--folder", made.qc, "--composite", *CHANNELS]
    words += ["--crops", *map(made.shard, plates), "--features", *map(made.features, plates)]
    words += ["--fields", *map(made.fields, plates), "--images", made.images]
    words += ["--detector", made.detector, "--focus-edge", config["focus_edge"]]
    words += ["--nucleus-diameter-px", NUCLEUS_PX, "--pixel-um", 1.3]
    for name in ("well_share", "drift_features", "drift_scores", "drift_gain"):
        words += [f"--{name.replace('_', '-')}", config[name]]
    words += ["--threads", threads, "--output", page, "--record", made.folder / "run.json"]
    command = [sys.executable, ROOT / "scripts/qc/make_qc_report.py", *words]
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True)
    return time.perf_counter() - began


def opened(page: Path, width: int) -> tuple[float, list[str]]:
    """Return the seconds until a page is usable in a new browser, and what its console says."""
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": HEIGHT})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        began = time.perf_counter()
        tab.goto(page.resolve().as_uri(), wait_until="load")
        tab.evaluate(USABLE)
        taken = time.perf_counter() - began
        browser.close()
    return taken, said


if __name__ == "__main__":
    main()
