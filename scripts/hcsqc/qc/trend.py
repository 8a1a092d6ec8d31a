"""A screen's plates in the order of their dates: which of them leaves the band of those before it.

It is Shewhart's chart for individual values (NIST/SEMATECH e-Handbook of Statistical Methods,
6.3.2.2), with median and scaled median deviation in place of mean and moving range, so that a bad
plate does not widen the band of those that follow. The band is only made of earlier plates: what is
said of a plate stays when others follow.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import Kind, column_names, plates_among, read_rows
from hcsqc.qc.flags import PLATE, angle, robust_spread

COLUMNS = [PLATE, "order", "date", "dated_by", "measure", "unit", "value", "centre", "low", "high"]
COLUMNS += ["band_plates", "outside"]
ABOVE, BELOW = "above", "below"
GIVEN, IMAGES, LISTED = "table of dates", "change of its images", "order of plates"
DATE = "date"
# Of the mean and standard deviation, at a normal distribution: so many values of the median
# deviation are worth as much as this share of them (Rousseeuw & Croux 1993, JASA 88:1273), and the
# variance of the median is larger by pi / 2.
MAD_WORTH, MEDIAN_VARIANCE = 0.37, np.pi / 2
SHARE, RATIO, ROOT = "share", "ratio", "root"  # how a measure is made to vary alike everywhere
KIND = Kind("the table of dates is not there; correct screens.{screen}.dates")


@dataclass(frozen=True)
class TrendSettings:
    """How many earlier plates set a band at least, and how wide it is."""

    trend_plates: int
    trend_sds: float  # of a normal distribution, either way


@dataclass(frozen=True)
class Measure:
    """A value per plate: its name and unit, and for shares of what number of things."""

    name: str
    unit: str
    scale: str
    values: pd.Series
    of: pd.Series | None = None


def changed_on(summaries: Mapping[str, pd.DataFrame]) -> dict[str, pd.Timestamp]:
    """Return the day (UTC) when a plate's images last changed, by its tables `summary`.

    It is the median over the plate's images. To be copied is a change too; it is what nobody can
    set. Plates without any time are left out.
    """
    found = {}
    for plate, summary in summaries.items():
        times = [time for of_field in summary["image_changed_ns"] for time in of_field if time > 0]
        if times:
            found[plate] = pd.Timestamp(int(np.median(times)), unit="ns").floor("D")
    return found


def read_dates(path: Path, screen: str, plates: Sequence[str]) -> dict[str, pd.Timestamp]:
    """Return the dates that a table gives for plates: columns Metadata_Plate and date.

    Other plates of it are ignored. Raises InputError for what is no date (2026-11-30), for two
    dates of a plate, and if it cannot be read.
    """
    kind = Kind(KIND.gone.format(screen=screen))
    missing = {PLATE, DATE} - set(column_names(path, kind))
    if missing:
        raise InputError(f"{path}: column '{min(missing)}' is missing; it needs {PLATE}, {DATE}")
    rows = read_rows(path, kind, [PLATE, DATE])
    known = plates_among(rows[PLATE], plates)
    found: dict[str, pd.Timestamp] = {}
    for number, plate, text in zip(rows.index, known, rows[DATE], strict=True):
        if plate is None or pd.isna(plate):
            continue
        date = _date(text)
        if date is None:
            raise InputError(
                f"{path}: row {number + 1}: {DATE} of plate {plate} is {str(text)!r:.40}; write it "
                "as 2026-11-30"
            )
        if found.setdefault(plate, date) != date:
            raise InputError(f"{path}: plate {plate} has two dates; leave one")
    return found


def _date(value: object) -> pd.Timestamp | None:
    """Return the day of a date, or of a date and time, that begins as 2026-11-30; else None."""
    if not re.match(r"(19|20|21)\d\d-\d\d-\d\d(?!\d)", str(value)):
        return None
    date = pd.to_datetime(str(value), format="ISO8601", errors="coerce")
    return None if pd.isna(date) else date.tz_localize(None).floor("D")


def ordered(
    plates: Sequence[str],
    given: Mapping[str, pd.Timestamp],
    changed: Mapping[str, pd.Timestamp],
) -> pd.DataFrame:
    """Return the plates with order (from 1), date and dated_by, in the order of their days.

    A date comes from the table of dates or, without, from the images. Plates of one day stay in
    the order of the config, and so do all if one of them has no date.
    """
    table = pd.DataFrame({PLATE: list(plates)})
    dates = pd.Series([given.get(name, changed.get(name)) for name in plates])
    table["date"] = dates.astype("datetime64[ns]")
    sources = [(GIVEN if name in given else IMAGES) for name in plates]
    table["dated_by"] = np.where(table["date"].notna(), sources, LISTED)
    if table["date"].notna().all():
        table = table.sort_values("date", kind="stable", ignore_index=True)
    table["order"] = np.arange(1, len(table) + 1)
    return table


def measures(
    plates: pd.DataFrame, fields: pd.DataFrame, corrections: pd.DataFrame
) -> list[Measure]:
    """Return what is followed, each with a value per plate, indexed by Metadata_Plate.

    The arguments are the tables of flags of a screen.
    """
    own = plates.set_index(PLATE)
    of_fields = fields.groupby(PLATE)

    def share(name: str, part: pd.Series, of: pd.Series) -> Measure:
        return Measure(name, SHARE, SHARE, part / of.where(of > 0), of)

    # A plate without a scored cell has no shift.
    shifts = own[["feature_shift", "score_shift"]].where(own["scored"] > 0)
    found = [
        Measure("width of edges", "nucleus diameters", RATIO, of_fields["edge"].median()),
        share("flagged cells", own["flagged"], own["scored"]),
        share("bad fields", own["bad_fields"], own["fields"]),
        share("bad wells", own["bad_wells"], own["wells"]),
        Measure("nuclei per field", "", RATIO, own["nuclei"] / own["fields"]),
        share("empty fields", of_fields["empty"].sum(), own["fields"]),
        Measure("shift of features", "standard deviations", ROOT, shifts["feature_shift"]),
        Measure("shift of scores", "", ROOT, shifts["score_shift"]),
    ]
    for channel, rows in corrections.groupby("channel", sort=False):
        name = f"correction of light: {channel}"
        found.append(Measure(name, "factor", RATIO, rows.set_index(PLATE)["gain"]))
    return found


def trend(dated: pd.DataFrame, found: Sequence[Measure], settings: TrendSettings) -> pd.DataFrame:
    """Return a row per measure and plate with `COLUMNS`, plates in their order.

    `dated` is what `ordered` returned. centre, low and high are the band of the `band_plates`
    earlier plates whose value is known; nan where they are fewer than `trend_plates`, or where more
    than half have one value. outside is above, below or empty; a shift is never below.
    """
    tables = []
    for measure in found:
        values = measure.values.reindex(dated[PLATE]).to_numpy(float)
        of = None if measure.of is None else measure.of.reindex(dated[PLATE]).to_numpy(float)
        bands = np.array([_band(values, of, place, measure.scale, settings)
                          for place in range(len(values))]).reshape(-1, 4)  # fmt: skip
        low, high = bands[:, 1], bands[:, 2]
        tables.append(
            dated.assign(
                measure=measure.name,
                unit=measure.unit,
                value=values,
                centre=bands[:, 0],
                low=low,
                high=high,
                band_plates=bands[:, 3].astype(int),
                outside=np.select([values > high, values < low], [ABOVE, BELOW], ""),
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table["date"] = table["date"].dt.strftime("%Y-%m-%d")
    return table[COLUMNS]


def _band(
    values: np.ndarray, of: np.ndarray | None, place: int, scale: str, settings: TrendSettings
) -> tuple[float, float, float, int]:
    """Return centre, low and high for the value at `place`, and of how many earlier ones."""
    with np.errstate(divide="ignore", invalid="ignore"):
        earlier = _straight(values[:place], None if of is None else of[:place], scale)
    earlier = earlier[np.isfinite(earlier)]
    count = len(earlier)
    unknown = (np.nan, np.nan, np.nan, count)
    if count < settings.trend_plates or not np.isfinite(values[place]):
        return unknown
    centre = float(np.median(earlier))
    # A spread that few plates show is less sure: Student's t, of as many as it is worth.
    sds = stdtrit(MAD_WORTH * (count - 1), ndtr(settings.trend_sds))
    reach = sds * robust_spread(earlier)
    if of is not None:
        # A share varies at least by chance, which its number tells without any plate.
        reach = max(reach, settings.trend_sds / np.sqrt(4 * of[place] + 2))
    if reach == 0:
        return unknown
    reach *= np.sqrt(1 + MEDIAN_VARIANCE / count)
    number = None if of is None else of[place]
    low, middle, high = (_back(end, number, scale)
                         for end in (centre - reach, centre, centre + reach))  # fmt: skip
    return middle, 0.0 if scale == ROOT else low, high, count


def _straight(values: np.ndarray, of: np.ndarray | None, scale: str) -> np.ndarray:
    """Return values on a scale on which they vary alike."""
    if of is not None:
        return angle(np.round(values * of), of)
    return np.log(values) if scale == RATIO else np.sqrt(values)


def _back(value: float, of: float | None, scale: str) -> float:
    """Return what `_straight` made a value of; a share lies between 0 and 1."""
    if of is not None:
        inside = np.sin(np.clip(value, 0, np.pi / 2)) ** 2
        return float(np.clip((inside * (of + 3 / 4) - 3 / 8) / of, 0, 1))
    return float(np.exp(value)) if scale == RATIO else float(max(value, 0) ** 2)


def trend_told(screen: str, table: pd.DataFrame) -> list[str]:
    """Return in lines which measures of the newest plate lie outside, and how many plates did."""
    if table.empty:
        return []
    newest = table[table["order"] == table["order"].max()]
    lines = []
    out = newest[newest["outside"] != ""]
    if len(out):
        plate, count = out[PLATE].iloc[0], out["band_plates"].max()
        told = "; ".join(outside_text(row) for row in out.to_dict("records"))
        lines.append(
            f"warning: {screen}, plate {plate} leaves the band of the {count} plates before it: "
            f"{told}; see the trend on the screen's page"
        )
    earlier = table[(table["outside"] != "") & (table["order"] < table["order"].max())]
    if len(earlier):
        count = earlier[PLATE].nunique()
        plates = "1 earlier plate" if count == 1 else f"{count} earlier plates"
        lines.append(f"{screen}: {plates} left the band too (trend.csv, column outside)")
    return lines


def outside_text(row: Mapping) -> str:
    """Return a row of the trend in words: the measure, its value and the band."""
    form = "{:.1%}" if row["unit"] == SHARE else "{:.3g}"
    value, low, high = (form.format(row[name]) for name in ("value", "low", "high"))
    unit = "" if row["unit"] in ("", SHARE) else f" {row['unit']}"
    return f"{row['measure']} {value}{unit} ({low} to {high})"
