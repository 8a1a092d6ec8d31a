"""Published image sets that a study can be written for by name; known_sets.yaml lists them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from hcsqc.core.config import GALLERY
from hcsqc.core.errors import InputError
from hcsqc.core.places import by_role, role_by_name
from hcsqc.screens.images.remote import is_remote
from hcsqc.screens.layouts import Source
from hcsqc.screens.layouts.base import is_there, of_plate, one_of
from hcsqc.start.find import FoundScreen, find_in_gallery

DATA_FILES = ("known_sets.yaml",)
NUCLEUS, ROLES = "DNA", ("DNA", "ER", "RNA", "AGP", "Mito")
# What channels show whose names in the gallery's tables are those of the stains.
STAINS = {
    "OrigHoechst": "DNA",
    "OrigERSyto": "ER",
    "OrigSyto": "RNA",
    "OrigERSytoBleed": "RNA",
    "OrigPh_golgi": "AGP",
}


@dataclass(frozen=True)
class KnownSet:
    """A published image set; known_sets.yaml says what its entries mean."""

    name: str
    title: str
    project: str
    pixel_um: dict[str, float | None]
    magnification: int
    composite: list[str]
    licence: str
    citation: str
    batch: str | None = None
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    published_flags: dict | None = None

    @property
    def usual_source(self) -> str:
        """The source that is meant if none is named."""
        return next(iter(self.pixel_um))


def known_sets() -> dict[str, KnownSet]:
    """Return the sets by name."""
    table = yaml.safe_load(Path(__file__).with_name(DATA_FILES[0]).read_text(encoding="utf-8"))
    return {name: KnownSet(name, **entry) for name, entry in table.items()}


def set_called(text: str) -> KnownSet | None:
    """Return the set of this name; None of a URL, or of the path of a file or folder.

    Raises InputError for a word that is neither.
    """
    sets = known_sets()
    if is_remote(text) or Path(text).expanduser().exists():
        return None
    if text in sets:
        return sets[text]
    if "/" in text:
        return None
    raise InputError(
        f"{text}: no such folder or table, and no well-known set of this name; {one_of(text, sets)}"
    )


def find_set(
    known: KnownSet,
    plates: Sequence[str],
    images: str | None = None,
    source: str | None = None,
    batch: str | None = None,
) -> FoundScreen:
    """Find plates of a set in the gallery, or in a copy of it at `images`.

    Raises InputError without plates, for an unknown source or plate, and if the plate has not one
    channel for each role of the composite.
    """
    source = source or known.usual_source
    if source not in known.pixel_um:
        raise InputError(
            f"--source: {known.name} has no '{source}'; {one_of(source, known.pixel_um)}"
        )
    place = images or GALLERY
    if not is_remote(place):
        place = Path(place).expanduser().resolve()
    found = find_in_gallery(
        Source(
            "cell_painting_gallery",
            place,
            (),
            project=known.project,
            source=source,
            batch=batch or known.batch,
        ),
        plates,
    )
    shows = {name: STAINS.get(name, role_by_name(name)) for name in found.source.channels}
    roles = set(ROLES) - set(known.left_out)
    shows = {name: role for name, role in shows.items() if role in roles}
    by_stain = {name: role for name, role in shows.items() if role != role_by_name(name)}
    where = f"{known.name}: plate {found.plates[0]}"
    nucleus, *composite = by_role([NUCLEUS, *known.composite], {}, shows, where)
    flags, missing = _published_flags(known, found)
    entry = {
        "channel_roles": by_stain or None,
        "pixel_um": known.pixel_um[source],
        "published_flags": flags,
    }
    return replace(
        found,
        source=replace(found.source, channels=tuple(shows)),
        notes=[
            f"{known.title}, {known.magnification}x",
            f"licence: {known.licence}; cite {known.citation}",
            *known.notes,
            *missing,
        ],
        nucleus=nucleus,
        composite=composite,
        entry={key: value for key, value in entry.items() if value is not None},
    )


def _published_flags(known: KnownSet, found: FoundScreen) -> tuple[dict | None, list[str]]:
    """Return the entry of a set's published flags; None, and a note, if a plate has no table."""
    if known.published_flags is None:
        return None, []
    table = found.source.images / known.published_flags["table"]
    for plate in found.plates:
        if not is_there(of_plate(table, plate)):
            return None, [f"without the published flags: there is no {of_plate(table, plate)}"]
    return known.published_flags | {"table": str(table)}, []


def listed() -> str:
    """Return the sets as lines for a person: name and title."""
    return "\n".join(f"  {known.name:8} {known.title}" for known in known_sets().values())
