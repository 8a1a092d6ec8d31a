"""Give each label of a screen its crop: labels from files, or from a screen's truth."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.agreement import DISAGREEMENT_COLUMNS, agreement, disagreements
from hcsqc.labels.match import (
    NOT_CROPPED,
    draw_at_random,
    draw_labels,
    labels_at_random,
    match_truth,
    place_labels,
    read_label_file,
    settle,
)

# Printed, because Snakemake may delete the list of a job that fails.
FIRST_DISAGREEMENTS = 5
MOST_FAR = 0.5  # of the labels: some of another screen's find a nucleus by chance


@dataclass(frozen=True)
class Settings:
    """Distances in source pixels, labels taken from a truth, and the rule for conflicts."""

    match_px: float
    truth_per_class: int
    truth_random: int
    window_px: float
    conflicts: str  # one of labels.CONFLICTS


def main() -> None:
    """Read the flags, nuclei and labels; write the labelled crops and what found none."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--nuclei", type=Path, nargs="+", required=True)
    parser.add_argument("--truth", type=Path, nargs="*", required=True)
    parser.add_argument("--label-files", type=Path, nargs="*", required=True)
    parser.add_argument("--evaluation-wells", nargs="*", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--random", type=Path, required=True, help="labels of crops at random")
    parser.add_argument("--unmatched", type=Path, required=True)
    parser.add_argument("--disagreements", type=Path, required=True, help="CSV")
    cli.add_settings(parser, Settings)
    cli.run(label, parser.parse_args())


def label(args, record) -> None:
    """Label the screen that the arguments describe."""
    if not args.truth and not args.label_files:
        raise InputError(
            f"screen {args.screen} has no labels, and evaluation needs some: list label files "
            f"under screens.{args.screen}.labels (docs/labels.md says how to make one). "
            "Crops and encoders need none: snakemake crops encoders"
        )
    settings = cli.settings_from(args, Settings)
    nuclei = pd.concat([read_nuclei(path) for path in args.nuclei], ignore_index=True)
    if args.truth:
        labels, at_random = labels_of_truth(args, nuclei, settings)
        unmatched = pd.DataFrame(columns=["reason"])
        agreed = {}
        write_csv(pd.DataFrame(columns=DISAGREEMENT_COLUMNS), args.disagreements)
    else:
        rows = pd.concat([read_label_file(path) for path in args.label_files], ignore_index=True)
        placed, unmatched = place_labels(rows, nuclei, settings.match_px)
        agreed = report_agreement(args, placed)
        labels = settled(args, placed, settings.conflicts)
        at_random = labels_at_random(placed, labels)
        report_unmatched(args, labels, unmatched)
    counts = labels["label"].value_counts()
    print(f"labels of {args.screen}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    write_table(labels, args.output, "labels")
    write_table(at_random, args.random, "labels")
    write_csv(unmatched, args.unmatched)
    record.metrics = agreed | {f"labels_{name}": int(n) for name, n in counts.items()}
    record.metrics |= {"labels_unmatched": len(unmatched), "labels_random": len(at_random)}


def write_csv(rows: pd.DataFrame, path: Path) -> None:
    """Write a table for people."""
    with atomic(path) as temporary:
        rows.to_csv(temporary, index=False)


def read_nuclei(path: Path) -> pd.DataFrame:
    """Read a plate's nuclei with plate, well and site of their fields."""
    nuclei = read_table(path, "nuclei")
    place = nuclei["field_id"].str.extract(
        r"^[^/]+/(?P<plate>[^/]+)/(?P<well>[^/]+)/s(?P<site>\d+)"
    )
    return nuclei.join(place.astype({"site": int}))


def labels_of_truth(
    args, nuclei: pd.DataFrame, settings: Settings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return labels from the truth of a simulated screen, or of a derived one.

    First as many of each class from the evaluation wells, then crops at random from all wells.
    """
    kept = nuclei[nuclei["kept"]]
    if "crop_id" in pq.read_schema(args.truth[0]).names:
        truth = pd.concat([read_table(path, "crop_truth") for path in args.truth])
        candidates = kept.merge(truth, on="crop_id", validate="one_to_one")
    else:
        truth = pd.concat([read_table(path, "truth") for path in args.truth])
        candidates = match_truth(kept, truth, settings.match_px, settings.window_px)
    evaluated = candidates[candidates["well"].isin(args.evaluation_wells)]
    return (
        draw_labels(evaluated, settings.truth_per_class, seed=0),
        draw_at_random(candidates, settings.truth_random, seed=0),
    )


def report_agreement(args, placed: pd.DataFrame) -> dict[str, float]:
    """Write the crops that are labelled in several ways, print kappa and return both as metrics."""
    differing = disagreements(placed)
    write_csv(differing, args.disagreements)
    in_label = differing[differing["differs"] == "label"]
    metrics: dict[str, float] = {"labels_disagreeing": in_label["crop_id"].nunique()}
    for pair in agreement(placed).itertuples():
        kappa = "undefined (all of one class)" if pd.isna(pair.kappa) else f"{pair.kappa:.3f}"
        print(
            f"agreement of {pair.first} and {pair.second}: kappa {kappa}, "
            f"{100 * pair.agreeing:.1f}% of {pair.crops} crops"
        )
        names = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{pair.first}-{pair.second}")
        metrics[f"kappa_{names}"] = pair.kappa
    for crop, rows in list(in_label.groupby("crop_id"))[:FIRST_DISAGREEMENTS]:
        ways = [f"{row.label} by {row.annotator} ({row.source})" for row in rows.itertuples()]
        print(f"warning: {crop} is labelled in two ways: {', '.join(ways)}", file=sys.stderr)
    return metrics


def settled(args, placed: pd.DataFrame, conflicts: str) -> pd.DataFrame:
    """Return one label per crop; an error says where the disagreements are listed."""
    try:
        return settle(placed, conflicts)
    except InputError as error:
        raise InputError(f"{error}; all disagreements: {args.disagreements}") from error


def report_unmatched(args, labels: pd.DataFrame, unmatched: pd.DataFrame) -> None:
    """Say how many labels found no crop; raise InputError if none did."""
    if labels.empty:
        first = dict(unmatched.iloc[0]) if len(unmatched) else "no rows"
        raise InputError(
            f"screen {args.screen}: none of the labels finds a crop; first: {first}. "
            "Are they labels of another screen?"
        )
    far = int((unmatched["reason"] != NOT_CROPPED).sum())
    if far > MOST_FAR * (len(labels) + len(unmatched)):
        raise InputError(
            f"screen {args.screen}: {far} of {len(labels) + len(unmatched)} labels lie at no "
            f"nucleus; first: {dict(unmatched[unmatched['reason'] != NOT_CROPPED].iloc[0])}. Are "
            "they labels of another screen, or in other pixels (labels.match_px)?"
        )
    for row in unmatched.head(5).itertuples():
        print(
            f"warning: label at {row.plate} {row.well} site {row.site} "
            f"({row.x_px:.0f}, {row.y_px:.0f}) of {row.source}: {row.reason}",
            file=sys.stderr,
        )
    if len(unmatched):
        print(
            f"warning: {len(unmatched)} labels find no crop; all are listed in {args.unmatched}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
