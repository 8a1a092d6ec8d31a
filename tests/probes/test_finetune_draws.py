"""Fine-tuning draw by draw: crops of several screens, settings of a search, and the predictions."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.shards import ShardFormat, ShardWriter
from hcsqc.encoders.store import random_encoder, save_encoder
from hcsqc.probes.finetune import FinetuneSettings, finetune, finetuned_scores
from hcsqc.probes.finetune_draws import (
    CompositeCrops,
    check_trainable,
    chosen_settings,
    finetuned_predictions,
)
from hcsqc.probes.task import Task
from scripts.probes import finetune as command

TUNING = FinetuneSettings(2, 4, 0.01, 0.9, 0.01, (1,), 0.1, "train", 0)
CHANNELS = {"here": ("a", "b", "c"), "there": ("x", "c", "b", "a")}
COMPOSITES = {"here": ["c", "b", "a"], "there": ["c", "a", "x"]}


@pytest.fixture(scope="module")
def encoder():
    return random_encoder("test_resnet", 32, 3, seed=0)


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> dict[str, Path]:
    """Write 12 random crops of 32 px here, in four channels and of 24 px there."""
    rng = np.random.default_rng(0)
    folder, paths = tmp_path_factory.mktemp("crops"), {}
    for screen, size in (("here", 32), ("there", 24)):
        names = [f"{screen}/p/B{i:02d}/s1/x{i:04d}y0001" for i in range(12)]
        numbers = dict.fromkeys(("x_px", "y_px", "nucleus_area_px"), np.arange(12))
        pixels = rng.integers(0, 255, (12, len(CHANNELS[screen]), size, size), dtype=np.uint8)
        paths[screen] = folder / screen / "p.parquet"
        paths[screen].parent.mkdir()
        writer = ShardWriter(paths[screen], ShardFormat(CHANNELS[screen], size, "uint8", {}))
        writer.add({"crop_id": names, "field_id": names, **numbers}, pixels)
        writer.close()
    return paths


@pytest.fixture(scope="module")
def pixels(crops) -> CompositeCrops:
    return CompositeCrops(list(crops.values()), COMPOSITES)


def ids(screen: str, *numbers: int) -> list[str]:
    return [f"{screen}/p/B{i:02d}/s1/x{i:04d}y0001" for i in numbers]


def task(draw: int, train=range(6)) -> Task:
    """Return a task that tests on both screens, in turn."""
    test = [crop for i in (6, 7, 8) for crop in (*ids("here", i), *ids("there", i))]
    table = pd.DataFrame({"screen": ["here", "there"] * 3, "crop_id": test, "label": "normal"})
    # No row's number is its place, as after a selection.
    return Task(
        draw, np.array(ids("here", *train)), np.arange(6) % 2, table.set_axis(range(9, 3, -1))
    )


def test_crops_are_read_from_their_own_screen_in_its_composite(pixels):
    shards, _ = pixels.screens["there"]
    whole = shards.read(shards.rows_of(ids("there", 5, 2)))
    np.testing.assert_array_equal(pixels.of(ids("there", 5, 2)), whole[:, [1, 3, 0]])
    assert pixels.of(ids("here", 0)).shape == (1, 3, 32, 32)


def test_a_crop_that_is_not_there_is_named(pixels):
    with pytest.raises(InputError, match="1 crops are not in .*, first here/p/B77"):
        pixels.of(ids("here", 1, 77))


def test_a_screen_without_shards_is_refused(crops):
    with pytest.raises(InputError, match="no shard of crops is given"):
        CompositeCrops([crops["here"]], COMPOSITES)


def test_the_screen_whose_composite_is_not_the_encoders_is_named(crops, encoder, pixels):
    pixels.check(encoder)
    short = CompositeCrops(list(crops.values()), COMPOSITES | {"there": ["a", "x"]})
    with pytest.raises(InputError, match=r"finetune there: the encoder .* 3 channels.* 2 \(a, x\)"):
        short.check(encoder)


def test_an_encoder_that_measures_is_refused_with_its_file(encoder):
    check_trainable(encoder, Path("e.safetensors"))
    measured = replace(encoder, trainable=False, architecture="intensity")
    with pytest.raises(
        InputError, match="e.safetensors: intensity has measures, which cannot be trained"
    ):
        check_trainable(measured, Path("e.safetensors"))


def test_predictions_are_those_of_each_draw_and_screen_alone(encoder, pixels):
    tasks, batches = [task(0), task(3, train=range(1, 7))], []
    found = finetuned_predictions(
        encoder, pixels, tasks, TUNING, 5, lambda count, loss: batches.append(count)
    )
    assert found["draw"].tolist() == [0] * 6 + [3] * 6 and found["screen"].nunique() == 2
    assert batches == [4, 2] * 4
    for one in tasks:
        network = finetune(
            encoder,
            pixels.of(one.train_crops),
            one.train_targets,
            TUNING,
            (5, one.draw),
            lambda count, loss: None,
        )
        for screen in ("here", "there"):
            rows = found[(found["draw"] == one.draw) & (found["screen"] == screen)]
            assert rows["crop_id"].tolist() == ids(screen, 6, 7, 8)
            alone = finetuned_scores(network, encoder, pixels.of(rows["crop_id"]), 256)
            np.testing.assert_allclose(rows["score"], alone, atol=1e-6)


def test_without_draws_there_are_predictions_of_none(encoder, pixels, tmp_path):
    found = finetuned_predictions(encoder, pixels, [], TUNING, 0, lambda count, loss: None)
    write_table(found, tmp_path / "p.parquet", "predictions")
    assert read_table(tmp_path / "p.parquet", "predictions").empty


def test_settings_of_a_search_are_read_as_they_were_chosen(tmp_path):
    path = tmp_path / "choice.json"
    path.write_text(json.dumps({"chosen": asdict(TUNING), "trials": []}))
    assert chosen_settings(path) == TUNING
    path.write_text('{"chosen": null, "trials": []}')
    assert chosen_settings(path).epochs == 1


def test_command_without_a_setting_names_its_flag():
    values = asdict(TUNING) | {"weight_decay": None, "milestones": list(TUNING.milestones)}
    with pytest.raises(InputError, match="neither --choice nor --weight-decay is given"):
        command.given_settings(Namespace(**values))
    assert command.given_settings(Namespace(**values | {"weight_decay": 0.01})) == TUNING


def split_file(folder: Path) -> Path:
    """Write a draw with six training crops and four to test on."""
    rows = [(0, crop, "train", i) for i, crop in enumerate(ids("here", *range(6)))]
    rows += [(0, crop, "test", None) for crop in ids("here", *range(6, 10))]
    table = pd.DataFrame(rows, columns=["draw", "crop_id", "part", "rank"])
    table["label"] = [("normal", "abnormal")[i % 2] for i in range(len(table))]
    write_table(
        table.astype({"draw": "int32", "rank": "Int32"}), folder / "splits.parquet", "splits"
    )
    return folder / "splits.parquet"


def test_command_trains_with_the_settings_of_a_search(tmp_path, crops, encoder, monkeypatch):
    for name in ("use_deterministic_algorithms", "set_num_threads"):
        monkeypatch.setattr(torch, name, lambda value: None)
    weights = tmp_path / "enc" / "seed0" / "encoder.safetensors"
    save_encoder(encoder, weights)
    (tmp_path / "choice.json").write_text(json.dumps({"chosen": asdict(TUNING)}))
    words = [command.__file__, "--encoder", weights, "--splits", split_file(tmp_path)]
    words += ["--shift-labels", "--crops", *crops.values(), "--composites", "here:c,b,a"]
    words += ["--budget", 4, "--draws", 1, "--seed", 0, "--choice", tmp_path / "choice.json"]
    words += ["--output", tmp_path / "p.parquet", "--record", tmp_path / "run" / "run.json"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    command.main()
    found = read_table(tmp_path / "p.parquet", "predictions")
    assert found["crop_id"].tolist() == ids("here", 6, 7, 8, 9)
    assert found["score"].between(0, 1).all()
    parameters = json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]
    assert parameters["epochs"] == 2 and parameters["milestones"] == [1]


def test_channels_of_each_screen_are_found_by_what_they_show():
    encoder = random_encoder("test_resnet", 32, 2, seed=0)
    seen = replace(encoder, input_spec=replace(encoder.input_spec, roles=("Mito", "DNA")))
    roles = ["here:a:DNA", "here:b:Mito", "here:c:other", "there:a:other", "there:b:DNA"]
    roles += ["there:x:Mito", "there:c:ER"]
    given = {"composites": ["here:c,b,a", "there:c,a,x"], "channel_roles": roles}
    found = command.channels_by_screen(Namespace(**given), seen)
    assert found == {"here": ["b", "a"], "there": ["x", "b"]}
    as_listed = command.channels_by_screen(Namespace(**given), encoder)
    assert as_listed == {"here": ["c", "b", "a"], "there": ["c", "a", "x"]}
    given["channel_roles"] = roles[:4]
    with pytest.raises(InputError, match="finetune there .test_resnet.: no channel shows Mito"):
        command.channels_by_screen(Namespace(**given), seen)
