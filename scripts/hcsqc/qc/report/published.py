"""What the page shows of the agreement with published flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core.schema import TABLES, as_written
from hcsqc.qc.agreement.published import ANY, BAD
from hcsqc.qc.report.links import records, with_links
from hcsqc.qc.report.results import Results
from hcsqc.qc.report.words import counted, is_missing, number, percent

MOST_FIELDS = 200  # of the table of fields that differ; the CSV has all


@dataclass(frozen=True)
class Agreement:
    """The tables `published_flags` and `published_fields` of a screen."""

    flags: pd.DataFrame
    fields: pd.DataFrame


def read_agreement(flags: Path, fields: Path) -> Agreement:
    """Read what `qc/compare_published.py` has written."""
    return Agreement(_read(flags, "published_flags"), _read(fields, "published_fields"))


def _read(path: Path, schema: str) -> pd.DataFrame:
    columns = TABLES[schema].columns
    texts = [field.name for field in columns if str(field.type) == "string"]
    empty = {name: [""] for name in columns.names if name not in texts}
    table = pd.read_csv(
        path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=empty
    )
    return table.assign(**{name: as_written(table[name]) for name in texts})


def shown(agreement: Agreement, results: Results, own: bool) -> dict:
    """Return the sentences, rows and differing fields of the page's section."""
    differing = agreement.fields[
        agreement.fields["difference"].isin(["published only", "ours only"])
    ]
    return {
        "text": _text(agreement.flags),
        "rows": records(agreement.flags),
        "left_out": _left_out(agreement.flags),
        "fields": with_links(differing.head(MOST_FIELDS), results, own),
        "total": len(differing),
    }


def _text(flags: pd.DataFrame) -> str:
    """Return what to read from the table, of the fields with any flag."""
    row = _first(flags, ANY)
    published, ours = row["both"] + row["published_only"], row["both"] + row["ours_only"]
    told = (
        f"Of {counted(row['compared'], 'field')}, {published:,} have a published flag, {ours:,} "
        f"are bad here, and {row['both']:,} are both."
    )
    if published and ours:
        told += (
            f" Of the published ones, {_with_interval(row, 'sensitivity')} are bad here; of the "
            f"bad ones, {_with_interval(row, 'precision')} are published. Kappa is "
            f"{_with_interval(row, 'kappa', number)}."
        )
    return told


def _first(flags: pd.DataFrame, flag: str) -> Mapping:
    rows = flags[(flags["unit"] == "field") & (flags["flag"] == flag) & (flags["ours"] == BAD)]
    return rows.iloc[0].to_dict()


def _with_interval(row: Mapping, name: str, written=percent) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if is_missing(low) or is_missing(high):
        return written(row[name])
    return f"{written(row[name])} (95% interval {written(low)} to {written(high)})"


def _left_out(flags: pd.DataFrame) -> str:
    """Return which fields are not compared, empty if all are."""
    row = _first(flags, ANY)
    parts = [
        f"{counted(row[column], 'field')} {why}"
        for column, why in (
            ("without_ours", "that only the published table has"),
            ("without_published", "that only this screen has"),
            ("without_flag", "whose published flag is empty"),
        )
        if row[column]
    ]
    return f"Not compared: {', '.join(parts)}." if parts else ""
