"""Divide the labelled crops, by group, into test sets and ranked training lists."""

from dataclasses import dataclass
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_csv, write_table
from hcsqc.labels.groups import GROUPINGS, WELL
from hcsqc.labels.splits import largest_budget, split_labels
from hcsqc.labels.test_sets import composition, largest_group

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
    parser.add_argument("--group-by", choices=GROUPINGS, required=True)
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
        splits, protocol = split_labels(labels, args.evaluation_wells, *counts, 0, args.group_by)
    except InputError as error:
        others = _others(labels, args, counts)
        raise InputError(f"{error}. {others}{WITHOUT_DRAWS}") from error
    write_table(splits, args.output, "splits", {"protocol": protocol})
    write_csv(composition(splits, labels), args.composition)
    carried = largest_budget(splits)
    print(f"splits: crops are {protocol}; labels allow a budget of {carried}")
    record.parameters["protocol"] = protocol
    groups = splits["group"].nunique()
    if args.group_by != WELL:
        name, share = largest_group(splits)
        print(f"splits: {groups} groups by {args.group_by}; {name} has {share:.0%} of the labels")
    record.metrics = {"draws": settings.draws, "rows": len(splits), "largest_budget": carried}
    record.metrics["groups"] = groups


def _others(labels, args, counts) -> str:
    """Return which finer groups the same labels suffice for, as the start of a sentence."""
    found = []
    for group_by in GROUPINGS[: GROUPINGS.index(args.group_by)]:
        try:
            split_labels(labels, args.evaluation_wells, *counts, 0, group_by)
        except InputError:
            continue
        found.append(group_by)
    if not found:
        return ""
    return f"These labels suffice for evaluation.group_by: {' or '.join(found)}. "


if __name__ == "__main__":
    main()
