"""The paper's tables 1 to 3 with ours beside them, and a table of every metric.

Table 1: frozen probes at the largest budget. Table 2: every probe at every budget. Table 3: the
screens that were not trained on, at the largest budget.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.config import FINETUNING, describe_data, probe_budgets, probed, shuffles_labels
from hcsqc.probes.draws import FEWEST_DRAWS, few_draws
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.probes.resampling import interval

COLUMNS = [
    "data",
    "table",
    "encoder",
    "kind",
    "probe",
    "budget",
    "screen",
    "metric",
    "percent",
    "low",
    "high",
    "draws",
    "seeds",
    "n_test",
    "paper_percent",
    "paper_screen",
    "status",
    "reason",
]
CELL = ["encoder", "probe", "budget", "screen", "metric"]
DATA_FILES = ("masud2022_tables.csv",)
PAPER_TABLES = Path(__file__).with_name(DATA_FILES[0])
PAPER_SCREENS = {1: "BBBC022", 2: "BBBC022", 3: "BBBC021"}
PAPER_COLUMNS = ["table", "encoder", "probe", "budget", "screen", "metric", "percent"]
# The paper's self-supervised methods, by their name in the config.
PAPER_METHODS = {
    "simclr": "SimCLR",
    "barlow_twins": "Barlow Twins",
    "vicreg": "VICReg",
    "deepcluster_v2": "DeepCluster",
    "swav": "SwAV",
}


def make_tables(
    scores: pd.DataFrame, replicates: pd.DataFrame, config: Mapping
) -> dict[int, pd.DataFrame]:
    """Return tables 1 to 3, one row per encoder x probe x budget x screen x metric.

    `scores` and `replicates` are those tables of all encoders. Each figure is the mean over draws
    and seeds, in percent, with its 95% interval from resampling groups and draws where there are
    enough draws. Encoders and budgets that were not run have a row that says why, and the reason of
    a figure from fewer than 3 draws says that these are no mean.
    """
    summary = _summarise(scores, replicates)
    paper = pd.read_csv(PAPER_TABLES)
    rows = [
        _row(table, encoder, probe, budget, screen, metric, summary, paper, config)
        for table, probe, budget, screen in _cells(config, set(scores["budget"]))
        for encoder in [*config["study"]["encoders"], *config["study"]["not_run"]]
        for metric in TABLE_METRICS
    ]
    whole = pd.DataFrame(rows, columns=COLUMNS)
    return {number: whole[whole["table"] == number] for number in (1, 2, 3)}


def metrics_table(scores: pd.DataFrame, replicates: pd.DataFrame, config: Mapping) -> pd.DataFrame:
    """Return every metric of every encoder, probe, budget and screen that was run.

    Columns: data, those of `CELL`, kind, value (a fraction, the mean over draws and seeds), its 95%
    interval low to high as in `make_tables`, draws, seeds and n_test. Figures computed as the paper
    may have (`metrics.paper_style`) have no interval.
    """
    table = _summarise(scores, replicates).reset_index()
    kinds = {name: entry["kind"] for name, entry in config["encoders"].items()}
    table.insert(0, "data", describe_data(config))
    table.insert(2, "kind", table["encoder"].map(kinds))
    return table


def _cells(config: Mapping, carried: set[int]) -> list[tuple[int, str, int, str]]:
    """Return table, probe, budget and screen; `carried` are the budgets with scores."""
    study, probes = config["study"], config["probes"]
    largest = max(carried.intersection(study["budgets"]), default=max(study["budgets"]))
    frozen = [name for name in study["probes"] if probes[name]["kind"] not in FINETUNING]
    cells = [(1, probe, largest, study["train"]) for probe in frozen]
    cells += [
        (2, probe, budget, study["train"])
        for probe in study["probes"]
        for budget in study["budgets"]
    ]
    cells += [(3, probe, largest, screen) for probe in study["probes"] for screen in study["test"]]
    return cells


def _summarise(scores: pd.DataFrame, replicates: pd.DataFrame) -> pd.DataFrame:
    """Return value, low, high, draws, seeds and n_test by `CELL`."""
    grouped = scores.groupby(CELL)
    means = replicates.groupby([*CELL, "replicate"], as_index=False)[["value", "n_groups"]].mean()
    bounds = {
        cell: interval(rows["value"].to_numpy(), int(rows["n_groups"].iloc[0]))
        for cell, rows in means.groupby(CELL)
    }
    found = {
        "value": grouped["value"].mean(),
        "draws": grouped["draw"].nunique(),
        "seeds": grouped["seed"].nunique(),
        "n_test": grouped["n_test"].first(),
    }
    summary = pd.DataFrame(found)
    few = summary["draws"] * summary["seeds"] < FEWEST_DRAWS
    pairs = [bounds.get(cell, (np.nan, np.nan)) for cell in summary.index]
    limits = pd.DataFrame(pairs, summary.index, ["low", "high"]).mask(few)
    return pd.concat([summary["value"], limits, summary.drop(columns="value")], axis=1)


def _row(table, encoder, probe, budget, screen, metric, summary, paper, config) -> dict:
    kind = config["probes"][probe]["kind"]
    cell = paper[
        (paper["table"] == table)
        & (paper["encoder"] == encoder)
        & (paper["probe"] == (None if shuffles_labels(config, probe) else kind))
        & (paper["budget"] == budget)
        & (paper["metric"] == metric)
    ]
    row = {
        "data": describe_data(config),
        "table": table,
        "encoder": encoder,
        "kind": config["encoders"][encoder]["kind"],
        "probe": probe,
        "budget": budget,
        "screen": screen,
        "metric": metric,
        "paper_percent": cell["percent"].iloc[0] if len(cell) else np.nan,
        "paper_screen": PAPER_SCREENS[table] if len(cell) else None,
    }
    key = (encoder, probe, budget, screen, metric)
    if key in summary.index:
        found = summary.loc[key]
        row |= {name: found[name] for name in ("draws", "seeds", "n_test")}
        row |= {"percent": 100 * found["value"]}
        row |= {name: 100 * found[name] for name in ("low", "high")}
        few = few_draws(int(found["draws"]))
        return row | {"status": "run", "reason": few and f"{few}, too few for a mean"}
    reason = config["study"]["not_run"].get(encoder)
    if reason is None and not probed(config, encoder, probe):
        reason = "it has no network to fine-tune"
    if reason is None and budget in probe_budgets(config, probe):
        reason = "not enough labels"
    if reason is None:
        budgets = ", ".join(map(str, probe_budgets(config, probe)))
        reason = f"this study runs {probe} at {budgets} labels"
    return row | {"status": "not run", "reason": reason}
