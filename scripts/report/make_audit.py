"""Write the audit page: the paper's figures with ours, checks on them, its claims on our data."""

from pathlib import Path

import pandas as pd

from hcsqc.analyses.contrasts import PairedScores
from hcsqc.core import cli
from hcsqc.core.files import atomic, read_checked_json
from hcsqc.core.schema import read_table
from hcsqc.labels.splits import training_overlaps
from hcsqc.report.audit import costs_of_records, render_audit
from hcsqc.report.tables import PAPER_TABLES


def main() -> None:
    """Read the flags and the study's results, write the page."""
    parser = cli.parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs=3, required=True, help="tables 1, 2, 3")
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--left-out", type=Path, nargs="+", required=True, help="without a well")
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="probes' run.json")
    parser.add_argument("--config", type=Path, required=True, help="the resolved config.json")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(audit, parser.parse_args())


def audit(args, record) -> None:
    """Render the audit of the study that the arguments describe."""
    scores = pd.concat([read_table(path, "scores") for path in args.scores])
    left_out = pd.concat([read_table(path, "left_out") for path in args.left_out])
    splits = read_table(args.splits, "splits")
    page = render_audit(
        read_checked_json(args.config)["config"],
        pd.read_csv(PAPER_TABLES),
        {number: pd.read_csv(path) for number, path in enumerate(args.tables, start=1)},
        PairedScores(scores, left_out, training_overlaps(splits, set(scores["budget"]))),
        costs_of_records(read_checked_json(path) for path in args.records),
    )
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"audit: {args.output}")


if __name__ == "__main__":
    main()
