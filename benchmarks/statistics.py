"""Error rates, power and coverage of the comparison of encoders, in simulated studies.

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

A second table is about the prevalence of screens without labels. A detector is fitted to 300 random
labels in 75 wells, 15% abnormal with four kinds of artefacts, and `qc.quantification` estimates how
many of the 2,000 cells of a screen with 40 wells are abnormal. The cells of that screen look as
the labelled ones do (prior shift), or half of the abnormal ones have an artefact that no label has
(new artefact), or the good ones lie half a standard deviation nearer to the abnormal ones (shifted
good cells). For each prevalence a cell has bias, root mean square error (both in percent of the
cells) and coverage of the 95% interval, where the method has one; doubted is how often the scores
are said not to fit. `former` is what quality control did: the share flagged, corrected by recall
and false positives (Rogan & Gladen 1978). HDy and KDEy are QuaPy's, and not used. --repeats 0 or
--screens 0 leaves one of the tables out.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from quapy.method.aggregative import HDy, KDEyML
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks import common
from hcsqc.analyses.differences import difference_variances
from hcsqc.analyses.ranking import ALPHA, best_p, holm
from hcsqc.labels.splits import split_labels, training_crops, training_overlaps
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.probes.resampling import interval, p_value
from hcsqc.qc.calibration import FITS
from hcsqc.qc.detector import fit_detector, reference_of, standardised
from hcsqc.qc.quantification import USED, quantify

TEST_CROPS = 130
LARGEST = 350
LABELS_PER_WELL = 24
ARTEFACTS = 7
DIMENSIONS = ARTEFACTS + 3
WELL_SD = 0.5  # of all encoders together, and of each encoder's own
STRENGTHS = 1.0, 4.5
GAINS = np.linspace(0.7, 1.3, ARTEFACTS)
RIDGE = 3.0
# Noise of an encoder's features, in standard deviations of normal crops.
USUAL = 1.2
NOISES = {
    "equal": {},
    "winner by 3 points": {0: 0.85},
    "winner by 6.7 points": {0: 0.25},
    "two 17 points apart": {0: 0.25, 1: 2.6},
}
REPLICATES = 300
PER_GEOMETRY = 25

PREVALENCES = 0.005, 0.02, 0.05, 0.1, 0.3
UNLABELLED = {
    "prior shift": {},
    "new artefact": {"new": 0.5},
    "shifted good cells": {"shift": 0.5},
}
LABELLED_SHARE = 0.15
LABEL_WELLS, LABELS_OF_WELL = 75, 4
SCREEN_WELLS, CELLS_OF_WELL = 40, 50
WIDTH, KINDS = 64, 4
SCREEN_WELL_SD = 0.3
REACH = 2.0, 9.0  # of an artefact, in standard deviations of good cells
ALIKE = 3.0  # of the wells' shares of abnormal cells, parameters of a beta distribution together
LOST = 0.05
PENALTIES = LogisticSettings((0.001, 0.01, 0.1), folds=3)


class Geometry(NamedTuple):
    """Labels and draws that several studies share: artefacts (0: none), wells, rows of draws."""

    kinds: np.ndarray
    well: np.ndarray
    train: list[np.ndarray]
    test: list[np.ndarray]
    wells: int
    overlap: float


def main() -> None:
    """Read the flags, simulate the studies and print the table."""
    parser = common.parser(__doc__, rounds=False)
    parser.add_argument("--repeats", type=int, default=500, help="studies of each row")
    parser.add_argument("--wells", type=int, nargs="+", default=[6, 12, 30, 75])
    parser.add_argument("--draws", type=int, nargs="+", default=[20, 10])
    parser.add_argument("--encoders", type=int, default=8)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--screens", type=int, default=20, help="unlabelled, of each kind")
    parser.add_argument("--resamples", type=int, default=100, help="for intervals of prevalences")
    args = parser.parse_args()
    with threadpool_limits(1):
        prevalences = rows_of_prevalence(args) if args.screens else []
        rows = [
            row
            for draws in args.draws * bool(args.repeats)
            for wells in args.wells
            for row in rows_of(args, wells, draws)
        ]
    if rows:
        print(f"{args.repeats} studies a row, {args.encoders} encoders, seed {args.seed}")
        common.report(rows, args.json)
    if prevalences:
        print(f"{args.screens} screens a row, {args.resamples} resamples, seed {args.seed}")
        common.report(prevalences, None if rows else args.json)


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
    splits, _ = split_labels(labels, names[:wells], budget, LARGEST, TEST_CROPS, draws, seed)
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


def rows_of_prevalence(args) -> list[dict]:
    """Return a row for each kind of unlabelled screen and each method."""
    found = [row for number in range(args.screens) for row in estimates(args, number)]
    names = ["cells", "method", "share", "estimate", "low", "high", "truth", "doubted"]
    groups = pd.DataFrame(found, columns=names).groupby(["cells", "method"], sort=False)
    return [{"cells": cells, "method": way, **summed(one)} for (cells, way), one in groups]


def estimates(args, number: int) -> list[tuple]:
    """Return what each method estimates of the screens that one detector scores."""
    rng = np.random.default_rng([args.seed, number])
    kinds = rng.standard_normal((KINDS + 1, WIDTH))
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    vectors, kind, well = screen(rng, kinds, LABEL_WELLS, LABELS_OF_WELL, LABELLED_SHARE)
    known, targets = reference_of(vectors), (kind > 0).astype(int)
    named = np.where(kind > 0, kind.astype(str), None)
    labels = pd.DataFrame({"plate": "p", "well": well.astype(str), "artefact": named})
    labels["group"] = labels["plate"] + "/" + labels["well"]
    labels["label"] = np.where(kind > 0, "abnormal", "normal")
    fit = fit_detector(labels, standardised(vectors, known), PENALTIES, LOST)
    found = []
    for (name, changes), share in product(UNLABELLED.items(), PREVALENCES):
        vectors, kind, wells = screen(rng, kinds, SCREEN_WELLS, CELLS_OF_WELL, share, **changes)
        cells = fit.classifier.scores(standardised(vectors, known))
        rows, p = quantify(fit.held_out, targets, well, cells, wells, args.resamples)
        values = {row.method: (row.estimate, row.low, row.high) for row in rows}
        for way, estimate in others(fit.held_out, targets, cells).items():
            values[way] = (estimate, np.nan, np.nan)
        rest = ((kind > 0).mean(), p < FITS)
        found += [(name, way, share, *three, *rest) for way, three in values.items()]
    return found


def screen(
    rng: np.random.Generator,
    kinds: np.ndarray,
    wells: int,
    per_well: int,
    share: float,
    new: float = 0.0,
    shift: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a screen's cells: vectors, kinds of artefact (0: good) and wells.

    `kinds` are the directions of artefacts, of which only the share `new` of the abnormal cells has
    the last. Good cells are moved by `shift` towards the others together.
    """
    well = np.repeat(np.arange(wells), per_well)
    of_well = rng.beta(ALIKE * share, ALIKE * (1 - share), wells)
    kind = 1 + rng.integers(KINDS, size=len(well))
    kind[rng.random(len(well)) < new] = KINDS + 1
    kind[rng.random(len(well)) >= of_well[well]] = 0
    vectors = rng.standard_normal((len(well), WIDTH))
    vectors += SCREEN_WELL_SD * rng.standard_normal((wells, WIDTH))[well]
    vectors += (
        rng.uniform(*REACH, (len(well), 1)) * np.where(kind > 0, 1, 0)[:, None] * kinds[kind - 1]
    )
    together = kinds[:KINDS].sum(axis=0)
    vectors[kind == 0] += shift * together / np.linalg.norm(together)
    return vectors, kind, well


def others(scores: np.ndarray, targets: np.ndarray, cells: np.ndarray) -> dict[str, float]:
    """Return the prevalence by methods that quality control does not use."""
    normal = scores[targets == 0]
    level = np.quantile(normal, 1 - LOST, method="higher")
    lost, recall = (normal > level).mean(), (scores[targets == 1] > level).mean()
    found = {"former": np.clip(((cells > level).mean() - lost) / (recall - lost), 0, 1)}
    classes = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    for name, method in {"HDy": HDy, "KDEy": KDEyML}.items():
        given = method(classes, fit_classifier=False, val_split=None)
        given.aggregation_fit(np.stack([1 - scores, scores], axis=1), targets)
        found[name] = given.aggregate(np.stack([1 - cells, cells], axis=1))[1]
    return found


def summed(table: pd.DataFrame) -> dict:
    """Return bias, error and coverage of one method by prevalence, as texts, in percent."""
    texts = {}
    for share, one in table.groupby("share"):
        errors = 100 * (one["estimate"] - one["truth"])
        inside = (one["low"] <= one["truth"]) & (one["truth"] <= one["high"])
        covered = f"{100 * inside.mean():.0f}" if one["low"].notna().all() else "–"
        texts[f"{100 * share:g}%"] = (
            f"{errors.mean():+.1f}, {np.sqrt((errors**2).mean()):.1f}, {covered}"
        )
    used = table["method"].iloc[0] == USED
    return texts | {"doubted": f"{100 * table['doubted'].mean():.0f}" if used else ""}


if __name__ == "__main__":
    main()
