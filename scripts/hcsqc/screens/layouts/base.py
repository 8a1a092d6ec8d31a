"""What the layouts share: what is asked of them, what they answer."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from hcsqc.core.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where a screen's images lie and how they are named.

    `images`, `image_csv` and `table` may hold `{plate}`. What a layout does not use is None.
    """

    layout: str
    images: Path
    channels: tuple[str, ...]
    image_csv: Path | None = None
    table: Path | None = None
    table_prefix: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Image:
    """A channel of a field: its path below the images' folder; its page, None if it is alone."""

    path: str
    page: int | None = None


@dataclass(frozen=True)
class Treatment:
    """What was done to a well; None where nothing says."""

    role: str | None = None
    compound: str | None = None
    concentration_um: float | None = None


@dataclass
class FoundImages:
    """What a layout finds of a plate.

    `images`: by (well, site) and channel. `channels`: those that the plate has, where the layout
    lets the screen choose. `problems`: what makes a field unusable, by (well, site).
    `strangers`: image files that could not be placed.
    """

    images: dict[tuple[str, int], dict[str, list[Image]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    channels: set[str] | None = None
    problems: dict[tuple[str, int], str] = field(default_factory=dict)
    treatments: dict[str, Treatment] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)


def of_plate(path: Path, plate: str) -> Path:
    """Return a path with the plate's name in place of `{plate}`."""
    return Path(str(path).replace("{plate}", plate))


def plates_by_path(path: Path) -> list[str]:
    """Return the plates for which a path that holds `{plate}` exists, sorted."""
    parts = path.parts
    first = next(index for index, part in enumerate(parts) if "{plate}" in part)
    before, _, after = parts[first].partition("{plate}")
    name = re.compile(f"{re.escape(before)}(?P<plate>.+?){_repeated(after)}")
    parent = Path(*parts[:first])
    names = os.listdir(parent) if parent.is_dir() else []
    matches = [name.fullmatch(entry) for entry in names]
    plates = {match["plate"] for match in matches if match and not is_hidden(match["plate"])}
    return sorted(plate for plate in plates if of_plate(path, plate).exists())


def _repeated(after: str) -> str:
    return "(?P=plate)".join(re.escape(part) for part in after.split("{plate}"))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, as `._x`, which a Mac leaves beside each x."""
    return name.startswith(".")


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder from `folder` on, its subfolders and its files, in order.

    Links are followed, unless they lead back to a folder above them; what is hidden is left out.
    Those that are taken out of the subfolders are not entered.
    Raises InputError if a folder cannot be listed.
    """
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = sorted(
            name for name in folders if not is_hidden(name) and not _leads_back(root, name)
        )
        yield Path(root), folders, sorted(name for name in names if not is_hidden(name))


def _refuse(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        return
    raise InputError(
        f"{error.filename}: cannot be listed ({error.strerror}); make this folder readable"
    ) from error


def _leads_back(root: str, name: str) -> bool:
    link = Path(root, name)
    if not link.is_symlink():
        return False
    target = os.path.realpath(link)
    return any(os.path.realpath(above) == target for above in link.absolute().parents)


def files_below(folder: Path) -> Iterator[str]:
    """Yield the files below a folder as posix paths relative to it, in order, without hidden ones.

    Raises InputError if there is no such folder, or one below it cannot be listed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; correct images of the screen")
    for root, _, names in walk(folder):
        below = root.relative_to(folder)
        for name in names:
            yield (below / name).as_posix()


def one_of(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, and all there are."""
    known = sorted(known)
    lower = {entry.lower(): entry for entry in known}
    near = get_close_matches(name.lower(), list(lower), n=1)
    meant = f"did you mean '{lower[near[0]]}'? " if near else ""
    return f"{meant}there are: {first_few(known, 12)}"


def first_few(names: list[str], count: int = 3) -> str:
    """Return some names as a text, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(names[:count]) or "none") + more
