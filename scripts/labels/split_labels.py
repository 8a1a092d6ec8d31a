"""Divide the labelled crops, by well, into test sets and ranked training lists."""

from dataclasses import dataclass
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_csv, write_table
from hcsqc.labels.splits import largest_budget, split_labels
from hcsqc.labels.test_sets import composition

WITHOUT_DRAWS = (
    "Quality control needs no draws if qc.encoder names an encoder instead of `best`; snakemake qc "
    "then runs with these labels"
)


@dataclass(frozen=True)
class Settings:
    """Smallest and largest label budget, test crops and draws of the study."""

    smallest: int
    largest: int
    test_crops: int
    draws: int


def main() -> None:
    """Read the flags and labels, write the draws."""
    parser = cli.parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--evaluation-wells", nargs="*", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--composition", type=Path, required=True, help="CSV: what draws test")
    cli.add_settings(parser, Settings)
    cli.run(split, parser.parse_args())


def split(args, record) -> None:
    """Split the labels that the arguments name."""
    settings = cli.settings_from(args, Settings)
    labels = read_table(args.labels, "labels")
    counts = settings.smallest, settings.largest, settings.test_crops, settings.draws
    try:
        splits, protocol = split_labels(labels, args.evaluation_wells, *counts, seed=0)
    except InputError as error:
        raise InputError(f"{error}. {WITHOUT_DRAWS}") from error
    write_table(splits, args.output, "splits", {"protocol": protocol})
    write_csv(composition(splits, labels), args.composition)
    carried = largest_budget(splits)
    print(f"splits: crops are {protocol}; labels allow a budget of {carried}")
    record.parameters["protocol"] = protocol
    record.metrics = {"draws": settings.draws, "rows": len(splits), "largest_budget": carried}


if __name__ == "__main__":
    main()
