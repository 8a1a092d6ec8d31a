"""Labels: which crops are normal or abnormal, from label files or from a screen's truth."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from hcsqc.errors import InputError
from hcsqc.schema import ARTEFACTS, LABELS, SELECTIONS

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


def read_label_file(path: Path) -> pd.DataFrame:
    """Read one CSV of labels.

    Raises InputError for a missing column, an unknown class or a value that is no number, naming
    the file and the line.
    """
    try:
        rows = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, skip_blank_lines=False
        )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; correct labels of the screen") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    missing = [name for name in FILE_COLUMNS if name not in rows.columns]
    if missing:
        raise InputError(
            f"{path}: no column '{missing[0]}'; a label file has {','.join(FILE_COLUMNS)}"
        )
    rows = rows[list(FILE_COLUMNS)].fillna("")
    rows = rows[(rows != "").any(axis=1)].copy()
    for name in ("site", "x_px", "y_px"):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            place = wrong.idxmax()
            raise InputError(
                f"{path}, line {place + 2}: '{rows[name][place]}' is no number ({name})"
            )
        rows[name] = numbers
    for name, known in (
        ("label", LABELS),
        ("artefact", ("", *ARTEFACTS)),
        ("selection", SELECTIONS),
    ):
        wrong = ~rows[name].isin(known)
        if wrong.any():
            place = wrong.idxmax()
            raise InputError(
                f"{path}, line {place + 2}: unknown {name} '{rows[name][place]}'; "
                f"known: {', '.join(word for word in known if word)}"
            )
    wrong = (rows["label"] == "normal") & (rows["artefact"] != "")
    if wrong.any():
        raise InputError(f"{path}, line {wrong.idxmax() + 2}: a normal crop has no artefact")
    return rows.assign(source=path.name)


def match_labels(
    rows: pd.DataFrame, nuclei: pd.DataFrame, match_px: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give each label the kept crop of the nearest nucleus within `match_px` in its field.

    `nuclei` has the columns of that table and plate, well, site. Returns the rows of the `labels`
    table and those label rows that find no crop, with the reason.
    Raises InputError if one crop is labelled in two ways.
    """
    matched, unmatched = [], []
    fields = dict(tuple(nuclei.groupby(["plate", "well", "site"])))
    for place, labels in rows.groupby(["plate", "well", "site"]):
        candidates = fields.get(place)
        if candidates is None:
            unmatched.append(labels.assign(reason="no such field, or no nucleus in it"))
            continue
        tree = cKDTree(candidates[["x_px", "y_px"]])
        distance, nearest = tree.query(labels[["x_px", "y_px"]])
        found = candidates.iloc[nearest]
        near = distance <= match_px
        kept = found["kept"].to_numpy()
        taken = near & kept
        matched.append(labels[taken].assign(crop_id=found["crop_id"].to_numpy()[taken]))
        why = np.where(near, "the nucleus was not cropped", f"no nucleus within {match_px} px")
        unmatched.append(labels[~taken].assign(reason=why[~taken]))
    labels = pd.concat(matched, ignore_index=True) if matched else rows.head(0).assign(crop_id="")
    lost = pd.concat(unmatched, ignore_index=True) if unmatched else rows.head(0).assign(reason="")
    conflicts = labels.groupby("crop_id")["label"].nunique()
    if (conflicts > 1).any():
        crop = conflicts.idxmax()
        sources = ", ".join(sorted(set(labels[labels["crop_id"] == crop]["source"])))
        raise InputError(f"crop {crop} is labelled both normal and abnormal ({sources}); keep one")
    labels = labels.drop_duplicates("crop_id").sort_values("crop_id", ignore_index=True)
    labels["artefact"] = labels["artefact"].replace("", None)
    labels["strength"] = np.nan
    columns = ["crop_id", "plate", "well", "label", "artefact", "strength", "annotator", "source"]
    return labels[[*columns, "selection"]], lost


def match_truth(
    nuclei: pd.DataFrame, truth: pd.DataFrame, match_px: float, window_px: float
) -> pd.DataFrame:
    """Give each nucleus what was planted at the nearest cell: columns artefact and strength.

    A crop is abnormal if its own nucleus carries an artefact. A crop without one, whose window
    holds the centre of a cell that does, is left out, as an annotator would leave out a doubtful
    one; so is a nucleus without a cell within `match_px`.
    """
    matched = [nuclei.head(0).assign(artefact="", strength=0.0)]
    cells_of = dict(tuple(truth.groupby(["plate", "well", "site"])))
    for place, crops in nuclei.groupby(["plate", "well", "site"]):
        if place not in cells_of:
            continue
        cells, centres = cells_of[place], crops[["x_px", "y_px"]]
        distance, nearest = cKDTree(cells[["x_px", "y_px"]]).query(centres)
        artefact = cells["artefact"].to_numpy()[nearest]
        planted = cells[cells["artefact"] != "none"]
        reach = np.full(len(crops), np.inf)
        if len(planted):
            reach, _ = cKDTree(planted[["x_px", "y_px"]]).query(centres, p=np.inf)
        doubtful = (reach <= window_px / 2) & (artefact == "none")
        crops = crops.assign(artefact=artefact, strength=cells["strength"].to_numpy()[nearest])
        matched.append(crops[(distance <= match_px) & ~doubtful])
    return pd.concat(matched, ignore_index=True)


def draw_labels(candidates: pd.DataFrame, per_class: int, seed: int) -> pd.DataFrame:
    """Return the `labels` table of at most `per_class` random crops of each class.

    `candidates` has crop_id, plate, well, artefact ("none" is normal) and strength.
    """
    is_normal = (candidates["artefact"] == "none").to_numpy()
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(wanted))[:per_class] for wanted in (is_normal, ~is_normal)
    ]
    places = np.sort(np.concatenate(chosen))
    labels, normal = candidates.iloc[places], is_normal[places]
    return pd.DataFrame(
        {
            "crop_id": labels["crop_id"],
            "plate": labels["plate"],
            "well": labels["well"],
            "label": np.where(normal, "normal", "abnormal"),
            "artefact": labels["artefact"].mask(normal, None),
            "strength": labels["strength"].mask(normal),
            "annotator": "simulation",
            "source": "truth",
            "selection": "random",
        }
    )
