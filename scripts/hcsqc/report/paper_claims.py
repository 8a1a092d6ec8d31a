"""The paper's claims, each with a verdict on our data: supported, not supported or undecided.

`CLAIMS` states each of them with its statistic: which encoders are compared, and over which probes,
budgets and screens their F1 scores are averaged. The statistics were chosen before any verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hcsqc.analyses.contrasts import Contrast, PairedScores, Setting
from hcsqc.analyses.ranking import ALPHA, holm
from hcsqc.core.config import FINETUNING, probe_budgets, probed, shuffles_labels
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.report.tables import PAPER_METHODS

FEW_LABELS = 10  # paper 4.2
# One crop of 130 is 0.8 points: a drop that is surely below one point is none worth the name.
SMALLEST_DROP = 0.01
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
TRANSFER = "transfer"
ABOVE_RULE = (
    "Supported if every difference is above zero, each with one-sided p < 0.05 (all must be, so "
    "that p needs no correction); not supported if one is below zero with p < 0.05, corrected by "
    "Holm's method over the claim's differences; else undecided."
)
DROP_RULE = (
    "Supported if every drop is above zero with one-sided p < 0.05; not supported if one has "
    f"p >= 0.05 and a 95% interval below {100 * SMALLEST_DROP:.0f} point (one crop of 130 is "
    "0.8); else undecided."
)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and its statistic: mean F1 over `probes`, `budget` and `screens`.

    `encoders` are methods, or `TRANSFER`: each is compared with each self-supervised encoder of
    another method, or, if the claim is about a `drop`, its largest with its smallest budget.
    """

    name: str
    title: str
    quotes: tuple[tuple[str, str], ...]
    encoders: tuple[str, ...]
    drop: bool = False
    frozen: bool = False  # the probes on frozen features alone, or all
    budget: int | None = None  # or all budgets
    trained: bool = True  # on the training screen
    shifted: bool = False  # on the other screens


CLAIMS = (
    Claim(
        "transfer_above_ssl",
        "Transfer learning is above self-supervision in every task",
        (
            ("4.1", "none of the SSL methods outperforms the three TL encoders"),
            ("4.2", "none of the SSL methods outperforms the transfer learning baselines"),
            (
                "4.3",
                "none of these approaches outperformed the results obtained with the TL encoders",
            ),
        ),
        (TRANSFER,),
        shifted=True,
    ),
    Claim(
        "deepcluster_best_frozen",
        "DeepCluster is the best self-supervised method on frozen features",
        (
            (
                "4.1",
                "Among the self-supervised method, we can observe that DeepCluster performs best "
                "in both settings",
            ),
        ),
        ("deepcluster_v2",),
        frozen=True,
    ),
    Claim(
        "simclr_best_with_10_labels",
        "SimCLR is the best self-supervised method at 10 labels",
        (
            (
                "4.2",
                "With just 10 images, the best result among the SSL methods is simCLR with 84.89% "
                "accuracy",
            ),
        ),
        ("simclr",),
        budget=FEW_LABELS,
    ),
    Claim(
        "drop_with_fewer_labels",
        "VICReg, DeepCluster and SwAV drop with fewer labels",
        (
            (
                "4.2",
                "As the number of training images decrease, VICReg, DeepCluster and SwAV display a "
                "drop in performance",
            ),
        ),
        ("vicreg", "deepcluster_v2", "swav"),
        drop=True,
    ),
    Claim(
        "best_under_shift",
        "SimCLR and DeepCluster are the best self-supervised methods under shift",
        (("4.3", "Among SSL methods, SimCLR and DeepCluster performed best"),),
        ("simclr", "deepcluster_v2"),
        trained=False,
        shifted=True,
    ),
)


def verdicts(config: Mapping, scores: PairedScores) -> list[dict]:
    """Return claim, title, quotes, rule, verdict, why and comparisons for each of `CLAIMS`.

    A verdict is `supported`, `not supported` or `undecided`. A comparison has encoder, other, the
    fields of `Contrast` and outcome: `above`, `below` or `not distinguished`.
    """
    return [_judged(config, claim, scores) for claim in CLAIMS]


def _judged(config: Mapping, claim: Claim, scores: PairedScores) -> dict:
    judged = {
        "claim": claim.name,
        "title": claim.title,
        "quotes": list(claim.quotes),
        "rule": statistic(claim) + " " + (DROP_RULE if claim.drop else ABOVE_RULE),
        "drop": claim.drop,
    }
    if config["study"]["smoke_test"]:
        why = "this is a smoke test, with too few crops to compare encoders"
        return judged | {"verdict": UNDECIDED, "why": why, "comparisons": []}
    settings, problems = _settings(config, claim)
    missing = _methods_missing(config, claim.encoders if claim.drop else PAPER_METHODS)
    compare = _drops if claim.drop else _differences
    comparisons, absent = compare(config, claim, settings, scores)
    verdict, why = _verdict(claim, comparisons, [*missing, *problems, *absent])
    return judged | {"verdict": verdict, "why": why, "comparisons": comparisons}


def statistic(claim: Claim) -> str:
    """Return in words what is averaged and compared."""
    probes = "the probes on frozen features" if claim.frozen else "all probes"
    screens = ["the training screen"] * claim.trained + ["the other screens"] * claim.shifted
    over = f"over {probes} of at least {FEWEST_DRAWS} draws, on {' and '.join(screens)}"
    if claim.drop:
        return f"Mean drop of F1 from a probe's largest budget to its smallest, {over}."
    budgets = "all budgets" if claim.budget is None else f"{claim.budget} labels"
    if claim.encoders == (TRANSFER,):
        compared = "each transfer encoder less each self-supervised one"
    else:
        methods = " and ".join(PAPER_METHODS[method] for method in claim.encoders)
        compared = f"{methods} less each other self-supervised encoder"
    return f"Mean F1 at {budgets}, {over}, all counting alike: {compared}."


def _settings(config: Mapping, claim: Claim) -> tuple[list[Setting], list[str]]:
    """Return where the claim looks, and what of that the study lacks."""
    study, problems = config["study"], []
    screens = [study["train"]] * claim.trained + list(study["test"]) * claim.shifted
    if claim.shifted and not study["test"]:
        problems.append("this study tests on no other screen")
    probes = [
        name
        for name in _probes(config)
        if not (claim.frozen and config["probes"][name]["kind"] in FINETUNING)
    ]
    settings = [
        Setting(probe, budget, screen)
        for probe in probes
        for budget in probe_budgets(config, probe)
        if claim.budget in (None, budget)
        for screen in screens
    ]
    if not settings and not problems:
        problems.append(f"no probe was run at {claim.budget or 'any'} labels")
    return settings, problems


def _differences(
    config: Mapping, claim: Claim, settings: Sequence[Setting], scores: PairedScores
) -> tuple[list[dict], list[str]]:
    study = config["study"]
    if claim.encoders == (TRANSFER,):
        firsts = [name for name in study["encoders"] if _kind(config, name) == TRANSFER]
    else:
        firsts = [name for method in claim.encoders for name in _encoders_of(config, method)]
    others = [
        name
        for name in study["encoders"]
        if _kind(config, name) == "ssl"
        and config["encoders"][name].get("method") not in claim.encoders
    ]
    absent = [] if firsts or claim.encoders != (TRANSFER,) else [_nobody(config, TRANSFER)]
    found = []
    for encoder in firsts:
        for other in others:
            both = [
                where
                for where in settings
                if all(scores.usable(name, where) for name in (encoder, other))
            ]
            if not both:
                absent.append(f"{encoder} and {other} have no probe of {FEWEST_DRAWS} draws there")
                continue
            contrast = scores.difference(
                [(encoder, where) for where in both], [(other, where) for where in both]
            )
            found.append({"encoder": encoder, "other": other} | contrast._asdict())
    below = holm(np.array([1 - row["p"] for row in found]))
    for row, p_below in zip(found, below, strict=True):
        row["outcome"] = _outcome(row["p"] < ALPHA, p_below < ALPHA)
    return found, absent


def _drops(
    config: Mapping, claim: Claim, settings: Sequence[Setting], scores: PairedScores
) -> tuple[list[dict], list[str]]:
    found, absent = [], []
    for encoder in (name for method in claim.encoders for name in _encoders_of(config, method)):
        budgets: dict[tuple[str, str], list[int]] = {}
        for where in settings:
            if probed(config, encoder, where.probe) and scores.usable(encoder, where):
                budgets.setdefault((where.probe, where.screen), []).append(where.budget)
        ends: list[tuple[Setting, Setting]] = [
            (Setting(probe, max(own), screen), Setting(probe, min(own), screen))
            for (probe, screen), own in budgets.items()
            if len(own) > 1
        ]
        if not ends:
            absent.append(f"{encoder} has no probe of {FEWEST_DRAWS} draws at several budgets")
            continue
        contrast = scores.difference(
            [(encoder, most) for most, _ in ends], [(encoder, fewest) for _, fewest in ends]
        )
        row = {"encoder": encoder, "other": "itself with fewest labels"} | contrast._asdict()
        found.append(row | {"outcome": drop_outcome(contrast)})
    return found, absent


def drop_outcome(drop: Contrast) -> str:
    """Return `above`, `below` or `not distinguished` of a drop, in fractions: see `DROP_RULE`."""
    return _outcome(drop.p < ALPHA, drop.high < SMALLEST_DROP)


def _outcome(above: bool, below: bool) -> str:
    return "above" if above else "below" if below else "not distinguished"


def _verdict(claim: Claim, comparisons: list[dict], missing: list[str]) -> tuple[str, str]:
    total, what = len(comparisons), "drops" if claim.drop else "differences"

    def named(outcome: str) -> list[str]:
        return [
            row["encoder"] if claim.drop else f"{row['encoder']} and {row['other']}"
            for row in comparisons
            if row["outcome"] == outcome
        ]

    if below := named("below"):
        way = "show no drop" if claim.drop else "go the other way"
        return NOT_SUPPORTED, f"{len(below)} of {total} {what} {way}: {_list(below)}."
    if missing or not total:
        return UNDECIDED, f"{'; '.join(missing) or 'nothing was compared'}."
    if unclear := named("not distinguished"):
        return UNDECIDED, f"{len(unclear)} of {total} {what} are not clear: {_list(unclear)}."
    return SUPPORTED, f"all {total} {what} go this way."


def _probes(config: Mapping) -> list[str]:
    return [name for name in config["study"]["probes"] if not shuffles_labels(config, name)]


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


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
