"""Error rates, power and coverage of the comparison of encoders.

Each study has encoders of known quality. Crops are points with a well effect that all encoders see
and one of each encoder's own; seven artefacts, unevenly spread over the wells, move them, and each
encoder shows some artefacts better than others. `labels.splits` makes the draws, a ridge classifier
learns each draw's training labels, and weighted F1 is measured on its test crops, so that draws
share wells, crops and training labels as in a study. There are as many wells that may test as
`wells` says, and as many again that only train; 24 labels in each, half of them normal.

- best excluded: the best encoder, or of equal ones the first, is called worse (5% are promised)
- false winner: one of several equal encoders, or not the best one, is called best (5% are promised)
- winner: the best encoder is called best
- still tied: encoders, of eight or --encoders, that are not distinguished from a winner by 6.7
  points, itself included, on average
- 17 points: two encoders so far apart are distinguished, among all pairs
- coverage: of the 95% intervals of differences (of equal encoders), and of means

`ours` is what the ranking does. `former` is what it did: standard errors from the bootstrap of
wells and draws, and Holm's correction over all pairs.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from hcsqc.analyses.differences import difference_variances
from hcsqc.analyses.ranking import ALPHA, best_p, holm
from hcsqc.labels.groups import WELL
from hcsqc.labels.splits import split_labels, training_crops, training_overlaps
from hcsqc.probes.resampling import interval, p_value

TEST_CROPS = 130
LARGEST = 350
LABELS_PER_WELL = 24
ARTEFACTS = 7
DIMENSIONS = ARTEFACTS + 3
WELL_SD = 0.5  # of all encoders together, and of each encoder's own
STRENGTHS = 1.0, 4.5
GAINS = np.linspace(0.7, 1.3, ARTEFACTS)
RIDGE = 3.0
REPLICATES = 300
PER_GEOMETRY = 25
# Noise of an encoder's features, in standard deviations of normal crops.
USUAL = 1.2
NOISES = {
    "equal": {},
    "winner by 3 points": {0: 0.85},
    "winner by 6.7 points": {0: 0.25},
    "two 17 points apart": {0: 0.25, 1: 2.6},
}


class Geometry(NamedTuple):
    """Labels and draws that several studies share: artefacts (0: none), wells, rows of draws."""

    kinds: np.ndarray
    well: np.ndarray
    train: list[np.ndarray]
    test: list[np.ndarray]
    wells: int
    overlap: float


def rows_of(args, wells: int, draws: int) -> list[dict]:
    """Return one row for each way of comparing encoders."""
    found: dict[str, list[pd.DataFrame]] = {"ours": [], "former": []}
    means = {}
    for number, (scenario, changes) in enumerate(NOISES.items()):
        rng = np.random.default_rng([args.seed, wells, draws, number])
        noises = [changes.get(encoder, USUAL) for encoder in range(args.encoders)]
        counts = []
        for start in range(0, args.repeats, PER_GEOMETRY):
            made = geometry(rng, wells, draws, args.budget)
            studies = simulate(rng, made, min(PER_GEOMETRY, args.repeats - start), noises)
            counts += [(study, made.overlap) for study in studies]
        truth = np.mean([f1(study.sum(axis=2)).mean(axis=1) for study, _ in counts], axis=0)
        means[scenario] = truth
        for way, judge in (("ours", ours), ("former", partial(former, rng=rng))):
            judged = pd.DataFrame([judge(study, overlap, truth) for study, overlap in counts])
            found[way].append(judged.mean().rename(scenario))
    return [summary(way, wells, draws, pd.DataFrame(rows), means) for way, rows in found.items()]


def summary(way: str, wells: int, draws: int, rates: pd.DataFrame, means: dict) -> dict:
    """Return a row of the table, in percent."""
    three, seven = "winner by 3 points", "winner by 6.7 points"
    gaps = {name: 100 * (means[name][0] - means[name][2:].mean()) for name in (three, seven)}
    apart = means["two 17 points apart"]
    values = {
        "best excluded": rates["excluded"].max(),
        "false winner": rates.loc["equal", "named"],
        "winner, 3 points": rates.loc[three, "winner"],
        "winner, 6.7 points": rates.loc[seven, "winner"],
        "still tied": rates.loc[seven, "tied"] / 100,
        "17 points": rates.loc["two 17 points apart", "apart"],
        "coverage of differences": rates.loc["equal", "differences"],
        "coverage of means": rates["means"].mean(),
    }
    measured = [*gaps.values(), 100 * (apart[0] - apart[1])]
    return {
        "wells": wells,
        "draws": draws,
        "way": way,
        **{name: "" if pd.isna(value) else f"{100 * value:.1f}" for name, value in values.items()},
        "points in truth": ", ".join(f"{gap:.1f}" for gap in measured),
    }


def geometry(rng: np.random.Generator, wells: int, draws: int, budget: int) -> Geometry:
    """Return labels whose artefacts differ from well to well, and the project's draws of them."""
    names = [f"W{number:03d}" for number in range(2 * wells)]
    rows = []
    for name in names:
        kinds = 1 + rng.choice(ARTEFACTS, LABELS_PER_WELL, p=rng.dirichlet(np.ones(ARTEFACTS)))
        for crop, kind in enumerate(np.where(np.arange(LABELS_PER_WELL) % 2, kinds, 0)):
            site = 1 + 2 * crop // LABELS_PER_WELL
            rows.append((f"s/p/{name}/s{site}/x{crop:04d}y0000", name, kind))
    labels = pd.DataFrame(rows, columns=["crop_id", "well", "kind"])
    labels["label"] = np.where(labels["kind"] > 0, "abnormal", "normal")
    labels["artefact"] = labels["kind"].astype(str)
    labels = labels.assign(plate="p", selection="random")
    seed = int(rng.integers(2**31))
    splits, _ = split_labels(labels, names[:wells], budget, LARGEST, TEST_CROPS, draws, seed, WELL)
    place = pd.Index(labels["crop_id"])
    train = [
        place.get_indexer(training_crops(splits, draw, budget)["crop_id"]) for draw in range(draws)
    ]
    tested = splits[splits["part"] == "test"]
    test = [
        place.get_indexer(tested.loc[tested["draw"] == draw, "crop_id"]) for draw in range(draws)
    ]
    well = np.repeat(np.arange(2 * wells), LABELS_PER_WELL)
    overlap = training_overlaps(splits, [budget])[budget]
    return Geometry(labels["kind"].to_numpy(), well, train, test, wells, overlap)


def simulate(
    rng: np.random.Generator, made: Geometry, studies: int, noises: list[float]
) -> np.ndarray:
    """Return test crops counted, studies x encoders x draws x wells x 4.

    The four are true and false positives, false and true negatives.
    """
    shape = (studies, len(made.kinds), DIMENSIONS)
    places = (studies, 2 * made.wells, DIMENSIONS)

    def normal(size: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(size, dtype=np.float32)

    crops = normal(shape) + np.float32(WELL_SD) * normal(places)[:, made.well]
    strength = rng.uniform(*STRENGTHS, shape[:2]).astype(np.float32)
    abnormal = made.kinds > 0
    counts = np.zeros((studies, len(noises), len(made.train), made.wells, 4), np.float32)
    for encoder, noise in enumerate(noises):
        seen = crops + np.float32(noise) * normal(shape)
        seen += np.float32(WELL_SD) * normal(places)[:, made.well]
        gains = rng.permuted(np.tile(GAINS, (studies, 1)), axis=1).astype(np.float32)
        for kind in range(ARTEFACTS):
            own = np.flatnonzero(made.kinds == kind + 1)
            seen[:, own, kind] += strength[:, own] * gains[:, kind, None]
            seen[:, own, ARTEFACTS] += strength[:, own]
        seen = np.concatenate([seen, np.ones((*shape[:2], 1), np.float32)], axis=2)
        for draw, (train, test) in enumerate(zip(made.train, made.test, strict=True)):
            fitted = seen[:, train].transpose(0, 2, 1)
            products = fitted @ seen[:, train] + RIDGE * np.eye(DIMENSIONS + 1, dtype=np.float32)
            targets = fitted @ np.where(abnormal[train], 1, -1).astype(np.float32)
            weights = np.linalg.solve(products, targets[:, :, None])
            said = (seen[:, test] @ weights)[:, :, 0] > 0
            true = abnormal[test]
            in_well = np.eye(made.wells, dtype=np.float32)[made.well[test]]
            cells = (said & true, said & ~true, ~said & true, ~said & ~true)
            for cell, mask in enumerate(cells):
                counts[:, encoder, draw, :, cell] = mask.astype(np.float32) @ in_well
    return counts


def f1(counts: np.ndarray) -> np.ndarray:
    """Return weighted F1 of crops counted (last axis); nan where there are none."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        abnormal = np.nan_to_num(2 * tp / (2 * tp + fp + fn))
        normal = np.nan_to_num(2 * tn / (2 * tn + fp + fn))
        return ((tp + fn) * abnormal + (tn + fp) * normal) / counts.sum(axis=-1)


def ours(counts: np.ndarray, overlap: float, truth: np.ndarray) -> dict:
    """Return what the ranking says of one study, encoders x draws x wells x 4."""
    scores = f1(counts.sum(axis=2))
    left_out = f1(counts.sum(axis=2, keepdims=True) - counts)
    left_out = np.where(counts.sum(axis=-1) > 0, left_out, np.inf).transpose(0, 2, 1)
    variance, freedom = difference_variances(scores, left_out, overlap)
    one, two = np.triu_indices(len(scores), 1)
    means = scores.mean(axis=1)
    difference, variance, freedom = means[one] - means[two], variance[one, two], freedom[one, two]
    p_alone = p_value(difference, variance, freedom)
    pairs = pd.DataFrame(
        {
            "encoder": np.r_[one, two],
            "other": np.r_[two, one],
            "difference": np.r_[difference, -difference],
            "p_alone": np.r_[p_alone, p_alone],
        }
    )
    error = t.ppf(1 - ALPHA / 2, freedom) * np.sqrt(variance)
    worse = (best_p(pairs) < ALPHA).to_numpy()
    return verdict(means, worse, holm(p_alone), np.abs(difference) <= error)


def former(counts: np.ndarray, overlap: float, truth: np.ndarray, rng: np.random.Generator) -> dict:
    """Return what Holm's correction over all pairs of a bootstrap says of one study."""
    encoders, draws, wells = counts.shape[:3]
    of_wells = rng.multinomial(wells, np.full(wells, 1 / wells), REPLICATES).astype(np.float32)
    of_draws = rng.multinomial(draws, np.full(draws, 1 / draws), REPLICATES).T
    drawn = f1(np.moveaxis(np.moveaxis(counts, 2, -1) @ of_wells.T, 2, -1))
    used = np.where(np.isnan(drawn), 0, of_draws)
    with np.errstate(invalid="ignore"):
        resampled = (used * np.nan_to_num(drawn)).sum(axis=1) / used.sum(axis=1)
    resampled = resampled[:, ~np.isnan(resampled).any(axis=0)]
    means = f1(counts.sum(axis=2)).mean(axis=1)
    one, two = np.triu_indices(encoders, 1)
    difference, replicates = means[one] - means[two], resampled[one] - resampled[two]
    variance = replicates.var(axis=1) * wells / (wells - 1)
    p = holm(p_value(difference, variance, np.full(len(one), wells - 1)))
    top = means.argmax()
    to_top = ((one == top) | (two == top)) & (p < ALPHA)
    worse = np.zeros(encoders, bool)
    worse[np.r_[one[to_top], two[to_top]]] = True
    worse[top] = False
    low, high = interval(replicates, wells)
    inside = (low <= 0) & (high >= 0)
    low, high = interval(resampled, wells)
    found = verdict(means, worse, p, inside)
    return found | {"means": ((low <= truth) & (truth <= high)).mean()}


def verdict(means: np.ndarray, worse: np.ndarray, p: np.ndarray, inside: np.ndarray) -> dict:
    """Return what is counted; pairs are in the order of their numbers, the first is 0 and 1."""
    named = worse.sum() == len(worse) - 1
    return {
        "excluded": worse[0],
        "named": named,
        "tied": (~worse).sum(),
        "winner": named and not worse[0],
        "apart": p[0] < ALPHA and means[0] > means[1],
        "differences": inside.mean(),
        "means": np.nan,
    }
