"""A screen's archives: where each comes from, where it goes, in which order they are fetched.

Light enough to import while the DAG is built.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hcsqc.core.errors import InputError

# Below a screen's images: the archives, and a receipt for each that stays when the archive goes.
FOLDER = "downloaded"


@dataclass(frozen=True)
class Remote:
    """A file on a web server, its place here, and the receipt that says it has come whole."""

    screen: str
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

    screen: str
    plate: str
    images: Path
    archives: tuple[Remote, ...]
    marker: Path

    @property
    def key(self) -> str:
        """The plate's name among all screens' plates."""
        return f"{self.screen}/{self.plate}"


@dataclass(frozen=True)
class ScreenArchives:
    """What is to be fetched for a screen."""

    screen: str
    images: Path
    files: tuple[Remote, ...]
    plates: tuple[PlateArchives, ...]

    @property
    def remotes(self) -> tuple[Remote, ...]:
        """All files in the order in which they are fetched: a plate's archives together."""
        return self.files + tuple(remote for plate in self.plates for remote in plate.archives)


def sources(screens: Mapping[str, Mapping]) -> list[ScreenArchives]:
    """Return what is to be fetched for those entries of `screens:` that have archives.

    Raises InputError naming the first value that cannot be.
    """
    found = [_source(name, entry) for name, entry in screens.items() if "archives" in entry]
    _check_shared_folders(found)
    return found


def steps(of: Iterable[ScreenArchives]) -> dict[Path, Remote | PlateArchives]:
    """Return every receipt and marker with what it is for, in the order in which they are made.

    A plate is unpacked before the next one is fetched. Screens that share a folder share steps.
    """
    ordered: dict[Path, Remote | PlateArchives] = {}
    for source in of:
        for remote in source.files:
            ordered.setdefault(remote.receipt, remote)
        for plate in source.plates:
            for remote in plate.archives:
                ordered.setdefault(remote.receipt, remote)
            ordered.setdefault(plate.marker, plate)
    return ordered


def _source(screen: str, entry: Mapping) -> ScreenArchives:
    where = f"config: screens.{screen}"
    archives = entry["archives"]
    if "images" not in entry:
        raise InputError(f"{where}.archives: give the folder to unpack them into as images")
    if not re.fullmatch(r"https?://[^/@]+(/.*)?", archives["url"]):
        raise InputError(
            f"{where}.archives.url: '{archives['url']}' must be http:// or https:// and a server's "
            "name, without a password"
        )
    for name in archives["plate"]:
        if "{plate}" not in name or not name.endswith(".zip"):
            raise InputError(
                f"{where}.archives.plate: '{name}' must hold {{plate}} and end with .zip"
            )
    images = Path(entry["images"])
    folder = archives["url"].rstrip("/") + "/"

    def remote(name: str, below: Path) -> Remote:
        if Path(name).name != name or name.startswith("."):
            raise InputError(f"{where}.archives: '{name}' is not a plain file name")
        receipt = images / FOLDER / f"{name}.json"
        return Remote(screen, name, folder + quote(name), below / name, receipt)

    plates = [
        PlateArchives(
            screen,
            plate,
            images,
            tuple(
                remote(name.replace("{plate}", plate), images / FOLDER)
                for name in archives["plate"]
            ),
            images / FOLDER / f"{plate}.unpacked.json",
        )
        for plate in entry["plates"]
        if archives["plate"]
    ]
    files = tuple(remote(name, images) for name in archives["files"])
    return ScreenArchives(screen, images, files, tuple(plates))


def _check_shared_folders(found: list[ScreenArchives]) -> None:
    """Refuse two different files under one name: in one screen, or in two that share a folder."""
    urls: dict[Path, str] = {}
    plates: dict[Path, tuple[str, ...]] = {}
    for source in found:
        own = [remote.receipt for remote in source.remotes]
        doubled = [path for path in own if own.count(path) > 1]
        for remote in source.remotes:
            if doubled or urls.setdefault(remote.receipt, remote.url) != remote.url:
                path = doubled[0] if doubled else remote.receipt
                raise InputError(
                    f"config: screens.{source.screen}.archives: two files would be "
                    f"{path.with_suffix('')}; give them other names or folders"
                )
        for plate in source.plates:
            names = tuple(remote.name for remote in plate.archives)
            if plate.marker in urls or plates.setdefault(plate.marker, names) != names:
                raise InputError(
                    f"config: screens.{source.screen}: plate {plate.plate} would be unpacked into "
                    f"{source.images} from two sets of archives; give the screens other folders"
                )
