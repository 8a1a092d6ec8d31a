"""Probes: the same scores as scikit-learn and PyTorch, draw by draw, and nothing from chance."""

import argparse
import copy
import dataclasses
import inspect
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from hcsqc.core.config import FINETUNING
from hcsqc.core.config_model import PROBE_KINDS
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.schema import features_schema, write_table
from hcsqc.crops.shards import ShardFormat, ShardWriter
from hcsqc.encoders.store import Encoder, random_encoder, save_encoder
from hcsqc.features.tables import features_table
from hcsqc.labels.groups import read_labels
from hcsqc.probes import finetune as finetune_module
from hcsqc.probes import frozen
from hcsqc.probes.finetune import FinetuneSettings, finetune, finetuned_scores
from hcsqc.probes.frozen import knn as knn_module
from hcsqc.probes.frozen.knn import KnnDraw, KnnSettings, knn_scores_by_draw
from hcsqc.probes.frozen.linear import _initial_layers, linear_logits, linear_scores
from hcsqc.probes.sgd import SgdSettings
from hcsqc.probes.task import read_features, select, tasks
from scripts.probes import finetune as finetune_script

unhurried = hypothesis_settings(deadline=None)  # a busy machine is no failure
LINEAR = SgdSettings(12, 8, 0.05, 0.9, 0.01, (4, 9), 0.1)
TUNING = FinetuneSettings(3, 8, 0.01, 0.9, 0.01, (2,), 0.1, "train", 0)


def two_classes(n: int, width: int, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n x width features and targets; the classes' means lie `apart` standard deviations."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    features = rng.standard_normal((n, width)).astype(np.float32)
    features[:, 0] += apart * targets
    return features, targets


def rngs(*draws: int) -> list[np.random.Generator]:
    return [np.random.default_rng([0, draw]) for draw in draws]


# k nearest neighbours.


METRICS = pytest.mark.parametrize("metric", knn_module.METRICS)


def knn_scores(train, targets, test, settings: KnnSettings) -> np.ndarray:
    """Return the scores of a single draw, whose crops have their features apart."""
    rows = np.arange(len(train) + len(test))
    draw = KnnDraw(rows[: len(train)], targets, rows[len(train) :])
    return knn_scores_by_draw(np.concatenate([train, test]), [draw], settings)[0]


def scikit_learns(train, targets, test, k: int, metric: str) -> np.ndarray:
    """Return scikit-learn's share of abnormal, from distances in float64."""
    oracle = KNeighborsClassifier(min(k, len(train)), metric=metric, algorithm="brute")
    probabilities = oracle.fit(train.astype(float), targets).predict_proba(test.astype(float))
    return probabilities[:, -1] if 1 in oracle.classes_ else np.zeros(len(test))


@unhurried
@given(
    n=st.integers(1, 60),
    width=st.integers(1, 40),
    k=st.integers(1, 9),
    metric=st.sampled_from(knn_module.METRICS),
    kind=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 10**6),
)
def test_knn_scores_are_scikit_learns(n, width, k, metric, kind, seed):
    # By cosine, numbers have but one of two directions, and all is tied.
    width += metric == "cosine"
    rng = np.random.default_rng(seed)
    train, test = (rng.normal(3, 2, (rows, width)).astype(kind) for rows in (n, 20))
    targets = rng.integers(0, 2, n)
    found = knn_scores(train, targets, test, KnnSettings(k, metric))
    np.testing.assert_allclose(found, scikit_learns(train, targets, test, k, metric))


@METRICS
def test_knn_of_features_as_wide_as_an_encoders_is_scikit_learns(metric):
    rng = np.random.default_rng(0)
    # As after a last ReLU: no number below 0, and a common direction.
    train, test = (rng.normal(0.5, 1, (n, 1280)).clip(0).astype(np.float32) for n in (350, 400))
    targets = rng.integers(0, 2, 350)
    found = knn_scores(train, targets, test, KnnSettings(5, metric))
    np.testing.assert_array_equal(found, scikit_learns(train, targets, test, 5, metric))


@METRICS
def test_knn_of_float32_features_with_a_large_offset_is_not_lost_to_rounding(metric):
    rng = np.random.default_rng(0)
    train = (1000 + rng.standard_normal((50, 64))).astype(np.float32)
    test = (1000 + rng.standard_normal((30, 64))).astype(np.float32)
    targets = rng.integers(0, 2, 50)
    found = knn_scores(train, targets, test, KnnSettings(5, metric))
    np.testing.assert_allclose(found, scikit_learns(train, targets, test, 5, metric))


@METRICS
def test_knn_tells_distances_apart_that_float32_does_not(metric, monkeypatch):
    rng = np.random.default_rng(0)
    test = rng.standard_normal((20, 64)).astype(np.float32)
    aside = rng.standard_normal((20, 64))
    aside -= test * (aside * test).sum(axis=1, keepdims=True) / (test**2).sum(axis=1, keepdims=True)
    # Pairs on either side of each test crop, as far by either distance but for a ten-millionth.
    train = np.concatenate([test + 0.3 * aside, test - 0.3 * (1 + 1e-7) * aside])
    targets = np.repeat([0, 1], 20)
    settings = KnnSettings(1, metric)
    expected = scikit_learns(train, targets, test, 1, metric)
    np.testing.assert_array_equal(knn_scores(train, targets, test, settings), expected)
    distances = knn_module._squared_distances

    def trusted(*args):
        distance, error = distances(*args)
        return distance.astype(np.float32), 0 * error

    monkeypatch.setattr(knn_module, "_squared_distances", trusted)
    assert (knn_scores(train, targets, test, settings) != expected).any()


@METRICS
@pytest.mark.parametrize("width", [3, 512, 1280])
def test_the_error_of_float32_distances_is_within_the_bound(metric, width):
    rng = np.random.default_rng(width)
    train, test = (rng.gamma(1, 2, (n, width)).astype(np.float32) for n in (80, 60))
    found, bound = knn_module._squared_distances(train, test, metric)
    train, test = train.astype(float), test.astype(float)
    if metric == "cosine":
        train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    exact = ((test[:, None] - train) ** 2).sum(axis=2)
    # Each row lacks a number of its own, so only differences within it can be compared.
    error = (found - found[:, :1]) - (exact - exact[:, :1])
    assert (np.abs(error) <= 2 * bound[:, None]).all()
    assert np.abs(error).max() > 2 * bound.max() / 1000, "a bound this loose would doubt every row"


@METRICS
def test_of_training_crops_equally_far_the_first_is_nearer(metric):
    train = np.tile([[1.0, 2.0, 0.5]], (6, 1))
    test = np.array([[1.0, 1.0, 1.0]])
    for targets in ([1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]):
        (found,) = knn_scores(train, np.array(targets), test, KnnSettings(2, metric))
        assert found == np.mean(targets[:2])


def test_cosine_asks_for_direction_and_euclidean_for_place():
    train, targets = np.array([[10.0, 0.0], [1.0, 1.0]]), np.array([1, 0])
    test = np.array([[1.0, 0.1]])
    assert knn_scores(train, targets, test, KnnSettings(1, "cosine")) == [1]
    assert knn_scores(train, targets, test, KnnSettings(1, "euclidean")) == [0]


def test_features_that_are_all_zero_are_at_cosine_distance_one():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((12, 4)), rng.standard_normal((9, 4))
    targets = rng.integers(0, 2, 12)
    train[3], test[2] = 0, 0
    # Of an odd number of neighbours of a crop of zeros, all 12 are tied.
    rows = np.arange(9) != 2
    found = knn_scores(train, targets, test, KnnSettings(7, "cosine"))
    expected = scikit_learns(train, targets, test, 7, "cosine")
    np.testing.assert_allclose(found[rows], expected[rows])
    assert found[2] == pytest.approx(targets[:7].mean())


@METRICS
def test_draws_that_share_distances_score_as_draws_alone(metric):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((70, 16)).astype(np.float32)
    labels = rng.integers(0, 2, 70)
    draws = []
    for count in (20, 35, 40):
        rows = rng.permutation(60)
        test = np.concatenate([rows[count:], np.arange(60, 70)])
        draws.append(KnnDraw(rows[:count], labels[rows[:count]], test))
    settings = KnnSettings(5, metric)
    for draw, found in zip(draws, knn_scores_by_draw(features, draws, settings), strict=True):
        alone = knn_scores(features[draw.train], draw.targets, features[draw.test], settings)
        np.testing.assert_array_equal(found, alone)


def test_knn_with_fewer_crops_than_neighbours_asks_them_all():
    train, targets = np.array([[0.0], [1.0], [9.0]]), np.array([0, 0, 1])
    found = knn_scores(train, targets, np.array([[0.0], [9.0]]), KnnSettings(5, "euclidean"))
    np.testing.assert_allclose(found, 1 / 3)


@METRICS
def test_knn_with_one_neighbour_gives_each_training_crop_its_label(metric):
    train, targets = two_classes(40, 6, 0.5, seed=1)
    np.testing.assert_array_equal(
        knn_scores(train, targets, train, KnnSettings(1, metric)), targets
    )


def test_settings_of_knn_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="metric 'manhattan' is unknown; use one of euclidean, co"):
        KnnSettings(5, "manhattan")
    with pytest.raises(InputError, match="0 neighbours; use 1 or more"):
        KnnSettings(0, "cosine")


# The linear layer.


def torch_scores(train, targets, test, settings: SgdSettings, rng) -> np.ndarray:
    """Train the same layer by PyTorch, from the same weights and batches."""
    weight, bias = _initial_layers(train.shape[1], [rng])
    layer = nn.Linear(train.shape[1], 2)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight[0].T))
        layer.bias.copy_(torch.from_numpy(bias[0, 0]))
    optimizer = torch.optim.SGD(
        layer.parameters(),
        settings.learning_rate,
        settings.momentum,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(settings.milestones), settings.gamma
    )
    x, y = torch.from_numpy(train), torch.from_numpy(targets)
    for _ in range(settings.epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), settings.batch_size):
            rows = torch.from_numpy(order[start : start + settings.batch_size])
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        return layer(torch.from_numpy(test)).softmax(dim=1)[:, 1].numpy()


@pytest.mark.parametrize("n", [10, 25, 64], ids=lambda n: f"{n} labels")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_linear_scores_are_pytorchs(n, momentum, decay):
    settings = replace(LINEAR, momentum=momentum, weight_decay=decay)
    train, targets = two_classes(n, 20, 1.0, seed=n)
    test, _ = two_classes(30, 20, 1.0, seed=99)
    (found,) = linear_scores([train], [targets], [test], settings, rngs(3))
    expected = torch_scores(train, targets, test, settings, rngs(3)[0])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.std() > 0.05, "scores that hardly differ would agree with anything"


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(("n", "width"), [(100, 64), (100, 512)], ids=["tall", "wide"])
def test_the_papers_linear_probe_is_pytorchs(n, width, decay):
    paper = SgdSettings(150, 32, 0.001, 0.9, decay, (40, 70, 120), 0.1)
    train, targets = two_classes(n, width, 2.0, seed=4)
    test, _ = two_classes(30, width, 2.0, seed=5)
    # A common offset, as features after a ReLU have.
    (found,) = linear_scores([1 + train], [targets], [1 + test], paper, rngs(0))
    expected = torch_scores(1 + train, targets, 1 + test, paper, rngs(0)[0])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_milestones_are_pytorchs():
    """One at the start, one twice and one past the end."""
    settings = replace(LINEAR, milestones=(0, 5, 5, 40), gamma=0.5)
    train, targets = two_classes(20, 6, 1.0, seed=0)
    (found,) = linear_scores([train], [targets], [train], settings, rngs(0))
    expected = torch_scores(train, targets, train, settings, rngs(0)[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_settings_side_by_side_are_settings_alone():
    train, targets = two_classes(25, 12, 1.0, seed=0)
    test, _ = two_classes(9, 12, 1.0, seed=1)
    settings = [
        LINEAR,
        replace(LINEAR, learning_rate=0.2),
        replace(LINEAR, weight_decay=0.5),
        replace(LINEAR, momentum=0.0),
        # Shorter than the others: nothing may change it after its last epoch.
        replace(LINEAR, epochs=5, milestones=(2,)),
    ]
    (together,) = linear_logits([train], [targets], [test], settings, rngs(0))
    assert together.shape == (9, 5)
    for column, one in enumerate(settings):
        (alone,) = linear_scores([train], [targets], [test], one, rngs(0))
        np.testing.assert_allclose(1 / (1 + np.exp(-together[:, column])), alone, atol=1e-6)
    assert len({tuple(column.round(3)) for column in together.T}) == 5


def test_strong_weight_decay_leaves_little_of_the_layer():
    train, targets = two_classes(40, 6, 3.0, seed=0)
    weak, strong = (
        linear_logits([train], [targets], [train], [replace(LINEAR, weight_decay=decay)], rngs(0))
        for decay in (0.0, 5.0)
    )
    assert np.abs(strong[0]).max() < 0.2 * np.abs(weak[0]).max()


def test_the_layer_starts_as_pytorchs_does():
    weight, bias = _initial_layers(400, rngs(*range(20)))
    assert (weight.shape, bias.shape) == ((20, 400, 2), (20, 1, 2))
    reference = nn.Linear(400, 2).weight.detach().numpy()
    bound = 1 / np.sqrt(400)
    assert np.abs(reference).max() <= bound and np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert bias.std() == pytest.approx(bound / np.sqrt(3), rel=0.3)


def test_draws_side_by_side_are_draws_alone():
    train, targets = zip(*(two_classes(25, 12, 1.0, seed) for seed in range(4)), strict=True)
    # Draws may test on different numbers of crops.
    test = [two_classes(10 + seed, 12, 1.0, 50 + seed)[0] for seed in range(4)]
    together = linear_scores(train, targets, test, LINEAR, rngs(0, 1, 2, 3))
    for draw in range(4):
        alone = linear_scores([train[draw]], [targets[draw]], [test[draw]], LINEAR, rngs(draw))
        np.testing.assert_allclose(together[draw], alone[0], atol=1e-6)
    assert [len(scores) for scores in together] == [10, 11, 12, 13]


def test_the_linear_probe_repeats_and_follows_its_randomness():
    train, targets = two_classes(25, 12, 1.0, seed=0)
    first, again, other = (
        linear_scores([train], [targets], [train], LINEAR, rngs(draw))[0] for draw in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_classes_far_apart_are_told_apart_and_shuffled_labels_are_not(probe):
    def scores(train, targets, test):
        if probe == "knn":
            return knn_scores(train, targets, test, KnnSettings(5, "euclidean"))
        return linear_scores([train], [targets], [test], LINEAR, rngs(0))[0]

    train, targets = two_classes(60, 10, 6.0, seed=1)
    test, wanted = two_classes(200, 10, 6.0, seed=2)
    assert roc_auc_score(wanted, scores(train, targets, test)) > 0.99
    rng = np.random.default_rng(3)
    shuffled = [
        roc_auc_score(wanted, scores(train, rng.permutation(targets), test)) for _ in range(40)
    ]
    # One shuffle leaves the classes' means a little apart, so a single figure says nothing.
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.15)


def test_large_features_do_not_overflow():
    train, targets = two_classes(20, 4, 2.0, seed=0)
    (found,) = linear_scores([1e4 * train], [targets], [1e4 * train], LINEAR, rngs(0))
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()


# Fine-tuning.


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return random_encoder("test_resnet", 32, 3, seed=0)


def bright_or_dark(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n x 3 x 32 x 32 crops, dark or (target 1) bright, with noise."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    level = 60 + 120 * targets[:, None, None, None]
    return (level + rng.integers(-50, 50, (n, 3, 32, 32))).astype(np.uint8), targets


def tuned(
    encoder: Encoder, crops, targets, settings=TUNING, seed=(0, 0), batches=None
) -> nn.Module:
    seen = [] if batches is None else batches
    return finetune(encoder, crops, targets, settings, seed, lambda n, loss: seen.append((n, loss)))


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone().cpu() for name, value in network.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_finetuning_learns_bright_from_dark(encoder):
    crops, targets = bright_or_dark(24, seed=0)
    test, wanted = bright_or_dark(40, seed=1)
    network = tuned(encoder, crops, targets, replace(TUNING, epochs=6, milestones=(5,)))
    scores = finetuned_scores(network, encoder, test, batch_size=16)
    assert not network.training
    assert scores.shape == (40,) and ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc_score(wanted, scores) > 0.99


def test_finetuning_with_shuffled_labels_is_at_chance(encoder):
    crops, targets = bright_or_dark(24, seed=0)
    rng = np.random.default_rng(5)
    # As many bright as dark crops of either label: there is nothing to learn from brightness.
    for bright in (0, 1):
        targets[bright::2] = rng.permutation(np.arange(12) % 2)
    test, wanted = bright_or_dark(60, seed=1)
    network = tuned(encoder, crops, targets)
    scores = finetuned_scores(network, encoder, test, batch_size=60)
    assert np.abs(scores[wanted == 1].mean() - scores[wanted == 0].mean()) < 0.3


def test_finetuning_trains_the_encoder_too_but_leaves_the_one_given(encoder):
    crops, targets = bright_or_dark(16, seed=0)
    before = weights(encoder.backbone)
    network = tuned(encoder, crops, targets)
    assert same(weights(encoder.backbone), before)
    moved = weights(network[0])
    trained = [name for name, _ in encoder.backbone.named_parameters()]
    assert all(not torch.equal(moved[name], before[name]) for name in trained)


@pytest.mark.skipif(torch.cuda.is_available(), reason="bit for bit on a CPU only")
def test_finetuning_repeats_bit_for_bit_on_a_cpu(encoder):
    crops, targets = bright_or_dark(20, seed=0)
    first = weights(tuned(encoder, crops, targets, seed=(0, 1)))
    torch.rand(3)  # whatever ran before
    assert same(weights(tuned(encoder, crops, targets, seed=(0, 1))), first)
    assert not same(weights(tuned(encoder, crops, targets, seed=(0, 2))), first)
    assert not same(weights(tuned(encoder, crops, targets, seed=(1, 1))), first)


@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU results bit for bit")
def test_finetuning_is_plain_sgd_with_a_step_schedule(encoder):
    """The same network trained by a loop written out here, from the same start and batches."""
    crops, targets = bright_or_dark(20, seed=0)
    found = weights(tuned(encoder, crops, targets))
    rng = np.random.default_rng((0, 0))
    torch.manual_seed(int(rng.integers(2**31)))
    network = nn.Sequential(copy.deepcopy(encoder.backbone), nn.Linear(96, 2))
    network.to(memory_format=torch.channels_last).train()
    images = finetune_module.normalise(crops, encoder.input_spec)
    images = images.to(memory_format=torch.channels_last)
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    for epoch in range(TUNING.epochs):
        rate = TUNING.learning_rate * (TUNING.gamma if epoch >= TUNING.milestones[0] else 1)
        order = rng.permutation(20)
        for rows in (order[:8], order[8:16], order[16:]):
            wanted = torch.from_numpy(targets[rows])
            loss = nn.functional.cross_entropy(network(images[rows]), wanted)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for p, v, g in zip(network.parameters(), velocity, gradients, strict=True):
                    v.mul_(TUNING.momentum).add_(g + TUNING.weight_decay * p)
                    p.sub_(rate * v)
    for name, value in weights(network).items():
        torch.testing.assert_close(value, found[name], rtol=5e-3, atol=3e-4)


@pytest.mark.parametrize(
    ("n", "sizes"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (9, [9]), (5, [5])]
)
def test_a_single_crop_left_over_joins_the_batch_before(encoder, n, sizes):
    crops, targets = bright_or_dark(n, seed=0)
    batches = []
    tuned(encoder, crops, targets, replace(TUNING, epochs=2), batches=batches)
    assert [count for count, _ in batches] == 2 * sizes


@unhurried
@given(st.integers(1, 200), st.integers(1, 40))
def test_batches_hold_every_crop_once(n, size):
    order = np.random.default_rng(n).permutation(n)
    batches = list(finetune_module._batches(order, replace(TUNING, batch_size=size)))
    np.testing.assert_array_equal(torch.cat(batches).numpy(), order)
    assert max(map(len, batches)) <= size + 1


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the running statistics of the BatchNorm layers, with their counts of batches."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value for name, value in weights(network).items() if name.endswith(names)}


def test_frozen_batchnorm_keeps_its_statistics_bit_for_bit_while_scale_and_offset_train(encoder):
    crops, targets = bright_or_dark(16, seed=0)
    before = weights(encoder.backbone)
    network = tuned(encoder, crops, targets, replace(TUNING, batchnorm="frozen"))[0]
    assert statistics(network) and same(statistics(network), before)
    moved = weights(network)
    assert all(not torch.equal(moved[name], before[name]) for name, _ in network.named_parameters())


def test_trained_batchnorm_renews_its_statistics_once_per_batch(encoder):
    crops, targets = bright_or_dark(16, seed=0)
    before = statistics(encoder.backbone)
    found = statistics(tuned(encoder, crops, targets)[0])
    for name, value in found.items():
        if name.endswith("num_batches_tracked"):
            assert value == before[name] + 3 * 2  # epochs x batches
        else:
            assert not torch.equal(value, before[name])


def test_a_frozen_layer_normalises_a_crop_alike_in_whatever_batch(encoder):
    """A step of no rate leaves the network: its loss on a batch is the mean over its crops."""
    crops, targets = bright_or_dark(8, seed=0)
    still = replace(TUNING, epochs=1, batchnorm="frozen", learning_rate=0.0, weight_decay=0.0)
    losses = {}
    for size in (2, 8):
        batches: list[tuple[int, float]] = []
        tuned(encoder, crops, targets, replace(still, batch_size=size), batches=batches)
        losses[size] = np.average([loss for _, loss in batches], weights=[n for n, _ in batches])
    assert losses[2] == pytest.approx(losses[8], rel=1e-4)


@pytest.mark.parametrize(
    ("n", "least", "steps", "epochs", "milestones"),
    [
        (16, 0, 6, 3, (2,)),  # two batches an epoch
        (16, 6, 6, 3, (2,)),
        (16, 7, 8, 4, (3,)),  # 8/3 of an epoch, rounded
        (16, 24, 24, 12, (8,)),
        (17, 24, 24, 12, (8,)),  # a single crop left over is no batch of its own
        (5, 9, 9, 9, (6,)),  # the demo's case: all labels are one batch
    ],
)
def test_few_labels_get_more_epochs_until_there_are_the_least_steps(
    encoder, n, least, steps, epochs, milestones
):
    crops, targets = bright_or_dark(n, seed=0)
    batches: list[tuple[int, float]] = []
    settings = replace(TUNING, least_steps=least)
    tuned(encoder, crops, targets, settings, batches=batches)
    assert len(batches) == steps
    assert settings.lasting(n) == replace(settings, epochs=epochs, milestones=milestones)


@pytest.mark.skipif(torch.cuda.is_available(), reason="bit for bit on a CPU only")
def test_least_steps_are_the_epochs_and_milestones_that_make_them(encoder):
    crops, targets = bright_or_dark(12, seed=0)
    longer = tuned(encoder, crops, targets, replace(TUNING, least_steps=11))
    as_said = tuned(encoder, crops, targets, replace(TUNING, epochs=6, milestones=(4,)))
    assert same(weights(longer), weights(as_said))


def test_another_word_for_batchnorm_is_refused():
    with pytest.raises(InputError, match="batchnorm 'eval' is neither train nor frozen"):
        replace(TUNING, batchnorm="eval")


def test_a_loss_that_explodes_says_what_to_lower(encoder):
    crops, targets = bright_or_dark(16, seed=0)
    with pytest.raises(InputError, match=r"the loss became (nan|inf) in epoch \d+; lower learning"):
        tuned(encoder, crops, targets, replace(TUNING, learning_rate=1e30, epochs=5))


def test_scoring_in_batches_is_scoring_at_once(encoder):
    crops, targets = bright_or_dark(16, seed=0)
    network = tuned(encoder, crops, targets)
    test, _ = bright_or_dark(11, seed=2)
    whole = finetuned_scores(network, encoder, test, 11)
    np.testing.assert_allclose(finetuned_scores(network, encoder, test, 4), whole, atol=1e-5)


def test_finetuning_refuses_a_composite_that_is_not_the_encoders(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    save_encoder(random_encoder("test_resnet", 32, 2, seed=0), tmp_path / "encoder.safetensors")
    shard = tmp_path / "here" / "p.parquet"
    with atomic(shard) as temporary:
        ShardWriter(temporary, ShardFormat(("w1", "w2", "w3"), 8, "uint8", {})).close()
    args = argparse.Namespace(
        encoder=tmp_path / "encoder.safetensors",
        crops=[shard],
        composites=["here:w3,w2,w1"],
        channel_roles=[],
        threads=torch.get_num_threads(),
        choice=None,
        **asdict(TUNING),
    )
    with pytest.raises(InputError) as caught:
        finetune_script.probe(args, argparse.Namespace(parameters={}))
    assert str(caught.value).startswith(
        "finetune here: the encoder (test_resnet) is for composites of 2 channels, but this one "
        "has 3 (w3, w2, w1); "
    )


# What a probe trains and tests on.


def split_files(folder: Path) -> tuple[Path, Path]:
    """Write 2 draws of 4 test and 6 training crops, and 3 labelled crops of another screen."""
    rows = []
    for draw in range(2):
        for i in range(10):
            part = "test" if (i + draw) % 10 < 4 else "train"
            label = ("normal", "abnormal")[i % 2]
            rank = i if part == "train" else None
            rows.append((draw, f"here/p/B0{i}/s1/x{i}", label, part, rank))
    splits = pd.DataFrame(rows, columns=["draw", "crop_id", "label", "part", "rank"])
    splits["group"] = splits["crop_id"].str.split("/").str[1:3].str.join("/")
    splits = splits.astype({"draw": "int32", "rank": "Int32"})
    write_table(splits, folder / "splits.parquet", "splits")
    shift = pd.DataFrame(
        {
            "crop_id": [f"there/p/B02/s1/x{i}" for i in range(3)],
            "plate": "p",
            "well": "B02",
            "label": ["normal", "abnormal", "abnormal"],
            "artefact": [None, "blur", "dead"],
            "strength": [None, 0.5, 0.5],
            "compound": ["Taxol", "taxol ", ""],
            "annotator": "me",
            "source": "truth",
            "selection": "random",
        }
    )
    write_table(shift, folder / "there.parquet", "labels")
    return folder / "splits.parquet", folder / "there.parquet"


def test_a_task_trains_on_the_first_labels_and_tests_on_the_draw_and_the_other_screens(tmp_path):
    splits, shift = split_files(tmp_path)
    found = list(tasks(splits, [read_labels(shift, "compound")], draws=2, budget=4))
    assert [task.draw for task in found] == [0, 1]
    first = found[0]
    assert [crop[-2:] for crop in first.train_crops] == ["x4", "x5", "x6", "x7"]
    assert first.train_targets.tolist() == [0, 1, 0, 1]
    assert first.test["screen"].tolist() == ["here"] * 4 + ["there"] * 3
    assert (
        first.test["label"].tolist() == ["normal", "abnormal"] * 2 + ["normal"] + ["abnormal"] * 2
    )
    assert not set(first.train_crops) & set(first.test["crop_id"])
    assert first.train_groups.tolist() == ["p/B04", "p/B05", "p/B06", "p/B07"]
    assert first.test["group"].tolist()[3:] == ["p/B03", "taxol", "taxol", "p/B02"]
    assert set(found[1].test["crop_id"]) != set(first.test["crop_id"])


def test_predictions_carry_draw_screen_and_label(tmp_path):
    splits, shift = split_files(tmp_path)
    task = list(tasks(splits, [read_labels(shift, "well")], draws=2, budget=4))[1]
    rows = task.predictions(np.linspace(0, 1, 7, dtype=np.float32))
    write_table(rows, tmp_path / "predictions.parquet", "predictions")
    assert (rows["draw"] == 1).all()
    assert rows["score"].iloc[-1] == 1.0


def test_a_study_without_other_screens_tests_on_its_own(tmp_path):
    splits, _ = split_files(tmp_path)
    (task,) = tasks(splits, [], draws=1, budget=2)
    assert set(task.test["screen"]) == {"here"}


@unhurried
@given(st.permutations(["a", "b", "c", "d"]))
def test_features_are_chosen_by_name(wanted):
    index = pd.Index(["c", "a", "d", "b"])
    matrix = np.array([[ord(name)] for name in index])
    assert [chr(value) for (value,) in select(index, matrix, wanted)] == list(wanted)


def test_a_crop_without_features_is_named():
    with pytest.raises(InputError, match="2 crops have no features, first x"):
        select(pd.Index(["a"]), np.zeros((1, 2)), ["a", "x", "y"])


def features_file(path: Path, crops: list[str], matrix: np.ndarray) -> Path:
    write_table(features_table(crops, matrix), path, features_schema(matrix.shape[1]))
    return path


def test_features_that_are_no_numbers_name_file_and_crop(tmp_path):
    matrix = np.zeros((3, 2), np.float32)
    matrix[1, 1] = np.inf
    path = features_file(tmp_path / "f.parquet", ["a", "b", "c"], matrix)
    with pytest.raises(InputError, match="f.parquet: features of crop b are not finite numbers"):
        read_features([path])


def test_features_of_different_widths_are_refused(tmp_path):
    one = features_file(tmp_path / "one.parquet", ["a"], np.zeros((1, 2), np.float32))
    two = features_file(tmp_path / "two.parquet", ["b"], np.zeros((1, 3), np.float32))
    with pytest.raises(
        InputError, match=r"different widths \[2, 3\]: .*one.parquet, .*two.parquet"
    ):
        read_features([one, two])


FROZEN = sorted(path.stem for path in Path(frozen.__path__[0]).glob("[a-z]*.py"))


@pytest.mark.parametrize("kind", FROZEN)
def test_a_probe_on_frozen_features_has_settings_and_classifies(kind):
    module = import_module(f"hcsqc.probes.frozen.{kind}")
    assert dataclasses.is_dataclass(module.Settings)
    parameters = list(inspect.signature(module.classify).parameters)
    assert parameters == ["crops", "features", "draws", "settings", "seed"]


def test_the_config_knows_every_kind_of_probe_and_no_other():
    assert sorted(PROBE_KINDS) == sorted([*FROZEN, *FINETUNING])
