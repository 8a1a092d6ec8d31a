"""A made screen for tests of the report: its tables, shards and features, and a reader of pages."""

import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.schema import TABLES, features_schema, write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.features.tables import features_table
from hcsqc.qc.report.answers import Limits
from hcsqc.qc.report.focus import FocusScale
from hcsqc.qc.report.page import Screen, render_report
from hcsqc.qc.report.results import COLUMNS, OF_SCREEN, read_results
from hcsqc.qc.trend import TrendSettings, measures, ordered, trend

EVIL = "<script>alert('x')</script>"
CHANNELS = ("w1", "w2", "w3")
THRESHOLD = 0.8
KINDS = ("blur", "debris", "saturation", "dead")
PROMISE = {
    "threshold": THRESHOLD,
    "promised": 0.05,
    "confidence": 0.95,
    "bound": 0.043,
    "n_normal": 210,
    "n_abnormal": 40,
    "wells": 61,
    "wells_needed": 59,
    "supported": 0.049,
    "wells_for_stricter": {"0.02": 88, "0.01": 238},
    "recall": [0.91, 0.83, 0.96],
    "prevalence": [0.08, 0.05, 0.12],
    "precision": [0.87, 0.74, 0.95],
    "promise": True,
    "note": "Labels of one annotator.",
    "others": [
        {"threshold": 0.0, "promise": None, "exceeding": 1.0, "recall": 1.0},
        {"threshold": 0.5, "promise": 0.1234, "exceeding": 0.08, "recall": 0.975},
        {"threshold": THRESHOLD, "promise": 0.05, "exceeding": 0.02, "recall": 0.91},
        {"threshold": 1.0, "promise": 0.014, "exceeding": 0.0, "recall": 0.0},
    ],
}
DETECTOR = {
    "encoder": "vicreg",
    "probe": "logistic",
    "study": "mine",
    "labels": {"normal": 210, "abnormal": 40},
    "trained_on": "labels",
}
LIMITS = Limits(well_share=0.2, drift_features=0.5, drift_scores=0.2, drift_gain=1.5)
SCALE = FocusScale(focus_edge=0.5, nucleus_diameter_px=25.0, pixel_um=0.656)


def crop_of(artefact: str | None, rng: np.random.Generator, size: int = 48) -> np.ndarray:
    """Return a made crop, channels x size x size uint8: a nucleus in its cell, or worse."""
    rows, columns = np.mgrid[:size, :size] - size / 2
    radius = np.hypot(rows * rng.uniform(0.8, 1.2), columns) / size
    soft = 0.12 if artefact == "blur" else 0.02
    disc = 1 / (1 + np.exp((radius - (0.1 if artefact == "dead" else 0.2)) / soft))
    cell = np.exp(-((radius / 0.35) ** 2))
    crop = np.stack([180 * disc, 150 * cell * (1 - disc), 90 * cell])
    crop *= 1 + 0.3 * cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 2)
    if artefact == "debris":
        crop[:, size // 8 : size // 3, size // 2 : size // 2 + 6] = 250
    if artefact == "saturation":
        crop *= 3
    return np.clip(crop + rng.normal(8, 3, crop.shape), 0, 255).astype(np.uint8)


def make_cells(
    plates: list[str], wells: list[str], sites: int, per_field: int, seed: int = 0
) -> pd.DataFrame:
    """Return a `cells` table: the second well of each plate is bad, one cell in ten not scored."""
    rng = np.random.default_rng(seed)
    rows = []
    for plate in plates:
        for place, well in enumerate(wells):
            for site in range(1, sites + 1):
                for cell in range(rng.poisson(per_field)):
                    score = rng.beta(8, 2) if place == 1 else rng.beta(1, 6)
                    score = min(rng.beta(9, 1.2) if rng.random() < 0.04 else score, 0.999)
                    scored = rng.random() > 0.1
                    x, y = 20 + 15 * cell, int(rng.integers(0, 1000))
                    flagged = score > THRESHOLD
                    rows.append(
                        (
                            f"sim/{plate}/{well}/s{site}/x{x:04d}y{y:04d}",
                            plate,
                            well,
                            site,
                            float(x),
                            float(y),
                            float(rng.integers(200, 600)),
                            score if scored else None,
                            score**2 if scored else None,
                            THRESHOLD,
                            flagged if scored else None,
                            str(rng.choice(KINDS)) if scored and flagged else None,
                            float(rng.normal(3 - 2 * (place == 1), 0.3)) if scored else None,
                            0.2 if scored else None,
                            0.0 if scored else None,
                            None if scored else "at the border",
                        )
                    )
    table = pd.DataFrame(rows, columns=TABLES["cells"].columns.names)
    return table.astype({"flagged": "boolean", "Metadata_Site": "int32"})


def summarise(cells: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    groups = cells.groupby(by, sort=False)
    table = groups.agg(
        nuclei=("crop_id", "size"),
        scored=("score", "count"),
        flagged=("flagged", lambda flags: int(flags.fillna(False).sum())),
        focus=("focus", "median"),
        edge=("edge", "median"),
        artefact=("artefact", lambda kinds: next(iter(kinds.dropna().mode()), None)),
    ).reset_index()
    scored, flagged = table["scored"].astype(float), table["flagged"].astype(float)
    share = flagged / scored.where(scored > 0)
    error = 2 * np.sqrt(share * (1 - share) / scored)
    return table.assign(
        flagged_share=share, low=(share - error).clip(0), high=(share + error).clip(upper=1)
    )


def make_folder(folder: Path, cells: pd.DataFrame, sites: int, **changes) -> Path:
    """Write the tables of a screen; `changes` are columns that differ, by table."""
    folder.mkdir(exist_ok=True)
    write_table(cells, folder / "cells.parquet", "cells")
    keys = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]

    def treated(table: pd.DataFrame) -> pd.DataFrame:
        number = table["Metadata_Well"].str[1:].astype(int)
        mock = number % 4 == 0
        return table.assign(
            role=np.where(mock, "mock", "compound"),
            compound=np.where(mock, None, "compound " + number.astype(str)),
            concentration_um=np.where(mock, np.nan, 5.0),
        )

    fields = treated(summarise(cells, keys))
    fields = fields.assign(empty=False, saturated=False, out_of_focus=fields["focus"] < 2)
    fields["bad"] = fields["out_of_focus"]
    fields["reason"] = np.where(fields["bad"], "less sharp than its plate", "")
    wells = treated(summarise(cells, keys[:2]))
    wells = wells.assign(fields=sites, expected=0.04, bad=wells["flagged_share"] > 0.4)
    wells["reason"] = np.where(wells["bad"], "more flagged cells than expected", "")
    plates = summarise(cells, keys[:1])
    counts = [
        table.groupby("Metadata_Plate", sort=False)["bad"].agg(["size", "sum"])
        for table in (wells, fields)
    ]
    plates = plates.assign(
        wells=counts[0]["size"].to_numpy(),
        bad_wells=counts[0]["sum"].to_numpy(),
        fields=counts[1]["size"].to_numpy(),
        bad_fields=counts[1]["sum"].to_numpy(),
        feature_shift=np.linspace(0.1, 0.4, len(plates)),
        score_shift=np.linspace(0.02, -0.1, len(plates)),
        warning="",
    )
    treatments = wells[wells["compound"].notna()].groupby("compound", as_index=False)
    compounds = treatments.agg(
        wells=("fields", "size"), scored=("scored", "sum"), flagged=("flagged", "sum")
    )
    compounds = compounds.assign(
        concentration_um=5.0,
        flagged_share=compounds["flagged"] / compounds["scored"],
        control_share=0.04,
        p_value=0.001,
        adjusted_p=0.01,
        artefact="blur",
    )
    compounds["warned"] = compounds["flagged_share"] > 0.15
    corrections = pd.DataFrame(
        [(plate, name) for plate in plates["Metadata_Plate"] for name in CHANNELS],
        columns=["Metadata_Plate", "channel"],
    ).assign(background=150.0, cell=700.0, gain=1.2, offset=-3.0, found="cells")
    tables = {"fields": fields, "wells": wells, "plates": plates, "compounds": compounds}
    tables["corrections"] = corrections
    days = {name: pd.Timestamp("2026-11-01") for name in plates["Metadata_Plate"]}
    dated = ordered(plates["Metadata_Plate"], days, {})
    followed = measures(plates, fields, corrections)
    tables["trend"] = trend(dated, followed, TrendSettings(3, 3.0))
    of_plates = [folder / "plates" / name for name in plates["Metadata_Plate"]]
    for name, table in tables.items():
        table = changes.get(name, lambda same: same)(table)
        columns = COLUMNS[name].split()
        table[columns].to_csv(folder / f"{name}.csv", index=False)
        for own in of_plates if name not in OF_SCREEN else ():
            own.mkdir(parents=True, exist_ok=True)
            rows = table[table["Metadata_Plate"] == own.name]
            rows[columns].to_csv(own / f"{name}.csv", index=False)
    for own in of_plates:
        rows = cells[cells["Metadata_Plate"] == own.name]
        write_table(rows, own / "cells.parquet", "cells")
    (folder / "threshold.json").write_text(json.dumps(changes.get("threshold", PROMISE)))
    (folder / "prevalence.json").write_text("{}")
    return folder


def make_shards(path: Path, cells: pd.DataFrame) -> Path:
    """Write a crop for each scored cell."""
    rng = np.random.default_rng(0)
    scored = cells[cells["score"].notna()]
    writer = ShardWriter(path, ShardFormat(CHANNELS, 48, "uint8", {}))
    kinds = scored["artefact"].astype(object).where(scored["artefact"].notna(), None)
    variants = {kind: [crop_of(kind, rng) for _ in range(12)] for kind in {*kinds, None}}
    pixels = [variants[kind][rng.integers(12)] for kind in kinds]
    index = {
        "crop_id": scored["crop_id"].tolist(),
        "field_id": [crop.rsplit("/", 1)[0] for crop in scored["crop_id"]],
        "x_px": scored["Nuclei_Location_Center_X"].astype(int).tolist(),
        "y_px": scored["Nuclei_Location_Center_Y"].astype(int).tolist(),
        "nucleus_area_px": scored["Nuclei_AreaShape_Area"].astype(int).tolist(),
    }
    writer.add(index, np.array(pixels, np.uint8).reshape(-1, 3, 48, 48))
    writer.close()
    return path


def make_features(path: Path, cells: pd.DataFrame, count: int = 300) -> Path:
    """Write features of some cells in which flagged ones lie apart."""
    rng = np.random.default_rng(0)
    some = cells[cells["score"].notna()].head(count)
    vectors = rng.normal(size=(len(some), 6))
    vectors[:, 0] += 4 * some["score"].to_numpy(float)
    vectors = vectors.astype(np.float32)
    write_table(features_table(some["crop_id"].tolist(), vectors), path, features_schema(6))
    return path


WELLS = [f"{row}{column:02d}" for row in "BCD" for column in (2, 3, 4, 5)]


class Reader(HTMLParser):
    """Collect the tags, the alternative texts of pictures and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.alts = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        if given.get("role") == "img":
            self.alts.append(given["aria-label"])

    def handle_data(self, data):
        if self.tags and self.tags[-1] not in ("style", "script"):
            self.words.append(data)


def render(folder: Path, shards: Path, plate: str | None = None, **given) -> str:
    return render_report(described(folder, shards, **given), plate)


def described(folder: Path, shards: Path, **given) -> Screen:
    """Return what `render_report` takes of a made screen."""
    arguments = {"detector": DETECTOR, "focus": SCALE, "limits": LIMITS} | given
    return Screen("sim", read_results(folder), Shards([shards]), CHANNELS, **arguments)


def remake(screen: dict, folder: Path, **changes) -> Path:
    """Write the screen's tables again, some of them changed."""
    return make_folder(folder / "changed", screen["cells"], 2, **changes)


def data_of(page: str) -> dict:
    """Return the JSON that a page holds."""
    start = page.index('id="data">') + len('id="data">')
    return json.loads(page[start : page.index("</script>", start)])
