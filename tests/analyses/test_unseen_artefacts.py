"""Families left out: none of their labels train, counts stay where they can, pairs are pairs."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from hcsqc.analyses.unseen_artefacts import COLUMNS, leave_families_out, without_family
from hcsqc.core.errors import InputError
from hcsqc.core.schema import features_schema, write_table
from hcsqc.features.tables import features_table
from hcsqc.labels.groups import WELL
from hcsqc.labels.splits import split_labels, training_crops
from scripts.analyses import probe_unseen_artefacts

WELLS = [f"B{number:02d}" for number in range(2, 22)]
FAMILIES = ("blur", "debris", "noise")


def study(per_well=3, families=FAMILIES, seed=0):
    """Return labels, splits, index and features; each family lies on an axis of its own."""
    rng = np.random.default_rng(seed)
    rows, features = [], []
    for place, well in enumerate(WELLS):
        for number in range(2 * per_well):
            kind = None if number < per_well else families[(place + number) % len(families)]
            rows.append((f"s/p/{well}/s1/x{number:04d}y0000", well, kind))
            vector = rng.normal(0, 1, 6)
            if kind is not None:
                vector[FAMILIES.index(kind)] += 6
            features.append(vector)
    labels = pd.DataFrame(rows, columns=["crop_id", "well", "artefact"])
    labels["label"] = np.where(labels["artefact"].isna(), "normal", "abnormal")
    labels = labels.assign(
        plate="p",
        strength=np.nan,
        compound=None,
        annotator="me",
        source="truth",
        selection="random",
    )
    splits, _ = split_labels(labels, WELLS[::2], 20, len(labels), 24, 4, 0, WELL)
    return labels, splits, pd.Index(labels["crop_id"]), np.array(features, np.float32)


def fit_scores(train, targets, wells, tests):
    assert len(train) == len(targets) == len(wells) and set(targets) == {0, 1}
    model = LogisticRegression().fit(train, targets)
    return [model.predict_proba(matrix)[:, 1] for matrix in tests]


def test_a_family_that_no_label_showed_is_missed_and_found_when_shown():
    table = leave_families_out(*study_of(study()), 40, 4, fit_scores)
    assert list(table) == COLUMNS
    means = table.groupby(["artefact", "seen"])["detected"].mean().unstack()
    assert (means[True] > 0.9).all() and (means[False] < 0.5).all()
    areas = table.groupby(["artefact", "seen"])["auc"].mean().unstack()
    assert (areas[True] > areas[False] + 0.1).all()


def study_of(made):
    labels, splits, index, features = made
    return splits, labels, index, features


def test_every_pair_is_tested_on_the_same_crops():
    table = leave_families_out(*study_of(study()), 40, 4, fit_scores)
    assert len(table) == 3 * 4 * 2
    pairs = table.groupby(["artefact", "draw"])
    assert (pairs["n_test"].nunique() == 1).all() and (pairs["seen"].nunique() == 2).all()


def test_the_family_does_not_train_and_others_fill_its_place():
    labels, splits, _, _ = study(per_well=5)
    splits["artefact"] = splits["crop_id"].map(labels.set_index("crop_id")["artefact"])
    for draw in range(4):
        before, after = training_crops(splits, draw, 30), without_family(splits, "blur", draw, 30)
        assert "blur" in set(before["artefact"]) and "blur" not in set(after["artefact"])
        assert after["label"].value_counts().to_dict() == {"normal": 15, "abnormal": 15}
        kept = before[before["artefact"] != "blur"]["crop_id"]
        assert set(kept) <= set(after["crop_id"])
        tested = splits[(splits["draw"] == draw) & (splits["part"] == "test")]["crop_id"]
        assert not set(tested) & set(after["crop_id"])
        # The next in rank, not any others.
        ranks = splits[(splits["draw"] == draw) & (splits["part"] == "train")]
        ranks = ranks[(ranks["label"] == "abnormal") & (ranks["artefact"] != "blur")]["rank"]
        taken = after.loc[after["label"] == "abnormal", "rank"]
        assert sorted(taken) == sorted(ranks)[:15]


def test_where_others_do_not_reach_the_list_is_shorter_and_balanced():
    labels, splits, index, features = study()
    splits["artefact"] = splits["crop_id"].map(labels.set_index("crop_id")["artefact"])
    table = leave_families_out(splits, labels, index, features, 76, 1, fit_scores)
    train = splits[(splits["draw"] == 0) & (splits["part"] == "train")]
    for artefact in FAMILIES:
        others = ((train["artefact"] != artefact) & (train["label"] == "abnormal")).sum()
        assert others < 38
        left = without_family(splits, artefact, 0, 76)
        assert left["label"].value_counts().to_dict() == {"normal": others, "abnormal": others}
        (row,) = table[(table["artefact"] == artefact) & ~table["seen"]].to_dict("records")
        assert row["n_train"] == 2 * others
        assert row["reason"] == f"without it {2 * others} labels are left of 76"


def test_an_only_family_has_nothing_left_to_train_on():
    made = study(families=("blur",))
    table = leave_families_out(*study_of(made), 40, 2, fit_scores)
    unseen = table[~table["seen"]]
    assert unseen["detected"].isna().all() and (unseen["n_train"] == 0).all()
    assert set(table["reason"]) == {"all abnormal training labels are of this kind"}
    assert table.loc[table["seen"], "detected"].notna().all()


def test_a_family_without_training_labels_is_said_to_make_no_difference():
    labels, splits, index, features = study(per_well=6)
    # None of the first 40 labels of draw 0 is blur: they become noise.
    trained = training_crops(splits, 0, 40)["crop_id"]
    hidden = labels["crop_id"].isin(trained) & (labels["artefact"] == "blur")
    labels.loc[hidden, "artefact"] = "noise"
    table = leave_families_out(splits, labels, index, features, 40, 1, fit_scores)
    blur = table[table["artefact"] == "blur"]
    assert (
        blur["auc"].nunique() == 1
        and blur["reason"].str.contains("trained on the same labels").all()
    )


def test_a_draw_without_test_crops_of_a_family_says_so():
    labels, splits, index, features = study()
    tested = splits[(splits["draw"] == 0) & (splits["part"] == "test")]["crop_id"]
    labels.loc[labels["crop_id"].isin(tested) & (labels["artefact"] == "blur"), "artefact"] = None
    table = leave_families_out(splits, labels, index, features, 40, 1, fit_scores)
    blur = table[table["artefact"] == "blur"]
    assert blur["detected"].isna().all() and (blur["n_test"] == 0).all()
    assert set(blur["reason"]) == {"the draw has no test crop of this kind"}


def test_families_of_fewer_than_five_crops_and_unnamed_ones_are_left_alone():
    labels, splits, index, features = study()
    blur = labels.index[labels["artefact"] == "blur"]
    labels.loc[blur[4:], "artefact"] = None
    table = leave_families_out(splits, labels, index, features, 40, 1, fit_scores)
    assert set(table["artefact"]) == {"debris", "noise"}
    unnamed = labels.assign(artefact=None)
    nothing = leave_families_out(splits, unnamed, index, features, 40, 1, fit_scores)
    assert nothing.empty and list(nothing) == COLUMNS


def test_auc_is_that_of_the_family_against_all_normal_test_crops():
    labels, splits, index, features = study()
    table = leave_families_out(splits, labels, index, features, 40, 1, fit_scores)
    own = splits[splits["draw"] == 0].merge(labels[["crop_id", "artefact"]], on="crop_id")
    test = own[own["part"] == "test"]
    chosen = training_crops(splits, 0, 40)
    vectors = pd.DataFrame(features, index=index)
    (scores,) = fit_scores(
        vectors.loc[chosen["crop_id"]].to_numpy(),
        (chosen["label"] == "abnormal").to_numpy(int),
        chosen["crop_id"],
        [vectors.loc[test["crop_id"]].to_numpy()],
    )
    inside = ((test["artefact"] == "noise") | (test["label"] == "normal")).to_numpy()
    wanted = roc_auc_score((test["label"] == "abnormal")[inside], scores[inside])
    (row,) = table[(table["artefact"] == "noise") & table["seen"]].to_dict("records")
    assert row["auc"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("budget", "draws", "message"),
    [(400, 1, r"allow \d+ labels, not 400; lower the budget"), (40, 9, "4 draws, not 9; lower")],
)
def test_more_labels_or_draws_than_there_are_are_refused(budget, draws, message):
    with pytest.raises(InputError, match=message):
        leave_families_out(*study_of(study()), budget, draws, fit_scores)


def test_the_script_runs_the_logistic_probe(tmp_path, monkeypatch):
    labels, splits, index, features = study()
    write_table(labels, tmp_path / "labels.parquet", "labels")
    write_table(splits, tmp_path / "splits.parquet", "splits")
    table = features_table(index.tolist(), features)
    write_table(table, tmp_path / "features.parquet", features_schema(6))
    words = "--features features.parquet --splits splits.parquet --labels labels.parquet"
    words += " --budgets 10 40 350 --draws 2 --seed 0 --output out.csv --record run.json"
    words += " --penalties 0.01 1 --folds 3"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [probe_unseen_artefacts.__file__, *words.split()])
    probe_unseen_artefacts.main()
    found = pd.read_csv("out.csv")
    assert list(found) == COLUMNS and len(found) == 3 * 2 * 2
    means = found.groupby("seen")["detected"].mean()
    assert means[True] > means[False] + 0.3
    assert json.loads((tmp_path / "run.json").read_text())["metrics"] == {
        "families": 3,
        "rows": 12,
        "budget": 40,
    }


def test_a_crop_at_the_threshold_is_not_detected():
    def half(train, targets, wells, tests):
        return [np.full(len(matrix), 0.5) for matrix in tests]

    table = leave_families_out(*study_of(study()), 40, 1, half)
    assert (table["detected"] == 0).all()
