"""The study's report: what was asked, on what data, what came out, and what to believe of it."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from hcsqc.config import describe_data, shuffles_labels
from hcsqc.schema import ARTEFACTS

TABLE_TITLES = {
    1: "kNN and linear classifier on frozen features, largest label budget",
    2: "Falling label budgets",
    3: "Domain shift: the screens that were not trained on, largest label budget",
}
FIGURE_TITLES = {
    "score_against_budget": "Score against label budget",
    "shift": "Score on the other screens",
    "knn_along_epochs": "Nearest neighbours along the epochs of pretraining",
}
MOST_FAILED = 20
METRIC_NAMES = {"accuracy": "Accuracy", "f1": "F1", "auc": "AUC"}


def render_report(
    template: Path,
    config: Mapping,
    changed: Sequence[Sequence],
    tables: Mapping[int, pd.DataFrame],
    figures: Sequence[Path],
    labels: Mapping[str, pd.DataFrame],
    summaries: Mapping[str, pd.DataFrame],
    encoders: Mapping[str, Mapping],
) -> str:
    """Return the report as one HTML page with its pictures inside; all text is escaped.

    `changed` lists what the study does otherwise than the paper's, as (key, value, default).
    """
    shuffled = [probe for probe in config["study"]["probes"] if shuffles_labels(config, probe)]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text()).render(
        study=config["study"],
        data=describe_data(config),
        changed=[row for row in changed if not row[0].startswith(("screens.", "study.name"))],
        tables=[
            {"number": number, "title": TABLE_TITLES[number], "groups": layout_table(table)}
            for number, table in tables.items()
        ],
        best=best_encoders(tables[2][~tables[2]["probe"].isin(shuffled)]),
        shuffled=shuffled,
        against_control=against_control(tables[1], config["probes"]),
        figures=[
            {"name": path.stem, "png": base64.b64encode(path.read_bytes()).decode()}
            for path in figures
        ],
        labels={name: label_counts(table) for name, table in labels.items()},
        screens={name: screen_counts(table) for name, table in summaries.items()},
        failed=failed_fields(summaries),
        most_failed=MOST_FAILED,
        encoders=encoders,
        metric_names=METRIC_NAMES,
        figure_titles=FIGURE_TITLES,
    )


def layout_table(table: pd.DataFrame) -> list[dict]:
    """Return a table by probe and screen: per encoder one cell per budget and metric."""
    groups = []
    for (probe, screen), rows in table.groupby(["probe", "screen"], sort=False):
        budgets = list(dict.fromkeys(rows["budget"]))
        lines = []
        for encoder, own in rows.groupby("encoder", sort=False):
            cells = own.set_index(["budget", "metric"])
            lines.append(
                {
                    "encoder": encoder,
                    "kind": own["kind"].iloc[0],
                    "reason": own["reason"].iloc[0] if (own["status"] != "run").all() else None,
                    "cells": [
                        _cell(cells.loc[(budget, metric)])
                        for budget in budgets
                        for metric in METRIC_NAMES
                    ],
                }
            )
        run = rows[rows["status"] == "run"]
        groups.append(
            {
                "probe": probe,
                "screen": screen,
                "budgets": budgets,
                "lines": lines,
                "n_test": int(run["n_test"].max()) if len(run) else None,
                "draws": int(run["draws"].max()) if len(run) else None,
            }
        )
    return groups


def _cell(row: pd.Series) -> dict:
    def text(value: float) -> str | None:
        return None if pd.isna(value) else f"{value:.1f}"

    return {
        "percent": text(row["percent"]),
        "interval": None if pd.isna(row["low"]) else f"{row['low']:.1f} to {row['high']:.1f}",
        "paper": text(row["paper_percent"]),
    }


def best_encoders(table: pd.DataFrame) -> list[dict]:
    """Return, per probe and budget, the encoder with the highest mean F1 and those within reach.

    Within reach is whoever's interval holds the best mean; without intervals nobody is called so.
    """
    found = []
    rows = table[(table["metric"] == "f1") & (table["status"] == "run")]
    for (probe, budget), group in rows.groupby(["probe", "budget"], sort=False):
        best = group.loc[group["percent"].idxmax()]
        near = group[(group["high"] >= best["percent"]) & (group["encoder"] != best["encoder"])]
        found.append(
            {
                "probe": probe,
                "budget": budget,
                "encoder": best["encoder"],
                "percent": f"{best['percent']:.1f}",
                "near": near["encoder"].tolist(),
                "has_interval": group["high"].notna().any(),
            }
        )
    return found


def against_control(table: pd.DataFrame, probes: Mapping[str, Mapping]) -> list[dict]:
    """Return, per self-supervised encoder, whether its kNN accuracy is above the best control's.

    `table` is table 1. Empty where there is no kNN probe, no control or no such encoder.
    """
    knn = table["probe"].map(
        lambda name: probes[name]["kind"] == "knn" and not probes[name].get("shuffle_labels")
    )
    rows = table[knn & (table["metric"] == "accuracy") & (table["status"] == "run")]
    found = []
    for probe, group in rows.groupby("probe", sort=False):
        controls = group[group["kind"] == "control"]
        if not len(controls):
            continue
        control = controls.loc[controls["percent"].idxmax()]
        for row in group[group["kind"] == "ssl"].itertuples():
            found.append(
                {
                    "probe": probe,
                    "encoder": row.encoder,
                    "percent": f"{row.percent:.1f}",
                    "control": control["encoder"],
                    "control_percent": f"{control['percent']:.1f}",
                    "beats": bool(row.percent > control["percent"]),
                }
            )
    return found


def label_counts(labels: pd.DataFrame) -> dict[str, int]:
    """Return how many labelled crops there are: normal, then by artefact."""
    kinds = labels["artefact"].fillna("abnormal").where(labels["label"] == "abnormal", "normal")
    counts = kinds.value_counts()
    order = ["normal", *ARTEFACTS, "abnormal"]
    return {kind: int(counts[kind]) for kind in order if kind in counts}


def screen_counts(summary: pd.DataFrame) -> dict[str, int]:
    """Return the numbers of plates, fields, failed fields, nuclei and crops of a screen."""
    return {
        "plates": summary["plate"].nunique(),
        "fields": len(summary),
        "fields failed": int((summary["status"] == "failed").sum()),
        "nuclei found": int(summary["found"].sum()),
        "crops": int(summary["kept"].sum()),
        "dropped at the border": int(summary["dropped"].sum()),
    }


def failed_fields(summaries: Mapping[str, pd.DataFrame]) -> list[dict]:
    """Return the fields that could not be read, with the reason."""
    rows = pd.concat(summaries.values(), ignore_index=True)
    return rows[rows["status"] == "failed"][["field_id", "reason"]].to_dict("records")
