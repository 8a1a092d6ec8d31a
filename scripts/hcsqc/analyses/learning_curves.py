"""Learning curves: how the score grows with labels, and what more of them would bring.

The curve is the inverse power law score(n) = a - b * n**(-c), with a the score that no number of
labels exceeds (Figueroa et al. 2012, doi:10.1186/1472-6947-12-8). Intervals resample draws, with
all budgets of a draw together because budgets nest. Draws share labels, so that these intervals say
how much the choice of labels matters, not how much another set of labelled wells would.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from hcsqc.core.errors import InputError
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.resampling import interval

METRIC = "f1"
NEXT_LABELS = 50
FEWEST_BUDGETS = 3  # as many as the curve has parameters
DOES_NOT_RISE = "does not rise"
EXPONENTS = (0.05, 2.0)
# The loss along c may have two valleys; a grid finds the deeper one, which is then searched.
GRID = np.geomspace(*EXPONENTS, 40)
# A budget whose draws agree by chance must not take all the weight; one test crop of 130 is 0.008.
SMALLEST_SPREAD = 0.005
KEYS = ["encoder", "probe"]
COLUMNS = [
    *KEYS,
    "screen",
    "metric",
    "largest_budget",
    "score",
    "gain_next_50",
    "gain_low",
    "gain_high",
    "asymptote",
    "asymptote_low",
    "asymptote_high",
    "scale",
    "exponent",
    "budgets",
    "draws",
    "reason",
]


@dataclass(frozen=True)
class Curve:
    """a, b and c of score(n) = a - b * n**(-c)."""

    asymptote: float
    scale: float
    exponent: float

    def at(self, budgets: np.ndarray | float) -> np.ndarray:
        """Return the score, a fraction, at each number of labels."""
        return self.asymptote - self.scale * np.asarray(budgets, float) ** -self.exponent


def fit_curve(budgets: np.ndarray, scores: np.ndarray, spreads: np.ndarray) -> Curve:
    """Return the curve nearest to mean scores (fractions), in weighted least squares.

    `spreads` are standard deviations over draws; all three are of one length. 0 <= a <= 1, b >= 0
    and 0.05 <= c <= 2. Scores that fall give the level that is nearest to them, with b = 0.
    """
    budgets = np.asarray(budgets, float)
    weights = np.maximum(spreads, SMALLEST_SPREAD) ** -2.0
    weights = weights / weights.sum()
    losses, _, _ = _levels(GRID, budgets, scores, weights)
    best = int(losses.argmin())
    bounds = (GRID[max(best - 1, 0)], GRID[min(best + 1, len(GRID) - 1)])
    found = minimize_scalar(
        lambda exponent: _levels(np.array([exponent]), budgets, scores, weights)[0][0],
        bounds=bounds,
        method="bounded",
    )
    exponent = found.x if found.fun < losses[best] else GRID[best]
    _, asymptote, scale = _levels(np.array([exponent]), budgets, scores, weights)
    return Curve(float(asymptote[0]), float(scale[0]), float(exponent))


def _levels(exponents, budgets, scores, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least loss for each of k exponents, and the a and b that give it.

    With c fixed the problem is convex in a and b: the solution without bounds if it keeps them,
    else the best on one of the bounds.
    """
    x = budgets ** -exponents[:, None]
    mean_x, mean_y = x @ weights, scores @ weights
    centred = x - mean_x[:, None]
    variance = (centred**2) @ weights
    slope = -((centred * (scores - mean_y)) @ weights) / np.maximum(variance, 1e-300)
    free = mean_y + slope * mean_x
    feasible = (slope >= 0) & (free >= 0) & (free <= 1)
    level = np.full(len(exponents), np.clip(mean_y, 0, 1))
    through_one = np.maximum((x * (1 - scores)) @ weights / ((x**2) @ weights), 0)
    asymptotes = np.stack([np.where(feasible, free, level), level, np.ones(len(exponents))])
    scales = np.stack([np.where(feasible, slope, 0), np.zeros(len(exponents)), through_one])
    errors = asymptotes[..., None] - scales[..., None] * x - scores
    losses = (errors**2) @ weights
    choice = losses.argmin(axis=0)
    each = np.arange(len(exponents))
    return losses[choice, each], asymptotes[choice, each], scales[choice, each]


def learning_curves(scores: pd.DataFrame, replicates: pd.DataFrame, screen: str) -> pd.DataFrame:
    """Return a curve per encoder and probe, fitted to the mean F1 over draws on one screen.

    `scores` and `replicates` are those tables; seeds of pretraining are averaged. Columns: those of
    `COLUMNS`. score, at the largest budget, and the asymptote are fractions; gain_next_50 is in
    percentage points, what the curve says that 50 labels beyond the largest budget bring. Intervals
    are 95%, from refitting to every replicate. Where there is no curve the reason says why: fewer
    than 3 budgets or 5 draws, or a score that falls with labels beyond chance.
    Raises InputError if there are no scores of the screen.
    """
    rows = []
    for about, budgets, values, means, groups in _by_draw(scores, replicates, screen):
        row = about | {
            "screen": screen,
            "metric": METRIC,
            "largest_budget": budgets[-1],
            "score": values[:, -1].mean() if len(values) else np.nan,
            "budgets": " ".join(map(str, budgets)),
            "draws": len(values),
        }
        row["reason"] = _obstacle(budgets, values, means, groups)
        if row["reason"] is None:
            row |= _fitted(budgets, values, means, groups)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def points(scores: pd.DataFrame, replicates: pd.DataFrame, screen: str) -> pd.DataFrame:
    """Return encoder, probe, budget, score, low, high and draws: mean F1 with its interval.

    Fractions; from the same replicates as in `learning_curves`, for the figure. Fewer than 5 draws
    have no interval.
    """
    rows = []
    for about, budgets, values, means, groups in _by_draw(scores, replicates, screen):
        for place, budget in enumerate(budgets):
            low, high = interval(means[:, place], groups)
            if len(values) < FEWEST_DRAWS:
                low = high = np.nan
            score = values[:, place].mean() if len(values) else np.nan
            rows.append(about | {"budget": budget, "score": score, "low": low, "high": high})
            rows[-1] |= {"draws": len(values)}
    return pd.DataFrame(rows, columns=[*KEYS, "budget", "score", "low", "high", "draws"])


def drops(scores: pd.DataFrame, replicates: pd.DataFrame, screen: str) -> pd.DataFrame:
    """Return what each encoder and probe loses from its largest budget to its smallest.

    Columns encoder, probe, low_budget, high_budget, and drop of the mean F1, a fraction, above 0
    where few labels score less, with its 95% interval low to high, paired by replicate, and draws.
    An interval of fewer than 5 draws is not to be believed. Probes of one budget have no row.
    Raises InputError if there are no scores of the screen.
    """
    rows = []
    for about, budgets, values, means, groups in _by_draw(scores, replicates, screen):
        if len(budgets) < 2 or not len(values):
            continue
        low, high = interval(means[:, -1] - means[:, 0], groups)
        drop = (values[:, -1] - values[:, 0]).mean()
        rows.append(about | {"low_budget": budgets[0], "high_budget": budgets[-1], "drop": drop})
        rows[-1] |= {"low": low, "high": high, "draws": len(values)}
    columns = [*KEYS, "low_budget", "high_budget", "drop", "low", "high", "draws"]
    return pd.DataFrame(rows, columns=columns)


def _by_draw(
    scores, replicates, screen
) -> Iterator[tuple[dict, list[int], np.ndarray, np.ndarray, int]]:
    """Yield encoder and probe, rising budgets, and draws x budgets of F1 averaged over seeds.

    Then the replicates of their means, replicates x budgets, and the number of test groups.
    """
    own = scores[(scores["screen"] == screen) & (scores["metric"] == METRIC)]
    if not len(own):
        raise InputError(
            f"learning curves: there is no {METRIC} of screen {screen}; give the scores of "
            "the screen that was trained on"
        )
    resampled = replicates[(replicates["screen"] == screen) & (replicates["metric"] == METRIC)]
    resampled = dict(tuple(resampled.groupby(KEYS)))
    for key, group in own.groupby(KEYS, sort=False):
        # A draw that lacks a budget cannot be paired.
        table = group.pivot_table(index="draw", columns="budget", values="value").dropna()
        budgets = [int(budget) for budget in table.columns]
        means = resampled[key].pivot_table(index="replicate", columns="budget", values="value")
        means = means[table.columns].dropna().to_numpy()
        groups = int(resampled[key]["n_groups"].iloc[0])
        yield dict(zip(KEYS, key, strict=True)), budgets, table.to_numpy(), means, groups


def _obstacle(budgets, values, means, groups) -> str | None:
    if len(budgets) < FEWEST_BUDGETS:
        return f"a curve needs {FEWEST_BUDGETS} budgets, not {len(budgets)}"
    if len(values) < FEWEST_DRAWS:
        return f"an interval needs {FEWEST_DRAWS} draws, not {len(values)}"
    _, high = interval(means[:, -1] - means[:, 0], groups)
    return DOES_NOT_RISE if high < 0 else None


def _fitted(budgets, values, means, groups) -> dict:
    spreads = values.std(axis=0, ddof=1)
    curve = fit_curve(budgets, values.mean(axis=0), spreads)
    refitted = [fit_curve(budgets, mean, spreads) for mean in means]
    gains = np.array([_gain(other, budgets[-1]) for other in refitted])
    asymptotes = np.array([other.asymptote for other in refitted])
    gain_low, gain_high = interval(gains, groups)
    asymptote_low, asymptote_high = interval(asymptotes, groups)
    return {
        "gain_next_50": _gain(curve, budgets[-1]),
        "gain_low": gain_low,
        "gain_high": gain_high,
        "asymptote": curve.asymptote,
        "asymptote_low": asymptote_low,
        "asymptote_high": asymptote_high,
        "scale": curve.scale,
        "exponent": curve.exponent,
    }


def _gain(curve: Curve, budget: int) -> float:
    """Return what the next labels bring, in percentage points."""
    return float(100 * (curve.at(budget + NEXT_LABELS) - curve.at(budget)))
