"""Logistic regression on frozen features, its L2 penalty chosen on the training labels alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from hcsqc.core.errors import InputError
from hcsqc.labels.folds import grouped_folds
from hcsqc.probes.sgd import TIE
from hcsqc.probes.task import Classified, Task, select

# Norm of the mean loss's gradient at the solution. Beside Newton's method to the end, probabilities
# of 100 to 350 labels were right to 1e-7 at a C up to 10 and to 6e-6 at 100; scikit-learn's default
# of 1e-4 leaves them wrong by up to 1e-3.
TOLERANCE = 1e-8
MAXIMUM_ITERATIONS = 1000
JITTER = 1e-11  # of the rows' mean square, added to the diagonal so that equal rows have a factor


@dataclass(frozen=True)
class LogisticSettings:
    """Inverse strengths C of the L2 penalty to choose from, and inner folds to choose by.

    C is scikit-learn's: the penalty is half the squared weights over C, the loss a sum over labels.
    """

    penalties: tuple[float, ...]
    folds: int


Settings = LogisticSettings


def classify(
    crops: pd.Index, features: np.ndarray, draws: Sequence[Task], settings: Settings, seed: int
) -> Classified:
    """Fit each draw with the penalty that its training labels choose."""
    made = Classified([], trials={})
    for task in draws:
        train = select(crops, features, task.train_crops)
        fitted = fit_logistic(train, task.train_targets, task.train_groups, settings, seed)
        made.scores.append(fitted.scores(select(crops, features, task.test["crop_id"])))
        made.curves.append({"step": task.draw, "penalty": fitted.penalty})
        made.trials[str(task.draw)] = {str(value): loss for value, loss in fitted.trials.items()}
    return made


@dataclass(frozen=True)
class FittedLogistic:
    """A fit on standardised features: the C chosen, and what each C lost.

    `trials` holds for each C the mean log loss (nats) of the labels held out by the inner folds,
    each label counted once; None where there were no folds.
    """

    penalty: float
    trials: dict[float, float | None]
    centre: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    intercept: float

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """Return the probability of abnormal for each row of an m x width matrix."""
        standardised = (matrix.astype(np.float64) - self.centre) / self.scale
        return expit(standardised @ self.weight + self.intercept)


def fit_logistic(
    train: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    settings: LogisticSettings,
    seed: int,
    standardised: bool = False,
) -> FittedLogistic:
    """Fit the C with the least log loss over inner folds, by group, to all training labels.

    `train` is n x width, `targets` n of 0 and 1, `groups` the n names of their groups. Features are
    standardised by the labels that a model is fitted on, unless they are `standardised` already; a
    constant one is only centred. Ties go to the stronger penalty. Labels that carry no folds get
    the middle C, of two the smaller. `seed` shuffles groups into folds. Raises InputError on
    penalties that are no positive numbers, on labels of one class, and if a fit does not converge.
    """
    penalties = _checked(settings.penalties)
    if len(np.unique(targets)) < 2:
        raise InputError(
            f"logistic probe: the {len(targets)} training labels are all of one class; label "
            "crops of both, or raise the budget"
        )
    train = train.astype(np.float64)
    measure = _as_they_are if standardised else _standardisation
    trials = _trials(train, targets, groups, penalties, settings.folds, seed, measure)
    penalty = least_loss(trials)
    centre, scale = measure(train)
    weights, intercepts = _fits((train - centre) / scale, targets, [penalty])
    return FittedLogistic(penalty, trials, centre, scale, weights[:, 0], float(intercepts[0]))


def mean_of_models(models: Sequence[FittedLogistic]) -> FittedLogistic:
    """Return the model whose logit is the mean of the logits of models with the same C.

    It standardises as the first does; its trials are empty.
    """
    first = models[0]
    weight = np.mean([model.weight / model.scale for model in models], axis=0)
    constant = np.mean(
        [model.intercept - model.centre @ (model.weight / model.scale) for model in models]
    )
    intercept = float(constant + first.centre @ weight)
    return FittedLogistic(
        first.penalty, {}, first.centre, first.scale, weight * first.scale, intercept
    )


def logistic_scores(
    train: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    tests: Sequence[np.ndarray],
    settings: LogisticSettings,
    seed: int,
) -> list[np.ndarray]:
    """Return the scores of the rows of each matrix of `tests`: see `fit_logistic`."""
    fitted = fit_logistic(train, targets, groups, settings, seed)
    return [fitted.scores(matrix) for matrix in tests]


def _checked(penalties: Sequence[float]) -> list[float]:
    """Return the penalties in rising order."""
    if not penalties:
        raise InputError("logistic probe: no penalties to choose from; list some in penalties")
    for penalty in penalties:
        if not 0 < penalty < np.inf:
            raise InputError(
                f"logistic probe: penalty {penalty} is not a positive number; penalties are "
                "inverse strengths, such as 0.01"
            )
    return sorted(set(penalties))


def _trials(train, targets, groups, penalties, folds, seed, measure) -> dict[float, float | None]:
    losses = [
        _losses(train[fit], targets[fit], train[held], targets[held], penalties, measure)
        for fit, held in grouped_folds(targets, groups, folds, seed)
    ]
    if not losses:
        return dict.fromkeys(penalties)
    return dict(zip(penalties, np.concatenate(losses).mean(axis=0).tolist(), strict=True))


def _losses(train, targets, held, held_targets, penalties, measure) -> np.ndarray:
    """Return the log loss of each held-out label with each penalty, m x penalties."""
    centre, scale = measure(train)
    weights, intercepts = _fits((train - centre) / scale, targets, penalties)
    logits = (held - centre) / scale @ weights + intercepts
    # From logits, because a probability rounds to 0 or 1 and its logarithm is then lost.
    return np.logaddexp(0, np.where(held_targets[:, None] == 1, -logits, logits))


def least_loss(trials: dict[float, float | None]) -> float:
    """Return the C with the least loss, of ties the smallest; the middle one if none is known."""
    penalties = list(trials)
    if None in trials.values():
        return penalties[(len(penalties) - 1) // 2]
    least = min(trials.values())
    return min(penalty for penalty in penalties if trials[penalty] <= least + TIE)


def _standardisation(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; a constant one is only centred."""
    constant = np.ptp(train, axis=0) == 0
    return train.mean(axis=0), np.where(constant, 1, train.std(axis=0))


def _as_they_are(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(train.shape[1]), np.ones(train.shape[1])


def _fits(train, targets, penalties) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (width x penalties) and intercepts for standardised rows.

    An L2-penalised solution lies in the span of the rows, so where there are fewer rows than
    features the problem is solved in coordinates of an orthonormal basis of it (Hastie and
    Tibshirani 2004, doi:10.1093/biostatistics/kxh010). Cholesky's factor of the rows' products
    holds them; for 467 rows of 1100 features it takes a fifth of the time of QR.
    """
    wide = len(train) < train.shape[1]
    coordinates = _coordinates(train) if wide else train
    rows = np.column_stack([coordinates, np.ones(len(train))])
    solutions = [np.zeros(rows.shape[1])]
    for penalty in penalties:
        # Each solution is the start of the next, weaker penalty's.
        solutions.append(_solution(rows, targets, penalty, solutions[-1]))
    found = np.stack(solutions[1:], axis=1)
    weights, intercepts = found[:-1], found[-1]
    if wide:
        weights = train.T @ solve_triangular(coordinates, weights, lower=True, trans="T")
    return weights, intercepts


def _coordinates(rows: np.ndarray) -> np.ndarray:
    """Return a lower triangle whose rows have the scalar products of `rows`, n x n."""
    products = rows @ rows.T
    # Equal rows have no factor. Logits were within 6e-7 of those of an exact basis at a C up to 10,
    # and within 6e-5 at 100.
    diagonal = np.einsum("ii->i", products)
    diagonal += max(JITTER * diagonal.mean(), np.finfo(np.float64).tiny)
    return np.linalg.cholesky(products)


def _solution(rows, targets, penalty: float, start: np.ndarray) -> np.ndarray:
    """Return weights, the last that of the constant, with the least mean loss and penalty.

    SciPy's Newton-CG in a trust region: scikit-learn's solver of the same name needs an import
    that takes longer than all fits of a small budget.
    """
    n = len(targets)
    decay = np.full(rows.shape[1], 1 / penalty / n)
    decay[-1] = 0  # the intercept has no penalty
    signs = 2 * targets - 1
    # In units in which no weight's curvature is much above 1, so that one tolerance suits all.
    units = np.sqrt(np.maximum(1, decay))
    rows, decay = rows / units, decay / units**2

    def loss_and_gradient(weight):
        logits = rows @ weight
        loss = np.logaddexp(0, -signs * logits).mean() + (decay * weight**2).sum() / 2
        return loss, rows.T @ (expit(logits) - targets) / n + decay * weight

    def curvature_along(weight, direction):
        probability = expit(rows @ weight)
        bend = probability * (1 - probability) / n
        return rows.T @ (bend * (rows @ direction)) + decay * direction

    found = minimize(
        loss_and_gradient,
        start * units,
        jac=True,
        hessp=curvature_along,
        method="trust-ncg",
        options={"gtol": TOLERANCE, "maxiter": MAXIMUM_ITERATIONS},
    )
    largest = np.abs(loss_and_gradient(found.x)[1]).max()
    # The solver's own word would not do: it compares losses, which near the solution differ by
    # rounding alone, and may then stop just short of its tolerance.
    if not largest <= 10 * TOLERANCE:
        raise InputError(
            f"logistic probe: penalty {penalty:g} does not converge on {n} labels "
            f"(gradient {largest:.1g}, wanted {TOLERANCE:g}); leave it out of penalties"
        )
    return found.x / units
