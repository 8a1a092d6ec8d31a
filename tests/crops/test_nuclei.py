"""Nuclei: known discs, simulated fields with their truth, and fields without any."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from skimage.draw import disk
from skimage.measure import label, regionprops

from hcsqc.crops.nuclei import NucleusSettings, find_nuclei
from hcsqc.screens.simulate.camera import expose, make_shading
from hcsqc.screens.simulate.cell_lines import CELL_LINES
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_field
from hcsqc.screens.simulate.textures import make_textures

SETTINGS = NucleusSettings("fast", nucleus_diameter_px=25, nucleus_smallest_px=80)
MATCH_PX = 6
# A nucleus that the border cuts has its centre elsewhere; its crop would be dropped anyway.
RADIUS_PX = 15


def field_with_discs(centres, radius=12, level=900, shape=(240, 320), seed=0):
    """Return discs at (x, y) on a noisy background, and their mask."""
    mask = np.zeros(shape, bool)
    for x, y in centres:
        mask[disk((y, x), radius + 0.5, shape=shape)] = True
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    return np.rint(np.where(mask, level, 160) + noise).astype(np.uint16), mask


def centres_of(nuclei):
    return sorted(zip(nuclei.x_px.tolist(), nuclei.y_px.tolist(), strict=True))


def counts(found, true, shape):
    """Return hits, misses and false alarms among nuclei that lie whole in the field."""
    distance = np.hypot(*(true[:, None] - found[None]).transpose(2, 0, 1))
    rows, columns = linear_sum_assignment(np.minimum(distance, 1000))
    near = distance[rows, columns] <= MATCH_PX
    hit, hitting = np.zeros(len(true), bool), np.zeros(len(found), bool)
    hit[rows[near]], hitting[columns[near]] = True, True
    limits = np.array(shape[::-1]) - RADIUS_PX
    inner = ((true >= RADIUS_PX) & (true < limits)).all(axis=1)
    inner_found = ((found >= RADIUS_PX) & (found < limits)).all(axis=1)
    return np.array([(hit & inner).sum(), (~hit & inner).sum(), (~hitting & inner_found).sum()])


@pytest.mark.parametrize(
    ("cell_line", "plate", "cells"),
    [("u2os", "20001", 45), ("u2os", "20001", 70), ("mcf7", "Week1_22123", 60)],
)
def test_simulated_nuclei_are_found(cell_line, plate, cells):
    shape = 520, 696
    simulation = SimulationSettings(cell_line, ("B02",), 9, *shape, cells, 0.2, 0.0, 0.0, 5)
    textures = make_textures()
    shading = make_shading(simulation, plate, len(CELL_LINES[cell_line].channels))
    total = np.zeros(3)
    for site in range(1, 7):
        image, truth = simulate_field(simulation, plate, "B02", site, textures, shading)
        nuclei = find_nuclei(image[0], SETTINGS)
        found = np.stack([nuclei.x_px, nuclei.y_px], axis=1)
        assert len(np.unique(found, axis=0)) == len(found)  # a centre names a nucleus
        assert (found >= 0).all() and (found < shape[::-1]).all()
        assert (nuclei.area_px >= SETTINGS.nucleus_smallest_px).all()
        total += counts(found, truth[["x_px", "y_px"]].to_numpy(), shape)
    hits, misses, false_alarms = total
    assert hits > 150
    assert 2 * hits / (2 * hits + misses + false_alarms) >= 0.97, total


@pytest.mark.parametrize("shape", [(520, 696), (1080, 1080)], ids=["small", "large"])
@pytest.mark.parametrize("cells", [1, 3, 5])
def test_the_few_nuclei_of_a_sparse_field_are_found_and_not_their_glow(shape, cells):
    simulation = SimulationSettings("u2os", ("B02",), 9, *shape, cells, 0.0, 0.0, 0.0, 8)
    textures = make_textures()
    shading = make_shading(simulation, "20001", 5)
    total = np.zeros(3)
    for site in range(1, 5):
        image, truth = simulate_field(simulation, "20001", "B02", site, textures, shading)
        nuclei = find_nuclei(image[0], SETTINGS)
        found = np.stack([nuclei.x_px, nuclei.y_px], axis=1)
        if len(truth) and len(found):
            total += counts(found, truth[["x_px", "y_px"]].to_numpy(), shape)
        else:
            total += 0, len(truth), len(found)
    hits, misses, false_alarms = total
    assert misses <= 1 and false_alarms <= 5, total


@pytest.mark.parametrize("discs", [1, 2, 4])
def test_single_discs_in_a_large_field_are_found(discs):
    centres = [(500 + 300 * n, 400 + 210 * n) for n in range(discs)]
    image, _ = field_with_discs(centres, shape=(1600, 1800))
    np.testing.assert_allclose(centres_of(find_nuclei(image, SETTINGS)), centres, atol=1)


def test_a_large_bright_area_is_not_cut_into_nuclei():
    image = np.full((1600, 1800), 150, np.uint16)
    image[200:800, 100:1700] = 2000
    assert len(find_nuclei(image, SETTINGS)) <= 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 400)])
def test_tiny_fields_have_no_nuclei(shape):
    image = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    assert len(find_nuclei(image, SETTINGS)) == 0


@pytest.mark.parametrize("shape", [(240, 320), (241, 321)], ids=["even", "odd"])
def test_separate_discs_are_found_where_scikit_image_finds_them(shape):
    centres = [(40, 50), (120, 61), (201, 80), (281, 200), (60, 180), (150, 151)]
    image, mask = field_with_discs(centres, shape=shape)
    nuclei = find_nuclei(image, SETTINGS)
    regions = regionprops(label(mask))
    expected = sorted((region.centroid[1], region.centroid[0]) for region in regions)
    assert len(nuclei) == len(expected)
    np.testing.assert_allclose(centres_of(nuclei), expected, atol=1)
    # Shrunken pixels that a disc covers in part count whole.
    np.testing.assert_allclose(nuclei.area_px, regions[0].area, rtol=0.2)
    assert {column.dtype for column in vars(nuclei).values()} == {np.dtype(np.int32)}


def test_touching_discs_part():
    centres = [(100, 100), (123, 100), (200, 60), (200, 83)]
    nuclei = find_nuclei(field_with_discs(centres)[0], SETTINGS)
    np.testing.assert_allclose(centres_of(nuclei), sorted(centres), atol=3)


def test_specks_are_left_out_by_area():
    image, _ = field_with_discs([(60, 60), (200, 120)])
    image[disk((180, 260), 5.5)] = 900  # about 95 pixels
    assert len(find_nuclei(image, SETTINGS)) == 3
    large = replace(SETTINGS, nucleus_smallest_px=200)
    np.testing.assert_allclose(
        centres_of(find_nuclei(image, large)), [(60, 60), (200, 120)], atol=1
    )


def test_dim_nucleus_beside_bright_ones_is_found():
    centres = [(60, 60), (200, 120), (260, 60)]
    bright, _ = field_with_discs(centres[:2], level=1500)
    dim, mask = field_with_discs(centres[2:], level=800)
    nuclei = find_nuclei(np.where(mask, dim, bright), SETTINGS)
    np.testing.assert_allclose(centres_of(nuclei), centres, atol=1)


def test_gain_and_offset_of_the_camera_do_not_matter():
    centres = [(40, 50), (120, 61), (143, 61), (281, 200), (60, 180)]
    image, _ = field_with_discs(centres)
    nuclei, other = find_nuclei(image, SETTINGS), find_nuclei(3 * image + 1000, SETTINGS)
    np.testing.assert_allclose(centres_of(other), centres_of(nuclei), atol=1)


def test_eight_bit_field_gives_the_same_nuclei():
    image, _ = field_with_discs([(60, 60), (200, 120)], level=240)
    small = find_nuclei(image.astype(np.uint8), SETTINGS)
    assert centres_of(small) == centres_of(find_nuclei(image.astype(np.uint16), SETTINGS))
    assert len(small) == 2


def test_an_export_of_few_grey_levels_has_the_nuclei_of_its_original():
    centres = [(40, 50), (60, 180), (120, 61), (143, 61), (281, 200)]
    dim, _ = field_with_discs(centres[:3], level=400)
    bright, mask = field_with_discs(centres[3:], level=900)
    image = np.where(mask, bright, dim)
    for steps in (64, 128):
        export = (image // steps).astype(np.uint8)
        assert export.max() <= 15
        np.testing.assert_allclose(centres_of(find_nuclei(export, SETTINGS)), centres, atol=2)
        # A camera's offset changes nothing.
        offset = find_nuclei(export.astype(np.uint16) + 1000, SETTINGS)
        assert centres_of(offset) == centres_of(find_nuclei(export, SETTINGS))


@pytest.mark.parametrize("steps", [8, 16, 64])
def test_camera_noise_rounded_to_few_grey_levels_has_no_nuclei(steps):
    rng = np.random.default_rng(steps)
    for level in (125, 160, 200, 300):
        field = expose(np.full((520, 696), level, np.float32), rng)
        assert len(find_nuclei((field // steps).astype(np.uint8), SETTINGS)) == 0


@pytest.mark.parametrize("level", [0, 150, 4095, 65535])
def test_constant_field_has_no_nuclei(level):
    assert len(find_nuclei(np.full((520, 696), level, np.uint16), SETTINGS)) == 0


@pytest.mark.parametrize("level", [125, 160, 200, 300])
def test_field_of_camera_noise_has_no_nuclei(level):
    rng = np.random.default_rng(level)
    fields = [expose(np.full((520, 696), level, np.float32), rng) for _ in range(10)]
    assert [len(find_nuclei(field, SETTINGS)) for field in fields] == [0] * 10


def test_shaded_empty_field_has_no_nuclei():
    simulation = SimulationSettings("u2os", ("B02",), 1, 520, 696, 10, 0.0, 0.0, 0.0, 5)
    shading = make_shading(simulation, "20001", 5)[0]
    field = expose(200 * shading, np.random.default_rng(0))
    assert np.ptp(field) > 40
    assert len(find_nuclei(field, SETTINGS)) == 0
