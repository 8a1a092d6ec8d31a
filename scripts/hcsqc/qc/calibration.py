"""The threshold of a screen, from its own labels or, without any, from those of the detector."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json
from hcsqc.probes.task import ABNORMAL
from hcsqc.qc.prevalence import (
    SHOWN,
    Share,
    clustered_share,
    precision_at,
    prevalence,
)
from hcsqc.qc.quantification import quantify
from hcsqc.qc.thresholds import (
    Threshold,
    bounds_of,
    choose_threshold,
    promises_at,
    refusal,
    strictest_promise,
    wells_needed,
)

THRESHOLD, PREVALENCE = "threshold.json", "prevalence.json"  # of a screen's folder
UNPROVEN = "No promise: "
OWN_LABELS = "random labels"  # the method that needs labels of the screen
RESAMPLES = 200  # of the wells, for the intervals of the other methods
FITS = 0.05  # a screen whose scores fit with a lower p is doubted
GRID = 100  # other thresholds at equal distances, and as many at equal numbers of labels


def check_labels_of(about: dict) -> None:
    """Raise InputError if a `detector.json` does not say what the detector was fitted to."""
    kinds: dict[str, type] = {"labels_normal": int, "labels_abnormal": int} | dict.fromkeys(
        ("study", "screen", "trained_on"), str
    )
    for name, kind in kinds.items():
        found = about.get(name)
        if type(found) is not kind or (isinstance(found, int) and found < 1):
            raise InputError(
                f"detector.json: {name} is {found!r:.60}, which does not describe its labels; copy "
                "the folder again, or fit it again (snakemake qc in its study)"
            )


def held_out_of(
    study: str,
    screen: str,
    about: dict,
    held_out: pd.DataFrame,
    labels: pd.DataFrame | None = None,
    random: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, str]:
    """Return held-out labels to set a screen's threshold by, and why they promise nothing for it.

    The reason is empty where they do: labels of the screen itself, chosen at random. Those that the
    detector was fitted to count where `study` and screen are its own. `about` is
    `detector.json` and `held_out` the labels that the detector was fitted to; `labels` and `random`
    are the screen's own, of which the latter were chosen whatever their class, and `scores` those
    of the crops of their plates. The result has label, group, random and score.
    Raises InputError if no label was chosen at random and could be held out.
    """
    trained_on = about["screen"] == screen and about["study"] == study
    if labels is not None and not trained_on:
        if random is None or scores is None:
            raise ValueError(f"screen {screen}: labels without random ones, or without scores")
        # The random ones first: a crop chosen in both ways was chosen at random.
        both = pd.concat([random, labels], ignore_index=True).drop_duplicates("crop_id")
        both["random"] = both["crop_id"].isin(random["crop_id"])
        found = both.merge(scores[["crop_id", "score"]], on="crop_id", validate="one_to_one")
        return _usable(found, screen), ""
    usable = _usable(held_out, about["screen"])
    if about["trained_on"] != "labels":
        return usable, (
            f"{UNPROVEN}the detector was trained on {about['trained_on']}, not on labels "
            "that people gave; its threshold is set on crops that nobody has checked"
        )
    if trained_on:
        return usable, ""
    return usable, (
        f"{UNPROVEN}the labels of {screen} set no threshold; it is that of {about['screen']}, "
        "where it was set on labels"
    )


def _usable(labels: pd.DataFrame, screen: str) -> pd.DataFrame:
    """Return the labels that may set a threshold: chosen at random, and with a held-out score.

    At random whatever their class: labels drawn from a truth by class leave out the good cells
    that a neighbour's artefact reaches, and the promise is about these too.

    Raises InputError if there are none.
    """
    at_random = labels[labels["random"]]
    if at_random.empty:
        raise InputError(
            f"screen {screen}: none of its {len(labels)} labels was chosen at random, so no "
            "threshold can promise anything; label random crops (docs/labels.md)"
        )
    found = at_random[at_random["score"].notna()]
    if found.empty:
        raise InputError(
            f"screen {screen}: its {len(at_random)} random labels lie in too few wells for any to "
            "be held out; label crops of more wells"
        )
    return found


def calibrate(
    labels: pd.DataFrame,
    training_share: float,
    good_cells_lost: float,
    confidence: float,
    unproven: str,
    by_people: bool = True,
) -> dict:
    """Return what `threshold.json` says: what follows from labels alone.

    No other score has a part in it, so a screen's threshold stays when plates are added.
    `labels` are what `held_out_of` returns with `unproven`, `training_share` is the share of
    abnormal among the labels that the detector was fitted to.
    Where normal labels lie in too few wells for the promise, none is given: `note` says so, with
    how many wells it takes, and the threshold is that which loses the share of the normal labels
    themselves. So it is if the labels are not `by_people`: aberrant cells are among the crops that
    nobody has looked at, and a bound on these would lie above them.
    Raises InputError if there are too few normal labels, or wells, even for that.
    """
    targets = (labels["label"] == ABNORMAL).to_numpy(np.int64)
    wells = labels["group"].to_numpy(str)  # or what else is independent
    own = labels["score"].to_numpy()
    normal, n_wells = int((targets == 0).sum()), len(np.unique(wells[targets == 0]))
    refused = refusal(normal, n_wells, good_cells_lost, confidence)
    if by_people and not refused:
        found = choose_threshold(own, targets, wells, good_cells_lost, confidence)
    else:
        if not unproven and (n_wells < 2 or normal * good_cells_lost < 1):
            raise InputError(
                f"threshold: {normal} random normal labels in {n_wells} "
                f"{'well' if n_wells == 1 else 'wells'} set no threshold; "
                f"label at least {math.ceil(1 / good_cells_lost - 1e-9)} randomly chosen normal "
                "cells in at least 2 wells; a promise needs "
                f"{wells_needed(good_cells_lost, confidence)} wells"
            )
        found = _unproven_threshold(own, targets, wells, good_cells_lost, confidence)
    note = unproven
    if refused and not unproven:
        note = f"{UNPROVEN}{refused}; the threshold flags {found.exceeding:.1%} of these labels"
    at_random = labels["random"].to_numpy(bool)
    common = None if unproven else prevalence(targets[at_random], wells[at_random])
    return {
        "threshold": found.threshold,
        "promise": not note,
        "note": note,
        "promised": found.good_cells_lost,
        "confidence": found.confidence,
        "bound": None if note else found.bound,
        "exceeding": found.exceeding,
        "n_normal": found.n_normal,
        "n_abnormal": found.n_abnormal,
        "wells": found.wells,
        "wells_needed": wells_needed(good_cells_lost, confidence),
        "supported": None if unproven else found.supported,
        "wells_for_stricter": {
            f"{share:g}": n for share, n in found.wells_for_stricter.items() if not note
        },
        "recall": _numbers(found.recall),
        "prevalence": _numbers(common),
        "prevalence_labels": int(at_random.sum()) if common else 0,
        "precision": _precision(common, found),
        "training_share": training_share,
        "others": other_thresholds(own, targets, wells, found, proven=not note),
    }


def estimate_prevalence(
    threshold: Mapping,
    labels: pd.DataFrame | None,
    scores: np.ndarray,
    cell_wells: np.ndarray,
    by_people: bool,
) -> dict:
    """Return what `prevalence.json` says of the cells of a screen, with every plate it has.

    `threshold` is what `calibrate` returned. Its random labels give the prevalence if they are the
    screen's own; else `labels` of another screen (with label, group, random and score) and the
    scores of n cells do, of which `cell_wells` are the wells. Without either it is not known.
    """
    flagged = float((scores > threshold["threshold"]).mean()) if len(scores) else math.nan
    common, doubt, assumed = threshold["prevalence"], "", math.nan
    by_method = _by_method(common)
    at_random = threshold["prevalence_labels"]
    if not common and labels is not None:
        targets = (labels["label"] == ABNORMAL).to_numpy(np.int64)
        own, wells = labels["score"].to_numpy(), labels["group"].to_numpy(str)
        by_method, doubt = _from_scores(own, targets, wells, scores, cell_wells, by_people)
        at_random = int(labels["random"].sum())
    if by_method:
        assumed = _within(by_method[0]["estimate"], at_random)
    return {
        "threshold": threshold["threshold"],  # that the flags beside it were made with
        "prevalence_by_method": by_method,
        "prevalence_doubt": doubt,
        "flagged_share": _known(flagged),
        "assumed_prevalence": _known(assumed),
    }


def read_threshold(folder: Path) -> dict:
    """Return what `threshold.json` and `prevalence.json` of a screen's folder say; InputError."""
    return read_checked_json(folder / THRESHOLD) | read_checked_json(folder / PREVALENCE)


def moved_text(folder: Path, screen: str, threshold: float) -> str:
    """Return that a screen's flags, in its folder, were made with another threshold, or nothing."""
    try:
        before = read_checked_json(folder / PREVALENCE)["threshold"]
    except (InputError, KeyError):  # none was made, or it is made again anyway
        return ""
    if before == threshold:
        return ""
    return (
        f"warning: {screen}: the threshold was {before:.4f} and is {threshold:.4f} now, because "
        "labels, detector or qc.good_cells_lost have changed: flags of all plates change with it"
    )


def prevalence_table(found: Mapping) -> pd.DataFrame:
    """Return `prevalence.csv` from `prevalence.json`: method, estimate, low, high and doubt."""
    rows = pd.DataFrame(
        found["prevalence_by_method"], columns=["method", "estimate", "low", "high"]
    )
    return rows.assign(doubt=found["prevalence_doubt"])


def _by_method(common: Sequence[float] | None) -> list[dict]:
    if not common:
        return []
    values = dict(zip(("estimate", "low", "high"), common, strict=True))
    return [{"method": OWN_LABELS, **values}]


def _from_scores(
    own, targets, wells, scores, cell_wells, by_people: bool
) -> tuple[list[dict], str]:
    """Return the prevalence without labels of the screen, and why not to believe it, or nothing."""
    rows, fit = quantify(own, targets, wells, scores, cell_wells, RESAMPLES)
    doubt = ""
    if rows and not by_people:
        doubt = (
            "Nobody has looked at the crops that stand for normal cells. Abnormal ones among them "
            "count as normal, so the estimates are too low. Label random crops of this screen."
        )
    elif fit < FITS:
        least = 1 / RESAMPLES
        p = f"< {least:.3f}" if fit < least else f"= {fit:.3f}"
        doubt = (
            "The scores of this screen are no mixture of those of normal and abnormal labels "
            f"(p {p.replace('0.', '.', 1)}), so its cells look different from the labelled ones. "
            "Label random crops of this screen."
        )
    return [asdict(row) for row in rows], doubt


def other_thresholds(
    labels: np.ndarray,
    targets: np.ndarray,
    wells: np.ndarray,
    found: Threshold,
    proven: bool,
) -> list[dict]:
    """Return what other thresholds than the one `found` would do, from low to high.

    `labels` are the held-out scores of the labels, `targets` 1 where abnormal. Each has its
    threshold; promise, the smallest good_cells_lost that gives it or a
    lower one; exceeding, the share of normal labels above it; and recall, that of abnormal labels.
    Without a proof (`proven`) nothing is promised.
    """
    spread = np.quantile(labels, np.linspace(0, 1, GRID + 1))
    grid = np.unique(np.round([*np.linspace(0, 1, GRID + 1), *spread], 4))
    grid = np.unique([*grid, found.threshold])
    promised = promises_at(labels, targets, wells, grid, found.confidence)
    normal, abnormal = labels[targets == 0], labels[targets == 1]
    return [
        {
            "threshold": float(level),
            "promise": _known(float(share)) if proven else None,
            "exceeding": float((normal > level).mean()) if len(normal) else None,
            "recall": float((abnormal > level).mean()) if len(abnormal) else None,
        }
        for level, share in zip(grid, promised, strict=True)
    ]


def _unproven_threshold(scores, targets, wells, good_cells_lost, confidence) -> Threshold:
    """Return the threshold that loses that share of the normal labels, and promises nothing."""
    normal, abnormal = scores[targets == 0], targets == 1
    if not len(normal):
        raise InputError("there is no normal crop to set a threshold on")
    value = float(np.quantile(normal, 1 - good_cells_lost, method="higher"))
    n_wells = len(np.unique(wells[targets == 0]))
    least, bound = bounds_of(normal > value, wells[targets == 0], confidence)
    recall = None
    if abnormal.any():
        recall = clustered_share(scores[abnormal] > value, wells[abnormal], SHOWN)
    return Threshold(
        threshold=value,
        good_cells_lost=good_cells_lost,
        confidence=confidence,
        n_normal=len(normal),
        n_abnormal=int(abnormal.sum()),
        wells=n_wells,
        exceeding=float((normal > value).mean()),
        least=least,
        bound=bound,
        recall=recall,
        supported=strictest_promise(n_wells, confidence),
        wells_for_stricter={},
    )


def _precision(common: Share | None, found: Threshold) -> list[float] | None:
    if common is None or found.recall is None:
        return None
    values = precision_at(common, found.recall, found.false_positives)
    return None if any(map(math.isnan, values)) else list(values)


def _within(share: float, n: int) -> float:
    """Return a share of n labels drawn off 0 and 1, which no prevalence is (Jeffreys' prior)."""
    return (share * n + 0.5) / (n + 1)


def _numbers(share: Share | None) -> list[float] | None:
    return None if share is None else [share.share, share.low, share.high]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
