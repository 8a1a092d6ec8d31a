"""Take the features of the labelled crops from a your own table."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.schema import features_schema, read_table, write_table
from hcsqc.features.tables import features_of, features_table, read_feature_table


def main() -> None:
    """Read the flags and tables; write the features."""
    parser = cli.parser(__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(take, parser.parse_args())


def take(args, record) -> None:
    """Take the features that the arguments name."""
    crops, vectors = read_feature_table(args.table)
    wanted = read_table(args.labels, "labels", ["crop_id"])["crop_id"].tolist()
    found = features_of(args.table, crops, vectors, wanted)
    width = vectors.shape[1]
    write_table(features_table(wanted, found), args.output, features_schema(width))
    record.metrics = {"crops": len(wanted), "width": width}


if __name__ == "__main__":
    main()
