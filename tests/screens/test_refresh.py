"""Looking at images again: what moved is read, what changed is told, and nothing else."""

import os
import time

import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core.schema import TABLES
from hcsqc.screens.images.read import read_field
from hcsqc.screens.refresh import other_images, other_listing

PATHS = {"B02": ["B02_w1.tif", "B02_w2.tif"], "B03": ["B03_w1.tif", "B03_w2.tif"]}


def fields(**columns) -> pd.DataFrame:
    rows = {
        "field_id": [f"a/p/{well}/s1" for well in PATHS],
        "plate": "p",
        "well": list(PATHS),
        "site": 1,
        "role": ["mock", "compound"],
        "compound": [None, "X"],
        "concentration_um": [np.nan, 3.0],
        "image_path": list(PATHS.values()),
        "image_page": [[None, None], [None, None]],
        "image_bytes": [[10, 10], [10, 10]],
        "problem": None,
    }
    table = pd.DataFrame(rows | columns)
    assert list(table.columns) == TABLES["fields"].columns.names
    return table


@pytest.fixture
def plate(tmp_path):
    """Images of two fields, and the summary of their crops."""
    rng = np.random.default_rng(0)
    for paths in PATHS.values():
        for path in paths:
            tifffile.imwrite(tmp_path / path, rng.integers(0, 999, (8, 8)).astype(np.uint16))
    table = fields()
    read = other_images(table, summary([["?"], ["?"]]), tmp_path, None, 0, 1, lambda: None)
    assert set(read[0]) == set(table["field_id"]) and read[1] == 2
    digests = [read_field(tmp_path, paths).digests for paths in PATHS.values()]
    return tmp_path, summary(digests), time.time_ns()


def summary(digests) -> pd.DataFrame:
    return pd.DataFrame({"field_id": fields()["field_id"], "image_digest": digests})


def look(plate, since_ns=None, table=None):
    images, known, made = plate
    counted = []
    changed, read = other_images(
        fields() if table is None else table,
        known,
        images,
        None,
        made if since_ns is None else since_ns,
        2,
        lambda: counted.append(1),
    )
    assert len(counted) == read
    return changed, read


def test_the_same_listing_is_no_change_whatever_is_null():
    assert other_listing(fields(), fields()) == {}
    arrays = fields(image_bytes=[np.array([10, 10]), np.array([10.0, 10.0])])
    assert other_listing(arrays, fields()) == {}


def test_new_gone_and_other_files_are_told_apart():
    sized = fields(image_bytes=[[10, 11], [10, 10]])
    assert other_listing(fields(), sized) == {"a/p/B02/s1": "other files"}
    assert other_listing(fields(), fields()[:1]) == {"a/p/B03/s1": "gone"}
    assert other_listing(fields()[:1], fields()) == {"a/p/B03/s1": "new"}
    treated = fields(compound=["Y", "X"])
    assert other_listing(fields(), treated) == {"a/p/B02/s1": "other files"}


def test_nothing_is_read_where_nothing_moved(plate):
    time.sleep(0.02)
    assert look(plate, since_ns=time.time_ns()) == ({}, 0)


def test_a_touched_image_is_read_and_is_no_change(plate):
    time.sleep(0.02)
    os.utime(plate[0] / "B02_w2.tif")
    assert look(plate) == ({}, 1)


def test_other_pixels_of_the_same_size_and_an_old_time_are_a_change(plate):
    path = plate[0] / "B03_w1.tif"
    size, times = path.stat().st_size, (1, 1)
    time.sleep(0.02)
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16))
    os.utime(path, times)  # as a restored backup
    assert path.stat().st_size == size
    assert look(plate) == ({"a/p/B03/s1": "other pixels"}, 1)


def test_an_image_that_can_no_longer_be_read_is_a_change_and_says_why(plate):
    time.sleep(0.02)
    (plate[0] / "B02_w1.tif").write_bytes(b"II*\0")
    changed, _ = look(plate)
    assert list(changed) == ["a/p/B02/s1"] and "B02_w1.tif" in changed["a/p/B02/s1"]


def test_a_field_that_could_not_be_read_and_now_can_is_a_change(plate):
    known = plate[1].assign(image_digest=[[], plate[1]["image_digest"][1]])
    changed, read = look((plate[0], known, 0), since_ns=0)
    assert changed == {"a/p/B02/s1": "other pixels"} and read == 2


def test_fields_with_a_problem_or_without_crops_are_not_read(plate):
    table = fields(problem=["no image of channel w1", None])
    images, known, _ = plate
    assert look((images, known[1:], 0), since_ns=0, table=table)[1] == 1
    assert look((images, known[:1], 0), since_ns=0, table=table)[1] == 0
