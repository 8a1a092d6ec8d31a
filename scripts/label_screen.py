"""Give each label of a screen its crop: labels from files, or from a screen's truth."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

import cli
from hcsqc.errors import InputError
from hcsqc.files import atomic
from hcsqc.labels import draw_labels, match_labels, match_truth, read_label_file
from hcsqc.schema import read_table, write_table


@dataclass(frozen=True)
class Settings:
    """Distances in source pixels, and the number of labels taken from a truth."""

    match_px: float
    truth_per_class: int
    window_px: float


def main() -> None:
    """Read the flags, nuclei and labels; write the labelled crops and what found none."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--nuclei", type=Path, nargs="+", required=True)
    parser.add_argument("--truth", type=Path, nargs="*", required=True)
    parser.add_argument("--label-files", type=Path, nargs="*", required=True)
    parser.add_argument("--evaluation-wells", nargs="*", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--unmatched", type=Path, required=True)
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
        labels = labels_of_truth(args, nuclei, settings)
        unmatched = pd.DataFrame(columns=["reason"])
    else:
        rows = pd.concat([read_label_file(path) for path in args.label_files], ignore_index=True)
        labels, unmatched = match_labels(rows, nuclei, settings.match_px)
        report_unmatched(args, labels, unmatched)
    counts = labels["label"].value_counts()
    print(f"labels of {args.screen}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    write_table(labels, args.output, "labels")
    with atomic(args.unmatched) as temporary:
        unmatched.to_csv(temporary, index=False)
    record.metrics = {f"labels_{name}": int(n) for name, n in counts.items()}
    record.metrics["labels_unmatched"] = len(unmatched)


def read_nuclei(path: Path) -> pd.DataFrame:
    """Read a plate's nuclei with plate, well and site of their fields."""
    nuclei = read_table(path, "nuclei")
    place = nuclei["field_id"].str.extract(
        r"^[^/]+/(?P<plate>[^/]+)/(?P<well>[^/]+)/s(?P<site>\d+)"
    )
    return nuclei.join(place.astype({"site": int}))


def labels_of_truth(args, nuclei: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return labels drawn from the truth of a simulated screen, or of a derived one."""
    usable = nuclei[nuclei["kept"] & nuclei["well"].isin(args.evaluation_wells)]
    if "crop_id" in pq.read_schema(args.truth[0]).names:
        truth = pd.concat([read_table(path, "crop_truth") for path in args.truth])
        candidates = usable.merge(truth, on="crop_id", validate="one_to_one")
    else:
        truth = pd.concat([read_table(path, "truth") for path in args.truth])
        candidates = match_truth(usable, truth, settings.match_px, settings.window_px)
    return draw_labels(candidates, settings.truth_per_class, seed=0)


def report_unmatched(args, labels: pd.DataFrame, unmatched: pd.DataFrame) -> None:
    """Say how many labels found no crop; raise InputError if none did."""
    if labels.empty:
        first = dict(unmatched.iloc[0]) if len(unmatched) else "no rows"
        raise InputError(
            f"screen {args.screen}: none of the labels finds a crop; first: {first}. "
            "Are they labels of another screen?"
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
