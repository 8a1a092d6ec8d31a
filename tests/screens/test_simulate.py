"""Simulated plates: the truth is true, the files are named, and nothing depends on company."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.spatial import cKDTree

from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.screens.artefacts import REACH_RADII, SIMULATED
from hcsqc.screens.simulate.camera import CAMERA_OFFSET, expose, make_shading
from hcsqc.screens.simulate.cell_lines import CELL_LINES, optics_of
from hcsqc.screens.simulate.cells import place_cells
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_field, simulate_plate
from hcsqc.screens.simulate.spoil import artefact_distances
from hcsqc.screens.simulate.textures import make_textures

U2OS = SimulationSettings(
    cell_line="u2os",
    wells=("B02", "C04"),
    sites=2,
    height_px=260,
    width_px=348,
    cells_per_field=14,
    touching_share=0.2,
    artefact_cell_share=0.3,
    artefact_field_share=0.2,
    seed=7,
)
MCF7 = replace(U2OS, cell_line="mcf7", height_px=256, width_px=320)
CLEAN = replace(U2OS, artefact_cell_share=0.0, artefact_field_share=0.0)
PLATES = {"u2os": "20001", "mcf7": "Week1_22123"}


@pytest.fixture(scope="module")
def textures():
    return make_textures()


def simulate(settings, folder, plate=None):
    plate = plate or PLATES[settings.cell_line]
    csv = folder / "image.csv"
    truth = simulate_plate(settings, plate, folder / "images", csv, "test")
    return truth, pd.read_csv(csv), folder / "images"


def fields(settings, textures, count):
    """Yield image and truth of `count` fields of one plate, without files."""
    plate = PLATES[settings.cell_line]
    shading = make_shading(settings, plate, len(CELL_LINES[settings.cell_line].channels))
    for site in range(1, count + 1):
        yield simulate_field(settings, plate, "B02", site, textures, shading)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.tif"))}


@pytest.mark.parametrize("settings", [U2OS, MCF7], ids=["u2os", "mcf7"])
def test_csv_places_every_file(settings, tmp_path):
    truth, rows, images = simulate(settings, tmp_path)
    line = settings.cell_line
    assert len(rows) == 4
    named = set()
    if line == "u2os":
        pattern = r"IXMtest_(B02|C04)_s([12])_w([1-5])[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}.tif"
        for column in rows.filter(like="Image_FileName"):
            for name in rows[column]:
                channel = re.fullmatch(pattern, name)[3]
                named.add(f"BBBC022_v1_images_20001w{channel}/{name}")
    else:
        pattern = r"^(?:(.+?)_)?([A-H]\d\d)_s(\d)_w([124])([0-9A-F-]{36})\.tif$"
        for stain in ("DAPI", "Tubulin", "Actin"):
            paths = rows[f"Image_PathName_{stain}"]
            for folder, name in zip(paths, rows[f"Image_FileName_{stain}"], strict=True):
                assert re.fullmatch(pattern, name)
                named.add(f"{folder}/{name}")
        assert set(rows["Image_PathName_DAPI"]) == {"Week1/Week1_22123"}
    assert named == set(contents(images))
    for path in named:
        image = tifffile.imread(images / path)
        assert image.dtype == np.uint16 and image.max() <= 4095
        assert image.shape == (settings.height_px, settings.width_px)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.csv", "images"]
    write_table(truth, tmp_path / "truth.parquet", "truth")


def test_csv_columns_are_the_screens(tmp_path):
    u2os = simulate(replace(U2OS, wells=("B02", "B03")), tmp_path / "u2os")[1]
    assert ",".join(u2os.columns) == (
        "ImageNumber,Image_FileName_OrigER,Image_FileName_OrigHoechst,Image_FileName_OrigMito,"
        "Image_FileName_OrigPh_golgi,Image_FileName_OrigSyto,Image_Metadata_ASSAY_WELL_ROLE,"
        "Image_Metadata_BROAD_ID,Image_Metadata_CPD_MMOL_CONC,Image_Metadata_CPD_PLATE_MAP_NAME,"
        "Image_Metadata_CPD_WELL_POSITION,Image_Metadata_PlateID,"
        "Image_Metadata_SOURCE_COMPOUND_NAME,Image_Metadata_SOURCE_NAME,Image_Metadata_Site"
    )
    assert u2os["Image_FileName_OrigER"].str.contains("_w2").all()
    assert u2os["Image_FileName_OrigMito"].str.contains("_w5").all()
    assert u2os["Image_Metadata_ASSAY_WELL_ROLE"].tolist() == ["mock"] * 2 + ["compound"] * 2
    assert u2os["Image_Metadata_SOURCE_COMPOUND_NAME"].isna().tolist() == [True] * 2 + [False] * 2
    mcf7 = simulate(replace(MCF7, wells=("B02", "C06"), sites=1), tmp_path / "mcf7")[1]
    assert ",".join(mcf7.columns) == (
        "TableNumber,ImageNumber,Image_FileName_DAPI,Image_PathName_DAPI,Image_FileName_Tubulin,"
        "Image_PathName_Tubulin,Image_FileName_Actin,Image_PathName_Actin,"
        "Image_Metadata_Plate_DAPI,Image_Metadata_Well_DAPI,Replicate,Image_Metadata_Compound,"
        "Image_Metadata_Concentration"
    )
    assert mcf7["Image_Metadata_Compound"].tolist() == ["DMSO", "SIMULATED COMPOUND 54"]
    assert mcf7["Image_Metadata_Concentration"].tolist() == [0, 3]


def test_field_is_the_same_in_any_company(tmp_path):
    both, _, images = simulate(U2OS, tmp_path / "both")
    alone, _, images_alone = simulate(replace(U2OS, wells=("C04",), sites=1), tmp_path / "alone")
    files, files_alone = contents(images), contents(images_alone)
    assert len(files_alone) == 5
    assert {name: files[name] for name in files_alone} == files_alone
    same = both[(both.well == "C04") & (both.site == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone)


def test_seed_and_plate_change_the_field(tmp_path):
    one = replace(U2OS, wells=("C04",), sites=1)
    first = contents(simulate(one, tmp_path / "a")[2])
    other_seed = contents(simulate(replace(one, seed=8), tmp_path / "b")[2])
    other_plate = contents(simulate(one, tmp_path / "c", "20002")[2])
    assert not set(first.values()) & set(other_seed.values())
    assert not set(first.values()) & set(other_plate.values())
    assert not set(first) & set(other_seed)


@pytest.mark.parametrize("cell_line", ["u2os", "mcf7"])
def test_truth_is_every_bright_spot_of_the_dna(cell_line, textures):
    settings = replace(CLEAN, cell_line=cell_line, touching_share=0.0, cells_per_field=12)
    nuclei = 0
    for image, truth in fields(settings, textures, 4):
        dna = cv2.GaussianBlur(image[0].astype(np.float32), (0, 0), 1.5)
        mask = (dna > np.median(dna) + 100).astype(np.uint8)
        count, labels = cv2.connectedComponents(mask)
        hit = labels[truth.y_px, truth.x_px]
        assert (hit > 0).all()
        assert len(set(hit)) >= 0.9 * len(truth)
        border = set(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        assert set(range(1, count)) - border <= set(hit)
        nuclei += len(truth)
    assert nuclei > 20


def test_counts_and_touching_shares_are_as_asked(textures):
    line = CELL_LINES["u2os"]
    settings = replace(CLEAN, height_px=520, width_px=696, cells_per_field=50)
    for share in (0.0, 0.4):
        touching, inside, total = 0, 0, 0
        for seed in range(20):
            wanted = replace(settings, touching_share=share)
            cells = place_cells(wanted, line, textures, np.random.default_rng(seed))
            centres = np.array([(cell.y, cell.x) for cell in cells])
            distances = np.linalg.norm(centres[:, None] - centres[None], axis=2)
            np.fill_diagonal(distances, np.inf)
            touching += (distances.min(axis=1) < 0.9 * line.spacing).sum()
            total += len(cells)
            inside += ((centres >= 0) & (centres < (520, 696))).all(axis=1).sum()
        assert abs(touching / total - share) < 0.08
        assert abs(inside / 20 - 50) < 5


def test_clean_field_has_no_artefacts(textures):
    for _, truth in fields(CLEAN, textures, 2):
        assert (truth.artefact == "none").all() and (truth.strength == 0).all()
        assert truth.artefact_px.isna().all()


def test_field_artefact_marks_every_nucleus(textures):
    seen = set()
    for _, truth in fields(replace(U2OS, artefact_field_share=1.0), textures, 12):
        if "debris" in set(truth.artefact):
            continue
        assert truth.artefact.nunique() <= 1
        assert (truth.scope == "field").all()
        assert truth.strength.between(0.25, 1).all()
        seen |= set(truth.artefact)
    assert len(seen) >= 4 and seen <= set(SIMULATED)


def test_debris_of_a_field_marks_the_nuclei_that_have_dirt_in_reach(textures, monkeypatch):
    monkeypatch.setattr("hcsqc.screens.simulate.spoil.SIMULATED", ("debris",))
    reach = REACH_RADII * optics_of("u2os").nucleus_radius_px
    shares = []
    dirty = replace(U2OS, artefact_field_share=1.0)
    for (image, truth), (clean, _) in zip(
        fields(dirty, textures, 8), fields(CLEAN, textures, 8), strict=True
    ):
        dirt = np.argwhere((image.astype(float) - clean > 200).any(axis=0))
        away, _ = cKDTree(dirt).query(truth[["y_px", "x_px"]])
        marked = (truth.artefact == "debris").to_numpy()
        assert (marked[away < 0.9 * reach]).all() and not marked[away > 1.2 * reach].any()
        assert (truth.scope == np.where(marked, "field", "cell")).all()
        assert (truth.strength[~marked] == 0).all()
        shares.append(marked.mean())
    assert 0.4 < np.mean(shares) < 0.85 and min(shares) < 0.6


@pytest.mark.statistics
def test_cells_have_artefacts_of_their_own_at_the_asked_rate(textures):
    settings = replace(U2OS, artefact_field_share=0.0, artefact_cell_share=0.3, touching_share=0.0)
    truth = pd.concat([truth for _, truth in fields(settings, textures, 25)])
    spoilt = truth[truth.artefact != "none"]
    assert abs(len(spoilt) / len(truth) - 0.3) < 0.06
    assert set(spoilt.artefact) == set(SIMULATED)
    assert (truth.scope == "cell").all() and spoilt.strength.between(0.25, 1).all()


def test_artefact_of_a_cell_shows_where_the_truth_says(textures):
    spoilt = replace(CLEAN, artefact_cell_share=0.2)
    changed = []
    for (image, truth), (clean, _) in zip(
        fields(spoilt, textures, 6), fields(CLEAN, textures, 6), strict=True
    ):
        difference = np.abs(image.astype(float) - clean).mean(axis=0)
        for row in truth.itertuples():
            y, x = (
                slice(max(row.y_px - 20, 0), row.y_px + 21),
                slice(max(row.x_px - 20, 0), row.x_px + 21),
            )
            changed.append((row.artefact != "none", difference[y, x].mean()))
    table = pd.DataFrame(changed, columns=["spoilt", "difference"])
    normal, aberrant = (table[table.spoilt == s].difference.median() for s in (False, True))
    assert aberrant > 1.5 * normal


def test_distance_is_that_of_the_nearest_pixel_in_a_square_window():
    optics = optics_of("u2os")
    changes = np.zeros((5, 100, 120), dtype=np.float32)
    cells = [SimpleNamespace(y=y, x=x) for y, x in ((50, 60), (20.4, 71.6), (0, 0), (99, 119))]
    assert artefact_distances(changes, cells, optics) == [None] * 4
    changes[2, 50, 60] = 0.04 * optics.signal[2]  # what drowns in noise
    assert artefact_distances(changes, cells, optics) == [None] * 4
    changes[3, 40, 80] = -0.06 * optics.signal[3]
    # The larger of rows and columns, from the nearest whole pixel.
    assert artefact_distances(changes, cells, optics) == [20, 20, 80, 59]


def test_windows_that_the_truth_calls_free_hold_no_artefact(textures):
    spoilt = replace(CLEAN, artefact_cell_share=0.15)
    free = 0
    for seed in range(4):
        (image, truth), (clean, _) = (
            next(fields(replace(settings, seed=seed), textures, 1)) for settings in (spoilt, CLEAN)
        )
        change = np.abs(image.astype(float) - clean)
        noise = cv2.blur(change.mean(axis=0), (9, 9))
        for row in truth[truth.artefact == "none"].itertuples():
            half = 20
            window = noise[
                max(row.y_px - half, 0) : row.y_px + half, max(row.x_px - half, 0) : row.x_px + half
            ]
            if row.artefact_px > half + 5:
                free += 1
                assert window.max() < 35, "two exposures of the same light"
    assert free > 5
    away = truth.artefact_px[truth.artefact == "none"]
    assert away.between(0, 348).all()


def test_a_dimmer_lamp_dims_what_is_above_the_offset(textures):
    pairs = zip(
        fields(CLEAN, textures, 1), fields(replace(CLEAN, light=0.9), textures, 1), strict=True
    )
    for (image, truth), (dim, same) in pairs:
        share = (dim.astype(float) - CAMERA_OFFSET).sum() / (image - CAMERA_OFFSET).sum()
        assert share == pytest.approx(0.9, abs=0.005)
        pd.testing.assert_frame_equal(truth, same)


def test_camera_noise_is_as_measured_on_real_fields():
    levels = np.empty((2, 300, 300), dtype=np.float32)
    levels[0], levels[1] = 300, 700
    image = expose(levels, np.random.default_rng(0)).astype(float)
    np.testing.assert_allclose(image.mean(axis=(1, 2)), [300, 700], atol=0.3)
    np.testing.assert_allclose(image.var(axis=(1, 2)), [76, 236], rtol=0.03)


def test_camera_keeps_saturated_pixels_at_the_top():
    levels = np.full((1, 50, 50), 4095, dtype=np.float32)
    assert (expose(levels, np.random.default_rng(0)) == 4095).all()


def test_shading_is_fixed_per_plate_and_smooth():
    shading = make_shading(U2OS, "20001", 5)
    np.testing.assert_array_equal(shading, make_shading(U2OS, "20001", 5))
    assert np.abs(shading - make_shading(U2OS, "20002", 5)).max() > 0.01
    assert shading.max() == pytest.approx(1, abs=1e-3)
    assert shading.min() == pytest.approx(0.85, abs=1e-3)
    assert np.abs(np.diff(shading, axis=1)).max() < 0.005


@pytest.mark.parametrize(
    ("change", "plate", "message"),
    [
        ({"cell_line": "hela"}, "1", "cell_line 'hela' is not known; choose one of"),
        ({"touching_share": 1.5}, "1", "touching_share is 1.5, but must be from 0 to 1"),
        ({"light": 0.0}, "1", "light is 0.0, but must be above 0"),
        ({"height_px": 0}, "1", "height_px is 0, but must be at least 1"),
        ({"sites": 10}, "1", "sites is 10, but the file names have one digit"),
        ({"wells": ("B2",)}, "1", "well 'B2' is not a well of u2os"),
        ({"wells": ("B02", "B02")}, "1", "must be at least one and all different"),
        ({"wells": ()}, "1", "must be at least one and all different"),
        ({"cells_per_field": 500}, "1", "cells_per_field is 500, but only .* fit"),
        ({}, "a/b", "plate 'a/b' does not fit u2os"),
        ({"cell_line": "mcf7"}, "22123", "plate '22123' does not fit mcf7"),
        ({"cell_line": "mcf7", "wells": ("P02",)}, "Week1_1", "well 'P02' is not a well of mcf7"),
    ],
)
def test_bad_input_is_refused(change, plate, message, tmp_path):
    with pytest.raises(InputError, match=message):
        simulate_plate(replace(U2OS, **change), plate, tmp_path, tmp_path / "image.csv", "test")
    assert not list(tmp_path.iterdir())
