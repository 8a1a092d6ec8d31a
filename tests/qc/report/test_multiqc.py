"""Sections for MultiQC: what their files hold."""

import json

import pandas as pd

from hcsqc.qc.report.multiqc import multiqc_sections
from hcsqc.qc.report.results import read_results
from tests.qc.report.made_screen import WELLS, make_cells, make_folder


def sections(folder, screen="sim", **changes):
    cells = make_cells(["p1", "p2"], WELLS, 2, 12)
    make_folder(folder, cells, 2, **changes)
    return cells, *multiqc_sections(screen, read_results(folder))


def test_the_table_says_what_the_tables_of_plates_and_fields_say(tmp_path):
    cells, table, _ = sections(tmp_path)
    assert table["plot_type"] == "table" and table["id"] == "hcsqc_plates"
    assert list(table["data"]) == ["sim p1", "sim p2"]
    row, own = table["data"]["sim p1"], cells[cells["Metadata_Plate"] == "p1"]
    flagged, scored = int(own["flagged"].fillna(False).sum()), int(own["score"].notna().sum())
    assert (row["nuclei"], row["scored"], row["flagged"]) == (len(own), scored, flagged)
    assert row["flagged_share"] == round(100 * flagged / scored, 4)
    assert (row["fields"], row["wells"], row["bad_wells"]) == (24, 12, 1)
    assert row["edge"] == 0.2 and row["out_of_focus"] == row["bad_fields"] == 2
    assert row["check"] == "ok" and "warning" not in row
    assert {"headers", "pconfig", "parent_id"} <= set(table)
    assert set(row) <= set(table["headers"])


def test_a_warning_is_told(tmp_path):
    warned = ["its light differs", ""]
    _, table, _ = sections(tmp_path, plates=lambda plates: plates.assign(warning=warned))
    rows = table["data"]
    assert (rows["sim p1"]["check"], rows["sim p2"]["check"]) == ("warn", "ok")
    assert rows["sim p1"]["warning"] == "its light differs"


def test_the_bars_are_flagged_cells_by_artefact(tmp_path):
    cells, _, bars = sections(tmp_path, screen="my screen/1")
    flagged = cells[cells["flagged"].fillna(False)]
    counts = pd.crosstab(flagged["Metadata_Plate"], flagged["artefact"])
    assert bars["plot_type"] == "bargraph" and bars["id"] == "hcsqc_artefacts_my_screen_1"
    row = bars["data"]["my screen/1 p2"]
    assert {kind: count for kind, count in row.items() if count} == counts.loc["p2"].to_dict()
    assert row["of no known kind"] == 0


def test_a_plate_without_a_flagged_cell_has_a_bar_of_nothing(tmp_path):
    cells = make_cells(["p1", "p2"], WELLS, 1, 8)
    second = cells["Metadata_Plate"] == "p2"
    cells.loc[second, "artefact"] = None
    cells.loc[second & cells["flagged"].notna(), "flagged"] = False
    make_folder(tmp_path, cells, 1)
    table, bars = multiqc_sections("sim", read_results(tmp_path))
    assert set(bars["data"]["sim p2"].values()) == {0}
    assert table["data"]["sim p2"]["flagged"] == 0
    json.dumps([table, bars], allow_nan=False)
