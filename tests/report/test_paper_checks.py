"""Checks on the paper's own figures: what its arithmetic shows cannot be."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from sklearn.metrics import accuracy_score, f1_score

from hcsqc.report.paper_checks import fits, paper_checks
from hcsqc.report.tables import PAPER_TABLES

PAPER = pd.read_csv(PAPER_TABLES)


@pytest.fixture(scope="module")
def checks() -> dict[str, dict]:
    return {check["name"]: check for check in paper_checks(PAPER)}


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("whole_test_set", {"fit": 0, "figures": 56}),
        ("k_of_384", {"fit": 39, "fit_rounded": 34, "figures": 56}),
        ("auc_below_accuracy", {"table_1": 15, "table_2": 27}),
        ("f1_above_accuracy", {"table_1": 0, "table_2": 12, "table_3": 7}),
        (
            "shift_batches",
            {
                "fit": 8,
                "fit_whole": 0,
                "figures": 8,
                "full_batches": 6,
                "last_batch": 8,
                "denominator": 224,
                "possible": 225,
            },
        ),
        (
            "best_frozen_method",
            {
                "knn_accuracy": "DeepCluster and SimCLR",
                "knn_f1": "SimCLR",
                "linear_accuracy": "DeepCluster",
                "linear_f1": "DeepCluster",
            },
        ),
    ],
)
def test_counts_of_the_papers_figures(check, expected, checks):
    found = checks[check]["numbers"]
    assert {name: found[name] for name in expected} == expected


def test_the_interval_of_127_of_130_is_that_of_the_beta_distribution(checks):
    numbers = checks["interval_of_the_best"]["numbers"]
    assert numbers["low"] == pytest.approx(100 * beta.ppf(0.025, 127, 4))
    assert numbers["high"] == pytest.approx(100 * beta.ppf(0.975, 128, 3))
    # Exactly 93.4 to 99.5; the 99.2 that is sometimes given is Wilson's.
    assert (round(numbers["low"], 1), round(numbers["high"], 1)) == (93.4, 99.5)
    assert (round(numbers["wilson_low"], 1), round(numbers["wilson_high"], 1)) == (93.4, 99.2)
    assert numbers["inside"] == 8


def test_vicreg_is_below_chance_at_either_number_of_images(checks):
    numbers = checks["below_chance"]["numbers"]
    assert numbers["percent"] == 37.95
    assert numbers["p_130"] == pytest.approx(0.00633, abs=1e-5)
    assert numbers["p_200"] == pytest.approx(0.000845, abs=1e-6)
    assert "VICReg's in table 3" in checks["below_chance"]["found"]


def test_simclr_and_barlow_twins_drop_more_than_two_of_the_three_that_the_paper_names(checks):
    numbers = checks["drops"]["numbers"]
    assert list(numbers) == ["vicreg", "barlow_twins", "simclr", "deepcluster_v2", "swav"]
    assert numbers["barlow_twins"] == pytest.approx(98.14 - 80.39)


def test_every_check_says_what_was_found_and_what_follows(checks):
    assert len(checks) == 9
    for check in checks.values():
        assert check["title"] and check["found"].endswith(".") and check["follows"].endswith(".")


def test_checks_follow_the_figures_that_they_are_given():
    accuracy = (PAPER["table"] < 3) & (PAPER["metric"] == "accuracy")
    whole = PAPER.assign(percent=PAPER["percent"].mask(accuracy, round(100 * 117 / 130, 2)))
    found = {check["name"]: check for check in paper_checks(whole)}
    assert found["whole_test_set"]["numbers"]["fit"] == 56
    assert found["whole_test_set"]["found"].startswith("56 of 56")


def test_shares_of_a_whole_fit_rounded_or_cut_off():
    # 125/128 is 97.65625, 116/128 is 90.625.
    assert fits([97.66, 97.65, 97.64, 97.67], 128).tolist() == [True, True, False, False]
    assert fits([97.66, 97.65], 128, cut_off=False).tolist() == [True, False]
    assert fits([90.62, 90.63], 128, cut_off=False).all()
    for total in (7, 130, 384):
        percents = np.round(100 * np.arange(total + 1) / total, 2)
        assert fits(percents, total).all() and fits(percents, total, cut_off=False).all()
        assert not fits(percents[:-1] + 50 / total, total).any()


def test_the_mean_over_batches_of_200_images_is_a_share_of_224():
    rng = np.random.default_rng(0)
    for _ in range(20):
        right = rng.random(200) < 0.7
        mean = np.mean([right[start : start + 32].mean() for start in range(0, 200, 32)])
        assert mean * 224 == pytest.approx(round(mean * 224))


def test_weighted_f1_exceeds_accuracy_on_no_balanced_set_but_in_a_batch_of_one_class():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 20)
    for share in np.linspace(0, 1, 30):
        said = (rng.random(40) < share).astype(int)
        weighted = f1_score(targets, said, average="weighted", zero_division=0)
        assert weighted <= accuracy_score(targets, said) + 1e-12
    said = np.array([1, 1, 1, 0])
    weighted = f1_score(np.ones(4, int), said, average="weighted", zero_division=0)
    assert weighted == pytest.approx(2 * 0.75 / 1.75) and weighted > 0.75
