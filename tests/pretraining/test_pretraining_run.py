"""The state of a pretraining run: what another run that loads it does."""

from io import BytesIO

import pytest
import torch

from hcsqc.core.devices import deterministic_on_cpu
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.monitor import Throughput, curve_point
from hcsqc.pretraining.run import PretrainingRun
from tests.pretraining.test_ssl_pretraining import Cells, assert_same_state, recipe_of, state_of
from tests.pretraining.test_ssl_pretraining import run as pretrained


def new_run(method="simclr", **changes):
    return PretrainingRun(Cells(), recipe_of(method, **changes), "test", "cpu")


def advance(run, steps):
    """Take steps as the training loop does, and log each."""
    throughput = Throughput(run)
    with deterministic_on_cpu(run.device):
        for _ in range(steps):
            if run.between_epochs:
                run.method.start_epoch(run.epoch)
            loss, features = run.training_step(run.loader.load(run.step))
            run.curves.append(curve_point(run, loss, features, throughput))


def stored(state):
    """Return the state as a file gives it back."""
    file = BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("method", METHODS)
def test_ssl_run_that_loads_the_state_of_another_goes_on_like_it_bit_for_bit(method):
    first = new_run(method, epochs=3)
    advance(first, 2)
    state = stored(first.state_dict())
    advance(first, 5)  # two more epochs begin: DeepCluster v2 draws centroids at each
    expected = stored(first.state_dict())
    torch.manual_seed(99)  # as another process has another random state
    second = new_run(method, epochs=3)
    second.load_state_dict(state)
    assert second.step == 2 and len(second.curves) == 2
    advance(second, 5)
    assert second.step == first.step == 7
    assert_same_state(second.state_dict(), expected)


def test_ssl_state_of_a_new_run_differs_from_that_of_a_trained_one():
    """So that the test above could fail."""
    run = new_run()
    before = stored(run.state_dict())
    advance(run, 1)
    for part in ("backbone", "method"):
        after = run.state_dict()[part]
        assert any(not torch.equal(after[name], before[part][name]) for name in after)
    assert before["optimizer"]["state"] == {} and run.state_dict()["optimizer"]["state"] != {}


def test_ssl_steps_taken_one_by_one_end_where_the_training_loop_does(tmp_path):
    run = new_run("swav")
    advance(run, run.total_steps)
    state = stored(run.state_dict())
    pretrained(tmp_path, "swav")
    assert_same_state(state, state_of(tmp_path))


def test_ssl_run_adds_its_time_to_that_of_the_state_it_loads():
    run = new_run()
    run.load_state_dict(stored(run.state_dict()) | {"seconds": 1000.0, "stalled": 400.0})
    assert 1000 < run.seconds < 1100 and run.stalled == 400
    assert run.state_dict()["stalled"] == 400 and run.state_dict()["seconds"] > 1000


def test_ssl_state_that_was_loaded_stays_as_it_was():
    first = new_run()
    advance(first, 2)
    state = stored(first.state_dict())
    second = new_run()
    second.load_state_dict(state)
    advance(second, 1)
    assert len(state["curves"]) == 2 and state["step"] == 2
    for part in ("backbone", "method"):
        for name, value in first.state_dict()[part].items():
            assert torch.equal(state[part][name], value), name


def test_ssl_run_counts_epochs_by_its_steps():
    run = new_run()
    counted = []
    while run.step < run.total_steps:
        counted.append((run.epoch, run.between_epochs))
        advance(run, 1)
    first, last = (0, True), (2, True)
    assert counted == [first, (0, False), (0, False), (1, True), (1, False), (1, False)]
    assert (run.epoch, run.between_epochs) == last
