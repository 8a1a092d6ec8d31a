"""Unpack the archives of a plate below its screen's images."""

from dataclasses import dataclass
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import write_json
from hcsqc.download.archives import FOLDER
from hcsqc.download.obtain import read_receipt
from hcsqc.download.unpack import unpack


@dataclass(frozen=True)
class UnpackSettings:
    """What becomes of the archives."""

    delete_archives: bool


def main() -> None:
    """Read the flags, unpack the archives, write the marker."""
    parser = cli.parser(__doc__)
    parser.add_argument("--plate", required=True)
    parser.add_argument("--archives", type=Path, nargs="+", required=True)
    parser.add_argument("--receipts", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, UnpackSettings)
    cli.run(unpack_plate, parser.parse_args())


def unpack_plate(args, record) -> None:
    """Unpack the plate that the arguments describe."""
    gone = [
        receipt
        for archive, receipt in zip(args.archives, args.receipts, strict=True)
        if not archive.exists()
    ]
    if gone:
        raise InputError(
            f"plate {args.plate}: downloaded archives are gone but were not unpacked; to "
            f"download them again, delete {' '.join(str(receipt) for receipt in gone)}"
        )
    digests = [read_receipt(receipt)["sha256"] for receipt in args.receipts]
    temporary = args.images / FOLDER / f".{args.plate}.unpacking"
    unpacked = unpack(args.archives, args.images, temporary, f"unpack {args.plate}")
    names = [archive.name for archive in args.archives]
    archives = dict(zip(names, digests, strict=True))
    write_json(unpacked | {"archives": archives}, args.output)
    record.parameters = {"archives_sha256": list(archives.values())}
    record.metrics = unpacked
    if args.delete_archives:
        for archive in args.archives:
            archive.unlink()


if __name__ == "__main__":
    main()
