"""Artefact or phenotype? Compounds whose cells a detector would remove because they look different.

An artefact strikes a well, a phenotype all wells of a compound. So wells are compared, not cells,
with the control wells of the same plates, and a compound is warned of only if both are unlikely by
chance: that its wells are flagged so much more than control wells, and that so many of its wells
are raised if raised wells lie anywhere. What strikes the same place of all plates, such as an edge,
and a compound that lies there each time, looks like a phenotype.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.special import betaln, comb, stdtr, stdtrit

from hcsqc.analyses.ranking import holm
from hcsqc.qc.flags import PLATE, angle, angle_variance, most_common_artefact, robust_spread

COLUMNS = ["compound", "concentration_um", "wells", "scored", "flagged_share", "control_share"]
COLUMNS += ["p_value", "adjusted_p", "warned", "artefact"]
MOCK = "mock"
Name = TypeVar("Name")
FEWEST_RAISED = 2  # wells of a compound, because one may be an artefact
RAISED = 0.999  # of control wells lie below a raised one


@dataclass(frozen=True)
class _Compared:
    """A compound's wells beside those it is compared with."""

    raised: int
    wells: int
    p_value: float
    control_share: float


class _Wells:
    """Arrays of n scored wells: angle, share and its variance by chance, compound, whether mock.

    `of_plate` gives the places of each plate's wells.
    """

    def __init__(self, table: pd.DataFrame):
        self.angle = angle(table["flagged"], table["scored"])
        self.variance = angle_variance(table["scored"]).to_numpy()
        self.share = table["flagged_share"].to_numpy(float)
        self.mock = (table["role"] == MOCK).to_numpy(bool)
        # Missing names are -1.
        self.compound = pd.factorize(table["compound"])[0]
        self.plate = pd.factorize(table[PLATE])[0]
        plates = range(self.plate.max(initial=-1) + 1)
        self.of_plate = [np.flatnonzero(self.plate == plate) for plate in plates]
        self.mock_of_plate = [places[self.mock[places]] for places in self.of_plate]

    def reference(self, plate: int, compound: int) -> np.ndarray:
        """Return the places of the wells of a plate that a compound's are compared with."""
        if len(self.mock_of_plate[plate]):
            return self.mock_of_plate[plate]
        places = self.of_plate[plate]
        return places[self.compound[places] != compound]


def compound_warnings(wells: pd.DataFrame, confidence: float, least_share: float) -> pd.DataFrame:
    """Return a row per compound and concentration with `COLUMNS`, the worst compound first.

    `wells` is what `flags.well_flags` returned. p_value, adjusted_p and warned are those of the
    compound over all its concentrations; adjusted_p is corrected by Holm's method over compounds.
    It is warned of if that is at most 1 - confidence and at least two wells are raised: flagged
    clearly more than control wells, and at least `least_share`. p_value is the larger one of two:
    Student's t of the mean angle of its wells against the robust spread of control wells, and the
    chance of so many raised wells among its own, given how many are raised elsewhere (wells of
    other compounds that are not all raised, and control wells). A compound of one well cannot be
    told, nor one without two other wells on its plates: p_value nan, warned False.
    Control wells have the role `mock`; on a plate without any, all wells of other compounds stand
    for them (`reference_text` says where). control_share is their median.
    """
    table = wells[wells["scored"] > 0].reset_index(drop=True)
    arrays = _Wells(table)
    treated = table[table["compound"].notna() & ~arrays.mock]
    names = sorted(treated["compound"].unique())
    compared = {
        name: _compare(rows.index.to_numpy(), arrays, least_share)
        for name, rows in treated.groupby("compound")
    }
    chance = _chances(compared, *_raised_controls(arrays, least_share))
    p_values = pd.Series(
        {name: max(compared[name].p_value, chance[name]) for name in names}, dtype=float
    )
    p_values[[name for name in names if np.isnan(compared[name].p_value)]] = np.nan
    told = p_values.dropna()
    adjusted = pd.Series(holm(told.to_numpy()), told.index).reindex(names)
    keys = ["compound", "concentration_um"]
    found = treated.groupby(keys, dropna=False).agg(
        wells=("scored", "size"), scored=("scored", "sum"), flagged=("flagged", "sum")
    )
    found = found.reset_index()
    common = most_common_artefact(treated, keys)
    found = found.merge(common, on=keys, how="left", validate="one_to_one")
    found["flagged_share"] = found["flagged"] / found["scored"]
    found["control_share"] = [compared[name].control_share for name in found["compound"]]
    found["p_value"] = found["compound"].map(p_values).astype(float)
    found["adjusted_p"] = found["compound"].map(adjusted).astype(float)
    enough = [compared[name].raised >= FEWEST_RAISED for name in found["compound"]]
    found["warned"] = (found["adjusted_p"] <= 1 - confidence) & np.array(enough, bool)
    worst = found.groupby("compound")["flagged_share"].transform("max")
    order = found.assign(worst=worst, calm=~found["warned"]).sort_values(
        ["calm", "adjusted_p", "worst", "compound", "flagged_share"],
        ascending=[True, True, False, True, False],
        kind="stable",
    )
    return order[COLUMNS].reset_index(drop=True)


def reference_text(wells: pd.DataFrame) -> str:
    """Return what the compounds of `wells` are compared with, as a sentence."""
    mock = wells["role"] == MOCK
    without = sorted(set(wells[PLATE]) - set(wells.loc[mock, PLATE]))
    if not without:
        return f"Compounds are compared with {mock.sum()} control wells of the same plates."
    if not mock.any():
        return (
            "There are no control wells (role mock): compounds are compared with all wells of "
            "other compounds on the same plates."
        )
    return (
        f"Compounds are compared with {mock.sum()} control wells of the same plates; on "
        f"{len(without)} plates without any, with all wells of other compounds."
    )


def _compare(own: np.ndarray, wells: _Wells, least_share: float) -> _Compared:
    """Compare the wells of a compound, n places, with those of their plates."""
    rest, shares, above, used = [], [], [], []
    for plate in np.unique(wells.plate[own]):
        others = wells.reference(plate, wells.compound[own[0]])
        if len(others):
            centre = np.median(wells.angle[others])
            rest.append(wells.angle[others] - centre)
            shares.append(wells.share[others])
            used.append(own[wells.plate[own] == plate])
            above.append(wells.angle[used[-1]] - centre)
    n, n_rest = sum(map(len, used)), sum(map(len, rest))
    share = float(np.median(np.concatenate(shares))) if shares else float("nan")
    freedom = n_rest - len(rest)
    if n < FEWEST_RAISED or freedom < 1:
        return _Compared(0, n, float("nan"), share)
    excess, places = np.concatenate(above), np.concatenate(used)
    # Wells do not vary less than their numbers of cells let them.
    variance = np.maximum(robust_spread(np.concatenate(rest)) ** 2, wells.variance[places])
    raised = _raised(excess, variance, freedom, wells.share[places], least_share)
    error = np.sqrt(variance.mean() * (1 / n + 1 / n_rest))
    return _Compared(raised, n, float(stdtr(freedom, -excess.mean() / error)), share)


def _raised(
    above: np.ndarray, variance: np.ndarray, freedom: int, shares: np.ndarray, least_share: float
) -> int:
    limit = stdtrit(freedom, RAISED) * np.sqrt(variance)
    return int(((above > limit) & (shares >= least_share)).sum())


def _raised_controls(wells: _Wells, least_share: float) -> tuple[int, int]:
    """Return how many control wells are raised above the others of their plate, of how many."""
    raised = 0
    for own in filter(len, wells.mock_of_plate):
        above = wells.angle[own] - np.median(wells.angle[own])
        variance = np.maximum(robust_spread(wells.angle[own]) ** 2, wells.variance[own])
        raised += _raised(above, variance, max(len(own) - 1, 1), wells.share[own], least_share)
    return raised, int(wells.mock.sum())


def _chances(
    compared: dict[Name, _Compared], mock_raised: int, mock_wells: int
) -> dict[Name, float]:
    """Return for each compound the chance of as many raised wells, if they lie anywhere.

    The rate comes from control wells and from other compounds, except for those all of whose wells
    are raised: they may have a phenotype.
    """
    apart = {name for name, one in compared.items() if one.raised == one.wells >= FEWEST_RAISED}
    others = [one for name, one in compared.items() if name not in apart]
    raised = mock_raised + sum(one.raised for one in others)
    wells = mock_wells + sum(one.wells for one in others)
    found = {}
    for name, one in compared.items():
        own = (0, 0) if name in apart else (one.raised, one.wells)
        found[name] = _predictive(one.raised, one.wells, raised - own[0], wells - own[1])
    return found


def _predictive(count: int, n: int, seen: int, of: int) -> float:
    """Return the chance of `count` or more of n, where `seen` of `of` others were (Jeffreys)."""
    a, b = seen + 0.5, of - seen + 0.5
    k = np.arange(count, n + 1)
    terms = comb(n, k) * np.exp(betaln(k + a, n - k + b) - betaln(a, b))
    return float(min(terms.sum(), 1.0))
