"""Error rates, power and coverage of the statistics, simulated; a table for each module here.

A number of 0 leaves a table out.
"""

from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks import common
from benchmarks.statistics.prevalence import rows_of_prevalence
from benchmarks.statistics.promises import ENCODERS, choice_rows, promise_rows
from benchmarks.statistics.ranking import rows_of
from benchmarks.statistics.treatments import treated_rows


def main() -> None:
    """Read the flags, simulate the studies and print the table."""
    parser = common.parser(__doc__, rounds=False)
    parser.add_argument("--repeats", type=int, default=500, help="studies of each row")
    parser.add_argument("--treated-repeats", type=int, default=200, help="studies with compounds")
    parser.add_argument("--compounds", type=int, default=100, help="of these, on two plates each")
    parser.add_argument("--wells", type=int, nargs="+", default=[6, 12, 30, 75])
    parser.add_argument("--draws", type=int, nargs="+", default=[20, 10])
    parser.add_argument("--encoders", type=int, default=8)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--screens", type=int, default=400, help="of each kind, for promises")
    parser.add_argument("--choices", type=int, default=40, help="studies that choose an encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unlabelled", type=int, default=20, help="screens of each kind")
    parser.add_argument("--resamples", type=int, default=100, help="for intervals of prevalences")
    args = parser.parse_args()
    seeded = f"seed {args.seed}"
    with threadpool_limits(1):
        if args.repeats:
            rows = [
                row
                for draws in args.draws
                for wells in args.wells
                for row in rows_of(args, wells, draws)
            ]
            title = f"{args.repeats} studies a row, {args.encoders} encoders, {seeded}"
            show("ranking", title, rows, args.json)
        if args.treated_repeats:
            title = f"{args.treated_repeats} studies of {args.compounds} compounds on two plates"
            show("treatments", f"{title} each, {seeded}", treated_rows(args), args.json)
        if args.unlabelled:
            title = f"{args.unlabelled} screens a row, {args.resamples} resamples, {seeded}"
            show("prevalence", title, rows_of_prevalence(args), args.json)
        if args.screens:
            title = f"{args.screens} screens a row, {seeded}: given, broken, labels above (%)"
            show("promises", title, promise_rows(args.screens, args.seed), args.json)
        if args.choices:
            title = f"{args.choices} studies a row, {ENCODERS} equal encoders, {seeded}; %"
            show("choices", title, choice_rows(args.choices, args.seed), args.json)


def show(name: str, title: str, rows: list[dict], path: Path | None) -> None:
    """Print a table; beside the path `path` its rows are written by name."""
    print(f"\n{title}")
    common.report(rows, path and path.with_stem(f"{path.stem}_{name}"))


if __name__ == "__main__":
    main()
