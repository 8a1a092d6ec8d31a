"""Small pictures of fields with the outlines of their nuclei, within a budget of bytes.

Their brightness is that of the crops. Pictures are WebP: at this size the header of a JPEG is as
large as its content.
"""

import base64
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.parallel import in_order
from hcsqc.core.patience import look
from hcsqc.core.progress import Progress
from hcsqc.crops.shards import Shards
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.field_view.images import FieldSource, coloured, read_scaled, scale_tables
from hcsqc.qc.report.words import counted
from hcsqc.screens.images.read import UnreadableField
from hcsqc.screens.images.remote import RemoteFolder

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
# Longest side in pixels, and quality of WebP. Beyond FAIR pictures only become smaller so that all
# fields that must be shown are.
LADDER = ((224, 60), (192, 50), (160, 45), (128, 40), (112, 36), (96, 32), (80, 28), (64, 24))
FAIR = 3
SAMPLED = 24  # fields whose bytes say how large the pictures can be
ENTRY_BYTES = 64  # of a field's names and numbers in the page
SURE = 0.97  # of the budget is filled by estimate
AHEAD_FIELDS = 16
OUTLINE = np.dtype([(name, np.uint8) for name in ("x", "y", "radius", "score", "kind")])
RADIUS_STEPS = 4  # of a packed radius, in a pixel of the thumbnail


@dataclass(frozen=True)
class FieldPicture:
    """A field's thumbnail and its scored nuclei, those flagged first, the highest scores first.

    `uri` is a data URI, `scale` pixels of the thumbnail along one of the image. `outlines` has x,
    y and radius in pixels of the thumbnail, crop_id, score, flagged and artefact.
    """

    uri: str
    width: int
    height: int
    scale: float
    outlines: pd.DataFrame


@dataclass(frozen=True)
class FieldPictures:
    """The thumbnails of a screen, by place: plate, well and site.

    `note` says in a sentence or two which fields are not shown, and why; it is empty if all are.
    """

    pictures: dict[tuple[str, str, int], FieldPicture] = field(default_factory=dict)
    note: str = ""


def field_pictures(
    fields: pd.DataFrame,
    cells: pd.DataFrame,
    source: FieldSource | None,
    shards: Shards,
    composite: Sequence[str],
    budget_bytes: int,
    seed: int,
    threads: int = 1,
) -> FieldPictures:
    """Return thumbnails of fields whose bytes, with packed outlines, are within the budget.

    `fields` and `cells` are those tables of a screen's results, or of some plates. Fields that are
    bad or have flagged cells come first, then others at random, as many of each well. Pictures
    shrink, down to the end of LADDER, so that all of the former have room. A field whose image
    cannot be read is counted, and without any image there are no pictures: never an error.
    """
    if source is None or not len(fields):
        return FieldPictures(note=_no_source(fields))
    order, needed = shown_order(fields, seed)
    maker = _Maker(source, shards, composite, cells)
    absent = maker.absent_folder(order["Metadata_Plate"].unique())
    if absent:
        return FieldPictures(note=f"No field is shown: the images are no longer in {absent}.")
    places = [tuple(place) for place in order[PLACE].itertuples(index=False)]
    try:
        level, room = _level(maker, places, needed, budget_bytes, seed, threads)
        found, unreadable, why = _read(maker, places, level, room, needed, budget_bytes, threads)
    except InputError as error:
        return FieldPictures(note=f"No field is shown: {error}.")
    found = _within(found, set(places[:needed]), level, budget_bytes)
    left_out = len(places) - len(found) - unreadable
    return FieldPictures(found, _note(len(found), unreadable, left_out, why))


def shown_order(fields: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, int]:
    """Return the fields in the order in which they are shown, and how many of them must be.

    Those that are bad or have flagged cells must, bad ones and most flagged cells first. The rest
    is shuffled, one field of each well before the second of any.
    """
    must = fields["bad"].astype(bool) | (fields["flagged"] > 0)
    first = fields[must].sort_values(
        ["bad", "flagged", *PLACE], ascending=[False, False, True, True, True]
    )
    rest = fields[~must].sort_values(PLACE)
    rest = rest.iloc[np.random.default_rng([seed, 0]).permutation(len(rest))]
    turn = rest.groupby(PLACE[:2], sort=False).cumcount()
    rest = rest.iloc[np.argsort(turn.to_numpy(), kind="stable")]
    return pd.concat([first, rest]), len(first)


def pack_outlines(picture: FieldPicture, artefacts: Sequence[str]) -> str:
    """Return the outlines of a field as base64 of five bytes each, in the order of `outlines`.

    x and y (0 to 255 across the field), radius (RADIUS_STEPS to a pixel of the thumbnail), score
    (0 to 255: 0 to 1), and kind: 0 passed, 1 flagged without a known artefact, 2 the first of
    `artefacts`, and so on. In JavaScript: `Uint8Array.from(atob(text), c => c.charCodeAt(0))`.
    """
    rows = picture.outlines
    kinds = {name: place + 2 for place, name in enumerate(artefacts)}
    packed = np.zeros(len(rows), OUTLINE)
    for name, values, most in (
        ("x", rows["x"], picture.width),
        ("y", rows["y"], picture.height),
        ("radius", rows["radius"] * RADIUS_STEPS, 255),
        ("score", rows["score"], 1),
    ):
        packed[name] = np.rint(np.clip(values.to_numpy(float) / most, 0, 1) * 255)
    of_kind = rows["artefact"].map(kinds).fillna(1)
    packed["kind"] = np.where(rows["flagged"], of_kind, 0)
    return base64.b64encode(packed.tobytes()).decode()


def picture_bytes(picture: FieldPicture) -> int:
    """Return what a field takes in the page, its outlines packed."""
    return len(picture.uri) + -(-len(picture.outlines) * OUTLINE.itemsize // 3) * 4 + ENTRY_BYTES


class _Maker:
    """Makes the thumbnail of a field, from several threads at once."""

    def __init__(self, source, shards: Shards, composite: Sequence[str], cells: pd.DataFrame):
        self.source, self.shards, self.composite = source, shards, composite
        self.tables = scale_tables(shards.paths, composite)
        rows = source.fields[["plate", "well", "site", "image_path", "image_page"]].to_dict(
            "records"
        )
        self.images = {(row["plate"], row["well"], int(row["site"])): row for row in rows}
        self.outlines = dict(list(_outlines(cells).groupby(PLACE, sort=False)))

    def absent_folder(self, plates: Collection[str]) -> str:
        """Return the folder of images where none of the plates' is there any more, else nothing."""
        folders = {self.source.folder(plate) for plate in plates}
        if any(isinstance(folder, RemoteFolder) for folder in folders):
            return ""  # said when an image is read
        try:
            there = any(look(folder) is not None for folder in folders)
        except InputError:
            there = True  # said when it is read
        return "" if there else ", ".join(sorted(map(str, folders))[:2])

    def make(self, place: tuple[str, str, int], level: int) -> FieldPicture | str:
        """Return the picture of a field, or why there is none."""
        try:
            if place not in self.images:
                raise UnreadableField(
                    f"{'/'.join(map(str, place))}: is not in the tables of fields"
                )
            pixels = read_scaled(
                self.source, self.images[place], self.shards.format, self.composite, self.tables
            )
        except UnreadableField as error:
            return str(error)
        height, width = pixels.shape[1:]
        scale = min(1.0, LADDER[level][0] / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in pixels]
        image = coloured(np.stack(small))
        rows = self.outlines.get(place)
        rows = NO_OUTLINES if rows is None else rows
        rows = rows.drop(columns=PLACE, errors="ignore").reset_index(drop=True)
        rows = rows.assign(**{name: rows[name] * scale for name in ("x", "y", "radius")})
        return FieldPicture(_uri(image, LADDER[level][1]), *size, scale, rows)


def _outlines(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the outlines of all scored nuclei, in pixels of the images."""
    scored = cells[cells["score"].notna()]
    rows = scored[PLACE].assign(
        x=scored["Nuclei_Location_Center_X"],
        y=scored["Nuclei_Location_Center_Y"],
        radius=np.sqrt(scored["Nuclei_AreaShape_Area"] / np.pi),
        crop_id=scored["crop_id"],
        score=scored["score"],
        flagged=is_flagged(scored),
        artefact=scored["artefact"],
    )
    return rows.sort_values(["flagged", "score", "crop_id"], ascending=[False, False, True])


NO_OUTLINES = pd.DataFrame(
    {name: pd.Series(dtype=float) for name in ("x", "y", "radius", "score")}
    | {"crop_id": pd.Series(dtype=object), "artefact": pd.Series(dtype=object)}
    | {"flagged": pd.Series(dtype=bool)}
)


def _uri(image: np.ndarray, quality: int) -> str:
    done, content = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV cannot write WebP")
    return "data:image/webp;base64," + base64.b64encode(content.tobytes()).decode()


def _level(
    maker: _Maker, places: list, needed: int, budget_bytes: int, seed: int, threads: int
) -> tuple[int, int]:
    """Return the place in LADDER at which fields fit, and how many fit there by estimate."""
    pool = places[:needed] or places
    chosen = np.random.default_rng([seed, 1]).permutation(len(pool))[:SAMPLED]
    largest = in_order(lambda place: maker.make(place, 0), [pool[i] for i in chosen], threads, 8)
    sample = [picture for picture in largest if isinstance(picture, FieldPicture)]
    if not sample:
        return FAIR, len(places)
    for level in range(len(LADDER)):
        sample = [smaller(picture, level) for picture in sample]
        fit = int(SURE * budget_bytes / np.mean([picture_bytes(picture) for picture in sample]))
        if fit >= (needed if level >= FAIR else len(places)):
            break
    return level, fit


def _read(
    maker: _Maker, places: list, level: int, room: int, needed: int, budget_bytes: int, threads: int
) -> tuple[dict, int, str]:
    """Return the pictures of the first fields, how many cannot be read, and why the first cannot.

    All that must be shown are read, then others until the budget is spent.
    """
    wanted = places[: max(room, needed)]
    found: dict[tuple[str, str, int], FieldPicture] = {}
    spent, unreadable, why = 0, 0, ""
    progress = Progress(len(wanted), "fields", "thumbnails")
    made = in_order(lambda p: maker.make(p, level), wanted, threads, threads + AHEAD_FIELDS)
    with closing(made):
        for number, (place, picture) in enumerate(zip(wanted, made, strict=False)):
            progress.update()
            if isinstance(picture, str):
                unreadable, why = unreadable + 1, why or picture
                continue
            spent += picture_bytes(picture)
            if spent > budget_bytes and number >= needed:
                break
            found[place] = picture
    progress.close(unreadable=unreadable)
    return found, unreadable, why


def _within(found: dict, must: set, level: int, budget_bytes: int) -> dict:
    """Return the pictures within the budget: without others, then smaller, then the first."""

    def total() -> int:
        return sum(picture_bytes(picture) for picture in found.values())

    if total() > budget_bytes:
        found = {place: picture for place, picture in found.items() if place in must}
    while total() > budget_bytes and level + 1 < len(LADDER):
        level += 1
        found = {place: smaller(picture, level) for place, picture in found.items()}
    kept, spent = {}, 0
    for place, picture in found.items():
        spent += picture_bytes(picture)
        if spent <= budget_bytes:
            kept[place] = picture
    return kept


def smaller(picture: FieldPicture, level: int) -> FieldPicture:
    """Return a picture as one of a place in LADDER below its own."""
    content = np.frombuffer(base64.b64decode(picture.uri.split(",", 1)[1]), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise RuntimeError("OpenCV cannot read WebP")
    shrink = min(1.0, LADDER[level][0] / max(picture.width, picture.height))
    size = max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    rows = picture.outlines
    rows = rows.assign(**{name: rows[name] * shrink for name in ("x", "y", "radius")})
    return replace(
        picture,
        uri=_uri(image, LADDER[level][1]),
        width=size[0],
        height=size[1],
        scale=picture.scale * shrink,
        outlines=rows,
    )


def _no_source(fields: pd.DataFrame) -> str:
    return "No field is shown: the report was made without the images." if len(fields) else ""


def _note(shown: int, unreadable: int, left_out: int, why: str) -> str:
    parts = []
    if unreadable:
        parts.append(
            f"{counted(unreadable, 'field')} cannot be shown, because the images are gone or "
            f"damaged; the first: {why}."
        )
    if left_out:
        parts.append(f"Pictures of {counted(shown, 'field')} fit; {left_out:,} are left out.")
    return " ".join(parts)
