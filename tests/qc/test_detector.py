"""The detector: what it is fitted to, how it is kept, what it scores, and where it refuses to."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import cv2
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from hcsqc.core.errors import InputError
from hcsqc.crops.focus import edge_widths
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.store import random_encoder
from hcsqc.features.extract import extract_features
from hcsqc.labels.folds import held_out_fold
from hcsqc.probes.frozen.logistic import FittedLogistic, LogisticSettings, fit_logistic
from hcsqc.qc.calibration import calibrate, check_labels_of
from hcsqc.qc.detector import (
    BY_KIND,
    HELD_OUT_FOLDS,
    QUANTILES,
    SINGLE,
    Detector,
    Scaling,
    check_screen,
    fit_detector,
    load_detector,
    reference_of,
    save_detector,
    standardised,
)
from hcsqc.qc.mlflow_model.model import PACKAGES, installed_pins, save_model
from hcsqc.qc.scoring import call_wide_edges_blurred, drift, focus_of, saturated_share, score_crops

CHANNELS = ["w4", "w5", "w1"]
SETTINGS = LogisticSettings(penalties=(0.01, 0.1), folds=3)
LOST = 0.05
SCALING = Scaling(scale_background=0.5, scale_cells=2.0, scale_knee=0.9)
ABOUT = {
    "composites": [["w4", "w5", "w1"]],
    "window_px": 64,
    "window_um": 0,
    "scaling": vars(SCALING),
}


def labels_of(n: int, wells: int = 10, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return labels, every third abnormal, blur and debris in turn, and features that tell them."""
    rng = np.random.default_rng(seed)
    abnormal = np.arange(n) % 3 == 0
    artefact = np.where(~abnormal, None, np.where(np.arange(n) % 2 == 0, "blur", "debris"))
    well = [f"B{1 + i % wells:02d}" for i in range(n)]
    table = pd.DataFrame(
        {
            "crop_id": [f"sim/p/{w}/s1/x{i:04d}y0001" for i, w in enumerate(well)],
            "plate": "p",
            "well": well,
            "group": [f"p/{w}" for w in well],
            "label": np.where(abnormal, "abnormal", "normal"),
            "artefact": artefact,
        }
    )
    features = rng.normal(size=(n, 5)).astype(np.float32)
    features[:, 0] += 2 * abnormal
    features[:, 1] += 3 * (artefact == "blur")
    features[:, 2] += 3 * (artefact == "debris")
    return table, features


def regression(features, targets, penalty):
    """Return the logits of scikit-learn's logistic regression."""
    fitted = LogisticRegression(C=penalty, tol=1e-10, max_iter=1000)
    fitted.fit(features.astype(float), targets)  # it computes as precisely as its input is
    return fitted.decision_function


def test_the_classifier_is_the_mean_of_those_that_scored_the_labels_held_out():
    labels, features = labels_of(90, wells=15)
    found = fit_detector(labels, features, SETTINGS, LOST)
    targets = (labels["label"] == "abnormal").to_numpy(int)
    wells = ("p/" + labels["well"]).to_numpy()
    fold = held_out_fold(targets, wells, HELD_OUT_FOLDS, 0)
    logits = []
    for number in range(HELD_OUT_FOLDS):
        held = fold == number
        assert held.any() and not set(wells[held]) & set(wells[~held])
        oracle = regression(features[~held], targets[~held], found.penalty)
        np.testing.assert_allclose(logit(found.held_out[held]), oracle(features[held]), atol=1e-5)
        logits.append(oracle(features))
    np.testing.assert_allclose(
        logit(found.classifier.scores(features)), np.mean(logits, axis=0), atol=1e-5
    )


def test_a_threshold_from_few_labels_can_be_reached_by_new_crops():
    """Abnormal crops of new wells lie above it as often as those held out do."""
    told, found = [], []
    for seed in range(8):
        labels, features = labels_of(80, wells=8, seed=seed)
        fit = fit_detector(labels, features, SETTINGS, LOST)
        new, their = labels_of(400, wells=40, seed=100 + seed)
        normal = (labels["label"] == "normal").to_numpy()
        value = np.quantile(fit.held_out[normal], 0.9)
        told.append((fit.held_out[~normal] > value).mean())
        abnormal = (new["label"] == "abnormal").to_numpy()
        found.append((fit.classifier.scores(their[abnormal]) > value).mean())
    assert np.mean(found) > np.mean(told) - 0.05


def opposite_kinds(count: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return labels of two kinds that move one feature in opposite ways, and their features."""
    rng = np.random.default_rng(seed)
    kind = np.arange(count) % 3
    features = rng.normal(size=(count, 6))
    features[:, 0] += np.array([0, 4, -4])[kind]
    labels = pd.DataFrame(
        {
            "group": [f"p/B{2 + row // 3 % 12:02d}" for row in range(count)],
            "label": np.where(kind > 0, "abnormal", "normal"),
            "artefact": np.array([None, "blur", "debris"], object)[kind],
        }
    )
    return labels, features


def test_opposite_kinds_of_artefacts_get_a_classifier_each(tmp_path):
    labels, features = opposite_kinds(240)
    found = fit_detector(labels, features, SETTINGS, LOST)
    assert found.kind == BY_KIND and set(found.classifier.kinds) == {"blur", "debris"}
    assert found.recalls[SINGLE] < 0.5 < 0.9 < found.recalls[BY_KIND]
    new, their = opposite_kinds(300, seed=1)
    scores = found.classifier.scores(their)
    abnormal = (new["label"] == "abnormal").to_numpy()
    assert scores[abnormal].mean() > 0.7 and scores[~abnormal].mean() < 0.4
    each = [1 - model.scores(their) for model in found.classifier.kinds.values()]
    np.testing.assert_allclose(scores, 1 - np.prod(each, axis=0))
    made = replace(detector_of(labels, features), classifier=found.classifier)
    save_detector(made, tmp_path)
    np.testing.assert_array_equal(load_detector(tmp_path).classifier.scores(their), scores)


def test_kinds_that_one_direction_tells_apart_keep_the_single_classifier():
    labels, features = opposite_kinds(240)
    features[:, 0] = np.abs(features[:, 0])
    found = fit_detector(labels, features, SETTINGS, LOST)
    assert found.kind == SINGLE and isinstance(found.classifier, FittedLogistic)
    assert set(found.recalls) == {SINGLE, BY_KIND}


def test_labels_that_name_no_artefact_have_one_classifier():
    labels, features = opposite_kinds(240)
    found = fit_detector(labels.assign(artefact=None), features, SETTINGS, LOST)
    assert (found.kind, set(found.recalls)) == (SINGLE, {SINGLE})


def test_labels_of_one_well_are_not_held_out_and_all_fitted():
    labels, features = labels_of(30, wells=1)
    found = fit_detector(labels, features, SETTINGS, LOST)
    assert np.isnan(found.held_out).all() and found.recalls == {SINGLE: None}
    oracle = regression(features, labels["label"] == "abnormal", found.penalty)
    np.testing.assert_allclose(
        logit(found.classifier.scores(features)), oracle(features), atol=1e-5
    )


def good_cells_lost(width: int, seed: int, refitted: bool = False) -> float:
    """Return the share of good cells above the threshold of a simulated study of one screen.

    250 random labels in 75 wells, whose features differ by half a standard deviation; 15% are
    artefacts, two standard deviations away along one direction.
    """
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=width)
    place, abnormal = rng.integers(0, 75, 250), rng.random(250) < 0.15
    features = rng.normal(size=(250, width)) + rng.normal(scale=0.5, size=(75, width))[place]
    features += 2 * abnormal[:, None] * direction / np.linalg.norm(direction)
    labels = pd.DataFrame(
        {
            "group": [f"B{one:02d}" for one in place],
            "label": np.where(abnormal, "abnormal", "normal"),
            "artefact": None,
            "random": True,
        }
    )
    fit = fit_detector(labels, features, LogisticSettings((0.01,), 2), LOST)
    model, labels["score"] = fit.classifier, fit.held_out
    if refitted:
        wells = labels["group"].to_numpy()
        model = fit_logistic(features, abnormal, wells, LogisticSettings((0.01,), 2), 0, True)
    found = calibrate(labels, 0.15, 0.05, 0.95, unproven="")
    weight = model.weight / model.scale
    # Of new wells a good cell's logit is normal about that of features that are all 0.
    middle = logit(model.scores(np.zeros((1, width)))[0])
    spread = np.sqrt(1 + 0.5**2) * np.linalg.norm(weight)
    return norm.sf((logit(found["threshold"]) - middle) / spread)


@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize(
    ("studies", "least", "most"),
    [(5, 0.003, 0.04), pytest.param(40, 0.005, 0.025, marks=pytest.mark.statistics)],
)
def test_the_promise_is_kept_through_the_detector_of_few_or_many_features(
    width, studies, least, most
):
    lost = np.array([good_cells_lost(width, seed) for seed in range(studies)])
    assert (lost > 0.05).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    assert least < lost.mean() < most


@pytest.mark.statistics
def test_one_model_of_all_labels_would_lose_more_good_cells_than_the_labels_show():
    seeds = range(10)
    refitted = [good_cells_lost(512, seed, refitted=True) for seed in seeds]
    assert np.mean(refitted) > 1.3 * np.mean([good_cells_lost(512, seed) for seed in seeds])


def test_no_model_has_seen_the_group_of_a_label_that_it_scores():
    """A feature that only names the group: held out, it says nothing of the label."""
    labels, features = labels_of(96, wells=24)
    abnormal = (labels["label"] == "abnormal").to_numpy()
    compound = 2 * (np.arange(96) % 12) + abnormal
    features = np.eye(24, dtype=np.float32)[compound]
    told = fit_detector(labels, features, SETTINGS, LOST).held_out
    assert told[abnormal].min() > told[~abnormal].max()
    labels["group"] = [f"compound {number}" for number in compound]
    held_out = fit_detector(labels, features, SETTINGS, LOST).held_out
    assert not held_out[abnormal].mean() > held_out[~abnormal].mean()


@pytest.mark.parametrize("wells", [2, 4])
def test_with_few_wells_each_is_held_out_once(wells):
    labels, features = labels_of(60, wells=wells)
    assert np.isfinite(fit_detector(labels, features, SETTINGS, LOST).held_out).all()


def test_every_label_is_in_the_detector_where_one_well_holds_all_abnormal_ones():
    labels, features = labels_of(60)
    abnormal = labels["label"] == "abnormal"
    labels.loc[abnormal, "group"] = "p/C01"
    found = fit_detector(labels, features, SETTINGS, LOST)
    held_out, scores = found.held_out, found.classifier.scores(features)
    assert np.isnan(held_out[abnormal]).all() and np.isfinite(held_out[~abnormal]).mean() > 0.8
    assert scores[abnormal].min() > np.median(scores[~abnormal])
    labels.loc[~abnormal, "group"] = "p/B01"
    found = fit_detector(labels, features, SETTINGS, LOST)
    assert np.isnan(found.held_out).all()
    oracle = regression(features, abnormal, found.penalty)
    np.testing.assert_allclose(
        logit(found.classifier.scores(features)), oracle(features), atol=1e-5
    )


def test_labels_of_one_class_are_an_error():
    labels, features = labels_of(30)
    normal = (labels["label"] == "normal").to_numpy()
    with pytest.raises(InputError, match="all 20 labels are normal; a detector needs"):
        fit_detector(labels[normal], features[normal], SETTINGS, LOST)


def detector_of(labels, features, encoder=None) -> Detector:
    encoder = encoder or random_encoder("test_resnet", 32, 3, seed=0)
    reference = reference_of(features)
    seen = standardised(features, reference)
    fit = fit_detector(labels, seen, SETTINGS, LOST)
    reference["score_quantiles"] = np.quantile(fit.classifier.scores(seen), QUANTILES)
    return Detector(encoder, fit.classifier, fit.artefacts, reference, ABOUT)


def test_the_most_likely_artefact_is_named():
    labels, features = labels_of(300)
    named = detector_of(labels, features).artefacts_of(features)
    abnormal = (labels["label"] == "abnormal").to_numpy()
    assert (named[abnormal] == labels["artefact"][abnormal]).mean() > 0.95


def test_a_feature_far_beyond_all_that_was_seen_does_not_decide_alone():
    labels, features = labels_of(300)
    detector = detector_of(labels, features)
    mean, spread = (detector.reference[name] for name in ("feature_mean", "feature_sd"))
    rows = np.tile(mean, (3, 1))
    rows[:, 0] += spread[0] * np.array([3, 4, 1000])
    assert len(set(detector.scores(rows))) == 1
    assert len(set(detector.artefacts_of(rows))) == 1
    rows[:, 0] = mean[0] + spread[0] * np.array([1, 2, 2.9])
    assert len(set(detector.scores(rows))) == 3


@pytest.mark.parametrize(("kept", "names"), [(["blur"], ["blur"]), ([], [])])
def test_one_artefact_needs_no_telling_apart_and_none_has_no_name(kept, names):
    labels, features = labels_of(60)
    labels["artefact"] = labels["artefact"].where(labels["artefact"].isin(kept), None)
    detector = detector_of(labels, features)
    assert list(detector.artefacts) == names
    assert set(detector.artefacts_of(features)) == ({"blur"} if kept else {None})


def test_a_detector_is_read_as_it_was_written(tmp_path):
    labels, features = labels_of(60)
    made = detector_of(labels, features)
    save_detector(made, tmp_path)
    found = load_detector(tmp_path)
    np.testing.assert_array_equal(found.scores(features), made.scores(features))
    np.testing.assert_array_equal(found.artefacts_of(features), made.artefacts_of(features))
    for name, values in made.reference.items():
        np.testing.assert_array_equal(found.reference[name], values)
    assert found.about == ABOUT | {"artefacts": ["blur", "debris"], "kinds": ["blur", "debris"]}


def test_a_damaged_detector_is_one_message(tmp_path):
    labels, features = labels_of(60)
    save_detector(detector_of(labels, features), tmp_path)
    (tmp_path / "detector.json").write_text("{")
    with pytest.raises(InputError, match="detector.json: is damaged .* run again"):
        load_detector(tmp_path)
    (tmp_path / "detector.json").unlink()
    with pytest.raises(InputError, match="cannot be read as a detector .* qc/detector of a study"):
        load_detector(tmp_path)


@pytest.mark.parametrize("name", ["abnormal.weight", "blur.scale", "feature_mean", "clip_sds"])
@pytest.mark.parametrize(
    "wrong", [lambda value: value * np.nan, lambda value: value[:0], lambda value: value[None]]
)
def test_numbers_that_no_detector_has_are_named(name, wrong, tmp_path):
    labels, features = labels_of(60)
    save_detector(detector_of(labels, features), tmp_path)
    numbers = load_file(tmp_path / "detector.safetensors")
    name = name if name in numbers else f"kind.blur.{name.partition('.')[2]}"
    save_file(numbers | {name: wrong(numbers[name])}, tmp_path / "detector.safetensors")
    about = json.loads((tmp_path / "detector.json").read_text())
    about = {key: about[key] for key in about if not key.endswith("sha256")}
    (tmp_path / "detector.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"does not consist of \(.*\) finite numbers"):
        load_detector(tmp_path)


@pytest.mark.parametrize("value", [None, "x", {"a": 1}, [1], 10**400, float("nan")])
@pytest.mark.parametrize(
    "key", ["composites", "composite_roles", "window_px", "window_um", "scaling"]
)
def test_what_a_detector_says_in_another_form_is_one_message(key, value):
    with pytest.raises(InputError, match="composites, window_px, window_um or scaling"):
        check_screen(ABOUT | {key: value}, "other", ["w4", "w5", "w1"], 64, 0, SCALING)


@pytest.mark.parametrize("key", ["labels_normal", "labels_abnormal", "study", "screen"])
@pytest.mark.parametrize("value", [None, 0, 1.5, True, []])
def test_a_detector_that_does_not_say_what_it_was_fitted_to_is_one_message(key, value):
    about = {"labels_normal": 9, "labels_abnormal": 7, "study": "a", "screen": "b"}
    about["trained_on"] = "labels"
    check_labels_of(about)
    with pytest.raises(InputError, match=f"detector.json: {key} is .* its labels; copy"):
        check_labels_of(about | {key: value})


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json", "detector.safetensors"])
def test_a_flipped_bit_of_a_detector_is_noticed(name, tmp_path):
    save_detector(detector_of(*labels_of(60)), tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-10] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"/{name}: is damaged"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("composite", "window", "message"),
    [
        (["w1", "w5", "w4"], 64, "its composite is w1, w5, w4, but .* trained on w4, w5, w1"),
        (["w4", "w5", "w1"], 128, "crops of 128 px, but .* 64 px; set crops.window_px: 64"),
    ],
)
def test_other_channels_or_windows_than_it_was_trained_on_are_an_error(composite, window, message):
    with pytest.raises(InputError, match=message):
        check_screen(ABOUT, "other", composite, window, 0, SCALING)
    check_screen(ABOUT, "next", ["w4", "w5", "w1"], 64, 0, SCALING)


def test_channels_of_other_names_that_show_the_same_in_that_order_are_accepted():
    about = ABOUT | {"composite_roles": ["AGP", "Mito", "DNA"]}
    jump = {"OrigDNA": "DNA", "OrigAGP": "AGP", "OrigMito": "Mito", "OrigER": "ER"}
    order = ["OrigAGP", "OrigMito", "OrigDNA"]
    check_screen(about, "jump", order, 64, 0, SCALING, jump)
    for composite, shown in (
        (order[::-1], jump),
        (["OrigAGP", "OrigMito", "OrigER"], jump),
        (order, {}),
        (order, dict.fromkeys(jump, "other")),
    ):
        with pytest.raises(InputError, match="say in channel_roles that they show the same"):
            check_screen(about, "jump", composite, 64, 0, SCALING, shown)
    unknown = ABOUT | {"composite_roles": ["other"] * 3}
    with pytest.raises(InputError, match="its composite is OrigAGP"):
        check_screen(unknown, "jump", order, 64, 0, SCALING, {})


def test_crops_of_another_physical_size_are_an_error():
    with pytest.raises(InputError, match="window_um is 60, but the detector was trained with null"):
        check_screen(ABOUT, "other", ["w4", "w5", "w1"], 64, 60.0, SCALING)


def test_crops_scaled_otherwise_are_an_error():
    other = replace(SCALING, scale_cells=1.5)
    with pytest.raises(InputError, match="scale_cells is 1.5, but the detector was trained with 2"):
        check_screen(ABOUT, "other", ["w4", "w5", "w1"], 64, 0, other)
    old = {name: value for name, value in ABOUT.items() if name != "scaling"}
    with pytest.raises(InputError, match="older version, which scaled crops by percentiles"):
        check_screen(old, "other", ["w4", "w5", "w1"], 64, 0, SCALING)


def write_crops(path: Path, count: int) -> Shards:
    """Write random crops of three channels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (count, 3, 32, 32)).astype(np.uint8)
    writer = ShardWriter(path, ShardFormat(tuple(CHANNELS), 32, "uint8", {}))
    names = [f"sim/p/B02/s1/x{i:04d}y0001" for i in range(count)]
    numbers = dict.fromkeys(("x_px", "y_px", "nucleus_area_px"), np.arange(count))
    writer.add({"crop_id": names, "field_id": names, **numbers}, pixels)
    writer.close()
    return Shards([path])


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A detector of random labels of random crops, the shards, and what scoring them gives."""
    shards = write_crops(tmp_path_factory.mktemp("crops") / "p.parquet", 60)
    encoder = random_encoder("test_resnet", 32, 3, seed=0)
    encoder.backbone.eval()
    channels = CHANNELS
    features, _ = extract_features(
        encoder, shards, channels, np.arange(len(shards)), 16, "float32", "test"
    )
    labels, _ = labels_of(len(shards))
    detector = detector_of(labels, features, encoder)
    sample = np.array([3, 17, 40])
    table = score_crops(detector, shards, channels, channels[2], 16, "float32", "test", sample, 10)
    return detector, shards, channels, features, table


def test_every_crop_is_scored_by_its_own_features_and_a_sample_is_kept(scored):
    detector, shards, _, features, (table, kept, moved) = scored
    assert table["crop_id"].tolist() == shards.index["crop_id"].tolist()
    np.testing.assert_allclose(table["score"], detector.scores(features), atol=1e-6)
    np.testing.assert_allclose(kept, features[[3, 17, 40]], atol=1e-6)
    assert moved.features < 1e-4 and moved.scores < 0.03  # of the crops that are its reference


def test_a_crop_with_wide_edges_is_blurred_whatever_its_features_say():
    scores = pd.DataFrame({"score": [0.1, 0.2, 0.9], "artefact": ["dead"] * 3})
    scores["edge"] = [0.3, 0.6, np.nan]
    found = call_wide_edges_blurred(scores, 0.5)
    assert found["score"].tolist() == [0.1, 1.0, 0.9]
    assert found["artefact"].tolist() == ["dead", "blur", "dead"]


def test_drift_is_the_shift_in_standard_deviations_and_of_scores():
    labels, features = labels_of(300)
    detector = detector_of(labels, features)
    spread = detector.reference["feature_sd"]
    scores = detector.scores(features)
    moved = drift(detector, detector.reference["feature_mean"] + 0.7 * spread, np.ones(50))
    assert moved.features == pytest.approx(0.7) and moved.scores == pytest.approx(1)
    assert drift(detector, detector.reference["feature_mean"], scores).scores < 0.03


def test_fewer_aberrant_crops_are_no_drift_of_scores_but_moved_good_ones_are():
    labels, features = labels_of(300)
    detector = detector_of(labels, features)
    scores = detector.scores(features)
    mean = detector.reference["feature_mean"]
    good, aberrant = scores[scores < 0.5], scores[scores >= 0.5]
    assert drift(detector, mean, np.r_[good, aberrant[:5]]).scores < 0.05
    assert drift(detector, mean, np.r_[(good + 0.4) / 2, aberrant]).scores > 0.5


def test_focus_falls_with_blur_and_not_with_brightness():
    rng = np.random.default_rng(0)
    sharp = rng.integers(40, 120, (64, 64)).astype(np.uint8)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 3)
    focus = focus_of(np.stack([sharp, sharp * 2, blurred, np.full_like(sharp, 7)]))
    assert focus[0] == pytest.approx(focus[1], abs=0.05)
    assert focus[2] < focus[0] - 1 and focus[3] <= focus[2]


def test_the_saturated_share_is_that_of_the_worst_channel():
    crops = np.zeros((2, 3, 10, 10), np.uint8)
    crops[0, 1, :5] = 255
    crops[0, 2, :1] = 255
    assert saturated_share(crops).tolist() == [0.5, 0.0]


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("snakemake", "solo"):
            raise ImportError("not here: " + name)
sys.meta_path.insert(0, Blocked())
import json, mlflow.pyfunc, numpy as np
crops = np.load(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[1])
told = model.predict({"pixels": crops["pixels"], "nucleus_area_px": crops["areas"]})
print(json.dumps({"score": told["score"].tolist(), "artefact": told["artefact"].tolist()}))
"""


def test_the_mlflow_model_gives_the_same_scores_where_there_is_no_snakemake(scored, tmp_path):
    detector, shards, channels, _, (table, _, _) = scored
    save_detector(detector, tmp_path / "detector")
    pixels = shards.read_composite(np.arange(10), channels).copy()
    areas = shards.index["nucleus_area_px"].iloc[:10].to_numpy(np.float32)
    save_model(tmp_path / "detector", pixels[:2], areas[:2], tmp_path / "model", ["mlflow"])
    np.savez(tmp_path / "crops.npz", pixels=pixels, areas=areas)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            BLOCKED,
            tmp_path / "model",
            tmp_path / "crops.npz",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(told["score"], table["score"][:10], atol=1e-6)
    assert told["artefact"] == table["artefact"][:10].tolist()
    about = mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata
    assert about.signature.inputs.input_names() == ["pixels", "nucleus_area_px"]
    assert not list((tmp_path / "model").rglob("*.pkl"))
    example = mlflow.pyfunc.load_model(str(tmp_path / "model")).input_example
    assert len(example["pixels"]) == 2


def test_pins_are_what_is_installed_without_a_builds_name():
    pins = dict(pin.split("==") for pin in installed_pins())
    assert list(pins) == list(PACKAGES)
    assert pins["numpy"] == version("numpy")
    assert re.fullmatch(r"[\d.]+", pins["torch"]) and version("torch").startswith(pins["torch"])


def test_focus_and_saturation_of_a_crop_are_its_own(scored):
    _, shards, channels, _, (table, _, _) = scored
    crops = shards.read_composite(np.arange(len(shards)), channels)
    np.testing.assert_allclose(table["focus"], focus_of(crops[:, 2]))
    np.testing.assert_allclose(table["edge"], edge_widths(crops[:, 2]) / 10)
    np.testing.assert_allclose(table["saturated"], saturated_share(crops))
