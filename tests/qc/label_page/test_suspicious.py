"""Labels that held-out models contradict: their order, what a page shows, the file it makes."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.labels.match import FILE_COLUMNS, REVIEWED, read_label_file
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.label_page.review import COLUMNS, review_of, reviewed_crops, rows_of_files
from hcsqc.qc.label_page.suspicious import FEWEST, MOST, held_out_scores, ranked, to_review

SETTINGS = LogisticSettings(penalties=(0.01, 0.1), folds=3)
LOST = 0.05


def made_labels(count: int, wells: int = 20, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return labels, a third abnormal of two kinds, and features that tell most of them apart."""
    rng = np.random.default_rng(seed)
    artefact = rng.choice(["blur", "debris", None], count)
    abnormal = artefact != None  # noqa: E711
    well = [f"B{1 + i % wells:02d}" for i in range(count)]
    table = pd.DataFrame(
        {
            "crop_id": [f"s/p/{w}/s1/x{i:04d}y0001" for i, w in enumerate(well)],
            "plate": "p",
            "well": well,
            "group": [f"p/{w}" for w in well],
            "label": np.where(abnormal, "abnormal", "normal"),
            "artefact": artefact,
            "annotator": "a",
        }
    )
    features = rng.normal(size=(count, 12)).astype(np.float32)
    features[:, 0] += 3 * (artefact == "blur")
    features[:, 1] += 3 * (artefact == "debris")
    return table, features


def flipped(labels: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return labels with a share of them in the other class, and which those are."""
    rows = np.random.default_rng(seed).permutation(len(labels))[: round(share * len(labels))]
    label, artefact = labels["label"].to_numpy(object), labels["artefact"].to_numpy(object)
    label[rows] = np.where(label[rows] == "normal", "abnormal", "normal")
    artefact[rows] = None
    return labels.assign(label=label, artefact=artefact), rows


# The order


@pytest.mark.parametrize("seed", range(3))
def test_most_of_five_percent_flipped_labels_are_among_the_first_tenth(seed):
    labels, features = made_labels(400, seed=seed)
    wrong, rows = flipped(labels, 0.05, seed)
    table = ranked(wrong, held_out_scores(wrong, features, SETTINGS, LOST))
    first = set(table["crop_id"][: len(table) // 10])
    found = np.mean([crop in first for crop in labels["crop_id"].iloc[rows]])
    assert found >= 0.7  # by chance a tenth


def test_the_most_contradicted_comes_first_and_one_without_a_score_last():
    labels, _ = made_labels(5)
    labels["label"] = ["abnormal", "normal", "normal", "abnormal", "normal"]
    table = ranked(labels, np.array([0.2, 0.9, 0.5, np.nan, 0.5]))
    assert table["crop_id"].tolist() == labels["crop_id"].iloc[[1, 0, 2, 4, 3]].tolist()
    assert table["self_confidence"][:4].tolist() == pytest.approx([0.1, 0.2, 0.5, 0.5])
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(table["score"].iloc[-1])


@pytest.mark.parametrize(
    ("count", "shown"), [(5, 5), (100, FEWEST), (1001, 101), (20 * MOST, MOST)]
)
def test_a_page_shows_a_tenth_within_bounds(count, shown):
    labels, _ = made_labels(count)
    table = ranked(labels, np.linspace(0, 1, count))
    assert to_review(table, ())["rank"].tolist() == list(range(1, shown + 1))


def test_checked_labels_are_not_shown_again_nor_those_without_a_score():
    labels, _ = made_labels(30)
    scores = np.linspace(0.6, 0.9, 30)
    scores[10:] = np.nan
    table = ranked(labels.assign(label="normal"), scores)
    known = table["crop_id"].iloc[[0, 3]].tolist()
    assert to_review(table, known)["rank"].tolist() == [2, 3, 5, 6, 7, 8, 9, 10]


def test_labels_of_one_well_or_class_are_refused():
    labels, features = made_labels(40)
    with pytest.raises(InputError, match="40 labels in 1 groups: no model can be fitted without"):
        held_out_scores(labels.assign(group="p/B01"), features, SETTINGS, LOST)
    with pytest.raises(InputError, match="all 40 labels are normal"):
        held_out_scores(labels.assign(label="normal"), features, SETTINGS, LOST)


# The file


def label_file(path, rows, columns=FILE_COLUMNS):
    path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return path


def nuclei_at(*places) -> pd.DataFrame:
    rows = [
        {"crop_id": f"s/p/B02/s1/x{x:04d}y{y:04d}", "x_px": x, "y_px": y, "kept": True}
        for x, y in places
    ]
    return pd.DataFrame(rows).assign(plate="p", well="B02", site=1)


def test_who_checked_a_label_is_read_and_files_without_that_column_have_nobody(tmp_path):
    row = "p,B02,1,10,10,normal,,ann,random"
    plain = read_label_file(label_file(tmp_path / "a.csv", [row]))
    assert plain[REVIEWED].tolist() == [""]
    checked = label_file(tmp_path / "b.csv", [row + ",'=bo", row + ","], COLUMNS)
    assert read_label_file(checked)[REVIEWED].tolist() == ["=bo", ""]


def test_all_rows_of_all_files_are_kept_in_order_with_their_crops(tmp_path):
    first = ["p,b2,1,11,10,normal,,ann,random", "p,B02,1,500,10,abnormal,blur,ann,diverse"]
    second = ["p,B02,1,9.5,10,abnormal,dead,bob,diverse"]
    files = [label_file(tmp_path / "a.csv", first), label_file(tmp_path / "b.csv", second)]
    rows = rows_of_files(files, nuclei_at((10, 10), (50, 10)), 5)
    crop = "s/p/B02/s1/x0010y0010"
    assert rows["crop_id"].where(rows["crop_id"].notna(), None).tolist() == [crop, None, crop]
    assert rows["annotator"].tolist() == ["ann", "ann", "bob"]
    assert rows["well"].tolist() == ["B02"] * 3 and rows["x_px"].tolist() == [11, 500, 9.5]
    assert reviewed_crops(rows) == set()
    rows.loc[2, REVIEWED] = "carl"
    assert reviewed_crops(rows) == {crop}
    rows.loc[1, REVIEWED] = "carl"  # without a crop
    assert reviewed_crops(rows) == {crop}


def test_rows_know_the_number_of_their_crop_on_the_page(tmp_path):
    text = ["p,B02,1,10,10,normal,,ann,random", "p,B02,1,50,10,abnormal,blur,ann,random"]
    files = [label_file(tmp_path / "a.csv", text)]
    nuclei = nuclei_at((10, 10), (50, 10))
    chosen = nuclei.iloc[[1]].assign(
        label="abnormal", artefact="blur", annotator="ann", score=0.25, rank=1
    )
    review = review_of(chosen, rows_of_files(files, nuclei, 5), pd.DataFrame())
    assert [row["crop"] for row in review.rows] == [None, 0]
    assert review.given == [
        {"label": "abnormal", "artefact": "blur", "annotator": "ann", "score": 0.25}
    ]
    assert [type(review.rows[0][name]) for name in ("site", "x_px", "label")] == [int, int, str]
