"""Logistic regression on frozen features, its L2 penalty chosen on the training labels alone."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hcsqc.errors import InputError
from hcsqc.folds import grouped_folds
from hcsqc.probes.sgd import TIE

# Largest component of the mean loss's gradient at the solution. Probabilities are then right to
# about 1e-7; scikit-learn's default of 1e-4 leaves them wrong by up to 1e-3.
TOLERANCE = 1e-8
MAXIMUM_ITERATIONS = 1000


@dataclass(frozen=True)
class LogisticSettings:
    """Inverse strengths C of the L2 penalty to choose from, and inner folds to choose by.

    C is scikit-learn's: the penalty is half the squared weights over C, the loss a sum over labels.
    """

    penalties: tuple[float, ...]
    folds: int


@dataclass(frozen=True)
class FittedLogistic:
    """A fit on standardised features: the C chosen, and what each C lost.

    `trials` holds for each C the mean log loss (nats) of the labels held out by the inner folds,
    each label counted once; None where there were no folds.
    """

    penalty: float
    trials: dict[float, float | None]
    scaler: StandardScaler
    weight: np.ndarray
    intercept: float

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """Return the probability of abnormal for each row of an m x width matrix."""
        standardised = self.scaler.transform(matrix.astype(np.float64))
        return expit(standardised @ self.weight + self.intercept)


def fit_logistic(
    train: np.ndarray,
    targets: np.ndarray,
    wells: np.ndarray,
    settings: LogisticSettings,
    seed: int,
) -> FittedLogistic:
    """Fit the C with the least log loss over inner folds, by well, to all training labels.

    `train` is n x width, `targets` n of 0 and 1, `wells` the n names of their wells. Features are
    standardised by the labels that a model is fitted on; a constant one is only centred. Ties go
    to the stronger penalty. Labels that carry no folds get the middle C, of two the smaller.
    `seed` shuffles wells into folds. Raises InputError on penalties that are no positive numbers,
    on labels of one class, and if a fit does not converge.
    """
    penalties = _checked(settings.penalties)
    if len(np.unique(targets)) < 2:
        raise InputError(
            f"logistic probe: the {len(targets)} training labels are of one class; label crops of "
            "both, or raise the budget"
        )
    train = train.astype(np.float64)
    trials = _trials(train, targets, wells, penalties, settings.folds, seed)
    penalty = _choice(trials)
    scaler, weights, intercepts = _fits(train, targets, [penalty])
    return FittedLogistic(penalty, trials, scaler, weights[:, 0], float(intercepts[0]))


def logistic_scores(
    train: np.ndarray,
    targets: np.ndarray,
    wells: np.ndarray,
    tests: Sequence[np.ndarray],
    settings: LogisticSettings,
    seed: int,
) -> list[np.ndarray]:
    """Return the scores of the rows of each matrix of `tests`: see `fit_logistic`."""
    fitted = fit_logistic(train, targets, wells, settings, seed)
    return [fitted.scores(matrix) for matrix in tests]


def _checked(penalties: Sequence[float]) -> list[float]:
    """Return the penalties in rising order."""
    if not penalties:
        raise InputError("logistic probe: no penalties to choose from; list some in penalties")
    for penalty in penalties:
        if not 0 < penalty < np.inf:
            raise InputError(
                f"logistic probe: penalty {penalty} is no positive number; penalties are inverse "
                "strengths, such as 0.01"
            )
    return sorted(set(penalties))


def _trials(train, targets, wells, penalties, folds, seed) -> dict[float, float | None]:
    losses = [
        _losses(train[fit], targets[fit], train[held], targets[held], penalties)
        for fit, held in grouped_folds(targets, wells, folds, seed)
    ]
    if not losses:
        return dict.fromkeys(penalties)
    return dict(zip(penalties, np.concatenate(losses).mean(axis=0).tolist(), strict=True))


def _losses(train, targets, held, held_targets, penalties) -> np.ndarray:
    """Return the log loss of each held-out label with each penalty, m x penalties."""
    scaler, weights, intercepts = _fits(train, targets, penalties)
    logits = scaler.transform(held) @ weights + intercepts
    # From logits, because a probability rounds to 0 or 1 and its logarithm is then lost.
    return np.logaddexp(0, np.where(held_targets[:, None] == 1, -logits, logits))


def _choice(trials: dict[float, float | None]) -> float:
    penalties = list(trials)
    if None in trials.values():
        return penalties[(len(penalties) - 1) // 2]
    least = min(trials.values())
    return min(penalty for penalty in penalties if trials[penalty] <= least + TIE)


def _fits(train, targets, penalties) -> tuple[StandardScaler, np.ndarray, np.ndarray]:
    """Return the standardisation of `train`, and weights (width x penalties) and intercepts.

    An L2-penalised solution lies in the span of the rows, so the problem is solved, exactly, in
    coordinates of an orthonormal basis of it: as many as there are labels, whatever the width
    (Hastie and Tibshirani 2004, doi:10.1093/biostatistics/kxh010, with QR for their SVD, which
    takes twice as long).
    """
    scaler = StandardScaler().fit(train)
    basis, coordinates = np.linalg.qr(scaler.transform(train).T)
    rows = coordinates.T
    weights, intercepts = [], []
    # Each solution is the start of the next, weaker penalty's.
    model = LogisticRegression(
        solver="newton-cg", tol=TOLERANCE, max_iter=MAXIMUM_ITERATIONS, warm_start=True
    )
    for penalty in penalties:
        with warnings.catch_warnings():
            # The gradient says more: a failed line search, say, may have ended at the solution.
            warnings.simplefilter("ignore")
            model.set_params(C=penalty).fit(rows, targets)
        _check_convergence(model, rows, targets, penalty)
        weights.append(model.coef_[0])
        intercepts.append(model.intercept_[0])
    return scaler, basis @ np.stack(weights, axis=1), np.array(intercepts)


def _check_convergence(model: LogisticRegression, rows, targets, penalty: float) -> None:
    error = expit(model.decision_function(rows)) - targets
    gradient = np.append(rows.T @ error + model.coef_[0] / penalty, error.sum()) / len(targets)
    largest = np.abs(gradient).max()
    # The same sum in another order: not bound to be below the solver's own.
    if not largest <= 10 * TOLERANCE:
        raise InputError(
            f"logistic probe: penalty {penalty:g} does not converge on {len(targets)} labels "
            f"(gradient {largest:.1g}, wanted {TOLERANCE:g}); leave it out of penalties"
        )
