"""The audit: the paper's figures beside ours, checks on its own figures, its claims on our data."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from hcsqc.analyses.contrasts import PairedScores
from hcsqc.core.config import describe_data, shuffles_labels
from hcsqc.core.errors import InputError
from hcsqc.core.html import render
from hcsqc.core.ids import ProbeJob, probe_job, stage_of
from hcsqc.core.schema import check_columns
from hcsqc.figures.words import study_words
from hcsqc.labels.groups import UNITS
from hcsqc.probes.draws import few_draws
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.report.names import name_filters
from hcsqc.report.paper_checks import paper_checks
from hcsqc.report.paper_claims import NOT_SUPPORTED, SUPPORTED, UNDECIDED, verdicts
from hcsqc.report.tables import PAPER_COLUMNS

DATA_FILES = ("audit.html",)
TEMPLATE = Path(__file__).with_name(DATA_FILES[0])

PROBE_NAMES = {
    "knn": "nearest neighbours on frozen features",
    "linear": "a linear classifier on frozen features",
    "finetune": "a fine-tuned encoder",
}
COST_COLUMNS = ["encoder", "probe", "budget", "seconds", "device"]


def costs_of_records(records: Iterable[Mapping]) -> pd.DataFrame:
    """Return encoder, probe, budget, seconds (of wall time) and device of each probe's job.

    `records` are the `run.json` of probes. Raises InputError for a record of another job.
    """
    rows = []
    for record in records:
        job, cost = _job_of(record), record["cost"]
        rows.append((job.encoder, job.probe, job.budget, float(cost["wall_s"]), cost["device"]))
    return pd.DataFrame(rows, columns=COST_COLUMNS)


def _job_of(record: Mapping) -> ProbeJob:
    key = str(record.get("key"))
    try:
        if stage_of(key) == "probes":
            return probe_job(key)
    except InputError:
        pass
    raise InputError(f"record '{key}': not of a probe; give runs/probes/**/run.json alone")


def cells(
    paper: pd.DataFrame, tables: Mapping[int, pd.DataFrame], costs: pd.DataFrame, config: Mapping
) -> list[dict]:
    """Return the paper's figures in their order, each with what this study has beside it.

    `tables` are those of `tables.make_tables`, `costs` those of `costs_of_records`. A cell has the
    paper's table, encoder, probe (its kind), budget, screen, metric and percent, and `ours`: one
    entry for each probe of the kind and each screen, with probe, screen, percent, low, high,
    seconds (of all seeds together), jobs, device, reason (None if it was run) and few (the number
    of draws where they are too few for a mean, else None). Where the study
    has no such cell, `ours` is empty and `reason` says why.
    """
    check_columns(paper, PAPER_COLUMNS, "the paper's figures")
    check_columns(costs, COST_COLUMNS, "costs")
    probes = config["probes"]
    kinds = {
        name: probes[name]["kind"]
        for name in config["study"]["probes"]
        if not shuffles_labels(config, name)
    }
    spent = {
        key: {
            "seconds": float(own["seconds"].sum()),
            "jobs": len(own),
            "device": ", ".join(sorted(set(own["device"]))),
        }
        for key, own in costs.groupby(["encoder", "probe", "budget"])
    }
    by_key: dict[tuple, list] = {}
    for number, table in tables.items():
        for row in table.to_dict("records"):
            if row["probe"] in kinds:
                key = (number, row["encoder"], kinds[row["probe"]], row["budget"], row["metric"])
                by_key.setdefault(key, []).append(row)
    found = []
    for cell in paper[PAPER_COLUMNS].to_dict("records"):
        key = tuple(cell[name] for name in ("table", "encoder", "probe", "budget", "metric"))
        ours = [_own_cell(row, spent) for row in by_key.get(key, [])]
        found.append(
            cell | {"ours": ours, "reason": None if ours else _absent(cell, config, kinds)}
        )
    return found


def _own_cell(row: Mapping, spent: Mapping) -> dict:
    run = row["status"] == "run"
    cost = spent.get((row["encoder"], row["probe"], row["budget"]), {}) if run else {}
    return {
        "probe": row["probe"],
        "screen": row["screen"],
        **{
            name: None if pd.isna(row[name]) else float(row[name])
            for name in ("percent", "low", "high")
        },
        "seconds": cost.get("seconds"),
        "jobs": cost.get("jobs"),
        "device": cost.get("device"),
        "reason": None if run else f"not run: {row['reason']}",
        "few": few_draws(int(row["draws"])) if run else None,
    }


def _absent(cell: Mapping, config: Mapping, kinds: Mapping[str, str]) -> str:
    study = config["study"]
    if cell["encoder"] not in [*study["encoders"], *study["not_run"]]:
        return f"not run: no encoder of this study is named {cell['encoder']}"
    if cell["encoder"] in study["not_run"]:
        return f"not run: {study['not_run'][cell['encoder']]}"
    if cell["probe"] not in kinds.values():
        return f"not run: this study has no probe of kind {cell['probe']}"
    if cell["table"] == 3 and not study["test"]:
        return "not run: this study tests on no other screen"
    budgets = study["budgets"] if cell["table"] == 2 else [max(study["budgets"])]
    if cell["budget"] not in budgets:
        listed = ", ".join(map(str, budgets))
        return f"not run: table {cell['table']} of this study is at {listed} labels"
    return "not measured: the study's tables have no such row"


def render_audit(
    config: Mapping,
    paper: pd.DataFrame,
    tables: Mapping[int, pd.DataFrame],
    scores: PairedScores,
    costs: pd.DataFrame,
) -> str:
    """Return the audit as one HTML page; all text is escaped.

    The tables are those of `cells`, `scores` what `verdicts` takes. Raises InputError for a column
    that is missing.
    """
    found = cells(paper, tables, costs, config)
    judged = verdicts(config, scores)
    return render(
        TEMPLATE,
        name_filters(study_words(config), config),
        study=config["study"],
        units=UNITS[config["evaluation"]["group_by"]],
        data=describe_data(config),
        groups=layout_cells(found),
        measured=sum(any(own["reason"] is None for own in cell["ours"]) for cell in found),
        total=len(found),
        checks=paper_checks(paper),
        verdicts=judged,
        counts={
            word: sum(verdict["verdict"] == word for verdict in judged)
            for word in (SUPPORTED, NOT_SUPPORTED, UNDECIDED)
        },
        metric_names=TABLE_METRICS,
        is_missing=pd.isna,
    )


def layout_cells(found: Sequence[Mapping]) -> list[dict]:
    """Return the cells by the paper's table and probe, a row per encoder and budget.

    A row has the paper's figures by metric, and lines: a probe and screen of ours each, with cells
    by metric, the cost, and a reason if it holds for all of them.
    """
    rows: dict[tuple, dict] = {}
    for cell in found:
        key = tuple(cell[name] for name in ("table", "probe", "screen", "encoder", "budget"))
        rows.setdefault(key, {})[cell["metric"]] = cell
    groups: dict[tuple, dict] = {}
    for (table, probe, screen, encoder, budget), by_metric in rows.items():
        group = groups.setdefault(
            (table, probe, screen),
            {"table": table, "probe": probe, "name": PROBE_NAMES[probe], "screen": screen},
        )
        group.setdefault("rows", []).append(
            {
                "encoder": encoder,
                "budget": budget,
                "paper": {metric: cell["percent"] for metric, cell in by_metric.items()},
                "lines": _lines(by_metric),
            }
        )
    return list(groups.values())


def _lines(by_metric: Mapping[str, Mapping]) -> list[dict]:
    lines: dict[tuple, dict] = {}
    for metric, cell in by_metric.items():
        for own in cell["ours"]:
            place = lines.setdefault((own["probe"], own["screen"]), {})
            place[metric] = own
    made = []
    for (probe, screen), own in lines.items():
        reasons = {cell["reason"] for cell in own.values()}
        shared = len(reasons) == 1 and None not in reasons
        cost = next((cell for cell in own.values() if cell["seconds"] is not None), None)
        made.append(
            {
                "probe": probe,
                "screen": screen,
                "cells": own,
                "reason": reasons.pop() if shared else None,
                "cost": cost,
            }
        )
    if not made:
        reason = next(iter(by_metric.values()))["reason"]
        made = [{"probe": None, "screen": None, "cells": {}, "reason": reason, "cost": None}]
    return made
