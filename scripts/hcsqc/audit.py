"""The audit: the paper's figures beside ours, checks on its own figures, its claims on our data.

Paper: Masud, Cohen et al. 2022; its 192 figures are those of `tables.PAPER_TABLES`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hcsqc.config import describe_data, probe_budgets, probed, shuffles_labels
from hcsqc.errors import InputError
from hcsqc.ranking import ALPHA

METRIC_NAMES = {"accuracy": "Accuracy", "f1": "F1", "auc": "AUC"}
PROBE_NAMES = {
    "knn": "nearest neighbours on frozen features",
    "linear": "a linear classifier on frozen features",
    "finetune": "a fine-tuned encoder",
}
# The paper's self-supervised methods, by their name in the config.
METHODS = {
    "simclr": "SimCLR",
    "barlow_twins": "Barlow Twins",
    "vicreg": "VICReg",
    "deepcluster_v2": "DeepCluster",
    "swav": "SwAV",
}
PAPER_TEST_CROPS = 130  # paper 3.1
PAPER_SHIFT_CROPS = 200  # paper 4.3
PAPER_BATCH = 32  # paper 3.3
FEW_LABELS = 10  # paper 4.2
# One crop of 130 is 0.8 points: a drop that is surely below one point is none worth the name.
SMALLEST_DROP = 0.01
RANKING_COLUMNS = ["probe", "budget", "screen", "metric", "encoder", "other"]
RANKING_COLUMNS += ["difference", "low", "high", "p"]
DROP_COLUMNS = ["encoder", "probe", "low_budget", "high_budget", "drop", "low", "high"]
COST_COLUMNS = ["encoder", "probe", "budget", "seconds", "device"]
PAPER_COLUMNS = ["table", "encoder", "probe", "budget", "screen", "metric", "percent"]
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"


# The paper's own figures.


def paper_checks(paper: pd.DataFrame) -> list[dict]:
    """Return name, title, numbers, found and follows of each check on the paper's own figures.

    `paper` has one row per figure, as `tables.PAPER_TABLES`: percent with two decimals. `numbers`
    are those that the text `found` speaks of.
    """
    _check_columns(paper, PAPER_COLUMNS, "the paper's figures")
    keys = ["table", "encoder", "probe", "budget", "screen"]
    rows = paper.pivot(index=keys, columns="metric", values="percent").reset_index()
    return [
        _check_whole_test_set(rows),
        _check_384(rows),
        _check_shift_batches(rows),
        _check_auc(rows),
        _check_f1(rows),
        _check_chance(rows),
        _check_best(rows),
        _check_frozen_order(rows),
        _check_drops(rows),
    ]


def fits(percents: Sequence[float], total: int, cut_off: bool = True) -> np.ndarray:
    """Return which percentages, given to two decimals, can be a whole number of `total`.

    A figure fits if it is the share rounded to the nearest or, with `cut_off`, without its further
    decimals: the paper gives both 97.66 and 97.65.
    """
    # Whole numbers of hundredths, so that halves are exact; a half may go either way.
    hundredths = np.rint(100 * np.asarray(percents, float)).astype(int) * total
    below = 10_000 * (hundredths // 10_000)
    above = below + 10_000
    rounded = 2 * np.minimum(hundredths - below, above - hundredths) <= total
    return rounded | (cut_off & (above - hundredths < total))


def _check_whole_test_set(rows: pd.DataFrame) -> dict:
    accuracy = rows.loc[rows["table"] < 3, "accuracy"]
    count = int(fits(accuracy, PAPER_TEST_CROPS).sum())
    return {
        "name": "whole_test_set",
        "title": f"Accuracies of tables 1 and 2 as a share of {PAPER_TEST_CROPS} test images",
        "numbers": {"fit": count, "figures": len(accuracy)},
        "found": f"{count} of {len(accuracy)} accuracies can be k/{PAPER_TEST_CROPS} for a whole "
        "number k, rounded or cut off to two decimals.",
        "follows": "They are not the share of right answers among all test images scored once. "
        "We score the whole test set once.",
    }


def _check_384(rows: pd.DataFrame) -> dict:
    accuracy = rows.loc[rows["table"] < 3, "accuracy"]
    generous, strict = int(fits(accuracy, 384).sum()), int(fits(accuracy, 384, False).sum())
    full = int(fits(accuracy, 128).sum())
    chance = float(fits(np.arange(10_001) / 100, 384).mean())
    return {
        "name": "k_of_384",
        "title": "Accuracies of tables 1 and 2 as k/384",
        "numbers": {
            "fit": generous,
            "fit_rounded": strict,
            "fit_128": full,
            "figures": len(accuracy),
            "chance": chance,
        },
        "found": f"{generous} of {len(accuracy)} can be k/384, rounded or cut off ({strict} if "
        f"only rounded); of all figures with two decimals {100 * chance:.1f}% could. {full} can be "
        "k/128.",
        "follows": "384 is 3 x 128, and 128 is four full batches of 32: means over batches or "
        "repeated runs would look so (our inference); how these tables were averaged is unknown.",
    }


def _check_shift_batches(rows: pd.DataFrame) -> dict:
    accuracy = rows.loc[rows["table"] == 3, "accuracy"]
    whole, last = divmod(PAPER_SHIFT_CROPS, PAPER_BATCH)
    batches = whole + 1
    # (a / 32 + b / 8) / 7 = (a + 4 b) / 224, for a right of 6 x 32 images and b of the last 8.
    denominator = batches * PAPER_BATCH
    possible = {
        a + b * (PAPER_BATCH // last)
        for a in range(whole * PAPER_BATCH + 1)
        for b in range(last + 1)
    }
    count = int(fits(accuracy, denominator, False).sum())
    plain = int(fits(accuracy, PAPER_SHIFT_CROPS).sum())
    return {
        "name": "shift_batches",
        "title": "Accuracies of table 3 as means over batches",
        "numbers": {
            "fit": count,
            "fit_whole": plain,
            "figures": len(accuracy),
            "full_batches": whole,
            "last_batch": last,
            "denominator": denominator,
            "possible": len(possible),
        },
        "found": f"{count} of {len(accuracy)} accuracies are k/{denominator}, rounded; {plain} can "
        f"be k/{PAPER_SHIFT_CROPS}, the share of all {PAPER_SHIFT_CROPS} images. In batches of "
        f"{PAPER_BATCH} these are {whole} x {PAPER_BATCH} + {last}, and the unweighted mean over "
        f"{batches} batches, a right in the full ones and b in the last, is "
        f"(a + {PAPER_BATCH // last} b)/{denominator}.",
        "follows": f"Table 3 fits such a mean, in which an image of the last batch counts "
        f"{PAPER_BATCH // last} times as much as another; so it is not accuracy over the images.",
    }


def _check_auc(rows: pd.DataFrame) -> dict:
    below = {
        table: int((own["auc"] < own["accuracy"]).sum()) for table, own in rows.groupby("table")
    }
    total = rows.groupby("table").size()
    return {
        "name": "auc_below_accuracy",
        "title": "AUC below accuracy",
        "numbers": {f"table_{table}": below[table] for table in (1, 2)},
        "found": f"The AUC lies below the accuracy in {below[1]} of {total[1]} rows of table 1 and "
        f"in {below[2]} of {total[2]} of table 2.",
        "follows": "An AUC of scores that separate the classes well lies above the accuracy as a "
        "rule. One of hard labels, which is balanced accuracy, lies near it: the paper's may be so "
        "(our inference). Ours is of scores.",
    }


def _check_f1(rows: pd.DataFrame) -> dict:
    above = {
        table: int((own["f1"] > own["accuracy"]).sum()) for table, own in rows.groupby("table")
    }
    total = rows.groupby("table").size()
    return {
        "name": "f1_above_accuracy",
        "title": "Weighted F1 above accuracy",
        "numbers": {f"table_{table}": above[table] for table in (1, 2, 3)},
        "found": f"The weighted F1 lies above the accuracy in {above[3]} of {total[3]} rows of "
        f"table 3, {above[1]} of {total[1]} of table 1 and {above[2]} of {total[2]} of table 2. On "
        "a set that is half normal it cannot: with e errors in all and x right answers in a class, "
        "the class's F1 is 2x/(2x + e). This is concave in x, so the mean of both classes is at "
        "most its value at the mean of x, which is the accuracy.",
        "follows": "These F1 scores do not come from the whole balanced set. Means over batches "
        "that are not balanced can do it: in a batch of one class weighted F1 is 2a/(1 + a), above "
        "its accuracy a.",
    }


def _check_chance(rows: pd.DataFrame) -> dict:
    lowest = rows.loc[rows["accuracy"].idxmin()]
    percent = float(lowest["accuracy"])
    p_values = {}
    for total in (PAPER_TEST_CROPS, PAPER_SHIFT_CROPS):
        right = round(percent / 100 * total)
        p_values[total] = (right, float(binomtest(right, total).pvalue))
    (few, p_few), (many, p_many) = p_values[PAPER_TEST_CROPS], p_values[PAPER_SHIFT_CROPS]
    return {
        "name": "below_chance",
        "title": "An accuracy below chance",
        "numbers": {"percent": percent, "p_130": p_few, "p_200": p_many},
        "found": f"The lowest accuracy is {METHODS.get(lowest['encoder'], lowest['encoder'])}'s in "
        f"table {lowest['table']}, {percent}%. Of two classes alike, an exact "
        "binomial test against one half gives "
        f"p = {p_few:.4f} for {few} of {PAPER_TEST_CROPS} images and p = {p_many:.5f} for {many} "
        f"of the {PAPER_SHIFT_CROPS} that table 3 names (two-sided).",
        "follows": "It is significantly below chance: a classifier that had learned nothing would "
        "rarely do so badly. Its answers are turned about on the other screen, or the figure is no "
        "accuracy over the images.",
    }


def _check_best(rows: pd.DataFrame) -> dict:
    right, total = 127, PAPER_TEST_CROPS
    test = binomtest(right, total)
    exact, wilson = test.proportion_ci(method="exact"), test.proportion_ci(method="wilson")
    low, high = 100 * exact.low, 100 * exact.high
    best = rows[rows["table"] == 1]
    inside = best[best["accuracy"].between(low, high)]
    names = sorted(set(inside["encoder"]))
    return {
        "name": "interval_of_the_best",
        "title": f"How sure {right} right of {total} are",
        "numbers": {
            "low": low,
            "high": high,
            "wilson_low": 100 * wilson.low,
            "wilson_high": 100 * wilson.high,
            "inside": len(inside),
            "rows": len(best),
        },
        "found": f"{right}/{total} is {100 * right / total:.1f}%, with an exact (Clopper-Pearson) "
        f"95% interval of {low:.1f} to {high:.1f} (Wilson's: {100 * wilson.low:.1f} to "
        f"{100 * wilson.high:.1f}). {len(inside)} of the {len(best)} accuracies of table 1 lie "
        f"inside, of {', '.join(names)}.",
        "follows": "The order of the best encoders is not supported by a test set of this size; "
        "we give intervals and compare encoders on the same test crops.",
    }


def _check_frozen_order(rows: pd.DataFrame) -> dict:
    own = rows[(rows["table"] == 1) & rows["encoder"].isin(METHODS)]
    numbers: dict[str, object] = {}
    for probe, metric in product(("knn", "linear"), ("accuracy", "f1")):
        group = own[own["probe"] == probe]
        best = sorted(group.loc[group[metric] == group[metric].max(), "encoder"])
        numbers[f"{probe}_{metric}"] = " and ".join(METHODS[name] for name in best)
    return {
        "name": "best_frozen_method",
        "title": "The best self-supervised method on frozen features, by the paper's own figures",
        "numbers": numbers,
        "found": "Highest with nearest neighbours: "
        f"{numbers['knn_accuracy']} by accuracy, {numbers['knn_f1']} by F1. With a linear "
        f"classifier: {numbers['linear_accuracy']} by accuracy, {numbers['linear_f1']} by F1.",
        "follows": 'The text says that DeepCluster "performs best in both settings" and calls F1 '
        '"the most important metric"; read both off this line.',
    }


def _check_drops(rows: pd.DataFrame) -> dict:
    own = rows[(rows["table"] == 2) & rows["encoder"].isin(METHODS)]
    scores = own.pivot(index="encoder", columns="budget", values="f1")
    most, fewest = scores.columns.max(), scores.columns.min()
    drops = (scores[most] - scores[fewest]).sort_values(ascending=False)
    listed = ", ".join(f"{METHODS[name]} {drop:.2f}" for name, drop in drops.items())
    return {
        "name": "drops",
        "title": "Which self-supervised methods drop with fewer labels, by the paper's own figures",
        "numbers": {name: float(drop) for name, drop in drops.items()},
        "found": f"Points of F1 lost from {most} labels to {fewest}, in table 2: {listed}.",
        "follows": "The text names VICReg, DeepCluster and SwAV as those that drop; the drops of "
        "the methods that it does not name belong beside theirs.",
    }


# The paper's figures beside ours.


def costs_of_records(records: Iterable[Mapping]) -> pd.DataFrame:
    """Return encoder, probe, budget, seconds (of wall time) and device of each probe's job.

    `records` are the `run.json` of probes. Raises InputError for a record of another job.
    """
    rows = []
    for record in records:
        key = str(record.get("key"))
        found = re.fullmatch(r"probes/([^/]+)/seed\d+/([^/]+)/budget(\d+)", key)
        if not found:
            raise InputError(f"record '{key}': not of a probe; give runs/probes/**/run.json alone")
        cost = record["cost"]
        rows.append((found[1], found[2], int(found[3]), float(cost["wall_s"]), cost["device"]))
    return pd.DataFrame(rows, columns=COST_COLUMNS)


def cells(
    paper: pd.DataFrame, tables: Mapping[int, pd.DataFrame], costs: pd.DataFrame, config: Mapping
) -> list[dict]:
    """Return the paper's figures in their order, each with what this study has beside it.

    `tables` are those of `tables.make_tables`, `costs` those of `costs_of_records`. A cell has the
    paper's table, encoder, probe (its kind), budget, screen, metric and percent, and `ours`: one
    entry for each probe of the kind and each screen, with probe, screen, percent, low, high,
    seconds (of all seeds together), jobs, device and reason (None if it was run). Where the study
    has no such cell, `ours` is empty and `reason` says why.
    """
    _check_columns(paper, PAPER_COLUMNS, "the paper's figures")
    _check_columns(costs, COST_COLUMNS, "costs")
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
    return "not measured: the study's tables hold no such row"


# The paper's claims on our data.


def verdicts(config: Mapping, ranking: pd.DataFrame, drops: pd.DataFrame) -> list[dict]:
    """Return claim, title, quotes, rule, verdict, why and comparisons for each claim of the paper.

    `ranking` is the table of that name: the difference of each encoder to each other, in fractions,
    with its interval and p. `drops` has encoder, probe, low_budget, high_budget, drop (of F1 from
    the largest budget to the smallest, a fraction), low and high (its 95% interval). A verdict is
    `supported`, `not supported` or `undecided`. Raises InputError for a column that is missing and
    for a pair that is compared twice.
    """
    _check_columns(ranking, RANKING_COLUMNS, "ranking")
    _check_columns(drops, DROP_COLUMNS, "drops")
    f1 = ranking[ranking["metric"] == "f1"]
    double = f1[f1.duplicated(RANKING_COLUMNS[:6])]
    if len(double):
        raise InputError(
            f"ranking: {double.iloc[0]['encoder']} is compared to {double.iloc[0]['other']} twice; "
            "give one row per probe, budget, screen, metric and pair of encoders"
        )
    found = {
        (row.probe, row.budget, row.screen, row.encoder, row.other): row
        for row in f1.itertuples(index=False)
    }
    ours = [
        _transfer_above(config, found),
        _best_frozen(config, found),
        _best_with_few_labels(config, found),
        _falling(config, drops),
        _best_under_shift(config, found),
    ]
    if config["study"]["smoke_test"]:
        for verdict in ours:
            verdict |= {
                "verdict": UNDECIDED,
                "why": "this is a smoke test, with too few crops to compare encoders",
                "comparisons": [],
            }
    return ours


ABOVE_RULE = (
    "Supported if each comparison below has a positive difference with corrected p < 0.05; not "
    "supported if any has a negative one with corrected p < 0.05; else undecided."
)


def _transfer_above(config: Mapping, found: Mapping) -> dict:
    transfer = [name for name in config["study"]["encoders"] if _kind(config, name) == "transfer"]
    ssl = [name for name in config["study"]["encoders"] if _kind(config, name) == "ssl"]
    missing = _methods_missing(config, METHODS)
    if not transfer:
        missing.insert(0, _nobody(config, "transfer"))
    settings, problems = _frozen(config)
    few = [
        (probe, budget, config["study"]["train"])
        for probe in _probes(config, "finetune")
        for budget in probe_budgets(config, probe)
    ]
    if not few:
        problems.append("no fine-tuned probe was run")
    shifted, said, shift_problems = _shift(config)
    verdict, why, comparisons = _judge(
        config,
        [*settings, *few, *shifted],
        list(product(transfer, ssl)),
        missing + problems + shift_problems,
        found,
    )
    compared = f" Compared: {_list(transfer)} with {_list(ssl)}; {said}." if comparisons else ""
    return {
        "claim": "transfer_above_ssl",
        "title": "Transfer learning is above self-supervision in every task",
        "quotes": [
            ("4.1", "none of the SSL methods outperforms the three TL encoders"),
            ("4.2", "none of the SSL methods outperforms the transfer learning baselines"),
            (
                "4.3",
                "none of these approaches outperformed the results obtained with the TL encoders",
            ),
        ],
        "rule": "Each transfer encoder of this study against each self-supervised one: frozen "
        "features at the largest budget, fine-tuning at every budget, and the shift. " + ABOVE_RULE,
        "verdict": verdict,
        "why": why + compared,
        "comparisons": comparisons,
    }


def _best_frozen(config: Mapping, found: Mapping) -> dict:
    settings, problems = _frozen(config)
    pairs, missing = _best_pairs(config, ["deepcluster_v2"])
    verdict, why, comparisons = _judge(config, settings, pairs, missing + problems, found)
    return {
        "claim": "deepcluster_best_frozen",
        "title": "DeepCluster is the best self-supervised method on frozen features",
        "quotes": [
            (
                "4.1",
                "Among the self-supervised method, we can observe that DeepCluster performs best "
                "in both settings",
            )
        ],
        "rule": "DeepCluster against each other self-supervised encoder, with every kNN and linear "
        "probe on frozen features at the largest budget, on the training screen. " + ABOVE_RULE,
        "verdict": verdict,
        "why": why,
        "comparisons": comparisons,
    }


def _best_with_few_labels(config: Mapping, found: Mapping) -> dict:
    fine = [
        name for name in _probes(config, "finetune") if FEW_LABELS in probe_budgets(config, name)
    ]
    every = [name for name in _probes(config) if FEW_LABELS in probe_budgets(config, name)]
    chosen = fine or every
    settings = [(probe, FEW_LABELS, config["study"]["train"]) for probe in chosen]
    pairs, missing = _best_pairs(config, ["simclr"])
    if not chosen:
        missing.append(f"no probe was run at {FEW_LABELS} labels")
    verdict, why, comparisons = _judge(config, settings, pairs, missing, found)
    why += _chosen_probes(chosen, bool(fine), f"at {FEW_LABELS} labels")
    return {
        "claim": "simclr_best_with_10_labels",
        "title": "SimCLR is the best self-supervised method at 10 labels",
        "quotes": [
            (
                "4.2",
                "With just 10 images, the best result among the SSL methods is simCLR with 84.89% "
                "accuracy",
            )
        ],
        "rule": "SimCLR against each other self-supervised encoder on the training screen, with "
        "the fine-tuned probe if it has this budget, else with every probe that has it. "
        + ABOVE_RULE,
        "verdict": verdict,
        "why": why,
        "comparisons": comparisons,
    }


def _falling(config: Mapping, drops: pd.DataFrame) -> dict:
    several = [name for name in _probes(config) if len(probe_budgets(config, name)) > 1]
    fine = [name for name in several if name in _probes(config, "finetune")]
    chosen = fine or several
    named = ["vicreg", "deepcluster_v2", "swav"]
    problems = _methods_missing(config, named)
    if not chosen:
        problems.append("no probe was run at more than one budget")
    comparisons = []
    for method, probe in product(named, chosen):
        for encoder in _encoders_of(config, method):
            own = drops[(drops["encoder"] == encoder) & (drops["probe"] == probe)]
            if not len(own) and probed(config, encoder, probe):
                problems.append(f"the drop of {encoder} with {probe} was not measured")
            for row in own.to_dict("records"):
                comparisons.append(row | {"outcome": drop_outcome(row["low"], row["high"])})
    outcomes = [row["outcome"] for row in comparisons]
    total = len(outcomes)
    if "no drop" in outcomes:
        verdict = NOT_SUPPORTED
        kept = [
            f"{row['encoder']} with {row['probe']}"
            for row in comparisons
            if row["outcome"] == "no drop"
        ]
        why = f"{len(kept)} of {total} show no drop: {_list(kept)}."
    elif problems or not total:
        verdict, why = UNDECIDED, f"{'; '.join(problems) or 'nothing was measured'}."
    elif set(outcomes) == {"drop"}:
        verdict, why = SUPPORTED, f"all {total} drops have an interval above nought."
    else:
        verdict = UNDECIDED
        why = (
            f"{outcomes.count('not told')} of {total} intervals hold nought and more than a point."
        )
    return {
        "claim": "drop_with_fewer_labels",
        "title": "VICReg, DeepCluster and SwAV drop with fewer labels",
        "quotes": [
            (
                "4.2",
                "As the number of training images decrease, VICReg, DeepCluster and SwAV display a "
                "drop in performance",
            )
        ],
        "rule": "The drop of F1 from the probe's largest budget to its smallest, with the "
        "fine-tuned probe if it has several budgets, else with every probe that has. An encoder "
        "drops if its 95% interval lies above nought; it does not if the interval reaches nought "
        "and lies below "
        f"{100 * SMALLEST_DROP:.0f} point (one crop of 130 is 0.8). Supported if all drop; not "
        "supported if any does not; else undecided. These intervals are not corrected for their "
        "number.",
        "verdict": verdict,
        "why": why + _chosen_probes(chosen, bool(fine), "at several budgets"),
        "comparisons": comparisons,
    }


def drop_outcome(low: float, high: float) -> str:
    """Return `drop`, `no drop` or `not told` of the 95% interval of a drop, in fractions."""
    if low > 0:
        return "drop"
    return "no drop" if high < SMALLEST_DROP else "not told"


def _best_under_shift(config: Mapping, found: Mapping) -> dict:
    settings, said, problems = _shift(config)
    pairs, missing = _best_pairs(config, ["simclr", "deepcluster_v2"])
    verdict, why, comparisons = _judge(config, settings, pairs, missing + problems, found)
    return {
        "claim": "best_under_shift",
        "title": "SimCLR and DeepCluster are the best self-supervised methods under shift",
        "quotes": [("4.3", "Among SSL methods, SimCLR and DeepCluster performed best")],
        "rule": "Each of the two against each self-supervised encoder that is neither, on every "
        "screen that was not trained on, with the fine-tuned probe at its largest budget, else "
        "with every probe. " + ABOVE_RULE,
        "verdict": verdict,
        "why": f"{why} {said[:1].upper()}{said[1:]}." if said else why,
        "comparisons": comparisons,
    }


def _judge(
    config: Mapping,
    settings: Sequence[tuple[str, int, str]],
    pairs: Sequence[tuple[str, str]],
    missing: list[str],
    found: Mapping,
) -> tuple[str, str, list[dict]]:
    """Return verdict, reason and comparisons of "each first encoder of a pair is above the second".

    `settings` are (probe, budget, screen); `missing` is what keeps the claim from being supported.
    """
    comparisons, missing = [], list(missing)
    for (probe, budget, screen), (encoder, other) in product(settings, pairs):
        if not (probed(config, encoder, probe) and probed(config, other, probe)):
            continue
        row = found.get((probe, budget, screen, encoder, other))
        if row is None:
            missing.append(
                f"{encoder} and {other} were not compared with {probe} at {budget} labels on "
                f"{screen}"
            )
            continue
        told = row.p < ALPHA and row.difference != 0
        outcome = ("above" if row.difference > 0 else "below") if told else "not told apart"
        comparisons.append(row._asdict() | {"outcome": outcome})
    below = [row for row in comparisons if row["outcome"] == "below"]
    unclear = [row for row in comparisons if row["outcome"] == "not told apart"]
    total = len(comparisons)
    if below:
        named = list(dict.fromkeys(f"{row['encoder']} below {row['other']}" for row in below))
        return (
            NOT_SUPPORTED,
            f"{len(below)} of {total} comparisons go the other way: {_list(named)}.",
            comparisons,
        )
    if missing or not total:
        return UNDECIDED, f"{'; '.join(missing) or 'nothing was compared'}.", comparisons
    if unclear:
        why = f"{len(unclear)} of {total} comparisons do not tell the two apart."
        return UNDECIDED, why, comparisons
    return SUPPORTED, f"all {total} comparisons go this way.", comparisons


def _frozen(config: Mapping) -> tuple[list[tuple], list[str]]:
    """Return the settings of the frozen probes, and which kind of them the study lacks."""
    largest, train = max(config["study"]["budgets"]), config["study"]["train"]
    settings, problems = [], []
    for kind in ("knn", "linear"):
        names = [name for name in _probes(config, kind) if largest in probe_budgets(config, name)]
        settings += [(name, largest, train) for name in names]
        if not names:
            problems.append(f"no probe of kind {kind} was run at {largest} labels")
    return settings, problems


def _shift(config: Mapping) -> tuple[list[tuple], str, list[str]]:
    """Return the settings under shift, a phrase that names them, and what the study lacks."""
    fine = _probes(config, "finetune")
    chosen = {name: max(probe_budgets(config, name)) for name in fine or _probes(config)}
    screens = config["study"]["test"]
    if not screens:
        return [], "", ["this study tests on no other screen"]
    settings = [(name, budget, screen) for screen in screens for name, budget in chosen.items()]
    listed = _list([f"{name} at {budget} labels" for name, budget in chosen.items()])
    return settings, f"the shift is judged with {listed} on {_list(screens)}", []


def _best_pairs(config: Mapping, best: Sequence[str]) -> tuple[list[tuple], list[str]]:
    """Return the encoders of the methods `best` against each other ssl encoder, and who lacks."""
    rivals = [
        name
        for name in config["study"]["encoders"]
        if _kind(config, name) == "ssl" and config["encoders"][name].get("method") not in best
    ]
    pairs = [pair for method in best for pair in product(_encoders_of(config, method), rivals)]
    return pairs, _methods_missing(config, METHODS)


def _probes(config: Mapping, kind: str | None = None) -> list[str]:
    return [
        name
        for name in config["study"]["probes"]
        if not shuffles_labels(config, name) and kind in (None, config["probes"][name]["kind"])
    ]


def _kind(config: Mapping, encoder: str) -> str:
    return config["encoders"][encoder]["kind"]


def _encoders_of(config: Mapping, method: str, names: Iterable[str] | None = None) -> list[str]:
    names = config["study"]["encoders"] if names is None else names
    return [
        name
        for name in names
        if _kind(config, name) == "ssl" and config["encoders"][name].get("method") == method
    ]


def _methods_missing(config: Mapping, methods: Iterable[str]) -> list[str]:
    left_out = config["study"]["not_run"]
    found = []
    for method in methods:
        if not _encoders_of(config, method):
            reasons = [left_out[name] for name in _encoders_of(config, method, left_out)]
            reason = f" ({'; '.join(reasons)})" if reasons else ""
            found.append(f"{METHODS[method]} was not run{reason}")
    return found


def _nobody(config: Mapping, kind: str) -> str:
    names = [name for name in config["study"]["not_run"] if _kind(config, name) == kind]
    return f"no {kind} encoder was run" + (f" (left out: {_list(names)})" if names else "")


def _chosen_probes(chosen: Sequence[str], fine: bool, where: str) -> str:
    if not chosen:
        return ""
    reason = "" if fine else f", because no fine-tuned probe was run {where}"
    return f" Judged with {_list(chosen)}{reason}."


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _check_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{name}: column '{missing[0]}' is missing; it needs {', '.join(columns)}")


# The page.


def render_audit(
    template: Path,
    config: Mapping,
    paper: pd.DataFrame,
    tables: Mapping[int, pd.DataFrame],
    ranking: pd.DataFrame,
    drops: pd.DataFrame,
    costs: pd.DataFrame,
) -> str:
    """Return the audit as one HTML page; all text is escaped.

    The tables are those of `cells` and `verdicts`. Raises InputError for a column that is missing.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found = cells(paper, tables, costs, config)
    judged = verdicts(config, ranking, drops)
    return environment.from_string(template.read_text()).render(
        study=config["study"],
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
        metric_names=METRIC_NAMES,
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
