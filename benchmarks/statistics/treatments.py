"""Leaks between wells of one treatment on two plates, by what makes a group.

Treatments are on two plates each, with an effect on the cells that comes
back there, by what `evaluation.group_by` makes a group: the AUC of a feature that is only the
compound's name, and of features of the cells; how often the 95% interval of the latter holds what
it is on compounds that trained nothing, and how wide it is.
"""

import numpy as np
import pandas as pd

from benchmarks.statistics.ranking import DIMENSIONS, PER_GEOMETRY, REPLICATES, RIDGE, WELL_SD
from hcsqc.labels.groups import COMPOUND, GROUPINGS, WELL, groups_of
from hcsqc.labels.splits import split_labels
from hcsqc.probes.metrics import auc
from hcsqc.probes.resampling import bootstrap_scores, interval

# Treatments on two plates: share of abnormal cells of every other one, what they do to features.
SHARES = 0.1, 0.9
PER_TREATED_WELL = 3
COMPOUND_SD = 2.0
SIGNAL = 1.2
TREATED_TEST = 40
TREATED_DRAWS = 10


def treated_rows(args) -> list[dict]:
    """Return one row for each way of grouping wells whose treatments are on two plates."""
    rng = np.random.default_rng([args.seed, args.compounds])
    found: dict[str, list[tuple]] = {group_by: [] for group_by in GROUPINGS}
    for start in range(0, args.treated_repeats, PER_GEOMETRY):
        labels = treated_labels(rng, args.compounds)
        wells = sorted(set(labels["well"]))
        counts = 50, 150, TREATED_TEST, TREATED_DRAWS, int(rng.integers(2**31))
        studies = range(min(PER_GEOMETRY, args.treated_repeats - start))
        features = [treated_features(rng, labels) for _ in studies]
        for group_by, rows in found.items():
            splits = split_labels(labels, wells, *counts, group_by)[0]
            by_name = area(scored(splits, labels, pd.get_dummies(labels["compound"]).to_numpy()))
            for seen in features:
                rows.append((by_name, *measured(scored(splits, labels, seen))))
    tables = {
        group_by: pd.DataFrame(rows, columns=["name", "cells", "low", "high"])
        for group_by, rows in found.items()
    }
    truth = tables[COMPOUND]["cells"].mean()
    return [
        {
            "group_by": group_by,
            "AUC of the name": f"{table['name'].mean():.3f}",
            "AUC of the cells": f"{table['cells'].mean():.3f}",
            "of other compounds": f"{truth:.3f}",
            "coverage": f"{100 * ((table['low'] <= truth) & (truth <= table['high'])).mean():.1f}",
            "width": f"{(table['high'] - table['low']).mean():.3f}",
        }
        for group_by, table in tables.items()
    ]


def treated_labels(rng: np.random.Generator, compounds: int) -> pd.DataFrame:
    """Return labels of compounds in a well of each of two plates, never the same one."""
    compound = np.tile(np.repeat(np.arange(compounds), PER_TREATED_WELL), 2)
    plate = np.repeat([0, 1], compounds * PER_TREATED_WELL)
    well = (compound + 5 * plate) % compounds
    abnormal = rng.random(len(compound)) < np.array(SHARES)[compound % 2]
    crop = np.tile(np.arange(PER_TREATED_WELL), 2 * compounds)
    labels = pd.DataFrame({"plate": plate, "well": well, "crop": crop})
    labels["plate"], labels["well"] = "p" + labels["plate"].astype(str), well.astype(str)
    keys = "s/" + labels["plate"] + "/W" + labels["well"] + "/s1/x" + labels["crop"].astype(str)
    labels["well"] = "W" + labels["well"]
    return labels.drop(columns="crop").assign(
        crop_id=keys,
        compound="C" + pd.Series(compound).astype(str),
        label=np.where(abnormal, "abnormal", "normal"),
        selection="random",
    )


def treated_features(rng: np.random.Generator, labels: pd.DataFrame) -> np.ndarray:
    """Return features of cells: a signal, what the compound does wherever it is, wells, noise."""
    shape = len(labels), DIMENSIONS
    seen = rng.normal(size=shape)
    for column, spread in (("compound", COMPOUND_SD), ("group", WELL_SD)):
        own = groups_of(labels, WELL) if column == "group" else labels[column]
        place, names = pd.factorize(own)
        seen += spread * rng.normal(size=(len(names), DIMENSIONS))[place]
    seen[:, 0] += SIGNAL * (labels["label"] == "abnormal")
    return seen


def scored(splits: pd.DataFrame, labels: pd.DataFrame, features: np.ndarray) -> pd.DataFrame:
    """Return the predictions of a ridge classifier trained on all that each draw may train on."""
    place = pd.Index(labels["crop_id"])
    seen = np.column_stack([features, np.ones(len(features))]).astype(float)
    parts = []
    for _, own in splits.groupby("draw"):
        train, test = own[own["part"] == "train"], own[own["part"] == "test"]
        fitted = seen[place.get_indexer(train["crop_id"])]
        targets = np.where(train["label"] == "abnormal", 1.0, -1.0)
        weights = np.linalg.solve(
            fitted.T @ fitted + RIDGE * np.eye(fitted.shape[1]), fitted.T @ targets
        )
        parts.append(test.assign(score=seen[place.get_indexer(test["crop_id"])] @ weights))
    return pd.concat(parts, ignore_index=True).assign(screen="s")


def area(predictions: pd.DataFrame) -> float:
    """Return the mean AUC over draws."""
    return float(
        np.mean(
            [
                auc((rows["label"] == "abnormal").to_numpy(int), rows["score"].to_numpy().round(9))
                for _, rows in predictions.groupby("draw")
            ]
        )
    )


def measured(predictions: pd.DataFrame) -> tuple[float, float, float]:
    """Return the mean AUC over draws with its 95% interval."""
    drawn = bootstrap_scores(predictions, ["auc"], REPLICATES, seed=0)
    low, high = interval(drawn["value"].to_numpy(), int(drawn["n_groups"].iloc[0]))
    return area(predictions), float(low), float(high)
