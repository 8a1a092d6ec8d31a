"""The command that pretrains: what it trains on, what it writes, and what it resumes from."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hcsqc.core import files
from hcsqc.core.errors import InputError
from hcsqc.core.files import text_digest, write_json
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.store import load_encoder
from hcsqc.pretraining import checkpoint_folder
from hcsqc.pretraining.run import PretrainingRun
from scripts.pretraining import choose_pretraining, plot_pretraining
from scripts.pretraining import pretrain as script
from tests.conftest import ROOT

WELLS = ("B02", "B03", "B04")
PER_WELL = 12
CHANNELS = ("w1", "w4", "w5")
PRESET = yaml.safe_load((ROOT / "config.yaml").read_text())["presets"]["paper"]
SETTINGS = PRESET["common"] | PRESET["simclr"]
SETTINGS |= {"architecture": "test_resnet", "input_px": 32, "batch_size": 4, "epochs": 2}
SETTINGS |= {"projector_hidden": 16, "projector_output": 8, "method": "simclr"}


@pytest.fixture(autouse=True)
def threads():
    """Leave torch's threads as they were: the script sets them for its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plate(tmp_path):
    """Write a shard of crops whose first pixel tells their row."""
    return write_plate(tmp_path / "p1.parquet", seed=0)


def write_plate(path, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (len(WELLS) * PER_WELL, 3, 32, 32), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(pixels))
    wells = np.repeat(WELLS, PER_WELL)
    fields = [f"s/p1/{well}/s1" for well in wells]
    numbers = dict.fromkeys(("x_px", "y_px", "nucleus_area_px"), np.arange(len(pixels)))
    ids = [f"{field}/x{row:04d}y0000" for row, field in enumerate(fields)]
    writer = ShardWriter(path, ShardFormat(CHANNELS, 32, "uint8", {}))
    writer.add({"crop_id": ids, "field_id": fields, **numbers}, pixels)
    writer.close()
    return path


def run(plate, folder, monkeypatch, without=("B03",), **given):
    """Run the script; return its record."""
    flags = SETTINGS | {key: value for key, value in given.items() if key in SETTINGS}
    flags |= {key: value for key, value in given.items() if key not in SETTINGS}
    flags |= {"seed": 0, "checkpoints": folder / "checkpoints", "record": folder / "run.json"}
    flags = {"output": folder / "encoder.safetensors"} | flags
    given_flags = {key: value for key, value in flags.items() if value is not None}
    words = [f"--{key.replace('_', '-')}={value}" for key, value in given_flags.items()]
    lists = ["--crops", str(plate), "--composite", *CHANNELS, "--without-wells", *without]
    monkeypatch.setattr(sys, "argv", [script.__file__, *words, *lists])
    script.main()
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def seen(monkeypatch):
    """Collect the rows of the shards whose pixels are read."""
    rows, read = set(), Shards.read_composite

    def reading(shards, wanted, chosen):
        pixels = read(shards, wanted, chosen)
        assert (pixels[:, 0, 0, 0] == np.asarray(wanted)).all(), "the first pixel tells the row"
        rows.update(np.asarray(wanted).tolist())
        return pixels

    monkeypatch.setattr(Shards, "read_composite", reading)
    return rows


def test_ssl_no_crop_of_an_evaluation_well_reaches_a_training_batch(
    plate, tmp_path, monkeypatch, seen
):
    record = run(plate, tmp_path, monkeypatch, without=("B02", "B04"))
    assert seen == set(range(PER_WELL, 2 * PER_WELL))
    ids = pd.read_parquet(plate, columns=["crop_id"])["crop_id"]
    own = ids[ids.str.contains("/B03/")]
    assert record["parameters"]["crops"] == PER_WELL
    assert record["parameters"]["crops_digest"] == text_digest("\n".join(own))
    assert record["parameters"]["without_wells"] == ["B02", "B04"]


def test_ssl_pretraining_writes_encoder_snapshots_and_curves(plate, tmp_path, monkeypatch):
    epochs = tmp_path / "epochs"
    record = run(plate, tmp_path, monkeypatch, snapshots_output=epochs)
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert (encoder.kind, encoder.provenance["collapsed"]) == ("ssl", False)
    device = encoder.provenance["device"]
    assert device == f"{record['cost']['device']}, {record['parameters']['precision']}"
    kept = [load_encoder(path) for path in sorted(epochs.glob("*.safetensors"))]
    assert [snapshot.provenance["epoch"] for snapshot in kept] == [0, 1, 2]
    last, end = (e.backbone.state_dict() for e in (kept[-1], encoder))
    assert all((last[name] == end[name]).all() for name in end)
    assert [point["step"] for point in record["curves"]] == list(range(12))
    assert {"loss", "learning_rate", "feature_std", "feature_rank", "pairs_per_s", "memory_gb"} < (
        record["curves"][0].keys()
    )
    assert record["parameters"]["precision"] in ("float32", "bfloat16")
    assert 0 <= record["metrics"]["stall_share"] < 1 and record["metrics"]["feature_rank"] > 1


def test_ssl_a_trial_sees_a_random_share_of_the_crops_the_same_each_time(
    plate, tmp_path, monkeypatch, seen
):
    run(plate, tmp_path, monkeypatch, at_most_crops=8)
    first = set(seen)
    assert len(first) == 8 and first != set(range(8))
    assert not first & set(range(PER_WELL, 2 * PER_WELL))
    seen.clear()
    run(plate, tmp_path, monkeypatch, at_most_crops=8)
    assert seen == first


def test_ssl_crops_on_a_nodes_own_disk_train_the_same_and_go_on_where_others_stopped(
    plate, tmp_path, monkeypatch
):
    node = tmp_path / "node"
    node.mkdir()
    monkeypatch.setenv("NODE_DISK", str(node))
    with pytest.raises(SystemExit):  # from the shared disk, and out of time
        run(plate, tmp_path, monkeypatch, limit_minutes=1e-6)
    record = run(plate, tmp_path, monkeypatch, scratch="$NODE_DISK")
    assert list(node.iterdir()) == [] and "scratch" not in record["parameters"]
    parts = load_encoder(tmp_path / "encoder.safetensors").backbone.state_dict()
    run(plate, tmp_path, monkeypatch)
    whole = load_encoder(tmp_path / "encoder.safetensors").backbone.state_dict()
    assert all((parts[name] == whole[name]).all() for name in whole)


def test_ssl_outputs_that_are_deleted_after_a_good_end_come_again_without_training(
    plate, tmp_path, monkeypatch, capsys
):
    """As Snakemake does where a job that has ended well counts as failed, or as incomplete."""
    out = tmp_path / "out"
    outputs = {"output": out / "encoder.safetensors", "snapshots_output": out / "epochs"}
    first = run(plate, tmp_path, monkeypatch, **outputs)
    written = contents(out)
    assert len(written) == 2 + 2 * 3
    shutil.rmtree(out)
    (tmp_path / "run.json").unlink()
    monkeypatch.setattr(PretrainingRun, "training_step", None)
    second = run(plate, tmp_path, monkeypatch, **outputs)
    assert "resumes at step 12 of 12" in capsys.readouterr().err
    assert contents(out) == written
    assert second["curves"] == first["curves"]
    assert second["metrics"]["feature_rank"] == first["metrics"]["feature_rank"]


def contents(folder):
    """Return the files below a folder, with what they hold."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_ssl_the_figure_of_the_course_removes_the_checkpoints(plate, tmp_path, monkeypatch):
    folder = tmp_path / "results/study/runs/pretrain/simclr/seed0"
    run(plate, folder, monkeypatch)
    assert list((folder / "checkpoints").glob("*.pt"))
    draw(folder, monkeypatch)
    assert not (folder / "checkpoints").exists() and (folder / "course.png").exists()
    draw(folder, monkeypatch)  # again, when there are none


def draw(folder, monkeypatch):
    words = ["--pretraining", folder / "run.json", "--checkpoints", folder / "checkpoints"]
    words += ["--output", folder / "course.png", "--record", folder / "figures/run.json"]
    monkeypatch.setattr(sys, "argv", [plot_pretraining.__file__, *map(str, words)])
    plot_pretraining.main()


def test_ssl_the_choice_of_a_search_removes_the_checkpoints_of_its_trials(
    plate, tmp_path, monkeypatch
):
    trials = [tmp_path / f"results/study/runs/search/simclr/lr{rate}_wd0" for rate in (0.1, 0.01)]
    for folder, rate in zip(trials, (0.1, 0.01), strict=True):
        run(plate, folder, monkeypatch, output=None, at_most_crops=8, learning_rate=rate)
    words = ["--trials", *(folder / "run.json" for folder in trials)]
    words += ["--checkpoints", *(folder / "checkpoints" for folder in trials)]
    words += ["--output", tmp_path / "choice.json", "--record", tmp_path / "choice/run.json"]
    monkeypatch.setattr(sys, "argv", [choose_pretraining.__file__, *map(str, words)])
    choose_pretraining.main()
    assert not [folder for folder in trials if (folder / "checkpoints").exists()]


HOLDER = """
import pathlib, time
from hcsqc.pretraining import checkpoint_folder
with checkpoint_folder.held(pathlib.Path({folder!r})):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_ssl_a_second_copy_is_refused_by_name_until_the_first_has_died(
    plate, tmp_path, monkeypatch, capsys
):
    checkpoints = tmp_path / "checkpoints"
    code = HOLDER.format(folder=str(checkpoints))
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "holds\n"
        with pytest.raises(SystemExit):
            run(plate, tmp_path, monkeypatch)
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: {checkpoints}: process {first.pid} on ")
        assert "wait until it ends, or stop it" in said
        assert [path.name for path in checkpoints.iterdir()] == ["lock"]
        checkpoint_folder.remove(checkpoints)
        assert checkpoints.exists(), "it is in use"
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    run(plate, tmp_path, monkeypatch)
    assert (tmp_path / "encoder.safetensors").exists()


def test_ssl_a_lock_that_nobody_holds_any_more_may_be_deleted(tmp_path):
    """A dead node's, which some network file systems keep."""
    with checkpoint_folder.held(tmp_path):
        with (
            pytest.raises(InputError, match="if there is none, delete .*lock"),
            checkpoint_folder.held(tmp_path),
        ):
            pass
        (tmp_path / "lock").unlink()
        with checkpoint_folder.held(tmp_path):
            pass


def test_ssl_a_disk_without_locks_refuses_nobody(plate, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(files.fcntl, "flock", fail)
    run(plate, tmp_path, monkeypatch)
    assert (tmp_path / "encoder.safetensors").exists()


def test_ssl_the_chosen_settings_of_a_search_hold(plate, tmp_path, monkeypatch):
    choice = tmp_path / "choice.json"
    write_json({"chosen": {"learning_rate": 0.5, "weight_decay": 0.25}}, choice)
    record = run(plate, tmp_path, monkeypatch, choice=choice)
    assert record["parameters"]["learning_rate"] == 0.5
    assert record["parameters"]["weight_decay"] == 0.25
    assert max(point["learning_rate"] for point in record["curves"]) == pytest.approx(0.5)


def test_ssl_a_time_limit_ends_with_one_line_and_the_next_start_goes_on(
    plate, tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as stopped:
        run(plate, tmp_path, monkeypatch, limit_minutes=1e-6)
    assert stopped.value.code == 1
    assert "the state is saved, and the next start resumes here" in capsys.readouterr().err
    assert not (tmp_path / "encoder.safetensors").exists()
    record = run(plate, tmp_path, monkeypatch)
    assert "resumes at step 1 of 12" in capsys.readouterr().err
    assert len(record["curves"]) == 12


def test_ssl_snapshots_of_a_run_with_other_settings_are_not_published(plate, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "STOP_AT", 0.0)
    with pytest.raises(SystemExit):
        run(plate, tmp_path, monkeypatch, limit_minutes=1, epochs=5, snapshots=5)
    stale = tmp_path / "checkpoints/epochs/epoch0004.safetensors"
    stale.write_bytes(b"of the other run")
    epochs = tmp_path / "epochs"
    run(plate, tmp_path, monkeypatch, learning_rate=0.002, snapshots_output=epochs)
    assert [path.stem[-1] for path in sorted(epochs.glob("*.safetensors"))] == ["0", "1", "2"]


def test_ssl_crops_written_again_are_resumed_upon(plate, tmp_path, monkeypatch, capsys):
    """As copies of a bucket are, with each start."""
    with pytest.raises(SystemExit):
        run(plate, tmp_path, monkeypatch, limit_minutes=1e-6)
    os.utime(plate, (5, 5))
    run(plate, tmp_path, monkeypatch)
    assert "resumes at step 1 of 12" in capsys.readouterr().err


def test_ssl_crops_of_other_pixels_are_not_resumed_upon(plate, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(plate, tmp_path, monkeypatch, limit_minutes=1e-6)
    write_plate(plate, seed=1)
    run(plate, tmp_path, monkeypatch)
    assert "is of another run (shards differ); training starts again" in capsys.readouterr().err


def test_ssl_a_trial_that_diverges_is_a_result_and_an_encoder_that_does_is_an_error(
    plate, tmp_path, monkeypatch, capsys
):
    wild = {"learning_rate": 1e30, "warmup_epochs": 0}
    record = run(plate, tmp_path, monkeypatch, output=None, at_most_crops=8, **wild)
    assert record["metrics"] == {"diverged": 1.0, "collapsed": 1.0}
    assert "WARNING" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(plate, tmp_path, monkeypatch, **wild)
    assert "error: pretrain" in capsys.readouterr().err


def test_ssl_help_lists_the_flags_of_the_method(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.__file__, "--method", "swav", "--help"])
    with pytest.raises(SystemExit):
        script.main()
    assert "--queue-size" in capsys.readouterr().out


def test_ssl_no_crop_to_train_on_is_said(plate, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(plate, tmp_path, monkeypatch, without=WELLS)
    assert "no crop to train on without labels" in capsys.readouterr().err
