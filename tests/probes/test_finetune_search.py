"""The search before fine-tuning: by inner folds of the training labels, and repeatable."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.store import describe
from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.finetune import finetune, finetuned_logits
from hcsqc.probes.finetune_search import FinetuneSearchSettings, search_finetuning

PLAIN = InputSpec(8, (0.5,) * 3, (0.5,) * 3)


def encoder():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return describe(network, "control", "own", PLAIN, {})


def labelled(n=48, wells=8, contrast=60):
    """Return crops of which the abnormal are brighter, their targets and wells."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 2
    crops = rng.integers(60, 120, (n, 3, 8, 8)) + contrast * targets[:, None, None, None]
    return crops.astype(np.uint8), targets, (np.arange(n) % wells).astype(str)


def settings(**changes) -> FinetuneSearchSettings:
    values = {
        "epochs": (3, 12),
        "batch_size": 8,
        "learning_rate": (0.0001, 0.1),
        "momentum": 0.9,
        "weight_decay": (0.0, 0.1),
        "milestone_shares": (0.5,),
        "gamma": 0.1,
        "folds": 3,
        "batchnorm": "train",
        "least_steps": 0,
    }
    return FinetuneSearchSettings(**(values | changes))


def search(crops, targets, wells, chosen=None, seed=0):
    return search_finetuning(
        encoder(), crops, targets, wells, chosen or settings(), seed, lambda count, loss: None
    )


def test_the_setting_that_learns_is_chosen_and_every_trial_is_told():
    chosen, trials = search(*labelled())
    assert (chosen.learning_rate, chosen.epochs) == (0.1, 12)
    assert chosen.milestones == (6,)
    assert len(trials) == 2 * 2 * 2
    best = min(trials, key=lambda trial: trial["loss"])
    assert (best["learning_rate"], best["epochs"]) == (0.1, 12)
    assert best["weight_decay"] == chosen.weight_decay


def test_a_trials_loss_is_that_of_the_labels_held_out_by_well():
    crops, targets, wells = labelled()
    only = settings(epochs=(2,), learning_rate=(0.01,), weight_decay=(0.0,))
    _, (trial,) = search(crops, targets, wells, only)
    losses = []
    for number, (fit, held) in enumerate(grouped_folds(targets, wells, 3, 0)):
        own = encoder()
        network = finetune(
            own, crops[fit], targets[fit], only.grid()[0], (0, number), lambda count, loss: None
        )
        logits = finetuned_logits(network, own, crops[held], 5)
        losses += (-torch.log_softmax(logits, 1)[np.arange(len(held)), targets[held]]).tolist()
    assert trial["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert len(losses) == len(crops)


def test_the_search_repeats_and_leaves_the_encoder_as_it_was():
    own = encoder()
    before = copy.deepcopy(own.backbone.state_dict())
    small = settings(epochs=(2,), weight_decay=(0.0,))
    found = [
        search_finetuning(own, *labelled(), small, 3, lambda count, loss: None) for _ in range(2)
    ]
    assert found[0] == found[1]
    assert all(torch.equal(own.backbone.state_dict()[name], v) for name, v in before.items())


def test_labels_that_carry_no_folds_take_the_first_setting():
    crops, targets, _ = labelled(n=8)
    chosen, trials = search(crops, targets, np.array(["a"] * 8))
    assert chosen == settings().grid()[0]
    assert [trial["loss"] for trial in trials] == [None] * 8


def test_a_setting_whose_training_fails_is_not_chosen_and_if_all_do_it_is_said():
    wild = settings(epochs=(6,), learning_rate=(0.001, 1e9), weight_decay=(0.0,))
    chosen, trials = search(*labelled(), wild)
    assert chosen.learning_rate == 0.001
    assert [trial["loss"] is None for trial in trials] == [False, True]
    with pytest.raises(InputError, match="no setting's loss stays finite"):
        search(*labelled(), settings(learning_rate=(1e9,), weight_decay=(0.0,), epochs=(6,)))


def test_every_trial_and_the_choice_have_the_searchs_batchnorm_and_least_steps():
    longer = settings(
        batchnorm="frozen", least_steps=5, epochs=(2, 3), learning_rate=(0.01,), weight_decay=(0.0,)
    )
    assert {(one.batchnorm, one.least_steps) for one in longer.grid()} == {("frozen", 5)}
    crops, targets, wells = labelled(n=24, wells=6)
    batches = []
    chosen, trials = search_finetuning(
        encoder(), crops, targets, wells, longer, 0, lambda count, loss: batches.append(count)
    )
    assert (chosen.batchnorm, chosen.least_steps) == ("frozen", 5)
    # 16 crops are two batches, so that 2 epochs become 3, in each of 3 folds.
    assert len(batches) == len(trials) * 3 * 6
    assert sum(batches) == longer.searched_crops(24)


def test_an_empty_grid_is_refused():
    with pytest.raises(
        InputError, match="there is nothing to choose from; list some learning_rate"
    ):
        settings(learning_rate=())
    with pytest.raises(InputError, match="batchnorm 'on' is neither train nor frozen"):
        settings(batchnorm="on")
