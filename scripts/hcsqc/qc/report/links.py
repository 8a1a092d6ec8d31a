"""Links of a page to wells, and to the pages of plates."""

from urllib.parse import quote

import pandas as pd

from hcsqc.qc.report.page_data import KEYS
from hcsqc.qc.report.results import Results


def has_plate_pages(results: Results) -> bool:
    """Return whether the plates of a screen have pages of their own, and the screen an index."""
    return len(results.plates) > 1


def plate_page(plate: str) -> str:
    """Return where the page of a plate lies, seen from that of its screen, as a link."""
    return f"report/{quote(plate, safe='')}.html"


def with_links(table: pd.DataFrame, results: Results, own: bool) -> list[dict]:
    """Return the rows of a table of places, each with a link to its well.

    `own` tells whether the page has the wells: `at` is then the row in `wells_data`, else None.
    `href` is None where the screen has no such well.
    """
    index = pd.MultiIndex.from_frame(results.wells[KEYS])
    at = index.get_indexer(pd.MultiIndex.from_frame(table[KEYS]))
    rows = records(table)
    for row, place in zip(rows, at.tolist(), strict=True):
        row["at"], row["href"] = None, None
        if place >= 0 and own:
            row["at"], row["href"] = place, "#why"
        elif place >= 0:
            hash_ = f"#well={quote(row['Metadata_Well'], safe='')}"
            row["href"] = plate_page(row["Metadata_Plate"]) + hash_
    return rows


def records(table: pd.DataFrame) -> list[dict]:
    """Return the rows of a table; None is what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
