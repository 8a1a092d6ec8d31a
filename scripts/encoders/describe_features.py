"""Say of features that come in a table what encoder.json says of any encoder."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import sha256, write_checked_json
from hcsqc.features.tables import read_feature_table


def main() -> None:
    """Read the flags and the table, write the description."""
    parser = cli.parser(__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(describe, parser.parse_args())


def describe(args, record) -> None:
    """Describe the table that the arguments name."""
    _, vectors = read_feature_table(args.table)
    provenance = {"weights": "table", "table": args.table.name, "sha256": sha256(args.table)}
    about = {
        "kind": "transfer",
        "architecture": "table",
        "input": {"size_px": None},
        "width": vectors.shape[1],
        "trainable": False,
        "provenance": provenance,
    }
    write_checked_json(about, args.output)
    record.parameters = provenance
    record.metrics = {"width": vectors.shape[1]}


if __name__ == "__main__":
    main()
