"""A screen's archives: where each comes from, where it goes, in which order they are fetched.

Light enough to import while the DAG is built.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from hcsqc.core.errors import InputError

# Below a screen's images: the archives, and a receipt for each that stays when the archive goes.
FOLDER = "downloaded"


@dataclass(frozen=True)
class Remote:
    """A file on a web server, its place here, and the receipt that says it has come whole."""

    screen: str = field(compare=False)
    name: str
    url: str
    target: Path
    receipt: Path

    @property
    def key(self) -> str:
        """The file's name among all screens' files."""
        return f"{self.screen}/{self.name}"


@dataclass(frozen=True)
class PlateArchives:
    """The archives of a plate, and the marker that says they have been unpacked below `images`."""

    screen: str = field(compare=False)
    plate: str
    images: Path
    archives: tuple[Remote, ...]
    marker: Path

    @property
    def key(self) -> str:
        """The plate's name among all screens' plates."""
        return f"{self.screen}/{self.plate}"


def steps(screens: Mapping[str, Mapping]) -> dict[Path, Remote | PlateArchives]:
    """Return every receipt and marker with what it is for, in the order in which they are made.

    They are those of the entries of `screens:` that have archives. A plate is unpacked before the
    next one is fetched. Screens that share a folder share steps. Raises InputError naming the first
    value that cannot be, and two different files that would have one receipt.
    """
    ordered: dict[Path, Remote | PlateArchives] = {}
    for screen, entry in screens.items():
        for path, step in _steps_of(screen, entry) if "archives" in entry else ():
            if ordered.setdefault(path, step) != step:
                raise InputError(
                    f"config: screens.{screen}.archives: {path.with_suffix('')} has two different "
                    "sources; use other names or folders"
                )
    return ordered


def _steps_of(screen: str, entry: Mapping) -> Iterator[tuple[Path, Remote | PlateArchives]]:
    where = f"config: screens.{screen}.archives"
    of = entry["archives"]
    if "images" not in entry:
        raise InputError(f"{where}: give the folder to unpack them into as images")
    if not re.fullmatch(r"https?://[^/@]+(/.*)?", of["url"]):
        raise InputError(
            f"{where}.url: '{of['url']}' must be http:// or https:// and a server's name, without "
            "a password"
        )
    for name in of["plate"]:
        if "{plate}" not in name or not name.endswith(".zip"):
            raise InputError(f"{where}.plate: '{name}' must contain {{plate}} and end with .zip")
    images = Path(entry["images"])
    downloaded = images / FOLDER

    def remote(name: str, below: Path) -> Remote:
        if Path(name).name != name or name.startswith("."):
            raise InputError(f"{where}: '{name}' is not a plain file name")
        url = f"{of['url'].rstrip('/')}/{quote(name)}"
        return Remote(screen, name, url, below / name, downloaded / f"{name}.json")

    for name in of["files"]:
        file = remote(name, images)
        yield file.receipt, file
    for plate in entry["plates"] if of["plate"] else ():
        names = [name.replace("{plate}", plate) for name in of["plate"]]
        archives = tuple(remote(name, downloaded) for name in names)
        yield from ((archive.receipt, archive) for archive in archives)
        marker = downloaded / f"{plate}.unpacked.json"
        yield marker, PlateArchives(screen, plate, images, archives, marker)
