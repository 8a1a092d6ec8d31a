"""Broken promises of the threshold, in simulated screens whose good cells are known.

A screen has `wells x labels` normal labels. Their scores are logit-normal: wells differ with the
standard deviation `sd`, and a share of the wells is bad: so much higher. What a threshold loses of
the good cells of new wells is then known. Each way has three figures, in percent: how often a
promise is given, how many of those given are broken (5% may be), and how many of the normal labels
lie above the threshold: the more do, the more aberrant cells it finds.

- ours: `qc.thresholds`, Gaffke's bound by wells
- former: Korn and Graubard's effective number of independent labels
- whole wells: Clopper and Pearson's bound, as if each well kept all or lost all of its good cells
- Hoeffding: the bound of Hoeffding and Bentkus for means of wells (Bates et al. 2021,
  arXiv:2101.02703)

The second table chooses the best of several encoders by its held-out recall on the labels that set
the threshold as well; all encoders are equal. `nested` chooses without each tenth of the wells, and
scores these with that choice. Good cells lost and recall are of new wells.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import betaincinv, expit, logit
from scipy.stats import binom, norm

from hcsqc.core.errors import InputError
from hcsqc.labels.folds import held_out_fold
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import fit_detector
from hcsqc.qc.prevalence import effective_size, exact_bounds, largest_design_effect
from hcsqc.qc.thresholds import choose_threshold

CONFIDENCE = 0.95
TAIL = 1 - CONFIDENCE
LOST = 0.05
# Wells, normal labels in each, and the promise.
SCREENS = [(12, 24, 0.05), (24, 12, 0.05), (60, 10, 0.05), (75, 3, 0.05), (150, 1, 0.05)]
SCREENS += [(12, 24, 0.25)]
SDS = 0.0, 0.5, 1.0, 1.5
BAD = [(0.0, 0.0), (0.05, 3.0), (0.03, 8.0)]  # share of the wells, and how much higher
FOLDS = 10
ENCODERS, WIDTH, SHIFT, ABNORMAL_SHARE, WELL_SD = 11, 16, 2.5, 0.15, 0.5
CHOICES = [(75, 4), (150, 2)]


class Wells(NamedTuple):
    """How many wells, normal labels in each, and what the wells are like."""

    wells: int
    labels: int
    sd: float
    bad: float
    shift: float


def promise_rows(repeats: int, seed: int) -> list[dict]:
    """Return a row for each kind of screen, with the figures of each way."""
    rows = []
    for wells, labels, lost in SCREENS:
        for bad, shift in BAD:
            for sd in SDS:
                kind = Wells(wells, labels, sd, bad, shift)
                states = [np.random.default_rng([seed, wells, number]) for number in range(repeats)]
                found = [screen_of(state, kind) for state in states]
                row = {
                    "wells x labels": f"{wells} x {labels}",
                    "promise": f"{100 * lost:g}%",
                    "bad wells": f"{100 * bad:g}%, {shift:g} higher" if bad else "0%",
                    "sd": f"{sd:g}",
                }
                for name, way in WAYS.items():
                    row[name] = _figures(found, way, lost, kind)
                rows.append(row)
    return rows


def _figures(screens, way, lost: float, kind: Wells) -> str:
    thresholds = [(way(scores, wells, lost), scores) for scores, wells in screens]
    given = [(level, scores) for level, scores in thresholds if level is not None]
    share = f"{100 * len(given) / len(screens):.0f}"
    if not given:
        return share
    broken = np.mean([good_cells_lost(level, kind) > lost for level, _ in given])
    above = np.mean([(scores > level).mean() for level, scores in given])
    return f"{share}, {100 * broken:.1f}, {100 * above:.1f}"


def screen_of(rng: np.random.Generator, kind: Wells) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of normal labels and their wells."""
    place = np.repeat(np.arange(kind.wells), kind.labels)
    effects = kind.sd * rng.normal(size=kind.wells)
    effects += kind.shift * (rng.random(kind.wells) < kind.bad)
    return expit(rng.normal(size=len(place)) + effects[place]), place


def good_cells_lost(threshold: float, kind: Wells) -> float:
    """Return the share of the good cells of new wells above a threshold."""
    level, width = logit(threshold), np.hypot(1, kind.sd)
    usual, bad = norm.sf(level / width), norm.sf((level - kind.shift) / width)
    return (1 - kind.bad) * usual + kind.bad * bad


def ours(scores: np.ndarray, wells: np.ndarray, lost: float) -> float | None:
    """Return the threshold that `qc` sets, or None without a promise."""
    try:
        return choose_threshold(
            scores, np.zeros(len(scores), int), wells, lost, CONFIDENCE
        ).threshold
    except InputError:
        return None


def _walk(scores: np.ndarray, wells: np.ndarray, lost: float):
    """Return labels from high to low, hits of each well above each step, and labels in a well."""
    order = np.argsort(-scores, kind="stable")
    steps = int(lost * len(scores)) + 1
    hits = np.zeros((steps, wells.max() + 1))
    hits[np.arange(1, steps), wells[order[: steps - 1]]] = 1
    return scores[order[:steps]], hits.cumsum(axis=0), np.bincount(wells)


def _loosest(values: np.ndarray, kept: np.ndarray) -> float | None:
    last = int(np.argmin(np.append(kept, False))) - 1
    return None if last < 0 else float(values[last])


def whole_wells(scores: np.ndarray, wells: np.ndarray, lost: float) -> float | None:
    """Return the threshold by the exact bound of so many wells lost."""
    values, hits, sizes = _walk(scores, wells, lost)
    lost_wells = (hits / sizes).sum(axis=1)
    bounds = betaincinv(lost_wells + 1, len(sizes) - lost_wells, CONFIDENCE)
    return _loosest(values, bounds <= lost)


def hoeffding(scores: np.ndarray, wells: np.ndarray, lost: float) -> float | None:
    """Return the threshold by the bound of Hoeffding and Bentkus."""
    values, hits, sizes = _walk(scores, wells, lost)
    count, total = len(sizes), (hits / sizes).sum(axis=1)
    mean = np.minimum(total / count, lost)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(mean > 0, mean * np.log(mean / lost), 0)
    entropy = above + (1 - mean) * np.log((1 - mean) / (1 - lost))
    p = np.minimum(np.exp(-count * entropy), np.e * binom.cdf(np.ceil(total - 1e-9), count, lost))
    return _loosest(values, p <= TAIL)


def former(scores: np.ndarray, wells: np.ndarray, lost: float) -> float | None:
    """Return the threshold by Korn and Graubard's bound, as it was set before."""
    values, hits, sizes = _walk(scores, wells, lost)
    n, count = len(scores), len(sizes)
    share = hits.sum(axis=1) / n
    variance = count / (count - 1) * ((hits - share[:, None] * sizes) ** 2).sum(axis=1) / n**2
    with np.errstate(invalid="ignore"):
        effects = variance / (share * (1 - share) / (n - 1))
    highest = (scores > np.quantile(scores, 0.9, method="lower")).astype(float)
    least = 1 + max(_likeness(highest, wells), 0) * (largest_design_effect(sizes) - 1)
    worth = effective_size(n, np.fmax(effects, least), count, TAIL)
    return _loosest(values, exact_bounds(share * worth, worth, TAIL)[1] <= lost)


def _likeness(values: np.ndarray, place: np.ndarray) -> float:
    """Return the intraclass correlation, by analysis of variance; 0 of single labels."""
    sizes = np.bincount(place)
    n, groups = len(values), len(sizes)
    if n == groups or np.ptp(values) == 0:
        return 0.0
    means = np.bincount(place, weights=values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
    within = ((values - means[place]) ** 2).sum() / (n - groups)
    usual = (n - (sizes**2).sum() / n) / (groups - 1)
    return float((between - within) / (between + (usual - 1) * within))


WAYS = {"ours": ours, "former": former, "whole wells": whole_wells, "Hoeffding": hoeffding}


def choice_rows(repeats: int, seed: int) -> list[dict]:
    """Return a row for each way to choose the encoder, with the figures of both bounds."""
    rows = []
    for wells, labels in CHOICES:
        studies = [
            _study(np.random.default_rng([seed, wells, number]), wells, labels)
            for number in range(repeats)
        ]
        for way in ("one encoder", "chosen", "chosen, nested"):
            row = {"wells x labels": f"{wells} x {labels}", "way": way}
            for name, bound in (("ours", ours), ("former", former)):
                told = pd.DataFrame([_outcome(study, way, bound) for study in studies]).mean()
                row |= {
                    f"{name}: broken": f"{100 * told['broken']:.1f}",
                    f"{name}: good cells lost": f"{100 * told['lost']:.2f}",
                    f"{name}: recall": f"{100 * told['recall']:.1f}",
                }
            rows.append(row)
    return rows


def _study(rng, wells: int, labels: int) -> dict:
    """Return the labels, their scores by each encoder, and what is true of each encoder.

    All encoders show a cell's aberration in one direction; what else they show is their own.
    """
    place = np.repeat(np.arange(wells), labels)
    abnormal = rng.random(len(place)) < ABNORMAL_SHARE
    table = pd.DataFrame(
        {
            "plate": "p",
            "well": [f"B{one:03d}" for one in place],
            "group": [f"p/B{one:03d}" for one in place],
            "label": np.where(abnormal, "abnormal", "normal"),
            "artefact": None,
        }
    )
    held_out, models = [], []
    for _ in range(ENCODERS):
        direction = rng.normal(size=WIDTH)
        direction *= SHIFT / np.linalg.norm(direction)
        features = rng.normal(size=(len(place), WIDTH))
        features += WELL_SD * rng.normal(size=(wells, WIDTH))[place]
        features += abnormal[:, None] * direction
        fit = fit_detector(table, features, LogisticSettings((0.01,), 2), LOST)
        weight = fit.classifier.weight / fit.classifier.scale
        middle = logit(fit.classifier.scores(np.zeros((1, WIDTH)))[0])
        spread = np.hypot(1, WELL_SD) * np.linalg.norm(weight)
        held_out.append(fit.held_out)
        models.append((middle, spread, weight @ direction))
    names = table["well"].to_numpy()
    fold = held_out_fold(abnormal.astype(int), names, FOLDS, seed=0)
    return {
        "abnormal": abnormal,
        "wells": place,
        "fold": fold,
        "scores": np.array(held_out),
        "models": models,
    }


def _best(scores: np.ndarray, abnormal: np.ndarray) -> int:
    """Return the encoder with the highest recall where 5% of the normal labels are lost."""
    levels = np.quantile(scores[:, ~abnormal], 1 - LOST, axis=1, method="higher")
    return int((scores[:, abnormal] > levels[:, None]).mean(axis=1).argmax())


def _outcome(study: dict, way: str, bound) -> dict:
    abnormal, scores, fold = study["abnormal"], study["scores"], study["fold"]
    encoder = 0 if way == "one encoder" else _best(scores, abnormal)
    own = scores[encoder]
    if way == "chosen, nested":
        own = own.copy()
        for number in range(FOLDS):
            rest = fold != number
            inner = _best(scores[:, rest], abnormal[rest])
            own[~rest] = scores[inner, ~rest]
    threshold = bound(own[~abnormal], _numbered(study["wells"][~abnormal]), LOST)
    if threshold is None:
        return {"broken": np.nan, "lost": np.nan, "recall": np.nan}
    middle, spread, reach = study["models"][encoder]
    lost = norm.sf((logit(threshold) - middle) / spread)
    recall = norm.sf((logit(threshold) - middle - reach) / spread)
    return {"broken": lost > LOST, "lost": lost, "recall": recall}


def _numbered(wells: np.ndarray) -> np.ndarray:
    return np.unique(wells, return_inverse=True)[1]
