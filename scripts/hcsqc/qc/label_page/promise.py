"""How many wells with random labels the promise of a screen's threshold still needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hcsqc.analyses.label_selection import RANDOM
from hcsqc.core.ids import wells_of
from hcsqc.labels.groups import UNITS, WELL
from hcsqc.qc.thresholds import strictest_promise, wells_needed


@dataclass(frozen=True)
class Asked:
    """The promise that the threshold is to keep: a share of the good cells, how sure, over what."""

    good_cells_lost: float
    confidence: float
    group_by: str  # what is independent: see `labels.groups`


@dataclass(frozen=True)
class WellsOfPromise:
    """What the page says of a promise.

    It needs random normal labels in `needed` wells; `labelled` (`plate/well`) have one. `text` says
    how many wells the promise still needs and how many the page offers, `counts` what the threshold
    counts instead of wells, if anything.
    """

    needed: int
    labelled: list[str]
    text: str
    counts: str = ""


def wells_of_promise(
    asked: Asked, crops: Sequence[str], labels: pd.DataFrame | None, chosen: pd.DataFrame
) -> WellsOfPromise:
    """Return what a page says of the promise `asked` for.

    `crops` are all crop_ids of the screen, `labels` its random labels (crop_id, label), if any, and
    `chosen` what `choose_crops` returns.
    """
    needed = wells_needed(asked.good_cells_lost, asked.confidence)
    normal: Sequence[str] = []
    if labels is not None:
        normal = labels["crop_id"][labels["label"] == "normal"].tolist()
    labelled = sorted(set(wells_of(normal)))
    offered = set(wells_of(chosen["crop_id"][chosen["selection"] == RANDOM]))
    missing = max(needed - len(labelled), 0)
    # Not "random": the page hides which crops these are.
    text = (
        f"A promise to lose at most {100 * asked.good_cells_lost:g}% of the good cells needs "
        f"sampled crops that are labelled normal in {needed} wells. {_have(len(labelled))}"
    )
    if missing:
        further = len(offered - set(labelled))
        text += (
            f": {missing} more needed. This page samples {further} further "
            f"{'well' if further == 1 else 'wells'}"
        )
    wells = len(np.unique(wells_of(crops)))
    if wells < needed:
        strictest = strictest_promise(wells, asked.confidence)
        text += (
            f". The screen has crops in {wells} wells only, which allow a promise of "
            f"{100 * strictest:g}% at the strictest (qc.good_cells_lost: {strictest:g})"
        )
    counts = ""
    if asked.group_by != WELL:
        units = UNITS[asked.group_by]
        counts = f" The threshold counts {units} as wells (evaluation.group_by): there are fewer."
    return WellsOfPromise(needed, labelled, f"{text}.{counts}", counts)


def _have(wells: int) -> str:
    if not wells:
        return "No well has one so far"
    return "1 well has one so far" if wells == 1 else f"{wells} wells have one so far"
