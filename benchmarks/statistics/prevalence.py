"""Prevalence of screens without labels of their own.

A detector is fitted to 300 random
labels in 75 wells, 15% abnormal with four kinds of artefacts, and `qc.quantification` estimates how
many of the 2,000 cells of a screen with 40 wells are abnormal. The cells of that screen look as
the labelled ones do (prior shift), or half of the abnormal ones have an artefact that no label has
(new artefact), or the good ones lie half a standard deviation nearer to the abnormal ones (shifted
good cells). For each prevalence a cell has bias, root mean square error (both in percent of the
cells) and coverage of the 95% interval, where the method has one; doubted is how often the scores
are said not to fit. `former` is what quality control did: the share flagged, corrected by recall
and false positives (Rogan & Gladen 1978). HDy and KDEy are QuaPy's, and not used.
"""

from itertools import product

import numpy as np
import pandas as pd
from quapy.method.aggregative import HDy, KDEyML
from sklearn.linear_model import LogisticRegression

from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.calibration import FITS
from hcsqc.qc.detector import fit_detector, reference_of, standardised
from hcsqc.qc.quantification import USED, quantify

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


def rows_of_prevalence(args) -> list[dict]:
    """Return a row for each kind of unlabelled screen and each method."""
    found = [row for number in range(args.unlabelled) for row in estimates(args, number)]
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
