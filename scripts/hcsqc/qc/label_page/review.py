"""Labels to be confirmed or corrected, and the file of all labels that the page makes of that."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.ids import split_field_id
from hcsqc.crops.shards import Shards
from hcsqc.labels.match import FILE_COLUMNS, REVIEWED, place_labels, read_label_file

COLUMNS = [*FILE_COLUMNS, REVIEWED]


@dataclass(frozen=True)
class Review:
    """What a page to check labels holds beside the crops.

    `given` says of each crop, in the page's order, its label, artefact, annotator and the score of
    the held-out model. `rows` are all rows of the label files, of `COLUMNS`, and crop: the number
    of the page's crop that each is a label of, or None. `duplicates` is that table.
    """

    given: list[dict]
    rows: list[dict]
    duplicates: pd.DataFrame


def rows_of_files(paths: Sequence[Path], nuclei: pd.DataFrame, match_px: float) -> pd.DataFrame:
    """Return all rows of label files in their order: `COLUMNS` and crop_id, None without a crop.

    `nuclei` are those of `read_nuclei`.
    """
    rows = pd.concat([read_label_file(path) for path in paths], ignore_index=True)
    placed, lost = place_labels(rows.assign(line=rows.index), nuclei, match_px)
    both = pd.concat([placed, lost.assign(crop_id=None)]).sort_values("line", ignore_index=True)
    return both[[*COLUMNS, "crop_id"]]


def rows_of_labels(labels: pd.DataFrame, shards: Shards) -> pd.DataFrame:
    """Return the rows that a file of a `labels` table has, as `rows_of_files` does."""
    about = shards.index.iloc[shards.rows_of(labels["crop_id"])].reset_index(drop=True)
    rows = labels.reset_index(drop=True).assign(
        site=split_field_id(about["field_id"])["site"],
        x_px=about["x_px"],
        y_px=about["y_px"],
        artefact=labels["artefact"].astype(object).fillna("").to_numpy(),
    )
    return rows.assign(**{REVIEWED: ""})[[*COLUMNS, "crop_id"]]


def reviewed_crops(rows: pd.DataFrame) -> set[str]:
    """Return the crops with a row that somebody has confirmed or corrected."""
    return set(rows["crop_id"][rows[REVIEWED].str.strip() != ""].dropna())


def review_of(chosen: pd.DataFrame, rows: pd.DataFrame, duplicates: pd.DataFrame) -> Review:
    """Return what the page holds of the labels `chosen` (`to_review`), in their order.

    `rows` are those of `rows_of_files`.
    """
    artefacts = chosen["artefact"].astype(object).fillna("")
    given = [
        {"label": label, "artefact": artefact, "annotator": annotator, "score": float(score)}
        for label, artefact, annotator, score in zip(
            chosen["label"], artefacts, chosen["annotator"], chosen["score"], strict=True
        )
    ]
    numbers = {crop: number for number, crop in enumerate(chosen["crop_id"])}
    told = rows.assign(crop=rows["crop_id"].map(numbers).astype("Int64").astype(object))
    for name in ("site", "x_px", "y_px"):
        whole = (told[name] % 1 == 0).all()
        told[name] = told[name].astype("int64" if whole else float).astype(object)
    told["crop"] = told["crop"].where(told["crop"].notna(), None)
    return Review(given, told[[*COLUMNS, "crop"]].to_dict("records"), duplicates)
