"""Which labelled crops are independent: those of different groups, by `evaluation.group_by`.

By `well` crops of one well are a group. By `compound` all wells of a compound are one, at any dose
and on any plate, since the same treatment on another plate is no independent test. Controls stay
groups by well: they are on every plate, later ones included, so that knowing them is no leak, and
as one group they would all be on one side of a split. By `plate` a whole plate is a group.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.ids import screen_of
from hcsqc.core.schema import read_table

GROUPINGS = WELL, COMPOUND, PLATE = "well", "compound", "plate"
# What groups are called.
UNITS = {WELL: "wells", COMPOUND: "compounds (controls by well)", PLATE: "plates"}
TREATMENTS = "screens.*.image_csv, or Metadata_Compound in a LoadData table"
# Roles and compounds of wells that nothing acts on, in small letters.
CONTROLS = {"mock", "dmso", "untreated", "vehicle", "water", "pbs", "medium", "none", "empty"}
CONTROLS |= {"negcon", "negative control", "negative_control"}


def compounds_of(labels: pd.DataFrame, fields: pd.DataFrame) -> pd.Series:
    """Return the compound of each label's well; empty of controls, null where nothing is known.

    `labels` have plate and well, `fields` are those tables, which say role and compound.
    """
    wells = fields.groupby(["plate", "well"])[["role", "compound"]].first().fillna("").astype(str)
    name, role = wells["compound"].str.strip(), wells["role"].str.strip()
    control = name.str.casefold().isin(CONTROLS) | role.str.casefold().isin(CONTROLS)
    known = name.mask(control, "")[(name != "") | (role != "")].astype(object)
    found = known.reindex(pd.MultiIndex.from_frame(labels[["plate", "well"]]))
    return pd.Series(found.to_numpy(object), labels.index, object)


def groups_of(labels: pd.DataFrame, group_by: str) -> np.ndarray:
    """Return the group of each label, as text; `labels` have plate, well and compound.

    Names of compounds that differ in capitals or spaces are one. Raises InputError by compound if
    of no label's well is anything known.
    """
    if group_by == PLATE:
        return labels["plate"].to_numpy(object)
    wells = labels["plate"] + "/" + labels["well"]
    if group_by == WELL or labels.empty:
        return wells.to_numpy(object)
    if labels["compound"].isna().all():
        screen = screen_of(labels["crop_id"].iloc[0])
        raise InputError(
            f"evaluation.group_by is compound, but the compound of no labelled well of {screen} is "
            f"known; name them ({TREATMENTS}), or set evaluation.group_by to well or plate"
        )
    names = labels["compound"].fillna("").str.split().str.join(" ").str.casefold()
    return names.where(names != "", wells).to_numpy(object)


def read_labels(path: Path, group_by: str) -> pd.DataFrame:
    """Read a `labels` table, with the column group in place of compound; see `groups_of`."""
    labels = read_table(path, "labels")
    return labels.assign(group=groups_of(labels, group_by)).drop(columns="compound")
