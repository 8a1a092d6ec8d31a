"""A file from its server to its place: fetched, verified, put under its name, with a receipt."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256, write_json
from hcsqc.download.transfer import Part, TransferSettings, Version, fetch
from hcsqc.download.unpack import Damaged, verify


def obtain(url: str, target: Path, receipt: Path, settings: TransferSettings) -> dict:
    """Fetch a file to `target` unless it is there, verify it, write and return its receipt.

    Of a .zip every member's CRC is checked. A damaged one is fetched once more; Damaged is raised
    if that is damaged too, or one that was there before.
    """
    version = None
    if target.exists():
        print(f"{target} exists already: checked, not downloaded", file=sys.stderr)
        if target.suffix == ".zip":
            verify(target)
    else:
        part = part_of(receipt)
        with part.alone():
            version = _fetch_whole(url, part, target, settings)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part.path, target)
            part.about.unlink()
    about = {
        "url": url,
        "etag": version and version.etag,
        "last_modified": version and version.last_modified,
        "bytes": target.stat().st_size,
        "sha256": sha256(target),
        "fetched": version is not None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(about, receipt)
    return about


def part_of(receipt: Path) -> Part:
    """Return where the file of a receipt lies while it is coming."""
    return Part(receipt.with_suffix(".part"))


def read_receipt(path: Path) -> dict:
    """Return a receipt; raise InputError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error


def _fetch_whole(url: str, part: Part, target: Path, settings: TransferSettings) -> Version:
    """Fetch until it is whole; a damaged archive once more."""
    for _ in range(2):
        version = fetch(url, part, settings)
        try:
            if target.suffix == ".zip":
                verify(part.path)
            return version
        except Damaged as error:
            print(f"{target.name} arrived damaged ({error.__cause__})", file=sys.stderr)
            part.forget()
    raise Damaged(
        f"{url} arrived damaged twice. Try again another day, or remove the plate from plates of "
        "its screen in the config"
    )
