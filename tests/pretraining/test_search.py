"""The line search over pretraining: what its trials are, and which one is chosen."""

import copy

import pytest
import yaml

from hcsqc.core.config import encoder_settings, search_trials
from hcsqc.core.config_check import check_config
from hcsqc.core.errors import InputError
from hcsqc.pretraining.search import choose_trial
from tests.conftest import ROOT

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SEARCH = {"learning_rate": [0.01, 0.001], "weight_decay": [1e-4, 0.0], "epochs": 3, "crops": 9}


def config_with(**search) -> dict:
    config = copy.deepcopy(CONFIG)
    config["encoders"]["simclr"]["search"] = SEARCH | search
    return config


def trial(rate, rank, collapsed=False, decay=1e-4) -> dict:
    metrics = {"feature_rank": rank, "feature_std": 0.2, "loss": 3.0, "collapsed": float(collapsed)}
    parameters = {"learning_rate": rate, "weight_decay": decay, "epochs": 2, "crops": 9, "seed": 0}
    return {"parameters": parameters, "metrics": metrics | {"diverged": 0.0}}


def diverged(rate) -> dict:
    return trial(rate, None) | {"metrics": {"diverged": 1.0, "collapsed": 1.0}}


def test_ssl_search_tries_every_rate_with_every_decay_for_its_own_short_time():
    trials = search_trials(config_with(), "simclr")
    assert list(trials) == ["lr0.01_wd0.0001", "lr0.01_wd0.0", "lr0.001_wd0.0001", "lr0.001_wd0.0"]
    assert trials["lr0.001_wd0.0"] == {
        "learning_rate": 0.001,
        "weight_decay": 0.0,
        "epochs": 3,
        "warmup_epochs": 1,
        "snapshots": 0,
    }
    assert search_trials(CONFIG, "simclr") == {}


def test_ssl_search_is_no_setting_of_the_training_itself():
    assert encoder_settings(config_with(), "simclr") == encoder_settings(CONFIG, "simclr")


def test_ssl_search_has_no_longer_warm_up_than_half_a_trial():
    config = config_with(epochs=6)
    config["encoders"]["simclr"]["warmup_epochs"] = 10
    assert search_trials(config, "simclr")["lr0.01_wd0.0"]["warmup_epochs"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": [0.1]}, "encoders.simclr.search: unknown key 'learning_rates'"),
        ({"epochs": 1}, "encoders.simclr.search.epochs: 1 is less than the minimum of 2"),
        ({"learning_rate": [0.0]}, "search.learning_rate.0: 0.0 is less than or equal to"),
        ({"weight_decay": []}, "search.weight_decay"),
    ],
)
def test_ssl_search_that_is_stated_wrongly_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        check_config(config_with(**change))


def test_ssl_search_chooses_the_highest_rank_and_records_every_trial():
    choice = choose_trial([trial(0.1, 20.0), trial(0.01, 60.0, decay=0.0), trial(0.001, 40.0)])
    assert choice["chosen"] == {"learning_rate": 0.01, "weight_decay": 0.0}
    assert choice["criterion"] == "feature_rank"
    assert [row["feature_rank"] for row in choice["trials"]] == [20.0, 60.0, 40.0]
    assert {(row["epochs"], row["crops"], row["seed"]) for row in choice["trials"]} == {(2, 9, 0)}


def test_ssl_search_never_chooses_a_collapsed_trial_and_of_equals_the_first():
    rows = [trial(0.1, 90.0, collapsed=True), trial(0.01, 30.0), trial(0.001, 30.0)]
    assert choose_trial(rows)["chosen"]["learning_rate"] == 0.01
    with pytest.raises(InputError, match="all 2 trials have diverged or collapsed.*lower learning"):
        choose_trial([trial(0.1, 1.0, collapsed=True), diverged(1.0)])


def test_ssl_search_goes_on_past_a_trial_that_diverged():
    choice = choose_trial([diverged(10.0), trial(0.01, 30.0), trial(0.1, None)])
    assert choice["chosen"]["learning_rate"] == 0.01
    assert [row["diverged"] for row in choice["trials"]] == [True, False, False]
