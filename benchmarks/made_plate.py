"""A finished quality control of a large made plate: images, crops, scores and flags, no network.

Every field is one of a few simulated ones, mirrored, with other noise and with artefacts of its
own in the cells that are to be flagged. Scores are drawn, all else is what a study writes.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile
import yaml

from hcsqc.core.files import write_checked_json
from hcsqc.core.progress import Progress
from hcsqc.core.schema import TABLES, features_schema, write_table
from hcsqc.crops.shards import ShardFormat, ShardWriter
from hcsqc.features.tables import features_table
from hcsqc.qc.calibration import calibrate
from hcsqc.qc.flags import FlagSettings
from hcsqc.qc.screen_flags import DriftSettings, ScoredScreen, flag_plates, write_plates
from hcsqc.screens.artefacts import SIMULATED, degrade
from hcsqc.screens.scale import apply_scale, lookup_tables
from hcsqc.screens.simulate.cell_lines import CELL_LINES, optics_of
from hcsqc.screens.simulate.cells import place_cells
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.paint import paint_field
from hcsqc.screens.simulate.textures import make_textures

ROOT = Path(__file__).resolve().parent.parent
SCREEN = "made"
CHANNELS = ("w4", "w5", "w1")
SHAPE, WINDOW_PX, NUCLEUS_PX, CELLS = (260, 348), 32, 14.0, 118
ROWS, COLUMNS, SITES = 16, 24, 9
BASES = 12  # fields that are simulated
KNEE, TOP = 0.8, 4095.0
NOISE = 8.0  # grey levels
COMMON, AT_EDGE = 0.03, 0.07  # flagged cells of a usual well, and of one at the plate's edge
BAD_WELLS, BAD_SHARE = 9, 0.6
BLURRED_FIELDS = 0.006
LABELS, ABNORMAL_LABELS = 400, 60
WIDTH, FEATURES = 16, 200  # of the vectors, and how many there are


@dataclass(frozen=True)
class MadePlate:
    """Where the parts of a plate lie."""

    folder: Path

    @property
    def qc(self) -> Path:
        """Return the folder of the screen's tables."""
        return self.folder / "qc" / SCREEN

    def shard(self, plate: str) -> Path:
        """Return the crops of a plate."""
        return self.folder / "crops" / SCREEN / f"{plate}.parquet"

    def fields(self, plate: str) -> Path:
        """Return the table of fields of a plate."""
        return self.folder / "screens" / SCREEN / f"{plate}.fields.parquet"

    def summary(self, plate: str) -> Path:
        """Return the table of what was found in the fields of a plate."""
        return self.folder / "crops" / SCREEN / f"{plate}.summary.parquet"

    def features(self, plate: str) -> Path:
        """Return vectors of some crops of a plate."""
        return self.qc / "scores" / f"{plate}.features.parquet"

    @property
    def images(self) -> Path:
        """Return the folder of the images."""
        return self.folder / "images"

    @property
    def detector(self) -> Path:
        """Return detector.json."""
        return self.folder / "qc" / "detector" / "detector.json"


def make_plate(
    folder: Path, plates: int = 1, rows: int = ROWS, columns: int = COLUMNS, sites: int = SITES
) -> tuple[MadePlate, list[str]]:
    """Write a screen of made plates into `folder` and return its paths and its plates.

    A plate of 384 wells and 9 fields each takes 3 GB and some minutes.
    """
    made, names = MadePlate(folder), [f"P{number + 1}" for number in range(plates)]
    for path in (made.qc / "scores", made.detector.parent, made.images):
        path.mkdir(parents=True, exist_ok=True)
    bases = _bases()
    tables = []
    for number, name in enumerate(names):
        rng = np.random.default_rng([7, number])
        made.shard(name).parent.mkdir(parents=True, exist_ok=True)
        made.fields(name).parent.mkdir(parents=True, exist_ok=True)
        tables.append(_write_plate(made, name, bases, (rows, columns, sites), rng))
    _flag(made, names, tables)
    return made, names


def _bases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return simulated fields at half their size: grey levels, and x, y and area of nuclei."""
    line, textures, rng = CELL_LINES["u2os"], make_textures(), np.random.default_rng(7)
    height, width = (2 * side for side in SHAPE)
    settings = SimulationSettings("u2os", ("B02",), 1, height, width, CELLS, 0.2, 0.0, 0.0, 7)
    found = []
    for _ in range(BASES):
        cells = place_cells(settings, line, textures, rng)
        levels = paint_field(cells, line, (height, width), textures, rng)[[3, 4, 0]]
        small = [cv2.resize(plane, SHAPE[::-1], interpolation=cv2.INTER_AREA) for plane in levels]
        nuclei = np.array([(c.x / 2, c.y / 2, np.pi * np.prod(c.nucleus) / 4) for c in cells])
        x, y = nuclei[:, 0].round(), nuclei[:, 1].round()
        inside = (x >= 0) & (y >= 0) & (x < SHAPE[1]) & (y < SHAPE[0])
        found.append((np.stack(small), nuclei[inside]))
    return found


def _scale() -> pd.DataFrame:
    optics = optics_of("u2os")
    low, signal = optics.background[[3, 4, 0]], optics.signal[[3, 4, 0]]
    return pd.DataFrame(
        {
            "channel": CHANNELS,
            "low": low,
            "high": low + 2 * signal,
            "top": TOP,
            "bits": 12,
            "cell": low + signal,
            "nuclei": 1000,
            "found": "cells",
            "read_noise": NOISE**2,
            "shot_noise": 0.0,
        }
    )


def _write_plate(made: MadePlate, plate: str, bases, size, rng) -> dict[str, pd.DataFrame]:
    """Write images and crops of a plate, and return its tables but those of flags."""
    rows, columns, sites = size
    scale = _scale()
    numbers = {row.channel: [row.low, row.high, row.top, KNEE] for row in scale.itertuples()}
    lookup = lookup_tables(scale, KNEE, "uint8")
    writer = ShardWriter(made.shard(plate), ShardFormat(CHANNELS, WINDOW_PX, "uint8", numbers))
    wells = [(row, column) for row in range(rows) for column in range(columns)]
    bad = {wells[place] for place in rng.permutation(len(wells))[: min(BAD_WELLS, len(wells) // 3)]}
    found: dict[str, list] = {"fields": [], "summary": [], "nuclei": [], "scores": []}
    progress = Progress(len(wells) * sites, "fields", plate)
    for row, column in wells:
        well = f"{chr(ord('A') + row)}{column + 1:02d}"
        at_edge = row in (0, rows - 1) or column in (0, columns - 1)
        share = BAD_SHARE if (row, column) in bad else AT_EDGE if at_edge else COMMON
        kind = str(rng.choice(SIMULATED)) if (row, column) in bad else None
        (made.images / plate / well).mkdir(parents=True, exist_ok=True)
        for site in range(1, sites + 1):
            field_id = f"{SCREEN}/{plate}/{well}/s{site}"
            blurred = rng.random() < BLURRED_FIELDS
            levels, nuclei = _field(bases, share, kind, blurred, 1 + 0.3 * column / columns, rng)
            paths = [f"{plate}/{well}/s{site}_{channel}.tif" for channel in CHANNELS]
            for path, plane in zip(paths, levels, strict=True):
                tifffile.imwrite(made.images / path, plane)
            kept = _add_crops(writer, field_id, apply_scale(list(levels), lookup), nuclei)
            treated = "mock" if column % 12 < 2 else f"compound {(row * columns + column) // 4:03d}"
            found["fields"].append(
                {
                    "field_id": field_id,
                    "plate": plate,
                    "well": well,
                    "site": site,
                    "role": "mock" if treated == "mock" else "compound",
                    "compound": None if treated == "mock" else treated,
                    "concentration_um": None if treated == "mock" else 10.0 ** (column % 2),
                    "image_path": paths,
                    "image_page": [None] * len(paths),
                    "image_bytes": [levels[0].nbytes] * len(paths),
                    "problem": None,
                }
            )
            found["summary"].append(_summary(field_id, plate, well, site, len(nuclei), kept))
            found["nuclei"].append(_nuclei(field_id, nuclei))
            found["scores"].append(_scores(field_id, nuclei, blurred))
            progress.update()
    progress.close()
    writer.close()
    tables = {name: pd.DataFrame(found[name]) for name in ("fields", "summary")}
    tables |= {name: pd.concat(found[name], ignore_index=True) for name in ("nuclei", "scores")}
    write_table(tables["fields"], made.fields(plate), "fields")
    _write_features(made.features(plate), tables["scores"], rng)
    return tables | {"scale": scale}


def _field(bases, share: float, kind: str | None, blurred: bool, light: float, rng):
    """Return the recorded levels of a field, uint16, and its nuclei with a score each."""
    levels, places = bases[rng.integers(len(bases))]
    places, optics = pd.DataFrame(places, columns=["x", "y", "area"]), optics_of("u2os")
    background = optics.background[[3, 4, 0], None, None]
    levels = ((levels - background) * light + background).astype(np.float32)
    if rng.random() < 0.5:
        levels, places["x"] = levels[:, :, ::-1], SHAPE[1] - 1 - places["x"]
    if rng.random() < 0.5:
        levels, places["y"] = levels[:, ::-1], SHAPE[0] - 1 - places["y"]
    abnormal = rng.random(len(places)) < (1.0 if blurred else share)
    kinds = np.where(abnormal, kind or "", "").astype(object)
    drawn = [str(rng.choice(SIMULATED)) for _ in range(len(places))]
    kinds = np.where(abnormal, np.where(kinds == "", drawn, kinds), None)
    smaller = type(optics)(
        optics.background[[3, 4, 0]], optics.signal[[3, 4, 0]], TOP, NUCLEUS_PX / 2, dna=2
    )
    levels = np.ascontiguousarray(levels)
    if blurred:
        kinds = np.full(len(places), "blur", object)
        levels = degrade(levels, "blur", 0.9, rng, smaller)
    else:
        for row, artefact in zip(places.itertuples(), kinds, strict=True):
            if artefact:
                strength = rng.uniform(0.5, 1)
                levels = degrade(levels, artefact, strength, rng, smaller, (row.y, row.x))
    normal = np.array([artefact is None for artefact in kinds])
    count = len(places)
    score = np.where(normal, rng.beta(1.2, 10, count), rng.beta(4, 2, count))
    places = places.assign(artefact=kinds, score=score)
    places["x"], places["y"] = places["x"].round().astype(int), places["y"].round().astype(int)
    places = places.drop_duplicates(["x", "y"])
    half = WINDOW_PX // 2
    places["kept"] = places["x"].between(half, SHAPE[1] - half) & places["y"].between(
        half, SHAPE[0] - half
    )
    noisy = levels + rng.normal(0, NOISE, levels.shape).astype(np.float32)
    return np.clip(np.rint(noisy), 0, TOP).astype(np.uint16), places.reset_index(drop=True)


def _crop_ids(field_id: str, nuclei: pd.DataFrame) -> list[str]:
    return [f"{field_id}/x{row.x:04d}y{row.y:04d}" for row in nuclei.itertuples()]


def _add_crops(writer: ShardWriter, field_id: str, pixels: np.ndarray, nuclei) -> int:
    rows, half = nuclei[nuclei["kept"]], WINDOW_PX // 2
    if len(rows):
        crops = [
            pixels[:, row.y - half : row.y + half, row.x - half : row.x + half]
            for row in rows.itertuples()
        ]
        index = {"crop_id": _crop_ids(field_id, rows), "field_id": [field_id] * len(rows)}
        index |= {"x_px": rows["x"], "y_px": rows["y"], "nucleus_area_px": rows["area"].astype(int)}
        writer.add(index, np.stack(crops))
    return len(rows)


def _summary(field_id, plate, well, site, found: int, kept: int) -> dict:
    row = {"field_id": field_id, "plate": plate, "well": well, "site": site, "found": found}
    row |= {"kept": kept, "dropped": found - kept, "status": "ok", "reason": None}
    return row | {"image_digest": ["0"], "image_bytes": [0], "image_changed_ns": [0]}


def _nuclei(field_id: str, nuclei: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "crop_id": _crop_ids(field_id, nuclei),
            "field_id": field_id,
            "x_px": nuclei["x"],
            "y_px": nuclei["y"],
            "area_px": nuclei["area"].astype(int),
            "kept": nuclei["kept"],
            "reason": np.where(nuclei["kept"], None, "border"),
        }
    )


def _scores(field_id: str, nuclei: pd.DataFrame, blurred: bool) -> pd.DataFrame:
    rows = nuclei[nuclei["kept"]]
    rng = np.random.default_rng(len(rows))
    return pd.DataFrame(
        {
            "crop_id": _crop_ids(field_id, rows),
            "score": rows["score"],
            "artefact": rows["artefact"].fillna("other"),
            "focus": rng.normal(1.8 if blurred else 3.0, 0.15, len(rows)),
            "edge": np.abs(rng.normal(0.85 if blurred else 0.25, 0.04, len(rows))),
            "saturated": np.where(rows["artefact"] == "saturation", 0.3, 0.0),
        }
    )


def _write_features(path: Path, scores: pd.DataFrame, rng) -> None:
    some = scores.iloc[np.sort(rng.permutation(len(scores))[:FEATURES])]
    vectors = rng.normal(size=(len(some), WIDTH))
    vectors[:, 0] += 4 * some["score"].to_numpy()
    places = some["artefact"].map({name: place for place, name in enumerate(SIMULATED)}).fillna(0)
    vectors[:, 1] += 2 * some["score"].to_numpy() * places.to_numpy()
    table = features_table(some["crop_id"].tolist(), vectors.astype(np.float32))
    write_table(table, path, features_schema(WIDTH))


def _flag(made: MadePlate, plates: list[str], tables: list[dict[str, pd.DataFrame]]) -> None:
    """Write threshold, detector, and the tables of flags."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["qc"]
    levels = _scale()[["channel", "low", "cell"]].rename(columns={"low": "background"})
    about = {
        "screen": "a made screen",
        "study": "made",
        "encoder": "none: scores are drawn",
        "trained_on": "labels",
        "labels_normal": LABELS - ABNORMAL_LABELS,
        "labels_abnormal": ABNORMAL_LABELS,
        "levels": levels.to_dict("records"),
    }
    write_checked_json(about, made.detector)
    scores = pd.concat([table["scores"] for table in tables], ignore_index=True)
    threshold = calibrate(
        _labels(scores),
        ABNORMAL_LABELS / LABELS,
        config["good_cells_lost"],
        config["confidence"],
        "",
    )
    write_checked_json(threshold, made.qc / "threshold.json")
    threshold = json.loads((made.qc / "threshold.json").read_text(encoding="utf-8"))
    settings = [
        kind(**{name: config[name] for name in kind.__dataclass_fields__})
        for kind in (FlagSettings, DriftSettings)
    ]
    for place, (name, table) in enumerate(zip(plates, tables, strict=True)):
        shift = {"Metadata_Plate": name, "feature_shift": 0.1 + 0.2 * place, "score_shift": 0.02}
        scored = ScoredScreen(
            table["scores"],
            table["nuclei"].astype({"kept": bool}),
            table["summary"],
            table["fields"],
            pd.DataFrame([shift]),
            {name: table["scale"]},
        )
        flags = flag_plates(scored, threshold, about, list(CHANNELS), *settings)
        write_plates(flags, made.qc / "plates" / name)
        write_table(table["summary"], made.summary(name), "summary")
    join(made, plates, config)


def join(made: MadePlate, plates: list[str], config: dict) -> None:
    """Join the flags of plates to those of the screen, by the command of a study."""
    words: list[object] = ["--study", "made", "--screen", SCREEN, "--plates", *plates]
    words += ["--detector", made.detector.parent, "--summaries", *map(made.summary, plates)]
    for name in ("confidence", "well_share", "trend_plates", "trend_sds"):
        words += [f"--{name.replace('_', '-')}", config[name]]
    words += ["--output", made.qc, "--record", made.folder / "flags.json"]
    command = [sys.executable, ROOT / "scripts/qc/flag_screen.py", *words]
    subprocess.run([str(word) for word in command], check=True)


def _labels(scores: pd.DataFrame) -> pd.DataFrame:
    """Return made labels at random: those of a drawn artefact are abnormal."""
    rng = np.random.default_rng(3)
    some = scores.iloc[rng.permutation(len(scores))[:LABELS]]
    place = some["crop_id"].str.split("/")
    return pd.DataFrame(
        {
            "crop_id": some["crop_id"],
            "plate": place.str[1],
            "well": place.str[2],
            "group": place.str[1:3].str.join("/"),
            "label": np.where(some["artefact"] == "other", "normal", "abnormal"),
            "selection": "random",
            "random": True,
            "score": some["score"],
        }
    )[TABLES["held_out"].columns.names]
