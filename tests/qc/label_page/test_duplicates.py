"""Images and crops that are there more than once, exactly or nearly."""

import cv2
import numpy as np
import pandas as pd
import pytest

from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.qc.label_page.duplicates import (
    CROP,
    IMAGE,
    LIKENESS,
    NEAR,
    duplicates,
    near_duplicates,
    same_crops,
    same_images,
    small_pictures,
)

CHANNELS = ("w1", "w2", "w3")
COMPOSITE = ["w2", "w1"]
SIDE = 64


def cell(seed: int, side: int = SIDE, channels: int = 3) -> np.ndarray:
    """Return channels x side x side of uint8: a nucleus amid blobs of cytoplasm, with noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    planes = []
    for _ in range(channels):
        plane = 120 * np.exp(-(rows**2 + columns**2) / 0.02)
        for x, y, size in rng.uniform((-0.4, -0.4, 0.05), (0.4, 0.4, 0.15), (8, 3)):
            plane += 60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / size**2)
        planes.append(plane + rng.normal(0, 4, plane.shape))
    return np.clip(planes, 0, 255).astype(np.uint8)


def shards_of(path, crops: list[np.ndarray]) -> Shards:
    numbers = np.arange(len(crops))
    fields = [f"s/p/B{2 + number % 3:02d}/s1" for number in numbers]
    rows = {"field_id": fields, "x_px": numbers, "y_px": numbers, "nucleus_area_px": numbers + 9}
    rows["crop_id"] = [f"{field}/x{n:04d}y0001" for field, n in zip(fields, numbers, strict=True)]
    writer = ShardWriter(path, ShardFormat(CHANNELS, SIDE, "uint8", {}))
    writer.add(rows, np.stack(crops))
    writer.close()
    return Shards([path])


def moved(crop):
    return np.roll(crop, 1, axis=2)


def noisy(crop):
    noise = np.random.default_rng(9).normal(0, 8, crop.shape)
    return np.clip(crop + noise, 0, 255).astype(np.uint8)


def dimmer(crop):
    return (crop * 0.7).astype(np.uint8)


def compressed(crop):
    quality = [cv2.IMWRITE_JPEG_QUALITY, 60]
    pictures = [cv2.imencode(".jpg", plane, quality)[1] for plane in crop]
    return np.stack([cv2.imdecode(one, cv2.IMREAD_GRAYSCALE) for one in pictures])


@pytest.mark.parametrize("change", [moved, noisy, dimmer, compressed])
def test_a_changed_copy_is_a_near_duplicate_and_another_cell_is_none(tmp_path, change):
    crops = [cell(seed) for seed in range(12)] + [change(cell(5))]
    shards = shards_of(tmp_path / "p.parquet", crops)
    names = shards.index["crop_id"]
    found = near_duplicates(shards, names, COMPOSITE)
    assert found[["first", "second"]].to_numpy().tolist() == [[names[5], names[12]]]
    assert LIKENESS <= found["likeness"][0] < 1
    # Among the crops that are labelled alone.
    assert near_duplicates(shards, names[:12], COMPOSITE).empty


def test_the_same_pixels_are_the_same_crop_in_whatever_field_and_no_near_duplicate(tmp_path):
    shards = shards_of(tmp_path / "p.parquet", [cell(0), cell(1), cell(0), cell(2), cell(0)])
    names = shards.index["crop_id"].tolist()
    found = same_crops(shards)
    assert found[["first", "second"]].to_numpy().tolist() == [
        [names[0], names[2]],
        [names[0], names[4]],
    ]
    assert near_duplicates(shards, names, COMPOSITE).empty


def test_a_crop_without_any_contrast_is_like_no_other():
    black = np.zeros((2, 3, SIDE, SIDE), np.uint8)
    pictures = small_pictures(np.concatenate([black, cell(0)[None]]))
    np.testing.assert_allclose(pictures @ pictures.T, np.diag([0, 0, 1]), atol=1e-12)


def test_likeness_is_the_mean_correlation_of_the_channels():
    crops = np.stack([cell(0), cell(1)])
    first, second = (
        [cv2.resize(plane, (16, 16), interpolation=cv2.INTER_AREA).ravel() for plane in crop]
        for crop in crops
    )
    alike = [np.corrcoef(one, other)[0, 1] for one, other in zip(first, second, strict=True)]
    pictures = small_pictures(crops)
    assert pictures[0] @ pictures[1] == pytest.approx(np.mean(alike))


def fields_of(*fields) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return summaries and fields: each is field_id, paths and digests."""
    table = pd.DataFrame(fields, columns=["field_id", "image_path", "image_digest"])
    return table[["field_id", "image_digest"]], table[["field_id", "image_path"]]


def test_files_of_the_same_content_are_named_with_their_fields():
    found = same_images(
        *fields_of(
            ("s/p/B02/s1", ["a.tif", "b.tif"], ["1", "2"]),
            ("s/p/B02/s2", ["c.tif", "d.tif"], ["3", "1"]),
            ("s/q/B02/s1", ["a.tif", None], ["1", ""]),
            ("s/q/B02/s2", [None, None], []),
        )
    )
    assert found[["kind", "first", "second", "likeness"]].to_numpy().tolist() == [
        [IMAGE, "s/p/B02/s1: a.tif", "s/p/B02/s2: d.tif", 1.0],
        [IMAGE, "s/p/B02/s1: a.tif", "s/q/B02/s1: a.tif", 1.0],
    ]


def test_pages_of_one_file_are_no_duplicates():
    stack = ("s/p/B02/s1", ["a.tif", "a.tif"], ["1", "1"]), ("s/p/B02/s2", ["a.tif"], ["1"])
    assert same_images(*fields_of(*stack)).empty


def test_all_kinds_are_in_one_table_with_the_labels(tmp_path):
    shards = shards_of(tmp_path / "p.parquet", [cell(0), cell(1), cell(0), moved(cell(1))])
    names = shards.index["crop_id"]
    labels = pd.DataFrame({"crop_id": names[[0, 1, 3]], "label": ["normal", "normal", "abnormal"]})
    summaries, fields = fields_of(("s/p/B02/s1", ["a.tif", "b.tif"], ["1", "1"]))
    found = duplicates(shards, labels, summaries, fields, COMPOSITE)
    assert found["kind"].tolist() == [IMAGE, CROP, NEAR]
    told = found[["first_label", "second_label"]].astype(object)
    assert told.where(told.notna(), None).to_numpy().tolist() == [
        [None, None],
        ["normal", None],
        ["normal", "abnormal"],
    ]


def test_nothing_twice_is_an_empty_table(tmp_path):
    shards = shards_of(tmp_path / "p.parquet", [cell(0), cell(1)])
    labels = pd.DataFrame({"crop_id": shards.index["crop_id"][:0], "label": []})
    summaries, fields = fields_of(("s/p/B02/s1", ["a.tif"], ["1"]))
    assert duplicates(shards, labels, summaries, fields, COMPOSITE).empty
