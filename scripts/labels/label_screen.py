"""Give each label of a screen its crop: labels from files, or from a screen's truth."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.agreement import DISAGREEMENT_COLUMNS
from hcsqc.labels.groups import compounds_of
from hcsqc.labels.screen_labels import (
    LabelSettings,
    labels_of_files,
    labels_of_truth,
    read_nuclei,
    warn_of_wells,
    write_list,
)

TREATED = ["plate", "well", "role", "compound"]


def main() -> None:
    """Read the flags, nuclei and labels; write the labelled crops and what found none."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--nuclei", type=Path, nargs="+", required=True)
    parser.add_argument("--fields", type=Path, nargs="+", required=True, help="of every plate")
    parser.add_argument("--truth", type=Path, nargs="*", required=True)
    parser.add_argument("--label-files", type=Path, nargs="*", required=True)
    parser.add_argument("--evaluation-wells", nargs="*", required=True)
    parser.add_argument("--unlabelled-plates", nargs="*", default=[], help="that no label is on")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--random", type=Path, required=True, help="labels of crops at random")
    parser.add_argument("--unmatched", type=Path, required=True)
    parser.add_argument("--disagreements", type=Path, required=True, help="CSV")
    cli.add_settings(parser, LabelSettings)
    cli.run(label, parser.parse_args())


def label(args, record) -> None:
    """Label the screen that the arguments describe."""
    if not args.truth and not args.label_files:
        raise InputError(
            f"screen {args.screen} has no labels, but evaluation needs some: list label files "
            f"under screens.{args.screen}.labels (docs/labels.md says how to make one). "
            "Crops and encoders need no labels: snakemake crops encoders"
        )
    settings = cli.settings_from(args, LabelSettings)
    nuclei = read_nuclei(args.nuclei)
    warn_of_wells(args.evaluation_wells, nuclei)
    if args.truth:
        found = labels_of_truth(args.truth, nuclei, args.evaluation_wells, settings)
        write_list(pd.DataFrame(columns=DISAGREEMENT_COLUMNS), args.disagreements)
    else:
        lists = args.disagreements, args.unmatched
        found = labels_of_files(
            args.screen, args.label_files, nuclei, args.unlabelled_plates, settings, *lists
        )
    counts = found.counts()
    told = ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"
    print(f"labels of {args.screen}: {told}")
    fields = pd.concat([read_table(path, "fields", TREATED) for path in args.fields])
    for labels, path in ((found.labels, args.output), (found.at_random, args.random)):
        write_table(labels.assign(compound=compounds_of(labels, fields)), path, "labels")
    write_list(found.unmatched, args.unmatched)
    record.metrics = found.metrics | {f"labels_{name}": n for name, n in counts.items()}
    record.metrics |= {
        "labels_unmatched": len(found.unmatched),
        "labels_random": len(found.at_random),
    }


if __name__ == "__main__":
    main()
