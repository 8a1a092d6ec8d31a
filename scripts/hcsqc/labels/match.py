"""Labels: which crops are normal or abnormal, from label files or from a screen's truth."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import OTHER_SEPARATORS, SAVE_AS, each, plates_among
from hcsqc.core.ids import is_copy
from hcsqc.core.places import parse_well, why_other
from hcsqc.core.schema import ARTEFACTS, LABELS, SELECTIONS, as_written
from hcsqc.screens.layouts.base import first_few

FILE_COLUMNS = (
    "plate",
    "well",
    "site",
    "x_px",
    "y_px",
    "label",
    "artefact",
    "annotator",
    "selection",
)
REVIEWED = "reviewed_by"  # who confirmed or corrected a label; not every label file has the column
MOST_BLURRED = 0.5  # of a screen's crops, beyond which none is left out for its focus
NOT_CROPPED = "the nucleus was not cropped"
# What to do with one crop labelled both normal and abnormal.
CONFLICTS = ERROR, ABNORMAL_WINS, DROP = ("error", "abnormal", "drop")


def read_label_file(path: Path) -> pd.DataFrame:
    """Read one CSV of labels, with or without a byte-order mark.

    A plate, well or annotator that a spreadsheet program would take for a formula may have an
    apostrophe before it, which is left out. The column `REVIEWED` is empty where the file has none.
    Raises InputError for what such a program saves otherwise (UTF-16, semicolons, decimal commas),
    a missing column, an unknown class or a value that is no number, naming the file and the line.
    """
    text = _read_text(path)
    try:
        _check_columns(text, path)
        rows = pd.read_csv(
            io.StringIO(text),
            dtype=str,
            keep_default_na=False,
            index_col=False,
            usecols=lambda name: name in (*FILE_COLUMNS, REVIEWED),
            skip_blank_lines=False,
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); {SAVE_AS}") from error
    rows = rows.reindex(columns=[*FILE_COLUMNS, REVIEWED], fill_value="").fillna("")
    rows = rows[rows.apply(lambda cells: cells.str.strip() != "").any(axis=1)].copy()
    for name in ("plate", "well", "annotator", REVIEWED):
        rows[name] = as_written(rows[name])
    for name in ("site", "x_px", "y_px"):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            place = int(wrong.argmax())
            value = rows[name].iloc[place]
            why = f"is not a number ({name})"
            if re.fullmatch(r"-?\d+,\d+", value.strip()):
                why = f"has a decimal comma ({name}); {SAVE_AS}"
            raise InputError(f"{path}, line {rows.index[place] + 2}: '{value}' {why}")
        rows[name] = numbers
    wrong = rows["site"] % 1 != 0
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(
            f"{path}, line {rows.index[place] + 2}: '{rows['site'].iloc[place]:g}' is not a "
            "whole number (site)"
        )
    for name, known in (
        ("label", LABELS),
        ("artefact", ("", *ARTEFACTS)),
        ("selection", SELECTIONS),
    ):
        rows[name] = rows[name].str.strip()
        wrong = ~rows[name].isin(known)
        if wrong.any():
            place = int(wrong.argmax())
            value = rows[name].iloc[place]
            raise InputError(
                f"{path}, line {rows.index[place] + 2}: unknown {name} '{value}'; "
                f"known: {', '.join(word for word in known if word)}"
            )
    wrong = (rows["label"] == "normal") & (rows["artefact"] != "")
    if wrong.any():
        line = rows.index[int(wrong.argmax())] + 2
        raise InputError(f"{path}, line {line}: a normal crop cannot have an artefact")
    return rows.assign(source=path.name)


def _read_text(path: Path) -> str:
    """Return the text of a label file; raises InputError unless it is in UTF-8."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; correct labels of the screen") from error
    if b"\0" in content:  # as every second byte of plain letters is in UTF-16
        raise InputError(f"{path}: is in UTF-16, or is not text; {SAVE_AS}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not in UTF-8 ({error}); {SAVE_AS}") from error


def _check_columns(text: str, path: Path) -> None:
    """Raise InputError if a column is missing, or a line has more values than the header."""
    lines = csv.reader(io.StringIO(text))
    header = next(lines, [])
    missing = [name for name in FILE_COLUMNS if name not in header]
    if missing:
        first_line = text.partition("\n")[0]
        for separator, name in OTHER_SEPARATORS.items():
            if first_line.count(separator) >= len(FILE_COLUMNS) - 1:
                raise InputError(f"{path}: has {name} between the columns; {SAVE_AS}")
        raise InputError(
            f"{path}: column '{missing[0]}' is missing; a label file has the columns "
            f"{','.join(FILE_COLUMNS)}"
        )
    for values in lines:
        if any(values[len(header) :]):
            raise InputError(
                f"{path}, line {lines.line_num}: {len(values)} values for {len(header)} columns: a "
                f"decimal comma, or a comma in a name without quotes; {SAVE_AS}"
            )


def place_labels(
    rows: pd.DataFrame, nuclei: pd.DataFrame, match_px: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the label rows with the crop_id of the kept nucleus that each means, and the others.

    That is the nearest nucleus within `match_px` in the label's field. `nuclei` has the columns of
    that table and plate, well, site; plates and wells of labels are read as `core.places` reads
    them, and written so. One crop may have several labels. Those without a crop have the reason.
    """
    matched, unmatched = [], []
    fields = dict(tuple(nuclei.groupby(["plate", "well", "site"])))
    plates = sorted(set(nuclei["plate"]))
    own_plate, own_well = plates_among(rows["plate"], plates), each(rows["well"], parse_well)
    rows = rows.assign(
        plate=own_plate.where(own_plate.notna(), rows["plate"]),
        well=own_well.where(own_well.notna(), rows["well"]),
    )
    for place, labels in rows.groupby(["plate", "well", "site"]):
        candidates = fields.get(place)
        if candidates is None:
            unmatched.append(labels.assign(reason=_no_field(labels.iloc[0], plates)))
            continue
        tree = cKDTree(candidates[["x_px", "y_px"]])
        distance, nearest = tree.query(labels[["x_px", "y_px"]])
        # A distance beyond all numbers has no nearest nucleus.
        found = candidates.iloc[np.minimum(nearest, len(candidates) - 1)]
        near = distance <= match_px
        kept = found["kept"].to_numpy()
        taken = near & kept
        matched.append(labels[taken].assign(crop_id=found["crop_id"].to_numpy()[taken]))
        why = np.where(near, NOT_CROPPED, f"no nucleus within {match_px} px")
        unmatched.append(labels[~taken].assign(reason=why[~taken]))
    placed = pd.concat(matched, ignore_index=True) if matched else rows.head(0).assign(crop_id="")
    lost = pd.concat(unmatched, ignore_index=True) if unmatched else rows.head(0).assign(reason="")
    return placed, lost


def _no_field(label: pd.Series, plates: list[str]) -> str:
    """Return why a label's field is not among those with a nucleus."""
    plate, well = label["plate"], label["well"]
    if plate not in plates:
        there = first_few(plates)
        return (
            f"no nucleus of plate '{plate}'; labelled plates: {there}{why_other([plate], plates)}"
        )
    if parse_well(well) is None:
        return f"'{well}' is not a well name such as A01"
    return "no such field, or no nucleus in it"


def settle(placed: pd.DataFrame, conflicts: str) -> pd.DataFrame:
    """Return the `labels` table, one row per crop, of what `place_labels` returned.

    If several labels agree, the first is kept. For a crop labelled both normal and abnormal,
    `conflicts` "abnormal" keeps the first abnormal label, and "drop" leaves the crop out.
    Raises InputError for such a crop with "error", and for any other word.
    """
    if conflicts not in CONFLICTS:
        raise InputError(f"labels.conflicts is '{conflicts}', not one of {', '.join(CONFLICTS)}")
    disputed = placed.groupby("crop_id")["label"].transform("nunique") > 1
    if disputed.any() and conflicts == ERROR:
        crop = placed[disputed]["crop_id"].min()
        sources = ", ".join(sorted(set(placed[placed["crop_id"] == crop]["source"])))
        raise InputError(
            f"crop {crop} is labelled both normal and abnormal ({sources}); keep one "
            f"label, or set labels.conflicts to {ABNORMAL_WINS} (the abnormal label counts) or "
            f"{DROP} (the crop is left out)"
        )
    wins = placed["label"] == "abnormal" if conflicts == ABNORMAL_WINS else False
    labels = placed[~disputed | wins]
    labels = labels.drop_duplicates("crop_id").sort_values("crop_id", ignore_index=True)
    labels["artefact"] = labels["artefact"].replace("", None)
    labels["strength"] = np.nan
    columns = ["crop_id", "plate", "well", "label", "artefact", "strength", "annotator", "source"]
    return labels[[*columns, "selection"]]


def labels_at_random(placed: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of the `labels` table whose crop was chosen at random, by any annotator.

    `placed` is what `place_labels` returned. They tell how common artefacts are: a crop of the
    random ones is not lost because it was chosen in another way too.
    """
    chosen = placed[placed["selection"] == "random"]["crop_id"]
    return labels[labels["crop_id"].isin(chosen)].assign(selection="random")


def match_truth(
    nuclei: pd.DataFrame, truth: pd.DataFrame, match_px: float, window_px: float
) -> pd.DataFrame:
    """Give each nucleus what was planted at the nearest cell: artefact, strength and nearby.

    A crop is abnormal if its own nucleus carries an artefact. `nearby` are those without one whose
    window, of `window_px`, holds pixels that an artefact of others changed. A nucleus without a
    cell within `match_px` is left out.
    """
    matched = [nuclei.head(0).assign(artefact="", strength=0.0, nearby=False)]
    cells_of = dict(tuple(truth.groupby(["plate", "well", "site"])))
    for place, crops in nuclei.groupby(["plate", "well", "site"]):
        if place not in cells_of:
            continue
        cells, centres = cells_of[place], crops[["x_px", "y_px"]].to_numpy(float)
        distance, nearest = cKDTree(cells[["x_px", "y_px"]]).query(centres)
        cells = cells.iloc[nearest]
        artefact = cells["artefact"].to_numpy()
        # A nucleus is found a little beside the cell that the distance was measured from.
        beside = np.abs(cells[["x_px", "y_px"]].to_numpy() - centres).max(axis=1)
        away = cells["artefact_px"].to_numpy(float, na_value=np.inf) - beside
        crops = crops.assign(
            artefact=artefact,
            strength=cells["strength"].to_numpy(),
            nearby=(artefact == "none") & (away <= window_px / 2),
        )
        matched.append(crops[distance <= match_px])
    return pd.concat(matched, ignore_index=True)


def keep_sharp(candidates: pd.DataFrame, focus_edge: float) -> pd.DataFrame:
    """Return the crops of a derived screen but those of a nucleus whose edge is too wide.

    `candidates` has crop_id and edge, in typical nucleus diameters, that of the original also for
    its copies; an edge of nan, too faint to be measured, is not known to be sharp. A blurred crop
    that passes for normal teaches that blur is, and puts the threshold above it. If most crops are
    out of focus, all stay: too few would be left to learn from, and the screen's fields are bad for
    their edges alone.
    """
    sharp = candidates["edge"] <= focus_edge
    return candidates if (~sharp).mean() > MOST_BLURRED else candidates[sharp]


def keep_usual(candidates: pd.DataFrame, trimmed: float) -> pd.DataFrame:
    """Return the crops of a derived screen without the oddest share of each plate.

    `candidates` has crop_id, plate and oddness, that of the original also for its copies: a real
    crop that looks aberrant already is no normal example, nor is its copy one of a known artefact.
    Originals that are equally odd stay or go together.
    """
    original = ~candidates["crop_id"].map(is_copy).astype(bool)
    bounds = (
        candidates[original]
        .groupby("plate")["oddness"]
        .quantile(1 - trimmed, interpolation="lower")
    )
    return candidates[candidates["oddness"] <= candidates["plate"].map(bounds).astype(float)]


def draw_labels(
    candidates: pd.DataFrame, per_class: int, per_field: int, per_artefact: int, seed: int
) -> pd.DataFrame:
    """Return the `labels` table of at most `per_class` random crops of each class.

    Of a class at most `per_field` are of one field, and at most `per_artefact` have one kind of
    artefact, so that neither one degraded field nor one kind is most of a test. `candidates` has
    crop_id, field_id, plate, well, artefact ("none" is normal) and strength; their order does not
    matter.
    """
    mixed = _mixed(candidates, seed)
    abnormal = mixed["artefact"] != "none"
    mixed = mixed[mixed.groupby([mixed["field_id"], abnormal]).cumcount() < per_field]
    abnormal = mixed["artefact"] != "none"
    mixed = mixed[(mixed.groupby("artefact").cumcount() < per_artefact) | ~abnormal]
    abnormal = mixed["artefact"] != "none"
    drawn = mixed[mixed.groupby(abnormal).cumcount() < per_class]
    return _true_labels(drawn.sort_values("crop_id", ignore_index=True))


def draw_at_random(candidates: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return the `labels` table of `count` random crops, whatever their class; or of all."""
    drawn = _mixed(candidates, seed).head(count)
    return _true_labels(drawn.sort_values("crop_id", ignore_index=True))


def _mixed(candidates: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the candidates in a random order that does not depend on theirs."""
    places = np.random.default_rng(seed).permutation(len(candidates))
    return candidates.sort_values("crop_id").iloc[places].reset_index(drop=True)


def _true_labels(candidates: pd.DataFrame) -> pd.DataFrame:
    normal = (candidates["artefact"] == "none").to_numpy()
    return pd.DataFrame(
        {
            "crop_id": candidates["crop_id"],
            "plate": candidates["plate"],
            "well": candidates["well"],
            "label": np.where(normal, "normal", "abnormal"),
            "artefact": candidates["artefact"].mask(normal, None),
            "strength": candidates["strength"].mask(normal),
            "annotator": "simulation",
            "source": "truth",
            "selection": "random",
        }
    )
