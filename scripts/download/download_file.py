"""Fetch one file, going on where an earlier attempt broke off, and verify it."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.download.obtain import obtain
from hcsqc.download.transfer import TransferSettings


def main() -> None:
    """Read the flags, fetch the file, write its receipt."""
    parser = cli.parser(__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--receipt", type=Path, required=True)
    cli.add_settings(parser, TransferSettings)
    cli.run(download, parser.parse_args())


def download(args, record) -> None:
    """Fetch the file that the arguments describe."""
    settings = cli.settings_from(args, TransferSettings)
    receipt = obtain(args.url, args.target, args.receipt, settings)
    record.parameters = receipt
    record.metrics = {"bytes": receipt["bytes"]}


if __name__ == "__main__":
    main()
