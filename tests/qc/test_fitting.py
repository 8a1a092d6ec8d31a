"""The detector made of a study: the best encoder, all labels, its own crops, and what is kept."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.store import random_encoder, save_encoder
from hcsqc.features.extract import extract_features
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import QUANTILES, fit_detector, load_detector, reference_of, standardised
from hcsqc.qc.fitting import (
    Embedding,
    fit_to_crops,
    fitted_text,
    reference_rows,
    save_fitted,
    study_labels,
)
from hcsqc.qc.mlflow_model.model import installed_pins
from scripts.qc import fit_detector as command
from scripts.qc import package_detector
from tests.qc.test_choice import write_ranking

CHANNELS = ("w1", "w4", "w5")
COMPOSITE = ("w5", "w1", "w4")
SETTINGS = LogisticSettings(penalties=(0.01, 0.1), folds=3)
EMBEDDING = Embedding(COMPOSITE, batch_size=16, precision="float32", standardised=20)
ABOUT = {"study": "mine", "encoder": "random", "encoder_chosen": "named in the config"}


def write_crops(path: Path, wells: list[str], copies: int = 0) -> Path:
    """Write a random crop per well, the later half brighter, and degraded copies of the first."""
    rng = np.random.default_rng(0)
    fields = [f"sim/p/{well}/s1" for well in wells]
    crops = [f"{field}/x{i:04d}y0001" for i, field in enumerate(fields)]
    crops += [f"{crop}/blur" for crop in crops[:copies]]
    fields += fields[:copies]
    pixels = rng.integers(0, 120, (len(crops), 3, 32, 32)).astype(np.uint8)
    pixels[len(wells) // 2 :] += 90
    areas = np.arange(len(crops)) + 100
    numbers = {"x_px": areas, "y_px": areas, "nucleus_area_px": areas}
    writer = ShardWriter(path, ShardFormat(CHANNELS, 32, "uint8", {}))
    writer.add({"crop_id": crops, "field_id": fields, **numbers}, pixels)
    writer.close()
    return path


def labels_of(shards: Shards, rows, selection: str = "random") -> pd.DataFrame:
    """Return labels of the crops at some rows; those of the later half are abnormal, blurred."""
    crops = shards.index["crop_id"].iloc[rows].tolist()
    abnormal = np.asarray(rows) >= len(shards) // 2
    return pd.DataFrame(
        {
            "crop_id": crops,
            "plate": "p",
            "well": [crop.split("/")[2] for crop in crops],
            "label": np.where(abnormal, "abnormal", "normal"),
            "artefact": np.where(abnormal, "blur", None),
            "strength": np.nan,
            "compound": None,
            "annotator": "a",
            "source": "a.csv",
            "selection": selection,
        }
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    """60 crops in 12 wells of both classes."""
    wells = [f"B{1 + i % 12:02d}" for i in range(60)]
    return Shards([write_crops(tmp_path_factory.mktemp("crops") / "p.parquet", wells)])


@pytest.fixture(scope="module")
def encoder():
    return random_encoder("test_resnet", 32, 3, seed=0)


@pytest.fixture(scope="module")
def fitted(encoder, shards):
    """A detector of every second crop, and its labels."""
    labels = labels_of(shards, range(0, 60, 2)).assign(random=[True, False] * 15)
    labels["group"] = "p/" + labels["well"]
    return fit_to_crops(encoder, shards, labels, EMBEDDING, SETTINGS, 0.05, ABOUT), labels


# Labels and crops


def test_a_crop_chosen_in_both_ways_is_a_random_one(shards, tmp_path):
    random, rest = labels_of(shards, [1, 2]), labels_of(shards, [2, 40], "uncertain")
    for name, table in (("random", random), ("all", rest)):
        write_table(table, tmp_path / f"{name}.parquet", "labels")
    labels = study_labels(tmp_path / "all.parquet", tmp_path / "random.parquet", "well")
    assert labels["crop_id"].tolist() == shards.index["crop_id"].iloc[[1, 2, 40]].tolist()
    assert labels["random"].tolist() == [True, True, False]
    assert labels["selection"].tolist() == ["random", "random", "uncertain"]


def test_the_reference_is_of_real_crops_alone_and_always_the_same(tmp_path):
    shards = Shards([write_crops(tmp_path / "p.parquet", ["B02"] * 30, copies=10)])
    assert sorted(reference_rows(shards, 99)) == list(range(30))
    rows = reference_rows(shards, 7)
    assert len(set(rows)) == 7 and rows.tolist() == reference_rows(shards, 99)[:7].tolist()
    assert not len(reference_rows(shards, 0))


def test_a_detector_is_fitted_to_the_features_of_its_labels(fitted, encoder, shards):
    found, labels = fitted
    everything, _ = extract_features(
        encoder, shards, COMPOSITE, np.arange(60), 16, "float32", "test"
    )
    known = reference_of(everything[reference_rows(shards, 20)])
    fit = fit_detector(labels, standardised(everything[::2], known), SETTINGS, 0.05)
    classifier, artefacts, scores = fit.classifier, fit.artefacts, fit.held_out
    detector = found.detector
    np.testing.assert_allclose(
        detector.scores(everything), classifier.scores(standardised(everything, known)), atol=1e-5
    )
    assert list(detector.artefacts) == list(artefacts) == ["blur"]
    np.testing.assert_allclose(found.held_out["score"], scores, atol=1e-5)
    of_reference = detector.scores(everything[reference_rows(shards, 20)])
    known["score_quantiles"] = np.quantile(of_reference, QUANTILES)
    for name, values in known.items():
        np.testing.assert_allclose(detector.reference[name], values, atol=1e-5)


def test_what_is_told_of_a_detector_is_where_it_is_from_and_what_came_of_it(fitted, shards):
    found, _ = fitted
    about = found.detector.about
    assert {name: about[name] for name in ABOUT} == ABOUT
    assert (about["labels_normal"], about["labels_abnormal"]) == (15, 15)
    assert (about["classifier"], about["window_px"], about["precision"]) == (
        "logistic",
        32,
        "float32",
    )
    assert about["penalty"] == found.detector.classifier.penalty


def test_labels_of_crops_that_are_not_there_are_an_error(encoder, shards):
    labels = labels_of(shards, range(60)).assign(random=True)
    labels.loc[3, "crop_id"] = "sim/p/B02/s1/x9999y9999"
    with pytest.raises(InputError, match="1 crops are not in .*, first sim/p/B02/s1/x9999y9999"):
        fit_to_crops(encoder, shards, labels, EMBEDDING, SETTINGS, 0.05, ABOUT)


def test_a_composite_that_is_not_the_encoders_is_an_error(encoder, shards):
    labels = labels_of(shards, range(60)).assign(random=True)
    pair = replace(EMBEDDING, composite=("w1", "w4"))
    with pytest.raises(InputError, match="detector random: the encoder .* 3 channels"):
        fit_to_crops(encoder, shards, labels, pair, SETTINGS, 0.05, ABOUT)


def test_a_detector_is_saved_with_its_labels(fitted, tmp_path):
    found, labels = fitted
    save_fitted(found, tmp_path / "detector")
    assert load_detector(tmp_path / "detector").about == found.detector.about | {
        "artefacts": ["blur"],
        "kinds": [],
    }
    held_out = read_table(tmp_path / "detector" / "held_out.parquet", "held_out")
    for name in ("crop_id", "plate", "well", "label", "selection", "random"):
        assert held_out[name].tolist() == labels[name].tolist()
    np.testing.assert_array_equal(held_out["score"], found.held_out["score"])


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        (0, ""),
        (4, "; 4 labels were not held out, the others are of one class"),
        (30, "; too few wells are labelled to hold any out"),
    ],
)
def test_labels_that_were_not_held_out_are_told(fitted, missed, told):
    found, _ = fitted
    scores = found.held_out["score"].mask(np.arange(30) < missed)
    assert found.held_out["score"].notna().all()
    one = replace(found, held_out=found.held_out.assign(score=scores))
    assert fitted_text(one, Path("here")) == (
        "detector: random (named in the config), 15 normal and 15 abnormal labels, saved in here"
        + told
    )


# The command


@pytest.fixture
def study(tmp_path, shards, encoder, monkeypatch):
    """Return the command's arguments."""
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    for name in ("good", "better"):
        save_encoder(encoder, tmp_path / name / "seed0" / "encoder.safetensors")
    metric = "recall_at_5_percent"
    rows = [(name, "knn", "sim", metric, 50, 0.8 + place / 10) for place, name in enumerate("ab")]
    rows += [("good", "knn", "sim", metric, 50, 0.7), ("better", "knn", "sim", metric, 50, 0.75)]
    tables = {"random": labels_of(shards, range(0, 60, 3))}
    tables["all"] = labels_of(shards, range(0, 60, 2), "diverse")
    for name, table in tables.items():
        write_table(table, tmp_path / f"{name}.parquet", "labels")
    return Namespace(
        study="mine",
        screen="sim",
        encoder="best",
        encoders=[tmp_path / name / "seed0" / "encoder.safetensors" for name in ("good", "better")],
        ranking=write_ranking(tmp_path, *rows),
        probe="knn",
        labels=tmp_path / "all.parquet",
        random_labels=tmp_path / "random.parquet",
        group_by="well",
        trained_on="labels",
        crops=[Path(path) for path in shards.paths],
        composite=list(COMPOSITE),
        channel_roles=["w5:Mito", "w1:DNA"],
        shift_composites=["a,b,c", "w5,w1,w4"],
        window_um=0.0,
        scales=[scale_of(tmp_path / "p.scale.parquet")],
        scale_background=0.5,
        scale_cells=2.0,
        scale_knee=0.9,
        standardised=20,
        batch_size=16,
        precision="float32",
        output=tmp_path / "detector",
        threads=1,
        penalties=[0.01, 0.1],
        folds=3,
        judged_at=0.05,
    )


def scale_of(path: Path) -> Path:
    """Write the scale of a plate whose channels are alike."""
    levels = {"low": 100.0, "high": 1100.0, "top": 4095.0, "bits": 12, "cell": 600.0, "nuclei": 90}
    levels |= {"found": "cells", "read_noise": 4.0, "shot_noise": 0.4}
    write_table(pd.DataFrame({"channel": CHANNELS, **levels}), path, "scale")
    return path


def run(args) -> Namespace:
    record = Namespace(parameters={}, code_digest="c0de", git={"commit": "abc"})
    command.fit(args, record)
    return record


def test_command_saves_the_detector_of_the_best_encoder(study, capsys):
    args = study
    record = run(args)
    about = json.loads((args.output / "detector.json").read_text())
    assert (about["encoder"], about["encoder_sha256"]) == ("better", sha256(args.encoders[1]))
    assert about["composites"] == [["a", "b", "c"], ["w5", "w1", "w4"]]
    assert about["composite_roles"] == ["Mito", "DNA", "other"]
    assert "warning" not in about
    assert about["labels_sha256"] == sha256(args.labels)
    assert (about["code_digest"], about["git_commit"]) == ("c0de", "abc")
    assert (about["study"], about["screen"], about["window_um"]) == ("mine", "sim", 0)
    assert about["scaling"] == {"scale_background": 0.5, "scale_cells": 2.0, "scale_knee": 0.9}
    assert about["levels"] == [
        {"channel": name, "background": 100.0, "cell": 600.0} for name in COMPOSITE
    ]
    held_out = read_table(args.output / "held_out.parquet", "held_out")
    assert len(held_out) == 40 and held_out["random"].sum() == 20
    assert record.metrics == {"labels": 40, "penalty": about["penalty"]}
    assert record.parameters == {
        "chosen_encoder": "better",
        "detector": str(args.output / "detector.json"),
    }
    assert capsys.readouterr().out == (
        "detector: better (finds 75.0% of the aberrant crops where 5% of the normal ones are "
        "lost, under knn with 50 labels), "
        f"20 normal and 20 abnormal labels, saved in {args.output}\n"
    )


def test_an_encoder_that_is_named_needs_no_ranking(study):
    args = study
    record = run(Namespace(**vars(args) | {"encoder": "good", "ranking": None, "probe": None}))
    about = json.loads((args.output / "detector.json").read_text())
    assert about["encoder_chosen"] == "named in the config"
    assert record.parameters["chosen_encoder"] == "good"


def test_the_model_of_mlflow_has_its_first_labels_as_an_example(study, shards, monkeypatch):
    args = study
    run(args)
    models = []
    monkeypatch.setattr(package_detector, "save_model", lambda *given: models.append(given))
    seen = {"composite": args.composite, "channel_roles": args.channel_roles}
    asked = Namespace(detector=args.output, crops=args.crops, output=Path("model"), **seen)
    package_detector.package(asked, None)
    ((folder, example, areas, model, pins),) = models
    assert (folder, model, pins) == (args.output, Path("model"), installed_pins())
    held_out = read_table(args.output / "held_out.parquet", "held_out")
    rows = shards.rows_of(held_out["crop_id"].iloc[:4])
    np.testing.assert_array_equal(example, shards.read_composite(rows, COMPOSITE))
    assert areas.tolist() == shards.index["nucleus_area_px"].iloc[rows].tolist()
    assert areas.dtype == np.float32
