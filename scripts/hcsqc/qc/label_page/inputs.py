"""What a screen's page for labelling is made from: which crops may be on it, and their contexts."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.qc.field_view.images import FieldSource
from hcsqc.qc.label_page.page import ContextSource, context_pictures

MOST_PICKED = 0.01  # of the crops, labelled for another reason than chance


def check_places(crops: pd.DataFrame, screen: str) -> None:
    """Raise InputError if crops (field_id, x_px, y_px) of a screen lie at one place.

    `screen` is its name.
    """
    if crops.duplicated(["field_id", "x_px", "y_px"]).any():
        raise InputError(
            f"screen {screen} has several crops at one place, as derived screens do; a label "
            "refers to a place, so label the screen that it was derived from"
        )


def labelled_crops(path: Path, screen: str, count: int) -> list[str]:
    """Return the crop_ids of a table of labels; warn where those not chosen at random are many.

    `screen` is the name of a screen, `count` how many crops it has.
    """
    labels = read_table(path, "labels")
    picked = (labels["selection"] != "random").sum()
    if picked > MOST_PICKED * count:
        print(
            f"warning: {picked} of {count} crops of {screen} were labelled because they were "
            "diverse or uncertain; without them random crops are no longer a sample of the screen. "
            "Use the random ones of earlier pages to calibrate, or label random crops alone "
            "(qc.label_diverse: 0, qc.label_uncertain: 0) from the beginning",
            file=sys.stderr,
        )
    return labels["crop_id"].tolist()


def random_labels(path: Path) -> pd.DataFrame:
    """Read the labels of a screen's crops that were chosen at random: crop_id and label."""
    return read_table(path, "labels", ["crop_id", "label"])


def read_scores(paths: Sequence[Path]) -> pd.Series:
    """Read the scores of the detector, by crop_id, from `crop_scores` tables of all plates."""
    tables = [read_table(path, "crop_scores", ["crop_id", "score"]) for path in paths]
    return pd.concat(tables).set_index("crop_id")["score"]


def context_source(fields: FieldSource | None, window_px: float | None) -> ContextSource | None:
    """Return where the images around crops come from, if it is known.

    Raises InputError if the size of a crop is not given.
    """
    if fields is None:
        return None
    if window_px is None:
        raise InputError("the context of crops needs --window-px, their side in source pixels")
    return ContextSource(fields, window_px)


def contexts(
    shards: Shards, chosen: pd.DataFrame, composite: Sequence[str], source: ContextSource | None
) -> list[bytes | None]:
    """Return the picture around each chosen crop, and say how many have none, and why.

    They are those of `context_pictures`. Without a source there are none.
    """
    if source is None:
        return [None] * len(chosen)
    pictures, why = context_pictures(shards, chosen, composite, source)
    missing = sum(picture is None for picture in pictures)
    if missing:
        print(
            f"{missing} of {len(pictures)} crops have no context, because their image in "
            f"{source.fields.images} cannot be shown; the first: {why}"
        )
    return pictures
