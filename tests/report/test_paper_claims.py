"""The paper's claims: each rule in each outcome."""

import pandas as pd
import pytest

from hcsqc.core.config import probed
from hcsqc.core.errors import InputError
from hcsqc.report.paper_claims import drop_outcome, verdicts
from hcsqc.report.tables import PAPER_METHODS
from tests.made_study import MEANS, drops, ranking, study

FROZEN = {"knn", "linear_paper", "linear_searched", "logistic"}  # unshuffled, of the paper's study


def verdict(name: str, config: dict, ranked=None, dropped=None) -> dict:
    ranked = ranking(config) if ranked is None else ranked
    dropped = drops(config) if dropped is None else dropped
    (found,) = (row for row in verdicts(config, ranked, dropped) if row["claim"] == name)
    return found


def swapped(first: str, second: str, where=lambda **cell: True):
    """Return means in which two encoders change places in some cells."""
    changed = MEANS | {first: MEANS[second], second: MEANS[first]}
    return lambda encoder, **cell: (changed if where(**cell) else MEANS)[encoder]


def with_p(table: pd.DataFrame, first: str, second: str, p: float, **cell) -> pd.DataFrame:
    """Return a ranking in which one pair has another p, in all cells or in those named."""
    pair = table["encoder"].isin([first, second]) & table["other"].isin([first, second])
    for column, value in cell.items():
        pair &= table[column] == value
    assert pair.any()
    return table.assign(p=table["p"].mask(pair, p))


@pytest.mark.parametrize(
    "claim",
    [
        "transfer_above_ssl",
        "deepcluster_best_frozen",
        "drop_with_fewer_labels",
        "best_under_shift",
    ],
)
def test_a_claim_is_supported_where_every_comparison_is(claim):
    found = verdict(claim, study())
    assert found["verdict"] == "supported" and "all " in found["why"]


def test_simclr_is_best_with_10_labels_if_it_is_above_every_other_method():
    config = study()
    ranked = ranking(config, swapped("simclr", "deepcluster_v2"))
    found = verdict("simclr_best_with_10_labels", config, ranked)
    assert found["verdict"] == "supported"
    assert {row["probe"] for row in found["comparisons"]} == {"finetune_paper"}
    assert {row["budget"] for row in found["comparisons"]} == {10}
    assert len(found["comparisons"]) == 4


CASES = [
    # claim, who is below, who above, where that is looked at, and a place that is not
    ("transfer_above_ssl", ("vgg16", "swav"), {"probe": "knn", "budget": 350}),
    ("transfer_above_ssl", ("vgg16", "swav"), {"probe": "finetune_paper", "budget": 25}),
    ("transfer_above_ssl", ("vgg16", "swav"), {"probe": "finetune_paper", "screen": "BBBC021"}),
    ("deepcluster_best_frozen", ("deepcluster_v2", "simclr"), {"probe": "linear_paper"}),
    ("simclr_best_with_10_labels", ("simclr", "swav"), {"probe": "finetune_paper"}),
    ("best_under_shift", ("simclr", "swav"), {"screen": "BBBC021"}),
    ("best_under_shift", ("deepcluster_v2", "swav"), {"screen": "BBBC021"}),
]


@pytest.mark.parametrize(("claim", "pair", "cell"), CASES)
def test_one_comparison_the_other_way_is_not_supported(claim, pair, cell):
    config = study()

    def here(**own):
        return all(own[column] == value for column, value in cell.items())

    found = verdict(claim, config, ranking(config, swapped(*pair, here)))
    assert found["verdict"] == "not supported"
    assert f"{pair[0]} below {pair[1]}" in found["why"]


@pytest.mark.parametrize(("claim", "pair", "cell"), CASES)
def test_one_comparison_that_is_not_told_leaves_it_undecided(claim, pair, cell):
    config = study()
    means = swapped("simclr", "deepcluster_v2") if "10_labels" in claim else swapped("swav", "swav")
    found = verdict(claim, config, with_p(ranking(config, means), *pair, p=0.05, **cell))
    assert found["verdict"] == "undecided"
    assert "not tell the two apart" in found["why"]


def test_comparisons_that_a_claim_is_not_about_change_nothing():
    config = study()
    frozen = verdict(
        "deepcluster_best_frozen",
        config,
        ranking(
            config,
            swapped(
                "simclr",
                "deepcluster_v2",
                lambda **cell: (
                    cell["budget"] != 350
                    or cell["screen"] != "BBBC022"
                    or cell["probe"] in ("finetune_paper", "knn_shuffled")
                ),
            ),
        ),
    )
    assert frozen["verdict"] == "supported"
    # The two best under shift are not held against one another.
    shift = verdict("best_under_shift", config)
    pairs = {(row["encoder"], row["other"]) for row in shift["comparisons"]}
    assert len(pairs) == 6 and ("deepcluster_v2", "simclr") not in pairs
    other_metric = ranking(config, swapped("simclr", "deepcluster_v2")).assign(metric="auc")
    both = pd.concat([ranking(config), other_metric])
    assert verdict("deepcluster_best_frozen", config, both)["verdict"] == "supported"


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
    config = study(encoders=left, not_run={encoder: "no time"})
    found = verdict(claim, config)
    assert found["verdict"] == "undecided"
    assert f"{name} was not run (no time)" in found["why"]


def test_a_claim_that_fails_without_the_missing_method_is_not_supported():
    config = study(encoders=[name for name in MEANS if name != "swav"])
    ranked = ranking(config, swapped("simclr", "deepcluster_v2"))
    assert verdict("deepcluster_best_frozen", config, ranked)["verdict"] == "not supported"


def test_without_transfer_encoders_nothing_is_said_of_them():
    config = study(encoders=list(PAPER_METHODS), not_run={"vgg16": "no hub"})
    found = verdict("transfer_above_ssl", config)
    assert found["verdict"] == "undecided"
    assert "no transfer encoder was run (left out: vgg16)" in found["why"]


def test_methods_are_found_by_what_they_are_not_by_name():
    config = study()
    config["encoders"]["mine"] = config["encoders"].pop("deepcluster_v2")
    config["study"]["encoders"] = ["mine" if n == "deepcluster_v2" else n for n in MEANS]
    ranked = ranking(study()).replace({"deepcluster_v2": "mine"})
    found = verdict("deepcluster_best_frozen", config, ranked)
    assert found["verdict"] == "supported"
    assert {row["encoder"] for row in found["comparisons"]} == {"mine"}


def test_one_draw_of_fine_tuning_decides_nothing_either_way():
    config = study()
    config["probes"]["finetune_paper"]["draws"] = 1
    for claim in ("transfer_above_ssl", "best_under_shift", "drop_with_fewer_labels"):
        found = verdict(claim, config)
        assert found["verdict"] == "undecided" and "draws" in found["why"]
    worst = lambda encoder, **cell: -MEANS[encoder]  # noqa: E731
    found = verdict("best_under_shift", config, ranking(config, worst))
    assert found["verdict"] == "undecided"
    assert {row["outcome"] for row in found["comparisons"]} == {"too few draws"}


def test_a_comparison_that_is_missing_leaves_it_undecided():
    config = study()
    ranked = ranking(config)
    pair = (ranked["encoder"] == "deepcluster_v2") & (ranked["other"] == "swav")
    found = verdict("deepcluster_best_frozen", config, ranked[~pair])
    assert found["verdict"] == "undecided"
    assert "deepcluster_v2 and swav were not compared with knn at 350 labels" in found["why"]


def test_without_fine_tuning_at_10_labels_every_probe_that_has_them_is_asked():
    config = study()
    config["probes"]["finetune_paper"] |= {"budgets": [25]}
    ranked = ranking(config, swapped("simclr", "deepcluster_v2"))
    found = verdict("simclr_best_with_10_labels", config, ranked)
    assert found["verdict"] == "supported"
    assert {row["probe"] for row in found["comparisons"]} == FROZEN
    assert "logistic, because no fine-tuned probe was run at 10 labels" in found["why"]


def test_without_10_labels_or_another_screen_claims_are_undecided():
    config = study(budgets=[350, 25], test=[])
    few = verdict("simclr_best_with_10_labels", config)
    assert few["verdict"] == "undecided" and "no probe was run at 10 labels" in few["why"]
    shift = verdict("best_under_shift", config)
    assert shift["verdict"] == "undecided"
    assert "this study tests on no other screen" in shift["why"]
    assert verdict("transfer_above_ssl", config)["verdict"] == "undecided"


def test_what_cannot_be_fine_tuned_is_not_missed_there():
    config = study()
    config["encoders"]["simclr"] |= {"features": "tables/{screen}.parquet"}
    assert not probed(config, "simclr", "finetune_paper")
    ranked = ranking(config)
    fine = ranked["probe"] == "finetune_paper"
    touched = (ranked["encoder"] == "simclr") | (ranked["other"] == "simclr")
    found = verdict("transfer_above_ssl", config, ranked[~(fine & touched)])
    assert found["verdict"] == "supported"


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.001, 0.2, "drop"),
        (0.001, 0.009, "drop"),
        (-0.01, 0.0099, "no drop"),
        (-0.2, -0.1, "no drop"),
        (0.0, 0.01, "not told"),
        (-0.05, 0.2, "not told"),
        (float("nan"), float("nan"), "not told"),
    ],
)
def test_a_drop_is_judged_by_its_interval(low, high, outcome):
    assert drop_outcome(low, high) == outcome


def test_drops_of_the_named_methods_decide():
    config = study()
    one = verdict("drop_with_fewer_labels", config, dropped=drops(config, swav=(-0.05, 0.005)))
    assert one["verdict"] == "not supported" and "swav with finetune_paper" in one["why"]
    wide = verdict("drop_with_fewer_labels", config, dropped=drops(config, vicreg=(-0.1, 0.3)))
    assert wide["verdict"] == "undecided" and "1 of 3 intervals" in wide["why"]
    other = verdict("drop_with_fewer_labels", config, dropped=drops(config, simclr=(-0.3, -0.1)))
    assert other["verdict"] == "supported"
    table = drops(config)
    absent = table[(table["encoder"] != "swav") | (table["probe"] != "finetune_paper")]
    found = verdict("drop_with_fewer_labels", config, dropped=absent)
    assert found["verdict"] == "undecided" and "the drop of swav" in found["why"]


def test_drops_of_frozen_probes_stand_in_where_fine_tuning_has_one_budget():
    config = study()
    config["probes"]["finetune_paper"] |= {"budgets": [25]}
    found = verdict("drop_with_fewer_labels", config)
    assert {row["probe"] for row in found["comparisons"]} == FROZEN
    assert "because no fine-tuned probe was run at several budgets" in found["why"]


def test_a_smoke_test_judges_no_claim():
    found = verdicts(study(smoke_test=True), ranking(study()), drops(study()))
    assert {row["verdict"] for row in found} == {"undecided"}
    assert all("smoke test" in row["why"] and not row["comparisons"] for row in found)


@pytest.mark.parametrize(
    ("ranked", "dropped", "message"),
    [
        (ranking(study()).drop(columns="p"), drops(study()), "ranking: column 'p' is missing"),
        (ranking(study()), drops(study()).drop(columns="low"), "drops: column 'low' is missing"),
        (pd.concat([ranking(study())] * 2), drops(study()), "vgg16 is compared to .* twice"),
    ],
)
def test_tables_that_are_not_those_are_named(ranked, dropped, message):
    with pytest.raises(InputError, match=message):
        verdicts(study(), ranked, dropped)
