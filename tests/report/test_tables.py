"""The paper's tables with ours beside them: means, intervals, and a reason for every gap."""

import copy
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from hcsqc.core.config import probe_budgets, probed
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.report.tables import COLUMNS, PAPER_TABLES, make_tables, metrics_table
from tests.conftest import ROOT

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
CONFIG["study"]["probes"].remove("finetune")  # ours, of the same kind as the paper's
PAPER = pd.read_csv(PAPER_TABLES)


def study(**changes) -> dict:
    """Return a small study: two encoders run, one not, kNN and fine-tuning."""
    config = copy.deepcopy(CONFIG)
    config["study"] |= {
        "train": "BBBC022",
        "test": ["BBBC021"],
        "encoders": ["resnet18", "simclr"],
        "not_run": {"vgg16": "no hub here"},
        "probes": ["knn", "finetune_paper"],
        "budgets": [350, 25],
        "draws": 10,
    }
    config["probes"]["finetune_paper"] |= {"budgets": [25], "draws": 2}
    update_config(config, changes)
    return config


def score_rows(config: dict, value=lambda **row: 0.5, without=()) -> pd.DataFrame:
    """Return the scores of a study, `value(encoder, probe, ...)` for each row."""
    rows = []
    names = ["encoder", "seed", "probe", "budget", "draw", "screen", "metric"]
    for probe in config["study"]["probes"]:
        entry = config["probes"][probe]
        for row in product(
            config["study"]["encoders"],
            config["study"]["seeds"],
            [probe],
            probe_budgets(config, probe),
            range(entry.get("draws", config["study"]["draws"])),
            [config["study"]["train"], *config["study"]["test"]],
            TABLE_METRICS,
        ):
            named = dict(zip(names, row, strict=True))
            if named["encoder"] not in without and probed(config, named["encoder"], probe):
                n_test = 130 if named["screen"] == config["study"]["train"] else 224
                rows.append({**named, "value": value(**named), "n_test": n_test})
    return pd.DataFrame(rows)


def replicates_of(scores: pd.DataFrame) -> pd.DataFrame:
    """Return replicates that lie evenly up to 10 points to either side of each mean."""
    keys = ["encoder", "seed", "probe", "budget", "screen", "metric"]
    means = scores.groupby(keys, as_index=False, sort=False)["value"].mean()
    offsets = pd.DataFrame({"replicate": range(41), "offset": np.linspace(-0.1, 0.1, 41)})
    table = means.merge(offsets, how="cross")
    table["value"] += table.pop("offset")
    return table.assign(n_groups=100_000)


def make(scores: pd.DataFrame, config: dict) -> dict[int, pd.DataFrame]:
    return make_tables(scores, replicates_of(scores), config)


def cell(table: pd.DataFrame, **wanted) -> pd.Series:
    """Return the one row of a table with these values."""
    rows = table
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, wanted
    return rows.iloc[0]


def by_draw(**row) -> float:
    return row["draw"] / 10 if row["encoder"] == "simclr" else 0.25


def test_a_figure_is_the_mean_over_draws_with_the_interval_of_its_replicates():
    config = study()
    row = cell(
        make(score_rows(config, by_draw), config)[1],
        encoder="simclr",
        probe="knn",
        metric="f1",
    )
    assert row["percent"] == pytest.approx(45)
    assert (row["low"], row["high"]) == pytest.approx((35.5, 54.5), abs=0.01)
    assert (row["draws"], row["seeds"], row["n_test"]) == (10, 1, 130)
    assert row["status"] == "run" and pd.isna(row["reason"])


def test_seeds_and_draws_are_pooled():
    config = study(study={"seeds": [0, 1, 2], "draws": 4})
    scores = score_rows(config, lambda **row: (row["seed"] * 4 + row["draw"]) / 12)
    row = cell(make(scores, config)[1], encoder="resnet18", probe="knn", metric="auc")
    values = 100 * np.arange(12) / 12
    assert row["percent"] == pytest.approx(values.mean())
    assert (row["low"], row["high"]) == pytest.approx(
        (values.mean() - 9.5, values.mean() + 9.5), abs=0.01
    )
    assert (row["draws"], row["seeds"]) == (4, 3)


@pytest.mark.parametrize(("draws", "seeds"), [(1, [0]), (FEWEST_DRAWS - 1, [0]), (2, [0, 1])])
def test_too_few_draws_have_no_interval(draws, seeds):
    config = study(study={"draws": draws, "seeds": seeds})
    row = cell(
        make(score_rows(config, by_draw), config)[1],
        encoder="simclr",
        probe="knn",
        metric="f1",
    )
    assert pd.notna(row["percent"]) and pd.isna(row["low"]) and pd.isna(row["high"])


@pytest.mark.parametrize(
    ("draws", "reason"),
    [(1, "1 draw, too few for a mean"), (2, "2 draws, too few for a mean"), (3, None)],
)
def test_a_figure_of_fewer_than_three_draws_says_so(draws, reason):
    config = study(study={"draws": draws, "seeds": [0, 1]})
    table = make(score_rows(config, by_draw), config)[1]
    row = cell(table, encoder="simclr", probe="knn", metric="f1")
    assert row["status"] == "run" and pd.notna(row["percent"])
    assert (row["reason"] if reason else None) == reason
    assert reason or pd.isna(row["reason"])


def test_draws_times_seeds_just_enough_have_an_interval():
    config = study(study={"draws": FEWEST_DRAWS})
    rows = make(score_rows(config), config)[1]
    run = rows[rows["status"] == "run"]
    assert run["low"].notna().all() and run["high"].notna().all()


def test_every_metric_has_a_row_and_those_that_were_resampled_an_interval():
    config = study()
    scores = score_rows(config, by_draw)
    extra = scores[scores["metric"] == "f1"]
    recall = extra.assign(metric="recall_at_1_percent", value=extra["value"] / 2)
    scores = pd.concat([scores, recall, extra.assign(metric="f1_of_batches")])
    resampled = replicates_of(scores[scores["metric"] != "f1_of_batches"])
    table = metrics_table(scores, resampled, config)
    keys = ["encoder", "probe", "budget", "screen", "metric"]
    assert not table.duplicated(keys).any()
    assert len(table) == len(scores.drop_duplicates(keys))
    wanted = {"encoder": "simclr", "probe": "knn", "budget": 25, "screen": "BBBC021"}
    found = cell(table, **wanted, metric="recall_at_1_percent")
    assert found[["value", "low", "high"]].tolist() == pytest.approx([0.225, 0.13, 0.32], abs=1e-4)
    assert (found["kind"], found["draws"], found["n_test"]) == ("ssl", 10, 224)
    unsure = cell(table, **wanted, metric="f1_of_batches")
    assert (
        unsure["value"] == pytest.approx(0.45) and np.isnan([unsure["low"], unsure["high"]]).all()
    )
    few = table[(table["probe"] == "finetune_paper") & (table["metric"] == "f1")]
    assert len(few) == 4 and few["low"].isna().all(), "two draws are too few"


def test_each_table_has_its_probes_budgets_and_screens():
    config = study()
    tables = make(score_rows(config), config)
    assert list(tables) == [1, 2, 3]
    seen = {
        number: set(zip(table["probe"], table["budget"], table["screen"], strict=True))
        for number, table in tables.items()
    }
    assert seen[1] == {("knn", 350, "BBBC022")}
    assert seen[2] == {
        (probe, budget, "BBBC022") for probe in ("knn", "finetune_paper") for budget in (350, 25)
    }
    assert seen[3] == {("knn", 350, "BBBC021"), ("finetune_paper", 350, "BBBC021")}
    for table in tables.values():
        assert table.columns.tolist() == COLUMNS
        assert not table.duplicated(["encoder", "probe", "budget", "screen", "metric"]).any()


def test_the_shift_table_holds_the_other_screens_scores():
    config = study()
    scores = score_rows(config, lambda **row: 0.9 if row["screen"] == "BBBC021" else 0.1)
    tables = make(scores, config)
    shifted = cell(tables[3], encoder="simclr", probe="knn", metric="f1")
    assert shifted["percent"] == pytest.approx(90) and shifted["n_test"] == 224
    run = tables[2][tables[2]["status"] == "run"]
    assert run["percent"].tolist() == pytest.approx([10] * len(run))


def test_every_encoder_of_the_study_has_every_row_run_or_not():
    config = study()
    for table in make(score_rows(config), config).values():
        for _, rows in table.groupby(["probe", "budget", "screen", "metric"]):
            assert rows["encoder"].tolist() == ["resnet18", "simclr", "vgg16"]
        left_out = table[table["encoder"] == "vgg16"]
        assert set(left_out["status"]) == {"not run"}
        assert set(left_out["reason"]) == {"no hub here"}
        assert left_out["percent"].isna().all() and set(left_out["kind"]) == {"transfer"}


def test_a_budget_that_a_probe_does_not_run_says_which_it_does():
    config = study()
    table = make(score_rows(config), config)[2]
    rows = table[(table["probe"] == "finetune_paper") & (table["encoder"] == "simclr")]
    assert set(rows["status"][rows["budget"] == 25]) == {"run"}
    left_out = rows[rows["budget"] == 350]
    assert set(left_out["status"]) == {"not run"}
    assert left_out["reason"].str.contains("this study runs finetune_paper at 25 labels").all()


def test_missing_scores_are_rows_not_run_and_never_figures():
    config = study()
    table = make(score_rows(config, without=["simclr"]), config)[1]
    rows = table[table["encoder"] == "simclr"]
    assert set(rows["status"]) == {"not run"} and rows["percent"].isna().all()
    assert rows["reason"].notna().all()


def test_the_order_of_scores_does_not_matter():
    config = study()
    scores = score_rows(config, by_draw)
    shuffled = make(scores.sample(frac=1, random_state=1), config)
    for number, table in make(scores, config).items():
        pd.testing.assert_frame_equal(shuffled[number], table)


# The paper's figures.


def test_the_papers_192_cells_all_stand_in_the_papers_study():
    tables = make(score_rows(CONFIG), CONFIG)
    counts = {number: table["paper_percent"].notna().sum() for number, table in tables.items()}
    assert counts == {1: 48, 2: 120, 3: 24}
    assert len(PAPER) == 192
    found = pd.concat(tables.values()).dropna(subset="paper_percent")
    found["kind_of_probe"] = [CONFIG["probes"][probe]["kind"] for probe in found["probe"]]
    columns = ["table", "encoder", "kind_of_probe", "budget", "paper_screen", "metric"]
    merged = PAPER.merge(
        found,
        left_on=["table", "encoder", "probe", "budget", "screen", "metric"],
        right_on=columns,
        how="left",
        validate="one_to_one",
    )
    assert merged["paper_percent"].tolist() == merged["percent_x"].tolist()


def test_the_papers_cells_stand_beside_encoders_that_were_not_run():
    config = copy.deepcopy(CONFIG)
    config["study"]["encoders"] = ["random_resnet18"]
    names = sorted(set(PAPER["encoder"]))
    config["study"]["not_run"] = dict.fromkeys(names, "no time")
    tables = make(score_rows(config), config)
    assert sum(table["paper_percent"].notna().sum() for table in tables.values()) == 192
    ours = pd.concat(tables.values())
    # The control on shuffled labels has the largest budget alone.
    scored = (ours["probe"] != "knn_shuffled") | (ours["budget"] == max(config["study"]["budgets"]))
    assert ours["percent"].notna().sum() == (scored & (ours["encoder"] == "random_resnet18")).sum()


def test_what_is_measured_is_not_fine_tuned_and_the_tables_say_why():
    tables = make(score_rows(CONFIG), CONFIG)
    rows = pd.concat(tables.values())
    rows = rows[(rows["encoder"] == "image_quality") & (rows["probe"] == "finetune_paper")]
    assert len(rows) and (rows["status"] == "not run").all()
    assert set(rows["reason"]) == {"it has no network to fine-tune"}


def test_the_papers_figures_do_not_stand_beside_shuffled_labels():
    rows = pd.concat(make(score_rows(CONFIG), CONFIG).values())
    assert rows[rows["probe"] == "knn_shuffled"]["paper_percent"].isna().all()


def test_a_known_cell_of_each_of_the_papers_tables():
    tables = make(score_rows(CONFIG), CONFIG)
    first = cell(tables[1], encoder="vgg16", probe="knn", metric="accuracy")
    assert (first["paper_percent"], first["paper_screen"]) == (96.09, "BBBC022")
    third = cell(tables[3], encoder="vicreg", probe="finetune_paper", metric="accuracy")
    assert (third["paper_percent"], third["paper_screen"]) == (37.95, "BBBC021")


def test_what_the_paper_does_not_report_has_no_figure_of_its():
    tables = make(score_rows(CONFIG), CONFIG)
    control = pd.concat(tables.values()).query("encoder == 'random_resnet18'")
    assert control["paper_percent"].isna().all() and control["paper_screen"].isna().all()
    frozen = tables[2][tables[2]["probe"] != "finetune_paper"]
    assert frozen["paper_percent"].isna().all()


def test_budgets_that_the_labels_do_not_carry_are_marked():
    config = study()
    scores = score_rows(config)
    found = make(scores[scores["budget"] < 350], config)
    rows = pd.concat(found.values())
    marked = rows[rows["reason"] == "not enough labels"]
    assert set(marked["budget"]) == {350} and set(marked["table"]) == {2}
    assert (marked["status"] == "not run").all()
    for number in (1, 3):  # these hold the largest budget that is carried
        assert set(found[number]["budget"]) == {25}
        assert (found[number].loc[found[number]["encoder"] != "vgg16", "status"] == "run").all()
