"""The paper's claims: each rule in each outcome, by all probes and budgets together."""

import numpy as np
import pytest

from hcsqc.analyses.contrasts import Contrast, PairedScores, Setting
from hcsqc.core.config import probed
from hcsqc.report.paper_claims import CLAIMS, drop_outcome, verdicts
from hcsqc.report.tables import PAPER_METHODS
from tests.made_study import MEANS, paired, paired_tables, study


def verdict(name: str, config: dict, scores: PairedScores | None = None) -> dict:
    scores = paired(config) if scores is None else scores
    (found,) = (row for row in verdicts(config, scores) if row["claim"] == name)
    return found


def swapped(first: str, second: str, where=lambda **cell: True):
    """Return means in which two encoders change places in some cells."""
    changed = MEANS | {first: MEANS[second], second: MEANS[first]}
    return lambda encoder, **cell: (changed if where(**cell) else MEANS)[encoder]


@pytest.mark.parametrize(
    "claim",
    ["transfer_above_ssl", "deepcluster_best_frozen", "drop_with_fewer_labels", "best_under_shift"],
)
def test_a_claim_is_supported_where_every_difference_goes_its_way(claim):
    found = verdict(claim, study())
    assert found["verdict"] == "supported" and "all " in found["why"]


def test_simclr_is_best_with_10_labels_if_it_is_above_every_other_method():
    config = study()
    scores = paired(config, swapped("simclr", "deepcluster_v2"))
    found = verdict("simclr_best_with_10_labels", config, scores)
    assert found["verdict"] == "supported" and len(found["comparisons"]) == 4
    # Every probe that is not a control, at that budget, on the training screen.
    assert {row["settings"] for row in found["comparisons"]} == {5}
    assert {row["draws"] for row in found["comparisons"]} == {5}


CASES = [
    # claim, who is below whom
    ("transfer_above_ssl", ("vgg16", "swav")),
    ("deepcluster_best_frozen", ("deepcluster_v2", "simclr")),
    ("simclr_best_with_10_labels", ("simclr", "swav")),
    ("best_under_shift", ("simclr", "swav")),
    ("best_under_shift", ("deepcluster_v2", "swav")),
]


@pytest.mark.parametrize(("claim", "pair"), CASES)
def test_one_difference_the_other_way_is_not_supported(claim, pair):
    config = study()
    found = verdict(claim, config, paired(config, swapped(*pair)))
    assert found["verdict"] == "not supported"
    assert f"{pair[0]} and {pair[1]}" in found["why"]


@pytest.mark.parametrize(("claim", "pair"), CASES)
def test_one_encoder_whose_draws_vary_leaves_a_claim_undecided(claim, pair):
    config = study()
    means = swapped("simclr", "deepcluster_v2") if "10_labels" in claim else swapped("swav", "swav")
    found = verdict(claim, config, paired(config, means, unsure=[pair[1]]))
    assert found["verdict"] == "undecided"
    assert "not clear" in found["why"] and pair[1] in found["why"]


@pytest.mark.parametrize(
    ("claim", "inside"),
    [
        (
            "deepcluster_best_frozen",
            lambda probe, screen, **cell: (
                screen == "BBBC022" and probe not in ("finetune_paper", "knn_shuffled")
            ),
        ),
        ("best_under_shift", lambda screen, **cell: screen == "BBBC021"),
        ("simclr_best_with_10_labels", lambda budget, **cell: budget == 10),
    ],
)
def test_a_claim_sees_its_own_settings_and_no_others(claim, inside):
    config = study()
    pair = ("simclr", "swav") if claim != "deepcluster_best_frozen" else ("deepcluster_v2", "swav")
    usual = verdict(claim, config)
    elsewhere = paired(config, swapped(*pair, lambda **cell: not inside(**cell)))
    assert verdict(claim, config, elsewhere)["comparisons"] == usual["comparisons"]
    assert verdict(claim, config, paired(config, swapped(*pair, inside))) != usual


def test_the_two_best_under_shift_are_not_compared_with_each_other():
    found = verdict("best_under_shift", study())
    pairs = {(row["encoder"], row["other"]) for row in found["comparisons"]}
    assert len(pairs) == 6 and ("deepcluster_v2", "simclr") not in pairs


def test_small_differences_add_up_over_settings():
    """Two points that no single setting tells from its noise are told over all of them."""
    config = study()
    rng = np.random.default_rng(0)
    scores, left_out = paired_tables(
        config, lambda encoder, **cell: 0.8 + 0.02 * (MEANS[encoder] > 0.89)
    )
    noise = rng.normal(0, 0.02, len(scores))
    scores["value"] += noise
    left_out["value"] += np.repeat(noise, 6)
    evidence = PairedScores(scores, left_out, {})
    found = verdict("deepcluster_best_frozen", config, evidence)
    assert found["verdict"] == "supported"
    one = [("deepcluster_v2", Setting("knn", 350, "BBBC022"))]
    alone = evidence.difference(one, [("swav", one[0][1])])
    together = next(row for row in found["comparisons"] if row["other"] == "swav")
    assert alone.settings == 1 and together["settings"] == 20
    assert together["high"] - together["low"] < (alone.high - alone.low) / 2


@pytest.mark.parametrize(
    ("claim", "encoder", "name"),
    [
        ("deepcluster_best_frozen", "deepcluster_v2", "DeepCluster"),
        ("deepcluster_best_frozen", "swav", "SwAV"),
        ("transfer_above_ssl", "vicreg", "VICReg"),
        ("drop_with_fewer_labels", "vicreg", "VICReg"),
        ("best_under_shift", "simclr", "SimCLR"),
    ],
)
def test_without_a_method_it_is_undecided_and_says_why(claim, encoder, name):
    left = [other for other in MEANS if other != encoder]
    found = verdict(claim, study(encoders=left, not_run={encoder: "no time"}))
    assert found["verdict"] == "undecided"
    assert f"{name} was not run (no time)" in found["why"]


def test_a_claim_that_fails_without_the_missing_method_is_not_supported():
    config = study(encoders=[name for name in MEANS if name != "swav"])
    scores = paired(config, swapped("simclr", "deepcluster_v2"))
    assert verdict("deepcluster_best_frozen", config, scores)["verdict"] == "not supported"


def test_without_transfer_encoders_nothing_is_said_of_them():
    config = study(encoders=list(PAPER_METHODS), not_run={"vgg16": "no hub"})
    found = verdict("transfer_above_ssl", config)
    assert found["verdict"] == "undecided"
    assert "no transfer encoder was run (left out: vgg16)" in found["why"]


def test_methods_are_found_by_what_they_are_not_by_name():
    config = study()
    config["encoders"]["mine"] = config["encoders"].pop("deepcluster_v2")
    config["study"]["encoders"] = ["mine" if n == "deepcluster_v2" else n for n in MEANS]
    scores = paired(config, lambda encoder, **cell: MEANS.get(encoder, 0.9))
    found = verdict("deepcluster_best_frozen", config, scores)
    assert found["verdict"] == "supported"
    assert {row["encoder"] for row in found["comparisons"]} == {"mine"}


def test_probes_of_few_draws_are_left_out_and_alone_decide_nothing():
    config = study()
    config["probes"]["finetune_paper"]["draws"] = 1
    with_frozen = verdict("simclr_best_with_10_labels", config)
    assert {row["settings"] for row in with_frozen["comparisons"]} == {4}
    config["study"]["probes"] = ["finetune_paper"]
    for claim in ("transfer_above_ssl", "best_under_shift", "drop_with_fewer_labels"):
        found = verdict(claim, config)
        assert found["verdict"] == "undecided" and "no probe of 5 draws" in found["why"]


def test_probes_of_more_draws_count_in_all_of_them():
    config = study()
    scores, left_out = paired_tables(config)
    more = [
        table[table["probe"] == "knn"].assign(draw=lambda rows: rows["draw"] + 5)
        for table in (scores, left_out)
    ]
    scores, left_out = (
        type(scores)(
            np.concatenate([a.to_numpy(object), b.to_numpy(object)]), columns=a.columns
        ).infer_objects()
        for a, b in zip((scores, left_out), more, strict=True)
    )
    found = verdict("deepcluster_best_frozen", config, PairedScores(scores, left_out, {}))
    assert {row["draws"] for row in found["comparisons"]} == {10}


def test_without_10_labels_or_another_screen_claims_are_undecided():
    config = study(budgets=[350, 25], test=[])
    few = verdict("simclr_best_with_10_labels", config)
    assert few["verdict"] == "undecided" and "no probe was run at 10 labels" in few["why"]
    for claim in ("best_under_shift", "transfer_above_ssl"):
        shift = verdict(claim, config)
        assert shift["verdict"] == "undecided"
        assert "this study tests on no other screen" in shift["why"]


def test_what_cannot_be_fine_tuned_is_compared_where_both_were_run():
    config = study()
    config["encoders"]["simclr"] |= {"features": "tables/{screen}.parquet"}
    assert not probed(config, "simclr", "finetune_paper")
    scores, left_out = (
        table[(table["encoder"] != "simclr") | (table["probe"] != "finetune_paper")]
        for table in paired_tables(config)
    )
    found = verdict("transfer_above_ssl", config, PairedScores(scores, left_out, {}))
    assert found["verdict"] == "supported"
    settings = {row["other"]: row["settings"] for row in found["comparisons"]}
    assert settings["simclr"] < settings["swav"]


@pytest.mark.parametrize(
    ("low", "high", "p", "outcome"),
    [
        (0.001, 0.2, 0.01, "above"),
        (-0.01, 0.2, 0.04, "above"),
        (-0.01, 0.0099, 0.5, "below"),
        (-0.2, -0.1, 1.0, "below"),
        (0.0, 0.01, 0.06, "not distinguished"),
        (float("nan"), float("nan"), 0.5, "not distinguished"),
    ],
)
def test_a_drop_is_judged_by_its_interval(low, high, p, outcome):
    assert drop_outcome(Contrast(0.0, low, high, p, 1, 5)) == outcome


def test_drops_of_the_named_methods_decide():
    config = study()
    one = paired(config, drop=lambda encoder: 0.0 if encoder == "swav" else 0.1)
    found = verdict("drop_with_fewer_labels", config, one)
    assert found["verdict"] == "not supported" and "no drop: swav" in found["why"]
    other = paired(config, drop=lambda encoder: 0.0 if encoder == "simclr" else 0.1)
    found = verdict("drop_with_fewer_labels", config, other)
    assert found["verdict"] == "supported"
    assert [row["difference"] for row in found["comparisons"]] == pytest.approx([0.1] * 3)
    config["probes"] = {name: entry | {"budgets": [25]} for name, entry in config["probes"].items()}
    found = verdict("drop_with_fewer_labels", config)
    assert found["verdict"] == "undecided" and "at several budgets" in found["why"]


def test_every_claim_states_its_statistic():
    found = verdicts(study(), paired(study()))
    assert [row["claim"] for row in found] == [claim.name for claim in CLAIMS]
    assert all(row["rule"].startswith("Mean ") and "Supported if" in row["rule"] for row in found)
    rules = {row["claim"]: row["rule"] for row in found}
    assert "the probes on frozen features" in rules["deepcluster_best_frozen"]
    assert "at 10 labels" in rules["simclr_best_with_10_labels"]
    assert "on the other screens" in rules["best_under_shift"]


def test_a_smoke_test_judges_no_claim():
    found = verdicts(study(smoke_test=True), paired(study()))
    assert {row["verdict"] for row in found} == {"undecided"}
    assert all("smoke test" in row["why"] and not row["comparisons"] for row in found)
