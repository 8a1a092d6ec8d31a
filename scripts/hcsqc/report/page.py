"""The study's report: what to use, and behind it the data, the results and what to believe."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.config import describe_data, shuffles_labels
from hcsqc.core.html import render
from hcsqc.core.schema import ARTEFACTS
from hcsqc.figures.tables import table_parts
from hcsqc.figures.words import KIND_WORDS, Words, study_words
from hcsqc.labels.groups import UNITS
from hcsqc.labels.test_sets import kinds
from hcsqc.probes.draws import FEWEST_DRAWS_OF_A_MEAN, few_draws
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.report.costs import duration
from hcsqc.report.heat_map import heat_maps
from hcsqc.report.names import name_filters

DATA_FILES = ("page.html",)
TEMPLATE = Path(__file__).with_name(DATA_FILES[0])

TABLE_TITLES = {
    1: "kNN and linear classifier on frozen features, largest label budget",
    2: "Falling label budgets",
    3: "Domain shift: the screens that were not trained on, largest label budget",
}
FIGURE_TITLES = {
    "recommendation": "What each encoder finds, and what it costs",
    "ranking": "Every classifier: which encoders can be distinguished from the best",
    "learning_curves": "Score against labels, with fitted curves",
    "dose_response": "What is found of each artefact, by its strength",
    "shift_diagnosis": "What wins back the loss on the other screens",
    "score_histograms": "Scores of good and aberrant crops on each screen",
    "score_against_budget": "Score against labels, every classifier",
    "shift": "Score on the training screen and on the others",
    "knn_along_epochs": "Nearest neighbours along the epochs of pretraining",
}
SECTIONS = {
    "encoder": "Which encoder?",
    "labels": "How many labels?",
    "artefacts": "Which artefacts are missed?",
    "screens": "Does it hold on another screen?",
    "paper": "What did the paper find?",
    "run": "On what data, and how was it run?",
}
MOST_FAILED = 20
OTHER_METRICS = {
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "recall_at_1_percent": "Recall at 1% false alarms",
    "recall_at_5_percent": "Recall at 5%",
    "calibration_error": "Calibration error",
    "auc_of_labels": "AUC of labels*",
    "accuracy_of_batches": "Accuracy of batches*",
    "f1_of_batches": "F1 of batches*",
    "auc_of_labels_of_batches": "AUC of labels of batches*",
}


@dataclass(frozen=True)
class Evidence:
    """What the evaluation found: tables 1 to 3 and the analyses beside them."""

    tables: Mapping[int, pd.DataFrame]
    metrics: pd.DataFrame  # as tables.metrics_table returns it
    advice: Mapping  # recommendation.as_json, with its sentences and cautions
    curves: pd.DataFrame  # as learning_curves.learning_curves returns it
    detection: pd.DataFrame  # dose_response.detection, with encoder and probe
    causes: Sequence[str]  # sentences of shift.causes; none without another screen
    unseen: pd.DataFrame  # as unseen_artefacts.leave_families_out returns it, with encoder
    selections: pd.DataFrame  # as label_selection.compare_to_random returns it, with encoder
    protocol: str  # how crops are tested: splits.HELD_OUT or CROSS_VALIDATION
    largest_budget: int  # that the labels carry


def render_report(
    config: Mapping,
    changed: Sequence[Sequence],
    evidence: Evidence,
    figures: Sequence[Path],
    labels: Mapping[str, pd.DataFrame],
    summaries: Mapping[str, pd.DataFrame],
    encoders: Mapping[str, Mapping],
    trained_on: Sequence[str],
) -> str:
    """Return the report as one HTML page with its pictures inside; all text is escaped.

    `changed` lists what the study does otherwise than the paper's, as (key, value, default);
    `trained_on` the devices on which encoders were trained, with their threads.
    """
    words = study_words(config)
    shuffled = [probe for probe in config["study"]["probes"] if shuffles_labels(config, probe)]
    maps = heat_maps(evidence.detection, [evidence.advice["probe"]], [config["study"]["train"]])
    return render(
        TEMPLATE,
        name_filters(words, config) | {"duration": duration},
        study=config["study"],
        group_by=config["evaluation"]["group_by"],
        units=UNITS[config["evaluation"]["group_by"]],
        data=describe_data(config),
        changed=[row for row in changed if not row[0].startswith(("screens.", "study.name"))],
        tables=[
            {"number": number, "title": TABLE_TITLES[number], "groups": layout_table(table)}
            for number, table in evidence.tables.items()
        ],
        other_metrics=other_metrics(evidence.metrics),
        other_metric_names=OTHER_METRICS,
        advice=evidence.advice,
        answers=answers(evidence.advice, words, maps),
        sections=SECTIONS,
        kinds=KIND_WORDS,
        gains=gains(evidence.curves),
        heat_maps=maps,
        causes=[text.partition(": ")[::2] for text in evidence.causes],
        unseen=unseen(evidence.unseen),
        selections=selections(evidence.selections),
        protocol=evidence.protocol,
        largest_budget=evidence.largest_budget,
        shuffled=shuffled,
        against_control=against_control(evidence.tables[1], config["probes"]),
        figures={path.stem: base64.b64encode(path.read_bytes()).decode() for path in figures},
        labels={name: label_counts(table) for name, table in labels.items()},
        screens={name: screen_counts(table) for name, table in summaries.items()},
        failed=failed_fields(summaries),
        most_failed=MOST_FAILED,
        encoders=encoders,
        trained_on=trained_on,
        metric_names=TABLE_METRICS,
        draws_of_a_mean=FEWEST_DRAWS_OF_A_MEAN,
        figure_titles=FIGURE_TITLES,
        **table_parts(),
    )


def answers(advice: Mapping, words: Words, maps: Sequence[Mapping]) -> dict[str, str]:
    """Return a short answer to each question that a recommendation answers, by its section.

    `maps` are heat maps, that of the recommended probe on the training screen first.
    """
    if advice["encoder"] is None:
        return dict.fromkeys(SECTIONS, "")
    alike = sum(row["not_distinguished"] and not row["recommended"] for row in advice["options"])
    said = {0: "alone at the top", 1: "1 other cannot be distinguished from it"}
    found = dict.fromkeys(SECTIONS, "") | {
        "encoder": f"{words.encoder(advice['encoder'])}: "
        + said.get(alike, f"{alike} others cannot be distinguished from it"),
        "labels": f"{advice['budget']} labels",
    }
    if not advice["judged"]:
        found["encoder"] = "too few draws to say"
    if advice["budgets"]:
        row = advice["budgets"][0]
        change = round(100 * row["difference"])
        found["labels"] += f"; with {row['budget']} recall changes by {change:+d} points"
    own = [one for one in maps if one["probe"] == advice["probe"]]
    first = own[0] if own else {"artefacts": {}, "lines": {}}
    cells = first["lines"].get(advice["encoder"], [])
    shares = [
        (cell["percent"], name)
        for name, cell in zip(first["artefacts"], cells, strict=False)
        if cell
    ]
    if shares:
        percent, name = min(shares)
        found["artefacts"] = f"{name} the most: {percent}% are found"
    if advice["elsewhere"]:
        found["screens"] = "; ".join(
            f"{row['screen']}: it finds {100 * row['mean']:.0f}%" for row in advice["elsewhere"]
        )
    return found


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
                        for metric in TABLE_METRICS
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
    return {
        "percent": _text(row["percent"]),
        "interval": _interval(row["low"], row["high"]),
        "paper": _text(row["paper_percent"]),
        "few": few_draws(int(row["draws"])) if row["status"] == "run" else None,
    }


def _text(percent: float) -> str | None:
    return None if pd.isna(percent) else f"{percent:.1f}"


def _interval(low: float, high: float) -> str | None:
    return None if pd.isna(low) else f"{low:.1f} to {high:.1f}"


def other_metrics(table: pd.DataFrame) -> list[dict]:
    """Return the metrics that the paper does not report, in percent, by probe and screen.

    `table` is that of `tables.metrics_table`; of each probe the largest budget counts.
    """
    groups = []
    for (probe, screen), rows in table.groupby(["probe", "screen"], sort=False):
        own = rows[rows["budget"] == rows["budget"].max()]
        cells = own.set_index(["encoder", "metric"])[["value", "low", "high"]] * 100
        lines = {
            encoder: [
                (_text(cell["value"]), _interval(cell["low"], cell["high"]))
                for cell in cells.loc[encoder].reindex(list(OTHER_METRICS)).to_dict("records")
            ]
            for encoder in dict.fromkeys(own["encoder"])
        }
        budget = int(own["budget"].iloc[0])
        groups.append({"probe": probe, "screen": screen, "budget": budget, "lines": lines})
        groups[-1] |= {"few": few_draws(int(own["draws"].max()))}
    return groups


def gains(curves: pd.DataFrame) -> list[dict]:
    """Return per encoder and probe what the next 50 labels would bring, in points of F1.

    Where no curve is fitted, gain, interval and limit are None and reason says why.
    """
    return [
        {
            "probe": row.probe,
            "encoder": row.encoder,
            "budget": int(row.largest_budget),
            "score": f"{100 * row.score:.1f}",
        }
        | (
            {"reason": row.reason, "gain": None, "interval": None, "limit": None}
            if isinstance(row.reason, str)
            else {
                "gain": f"{row.gain_next_50:.1f}",
                "interval": _interval(row.gain_low, row.gain_high),
                "limit": f"{100 * row.asymptote:.1f}",
            }
        )
        for row in curves.sort_values(["probe", "score"], ascending=[True, False]).itertuples()
    ]


def unseen(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return encoder -> artefact -> share detected when trained with and without the family."""
    found: dict[str, dict[str, str]] = {}
    for (encoder, artefact), rows in table.groupby(["encoder", "artefact"], sort=False):
        shares = 100 * rows.groupby("seen")["detected"].mean().reindex([True, False])
        text = f"{shares[True]:.0f} / {shares[False]:.0f}" if shares.notna().all() else "-"
        found.setdefault(encoder, {})[artefact] = text
    return found


def selections(table: pd.DataFrame) -> list[dict]:
    """Return per encoder and strategy the difference in F1 to random labels, by budget.

    A cell is the difference in points, the same as text, and its 95% interval.
    """
    rows = table[table["metric"] == "f1"]
    found = []
    for (encoder, strategy), group in rows.groupby(["encoder", "strategy"], sort=False):
        cells = {
            int(row.budget): (
                100 * row.difference,
                f"{100 * row.difference:+.1f}",
                _interval(100 * row.low, 100 * row.high),
            )
            for row in group.sort_values("budget").itertuples()
        }
        found.append({"encoder": encoder, "strategy": strategy, "cells": cells})
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
    counts = kinds(labels).value_counts()
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
