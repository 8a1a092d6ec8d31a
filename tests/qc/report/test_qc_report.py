"""The quality-control report: numbers reconcile, what is bad is named, and it is one safe page."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import TABLES, features_schema, write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.features.tables import features_table
from hcsqc.qc.report import pictures as report_pictures
from hcsqc.qc.report.figures import MARKERS, plain, project, rates
from hcsqc.qc.report.focus import FocusScale, edge_reach, focus_text
from hcsqc.qc.report.gallery import borderline, crop_pictures, picture, worst_of_each_artefact
from hcsqc.qc.report.page import promise, render_report, shortfall
from hcsqc.qc.report.plate_maps import (
    colour_limits,
    draw_plate_map,
    edge_distance,
    places,
    plate_shape,
)
from hcsqc.qc.report.results import COLUMNS, read_results, read_truth
from scripts.qc import make_qc_report
from tests.conftest import CHROMIUM, in_browser

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
    "supported": 0.021,
    "more_for_stricter": {"0.02": 150, "0.01": 420},
    "recall": [0.91, 0.83, 0.96],
    "prevalence": [0.08, 0.05, 0.12],
    "precision": [0.87, 0.74, 0.95],
    "promise": True,
    "note": "Labels of one annotator.",
}
DETECTOR = {
    "encoder": "vicreg",
    "probe": "logistic",
    "study": "mine",
    "labels": {"normal": 210, "abnormal": 40},
    "trained_on": "labels",
}
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
    for name, table in tables.items():
        table = changes.get(name, lambda same: same)(table)
        columns = COLUMNS[name].split()
        table[columns].to_csv(folder / f"{name}.csv", index=False)
    (folder / "threshold.json").write_text(json.dumps(changes.get("threshold", PROMISE)))
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
    """Collect the tags, the pictures, the alternative texts and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.images, self.alts, self.titles = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        if tag == "img":
            self.images.append(given["src"])
            self.alts.append(given["alt"])
        if "title" in given:
            self.titles.append(given["title"])

    def handle_data(self, data):
        if self.tags and self.tags[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A screen of two plates, with everything: its folder, cells, shards, features and page."""
    folder = tmp_path_factory.mktemp("qc")
    cells = make_cells(["p1", "p2"], WELLS, 2, 12)
    make_folder(folder, cells, 2)
    shards = make_shards(folder / "crops.parquet", cells)
    features = make_features(folder / "features.parquet", cells)
    text = render(folder, shards, features=[features])
    return {"folder": folder, "cells": cells, "shards": shards, "features": features, "page": text}


def render(folder: Path, shards: Path, **given) -> str:
    arguments = {"detector": DETECTOR, "focus": SCALE} | given
    return render_report("sim", read_results(folder), Shards([shards]), CHANNELS, **arguments)


def remake(screen: dict, folder: Path, **changes) -> Path:
    """Write the screen's tables again, some of them changed."""
    return make_folder(folder / "changed", screen["cells"], 2, **changes)


# What the page says.


@pytest.mark.parametrize(
    ("flagged", "prevalence", "told"),
    [
        (0.0, [0.154, 0.08, 0.24], "The threshold flags no cell, but by the random labels 15.4% "),
        (0.02, [0.154, 0.08, 0.24], "The threshold flags 2.0% of the cells, but"),
        (0.1, [0.154, 0.08, 0.24], ""),
        (0.02, [0.05, 0.0, 0.11], ""),
        (0.0, None, ""),
        (None, [0.154, 0.08, 0.24], ""),
    ],
)
def test_a_threshold_that_misses_most_says_so(flagged, prevalence, told):
    found = shortfall({"flagged_share": flagged, "prevalence": prevalence})
    assert found.startswith(told) and bool(found) == bool(told)


def test_the_focus_of_a_plate_is_told_in_diameters_pixels_and_micrometres():
    edges = pd.Series([0.2, 0.2, 0.2, 0.8, np.nan])
    told = focus_text(edges, SCALE)
    assert "0.20 nuclei wide in the median field (5.0 px, 3.3 µm)" in told
    assert told.endswith("Beyond the limit of 0.5 (12.5 px, 8.2 µm): 1 of 4 fields, 25.0%.")
    assert "µm" not in focus_text(edges, FocusScale(0.5, 25.0, 0))
    assert "no field has a nucleus" in focus_text(edges[4:], SCALE)


def test_the_axis_of_the_edges_shows_the_limit_and_the_most_blurred_field():
    assert edge_reach(pd.Series([0.2, np.nan]), SCALE) > 0.5
    assert edge_reach(pd.Series([0.2, 1.4]), SCALE) > 1.4
    assert edge_reach(pd.Series([0.2, 90]), SCALE) == 2
    assert edge_reach(pd.Series([np.nan]), SCALE) > 0.5


def test_each_plate_has_its_focus_beside_the_maps(screen):
    alts = [alt for alt in Reader(screen["page"]).alts if "Focus: " in alt]
    assert [alt[:9] for alt in alts] == ["Plate p1.", "Plate p2."]
    text = Reader(screen["page"]).text
    assert all(alt.removeprefix(alt[:10]) in text for alt in alts)


def test_the_headline_is_what_the_table_of_cells_counts(screen):
    cells = screen["cells"]
    flagged = int(cells["flagged"].fillna(False).sum())
    scored, found = int(cells["score"].notna().sum()), len(cells)
    assert flagged < scored < found
    text = Reader(screen["page"]).text
    share = f"{100 * flagged / scored:.1f}%"
    assert f"{flagged} cells flagged {share} of {scored} scored; {found} nuclei found" in text
    assert "4 bad fields of 48" in text and "2 bad wells of 24" in text
    assert "0 plates with a warning of 2" in text
    assert f"Not scored: {found - scored} nuclei" in text
    assert f"at the border {found - scored}" in text


def test_flags_of_the_galleries_add_up_to_those_of_the_screen(screen):
    text = Reader(screen["page"]).text
    totals = re.findall(r"(?:Blur|Debris|Saturation|Dead): (\d+) flagged cell", text)
    assert len(totals) == 4
    assert sum(map(int, totals)) == int(screen["cells"]["flagged"].fillna(False).sum())


def test_bad_wells_and_fields_are_named_with_the_reason(screen):
    text = Reader(screen["page"]).text
    rows = re.findall(r"(p\d) (\w\d\d) more flagged cells than expected", text)
    assert set(rows) == {("p1", "B03"), ("p2", "B03")}
    assert text.count("less sharp than its plate") == 4
    assert "4 out of focus" in text and "0 empty" in text
    alts = Reader(screen["page"]).alts
    maps = [alt for alt in alts if alt.startswith("Plate p1, ")]
    assert len(maps) == 3 and all(alt.endswith("bad wells: B03") for alt in maps)


def test_every_crop_has_its_id_and_score(screen):
    found, cells = Reader(screen["page"]), screen["cells"].set_index("crop_id")
    shown = [re.fullmatch(r"Crop (\S+), score (\S+?)(, \w+)?", alt) for alt in found.alts]
    shown = [match for match in shown if match]
    assert len(shown) > 30
    for match in shown:
        assert float(match[2]) == pytest.approx(cells.loc[match[1], "score"], abs=6e-4)
        assert match[1] in found.titles


@pytest.mark.parametrize("second", [0.5, np.nan])
def test_corrections_of_light_are_told_the_farthest_first(screen, tmp_path, quick_maps, second):
    def changed(table):
        return table.assign(gain=np.where(table["Metadata_Plate"] == "p2", second, 1.2))

    def warned(table):
        return table.assign(warning=np.where(table["Metadata_Plate"] == "p2", "its light", ""))

    folder = remake(screen, tmp_path, corrections=changed, plates=warned)
    page = render(folder, screen["shards"])
    part = page[page.index('id="corrections"') : page.index('id="wells"')]
    rows = [Reader(row).text for row in part[part.index("<tbody>") :].split("<tr>")[1:]]
    told = "not known" if np.isnan(second) else "×0.50, -3"
    assert [" ".join(row.split()) for row in rows] == [
        " ".join(["p2", *[told] * 3]),
        "p1 ×1.20, -3 ×1.20, -3 ×1.20, -3",
    ]
    # Warnings come before the flags themselves.
    assert page.index("its light") < page.index('id="plates"') < page.index('id="worst"')


def test_the_warned_compound_is_shown_with_crops_of_its_wells(screen):
    page = screen["page"]
    part = page[page.index('id="compounds"') : page.index('id="next"')]
    found = Reader(part)
    assert "compound 3 at 5 µM" in found.text and "compound 2" not in found.text
    wells = {alt.split("/")[2] for alt in found.alts}
    assert wells and wells <= {"B03", "C03", "D03"}


def test_the_promise_is_that_of_the_threshold():
    assert promise(PROMISE) == (
        "At most 5% of this screen's normal cells are flagged at the threshold of 0.8, with 95% "
        "confidence: 210 normal labels in 61 wells bound the share at 4.3%, and could promise "
        "2.1% at the strictest."
    )
    without = PROMISE | {"promise": False, "note": "No promise: nobody has looked"}
    assert promise(without) == "No promise is made for the threshold of 0.8: nobody has looked."
    assert "no random labels of this screen" in promise({"promise": False, "threshold": None})


def test_the_estimates_the_detector_and_the_planted_are_shown(screen):
    truth = pd.DataFrame(
        {"what": ["nuclei", EVIL], "planted": [40, 0.25], "found": [38, 0.2], "low": [None, 0.1]}
    ).assign(high=[None, 0.3])
    labels = screen["cells"].dropna(subset="score").head(50)[["crop_id"]].assign(label="normal")
    page = render(screen["folder"], screen["shards"], truth=truth, labels=labels)
    text = Reader(page).text
    assert "91.0% of abnormal cells are flagged 95% interval 83.0% to 96.0%" in text
    assert "87.0% of flagged cells are abnormal" in text
    assert "nuclei 40 38 –" in text and f"{EVIL} 0.25 0.2 0.1 to 0.3" in text
    assert "labels normal: 210; abnormal: 40" in text and "trained on labels" in text
    assert "2% takes 150 more normal labels; 1% takes 420 more" in text


def test_first_flags_and_drift_are_announced_in_banners(screen, tmp_path):
    banner = "First flags without any label: look before you trust."
    assert banner not in screen["page"] and 'id="warnings"' not in screen["page"]
    warning = "its features lie 3 standard deviations away"
    folder = remake(screen, tmp_path, plates=lambda table: table.assign(warning=["", warning]))
    detector = DETECTOR | {"trained_on": "simulated artefacts"}
    text = Reader(render(folder, screen["shards"], detector=detector)).text
    assert banner in text
    assert f"1 plate with a warning p2 : {warning}" in text
    assert "Look at 1 plate with a warning" in text


def test_borderline_crops_lie_on_both_sides_of_the_threshold(screen):
    above, below = borderline(screen["cells"], 5)
    scores = screen["cells"]["score"].dropna()
    assert above["score"].min() == scores[scores > THRESHOLD].min()
    assert below["score"].max() == scores[scores <= THRESHOLD].max()
    assert above["score"].is_monotonic_increasing and below["score"].is_monotonic_decreasing
    assert not above["score"].le(THRESHOLD).any() and not below["score"].gt(THRESHOLD).any()


def test_worst_crops_are_not_all_of_one_well(screen):
    cells = screen["cells"].copy()
    cells["score"] = cells["score"].where(cells["Metadata_Well"] == "B03", cells["score"] / 2)
    cells.loc[cells["Metadata_Well"].isin(["C02", "C03"]) & cells["score"].notna(), "flagged"] = (
        True
    )
    cells.loc[cells["flagged"].fillna(False), "artefact"] = None
    worst = worst_of_each_artefact(cells, 12)
    assert list(worst) == ["of no known kind"]
    (rows,) = worst.values()
    assert len(rows) == 12 and rows["score"].is_monotonic_decreasing
    assert rows.groupby(["Metadata_Plate", "Metadata_Well"]).size().max() == 2
    many = worst_of_each_artefact(cells, 10_000)["of no known kind"]
    assert len(many) == cells["flagged"].fillna(False).sum(), "rather one well than an empty place"
    highest = cells.loc[cells["flagged"].fillna(False), "score"].max()
    assert rows["score"].iloc[0] == highest


# Plates.


@pytest.mark.parametrize(
    ("wells", "shape"),
    [
        (["B02"], (8, 12)),
        (["A01", "H12"], (8, 12)),
        (["A13"], (16, 24)),
        (["I01", "P24"], (16, 24)),
        (["AF48"], (32, 48)),
        ([f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)], (4, 6)),
        ([], (8, 12)),
        (["nowhere", None], (8, 12)),
    ],
)
def test_the_plate_is_the_smallest_that_has_the_wells(wells, shape):
    assert plate_shape(wells) == shape


def test_wells_lie_where_their_names_say():
    found = places(["A01", "H12", "AF48", "A00", "?"])
    assert found.to_numpy().tolist() == [[0, 0], [7, 11], [31, 47], [-1, -1], [-1, -1]]
    wells = ["A05", "B02", "D06", "H12", "C10", "?"]
    assert edge_distance(wells, (8, 12)).tolist() == [0, 1, 3, 0, 2, -1]


def test_a_plate_map_shows_the_value_the_cross_and_the_hatching():
    def pixels(values, bad):
        png = draw_plate_map(["A01", "B02", "D06"], values, bad, (4, 6), (0, 1), "t")
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)

    plain_map = pixels([0.0, 1.0, 0.5], [False] * 3)
    for other in (
        pixels([0.5, 1.0, 0.5], [False] * 3),
        pixels([0.0, 1.0, 0.5], [False, True, False]),
        pixels([0.0, np.nan, 0.5], [False] * 3),
    ):
        assert other.shape == plain_map.shape
        changed = np.abs(other - plain_map).sum(axis=2) > 60
        assert 0.002 < changed.mean() < 0.1, "one well of 24, and no more"
    assert colour_limits(pd.Series([np.nan]), True) == (0, 1)
    assert colour_limits(pd.Series([2.0, 2.0]), False) == (2, 3)


def test_rates_are_of_cells_and_their_intervals_of_wells():
    rng = np.random.default_rng(0)
    alike = pd.DataFrame({"by": 1, "scored": 50, "flagged": [0] * 30 + [50] * 10})
    mixed = pd.DataFrame({"by": 2, "scored": 50, "flagged": rng.binomial(50, 0.25, 40)})
    table = rates(pd.concat([alike, mixed]), "by").set_index("by")
    assert table.loc[1, "share"] == pytest.approx(0.25)
    assert table["scored"].tolist() == [2000, 2000] and table["clusters"].tolist() == [40, 40]
    width = table["high"] - table["low"]
    # All or nothing in each of 40 wells: as uncertain as 40 cells, not as 2000.
    assert width[1] == pytest.approx(2 * 2.02 * np.sqrt(0.25 * 0.75 / 39), rel=0.02)
    assert width[2] < 0.06
    none = rates(pd.DataFrame({"by": 1, "scored": [9, 1], "flagged": 0}), "by").iloc[0]
    assert none["share"] == 0 and none["low"] == 0 and none["high"] > 0.2
    one = rates(pd.DataFrame({"by": [1, 2], "scored": [5, 0], "flagged": [1, 0]}), "by")
    assert one["by"].tolist() == [1] and np.isnan(one["low"].iloc[0])


def test_the_map_of_features_keeps_the_largest_spread():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 5)) * [1, 10, 1, 3, 1]
    points, shares = project(vectors)
    assert abs(np.corrcoef(points[:, 0], vectors[:, 1])[0, 1]) > 0.99
    assert shares[0] == pytest.approx(100 / 112, abs=0.05)
    assert (project(np.ones((4, 3)))[0] == 0).all()
    assert project(np.arange(4.0)[:, None])[0].shape == (4, 2)


def test_the_map_names_warned_compounds_then_frequent_ones_and_puts_the_others_together():
    counts = {f"often{number}": 20 + number for number in range(9)} | {"rare": 2, "toxic": 1}
    compound = [name for name, count in counts.items() for _ in range(count)]
    crops = pd.DataFrame(
        {
            "role": ["compound"] * len(compound) + ["mock"] * 5 + [None],
            "compound": [*compound, *["DMSO"] * 4, None, None],
        }
    )
    compounds = pd.DataFrame({"compound": ["toxic", "rare"], "warned": [True, False]})
    groups = report_pictures.compound_groups(crops, compounds)
    named = ["toxic", *(f"often{number}" for number in range(8, 4, -1))]
    assert list(groups.categories) == [*named, "mock (control)", "no compound", "other compounds"]
    assert len(groups.categories) == len(MARKERS)
    sizes = pd.Series(groups).value_counts()
    assert sizes["mock (control)"] == 5 and sizes["no compound"] == 1 and sizes["toxic"] == 1
    assert sizes["other compounds"] == sum(range(20, 25)) + 2 and sizes.sum() == len(crops)


def test_names_are_drawn_as_they_are():
    assert plain("a$b$") == r"a\$b\$"
    assert len(plain("x" * 100)) == 22


# Crops.


def test_a_crop_shows_its_colours_and_each_channel_in_grey(screen):
    crop = np.zeros((3, 48, 48), np.uint8)
    crop[0], crop[1], crop[2] = 10, 20, 30
    shown = picture(crop)
    assert shown.shape == (48 + 17, 48, 3)
    assert shown[10, 10].tolist() == [10, 20, 30]
    assert [shown[-1, x].tolist() for x in (0, 20, 47)] == [[10] * 3, [20] * 3, [30] * 3]
    assert picture(crop[:1]).shape == (48, 48, 3)
    assert picture(crop[:2])[5, 5].tolist() == [10, 20, 0]
    assert max(picture(np.zeros((3, 400, 400), np.uint8)).shape) < 150
    shards = Shards([screen["shards"]])
    name = shards.index["crop_id"][7]
    png = crop_pictures(shards, [name, name], CHANNELS)[name]
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:48, :, ::-1]
    np.testing.assert_array_equal(decoded, shards.read([7])[0].transpose(1, 2, 0))


def test_a_crop_or_channel_that_is_not_there_is_named(screen):
    shards = Shards([screen["shards"]])
    with pytest.raises(InputError, match="1 crops are not in .*first gone"):
        crop_pictures(shards, ["gone"], CHANNELS)
    with pytest.raises(InputError, match="channel 'w9' is not one of w1, w2, w3"):
        crop_pictures(shards, [shards.index["crop_id"][0]], ["w9"])


# What it copes with.


def test_text_from_files_is_escaped(screen, tmp_path):
    cells = screen["cells"].copy()
    first = cells["Metadata_Plate"] == "p1"
    cells.loc[first, "Metadata_Plate"] = EVIL
    cells["reason"] = cells["reason"].where(cells["reason"].isna(), EVIL)

    def evil(*columns):
        return lambda table: table.assign(**dict.fromkeys(columns, EVIL))

    folder = make_folder(
        tmp_path / "evil",
        cells,
        2,
        fields=evil("reason", "compound", "role"),
        wells=evil("reason", "compound", "role", "artefact"),
        plates=evil("warning"),
        compounds=evil("compound", "artefact"),
        threshold=PROMISE | {"note": EVIL},
    )
    page = render(folder, screen["shards"], detector={EVIL: {EVIL: [EVIL]}})
    found = Reader(page)
    assert "script" not in found.tags and "<script" not in page
    # Plate, compound, reason, warning, note and detector: all are there, as text.
    assert found.text.count(EVIL) > 20
    assert f"Plate {EVIL}" in found.text and f"{EVIL} at 5 µM" in found.text


def test_pictures_lie_in_the_page_and_nothing_is_fetched(screen):
    found = Reader(screen["page"])
    assert len(found.images) == len(found.alts) > 40 and all(found.alts)
    for source in found.images:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    words = re.sub(r'"data:image/png;base64,[^"]*"', "", screen["page"])
    assert not re.search(r"https?:|//[a-z]|url\(|@import", words)
    assert not {"link", "iframe", "object", "script"} & set(found.tags)
    assert len(screen["page"]) < 8e6


@pytest.fixture
def quick_maps(monkeypatch):
    """Draw no plate map: only how many of them is asked."""
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
        "gg=="
    )
    monkeypatch.setattr(report_pictures, "draw_plate_map", lambda *_: png)


def test_a_screen_in_which_nothing_is_scored_says_so(screen, tmp_path, quick_maps):
    cells = screen["cells"].copy()
    cells[["score", "probability", "focus", "saturated"]] = np.nan
    cells["flagged"], cells["artefact"], cells["reason"] = pd.NA, None, "no crop"
    cells["flagged"] = cells["flagged"].astype("boolean")
    missing = {"threshold": None, "promise": False, "recall": None, "prevalence": None}
    folder = make_folder(tmp_path / "none", cells, 2, threshold=missing)
    text = Reader(render(folder, screen["shards"], features=[screen["features"]])).text
    assert f"0 cells flagged – of 0 scored; {len(cells)} nuclei found" in text
    assert "No cell is flagged." in text and "Nothing was scored." in text
    assert "Nothing was scored: look at why" in text
    assert "nan" not in text.lower().replace("nanometre", "")


def test_a_screen_without_flags_compounds_or_bad_wells_says_so(screen, tmp_path, quick_maps):
    cells = screen["cells"][screen["cells"]["Metadata_Plate"] == "p1"].copy()
    cells["flagged"] = cells["flagged"].where(cells["flagged"].isna(), False)
    cells["artefact"] = None
    folder = make_folder(
        tmp_path / "good",
        cells,
        2,
        compounds=lambda table: table.head(0),
        wells=lambda table: table.assign(bad=False, focus=np.nan),
        fields=lambda table: table.assign(bad=False, compound=None, concentration_um=np.nan),
    )
    text = Reader(render(folder, screen["shards"])).text
    for words in (
        "0 cells flagged 0.0% of",
        "No well is bad.",
        "No field is bad.",
        "No cell is flagged.",
        "No compound was compared with controls.",
        "No table of features was given.",
    ):
        assert words in text, words


def test_of_forty_plates_the_worst_are_drawn_and_the_others_named(screen, tmp_path, quick_maps):
    cells = make_cells([f"p{number:02d}" for number in range(40)], WELLS[:3], 1, 4)
    worse = lambda table: table.assign(bad_wells=[int(p == "p37") for p in table.Metadata_Plate])  # noqa: E731
    folder = make_folder(tmp_path / "many", cells, 1, plates=worse)
    page = render(folder, make_shards(tmp_path / "crops.parquet", cells))
    drawn = re.findall(r"Plate (p\d\d)<span>", page)
    assert len(drawn) == 24 and drawn[0] == "p37"
    (rest,) = re.findall(r"Not drawn, with fewer bad wells: 16 plates \((.*?)\)", page)
    assert sorted([*drawn, *rest.split(", ")]) == [f"p{number:02d}" for number in range(40)]


def test_long_tables_are_cut_and_the_rest_is_counted(screen, tmp_path, quick_maps, monkeypatch):
    monkeypatch.setattr(report_pictures, "MOST_ROWS", 5)
    monkeypatch.setattr(report_pictures, "MOST_COMPOUNDS", 1)
    everything = lambda table: table.assign(bad=True)  # noqa: E731
    folder = remake(
        screen,
        tmp_path,
        wells=everything,
        fields=everything,
        compounds=lambda table: table.assign(warned=True),
    )
    text = Reader(render(folder, screen["shards"])).text
    assert "And 19 more with a lower flag rate, in wells.csv" in text.replace(" ,", ",")
    assert "48 bad fields" in text and "And 43 more, in fields.csv" in text
    assert "2 more, with a lower flag rate" in text


# Bad input.


def test_tables_of_different_runs_are_refused(screen, tmp_path):
    folder = remake(
        screen, tmp_path, wells=lambda table: table.assign(flagged=table["flagged"] + 1)
    )
    with pytest.raises(InputError, match=r"wells.csv: \d+ cells flagged, but cells.parquet has"):
        read_results(folder)


def test_plates_and_compounds_keep_their_names(screen, tmp_path):
    cells = screen["cells"].assign(Metadata_Plate="0042")
    folder = make_folder(
        tmp_path / "names", cells, 2, compounds=lambda table: table.assign(compound="NA")
    )
    results = read_results(folder)
    assert set(results.plates["Metadata_Plate"]) == {"0042"}
    assert set(results.compounds["compound"]) == {"NA"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wells.csv", "a,b\n1,2\n", "column 'Metadata_Plate' is missing"),
        ("threshold.json", "[1]", "it holds no keys"),
        ("threshold.json", "{", "is damaged"),
        ("plates.csv", None, "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_not_as_agreed_is_named(screen, tmp_path, name, content, message):
    folder = remake(screen, tmp_path)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        read_results(folder)


@pytest.mark.parametrize(("column", "value"), [("bad", "maybe"), ("scored", "many")])
def test_a_value_that_is_no_number_or_truth_is_named(screen, tmp_path, column, value):
    folder = remake(screen, tmp_path, fields=lambda table: table.assign(**{column: value}))
    with pytest.raises(InputError, match=f"fields.csv: '{column}' must be"):
        read_results(folder)


def test_features_of_another_screen_or_encoder_are_refused(screen, tmp_path):
    other = make_features(
        tmp_path / "other.parquet", screen["cells"].assign(crop_id="x" + screen["cells"]["crop_id"])
    )
    results = read_results(screen["folder"])
    with pytest.raises(InputError, match="other.parquet: none of its crops is in cells.parquet"):
        report_pictures.map_of_features([other], results)
    with pytest.raises(InputError, match="is in more than one table"):
        report_pictures.map_of_features([screen["features"]] * 2, results)


def test_features_that_are_not_finite_are_left_out(screen, tmp_path):
    cells = screen["cells"].dropna(subset="score").head(40)
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    vectors[[3, 5], 0] = np.nan, np.inf
    table = features_table(cells["crop_id"].tolist(), vectors)
    write_table(table, tmp_path / "f.parquet", features_schema(4))
    results = read_results(screen["folder"])
    found = report_pictures.map_of_features([tmp_path / "f.parquet"], results)
    assert (found["shown"], found["left_out"], len(found["pictures"])) == (38, 2, 4)


# The command and the browser.


def test_the_command_writes_the_page_or_one_line(screen, tmp_path, monkeypatch, capsys):
    (tmp_path / "detector.json").write_text(json.dumps(DETECTOR))
    columns = ["what", "planted", "found", "low", "high"]
    pd.DataFrame([["nuclei", 9, 8, None, None]], columns=columns).to_csv(tmp_path / "truth.csv")
    assert read_truth(tmp_path / "truth.csv")["found"].tolist() == [8]

    def run(folder):
        flags = f"--screen sim --folder {folder} --crops {screen['shards']} --composite w1 w2 w3"
        flags += f" --features {screen['features']} --detector {tmp_path}/detector.json"
        flags += f" --truth {tmp_path}/truth.csv --output {tmp_path}/qc.html"
        flags += " --focus-edge 0.5 --nucleus-diameter-px 25 --pixel-um 0"
        flags += f" --record {tmp_path}/run.json"
        monkeypatch.setattr(sys, "argv", [make_qc_report.__file__, *flags.split()])
        make_qc_report.main()

    run(screen["folder"])
    text = Reader((tmp_path / "qc.html").read_text()).text
    assert "Quality of the screen sim" in text and "nuclei 9 8 –" in text
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(tmp_path / "gone")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "cells.parquet: cannot be read as Parquet" in said[0]


@in_browser
def test_the_page_fits_narrow_and_wide_windows_and_all_pictures_are_seen(screen, tmp_path):
    from playwright.sync_api import sync_playwright

    long = "a very long warning " * 8 + "x" * 200
    folder = remake(screen, tmp_path, plates=lambda table: table.assign(warning=long))
    page = render(
        folder,
        screen["shards"],
        features=[screen["features"]],
        detector=DETECTOR | {"trained_on": "simulated artefacts", "digest": "0" * 300},
    )
    (tmp_path / "qc.html").write_text(page)
    said = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (600, 1000, 1600):
            opened = browser.new_page(viewport={"width": width, "height": 900})
            opened.on("console", lambda message: said.append(message.text))
            opened.on("pageerror", lambda error: said.append(str(error)))
            opened.goto(f"file://{tmp_path}/qc.html")
            opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            sizes = opened.evaluate(
                "Promise.all([...document.images].map(i => i.decode().then("
                "() => [i.naturalWidth, i.getBoundingClientRect().width])))"
            )
            assert len(sizes) > 40 and all(own > 0 and shown > 30 for own, shown in sizes)
            for link in opened.query_selector_all("nav a"):
                target = link.get_attribute("href")
                assert opened.query_selector(target), target
            opened.close()
        browser.close()
    assert said == []


def test_two_crops_make_no_map(screen, tmp_path):
    cells = screen["cells"].dropna(subset="score").head(2)
    table = features_table(cells["crop_id"].tolist(), np.ones((2, 4), np.float32))
    write_table(table, tmp_path / "f.parquet", features_schema(4))
    found = report_pictures.map_of_features(
        [tmp_path / "f.parquet"], read_results(screen["folder"])
    )
    assert found == {"pictures": [], "shown": 2, "left_out": 0}


def test_crops_just_flagged_and_just_passed_are_shown(screen):
    found = report_pictures.galleries(read_results(screen["folder"]))
    rows = {one["title"]: one["rows"][0] for one in found if one["kind"] == "borderline"}
    assert list(rows) == ["just flagged", "just passed"]
    assert rows["just flagged"]["flagged"].all() and not rows["just passed"]["flagged"].any()
