import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hcsqc.errors import InputError
from hcsqc.methods import METHODS
from hcsqc.models import build_backbone, imagenet_input
from hcsqc.pretraining import (
    COLLAPSED_BELOW,
    OutOfTime,
    PretrainingSettings,
    _optimizer,
    feature_spread,
    learning_rate_at,
    pretrain,
)
from hcsqc.views import ViewSettings
from pretrain import TrainingCrops, checkpoint_name

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
    momentum=0.9,
    weight_decay=1e-4,
    precision="float32",
    checkpoint_every_steps=2,
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


def settings_of(method):
    return replace(TINY, method=method), METHODS[method].Settings(**METHOD_SETTINGS[method])


def run(folder, method="simclr", source=None, seed=0, changes=None, **options):
    training, of_method = settings_of(method)
    training = replace(training, **(changes or {}))
    source = source or Cells()
    return pretrain(source, training, VIEWS, of_method, seed, folder, "test", "cpu", **options)


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
    for part in ("backbone", "method", "optimizer", "random"):
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


def test_ssl_feature_spread_is_0_for_one_direction_and_1_for_all():
    torch.manual_seed(0)
    assert feature_spread(torch.ones(50, 64) * torch.rand(50, 1)) == pytest.approx(0, abs=1e-6)
    assert feature_spread(torch.randn(5000, 64)) == pytest.approx(1, abs=0.01)


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
    assert not result.collapsed


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


def test_ssl_checkpoints_of_another_composite_have_another_name():
    def name(*chosen):
        crops = TrainingCrops(SimpleNamespace(paths=[]), np.arange(2), list(chosen))
        return checkpoint_name(crops, pd.Series(["a", "b"]))

    assert name("w4", "w5", "w1") == name("w4", "w5", "w1")
    assert len({name("w4", "w5", "w1"), name("w1", "w5", "w4"), name("w4", "w5")}) == 3


def test_ssl_pretraining_shuffles_all_crops_anew_each_epoch(tmp_path):
    source = Cells(n=26)
    run(tmp_path, source=source)
    epochs = [np.concatenate(source.reads[:3]), np.concatenate(source.reads[3:])]
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
        run(tmp_path, method, source=Cells(kill_at_read=5))
    assert state_of(tmp_path)["step"] == 4
    torch.manual_seed(99)  # a new process starts with any random state
    source = Cells()
    result = run(tmp_path, method, source=source)
    assert len(source.reads) == 2
    assert_same_state(state_of(tmp_path), uninterrupted(method))
    assert len(result.curves) == 6


def test_ssl_pretraining_killed_between_epochs_resumes_bit_for_bit(tmp_path):
    # At the third epoch's start the second clustering draws its centroids, the first has drawn.
    changes = {"epochs": 3, "checkpoint_every_steps": 3}
    run(tmp_path / "whole", "deepcluster_v2", changes=changes)
    with pytest.raises(Killed):
        run(tmp_path / "cut", "deepcluster_v2", source=Cells(kill_at_read=8), changes=changes)
    assert state_of(tmp_path / "cut")["step"] == 6
    run(tmp_path / "cut", "deepcluster_v2", changes=changes)
    assert_same_state(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))


def test_ssl_pretraining_finished_returns_at_once_the_same(tmp_path):
    first = run(tmp_path)
    source = Cells()
    second = run(tmp_path, source=source)
    assert source.reads == []
    assert second.curves == first.curves
    for a, b in zip(first.backbone.parameters(), second.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_ssl_pretraining_keeps_its_last_two_checkpoints(tmp_path):
    run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step000000004.pt", "step000000006.pt"]


@pytest.mark.parametrize("damage", ["truncated", "emptied", "text"])
def test_ssl_corrupt_checkpoint_falls_back_to_the_one_before(
    damage, tmp_path, capsys, uninterrupted
):
    with pytest.raises(Killed):
        run(tmp_path, source=Cells(kill_at_read=5))
    newest = tmp_path / "step000000004.pt"
    content = {"truncated": newest.read_bytes()[:50_000], "emptied": b"", "text": b"not a file"}
    newest.write_bytes(content[damage])
    run(tmp_path)
    printed = capsys.readouterr().err
    assert "WARNING" in printed and "step000000004.pt cannot be read" in printed
    assert "resumes at step 2 of 6" in printed
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
    assert differs in printed and "starts afresh" in printed and "resumes" not in printed
    assert len(result.curves) == result.steps


def test_ssl_deadline_saves_and_the_next_start_resumes(tmp_path, uninterrupted):
    changes = {"checkpoint_every_steps": 100}
    for step in (1, 2):
        with pytest.raises(OutOfTime, match=f"step {step} of 6.*the next start resumes"):
            run(tmp_path, changes=changes, deadline_s=0)
    run(tmp_path, changes=changes, deadline_s=1000)
    assert_same_state(state_of(tmp_path), uninterrupted("simclr"))


CHILD = """
import sys, time, pathlib
sys.path[:0] = {path!r}
import test_ssl_pretraining as tests

class Slow(tests.Cells):
    def read(self, rows):
        if len(self.reads) == 2:
            print("reading", flush=True)
            time.sleep(1)
        return super().read(rows)

tests.run(pathlib.Path({folder!r}), source=Slow(), changes={{"checkpoint_every_steps": 100}})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_ssl_signal_saves_and_the_next_start_resumes(number, tmp_path, uninterrupted):
    path = [*sys.path, str(Path(__file__).parent)]
    code = CHILD.format(path=path, folder=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "reading\n"
    child.send_signal(number)
    assert child.wait(timeout=60) == 128 + number
    child.stdout.close()
    assert 1 <= state_of(tmp_path)["step"] <= 3
    run(tmp_path)
    assert_same_state(state_of(tmp_path), uninterrupted("simclr"))


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
    assert result.collapsed and result.curves[-1]["feature_std"] < COLLAPSED_BELOW
    assert "WARNING test: collapsed" in capsys.readouterr().err


def test_ssl_too_few_crops_are_refused_with_the_numbers(tmp_path):
    with pytest.raises(InputError, match="5 crops are fewer than one batch of 8"):
        run(tmp_path, source=Cells(n=5))


def test_ssl_nonfinite_loss_names_step_and_learning_rate(tmp_path):
    with pytest.raises(
        InputError, match=r"loss is (nan|inf) at step \d of 6, learning rate \d.*e\+"
    ):
        run(tmp_path, changes={"learning_rate": 1e30, "warmup_epochs": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "simclrr"}, "method is 'simclrr', expected simclr"),
        ({"optimizer": "adam"}, "optimizer is 'adam', expected sgd, lars"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"warmup_epochs": 3}, "3 warm-up epochs of 2"),
        ({"batch_size": 1}, "batch_size 1"),
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
    settings = replace(TINY, optimizer="lars", learning_rate=0.3)
    our_steps = _optimizer(settings, list(ours.parameters()))
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
