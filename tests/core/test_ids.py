"""Keys of fields, crops and jobs, and what the paths of results say."""

from pathlib import Path

import pandas as pd
import pytest

from hcsqc.core import ids

FIELD = "BBBC022/20585/A01/s3"
CROP = f"{FIELD}/x0012y1034"


def test_a_key_is_put_together_and_taken_apart():
    assert ids.field_id("BBBC022", "20585", "A01", 3) == FIELD
    assert ids.crop_id(FIELD, 12, 1034) == CROP
    parts = ids.split_field_id(pd.Series([FIELD, "s/p/H12/s11"], index=[7, 9]))
    assert parts.to_dict("list") == {
        "plate": ["20585", "p"],
        "well": ["A01", "H12"],
        "site": [3, 11],
    }
    assert parts.index.tolist() == [7, 9]


@pytest.mark.parametrize("key", [FIELD, CROP, f"{CROP}/blur"])
def test_a_key_says_where_a_field_or_crop_lies(key):
    assert (ids.screen_of(key), ids.plate_of(key)) == ("BBBC022", "20585")
    assert ids.wells_of([key, "s/p/H12/s1"]).tolist() == ["20585/A01", "p/H12"]


def test_a_degraded_copy_is_told_from_its_crop():
    assert (ids.within_field(CROP), ids.is_copy(CROP)) == ("x0012y1034", False)
    copy = f"{CROP}/blur"
    assert (ids.within_field(copy), ids.is_copy(copy)) == ("x0012y1034/blur", True)


@pytest.mark.parametrize(
    ("path", "encoder"),
    [
        ("results/s/encoders/vgg16/seed0/encoder.safetensors", "vgg16"),
        ("/a b/results/s/features/simclr/seed12/BBBC022.parquet", "simclr"),
        ("results/s/predictions/swav/seed2/knn/budget25.parquet", "swav"),
        ("results/s/encoders/seed1/seed3/epochs", "seed1"),
        ("vgg16/seed0/encoder.json", "vgg16"),
    ],
)
def test_a_path_of_results_says_whose_it_is(path, encoder):
    assert ids.encoder_of(Path(path)) == encoder


@pytest.mark.parametrize("path", ["encoder.safetensors", "vgg16/encoder.json", "vgg16/seed0"])
def test_a_path_of_another_form_is_refused(path):
    with pytest.raises(ValueError, match="is not below a folder"):
        ids.encoder_of(Path(path))


def test_a_job_is_named_by_its_record():
    record = Path("/x/results/demo/runs/probes/vgg16/seed0/knn/budget25/run.json")
    assert ids.job_key(record) == "probes/vgg16/seed0/knn/budget25"
    assert ids.stage_of(ids.job_key(record)) == "probes"
    assert ids.job_key(Path("anywhere/mine/run.json")) == "mine"
