"""Compare flags that others published for a screen's fields with those of quality control."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.schema import write_csv
from hcsqc.qc.agreement.published import compare, field_table, joined_fields
from hcsqc.qc.agreement.published_tables import read_published
from hcsqc.qc.profiles import PLACE
from hcsqc.qc.report.results import read_results


def main() -> None:
    """Read the published flags and ours, write how far they agree and where they differ."""
    parser = cli.parser(__doc__)
    parser.add_argument("--table", required=True, help="path or URL, may hold {plate}")
    parser.add_argument("--columns", nargs="+", required=True, help="COLUMN=words of each flag")
    parser.add_argument("--plates", nargs="+", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the screen's tables")
    parser.add_argument("--replicates", type=int, required=True, help="of the bootstrap")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fields", type=Path, required=True, help="where to write field by field")
    cli.run(compare_flags, parser.parse_args())


def compare_flags(args, record) -> None:
    """Compare the flags that the arguments name."""
    columns = dict(given.split("=", 1) for given in args.columns)
    results = read_results(args.folder)
    published = read_published(args.table, args.plates, list(columns), results.fields[PLACE])
    joined = joined_fields(published.fields, columns, results.fields, results.cells)
    table = compare(joined, columns, args.replicates)
    write_csv(field_table(joined, columns), args.fields, "%.6g", schema="published_fields")
    write_csv(table, args.output, "%.6g", schema="published_flags")
    counts = ["unit", "flag", "ours", "both", "published_only", "ours_only", "neither", "kappa"]
    print(table[counts].to_string(index=False))
    fields, left_out = len(published.fields), published.without_place
    print(
        f"published: {fields} fields; {left_out} rows without a well or site are left out; "
        f"{published.bytes_read / 1e6:.1f} MB came from a server"
    )
    record.metrics = {
        "published_fields": fields,
        "rows_without_place": left_out,
        "bytes_read": published.bytes_read,
    }


if __name__ == "__main__":
    main()
