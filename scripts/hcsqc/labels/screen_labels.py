"""The labels of a screen, from label files or from its truth, and what is said of them on the way.

`labels.match` gives one label its crop; here these are a whole screen's.
"""

import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import plates_among
from hcsqc.core.ids import is_copy, split_field_id
from hcsqc.core.parquet import read_footer
from hcsqc.core.schema import read_table, write_csv
from hcsqc.labels.agreement import PAIR_COLUMNS, agreement, disagreements
from hcsqc.labels.match import (
    NOT_CROPPED,
    draw_at_random,
    draw_labels,
    keep_sharp,
    keep_usual,
    labels_at_random,
    match_truth,
    place_labels,
    read_label_file,
    settle,
)
from hcsqc.screens.layouts.base import first_few

MOST_FAR = 0.5  # of the labels: some of another screen's find a nucleus by chance


@dataclass(frozen=True)
class LabelSettings:
    """Distances in source pixels, labels taken from a truth, and the rule for conflicts."""

    match_px: float
    truth_per_class: int
    truth_per_field: int  # of a class; of a simulated screen
    truth_per_artefact: int
    truth_random: int
    truth_trimmed: float  # of the crops of each plate that a screen is derived from
    focus_edge: float  # nucleus diameters: crops of wider edges are out of focus
    window_px: float
    conflicts: str  # one of match.CONFLICTS


@dataclass(frozen=True)
class ScreenLabels:
    """The labels of a screen, one per crop.

    `labels` and `at_random`, those of crops chosen at random, are `labels` tables. `unmatched` are
    the labels without a crop, each with the reason. `metrics` say how far annotators agree, or how
    many crops of a truth are no example.
    """

    labels: pd.DataFrame
    at_random: pd.DataFrame
    unmatched: pd.DataFrame
    metrics: dict[str, float]

    def counts(self) -> dict[str, int]:
        """Return the number of labels of each class, the more common class first."""
        return {str(name): int(n) for name, n in self.labels["label"].value_counts().items()}


def warn_of_wells(wells: Sequence[str], nuclei: pd.DataFrame) -> None:
    """Warn of evaluation wells in which there is no nucleus: a wrong name keeps nothing apart."""
    absent = sorted(set(wells) - set(nuclei["well"]))
    if absent and len(nuclei):
        _warn(f"evaluation_wells: no nucleus in {first_few(absent)}; is the name of a well wrong?")


def read_nuclei(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the `nuclei` of all plates, with plate, well and site of their fields."""
    nuclei = pd.concat([read_table(path, "nuclei") for path in paths], ignore_index=True)
    return nuclei.join(split_field_id(nuclei["field_id"]))


def labels_of_truth(
    paths: Sequence[Path], nuclei: pd.DataFrame, wells: Sequence[str], settings: LabelSettings
) -> ScreenLabels:
    """Return labels from the truth of a simulated screen, or of a derived one.

    `nuclei` are those of `read_nuclei`, `wells` the evaluation wells. First as many of each class
    from these, then crops at random from all wells. How many crops are no example, and why, is
    printed. Of a derived screen, `truth_random` real crops and as many copies are drawn at random.
    Raises InputError if none of the crops lies in an evaluation well.
    """
    kept = nuclei[nuclei["kept"]]
    derived = "crop_id" in read_footer(paths[0]).schema.names
    if derived:
        truth = pd.concat([read_table(path, "crop_truth") for path in paths])
        whole = kept.merge(truth, on="crop_id", validate="one_to_one")
        sharp = keep_sharp(whole, settings.focus_edge)
        candidates = examples = keep_usual(sharp, settings.truth_trimmed)
        per_field = len(examples)  # each copy has a kind of its own, so that no field is spoilt
        blurred, odd = len(whole) - len(sharp), len(sharp) - len(examples)
        left_out = blurred + odd
        metrics = {"labels_left_out_blurred": float(blurred), "labels_left_out_odd": float(odd)}
        told = f"out of focus ({blurred}) or " if blurred else ""
        print(
            f"{left_out} of {len(whole)} crops get no label: they, or the crops that they were "
            f"copied from, are {told}among the oddest {settings.truth_trimmed:.1%} of their plate"
        )
    else:
        truth = pd.concat([read_table(path, "truth") for path in paths])
        candidates = match_truth(kept, truth, settings.match_px, settings.window_px)
        examples = candidates[~candidates["nearby"].astype(bool)]
        per_field = settings.truth_per_field
        left_out = len(candidates) - len(examples)
        metrics = {"labels_left_out_nearby": float(left_out)}
        print(
            f"{left_out} of {(candidates['artefact'] == 'none').sum()} good cells are not used as "
            "examples, because the artefact of a neighbour reaches into their window"
        )
    evaluated = examples[examples["well"].isin(wells)]
    if len(examples) and wells and evaluated.empty:
        raise InputError(
            f"no crop lies in evaluation_wells ({first_few(sorted(wells))}); crops lie in "
            f"{first_few(sorted(set(examples['well'])))}: correct evaluation_wells"
        )
    labels = draw_labels(
        evaluated,
        settings.truth_per_class,
        per_field,
        settings.truth_per_artefact,
        seed=0,
    )
    # Another seed, or where all wells are evaluated the two would be the same crops.
    if derived:
        # Real crops are what a detector must not flag: no fewer of them with more copies.
        copied = candidates["crop_id"].map(is_copy).astype(bool)
        kinds = [candidates[~copied], candidates[copied]]
    else:
        kinds = [candidates]
    drawn = [
        draw_at_random(rows, settings.truth_random, seed) for seed, rows in enumerate(kinds, 1)
    ]
    at_random = pd.concat(drawn).sort_values("crop_id", ignore_index=True)
    return ScreenLabels(labels, at_random, pd.DataFrame(columns=["reason"]), metrics)


def labels_of_files(
    screen: str,
    files: Sequence[Path],
    nuclei: pd.DataFrame,
    unlabelled_plates: Collection[str],
    settings: LabelSettings,
    disagreements_list: Path,
    unmatched_list: Path,
) -> ScreenLabels:
    """Return labels from label files, and print how far annotators agree and what found no crop.

    `nuclei` are those of `read_nuclei`, of the screen's labelled plates; `unlabelled_plates` are
    its other plates. Labels of crops that are labelled in several ways are written to
    `disagreements_list` (CSV), before one of them may be refused; `unmatched_list` is named where
    labels found no crop.
    Raises InputError for a file that is none of labels, for labels on an unlabelled plate, for a
    conflict that the settings refuse, and where labels seem to be of another screen.
    """
    rows = pd.concat([read_label_file(path) for path in files], ignore_index=True)
    check_plates(rows, unlabelled_plates, screen)
    placed, unmatched = place_labels(rows, nuclei, settings.match_px)
    differing = disagreements(placed)
    write_list(differing, disagreements_list)
    metrics = report_agreement(placed, differing, disagreements_list)
    labels = _settled(placed, settings.conflicts, disagreements_list)
    check_unmatched(labels, unmatched, screen)
    report_unmatched(unmatched, unmatched_list)
    return ScreenLabels(labels, labels_at_random(placed, labels), unmatched, metrics)


def check_plates(rows: pd.DataFrame, unlabelled_plates: Collection[str], screen: str) -> None:
    """Raise InputError if rows of label files are on plates that `labelled_plates` leaves out."""
    rows = rows.assign(plate=plates_among(rows["plate"], unlabelled_plates)).dropna(subset="plate")
    if len(rows):
        plates, sources = (first_few(sorted(set(rows[name])), 12) for name in ("plate", "source"))
        several = rows["plate"].nunique() > 1
        raise InputError(
            f"screen {screen}: labels lie on plate{'s' if several else ''} {plates} ({sources}); "
            f"add {'them' if several else 'it'} to screens.{screen}.labelled_plates"
        )


def write_list(rows: pd.DataFrame, path: Path) -> None:
    """Write a table for people, as CSV."""
    write_csv(rows, path)


def report_agreement(
    placed: pd.DataFrame, differing: pd.DataFrame, disagreements_list: Path
) -> dict[str, float]:
    """Print kappa of each pair of annotators, warn of crops in two classes, return both as metrics.

    The warning is one line, with the first of these crops, which Snakemake cannot delete.

    `placed` is what `place_labels` returned, `differing` what `disagreements` made of it. A kappa
    that is undefined is nan.
    """
    in_label = differing[differing["differs"] == "label"]
    metrics: dict[str, float] = {"labels_disagreeing": in_label["crop_id"].nunique()}
    pairs = agreement(placed)[PAIR_COLUMNS]
    for first, second, crops, agreeing, kappa in pairs.itertuples(index=False):
        told = "undefined (all of one class)" if pd.isna(kappa) else f"{kappa:.3f}"
        print(
            f"agreement of {first} and {second}: kappa {told}, "
            f"{100 * agreeing:.1f}% of {crops} crops"
        )
        names = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{first}-{second}")
        metrics[f"kappa_{names}"] = kappa
    if len(in_label):
        crops = in_label["crop_id"].nunique()
        crop, rows = next(iter(in_label.groupby("crop_id")))
        ways = [f"{row.label} by {row.annotator} ({row.source})" for row in rows.itertuples()]
        _warn(
            f"{crops} crop{'s have' if crops > 1 else ' has'} labels of both classes; the first is "
            f"{crop}: {', '.join(ways)}; see {disagreements_list}"
        )
    return metrics


def _settled(placed: pd.DataFrame, conflicts: str, disagreements_list: Path) -> pd.DataFrame:
    """Return one label per crop; an error says where the disagreements are listed."""
    try:
        return settle(placed, conflicts)
    except InputError as error:
        raise InputError(f"{error}; all disagreements: {disagreements_list}") from error


def check_unmatched(labels: pd.DataFrame, unmatched: pd.DataFrame, screen: str) -> None:
    """Raise InputError if no label of a screen found a crop, or most of them lie at no nucleus."""
    if labels.empty:
        first = _told(next(unmatched.itertuples())) if len(unmatched) else "no rows"
        raise InputError(
            f"screen {screen}: no label matches a crop; the first: {first}. "
            "Are they labels of another screen?"
        )
    far = unmatched[unmatched["reason"] != NOT_CROPPED]
    total = len(labels) + len(unmatched)
    if len(far) > MOST_FAR * total:
        raise InputError(
            f"screen {screen}: {len(far)} of {total} labels are not at a nucleus; "
            f"the first: {_told(next(far.itertuples()))}. Are they labels of another screen, or in "
            "other pixels (labels.match_px)?"
        )


def report_unmatched(unmatched: pd.DataFrame, unmatched_list: Path) -> None:
    """Warn in one line of labels that found no crop: how many, the first, and where all are."""
    if len(unmatched):
        count = f"{len(unmatched)} label{'s match' if len(unmatched) > 1 else ' matches'} no crop"
        first = _told(next(unmatched.itertuples()))
        _warn(f"{count}; the first: {first}; see {unmatched_list}")


def _told(label) -> str:
    return (
        f"{label.plate} {label.well} site {label.site:g} ({label.x_px:.0f}, {label.y_px:.0f}) of "
        f"{label.source}: {label.reason}"
    )


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
