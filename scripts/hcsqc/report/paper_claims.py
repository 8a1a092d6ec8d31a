"""The paper's claims, each with a verdict on our data: supported, not supported or undecided."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import pandas as pd

from hcsqc.analyses.ranking import ALPHA
from hcsqc.core.config import probe_budgets, probe_draws, probed, shuffles_labels
from hcsqc.core.errors import InputError
from hcsqc.core.schema import check_columns
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.report.tables import PAPER_METHODS

FEW_LABELS = 10  # paper 4.2
# One crop of 130 is 0.8 points: a drop that is surely below one point is none worth the name.
SMALLEST_DROP = 0.01
RANKING_COLUMNS = ["probe", "budget", "screen", "metric", "encoder", "other"]
RANKING_COLUMNS += ["difference", "low", "high", "p"]
DROP_COLUMNS = ["encoder", "probe", "low_budget", "high_budget", "drop", "low", "high"]
NOT_TOLD, TOO_FEW = "not told apart", "too few draws"
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"


def verdicts(config: Mapping, ranking: pd.DataFrame, drops: pd.DataFrame) -> list[dict]:
    """Return claim, title, quotes, rule, verdict, why and comparisons for each claim of the paper.

    `ranking` is the table of that name: the difference of each encoder to each other, in fractions,
    with its interval and p. `drops` has encoder, probe, low_budget, high_budget, drop (of F1 from
    the largest budget to the smallest, a fraction), low and high (its 95% interval). A verdict is
    `supported`, `not supported` or `undecided`. Raises InputError for a column that is missing and
    for a pair that is compared twice.
    """
    check_columns(ranking, RANKING_COLUMNS, "ranking")
    check_columns(drops, DROP_COLUMNS, "drops")
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
    "supported if any has a negative one with corrected p < 0.05; else undecided. A probe of fewer "
    f"than {FEWEST_DRAWS} draws tells nothing apart."
)


def _transfer_above(config: Mapping, found: Mapping) -> dict:
    transfer = [name for name in config["study"]["encoders"] if _kind(config, name) == "transfer"]
    ssl = [name for name in config["study"]["encoders"] if _kind(config, name) == "ssl"]
    missing = _methods_missing(config, PAPER_METHODS)
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
        "the fine-tuned probes that have this budget, else with every probe that has it. "
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
                outcome = drop_outcome(row["low"], row["high"])
                if probe_draws(config, probe) < FEWEST_DRAWS:
                    outcome = TOO_FEW
                comparisons.append(row | {"outcome": outcome})
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
        wide, few = outcomes.count("not told"), outcomes.count(TOO_FEW)
        why = f"{wide} of {total} intervals hold nought and more than a point"
        why += f"; {few} are of too few draws." if few else "."
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
        "fine-tuned probes that have several budgets, else with every probe that has. An encoder "
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
        "screen that was not trained on, with the fine-tuned probes at their largest budget, else "
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
        outcome = ("above" if row.difference > 0 else "below") if told else NOT_TOLD
        if probe_draws(config, probe) < FEWEST_DRAWS:
            outcome = TOO_FEW
        comparisons.append(row._asdict() | {"outcome": outcome})
    below = [row for row in comparisons if row["outcome"] == "below"]
    unclear = [row["outcome"] for row in comparisons if row["outcome"] in (NOT_TOLD, TOO_FEW)]
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
        few = unclear.count(TOO_FEW)
        why = f"{len(unclear)} of {total} comparisons do not tell the two apart"
        why += f", {few} of them for want of draws." if few else "."
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
    return pairs, _methods_missing(config, PAPER_METHODS)


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
            found.append(f"{PAPER_METHODS[method]} was not run{reason}")
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
