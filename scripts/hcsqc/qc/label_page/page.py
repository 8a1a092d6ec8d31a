"""Crops chosen for labelling, and the page on which people label them in a browser.

The page is one HTML file with everything in it. It hides how a crop was chosen, and where it lies,
from the annotator.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from hcsqc.analyses.label_selection import DIVERSE, RANDOM, UNCERTAIN, choose
from hcsqc.core.errors import InputError
from hcsqc.core.files import text_digest
from hcsqc.core.html import render
from hcsqc.core.ids import split_field_id, wells_of
from hcsqc.core.parquet import read_parquet
from hcsqc.core.schema import ARTEFACTS
from hcsqc.crops.shards import Shards, composite
from hcsqc.labels.match import FILE_COLUMNS
from hcsqc.qc.field_view.images import FieldSource, coloured, read_scaled, scale_tables
from hcsqc.qc.label_page.promise import WellsOfPromise
from hcsqc.qc.label_page.review import COLUMNS as REVIEW_COLUMNS
from hcsqc.qc.label_page.review import Review
from hcsqc.screens.images.read import UnreadableField

DATA_FILES = ("page.html",)
TEMPLATE = Path(__file__).with_name(DATA_FILES[0])

# Clusters of so many random crops are as telling as those of millions, and take seconds.
DIVERSE_POOL = 5000
CONTEXT_WINDOWS = 3  # side of the context, in windows
CONTEXT_PX = 256  # at most; larger ones are shrunken
CONTEXT_QUALITY = 85  # of JPEG
MOST_DUPLICATES = 200  # rows shown; the CSV beside the page has all
ABOUT = {
    "blur": "out of focus",
    "saturation": "so bright that detail is lost",
    "debris": "dirt, dust, fibres",
    "noise": "grainy: too little light",
    "autofluorescence": "a glow that is not the cell's",
    "empty": "no cell, or only a ghost",
    "dead": "dead or dying, rounded up",
    "other": "anything else",
}


EVEN = 0.5  # even odds; a threshold would need enough random labels


@dataclass(frozen=True)
class Counts:
    """How many crops are to be chosen in each way."""

    random: int
    diverse: int
    uncertain: int


@dataclass(frozen=True)
class ContextSource:
    """Where the images around the crops come from."""

    fields: FieldSource
    window_px: float  # side of a crop in source pixels


def choose_crops(
    crops: Sequence[str],
    counts: Counts,
    seed: int,
    scores: pd.Series | None = None,
    features: Sequence[Path] = (),
    labelled: Sequence[str] = (),
) -> pd.DataFrame:
    """Return crop_id and selection of crops to label, no crop twice, in a shuffled order.

    Random ones come first, from all of `crops`, so that the other ways do not distort them: those
    of `spread_over_wells`, given the crops `labelled` at random on earlier pages. Then
    come uncertain ones, whose score (`scores` by crop_id) is nearest to even odds, and diverse
    ones, each the crop next to the centre of a cluster of features; both leave out what is chosen
    already. Where there are too few crops, all are taken.
    Raises InputError if there is none, or scores or features are missing.
    """
    pool = np.asarray(crops, dtype=object)
    if not len(pool):
        raise InputError("no crop is left to label: there are none, or all are labelled")
    state = np.random.default_rng([seed, 0])
    chosen = {RANDOM: spread_over_wells(pool, labelled, state)[: counts.random]}
    left = _without(pool, chosen[RANDOM])
    if counts.uncertain:
        if scores is None:
            raise InputError("uncertain crops need a detector's scores: give tables of them")
        state = np.random.default_rng([seed, 1])
        chosen[UNCERTAIN] = nearest_to(EVEN, scores, left, counts.uncertain, state)
        left = _without(left, chosen[UNCERTAIN])
    if counts.diverse:
        if not features:
            raise InputError("diverse crops need features: give tables of them")
        state = np.random.default_rng([seed, 2])
        chosen[DIVERSE] = diverse(features, left, counts.diverse, state)
    table = pd.DataFrame(
        [(crop, way) for way, picked in chosen.items() for crop in picked],
        columns=["crop_id", "selection"],
    )
    if table.empty:
        raise InputError("no crop is chosen: ask for random, diverse or uncertain ones")
    order = np.random.default_rng([seed, 3]).permutation(len(table))
    return table.iloc[order].reset_index(drop=True)


def spread_over_wells(
    crops: np.ndarray, labelled: Sequence[str], state: np.random.Generator
) -> np.ndarray:
    """Return crops in a random order of which every beginning is spread over the wells.

    Every crop is equally likely to be in it, so that it is a sample of the screen, and each well
    has its share of it, one crop more or less (a systematic sample). So wells of equal size get one
    crop each before any gets a second. Crops `labelled` at random before count: with the same
    `state` the order continues where an earlier page ended.
    """
    wells, place = np.unique(
        np.r_[wells_of(labelled), wells_of(crops)].astype(str), return_inverse=True
    )
    sizes, start = np.bincount(place), state.random(len(wells))
    own = place[len(labelled) :]
    order = state.permutation(len(crops))
    before = np.bincount(place[: len(labelled)], minlength=len(wells))
    number = np.empty(len(crops), int)
    number[order] = pd.Series(own[order]).groupby(own[order]).cumcount()
    return crops[np.argsort((before[own] + number + start[own]) / sizes[own], kind="stable")]


def _without(crops: np.ndarray, others: np.ndarray) -> np.ndarray:
    return crops[~pd.Series(crops).isin(others).to_numpy()]


def nearest_to(
    score: float,
    scores: pd.Series,
    crops: np.ndarray,
    count: int,
    state: np.random.Generator,
) -> np.ndarray:
    """Return at most `count` crops, those whose score is nearest to `score`.

    Crops without a score are left out; ties go by a random order. Raises InputError if no crop has
    a score.
    """
    own = scores.reindex(state.permutation(crops)).dropna()
    if len(crops) and own.empty:
        raise InputError("none of the crops has a score: are the scores those of another screen?")
    return (own - score).abs().sort_values(kind="stable").index[:count].to_numpy()


def diverse(
    paths: Sequence[Path], crops: np.ndarray, count: int, state: np.random.Generator
) -> np.ndarray:
    """Return at most `count` crops that differ as much as can be in their features.

    `paths` are tables of features; crops without any are left out. Raises InputError if none is
    left, or features are not finite.
    """
    wanted = pd.Index(crops)
    found = pd.concat(
        [
            read_parquet(path, ["crop_id"])
            .to_pandas()
            .rename_axis("row")
            .reset_index()
            .assign(file=place)
            for place, path in enumerate(paths)
        ]
    ).drop_duplicates("crop_id")
    found = found[found["crop_id"].isin(wanted)].sort_values("crop_id", ignore_index=True)
    if len(crops) and found.empty:
        raise InputError("none of the crops has features: are they those of another screen?")
    pool = found.iloc[np.sort(state.permutation(len(found))[:DIVERSE_POOL])]
    if len(pool) <= count:
        return pool["crop_id"].to_numpy()
    pool = pool.sort_values(["file", "row"])
    matrix = np.concatenate([_vectors(paths[file], own) for file, own in pool.groupby("file")])
    names, nobody = pool["crop_id"].to_numpy(), np.zeros(len(pool), np.int64)
    # Of all strategies the diverse one alone is used: it sees no label, and nothing is fitted.
    picked = choose(matrix, nobody, names, count, _fit_nothing, state)[DIVERSE]
    return names[picked]


def _fit_nothing(
    features: np.ndarray, targets: np.ndarray, wells: np.ndarray, tests: Sequence[np.ndarray]
) -> Sequence[np.ndarray]:
    raise NotImplementedError("labels of one class, from which nothing can be learned")


def _vectors(path: Path, pool: pd.DataFrame) -> np.ndarray:
    """Return the features (n x width) of the rows of one table."""
    vectors = read_parquet(path, ["vector"])["vector"].take(pa.array(pool["row"]))
    matrix = np.asarray(vectors.combine_chunks().flatten()).reshape(len(pool), -1)
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        crop = pool["crop_id"].iloc[bad.argmax()]
        raise InputError(f"{path}: features of crop {crop} are not finite numbers")
    return matrix


def page_crops(
    shards: Shards, chosen: pd.DataFrame, contexts: Sequence[bytes | None]
) -> Iterable[dict]:
    """Yield what the page holds of each chosen crop: its place, selection, pixels and context.

    Pixels are those of all channels, C x H x W of uint8, deflated; `contexts` are JPEG, in the same
    order, or None.
    """
    rows = shards.rows_of(chosen["crop_id"])
    about = shards.index.iloc[rows].reset_index(drop=True)
    about = about.join(split_field_id(about["field_id"])).assign(selection=chosen["selection"])
    told = about[["plate", "well", "site", "x_px", "y_px", "selection"]].itertuples(index=False)
    for row, crop, context in zip(rows, told, contexts, strict=True):
        plate, well, site, x_px, y_px, selection = crop
        channels = shards.format.channels
        pixels = composite(shards.read([row]), channels, channels)
        yield {
            "plate": plate,
            "well": well,
            "site": int(site),
            "x_px": int(x_px),
            "y_px": int(y_px),
            "selection": selection,
            "pixels": _base64(zlib.compress(pixels.tobytes(), 9)),
            "context": None if context is None else _base64(context),
        }


def context_pictures(
    shards: Shards, chosen: pd.DataFrame, channels: Sequence[str], source: ContextSource
) -> tuple[list[bytes | None], str]:
    """Return a JPEG of what lies around each chosen crop, CONTEXT_WINDOWS windows wide.

    It shows the composite at the plate's scale, black beyond the field, without the correction of
    uneven light. None where the field's image cannot be read: then the second value says why the
    first cannot. Raises InputError for a channel that crops do not have.
    """
    _places(shards.format.channels, channels)
    about = shards.index.iloc[shards.rows_of(chosen["crop_id"])].reset_index(drop=True)
    fields = source.fields.fields.set_index("field_id")
    tables = scale_tables(shards.paths, channels)
    pictures: list[bytes | None] = [None] * len(about)
    why = ""
    for field_id, crops in about.groupby("field_id"):
        try:
            if field_id not in fields.index:
                raise UnreadableField(f"{field_id}: is not in the tables of fields")
            field = fields.loc[[field_id]].iloc[0].to_dict()
            pixels = read_scaled(source.fields, field, shards.format, channels, tables)
        except UnreadableField as error:
            why = why or str(error)
            continue
        for place, x_px, y_px in crops[["x_px", "y_px"]].itertuples():
            pictures[place] = _jpeg(cut_context(pixels, x_px, y_px, source.window_px))
    return pictures, why


def cut_context(pixels: np.ndarray, x_px: int, y_px: int, window_px: float) -> np.ndarray:
    """Return the square of C x H x W pixels with the window in its middle, 0 beyond the field."""
    side, beside = round(CONTEXT_WINDOWS * window_px), round((CONTEXT_WINDOWS - 1) / 2 * window_px)
    left, top = x_px - int(window_px // 2) - beside, y_px - int(window_px // 2) - beside
    height, width = pixels.shape[1:]
    context = np.zeros((len(pixels), side, side), pixels.dtype)
    rows = slice(max(0, -top), max(0, min(side, height - top)))
    columns = slice(max(0, -left), max(0, min(side, width - left)))
    context[:, rows, columns] = pixels[
        :, rows.start + top : rows.stop + top, columns.start + left : columns.stop + left
    ]
    return context


def _jpeg(pixels: np.ndarray) -> bytes:
    """Return C x H x W of uint8 as JPEG, coloured as the page colours a composite."""
    image = coloured(pixels)
    if len(image) > CONTEXT_PX:
        image = cv2.resize(image, (CONTEXT_PX, CONTEXT_PX), interpolation=cv2.INTER_AREA)
    sharp_colours = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    quality = cv2.IMWRITE_JPEG_QUALITY, CONTEXT_QUALITY
    _, content = cv2.imencode(".jpg", image, [*quality, *sharp_colours])
    return content.tobytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def render_label_page(
    screen: str,
    channels: Sequence[str],
    chosen_channels: Sequence[str],
    size_px: int,
    crops: Sequence[dict],
    review: Review | None = None,
    promise: WellsOfPromise | None = None,
) -> str:
    """Return the page as HTML; `crops` are those of `page_crops`, in the order to be shown.

    `promise` is what it says of wells with random labels.
    With `review` it is the page on which labels are confirmed or corrected. All names are escaped.
    Labels are kept in the browser under the screen and a digest of the list of crops: another list
    begins again. Raises InputError for a channel that crops do not have.
    """
    names = [f"{c['plate']}/{c['well']}/{c['site']}/{c['x_px']}/{c['y_px']}" for c in crops]
    content = {
        "screen": screen,
        "digest": text_digest(json.dumps([names, review.given] if review else names))[:16],
        "columns": REVIEW_COLUMNS if review else FILE_COLUMNS,
        "review": review and {"given": review.given, "rows": review.rows},
        "channels": channels,
        "composite": _places(channels, chosen_channels)[:3],
        "size": size_px,
        "artefacts": ARTEFACTS,
        "promise": promise
        and {"needed": promise.needed, "labelled": promise.labelled, "counts": promise.counts},
        "crops": crops,
    }
    return render(
        TEMPLATE,
        screen=screen,
        content=content,
        artefacts=[(kind, ABOUT[kind]) for kind in ARTEFACTS],
        channels=channels,
        colours=_colours(chosen_channels),
        count=len(crops),
        has_context=any(crop["context"] for crop in crops),
        context_windows=CONTEXT_WINDOWS,
        review=review,
        promise=promise,
        duplicates=review.duplicates.head(MOST_DUPLICATES).to_dict("records") if review else [],
    )


def _places(channels: Sequence[str], chosen: Sequence[str]) -> list[int]:
    unknown = [name for name in chosen if name not in channels]
    if unknown:
        raise InputError(f"channel '{unknown[0]}' is not one of {', '.join(channels)}")
    return [list(channels).index(name) for name in chosen]


def _colours(chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Return the colour and channel of a composite; a single channel is grey."""
    names = ("grey",) if len(chosen) == 1 else ("red", "green", "blue")
    return list(zip(names, chosen, strict=False))
