"""Show normal and abnormal crops of a screen, as the paper's figures 1 and 2."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.figures.crops import plot_crops


def main() -> None:
    """Read the flags, labels and crops; write the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(plot, parser.parse_args())


def plot(args, record) -> None:
    """Draw the crops that the arguments name."""
    plot_crops(Shards(args.crops), read_table(args.labels, "labels"), args.composite, args.output)


if __name__ == "__main__":
    main()
