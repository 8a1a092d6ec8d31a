"""The linear probe's search: chosen on the training labels alone, and what was planted is found."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from hcsqc.core.errors import InputError
from hcsqc.core.schema import features_schema, read_table, write_table
from hcsqc.features.tables import features_table
from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.frozen.linear import linear_scores
from hcsqc.probes.frozen.linear_search import search_linear
from hcsqc.probes.sgd import SgdSearchSettings, SgdSettings, best_trial
from scripts.probes import probe_features

SETTINGS = SgdSearchSettings(
    epochs=(4, 10),
    batch_size=8,
    learning_rate=(0.01, 0.1),
    momentum=0.9,
    weight_decay=(0.0, 0.1),
    milestone_shares=(0.5, 0.8),
    gamma=0.1,
    folds=3,
)


def labelled(n: int, width: int, seed: int, apart: float = 2.0):
    """Return n x width features, targets and wells; the classes lie `apart` deviations apart."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    features = rng.standard_normal((n, width)).astype(np.float32)
    features[:, 0] += apart * targets
    return features, targets, np.array([f"p/B{well:02}" for well in rng.integers(0, 9, n)])


def test_a_trial_is_the_log_loss_of_the_labels_held_out():
    train, targets, wells = labelled(50, 6, seed=0)
    _, trials = search_linear(train, targets, wells, SETTINGS, seed=7)
    assert len(trials) == 8
    trial = next(t for t in trials if (t["epochs"], t["learning_rate"]) == (10, 0.1))
    one = SgdSettings(10, 8, 0.1, 0.9, trial["weight_decay"], (5, 8), 0.1)
    held_scores, held_targets = [], []
    for fold, (fit, held) in enumerate(grouped_folds(targets, wells, 3, 7)):
        rng = np.random.default_rng([7, fold])
        (scores,) = linear_scores([train[fit]], [targets[fit]], [train[held]], one, [rng])
        held_scores.append(scores.astype(float))
        held_targets.append(targets[held])
    expected = log_loss(np.concatenate(held_targets), np.concatenate(held_scores))
    assert trial["loss"] == pytest.approx(expected, abs=1e-5)


def test_the_settings_with_the_least_loss_are_chosen_from_the_whole_grid():
    train, targets, wells = labelled(50, 6, seed=0)
    chosen, trials = search_linear(train, targets, wells, SETTINGS, seed=0)
    tried = {(t["learning_rate"], t["weight_decay"], t["epochs"]) for t in trials}
    assert tried == {(r, d, e) for r in (0.01, 0.1) for d in (0.0, 0.1) for e in (4, 10)}
    best = min(trials, key=lambda trial: trial["loss"])
    assert (chosen.learning_rate, chosen.weight_decay, chosen.epochs) == (
        best["learning_rate"],
        best["weight_decay"],
        best["epochs"],
    )
    assert (chosen.batch_size, chosen.momentum, chosen.gamma) == (8, 0.9, 0.1)
    assert len({trial["loss"] for trial in trials}) == 8


def test_milestones_are_shares_of_the_epochs():
    papers = replace(SETTINGS, epochs=(150, 50), milestone_shares=(0.267, 0.467, 0.8))
    assert {one.epochs: one.milestones for one in papers.grid()} == {
        150: (40, 70, 120),
        50: (13, 23, 40),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_best_rate_is_chosen(seed):
    """A rate too small to move the layer, one that fits, and one that overshoots."""
    train, targets, wells = labelled(80, 6, seed, apart=3.0)
    settings = replace(
        SETTINGS, learning_rate=(1e-6, 0.03, 1000.0), weight_decay=(0.0,), epochs=(20,)
    )
    chosen, _ = search_linear(train, targets, wells, settings, seed)
    assert chosen.learning_rate == 0.03


@pytest.mark.parametrize("seed", range(3))
def test_noise_asks_for_a_strong_decay_and_classes_far_apart_for_none(seed):
    settings = replace(SETTINGS, learning_rate=(0.05,), weight_decay=(0.0, 5.0), epochs=(30,))
    noise, targets, wells = labelled(60, 40, seed, apart=0.0)
    assert search_linear(noise, targets, wells, settings, seed)[0].weight_decay == 5.0
    clear, targets, wells = labelled(60, 4, seed, apart=8.0)
    assert search_linear(clear, targets, wells, settings, seed)[0].weight_decay == 0.0


def test_ties_go_to_the_smaller_rate_then_fewer_epochs_then_more_decay():
    def trial(rate, decay, epochs, loss):
        return {"learning_rate": rate, "weight_decay": decay, "epochs": epochs, "loss": loss}

    tied = [
        trial(0.1, 0.9, 1, 0.5),
        trial(0.01, 0.9, 20, 0.5),
        trial(0.01, 0.0, 10, 0.5 + 1e-8),
        trial(0.01, 0.1, 10, 0.5),
        trial(0.001, 0.1, 10, None),
        trial(0.001, 0.1, 5, 0.51),
    ]
    for order in (tied, tied[::-1]):
        assert order[best_trial(order)] == tied[3]


def test_labels_without_folds_take_the_first_of_each_list():
    train, targets, _ = labelled(10, 4, seed=0)
    chosen, trials = search_linear(train, targets, np.array(["p/B02"] * 10), SETTINGS, seed=0)
    assert (chosen.learning_rate, chosen.weight_decay, chosen.epochs) == (0.01, 0.0, 4)
    assert [trial["loss"] for trial in trials] == [None] * 8


def test_a_search_repeats_bit_for_bit_and_follows_its_seed():
    train, targets, wells = labelled(50, 6, seed=0)
    first, again, other = (
        search_linear(train, targets, wells, SETTINGS, seed)[1] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_setting_that_diverges_is_not_chosen_and_one_alone_is_refused():
    train, targets, wells = labelled(50, 6, seed=0)
    diverging = replace(SETTINGS, learning_rate=(1e6, 0.01), weight_decay=(1.0,), epochs=(200,))
    with np.errstate(all="ignore"):
        chosen, trials = search_linear(train, targets, wells, diverging, seed=0)
        assert chosen.learning_rate == 0.01
        assert [trial["loss"] is None for trial in trials] == [True, False]
        with pytest.raises(InputError, match="no setting's loss stays finite; list a lower"):
            search_linear(train, targets, wells, replace(diverging, learning_rate=(1e6,)), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": ()}, "there is nothing to choose from; list some epochs"),
        (
            {"learning_rate": ()},
            "there is nothing to choose from; list some learning_rate",
        ),
        ({"weight_decay": ()}, "there is nothing to choose from; list some weight_decay"),
        ({"milestone_shares": (0.5, 40.0)}, "milestone share 40.0 is not a share of the epochs"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **change)


# The script.

FLAGS = (
    "--budget 40 --draws 2 --seed 3 --epochs 4 10 --batch-size 8 --learning-rate 0.01 0.1"
    " --momentum 0.9 --weight-decay 0 0.1 --milestone-shares 0.5 0.8 --gamma 0.1 --folds 3"
)


def write_study(folder: Path) -> None:
    """Write features of 60 crops, and splits of 40 training and 20 test crops in two draws."""
    folder.mkdir(parents=True)
    features, targets, wells = labelled(60, 8, seed=0)
    crops = [f"here/{well}/s1/x{crop}" for crop, well in enumerate(wells)]
    write_table(features_table(crops, features), folder / "features.parquet", features_schema(8))
    rows = []
    for draw in range(2):
        for crop in range(60):
            rank = (crop - 20 * draw) % 60
            part = "train" if rank < 40 else "test"
            label = ("normal", "abnormal")[targets[crop]]
            rows.append((draw, crops[crop], label, part, rank if part == "train" else None))
    splits = pd.DataFrame(rows, columns=["draw", "crop_id", "label", "part", "rank"])
    splits["group"] = splits["crop_id"].str.split("/").str[1:3].str.join("/")
    splits = splits.astype({"draw": "int32", "rank": "Int32"})
    write_table(splits, folder / "splits.parquet", "splits")


def ran(folder: Path, monkeypatch) -> tuple[pd.DataFrame, dict]:
    """Run the script on a study; return its predictions and record."""
    names = ("features.parquet", "splits.parquet", "predictions.parquet", "run.json")
    features, splits, output, record = (str(folder / name) for name in names)
    files = ["--features", features, "--splits", splits, "--output", output, "--record", record]
    flags = [*FLAGS.split(), "--shift-labels", "--group-by", "well", *files]
    monkeypatch.setattr(sys, "argv", [probe_features.__file__, "--kind", "linear_search", *flags])
    probe_features.main()
    return read_table(output, "predictions"), json.loads(Path(record).read_text(encoding="utf-8"))


@pytest.fixture
def study(tmp_path) -> Path:
    write_study(tmp_path / "study")
    return tmp_path / "study"


def test_the_script_records_grid_and_choice_of_each_draw(study, monkeypatch):
    predictions, record = ran(study, monkeypatch)
    assert predictions.groupby("draw").size().tolist() == [20, 20]
    trials = record["parameters"]["trials"]
    assert sorted(trials) == ["0", "1"]
    assert trials["0"] != trials["1"]
    for point in record["curves"]:
        tried = trials[str(point["step"])]
        assert len(tried) == 8
        best = min(tried, key=lambda trial: trial["loss"])
        assert point == {"step": point["step"]} | {k: v for k, v in best.items() if k != "loss"}
    assert [point["step"] for point in record["curves"]] == [0, 1]


def test_test_labels_change_neither_choice_nor_scores(study, monkeypatch):
    predictions, record = ran(study, monkeypatch)
    splits = read_table(study / "splits.parquet", "splits")
    test = splits["part"] == "test"
    other = splits["label"].map({"normal": "abnormal", "abnormal": "normal"})
    splits["label"] = splits["label"].where(~test, other)
    write_table(splits, study / "splits.parquet", "splits")
    changed, again = ran(study, monkeypatch)
    assert (changed["label"] != predictions["label"]).all()
    assert again["parameters"]["trials"] == record["parameters"]["trials"]
    assert again["curves"] == record["curves"]
    np.testing.assert_array_equal(changed["score"], predictions["score"])


def test_training_labels_do_change_the_trials(study, monkeypatch):
    _, record = ran(study, monkeypatch)
    splits = read_table(study / "splits.parquet", "splits")
    train = np.flatnonzero((splits["part"] == "train") & (splits["draw"] == 0))
    rng = np.random.default_rng(0)
    splits.loc[train, "label"] = rng.permutation(splits.loc[train, "label"])
    write_table(splits, study / "splits.parquet", "splits")
    _, again = ran(study, monkeypatch)
    trials, others = record["parameters"]["trials"], again["parameters"]["trials"]
    assert trials["0"] != others["0"]
    assert trials["1"] == others["1"]
