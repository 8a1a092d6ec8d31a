"""Logistic probe: scikit-learn's plain fit and choice, and nothing from held-out or test labels."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hcsqc.core.errors import InputError
from hcsqc.core.schema import features_schema, read_table, write_table
from hcsqc.features.tables import features_table
from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.frozen import logistic as logistic_module
from hcsqc.probes.frozen.logistic import LogisticSettings, fit_logistic
from hcsqc.probes.sgd import TIE
from scripts.probes import probe_features

SETTINGS = LogisticSettings((0.001, 0.01, 0.1, 1.0, 10.0), 5)


def labelled(n: int, width: int, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n x width features of unlike scales and targets; feature 0 tells the classes."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    features = rng.standard_normal((n, width))
    features[:, 0] += apart * targets
    return (features * np.geomspace(0.1, 50, width) + 7).astype(np.float32), targets


def wells_for(n: int, size: int = 2) -> np.ndarray:
    return np.array([f"p/{i // size}" for i in range(n)])


def plain(penalty: float):
    """Return scikit-learn's own pipeline, without any reduction to the row space."""
    solver = LogisticRegression(C=penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    return make_pipeline(StandardScaler(), solver)


def plain_trials(features, targets, wells, settings: LogisticSettings, seed: int) -> dict:
    losses = {penalty: [] for penalty in settings.penalties}
    held_out = []
    for fit, held in grouped_folds(targets, wells, settings.folds, seed):
        held_out.append(len(held))
        for penalty in settings.penalties:
            model = plain(penalty).fit(features[fit].astype(float), targets[fit])
            scores = model.predict_proba(features[held].astype(float))[:, 1]
            losses[penalty].append(log_loss(targets[held], scores))
    return {penalty: np.average(values, weights=held_out) for penalty, values in losses.items()}


# The fit.


@pytest.mark.parametrize("penalty", [1e-5, 0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    ("n", "width"), [(60, 5), (40, 300), (41, 41)], ids=["narrow", "wide", "square"]
)
def test_scores_are_those_of_scikit_learn_on_all_features(n, width, penalty):
    train, targets = labelled(n, width, 1.0, seed=n)
    test, _ = labelled(200, width, 1.0, seed=99)
    fitted = fit_logistic(train, targets, wells_for(n), LogisticSettings((penalty,), 5), 0)
    expected = plain(penalty).fit(train.astype(float), targets).predict_proba(test.astype(float))
    np.testing.assert_allclose(fitted.scores(test), expected[:, 1], atol=1e-5)
    np.testing.assert_allclose(fitted.scores(test)[:1], fitted.scores(test[:1]), atol=1e-12)


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.integers(4, 40), st.integers(1, 600), st.floats(-6, 2), st.integers(0, 10**6))
def test_scores_of_any_shape_are_scikit_learns(n, width, exponent, seed):
    penalty = 10**exponent
    rng = np.random.default_rng(seed)
    train = rng.normal(3, 2, (n, width)).astype(np.float32)
    targets = rng.permutation(np.arange(n) % 2)
    fitted = fit_logistic(train, targets, wells_for(n), LogisticSettings((penalty,), 0), 0)
    expected = plain(penalty).fit(train.astype(float), targets).predict_proba(train.astype(float))
    np.testing.assert_allclose(fitted.scores(train), expected[:, 1], atol=1e-5)


def test_features_that_are_sums_of_others_change_no_convergence():
    train, targets = labelled(50, 10, 1.0, seed=0)
    doubled = np.hstack([train, train, train[:, :5] + train[:, 5:]])
    fitted = fit_logistic(doubled, targets, wells_for(50), LogisticSettings((10.0,), 0), 0)
    expected = plain(10.0).fit(doubled.astype(float), targets).predict_proba(doubled.astype(float))
    np.testing.assert_allclose(fitted.scores(doubled), expected[:, 1], atol=1e-5)


def test_units_of_a_feature_do_not_matter():
    train, targets = labelled(40, 60, 1.0, seed=0)
    test, _ = labelled(30, 60, 1.0, seed=1)
    units = 2.0 ** np.arange(-30, 30)
    first = fit_logistic(train, targets, wells_for(40), SETTINGS, 0)
    other = fit_logistic(train * units, targets, wells_for(40), SETTINGS, 0)
    assert first.penalty == other.penalty
    np.testing.assert_allclose(first.scores(test), other.scores(test * units), atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_a_constant_feature_adds_nothing_even_where_it_varies_in_the_test(value):
    train, targets = labelled(40, 8, 1.0, seed=0)
    test, _ = labelled(30, 8, 1.0, seed=1)
    constant = np.full((40, 1), value, np.float32)
    fitted = fit_logistic(np.hstack([train, constant]), targets, wells_for(40), SETTINGS, 0)
    without = fit_logistic(train, targets, wells_for(40), SETTINGS, 0)
    varied = np.hstack([test, np.linspace(-9, 9, 30, dtype=np.float32)[:, None]])
    assert fitted.penalty == without.penalty
    np.testing.assert_allclose(fitted.scores(varied), without.scores(test), atol=1e-6)


def test_features_that_are_all_constant_give_the_share_of_abnormal():
    targets = np.array([0, 0, 0, 1] * 5)
    fitted = fit_logistic(np.ones((20, 3), np.float32), targets, wells_for(20), SETTINGS, 0)
    np.testing.assert_allclose(fitted.scores(np.zeros((4, 3), np.float32)), 0.25, atol=1e-6)


def test_swapping_the_labels_swaps_the_probabilities():
    train, targets = labelled(40, 80, 1.0, seed=0)
    one = fit_logistic(train, targets, wells_for(40), SETTINGS, 0)
    other = fit_logistic(train, 1 - targets, wells_for(40), SETTINGS, 0)
    assert one.penalty == other.penalty
    np.testing.assert_allclose(one.scores(train), 1 - other.scores(train), atol=1e-6)


# The choice of the penalty.


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("n", "width"), [(60, 6), (50, 90)], ids=["narrow", "wide"])
def test_choice_and_losses_are_those_of_a_plain_loop(n, width, apart):
    train, targets = labelled(n, width, apart, seed=n)
    # Wells of unlike sizes make folds of unlike sizes.
    wells = np.sort(np.random.default_rng(0).integers(0, 17, n)).astype(str)
    fitted = fit_logistic(train, targets, wells, SETTINGS, 3)
    expected = plain_trials(train, targets, wells, SETTINGS, 3)
    assert list(fitted.trials) == list(expected)
    np.testing.assert_allclose(list(fitted.trials.values()), list(expected.values()), atol=1e-5)
    assert fitted.penalty == min(expected, key=expected.get)
    whole = plain(fitted.penalty).fit(train.astype(float), targets)
    wanted = whole.predict_proba(train.astype(float))[:, 1]
    np.testing.assert_allclose(fitted.scores(train), wanted, atol=1e-5)


def test_a_clear_signal_asks_for_a_weaker_penalty_than_none():
    wells = wells_for(60)
    clear, none = (
        fit_logistic(*labelled(60, 40, apart, seed=1), wells, SETTINGS, 0).penalty
        for apart in (8.0, 0.0)
    )
    assert clear > none


def test_held_out_labels_are_not_in_the_standardisation(monkeypatch):
    train, targets = labelled(20, 3, 1.0, seed=0)
    held = np.arange(20) < 4
    folds = [(np.flatnonzero(~held), np.flatnonzero(held))]
    monkeypatch.setattr(logistic_module, "grouped_folds", lambda *given: folds)
    train[held] *= 1000
    fitted = fit_logistic(train, targets, wells_for(20), SETTINGS, 0)
    for penalty, loss in fitted.trials.items():
        logits = plain(penalty).fit(train[~held].astype(float), targets[~held])
        logits = logits.decision_function(train[held].astype(float))
        signs = 2 * targets[held] - 1
        assert loss == pytest.approx(np.logaddexp(0, -signs * logits).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ({0.1: 0.5, 1.0: 0.5, 10.0: 0.5}, 0.1),
        ({0.1: 0.7, 1.0: 0.5, 10.0: 0.5}, 1.0),
        ({0.1: 0.7, 1.0: 0.5 + TIE / 2, 10.0: 0.5}, 1.0),
        ({0.1: 0.7, 1.0: 0.5 + TIE * 2, 10.0: 0.5}, 10.0),
        ({0.1: None, 1.0: None, 10.0: None}, 1.0),
        ({0.1: None, 1.0: None}, 0.1),
        ({0.1: None}, 0.1),
    ],
)
def test_ties_go_to_the_stronger_penalty_and_no_folds_to_the_middle(trials, chosen):
    assert logistic_module.least_loss(trials) == chosen


def test_constant_features_tie_all_penalties():
    targets = np.arange(20) % 2
    settings = replace(SETTINGS, penalties=(10.0, 1.0, 100.0))
    fitted = fit_logistic(np.ones((20, 2), np.float32), targets, wells_for(20), settings, 0)
    assert fitted.penalty == 1.0
    assert list(fitted.trials.values()) == pytest.approx([np.log(2)] * 3)


@pytest.mark.parametrize("folds", [5, 0], ids=["one well", "no folds asked for"])
def test_labels_without_folds_get_the_middle_penalty(folds):
    train, targets = labelled(20, 3, 1.0, seed=0)
    wells = np.full(20, "p/A01") if folds else wells_for(20)
    settings = LogisticSettings((100.0, 0.001, 1.0), folds)
    fitted = fit_logistic(train, targets, wells, settings, 0)
    assert fitted.penalty == 1.0
    assert fitted.trials == {0.001: None, 1.0: None, 100.0: None}


# What it finds, and that it repeats.


def test_a_planted_signal_is_found_and_its_probabilities_are_right():
    train, targets = labelled(200, 20, 4.0, seed=1)
    test, wanted = labelled(2000, 20, 4.0, seed=2)
    scores = fit_logistic(train, targets, wells_for(200), SETTINGS, 0).scores(test)
    assert scores.dtype == np.float64 and ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc_score(wanted, scores) > 0.97
    # Well calibrated: with the true weights the loss would be 0.06.
    assert log_loss(wanted, scores) < 0.2


def test_shuffled_labels_score_at_chance():
    rng = np.random.default_rng(0)
    test, wanted = labelled(4000, 20, 3.0, seed=2)
    areas = []
    for seed in range(30):
        train, targets = labelled(60, 20, 3.0, seed=100 + seed)
        fitted = fit_logistic(train, rng.permutation(targets), wells_for(60), SETTINGS, seed)
        areas.append(roc_auc_score(wanted, fitted.scores(test)))
    # One shuffle leaves the classes' means a little apart, so only the mean is at chance.
    assert abs(np.mean(areas) - 0.5) < 3 * np.std(areas) / np.sqrt(len(areas))
    assert np.std(areas) < 0.3


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_folds():
    train, targets = labelled(40, 90, 1.0, seed=0)
    first, again, other = (
        fit_logistic(train, targets, wells_for(40), SETTINGS, seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.scores(train), again.scores(train))
    assert first.trials == again.trials
    assert first.trials != other.trials


def test_the_order_of_labels_does_not_matter():
    train, targets = labelled(50, 120, 1.0, seed=0)
    wells = wells_for(50)
    order = np.random.default_rng(1).permutation(50)
    first = fit_logistic(train, targets, wells, SETTINGS, 0)
    other = fit_logistic(train[order], targets[order], wells[order], SETTINGS, 0)
    assert first.penalty == other.penalty
    np.testing.assert_allclose(list(first.trials.values()), list(other.trials.values()), atol=1e-6)
    np.testing.assert_allclose(first.scores(train), other.scores(train), atol=1e-6)


# Bad input.


@pytest.mark.parametrize(
    ("penalties", "message"),
    [
        ((), "no penalties to choose from; list some"),
        ((1.0, 0.0), "penalty 0.0 is not a positive number"),
        ((-1.0,), "penalty -1.0 is not a positive number"),
        ((float("nan"),), "penalty nan is not a positive number"),
        ((float("inf"),), "penalty inf is not a positive number"),
    ],
)
def test_penalties_that_are_none_are_refused(penalties, message):
    train, targets = labelled(20, 3, 1.0, seed=0)
    with pytest.raises(InputError, match=message):
        fit_logistic(train, targets, wells_for(20), LogisticSettings(penalties, 5), 0)


def test_labels_of_one_class_are_refused():
    train, _ = labelled(20, 3, 1.0, seed=0)
    with pytest.raises(
        InputError, match="the 20 training labels are all of one class; label crops"
    ):
        fit_logistic(train, np.ones(20, int), wells_for(20), SETTINGS, 0)


def test_a_fit_that_does_not_converge_is_refused(monkeypatch):
    monkeypatch.setattr(logistic_module, "MAXIMUM_ITERATIONS", 1)
    train, targets = labelled(20, 3, 1.0, seed=0)
    with pytest.raises(InputError, match="penalty 10 does not converge on 20 labels"):
        fit_logistic(train, targets, wells_for(20), LogisticSettings((10.0,), 0), 0)


# The script.


def study_tables() -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Return splits (2 draws of 12 test and 28 training crops), labels elsewhere, features."""
    features, targets = labelled(46, 6, 4.0, seed=0)
    names = [f"here/p/B{i // 4:02d}/s1/x{i}" for i in range(40)]
    label = np.where(targets == 1, "abnormal", "normal")
    rows = [
        (draw, names[i], label[i], *(("test", None) if (i // 4 + draw) % 10 < 3 else ("train", i)))
        for draw in range(2)
        for i in range(40)
    ]
    splits = pd.DataFrame(rows, columns=["draw", "crop_id", "label", "part", "rank"])
    splits["group"] = splits["crop_id"].str.split("/").str[1:3].str.join("/")
    splits = splits.astype({"draw": "int32", "rank": "Int32"})
    shift = pd.DataFrame(
        {
            "crop_id": [f"there/q/C01/s1/x{i}" for i in range(6)],
            "plate": "q",
            "well": "C01",
            "label": label[40:],
            "artefact": None,
            "strength": None,
            "compound": None,
            "annotator": "me",
            "source": "truth",
            "selection": "random",
        }
    ).astype({"strength": float})
    return splits, shift, features


def run_script(folder: Path, monkeypatch, splits, shift, features, *flags: str, budget: int = 20):
    """Return the predictions and the record of the probe on these tables."""
    crops = [*splits["crop_id"][:40], *shift["crop_id"]]
    write_table(splits, folder / "splits.parquet", "splits")
    write_table(shift, folder / "shift.parquet", "labels")
    table = features_table(crops, features)
    write_table(table, folder / "features.parquet", features_schema(features.shape[1]))
    words = ["--features", "features.parquet", "--splits", "splits.parquet"]
    words += [
        "--shift-labels",
        "shift.parquet",
        "--group-by",
        "well",
        "--budget",
        str(budget),
        "--draws",
        "2",
    ]
    words += ["--seed", "0", "--output", "out.parquet", "--record", "run.json"]
    words += ["--penalties", "0.0001", "0.1", "10", "--folds", "5", *flags]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [probe_features.__file__, "--kind", "logistic", *words])
    probe_features.main()
    record = json.loads(Path("run.json").read_text(encoding="utf-8"))
    return read_table("out.parquet", "predictions"), record


def test_the_script_fits_each_draw_on_its_labels_by_well(tmp_path, monkeypatch):
    splits, shift, features = study_tables()
    found, record = run_script(tmp_path, monkeypatch, splits, shift, features)
    assert found.groupby(["draw", "screen"]).size().tolist() == [12, 6, 12, 6]
    names = splits["crop_id"][:40].tolist()
    settings = LogisticSettings((0.0001, 0.1, 10.0), 5)
    for draw in range(2):
        train = splits[(splits["draw"] == draw) & (splits["part"] == "train")].head(20)
        rows = [names.index(crop) for crop in train["crop_id"]]
        targets = (train["label"] == "abnormal").to_numpy(int)
        wells = train["crop_id"].str.extract("/(p/B..)/")[0].to_numpy(str)
        fitted = fit_logistic(features[rows], targets, wells, settings, 0)
        own = found[(found["draw"] == draw) & (found["screen"] == "there")]
        np.testing.assert_allclose(own["score"], fitted.scores(features[40:]), atol=1e-12)
        assert record["curves"][draw] == {"step": draw, "penalty": fitted.penalty}
        trials = record["parameters"]["trials"][str(draw)]
        assert {float(penalty): loss for penalty, loss in trials.items()} == fitted.trials


def test_labels_and_features_of_the_test_do_not_reach_the_fit(tmp_path, monkeypatch):
    splits, shift, features = study_tables()
    first, record = run_script(tmp_path, monkeypatch, splits, shift, features)
    flipped = splits.copy()
    tested = splits["part"] == "test"
    other = {"normal": "abnormal", "abnormal": "normal"}
    flipped.loc[tested, "label"] = splits.loc[tested, "label"].map(other)
    shift_flipped = shift.assign(label=shift["label"].map(other))
    second, again = run_script(tmp_path, monkeypatch, flipped, shift_flipped, features)
    assert (first["label"] != second["label"]).all()
    np.testing.assert_array_equal(first["score"], second["score"])
    assert record["parameters"]["trials"] == again["parameters"]["trials"]
    assert record["curves"] == again["curves"]
    moved = features.copy()
    moved[40:] += 100
    third, again = run_script(tmp_path, monkeypatch, splits, shift, moved)
    assert record["parameters"]["trials"] == again["parameters"]["trials"]
    here = first["screen"] == "here"
    np.testing.assert_array_equal(first["score"][here], third["score"][here])
    assert (first["score"][~here].to_numpy() != third["score"][~here].to_numpy()).any()


def test_the_script_shuffles_training_labels_when_asked(tmp_path, monkeypatch):
    splits, shift, features = study_tables()
    plainly, _ = run_script(tmp_path, monkeypatch, splits, shift, features)
    shuffled, _ = run_script(tmp_path, monkeypatch, splits, shift, features, "--shuffle-labels")
    wanted = plainly["label"] == "abnormal"
    assert roc_auc_score(wanted, plainly["score"]) > 0.9
    assert roc_auc_score(wanted, shuffled["score"]) < 0.7


def test_a_budget_that_the_labels_do_not_carry_has_no_predictions(tmp_path, monkeypatch):
    found, record = run_script(tmp_path, monkeypatch, *study_tables(), budget=30)
    assert len(found) == 0
    assert record["status"] == "FINISHED" and record["parameters"]["trials"] == {}
