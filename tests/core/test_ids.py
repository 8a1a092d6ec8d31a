"""Keys of fields, crops and jobs, and what the paths of results say."""

from pathlib import Path

import pandas as pd
import pytest

from hcsqc.core import ids
from hcsqc.core.errors import InputError

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


def test_a_degraded_copy_is_told_from_its_crop():
    assert (ids.within_field(CROP), ids.is_copy(CROP)) == ("x0012y1034", False)
    copy = f"{CROP}/blur"
    assert (ids.within_field(copy), ids.is_copy(copy)) == ("x0012y1034/blur", True)


@pytest.mark.parametrize(
    ("path", "encoder", "seed"),
    [
        ("results/s/encoders/vgg16/seed0/encoder.safetensors", "vgg16", 0),
        ("/a b/results/s/features/simclr/seed12/BBBC022.parquet", "simclr", 12),
        ("results/s/predictions/swav/seed2/knn/budget25.parquet", "swav", 2),
        ("results/s/encoders/seed1/seed3/epochs", "seed1", 3),
        ("results/s/analyses/selection/vgg16/seed4.to_random.csv", "vgg16", 4),
        ("vgg16/seed0/encoder.json", "vgg16", 0),
    ],
)
def test_a_path_of_results_says_whose_it_is(path, encoder, seed):
    assert (ids.encoder_of(Path(path)), ids.seed_of(Path(path))) == (encoder, seed)


@pytest.mark.parametrize("path", ["encoder.safetensors", "vgg16/encoder.json", "vgg16/seed0"])
def test_a_path_of_another_form_is_refused_and_is_its_own_label(path):
    for read in (ids.encoder_of, ids.seed_of):
        with pytest.raises(InputError, match=r"expected a path below a folder \{encoder\}/seed"):
            read(Path(path))
    assert ids.encoder_label(Path(path)) == path


@pytest.mark.parametrize(
    "path",
    [
        Path("results/s/predictions/vgg16/seed3/knn/budget25.parquet"),
        Path("results/s/runs/probes/vgg16/seed3/knn/budget25/run.json"),
        "probes/vgg16/seed3/knn/budget25",
    ],
)
def test_predictions_their_record_and_its_key_are_of_one_job(path):
    job = ids.probe_job(path)
    assert job == ("vgg16", 3, "knn", 25)
    assert job.path == "vgg16/seed3/knn/budget25"


@pytest.mark.parametrize("path", ["probes/vgg16/knn/budget25", "a/seed1/knn/budgetten", "x.csv"])
def test_what_is_of_no_probe_is_refused(path):
    with pytest.raises(InputError, match="not of a probe"):
        ids.probe_job(path)


@pytest.mark.parametrize("ending", ["", ".nuclei", ".summary", ".truth"])
def test_a_shard_and_the_tables_beside_it_say_screen_and_plate(ending):
    path = Path(f"results/s/crops/BBBC021/Week1_22123{ending}.parquet")
    assert ids.screen_and_plate(path) == ("BBBC021", "Week1_22123")
    dotted = Path(f"results/s/crops/mine/plate.2{ending}.parquet")
    assert ids.screen_and_plate(dotted) == ("mine", "plate.2")


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("config", {}),
        ("search/simclr/lr0.1_wd0", {"encoder": "simclr", "trial": "lr0.1_wd0"}),
        ("crops/BBBC022/20585", {"screen": "BBBC022", "plate": "20585"}),
        ("qc/detector", {"part": "detector"}),
        ("qc/mine/scores/p1", {"screen": "mine", "part": "scores", "plate": "p1"}),
        (
            "features/vgg16/seed0/mine/p1",
            {"encoder": "vgg16", "seed": "0", "screen": "mine", "plate": "p1"},
        ),
        (
            "probes/vgg16/seed0/knn/budget25",
            {"encoder": "vgg16", "seed": "0", "probe": "knn", "budget": "25"},
        ),
    ],
)
def test_a_jobs_key_says_what_it_is_of(key, names):
    assert ids.names_of(key) == {"stage": key.split("/")[0]} | names


def test_a_job_is_named_by_its_record():
    record = Path("/x/results/demo/runs/probes/vgg16/seed0/knn/budget25/run.json")
    assert ids.job_key(record) == "probes/vgg16/seed0/knn/budget25"
    assert ids.stage_of(ids.job_key(record)) == "probes"
    assert ids.job_key(Path("anywhere/mine/run.json")) == "mine"
