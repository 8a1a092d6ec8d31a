import math
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from hcsqc.core.errors import InputError
from hcsqc.encoders.models import build_backbone, imagenet_input
from hcsqc.encoders.views import ViewSettings
from hcsqc.pretraining.collapse import LEAST_SPREAD, feature_rank, feature_spread, is_collapsed
from hcsqc.pretraining.loop import Callbacks, OutOfTime, pretrain
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.monitor import Diverged
from hcsqc.pretraining.optimizers import build_optimizer, learning_rate_at
from hcsqc.pretraining.settings import PretrainingSettings, Recipe
from tests.conftest import ROOT

VIEWS = ViewSettings(0.5, 0.5, 0.5, 0.0625, 0.9, 1.1)
# 24 crops in batches of 8: 2 epochs are 6 steps.
TINY = PretrainingSettings(
    architecture="test_resnet",
    method="simclr",
    input_px=32,
    epochs=2,
    warmup_epochs=1,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.05,
    learning_rate_scaled=False,
    warmup_start_rate=0.0,
    final_rate=0.0,
    momentum=0.9,
    weight_decay=1e-4,
    precision="float32",
    checkpoint_minutes=0,
    snapshots=0,
)
METHOD_SETTINGS = {
    "simclr": {"projector_hidden": 16, "projector_output": 8, "temperature": 0.2},
    "barlow_twins": {
        "projector_hidden": 16,
        "projector_output": 8,
        "lambda_off_diagonal": 0.0051,
        "loss_scale": 0.1,
    },
    "vicreg": {
        "projector_hidden": 16,
        "projector_output": 8,
        "invariance_weight": 25.0,
        "variance_weight": 25.0,
        "covariance_weight": 1.0,
    },
    "swav": {
        "projector_hidden": 16,
        "projector_output": 8,
        "temperature": 0.1,
        "prototypes": 6,
        "prototypes_frozen_epochs": 1,
        "prototype_length_trained": True,
        "queue_size": 20,
        "queue_start_epoch": 0,
        "sinkhorn_epsilon": 0.05,
        "sinkhorn_iterations": 3,
    },
    "deepcluster_v2": {
        "projector_hidden": 16,
        "projector_output": 8,
        "temperature": 0.1,
        "prototypes": 5,
        "kmeans_iterations": 4,
    },
    "byol": {
        "projector_hidden": 16,
        "projector_output": 8,
        "predictor_hidden": 12,
        "tau_start": 0.5,
        "tau_end": 1.0,
    },
    "moco_v2_plus": {
        "projector_hidden": 16,
        "projector_output": 8,
        "temperature": 0.2,
        "queue_size": 20,
        "tau_start": 0.5,
        "tau_end": 0.9,
    },
    "simsiam": {"projector_hidden": 16, "projector_output": 8, "predictor_hidden": 4},
    "dino": {
        "projector_hidden": 16,
        "projector_output": 8,
        "prototypes": 6,
        "prototypes_frozen_epochs": 1,
        "student_temperature": 0.1,
        "teacher_temperature_start": 0.04,
        "teacher_temperature": 0.07,
        "teacher_warmup_epochs": 1,
        "centre_momentum": 0.9,
        "gradient_limit": 3.0,
        "tau_start": 0.5,
        "tau_end": 1.0,
    },
}


class Killed(Exception):
    pass


class Cells:
    """Blurred spots in each channel: crops that differ in position, size and brightness."""

    def __init__(self, n=24, side=32, kill_at_read=None, channels=3):
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:side, :side]
        self.channels = channels
        self.crops = np.zeros((n, channels, side, side), np.uint8)
        for crop in self.crops:
            for plane in crop:
                centre = rng.uniform(0.3, 0.7, 2) * side
                radius = rng.uniform(0.05, 0.3, 2) * side
                spot = np.exp(
                    -(((x - centre[0]) / radius[0]) ** 2) - ((y - centre[1]) / radius[1]) ** 2
                )
                plane[:] = rng.uniform(60, 250) * spot
        self.reads: list[np.ndarray] = []
        self.kill_at_read = kill_at_read

    def __len__(self):
        return len(self.crops)

    def read(self, rows):
        if len(self.reads) == self.kill_at_read:
            raise Killed
        self.reads.append(rows)
        return self.crops[rows]


def recipe_of(method, seed=0, **changes):
    settings = replace(TINY, method=method, **changes)
    return Recipe(settings, VIEWS, METHODS[method].Settings(**METHOD_SETTINGS[method]), seed)


def run(folder, method="simclr", source=None, seed=0, changes=None, **options):
    recipe = recipe_of(method, seed, **(changes or {}))
    return pretrain(source or Cells(), recipe, folder, "test", "cpu", **options)


def state_of(folder):
    newest = max(folder.glob("*.pt"))
    return torch.load(newest, weights_only=True)


def flat(value, name=""):
    """Yield (name, tensor or number) of nested states."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from flat(inner, f"{name}.{key}")
    else:
        yield name, value


def assert_same_state(actual, expected):
    parts = {"backbone", "method", "optimizer", "random"}
    assert parts & actual.keys() == parts & expected.keys()
    for part in parts & expected.keys():
        pairs = zip(flat(actual[part]), flat(expected[part]), strict=True)
        for (name, a), (expected_name, b) in pairs:
            assert name == expected_name
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, (part, name)
    keys = ("step", "epoch", "loss", "learning_rate", "feature_std")
    for a, b in zip(actual["curves"], expected["curves"], strict=True):
        assert [a[k] for k in keys] == [b[k] for k in keys]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return the final checkpoint of a method that was never interrupted."""

    @cache
    def final_state(method):
        folder = tmp_path_factory.mktemp(method)
        run(folder, method)
        return state_of(folder)

    return final_state


def test_ssl_learning_rate_warms_up_linearly_and_ends_at_zero_by_cosine():
    rates = [learning_rate_at(step, 50, 10, 0.6) for step in range(50)]
    assert rates[:10] == pytest.approx([0.06 * k for k in range(1, 11)])
    assert rates[10:] == pytest.approx([0.3 * (1 + math.cos(math.pi * k / 40)) for k in range(40)])
    assert rates[30] == pytest.approx(0.3)
    assert learning_rate_at(50, 50, 10, 0.6) == pytest.approx(0)
    assert learning_rate_at(0, 5, 0, 0.6) == 0.6


def test_ssl_learning_rate_is_that_of_torchs_schedulers_at_every_step():
    start, base, final, warmup, total = 0.003, 0.6, 0.0006, 7, 40
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=base)
    linear = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (start + (base - start) * (step + 1) / warmup) / base
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, final)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warmup])
    for step in range(total):
        rate = learning_rate_at(step, total, warmup, base, start, final)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        schedule.step()


def test_ssl_learning_rate_may_be_scaled_with_the_batch_as_in_solo_learn():
    assert replace(TINY, learning_rate=0.3, batch_size=512).peak_rate == 0.3
    scaled = replace(TINY, learning_rate=0.3, batch_size=512, learning_rate_scaled=True)
    assert scaled.peak_rate == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("epochs", "snapshots", "expected"),
    [
        (5, 5, {0, 1, 2, 3, 4, 5}),
        (400, 5, {0, 80, 160, 240, 320, 400}),
        (2, 5, {0, 1, 2}),
        (3, 2, {0, 2, 3}),
        (5, 0, set()),
    ],
)
def test_ssl_snapshots_are_evenly_apart_and_include_both_ends(epochs, snapshots, expected):
    assert replace(TINY, epochs=epochs, snapshots=snapshots).snapshot_epochs == expected


def test_ssl_feature_spread_is_0_for_one_direction_and_1_for_all():
    torch.manual_seed(0)
    assert feature_spread(torch.ones(50, 64) * torch.rand(50, 1)) == pytest.approx(0, abs=1e-6)
    assert feature_spread(torch.randn(5000, 64)) == pytest.approx(1, abs=0.01)


def test_ssl_feature_rank_is_1_for_one_direction_and_the_width_for_all():
    torch.manual_seed(0)
    assert feature_rank(torch.ones(50, 64) * torch.rand(50, 1)) == pytest.approx(1, abs=1e-3)
    assert feature_rank(torch.eye(64)) == pytest.approx(64)
    assert feature_rank(torch.zeros(50, 64)) == pytest.approx(1)
    # Equation 1 of Garrido et al.: singular values 3 and 1.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert feature_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected)


def test_ssl_collapse_is_a_small_spread_or_a_rank_of_one_direction():
    assert is_collapsed(0.001, 30) and is_collapsed(0.3, 1.1)
    assert not is_collapsed(0.1, 3)


def test_ssl_pretraining_returns_a_backbone_and_its_record(tmp_path):
    source = Cells(n=26)
    result = run(tmp_path, source=source)
    assert not result.backbone.training
    assert all(p.device.type == "cpu" and p.is_contiguous() for p in result.backbone.parameters())
    assert result.backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 96)
    assert (result.steps, result.input_spec.size_px) == (6, 32)
    assert [point["step"] for point in result.curves] == list(range(6))
    assert [point["epoch"] for point in result.curves] == [0, 0, 0, 1, 1, 1]
    rates = [point["learning_rate"] for point in result.curves]
    assert rates == [learning_rate_at(step, 6, 3, 0.05) for step in range(6)]
    assert all(point["pairs_per_s"] > 0 for point in result.curves)
    assert 0 < result.stall_share < 1 and result.seconds > 0 and "CPU" in result.device
    assert all(0.1 < point["memory_gb"] < 64 for point in result.curves)
    assert all(1 < point["feature_rank"] <= 8 for point in result.curves)
    assert (result.precision, result.gpu_memory_mb, result.collapsed) == ("float32", None, False)
    assert result.feature_std > LEAST_SPREAD and result.feature_rank > 1


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_ssl_pretraining_learns_from_composites_of_any_number_of_channels(channels, tmp_path):
    changes = {"weight_decay": 0.0}  # which would move weights that learn nothing
    result = run(tmp_path, source=Cells(channels=channels), changes=changes)
    assert result.input_spec == imagenet_input(32, channels)
    torch.manual_seed(0)  # as a run of seed 0 begins
    start = build_backbone(TINY.architecture, channels).state_dict()["conv1.0.weight"]
    end = result.backbone.state_dict()["conv1.0.weight"]
    assert end.shape[1] == channels
    moved = (end - start).abs().amax(dim=(0, 2, 3))
    assert moved.shape == (channels,) and (moved > 0).all(), "every channel teaches"
    assert result.backbone(torch.zeros(2, channels, 32, 32)).shape == (2, 96)


def test_ssl_pretraining_shuffles_all_crops_anew_each_epoch(tmp_path):
    source = Cells(n=26)
    run(tmp_path, source=source)
    epochs = [np.concatenate(source.reads[:3]), np.concatenate(source.reads[3:6])]
    for rows in epochs:
        assert len(set(rows)) == 24 and set(rows) <= set(range(26))
    assert not np.array_equal(*epochs)


def test_ssl_pretraining_repeats_with_its_seed_and_differs_with_another(tmp_path, uninterrupted):
    again = run(tmp_path / "again")
    other = run(tmp_path / "other", seed=1)
    weight = uninterrupted("simclr")["backbone"]["conv1.0.weight"]
    assert torch.equal(again.backbone.state_dict()["conv1.0.weight"], weight)
    assert not torch.equal(other.backbone.state_dict()["conv1.0.weight"], weight)


@pytest.mark.parametrize("method", METHODS)
def test_ssl_pretraining_killed_in_mid_epoch_resumes_bit_for_bit(method, tmp_path, uninterrupted):
    with pytest.raises(Killed):
        run(tmp_path, method, source=Cells(kill_at_read=4))
    assert state_of(tmp_path)["step"] == 4
    torch.manual_seed(99)  # a new process starts with any random state
    source = Cells()
    result = run(tmp_path, method, source=source)
    assert len(source.reads) == 2 + 3  # two batches left, and three to judge the encoder by
    assert_same_state(state_of(tmp_path), uninterrupted(method))
    assert len(result.curves) == 6


def test_ssl_pretraining_killed_between_epochs_resumes_bit_for_bit(tmp_path):
    # At the third epoch's start the second clustering draws its centroids, the first has drawn.
    changes = {"epochs": 3}
    run(tmp_path / "whole", "deepcluster_v2", changes=changes)
    with pytest.raises(Killed):
        run(tmp_path / "cut", "deepcluster_v2", source=Cells(kill_at_read=6), changes=changes)
    assert state_of(tmp_path / "cut")["step"] == 6
    run(tmp_path / "cut", "deepcluster_v2", changes=changes)
    assert_same_state(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))


def test_ssl_pretraining_finished_returns_at_once_the_same(tmp_path):
    first = run(tmp_path)
    source = Cells()
    second = run(tmp_path, source=source)
    assert len(source.reads) == 3  # the encoder is judged again, not trained
    assert second.curves == first.curves
    for a, b in zip(first.backbone.parameters(), second.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_ssl_pretraining_keeps_its_last_two_checkpoints_and_after_the_end_one(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step000000004.pt", "step000000005.pt"]
    whole = (tmp_path / "step000000005.pt").stat().st_size
    run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step000000006.pt"]
    # Without what only further steps would need.
    assert (tmp_path / "step000000006.pt").stat().st_size < 0.8 * whole


@pytest.mark.parametrize("error", [OSError("stale file handle"), MemoryError("full")])
def test_ssl_checkpoint_that_cannot_be_read_for_now_is_kept(error, tmp_path, monkeypatch):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=4))
    before = sorted(path.name for path in tmp_path.iterdir())

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(InputError, match="step000000004.pt cannot be read.*start again"):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_ssl_checkpoint_of_other_crops_or_code_is_not_resumed_and_says_so(tmp_path, capsys):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=4), trained_on={"code": "a", "shards": "x"})
    result = run(tmp_path, trained_on={"code": "b", "shards": "x"})
    assert "is of another run (code differ); training starts again" in capsys.readouterr().err
    assert len(result.curves) == 6


def test_ssl_resume_on_other_hardware_is_said(tmp_path, capsys):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=4))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run(tmp_path)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().err
    assert f"{threads} threads, float32, now on" in said and f"{threads + 1} threads" in said
    assert "WARNING it ran on" in said and "the result will not be the same bit for bit" in said


@pytest.mark.parametrize("damage", ["truncated", "emptied", "text", "a flipped bit"])
def test_ssl_corrupt_checkpoint_falls_back_to_the_one_before(
    damage, tmp_path, capsys, uninterrupted
):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=4))
    newest = tmp_path / "step000000004.pt"
    content = {"truncated": newest.read_bytes()[:50_000], "emptied": b"", "text": b"not a file"}
    flipped = bytearray(newest.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    content["a flipped bit"] = bytes(flipped)
    newest.write_bytes(content[damage])
    run(tmp_path)
    printed = capsys.readouterr().err
    assert "WARNING" in printed and "step000000004.pt cannot be read" in printed
    assert "resumes at step 3 of 6" in printed
    assert_same_state(state_of(tmp_path), uninterrupted("simclr"))


@pytest.mark.parametrize(
    ("differs", "options"),
    [
        ("learning_rate", {"changes": {"learning_rate": 0.01}}),
        ("seed", {"seed": 1}),
        ("crops", {"source": Cells(n=32)}),
        ("channels", {"source": Cells(channels=5)}),
        ("method_settings", {"method": "swav"}),
    ],
)
def test_ssl_checkpoint_of_another_run_is_not_resumed(differs, options, tmp_path, capsys):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=5))
    result = run(tmp_path, **options)
    printed = capsys.readouterr().err
    assert differs in printed and "training starts again" in printed and "resumes" not in printed
    assert len(result.curves) == result.steps


def test_ssl_deadline_saves_and_the_next_start_resumes(tmp_path, uninterrupted):
    changes = {"checkpoint_minutes": 100}
    for step in (1, 2):
        with pytest.raises(OutOfTime, match=f"step {step} of 6.*the next start resumes"):
            run(tmp_path, changes=changes, deadline_s=0)
    run(tmp_path, changes=changes, deadline_s=1000)
    assert_same_state(state_of(tmp_path), uninterrupted("simclr"))


CHILD = """
import os, sys, time, pathlib
from tests.pretraining import test_ssl_pretraining as tests
tests.torch.set_num_threads({threads})  # bits repeat with as many only

class Slow(tests.Cells):
    def read(self, rows):
        if len(self.reads) == 2:
            print("reading", os.getpid(), flush=True)
            time.sleep(1)
        return super().read(rows)

def train(folder):
    tests.run(pathlib.Path(folder), source=Slow(), changes={{"checkpoint_minutes": 100}})

{then}
"""
# A process for each training, forked from one that has imported PyTorch.
FORKS = """
for folder in {folders}:
    child = os.fork()
    if not child:
        train(folder)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.long
def test_ssl_signal_saves_and_the_next_start_resumes(tmp_path, uninterrupted):
    numbers = {str(tmp_path / number.name): number for number in (signal.SIGTERM, signal.SIGUSR1)}
    code = CHILD.format(threads=torch.get_num_threads(), then=FORKS.format(folders=[*numbers]))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        for number in numbers.values():
            said, pid = child.stdout.readline().split()
            assert said == "reading"
            os.kill(int(pid), number)
            assert child.stdout.readline() == f"{128 + number}\n"
    for folder in map(Path, numbers):
        assert 1 <= state_of(folder)["step"] <= 3
        run(folder)
        assert_same_state(state_of(folder), uninterrupted("simclr"))


@pytest.mark.long
def test_ssl_signal_to_the_whole_pipe_saves_before_anything_is_printed(tmp_path, uninterrupted):
    """A scheduler signals tee as well, and then there is no one to print to."""
    # So slow a step that a progress line is due after it.
    then = f"train({str(tmp_path)!r})"
    code = CHILD.format(threads=torch.get_num_threads(), then=then).replace(
        "time.sleep(1)", "time.sleep(4)"
    )
    log = tmp_path / "log"
    command = f"{sys.executable} -c {shlex.quote(code)} 2>&1 | tee {log}"
    child = subprocess.Popen(["bash", "-c", command], cwd=ROOT, start_new_session=True)
    wait_for(lambda: log.exists() and "reading" in log.read_text())
    os.killpg(child.pid, signal.SIGTERM)
    child.wait(timeout=60)
    wait_for(lambda: list(tmp_path.glob("step*.pt")))
    assert 1 <= state_of(tmp_path)["step"] <= 3
    run(tmp_path)
    assert_same_state(state_of(tmp_path), uninterrupted("simclr"))


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# A process for each method, forked from one that has imported PyTorch.
KILLED = """
import os, pathlib
from tests.pretraining import test_ssl_pretraining as tests

class Deadly(tests.Cells):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def read(self, rows):
        if len(self.reads) == self.at:
            os.kill(os.getpid(), 9)
        return super().read(rows)

for method, at in {killed}.items():
    child = os.fork()
    if not child:
        tests.torch.set_num_threads({threads})  # bits repeat with as many only
        tests.run(pathlib.Path({folder!r}, method), method, source=Deadly(at))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9, method
"""
KILLED_AT = {"simclr": 1, "moco_v2_plus": 2, "dino": 3, "deepcluster_v2": 4, "swav": 5}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What trainings leave that are killed when they read a batch, a folder for each method."""
    folder = tmp_path_factory.mktemp("killed")
    code = KILLED.format(killed=KILLED_AT, folder=str(folder), threads=torch.get_num_threads())
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("method", KILLED_AT)
def test_ssl_sigkill_loses_no_more_than_a_step(method, killed, uninterrupted, capsys):
    run(killed / method, method)
    resumed = re.search(r"resumes at step (\d) of 6", capsys.readouterr().err)
    # One batch is read ahead while a step runs.
    assert (int(resumed[1]) if resumed else 0) >= KILLED_AT[method] - 2
    assert_same_state(state_of(killed / method), uninterrupted(method))


@contextmanager
def files_no_larger_than(limit):
    """Refuse to write more into any file, as a full disk does; Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_ssl_full_disk_is_a_warning_and_training_goes_on(tmp_path, capsys, uninterrupted):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_no_larger_than(50_000):
        result = run(tmp_path)
    printed = capsys.readouterr().err
    assert "WARNING the checkpoint of step 5 cannot be written" in printed
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    weight = uninterrupted("simclr")["backbone"]["conv1.0.weight"]
    assert torch.equal(result.backbone.state_dict()["conv1.0.weight"], weight)


def test_ssl_full_disk_at_a_deadline_is_an_error_and_the_checkpoint_before_resumes(
    tmp_path, uninterrupted
):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=3))
    with (
        files_no_larger_than(50_000),
        pytest.raises(InputError, match="step 4 cannot be written.*make room.*start again"),
    ):
        run(tmp_path, deadline_s=0)
    assert state_of(tmp_path)["step"] == 3
    run(tmp_path)
    assert_same_state(state_of(tmp_path), uninterrupted("simclr"))


def test_ssl_epochs_are_handed_over_as_they_end_also_after_a_resume(tmp_path):
    def weights_at(epochs):
        return Callbacks(
            on_epoch=lambda epoch, backbone, spec: epochs.__setitem__(
                epoch, backbone.state_dict()["conv1.0.weight"].clone()
            )
        )

    whole, cut = {}, {}
    run(tmp_path / "whole", changes={"snapshots": 2}, callbacks=weights_at(whole))
    with pytest.raises(Killed):
        run(
            tmp_path / "cut",
            source=Cells(kill_at_read=4),
            changes={"snapshots": 2},
            callbacks=weights_at(cut),
        )
    assert list(cut) == [0, 1]
    result = run(tmp_path / "cut", changes={"snapshots": 2}, callbacks=weights_at(cut))
    assert list(whole) == list(cut) == [0, 1, 2]
    assert all(torch.equal(whole[epoch], cut[epoch]) for epoch in whole)
    assert torch.equal(whole[2], result.backbone.state_dict()["conv1.0.weight"])
    torch.manual_seed(0)
    start = build_backbone(TINY.architecture, 3).state_dict()["conv1.0.weight"]
    assert torch.equal(whole[0], start) and not torch.equal(whole[1], start)


def test_ssl_pretraining_restores_signal_handlers_and_deterministic_mode(tmp_path):
    def mine(number, frame): ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        run(tmp_path)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_ssl_pretraining_runs_outside_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert results[0].steps == 6


def test_ssl_simclr_loss_decreases_on_structured_crops(tmp_path):
    changes = {"epochs": 5, "batch_size": 16, "learning_rate": 0.1}
    result = run(tmp_path, source=Cells(n=48), changes=changes)
    losses = [point["loss"] for point in result.curves]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.2


def test_ssl_constant_features_are_reported_as_collapsed(tmp_path, capsys):
    source = Cells()
    source.crops[:] = 90
    result = run(tmp_path, source=source)
    assert result.collapsed and result.curves[-1]["feature_std"] < LEAST_SPREAD
    printed = capsys.readouterr().err
    assert "test: WARNING collapsed at step 1 of 6" in printed, "said at once"
    assert printed.count("WARNING collapsed") == 2 and "collapsed at the end" in printed


def test_ssl_encoder_that_collapses_in_training_is_noticed_on_the_way(tmp_path, capsys):
    """Too strong a weight decay takes the scale out of every BatchNorm layer."""
    changes = {"epochs": 20, "learning_rate": 0.1, "weight_decay": 1.0, "checkpoint_minutes": 9}
    result = run(tmp_path, changes=changes)
    assert not is_collapsed(*(result.curves[0][key] for key in ("feature_std", "feature_rank")))
    assert result.collapsed
    first = re.search(r"WARNING collapsed at step (\d+) of 60", capsys.readouterr().err)
    assert 1 < int(first[1]) < 60


def test_ssl_too_few_crops_are_refused_with_the_numbers(tmp_path):
    with pytest.raises(InputError, match="5 crops are fewer than one batch of 8"):
        run(tmp_path, source=Cells(n=5))


def test_ssl_weights_that_are_not_finite_after_the_last_step_are_said(tmp_path):
    changes = {"epochs": 1, "batch_size": 24, "learning_rate": 1e38, "warmup_epochs": 0}
    with pytest.raises(Diverged, match="features are not finite numbers; lower learning_rate"):
        run(tmp_path, changes=changes)
    assert is_collapsed(math.nan, math.nan)


def test_ssl_nonfinite_loss_names_step_and_learning_rate(tmp_path):
    with pytest.raises(
        InputError, match=r"loss is (nan|inf) by step \d of 6, learning rate \d.*e\+"
    ):
        run(tmp_path, changes={"learning_rate": 1e30, "warmup_epochs": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "simclrr"}, "method is 'simclrr', expected simclr"),
        ({"optimizer": "adam"}, "optimizer is 'adam', expected sgd, lars"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"warmup_epochs": 3}, "3 warm-up epochs of 2"),
        ({"batch_size": 1}, "batch_size is 1"),
    ],
)
def test_ssl_unusable_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(TINY, **change)


def test_ssl_lars_equals_sololearns_over_20_steps():
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 2))
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 2))
    theirs.load_state_dict(ours.state_dict())
    our_steps = build_optimizer("lars", list(ours.parameters()), momentum=0.9, weight_decay=1e-4)
    for group in our_steps.param_groups:
        group["lr"] = 0.3
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
    LARSWrapper = import_module("solo.utils.lars").LARSWrapper
    their_steps = LARSWrapper(sgd, eta=0.02, clip=True, exclude_bias_n_norm=True)
    for _ in range(20):
        x = torch.randn(8, 6)
        for network, optimizer in ((ours, our_steps), (theirs, their_steps)):
            network.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_ssl_lars_and_bfloat16_train(tmp_path):
    changes = {"optimizer": "lars", "precision": "bfloat16", "epochs": 1, "learning_rate": 0.3}
    result = run(tmp_path, changes=changes)
    assert all(math.isfinite(point["loss"]) for point in result.curves)
    assert next(result.backbone.parameters()).dtype == torch.float32
