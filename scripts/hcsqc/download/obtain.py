"""A file from its server to its place: fetched, verified, put under its name, with a receipt."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256, write_json
from hcsqc.download.transfer import Part, TransferSettings, Version, fetch
from hcsqc.download.unpack import damage


def obtain(url: str, target: Path, receipt: Path, settings: TransferSettings) -> dict:
    """Fetch a file to `target` unless it is there, verify it, write and return its receipt.

    Of a .zip every member's CRC is checked. A damaged one is fetched once more; if that is damaged
    too, or one that was there before, InputError says so.
    """
    part = part_of(receipt)
    with part.alone():
        if target.exists():
            print(f"{target} is here already: checked, not fetched", file=sys.stderr)
            problem = _damage(target, target.name)
            if problem:
                raise InputError(f"{target} is damaged ({problem}); delete it to have it fetched")
            version = None
        else:
            version = _fetch_whole(url, part, target.name, settings)
            part.move_to(target)
    about = asdict(version) if version else {"url": url, "etag": None, "last_modified": None}
    about.pop("total", None)
    about |= {
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
        receipt = json.loads(path.read_text())
        if not {"url", "bytes", "sha256"} <= receipt.keys():
            raise ValueError("not a receipt")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error
    return receipt


def _damage(path: Path, name: str) -> str | None:
    return damage(path, f"verify {name}") if name.endswith(".zip") else None


def _fetch_whole(url: str, part: Part, name: str, settings: TransferSettings) -> Version:
    """Fetch until it is whole; a damaged archive once more."""
    first: str | None = None
    while True:
        version = fetch(url, part, settings)
        problem = _damage(part.path, name)
        if problem is None:
            return version
        digest = sha256(part.path)
        part.forget()
        if first:
            whose = "the server's copy is" if digest == first else "the line damages it, or it is"
            raise InputError(
                f"{url} has come damaged twice ({problem}): {whose} damaged. Try another day, or "
                "take the plate out of plates of its screen in the config"
            )
        first = digest
        print(f"{name} has come damaged ({problem}): fetched once more", file=sys.stderr)
