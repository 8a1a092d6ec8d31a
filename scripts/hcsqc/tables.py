"""The paper's tables 1 to 3 with ours beside them.

Table 1: frozen probes at the largest budget. Table 2: every probe at every budget. Table 3: the
screens that were not trained on, at the largest budget.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.config import FINETUNING, describe_data, probe_budgets, probed, shuffles_labels
from hcsqc.metrics import TABLE_METRICS
from hcsqc.resampling import interval

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
# An interval over fewer draws than this would say more about luck than about spread.
FEWEST_DRAWS = 5
PAPER_TABLES = Path(__file__).with_name("masud2022_tables.csv")
PAPER_SCREENS = {1: "BBBC022", 2: "BBBC022", 3: "BBBC021"}


def make_tables(
    scores: pd.DataFrame, replicates: pd.DataFrame, config: Mapping
) -> dict[int, pd.DataFrame]:
    """Return tables 1 to 3, one row per encoder x probe x budget x screen x metric.

    `scores` and `replicates` are those tables of all encoders. Each figure is the mean over draws
    and seeds, in percent, with its 95% interval from resampling wells and draws where there are
    enough draws. Encoders and
    budgets that were not run have a row that says why.
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
    keys = ["encoder", "probe", "budget", "screen", "metric"]
    grouped = scores[scores["metric"].isin(TABLE_METRICS)].groupby(keys)
    means = replicates.groupby([*keys, "replicate"], as_index=False)[["value", "n_wells"]].mean()
    bounds = {
        cell: interval(rows["value"].to_numpy(), int(rows["n_wells"].iloc[0]))
        for cell, rows in means.groupby(keys)
    }
    summary = pd.DataFrame(
        {
            "percent": 100 * grouped["value"].mean(),
            "draws": grouped["draw"].nunique(),
            "seeds": grouped["seed"].nunique(),
            "n_test": grouped["n_test"].first(),
        }
    )
    summary["low"] = [100 * bounds[cell][0] for cell in summary.index]
    summary["high"] = [100 * bounds[cell][1] for cell in summary.index]
    return summary


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
        row |= {name: found[name] for name in ("percent", "draws", "seeds", "n_test")}
        if found["draws"] * found["seeds"] >= FEWEST_DRAWS:
            row |= {"low": found["low"], "high": found["high"]}
        return row | {"status": "run", "reason": None}
    reason = config["study"]["not_run"].get(encoder)
    if reason is None and not probed(config, encoder, probe):
        reason = "it has no network to fine-tune"
    if reason is None and budget in probe_budgets(config, probe):
        reason = "not enough labels"
    if reason is None:
        budgets = ", ".join(map(str, probe_budgets(config, probe)))
        reason = f"this study runs {probe} at {budgets} labels"
    return row | {"status": "not run", "reason": reason}
