"""Looking at images again: what moved is read, what changed is told, and nothing else."""

import builtins
import errno
import json
import os
import time

import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core import patience
from hcsqc.core.errors import InputError
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
    return tmp_path, summary([read_field(tmp_path, paths) for paths in PATHS.values()])


def summary(read) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "field_id": fields()["field_id"],
            "image_digest": [field.digests for field in read],
            "image_bytes": [[size for size, _ in field.stamps] for field in read],
            "image_changed_ns": [[changed for _, changed in field.stamps] for field in read],
        }
    )


def look(plate, checked=None, table=None):
    images, known = plate
    counted = []
    changed, same, read = other_images(
        fields() if table is None else table,
        known,
        images,
        None,
        ("w1", "w2"),
        checked or {},
        2,
        lambda: counted.append(1),
    )
    assert len(counted) == read and same.keys().isdisjoint(changed)
    return changed, same, read


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
    assert look(plate) == ({}, {}, 0)


def test_a_touched_image_is_read_once_and_is_no_change(plate):
    time.sleep(0.02)
    os.utime(plate[0] / "B02_w2.tif")
    changed, same, read = look(plate)
    assert (changed, list(same), read) == ({}, ["a/p/B02/s1"], 1)
    same = json.loads(json.dumps(same))  # as the receipt has it
    assert look(plate, same) == ({}, {}, 0)
    os.utime(plate[0] / "B02_w1.tif")
    assert look(plate, same)[2] == 1


def test_other_pixels_of_the_same_size_and_an_old_time_are_a_change(plate):
    path = plate[0] / "B03_w1.tif"
    size, times = path.stat().st_size, (path.stat().st_atime, path.stat().st_mtime)
    time.sleep(0.02)
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16))
    os.utime(path, times)  # as a restored backup
    assert path.stat().st_size == size
    assert look(plate) == ({"a/p/B03/s1": "other pixels"}, {}, 1)


def test_an_image_replaced_after_it_was_read_is_a_change_whatever_was_written_later(plate):
    """While the rest of the plate was still cropped: the summary is newer than the image."""
    time.sleep(0.02)
    tifffile.imwrite(plate[0] / "B02_w1.tif", np.zeros((8, 8), np.uint16))
    time.sleep(0.02)
    (plate[0] / "p.summary.parquet").touch()
    assert look(plate)[0] == {"a/p/B02/s1": "other pixels"}


def test_an_image_that_can_no_longer_be_read_is_a_change_and_says_why(plate):
    time.sleep(0.02)
    (plate[0] / "B02_w1.tif").write_bytes(b"II*\0")
    changed, _, _ = look(plate)
    assert list(changed) == ["a/p/B02/s1"] and "B02_w1.tif" in changed["a/p/B02/s1"]


def test_a_field_that_could_not_be_read_and_now_can_is_a_change(plate):
    known = plate[1].assign(image_digest=[[], plate[1]["image_digest"][1]])
    assert look((plate[0], known)) == ({"a/p/B02/s1": "can be read now"}, {}, 1)
    (plate[0] / "B02_w1.tif").write_bytes(b"II*\0")
    assert look((plate[0], known)) == ({}, {}, 1)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_what_cannot_be_read_just_now_is_no_change_but_an_error(plate, monkeypatch, number):
    monkeypatch.setattr(patience, "WAITS_S", (0.0,))
    time.sleep(0.02)
    os.utime(plate[0] / "B02_w2.tif")
    real = builtins.open

    def fails(path, *args, **kwargs):
        if str(path).endswith("B02_w2.tif"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", fails)
    with pytest.raises(InputError, match=f"^{plate[0]}/B02_w2.tif: "):
        look(plate)


def test_fields_with_a_problem_or_without_crops_are_not_read(plate):
    time.sleep(0.02)
    for paths in PATHS.values():
        os.utime(plate[0] / paths[0])
    table = fields(problem=["no image of channel w1", None])
    images, known = plate
    assert look((images, known), table=table)[2] == 1
    assert look((images, known[1:]))[2] == 1
    assert look((images, known[:1]), table=table)[2] == 0
