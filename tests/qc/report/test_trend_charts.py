"""The trend on the page of a screen: what is drawn, marked and linked."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.qc.report.results import COLUMNS, read_results
from hcsqc.qc.report.trend_charts import dated_text, outside_rows, trend_charts
from hcsqc.qc.trend import RATIO, Measure, TrendSettings, ordered, trend
from tests.qc.report.made_screen import make_cells, make_folder, make_shards, render

PLATES = [f"P<{number}>" for number in range(1, 7)]  # names that would end a tag


def made_trend() -> pd.DataFrame:
    """Return two measures of six plates; the fourth plate's edges are far too wide."""
    index = pd.Index(PLATES, name="Metadata_Plate")
    day = pd.Timestamp("2026-11-02")
    dated = ordered(PLATES, {name: day + pd.Timedelta(days=n) for n, name in enumerate(PLATES)}, {})
    edges = pd.Series([0.25, 0.251, 0.249, 9.0, 0.25, np.nan], index)
    nuclei = pd.Series([90.0, 94, 92, 90, 91, 92], index)
    found = [Measure("nuclei per field", "", RATIO, nuclei)]
    found.append(Measure("width of edges", "nucleus diameters", RATIO, edges))
    return trend(dated, found, TrendSettings(3, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cells = make_cells(PLATES, ["B02", "B03", "C02", "C03"], 1, 3)
    folder = tmp_path_factory.mktemp("qc")
    make_shards(folder / "crops.parquet", cells)
    return make_folder(folder / "screen", cells, 1, trend=lambda _: made_trend())


def test_a_plate_outside_is_marked_first_and_links_to_its_page(folder):
    results = read_results(folder)
    edges, nuclei = trend_charts(results, lambda plate: f"of {plate}")
    assert (edges["title"], nuclei["title"]) == ("width of edges", "nuclei per field")
    assert [point["outside"] for point in edges["points"]] == [False, False, False, True, False]
    assert edges["points"][3]["page"] == "of P<4>" and edges["ends"] == ["2026-11-02", "2026-11-07"]
    assert edges["points"][3]["name"].startswith("P<4>, 2026-11-05: 9; band 0.")
    assert edges["text"] == "1 plate of 2 outside the band."
    # Higher values lie higher, and later plates farther to the right.
    assert edges["points"][3]["y"] < min(point["y"] for point in edges["points"][:3])
    across = [point["x"] for point in nuclei["points"]]
    assert across == sorted(across) and len(set(across)) == 6
    (row,) = outside_rows(results, lambda plate: f"of {plate}")
    assert (row["plate"], row["date"], row["page"]) == ("P<4>", "2026-11-05", "of P<4>")
    assert row["text"].startswith("width of edges 9 nucleus diameters (0.")
    assert dated_text(results) == "Dates are those of your table."


def test_the_page_of_a_screen_shows_it_and_that_of_a_plate_does_not(folder):
    shards = folder.parent / "crops.parquet"
    page = render(folder, shards)
    assert page.count('class="outside"') == 1 and page.count('class="chart trend"') == 2
    assert 'href="report/P%3C4%3E.html" aria-label="P&lt;4&gt;, 2026-11-05: 9; band' in page
    assert '<a href="#trend">Trend</a>' in page
    assert 'id="trend"' not in render(folder, shards, "P<4>")


def test_a_screen_of_one_plate_has_no_trend(tmp_path):
    cells = make_cells(["a"], ["B02", "B03"], 1, 3)
    make_shards(tmp_path / "crops.parquet", cells)
    page = render(make_folder(tmp_path / "screen", cells, 1), tmp_path / "crops.parquet")
    assert 'id="trend"' not in page and "#trend" not in page


def test_plates_without_dates_are_said_to_be_in_the_order_of_the_config(folder, tmp_path):
    table = made_trend()
    table["date"], table["dated_by"] = None, "order of plates"
    cells = make_cells(PLATES, ["B02", "B03"], 1, 3)
    results = read_results(make_folder(tmp_path / "s", cells, 1, trend=lambda _: table))
    assert dated_text(results).startswith("Plates are in the order of the config")
    assert trend_charts(results, str)[0]["ends"] == ["P<1>", "P<6>"]
    assert list(results.trend) == COLUMNS["trend"].split()
