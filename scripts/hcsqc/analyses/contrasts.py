"""Differences over several probes, budgets and screens together, on the same draws and groups."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from hcsqc.analyses.differences import difference_variances
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.resampling import p_value

METRIC = "f1"
KEYS = ["encoder", "probe", "budget", "screen"]


class Setting(NamedTuple):
    """Where an encoder is tested."""

    probe: str
    budget: int
    screen: str


class Contrast(NamedTuple):
    """A difference of two mean F1 scores, fractions, with its 95% interval.

    `p` is one-sided, of the difference not being above nought.
    """

    difference: float
    low: float
    high: float
    p: float
    settings: int
    draws: int


class PairedScores:
    """The F1 scores of all encoders, draw by draw, with and without each group; seeds are averaged.

    `scores` and `left_out` are those tables, `overlaps` the share of training labels that two draws
    have in common, by budget. Settings of fewer than 5 draws are not `usable`.
    """

    def __init__(self, scores: pd.DataFrame, left_out: pd.DataFrame, overlaps: Mapping[int, float]):
        scores = scores[scores["metric"] == METRIC]
        left_out = left_out[left_out["metric"] == METRIC]
        self.overlaps = overlaps
        draws = pd.Index(sorted(set(scores["draw"])))
        places = left_out["screen"] + "/" + left_out["group"]
        groups = pd.Index(sorted(set(places)))
        self.scores: dict[tuple, np.ndarray] = {}
        self.left_out: dict[tuple, np.ndarray] = {}
        for key, rows in scores.groupby(KEYS):
            values = rows.groupby("draw")["value"].mean()
            self.scores[key] = values.reindex(draws).to_numpy()
        for key, rows in left_out.assign(place=places).groupby(KEYS):
            changed = np.full((len(groups), len(draws)), np.inf)
            means = rows.groupby(["place", "draw"])["value"].mean()
            place, draw = (means.index.get_level_values(name) for name in means.index.names)
            changed[groups.get_indexer(place), draws.get_indexer(draw)] = means.to_numpy()
            self.left_out[key] = changed

    def usable(self, encoder: str, setting: Setting) -> bool:
        """Return whether an encoder was tested there, in enough draws."""
        values = self.scores.get((encoder, *setting))
        return values is not None and int((~np.isnan(values)).sum()) >= FEWEST_DRAWS

    def difference(
        self,
        first: Sequence[tuple[str, Setting]],
        second: Sequence[tuple[str, Setting]],
    ) -> Contrast:
        """Return the mean score of the encoders and settings `first` less that of `second`.

        The two are pairs, place by place. Settings count alike within a draw; a draw that a setting
        lacks is the mean over the others.
        """
        means, changed = zip(*(self._mean(cells) for cells in (first, second)), strict=True)
        values = np.stack(means)
        both = ~np.isnan(values).any(axis=0)
        values = values[:, both]
        overlap = float(np.mean([self.overlaps.get(where.budget, 0.0) for _, where in first]))
        variance, freedom = difference_variances(values, np.stack(changed)[:, :, both], overlap)
        difference = float(values[0].mean() - values[1].mean())
        reach = float(t.ppf(0.975, freedom[0, 1]) * np.sqrt(variance[0, 1]))
        two_sided = float(p_value(np.array(difference), variance[0, 1], freedom[0, 1]))
        p = two_sided / 2 if difference > 0 else 1 - two_sided / 2
        low, high = difference - reach, difference + reach
        return Contrast(difference, low, high, p, len(first), int(both.sum()))

    def _mean(self, cells: Iterable[tuple[str, Setting]]) -> tuple[np.ndarray, np.ndarray]:
        keys = [(encoder, *setting) for encoder, setting in cells]
        values = np.stack([self.scores[key] for key in keys])
        left_out = np.stack([self.left_out[key] for key in keys])
        without = np.where(np.isinf(left_out), values[:, None], left_out)
        tested = ~np.isinf(left_out).all(axis=0)
        # A setting that has no score without a group: the others' mean would be another quantity.
        lost = (np.isnan(left_out) & ~np.isnan(values)[:, None]).any(axis=0)
        changed = np.where(lost, np.nan, _defined(without))
        return _defined(values), np.where(tested, changed, np.inf)


def _defined(values: np.ndarray) -> np.ndarray:
    """Return the means over the first axis of what is defined; nan where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)
