"""A screen's quality control as sections of a MultiQC report, which shows them as they are.

MultiQC finds files named `*_mqc.json` (its "custom content"). It merges tables of one id, so that
all screens of a study share one; each screen has a bar graph of its own.
"""

import re

import pandas as pd

from hcsqc.core.schema import ARTEFACTS
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.report.gallery import UNKNOWN
from hcsqc.qc.report.results import Results
from hcsqc.qc.report.words import is_missing

PLATE = "Metadata_Plate"
GROUP = {
    "parent_id": "hcsqc",
    "parent_name": "Image quality of plates (hcsqc)",
    "parent_description": "Aberrant cells of high-content screens, and what is wrong with them.",
}
# Title, description, and what else MultiQC is told of a column of the table.
COLUMNS: dict[str, tuple[str, str, dict]] = {
    "flagged_share": (
        "Flagged",
        "Share of the scored cells that are flagged",
        {"suffix": "%", "min": 0, "max": 100, "scale": "OrRd", "format": "{:,.1f}"},
    ),
    "flagged": ("Flagged cells", "Cells above the threshold", {"format": "{:,.0f}"}),
    "scored": ("Scored", "Cells with a score", {"format": "{:,.0f}", "hidden": True}),
    "nuclei": ("Nuclei", "Nuclei found", {"format": "{:,.0f}", "scale": "Blues"}),
    "edge": (
        "Edge width",
        "Focus: width of the edge of the median nucleus in the median field, in typical nucleus "
        "diameters; more is more blurred",
        {"min": 0, "scale": "Purples", "format": "{:,.2f}"},
    ),
    "out_of_focus": ("Out of focus", "Fields out of focus", {"format": "{:,.0f}"}),
    "saturated": ("Saturated", "Saturated fields", {"format": "{:,.0f}"}),
    "empty": ("Empty", "Fields with few or no nuclei", {"format": "{:,.0f}"}),
    "bad_fields": ("Bad fields", "Fields to leave out", {"format": "{:,.0f}", "scale": "OrRd"}),
    "bad_wells": ("Bad wells", "Wells to leave out", {"format": "{:,.0f}", "scale": "OrRd"}),
    "fields": ("Fields", "Fields imaged", {"format": "{:,.0f}", "hidden": True}),
    "wells": ("Wells", "Wells imaged", {"format": "{:,.0f}", "hidden": True}),
    "check": ("Check", "warn where plates.csv has a warning of the plate", {}),
    "warning": ("Warning", "What plates.csv warns of", {"hidden": True}),
}


def multiqc_sections(screen: str, results: Results) -> tuple[dict, dict]:
    """Return the content of two files: a table of plates, and a bar graph of their artefacts.

    Plates are named `screen plate`, because reports of several screens are shown together; MultiQC
    would take what stands before a slash for a folder.
    """
    return _table(screen, results), _bars(screen, results)


def _table(screen: str, results: Results) -> dict:
    of_fields = results.fields.groupby(PLATE).agg(
        edge=("edge", "median"),
        out_of_focus=("out_of_focus", "sum"),
        saturated=("saturated", "sum"),
        empty=("empty", "sum"),
    )
    plates = results.plates.merge(of_fields, left_on=PLATE, right_index=True, how="left")
    warned = plates["warning"].fillna("").ne("")
    plates = plates.assign(
        flagged_share=100 * plates["flagged_share"],
        # MultiQC colours these two words as a warning and a pass.
        check=["warn" if one else "ok" for one in warned],
        warning=plates["warning"].where(warned, None),
    )
    data = {
        f"{screen} {row[PLATE]}": {
            name: _plain(row[name]) for name in COLUMNS if not is_missing(row[name])
        }
        for row in plates.to_dict("records")
    }
    return GROUP | {
        "id": "hcsqc_plates",
        "section_name": "Plates",
        "description": "Flagged cells, focus and counts of each plate.",
        "plot_type": "table",
        "pconfig": {
            "id": "hcsqc_plates_table",
            "title": "hcsqc: plates",
            "col1_header": "Screen and plate",
            "namespace": "hcsqc",
        },
        "headers": {
            name: {"title": title, "description": about} | more
            for name, (title, about, more) in COLUMNS.items()
        },
        "data": data,
    }


def _bars(screen: str, results: Results) -> dict:
    cells = results.cells
    flagged = cells[is_flagged(cells)]
    kinds = flagged["artefact"].fillna(UNKNOWN).astype(str)
    counts = pd.crosstab(flagged[PLATE], kinds).reindex(results.plates[PLATE], fill_value=0)
    order = [*ARTEFACTS, *sorted(set(counts.columns) - {*ARTEFACTS, UNKNOWN}), UNKNOWN]
    name = re.sub(r"\W", "_", screen)
    return GROUP | {
        "id": f"hcsqc_artefacts_{name}",
        "section_name": f"Artefacts of {screen}",
        "description": "Flagged cells of each plate by their most likely artefact.",
        "plot_type": "bargraph",
        "pconfig": {
            "id": f"hcsqc_artefacts_{name}_bars",
            "title": f"hcsqc: flagged cells of {screen} by artefact",
            "ylab": "flagged cells",
        },
        # Every kind, so that those of all screens have the same colours.
        "data": {
            f"{screen} {plate}": {kind: int(row.get(kind, 0)) for kind in order}
            for plate, row in counts.iterrows()
        },
    }


def _plain(value: object) -> object:
    """Return a value of a table as JSON has it."""
    if isinstance(value, str | bool):
        return value
    number = float(value)  # type: ignore[arg-type]
    return int(number) if number.is_integer() else round(number, 4)
