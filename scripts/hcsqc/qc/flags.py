"""Bad fields, wells and plates, from the cells that a detector has scored.

Fields and wells are compared with the others of their plate: what is usual there is a median, what
it varies by a median deviation, so that a few bad ones change neither. Shares of flagged cells are
compared as angles, arcsin(sqrt(share)), on which small and large ones vary alike.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import each, plates_among
from hcsqc.core.places import as_text, parse_well, whole_number
from hcsqc.core.schema import check_columns
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.prevalence import SHOWN, clustered_share, exact_bounds
from hcsqc.screens.layouts.base import first_few

PLATE, WELL, SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
TREATMENT = ["role", "compound", "concentration_um"]
FIELD_COLUMNS = [PLATE, WELL, SITE, *TREATMENT, "nuclei", "scored", "flagged", "flagged_share"]
FIELD_COLUMNS += ["edge", "empty", "out_of_focus", "saturated", "bad", "reason"]
WELL_COLUMNS = [PLATE, WELL, *TREATMENT, "fields", "nuclei", "scored", "flagged", "flagged_share"]
WELL_COLUMNS += ["low", "high", "expected", "focus", "artefact", "bad", "reason"]
PLATE_COLUMNS = [PLATE, "wells", "bad_wells", "fields", "bad_fields", "nuclei", "scored", "flagged"]
PLATE_COLUMNS += ["flagged_share", "low", "high", "feature_shift", "score_shift", "warning"]

FAILED = "failed"
NORMAL_MAD = 1.4826  # standard deviations of a normal distribution in its median deviation
MANY = 0.25  # bad wells or fields of a plate, of which it warns
# A plate's focus is of two kinds if so many of its fields, and so large a share, are beyond the
# limit; it varies if the widest tenth of fields begins at so many times the narrowest, and at more
# than so large a share of the limit: below that all is sharp.
FEWEST_BLURRED, BLURRED = 2, 0.1
VARIES, STILL_SHARP = 2.0, 0.5
TENTH = 0.1


@dataclass(frozen=True)
class FlagSettings:
    """When fields and wells are bad; shares run from 0 to 1."""

    empty_share: float  # of the plate's median field's nuclei: fewer are an empty field
    focus_sds: float  # robust standard deviations below the plate's median field
    focus_drop: float  # and at least so much below it, in log sharpness
    focus_edge: float  # nucleus diameters: edges wider than this are out of focus on any plate
    saturated_share: float  # of a cell's pixels, in the median over the field's cells
    well_share: float  # flagged cells, below which no well or field is bad for them
    well_sds: float  # standard deviations of the plate's wells above the usual one
    well_majority: float  # flagged cells that are bad however much the plate's wells vary
    confidence: float  # that no well of a plate without bad ones is called bad by chance


def field_flags(
    cells: pd.DataFrame, fields: pd.DataFrame, summary: pd.DataFrame, settings: FlagSettings
) -> pd.DataFrame:
    """Return a row per field with `FIELD_COLUMNS`: its nuclei, its flagged cells, what is bad.

    `cells`, `fields` and `summary` are tables of the schema; `fields` and `summary` are of the same
    plates. edge is the median over the field's cells, in typical nucleus diameters; nan without
    any. reason is empty where nothing is bad. A field that could not be read is bad, for the
    reason in the summary, and not empty.
    Raises InputError if a cell lies in no field.
    """
    keys = ["plate", "well", "site"]
    table = fields.merge(summary[["field_id", "status", "reason"]], on="field_id", how="left",
                         validate="one_to_one")  # fmt: skip
    table = table.rename(columns=dict(zip(keys, [PLATE, WELL, SITE], strict=True)))
    table = _with_counts(table, cells, [PLATE, WELL, SITE])
    measured = cells.groupby([PLATE, WELL, SITE])[["focus", "edge", "saturated"]].median()
    measured = measured.rename(columns={"saturated": "saturated_share"})
    table = table.merge(
        measured, left_on=[PLATE, WELL, SITE], right_index=True, how="left", validate="one_to_one"
    )
    failed = (table["status"] == FAILED) | table["problem"].notna()
    usual_nuclei = table["nuclei"].where(~failed).groupby(table[PLATE]).transform("median")
    focus, spread = _usual(table["focus"], table[PLATE])
    drop = np.maximum(settings.focus_sds * spread, settings.focus_drop)
    fewest = settings.empty_share * usual_nuclei
    table["empty"] = ~failed & ((table["nuclei"] == 0) | (table["nuclei"] < fewest))
    blurred = table["edge"] > settings.focus_edge
    table["out_of_focus"] = blurred | (table["focus"] < focus - drop)
    table["saturated"] = table["saturated_share"] > settings.saturated_share
    raised, expected = _raised(table, settings)
    told = table["reason"].astype(object)
    reasons = {
        "failed": told.fillna(table["problem"]).fillna("could not be read"),
        "empty": _texts(
            "{} nuclei, the plate's fields usually {:.0f}", table["nuclei"], usual_nuclei
        ),
        "out_of_focus": _texts(
            "out of focus: log sharpness {:z.1f}, the plate's fields usually {:z.1f}",
            table["focus"], focus,
        ).where(~blurred, _texts(
            "out of focus: edges of nuclei are {:.1f} nuclei wide", table["edge"],
        )),
        "saturated": _texts("{:.0%} of a usual cell is saturated", table["saturated_share"]),
        "raised": _flagged_texts(table, expected, "fields"),
    }  # fmt: skip
    found = {"failed": failed, "raised": raised}
    found |= {name: table[name] for name in ("empty", "out_of_focus", "saturated")}
    return _judged(table, found, reasons)[FIELD_COLUMNS]


def well_flags(
    cells: pd.DataFrame, field_table: pd.DataFrame, settings: FlagSettings
) -> pd.DataFrame:
    """Return a row per well with `WELL_COLUMNS`: its flagged cells beside what is usual there.

    `field_table` is what `field_flags` returned for the same cells. A well is bad if the lower end
    of its flagged share, so low that no well of the plate lies below its own by chance, is above
    the plate's usual well by `well_sds`, and the share is at least `well_share`; if that end is
    above `well_majority` and the usual share is not; or if more than half of its fields are bad.
    low to high is a 95% interval of the well's own cells. Shares are nan where nothing was scored.
    """
    wells = field_table.groupby([PLATE, WELL], sort=False)
    table = wells[TREATMENT].first()
    table["fields"], table["bad_fields"] = wells.size(), wells["bad"].sum()
    table = _with_counts(table.reset_index(), cells, [PLATE, WELL])
    own = cells.groupby([PLATE, WELL])
    table = table.join(own["focus"].median(), on=[PLATE, WELL])
    flagged = cells[is_flagged(cells)]
    common = most_common_artefact(flagged, [PLATE, WELL])
    table = table.merge(common, on=[PLATE, WELL], how="left", validate="one_to_one")
    low, high = exact_bounds(table["flagged"], table["scored"], (1 - SHOWN) / 2)
    scored = table["scored"] > 0
    table["low"], table["high"] = np.where(scored, low, np.nan), np.where(scored, high, np.nan)
    raised, table["expected"] = _raised(table, settings)
    broken = table["bad_fields"] > table["fields"] / 2
    reasons = {
        "raised": _flagged_texts(table, table["expected"], "wells"),
        "broken": _texts("{} of its {} fields are bad", table["bad_fields"], table["fields"]),
    }
    return _judged(table, {"raised": raised, "broken": broken}, reasons)[WELL_COLUMNS]


def plate_flags(
    well_table: pd.DataFrame,
    field_table: pd.DataFrame,
    cells: pd.DataFrame,
    settings: FlagSettings,
    shifts: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row per plate with `PLATE_COLUMNS`; low to high is a 95% interval over its wells.

    `shifts` gives feature_shift and score_shift by Metadata_Plate; without, they are nan. Wells
    are only compared within their plate, so the warning says where a plate as a whole differs.
    """
    table = well_table.groupby(PLATE, sort=False).agg(
        wells=("bad", "size"), bad_wells=("bad", "sum"), nuclei=("nuclei", "sum"),
        scored=("scored", "sum"), flagged=("flagged", "sum"),
    )  # fmt: skip
    of_fields = field_table.groupby(PLATE)["bad"]
    table["fields"], table["bad_fields"] = of_fields.size(), of_fields.sum()
    table["flagged_share"] = _ratio(table["flagged"], table["scored"])
    scored = cells[cells["flagged"].notna()]
    places = scored.groupby(PLATE)
    for plate in table.index:
        low, high = np.nan, np.nan
        if plate in places.groups:
            own = places.get_group(plate)
            share = clustered_share(own["flagged"].to_numpy(bool), own[WELL].to_numpy(str), SHOWN)
            low, high = share.low, share.high
        table.loc[plate, ["low", "high"]] = low, high
    edges = field_table.groupby(PLATE)["edge"]
    table["warning"] = [
        _plate_warning(plate, table, edges.get_group(plate), settings) for plate in table.index
    ]
    table = table.reset_index()
    if shifts is None:
        return table.assign(feature_shift=np.nan, score_shift=np.nan)[PLATE_COLUMNS]
    columns = [PLATE, "feature_shift", "score_shift"]
    return table.merge(shifts[columns], on=PLATE, how="left", validate="one_to_one")[PLATE_COLUMNS]


def focus_warning(edges: pd.Series, limit: float) -> str:
    """Return what is wrong with the focus of a plate, in absolute terms; empty if nothing is.

    `edges` are the median edges of its fields, `limit` the widest that is in focus, both in typical
    nucleus diameters. Fields whose edge is nan do not count.
    """
    known = edges.dropna()
    beyond = known > limit
    if beyond.sum() >= max(FEWEST_BLURRED, BLURRED * len(known)):
        rest = "" if beyond.all() else f", in the others {known[~beyond].median():.2f}"
        return (
            f"{beyond.sum()} of its {len(known)} fields are blurred: edges of nuclei are usually "
            f"{known[beyond].median():.2f} nuclei wide there (limit {limit:g}){rest}"
        )
    low, high = known.quantile([TENTH, 1 - TENTH])
    if high > VARIES * low and high > STILL_SHARP * limit:
        return (
            f"its focus varies: in the sharpest tenth of its fields edges of nuclei are at most "
            f"{low:.2f} nuclei wide, in the least sharp tenth at least {high:.2f}"
        )
    return ""


def without_bad_wells(table: pd.DataFrame, wells_or_fields: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a LoadData table that lie in no bad well, or in no bad field.

    `wells_or_fields` is what `well_flags` or `field_flags` returned. `plate_rows` of the layout
    reads a table's wells and sites as indexing does. Wells may be written as A1 or A01; rows of
    plates and wells that the flags do not know stay. All columns and the order too.
    Raises InputError if a column is missing, or if a row names no well.
    """
    keys = [PLATE, WELL, SITE] if SITE in wells_or_fields.columns else [PLATE, WELL]
    check_columns(table, keys, "LoadData table")
    plates = set(each(wells_or_fields[PLATE], as_text))
    bad = wells_or_fields[wells_or_fields["bad"].astype(bool)]
    bad_places = set(_places(bad, keys, plates, "flags"))
    kept = [place not in bad_places for place in _places(table, keys, plates, "LoadData table")]
    return table[np.array(kept, bool)]


def angle(flagged: ArrayLike, scored: ArrayLike) -> np.ndarray:
    """Return shares of flagged cells as angles, of a variance that hardly depends on the share.

    Anscombe 1948, Biometrika 35:246. nan where nothing was scored.
    """
    flagged, scored = np.asarray(flagged, float), np.asarray(scored, float)
    angles = np.arcsin(np.sqrt((flagged + 3 / 8) / (scored + 3 / 4)))
    return np.where(scored > 0, angles, np.nan)


def most_common_artefact(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return `keys` and the most common artefact of the rows of each; the first of equals."""
    named = rows[rows["artefact"].notna()]
    counts = named.groupby([*keys, "artefact"], dropna=False).size().rename("n").reset_index()
    counts = counts.sort_values(["n", "artefact"], ascending=[False, True])
    return counts.drop_duplicates(keys)[[*keys, "artefact"]]


def angle_variance(scored: pd.Series) -> pd.Series:
    """Return the variance that an `angle` of so many cells has at most; nan of none."""
    return 1 / (4 * scored.where(scored > 0) + 2)


def robust_spread(values: np.ndarray) -> float:
    """Return the standard deviation that the median deviation of values stands for."""
    return float(NORMAL_MAD * np.median(np.abs(values - np.median(values))))


def _with_counts(table: pd.DataFrame, cells: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return `table` with nuclei, scored, flagged and flagged_share; every cell is counted."""
    flags = cells["flagged"].astype("boolean")
    counted = pd.DataFrame(
        {"nuclei": 1, "scored": flags.notna(), "flagged": flags.fillna(False)}, cells.index
    )
    counts = counted.astype(int).groupby([cells[key] for key in keys]).sum()
    strange = counts.index.difference(pd.MultiIndex.from_frame(table[keys]))
    if len(strange):
        raise InputError(
            f"cells: there is no field {'/'.join(map(str, strange[0]))} in the table of fields; "
            "make both from the same plates"
        )
    table = table.merge(counts, left_on=keys, right_index=True, how="left", validate="one_to_one")
    names = ["nuclei", "scored", "flagged"]
    table[names] = table[names].fillna(0).astype(int)
    table["flagged_share"] = _ratio(table["flagged"], table["scored"])
    return table


def _ratio(part: pd.Series, whole: pd.Series) -> pd.Series:
    return part / whole.where(whole > 0)


def _usual(values: pd.Series, plates: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return for each row the median of its plate, and what it varies by there."""
    centre = values.groupby(plates).transform("median")
    spread = NORMAL_MAD * (values - centre).abs().groupby(plates).transform("median")
    return centre, spread


def _raised(table: pd.DataFrame, settings: FlagSettings) -> tuple[pd.Series, pd.Series]:
    """Return which rows have clearly more flagged cells than is usual on their plate, and that."""
    plates = table[PLATE]
    angles = pd.Series(angle(table["flagged"], table["scored"]), table.index)
    centre, spread = _usual(angles, plates)
    # What the numbers of cells let shares vary by is in the interval already.
    chance = angle_variance(table["scored"]).groupby(plates).transform("median")
    beyond_chance = np.sqrt(np.maximum(spread**2 - chance, 0))
    known = angles.notna().groupby(plates).transform("sum")
    # Among all of a plate; and a spread that few show is less sure (Student's t).
    tail = (1 - settings.confidence) / 2 / np.maximum(known, 1)
    low, _ = exact_bounds(table["flagged"], table["scored"], tail)
    sds = stdtrit(np.maximum(known - 1, 1), ndtr(settings.well_sds))
    limit = np.sin(np.minimum(centre + sds * beyond_chance, np.pi / 2)) ** 2
    raised = (low > limit) & (table["flagged_share"] >= settings.well_share)
    expected = table["flagged_share"].groupby(plates).transform("median")
    # On a plate whose wells vary much none could be raised, however spoilt.
    raised |= (low > settings.well_majority) & (expected < settings.well_majority)
    return raised & (table["scored"] > 0), expected


def _texts(form: str, *columns: pd.Series) -> pd.Series:
    texts = [form.format(*values) for values in zip(*columns, strict=True)]
    return pd.Series(texts, columns[0].index, dtype=object)


def _flagged_texts(table: pd.DataFrame, expected: pd.Series, others: str) -> pd.Series:
    form = "{:.0%} of its {} cells are flagged, the plate's " + others + " usually {:.0%}"
    return _texts(form, table["flagged_share"], table["scored"], expected)


def _judged(
    table: pd.DataFrame, found: dict[str, pd.Series], reasons: dict[str, pd.Series]
) -> pd.DataFrame:
    """Return `table` with bad, and with the reasons of what was found, in their order."""
    found = {name: found[name].fillna(False).astype(bool) for name in reasons}
    table["bad"] = np.logical_or.reduce(list(found.values()))
    given = zip(*(reasons[name].where(found[name], "") for name in reasons), strict=True)
    table["reason"] = ["; ".join(filter(None, texts)) for texts in given]
    return table


def _plate_warning(
    plate: str, table: pd.DataFrame, edges: pd.Series, settings: FlagSettings
) -> str:
    own = table.loc[[plate]].iloc[0]
    parts = []
    if own["scored"] == 0:
        parts.append("no cell was scored")
    # Other plates do not excuse it: all plates of a screen may be beyond what the detector knows.
    # Nor are they named, so that what is said of a plate stays when others follow.
    elif own["flagged_share"] >= settings.well_share:
        parts.append(f"{own['flagged_share']:.0%} of its cells are flagged")
    for name in ("wells", "fields"):
        bad, all_ = int(own[f"bad_{name}"]), int(own[name])
        if bad > MANY * all_:
            parts.append(f"{bad} of its {all_} {name} are bad")
    parts.append(focus_warning(edges, settings.focus_edge))
    return "; ".join(filter(None, parts))


def _places(rows: pd.DataFrame, keys: list[str], plates: Collection[str], name: str) -> list[tuple]:
    """Return plate, well and perhaps site of each row, written alike; None for another plate."""
    read = {
        WELL: (parse_well, "not a well name such as A01"),
        SITE: (whole_number, "not a whole number"),
    }
    columns = [plates_among(rows[PLATE], plates)]
    for key in keys[1:]:
        parse, why_not = read[key]
        columns.append(each(rows[key], parse))
        strange = rows[key][columns[-1].isna()]
        if len(strange):
            told = first_few(sorted({as_text(value) or "''" for value in strange}))
            raise InputError(f"{name}: {told} in {key}: {why_not}; correct the table")
    return list(zip(*columns, strict=True))
