"""Pictures of fields and sheets of crops for the report: in place, in order, within the budget."""

import base64
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core.schema import TABLES
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.qc.field_view.images import FieldSource
from hcsqc.qc.report.crop_sheets import (
    LADDER,
    choose_crops,
    crop_sheets,
)
from hcsqc.qc.report.thumbnails import (
    OUTLINE,
    field_pictures,
    pack_outlines,
    picture_bytes,
    shown_order,
)

CHANNELS = ("w1", "w2", "w3")
# Linear up to the top: pixels are level x 255 / 1000.
SCALE = {name: [0.0, 1000.0, 1000.0, 0.9] for name in CHANNELS}
WELLS = ("B02", "B03", "C02", "C03")
SITES, HEIGHT, WIDTH, CROP_PX = 3, 240, 320, 24
THRESHOLD = 0.5
NUCLEI = [(40, 30), (160, 120), (290, 200), (100, 180)]  # x, y of the centres
RADIUS = 10


def bright_discs(levels) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    # Texture, as a plain background costs nothing.
    plane = np.random.default_rng(sum(levels)).integers(0, 150, (HEIGHT, WIDTH)).astype(np.uint16)
    for (x, y), level in zip(NUCLEI, levels, strict=True):
        plane[np.hypot(columns - x, rows - y) <= RADIUS] = level
    return plane


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A plate of 4 wells x 3 fields with 4 nuclei each; the last is not scored.

    The first field of B02 has a flagged nucleus, the third of C03 is bad.
    """
    folder = tmp_path_factory.mktemp("screen")
    fields, cells, crops, results = [], [], [], []
    for number, (well, site) in enumerate((w, s) for w in WELLS for s in range(1, SITES + 1)):
        field_id = f"sim/p1/{well}/s{site}"
        planes = [bright_discs(levels) for levels in ([900] * 4, [500] * 4, [400 + number] * 4)]
        paths = [f"{well}_{site}_{name}.tif" for name in CHANNELS]
        for path, plane in zip(paths, planes, strict=True):
            tifffile.imwrite(folder / path, plane)
        fields.append((field_id, "p1", well, site, paths, [None] * 3))
        results.append(("p1", well, site, int(number == 0), number == 11))
        for place, (x, y) in enumerate(NUCLEI):
            score = 0.9 if number == 0 and place == 1 else 0.1 * place + 0.01 * number
            crop = f"{field_id}/x{x:04d}y{y:04d}"
            row = dict.fromkeys(TABLES["cells"].columns.names)
            row |= {"crop_id": crop, "Metadata_Plate": "p1", "Metadata_Well": well}
            row |= {"Metadata_Site": site, "Nuclei_AreaShape_Area": np.pi * RADIUS**2}
            row |= {"Nuclei_Location_Center_X": float(x), "Nuclei_Location_Center_Y": float(y)}
            if place < 3:
                row |= {"score": score, "flagged": score > THRESHOLD}
                row |= {"artefact": "debris" if score > THRESHOLD else None}
                crops.append((crop, field_id, x, y, [900, 500, 400 + number]))
            cells.append(row)
    path = folder / "p1.parquet"
    writer = ShardWriter(path, ShardFormat(CHANNELS, CROP_PX, "uint8", SCALE))
    names = ["crop_id", "field_id", "x_px", "y_px"]
    index = pd.DataFrame([crop[:4] for crop in crops], columns=names).assign(nucleus_area_px=314)
    levels = np.rint(np.array([crop[4] for crop in crops]) * 255 / 1000).astype(np.uint8)
    writer.add(index, np.tile(levels[:, :, None, None], (1, 1, CROP_PX, CROP_PX)))
    writer.close()
    columns = ["field_id", "plate", "well", "site", "image_path", "image_page"]
    names = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "flagged", "bad"]
    return SimpleNamespace(
        folder=folder,
        source=FieldSource(pd.DataFrame(fields, columns=columns), folder),
        cells=pd.DataFrame(cells).astype({"flagged": "boolean"}),
        fields=pd.DataFrame(results, columns=names),
        shards=Shards([path]),
    )


LEAST_FAIR_PX = 128  # wide


def pictures(screen, budget=10**6, seed=0, **changes):
    given = {"fields": screen.fields, "cells": screen.cells, "source": screen.source} | changes
    return field_pictures(
        shards=screen.shards, composite=list(CHANNELS), budget_bytes=budget, seed=seed, **given
    )


def decoded(uri: str) -> np.ndarray:
    kind, content = uri.split(",")
    assert kind == "data:image/webp;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)


def spent(found) -> int:
    return sum(map(picture_bytes, found.pictures.values()))


# Pictures of fields


def test_outlines_lie_around_the_nuclei_and_name_them(screen):
    found = pictures(screen).pictures["p1", "B02", 1]
    image = decoded(found.uri)
    assert image.shape[:2] == (found.height, found.width)
    assert found.scale == found.width / WIDTH == 0.7
    rows = found.outlines
    assert rows["flagged"].tolist() == [True, False, False]
    assert rows["crop_id"].tolist()[0] == "sim/p1/B02/s1/x0160y0120"
    assert rows["artefact"].iloc[0] == "debris" and rows["artefact"].iloc[1:].isna().all()
    assert rows["score"].tolist() == [0.9, 0.2, 0.0]
    np.testing.assert_allclose(rows["radius"], RADIUS * 0.7)
    at = {(round(x), round(y)) for x, y in zip(rows["x"], rows["y"], strict=True)}
    assert at == {(112, 84), (203, 140), (28, 21)}
    for x, y in at:  # the nucleus is bright there, and dark beside its outline
        assert image[y, x, 2] > 150 > 60 > image[y, x + 13, 2]


def test_a_field_is_as_bright_as_its_crops(screen):
    found = pictures(screen).pictures["p1", "C02", 2]
    image, number = decoded(found.uri), 7
    crop = screen.shards.read([screen.shards.rows_of(["sim/p1/C02/s2/x0160y0120"])[0]])[0]
    red, green, blue = crop[:, 0, 0].tolist()
    assert (red, green, blue) == (round(229.5), round(127.5), round((400 + number) * 0.255))
    np.testing.assert_allclose(image[84, 112], (blue, green, red), atol=12)


@pytest.mark.parametrize("budget", [40_000, 9_000, 4_000])
def test_pictures_and_outlines_keep_to_the_budget(screen, budget):
    found = pictures(screen, budget)
    assert 0 < spent(found) <= budget
    assert {("p1", "B02", 1), ("p1", "C03", 3)} <= set(found.pictures)


def test_bad_fields_and_those_with_flagged_cells_come_first_then_one_of_each_well(screen):
    order, needed = shown_order(screen.fields, seed=0)
    wells = order["Metadata_Well"].tolist()
    assert needed == 2 and wells[:2] == ["C03", "B02"]
    assert sorted(wells[2:6]) == sorted(WELLS)
    assert not order.duplicated(["Metadata_Well", "Metadata_Site"]).any() and len(order) == 12


def test_fewer_pictures_are_left_rather_than_illegible_ones(screen):
    found = pictures(screen, 4_000)
    assert 0 < len(found.pictures) < 12
    assert f"{12 - len(found.pictures)} are left out" in found.note
    assert all(picture.width == LEAST_FAIR_PX for picture in found.pictures.values())


def test_where_all_fields_have_flagged_cells_pictures_shrink(screen):
    flagged = screen.fields.assign(flagged=1)
    found = pictures(screen, 4_000, fields=flagged)
    assert len(found.pictures) == 12 and not found.note
    assert all(picture.width < LEAST_FAIR_PX for picture in found.pictures.values())
    outlines = found.pictures["p1", "B02", 1].outlines
    scale = found.pictures["p1", "B02", 1].scale
    np.testing.assert_allclose(outlines["x"].iloc[0], 160 * scale)


def test_the_seed_alone_decides_which_fields_are_shown(screen):
    first, again, other = (set(pictures(screen, 4_000, seed).pictures) for seed in (0, 0, 3))
    assert first == again != other


def test_threads_change_nothing(screen):
    one, two = pictures(screen), pictures(screen, threads=2)
    assert list(one.pictures) == list(two.pictures)
    assert all(one.pictures[p].uri == two.pictures[p].uri for p in one.pictures)


def test_images_that_are_gone_are_counted(screen, tmp_path):
    fields = screen.source.fields.copy()
    fields["image_path"] = [
        ["gone.tif"] * 3 if well == "B03" else paths
        for well, paths in zip(fields["well"], fields["image_path"], strict=True)
    ]
    found = pictures(screen, source=FieldSource(fields, screen.folder))
    assert len(found.pictures) == 9
    assert "3 fields cannot be shown" in found.note and "gone.tif: no such file" in found.note


def test_without_the_images_there_are_no_pictures_and_the_reason_is_told(screen, tmp_path):
    missing = tmp_path / "moved"
    found = pictures(screen, source=FieldSource(screen.source.fields, missing))
    assert not found.pictures
    assert found.note == f"No field is shown: the images are no longer in {missing}."
    assert "without the images" in pictures(screen, source=None).note


def test_packed_outlines_can_be_read_back(screen):
    found = pictures(screen).pictures["p1", "B02", 1]
    packed = np.frombuffer(base64.b64decode(pack_outlines(found, ["blur", "debris"])), OUTLINE)
    assert packed["kind"].tolist() == [3, 0, 0]
    np.testing.assert_allclose(packed["score"] / 255, found.outlines["score"], atol=0.002)
    np.testing.assert_allclose(packed["x"] / 255 * found.width, found.outlines["x"], atol=0.5)
    np.testing.assert_allclose(packed["y"] / 255 * found.height, found.outlines["y"], atol=0.5)
    np.testing.assert_allclose(packed["radius"] / 4, found.outlines["radius"], atol=0.13)
    unknown = np.frombuffer(base64.b64decode(pack_outlines(found, ["blur"])), OUTLINE)
    assert unknown["kind"].tolist() == [1, 0, 0]


# Crops


def made_cells(fields: int, flagged: int, passed: int) -> pd.DataFrame:
    """Return cells: in each field some flagged (.9, .89, ...) and some passed (.1, .09, ...)."""
    rows = []
    for number in range(fields):
        well, site = f"B{2 + number // 3:02d}", number % 3 + 1
        scores = [0.9 - 0.01 * i for i in range(flagged)] + [0.1 - 0.01 * i for i in range(passed)]
        for place, score in enumerate(scores):
            row = {"crop_id": f"sim/p1/{well}/s{site}/x{place:04d}y0000", "score": score}
            row |= {"Metadata_Plate": "p1", "Metadata_Well": well, "Metadata_Site": site}
            rows.append(row | {"flagged": score > THRESHOLD})
    return pd.DataFrame(rows).astype({"flagged": "boolean"})


def test_all_flagged_crops_are_chosen_then_the_nearest_and_some_of_each_well():
    cells = made_cells(6, 2, 4)
    chosen = choose_crops(cells, flagged=100, each_side=2, others=4, seed=0)
    assert len(chosen) == len(set(chosen)) == 12 + 2 + 4
    assert set(cells.loc[cells["flagged"], "crop_id"]) == set(chosen[:12])
    assert np.allclose(cells.set_index("crop_id").loc[chosen[12:14], "score"], 0.1)
    assert {crop.split("/")[2] for crop in chosen[14:]} == {"B02", "B03"}


def test_where_too_many_are_flagged_each_field_has_its_worst():
    chosen = choose_crops(made_cells(6, 5, 1), flagged=7, each_side=0, others=0, seed=0)
    fields, places = zip(*(crop.rsplit("/", 1) for crop in chosen), strict=True)
    assert len(chosen) == 7 and len(set(fields[:6])) == 6
    assert set(places[:6]) == {"x0000y0000"}


def test_the_sample_of_crops_is_seeded():
    cells = made_cells(9, 0, 9)
    first, again, other = (choose_crops(cells, 9, 0, 12, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_each_crop_is_where_the_sheet_says(screen):
    crops = screen.shards.index["crop_id"].tolist()
    detailed = crops[::5]
    made = crop_sheets(screen.shards, crops, list(CHANNELS), 10**6, detailed)
    assert list(made.positions) == crops and list(made.channel_positions) == detailed
    sheet, of_channels = decoded(made.sheets[0]), decoded(made.channel_sheets[0])
    half, tile = made.tile_px // 2, made.tile_px
    for crop in detailed:
        expected = screen.shards.read(screen.shards.rows_of([crop]))[0][:, 0, 0]
        number, left, top = made.positions[crop]
        assert number == 0
        np.testing.assert_allclose(sheet[top + half, left + half, ::-1], expected, atol=8)
        _, left, top = made.channel_positions[crop]
        grey = [of_channels[top + half, left + half + tile * i, 0] for i in range(3)]
        np.testing.assert_allclose(grey, expected, atol=8)


def test_more_tiles_than_a_sheet_holds_are_in_the_next(screen, monkeypatch):
    monkeypatch.setattr("hcsqc.qc.report.crop_sheets.SHEET_PX", 2 * LADDER[0][0])
    crops = screen.shards.index["crop_id"].tolist()[:6]
    made = crop_sheets(screen.shards, crops, [CHANNELS[0]], 10**6)
    tile = made.tile_px
    assert [made.positions[crop][0] for crop in crops] == [0, 0, 0, 0, 1, 1]
    assert made.positions[crops[3]] == (0, tile, tile)
    assert len(made.sheets) == 2 and not made.channel_sheets


def textured(folder, count: int) -> Shards:
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder / "p1.parquet", ShardFormat(CHANNELS, 64, "uint16", SCALE))
    names = [f"sim/p1/B02/s1/x{place:04d}y0000" for place in range(count)]
    index = pd.DataFrame({"crop_id": names, "field_id": "sim/p1/B02/s1", "x_px": 0, "y_px": 0})
    pixels = rng.integers(0, 65536, (count, 3, 64, 64), np.uint16)
    writer.add(index.assign(nucleus_area_px=1), pixels)
    writer.close()
    return Shards([folder / "p1.parquet"])


@pytest.mark.parametrize(
    ("budget", "tile", "left_out", "channels_left_out"),
    [(100_000, 32, 0, 0), (20_000, 24, 0, 20), (7_000, 24, 7, 40), (100, 24, 40, 40)],
)
def test_sheets_keep_to_the_budget(tmp_path, budget, tile, left_out, channels_left_out):
    shards = textured(tmp_path, 40)
    crops = shards.index["crop_id"].tolist()
    made = crop_sheets(shards, crops, list(CHANNELS), budget, crops)
    assert sum(map(len, made.sheets + made.channel_sheets)) <= budget
    assert made.tile_px == tile
    # A few more or less with another version of the encoder.
    assert abs(40 - len(made.positions) - left_out) <= 3
    assert abs(40 - len(made.channel_positions) - channels_left_out) <= 3
    assert list(made.positions) == crops[: len(made.positions)]
