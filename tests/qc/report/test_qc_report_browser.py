"""The quality-control page in a real browser: by clicks and keys, at three widths."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core.ids import split_field_id
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.figures.tables import table_parts
from hcsqc.qc.field_view.images import FieldSource
from tests.conftest import in_browser
from tests.qc.report.made_screen import (
    CHANNELS,
    DETECTOR,
    WELLS,
    data_of,
    make_cells,
    make_features,
    make_folder,
    render,
)

# Without the slash that no key of a crop has room for.
EVIL = "<img src=x onerror=alert(1)>&'"
WIDTHS = (400, 900, 1400)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a screen of two plates; the first has a hostile name, and images of fields."""
    folder = tmp_path_factory.mktemp("walk")
    cells = make_cells([EVIL, "p2"], WELLS, 2, 12, seed=1)
    tables = make_folder(folder / "tables", cells, 2)
    shards = scaled_shards(folder / "p1.parquet", cells)
    features = make_features(folder / "features.parquet", cells)
    source = images(folder, cells)
    given = {"features": [features], "source": source, "detector": DETECTOR}
    whole, own = (render(tables, shards, plate, **given) for plate in (None, EVIL))
    few = cells[(cells["Metadata_Plate"] == "p2") & cells["Metadata_Well"].isin(["B02", "B03"])]
    page = render(make_folder(folder / "few", few, 2), shards)
    (folder / "few.html").write_text(page, encoding="utf-8")
    (folder / "report.html").write_text(whole, encoding="utf-8")
    (folder / "report").mkdir()
    (folder / "report" / "plate.html").write_text(own, encoding="utf-8")
    return SimpleNamespace(folder=folder, whole=whole, own=own, cells=cells)


def scaled_shards(path, cells):
    """Write noisy crops of all scored cells, with the scale that thumbnails need."""
    scored = cells[cells["score"].notna()]
    scale = {name: [0.0, 255.0, 255.0, 0.9] for name in CHANNELS}
    writer = ShardWriter(path, ShardFormat(CHANNELS, 48, "uint8", scale))
    index = {
        "crop_id": scored["crop_id"].tolist(),
        "field_id": [crop.rsplit("/", 1)[0] for crop in scored["crop_id"]],
        "x_px": scored["Nuclei_Location_Center_X"].astype(int).tolist(),
        "y_px": scored["Nuclei_Location_Center_Y"].astype(int).tolist(),
        "nucleus_area_px": scored["Nuclei_AreaShape_Area"].astype(int).tolist(),
    }
    pixels = np.random.default_rng(0).integers(0, 255, (len(scored), 3, 48, 48), np.uint8)
    writer.add(index, pixels)
    writer.close()
    assert len(Shards([path])) == len(scored)
    return path


def images(folder, cells) -> FieldSource:
    """Write an image of each field of the first plate."""
    first = cells[cells["Metadata_Plate"] == EVIL]
    ids = sorted({crop.rsplit("/", 1)[0] for crop in first["crop_id"]})
    fields = split_field_id(pd.Series(ids))
    (folder / "images").mkdir()
    plane = np.random.default_rng(0).integers(0, 255, (1000, 400)).astype(np.uint16)
    names = []
    for well, site in fields[["well", "site"]].itertuples(index=False):
        names.append([f"{well}_{site}_{channel}.tif" for channel in CHANNELS])
        for name in names[-1]:
            tifffile.imwrite(folder / "images" / name, plane)
    return FieldSource(
        fields.assign(image_path=names, image_page=[[0] * 3] * len(fields)), folder / "images"
    )


@pytest.fixture(params=WIDTHS)
def tab(browser, pages, request):
    """A function that opens a page; what the console says fails the test."""
    said, opened = [], []

    def go(name: str):
        page = browser.new_page(
            viewport={"width": request.param, "height": 900}, accept_downloads=True
        )
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda sent: None if _inside(sent.url) else said.append(sent.url))
        page.goto((pages.folder / name).as_uri())
        opened.append(page)
        return page

    yield go
    for page in opened:
        wide = page.evaluate("document.documentElement.scrollWidth")
        page.close()
        assert wide <= request.param
    assert said == []


def _inside(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))


@in_browser
def test_from_a_plate_by_keys_to_a_well_a_field_and_its_crops(tab, pages):
    page = tab("report/plate.html")
    wells = page.locator("#map button.well")
    assert wells.count() == len(WELLS)
    first = page.locator("#map button.well[tabindex='0']")
    first.focus()
    assert page.locator("#readout").inner_text().startswith("B02; flagged cells: ")
    page.keyboard.press("ArrowRight")
    assert page.locator("#readout").inner_text().startswith("B03; ")
    assert "bad well: more flagged cells than expected" in page.locator("#readout").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("C02; ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#well h3").inner_text() == "Well B03"
    assert page.url.endswith("#well=B03")
    fields = page.locator("button.field")
    assert fields.count() == 2
    flagged = pages.cells[
        (pages.cells["Metadata_Plate"] == EVIL)
        & (pages.cells["Metadata_Well"] == "B03")
        & (pages.cells["Metadata_Site"] == 2)
        & pages.cells["flagged"].fillna(False)
    ]
    assert fields.nth(1).locator("circle.flagged").count() == len(flagged) > 0
    assert fields.nth(1).locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 50
    fields.nth(1).focus()
    page.keyboard.press("Enter")
    crops = page.locator("#field .crop .words").all_inner_texts()
    scores = [float(text.split()[0]) for text in crops]
    assert scores == sorted(scores, reverse=True) and len(scores) >= len(flagged)
    assert scores[0] == pytest.approx(flagged["score"].max(), abs=6e-4)
    assert "flagged" in crops[0]
    # Its composite, and its channels beside each other.
    assert page.locator("#field .crop").first.locator(".tile").count() == 2


@in_browser
def test_the_map_can_show_each_measure_and_another_plate(tab):
    page = tab("report.html")
    names = page.locator("#measure option").all_inner_texts()
    assert names[0] == "flagged cells" and "artefact: blur" in names
    before = page.locator("#map button.well").first.get_attribute("style")
    for name in names:
        page.locator("#measure").select_option(label=name)
        label = page.locator("#map button.well").first.get_attribute("aria-label")
        assert label.startswith(f"B02; {name}: ")
    assert page.locator("#map button.well").first.get_attribute("style") != before
    page.locator("#plate").select_option(label="p2")
    page.locator("#map button.well", has_text="").nth(5).click()
    link = page.locator("#well a")
    assert link.get_attribute("href") == "report/p2.html#well=C03"
    assert EVIL in page.locator("#plate").inner_text()


@in_browser
def test_tables_sort_filter_and_download(tab, pages):
    page = tab("report/plate.html")
    page.locator("#wells summary").click()
    page.wait_for_selector("#wells input[type=search]")
    table = page.locator("table[data-name=wells]")
    head = table.locator("th", has_text="Flag rate")
    head.click()
    rates = lambda: [  # noqa: E731
        float(text.rstrip("%")) for text in table.locator("tbody td:nth-child(3)").all_inner_texts()
    ]
    page.wait_for_selector("table[data-name=wells] th[aria-sort=ascending]")
    assert rates() == sorted(rates())
    head.click()
    page.wait_for_selector("table[data-name=wells] th[aria-sort=descending]")
    assert rates() == sorted(rates(), reverse=True) and len(rates()) == len(WELLS)
    page.locator("#wells input[type=search]").fill("B03")
    assert len(rates()) == 1
    with page.expect_download() as download:
        page.locator("#wells button", has_text="Download CSV").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    assert [row[0] for row in rows] == ["Well", "B03"]
    # A share, and not what is shown of it.
    share = data_of(pages.own)["wells"]["flagged_share"][1]
    assert float(rows[1][2]) == pytest.approx(share, abs=1e-3)
    with page.expect_download() as download:
        page.locator("button", has_text="Download the list as CSV").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert text == data_of(pages.own)["drops"] and text.count("\n") > 1


@in_browser
def test_the_slider_says_what_another_threshold_flags_and_promises(tab, pages):
    page = tab("report.html")
    said = page.locator("#slider-said")
    scores = pages.cells["score"].dropna()
    own = int((scores > 0.8).sum())
    assert f"Threshold 0.8 (this report’s): {own:,} of {len(scores):,} cells" in said.inner_text()
    page.locator("#slider").focus()
    page.keyboard.press("ArrowLeft")
    text = said.inner_text()
    count = int((scores > 0.5).sum())
    assert f"Threshold 0.5: {count:,} of {len(scores):,} cells flagged" in text
    assert "at most 12.4% of good cells are lost, with 95% confidence" in text
    assert "set qc.good_cells_lost: 0.124" in text
    page.keyboard.press("Home")
    assert "No promise: more than half of the good cells" in said.inner_text()
    page.locator("#slider-back").click()
    assert "(this report’s)" in said.inner_text()


@in_browser
def test_points_of_the_feature_map_show_their_crop_and_filter(tab):
    page = tab("report.html")
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#point .tile").count() == 1
    first = page.locator("#point").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#point").inner_text() != first
    page.locator("#by-flag").select_option(value="true")
    words = page.locator("#points-said").inner_text().split()
    shown, total = int(words[0]), int(words[3])
    assert 0 < shown < total
    assert page.locator("#points rect:not(.hidden)").count() == shown
    page.locator("#points rect:not(.hidden)").first.hover(force=True)
    assert "◆ flagged" in page.locator("#point").inner_text()
    page.locator("#by-compound").select_option(index=1)
    assert page.locator("#points .passed:not(.hidden)").count() == 0


@in_browser
def test_links_of_the_page_lead_somewhere_and_print_shows_the_details(tab):
    page = tab("report/plate.html")
    for link in page.query_selector_all("#sections a"):
        assert page.query_selector(link.get_attribute("href"))
    page.locator("table[data-name=drops] a").first.click()
    assert page.locator("#well h3").inner_text() == "Well B03"
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    for name in ("#sections", "#slider", "#measure", "input[type=search]", "button.small"):
        assert not page.locator(name).first.is_visible(), name
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == page.locator("#worst").count()
    page.emulate_media(media="screen")


@in_browser
def test_the_map_has_the_part_of_the_plate_with_wells(tab):
    page = tab("few.html")
    assert page.locator("#map [role=columnheader]").all_inner_texts()[1:] == ["1", "2", "3", "4"]
    assert page.locator("#map [role=rowheader]").all_inner_texts() == ["A", "B", "C"]
    assert page.locator("#map button.well").count() == 2
    assert "only the part with imaged wells is shown" in page.locator("#why + p").inner_text()


@in_browser
def test_a_long_table_prints_all_of_its_rows(browser, tmp_path):
    rows = "".join(f"<tr><td>{number}</td></tr>" for number in range(60))
    parts = table_parts()
    file = tmp_path / "long.html"
    file.write_text(
        f'<body data-file="x"><div class="scroll"><table class="data" data-name="long"><thead><tr>'
        f"<th>n</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<script>{parts['datatables']}</script><script>{parts['tables_script']}</script>",
        encoding="utf-8",
    )
    page = browser.new_page()
    page.goto(file.as_uri())
    shown = page.locator("tbody tr")
    assert shown.count() == 25
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert shown.count() == 60
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert shown.count() == 25
    page.close()


@in_browser
def test_every_table_of_the_page_sorts_and_downloads(tab):
    page = tab("report.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    tables = page.locator("table").count()
    page.wait_for_function(f"document.querySelectorAll('table.dataTable').length === {tables}")
    assert page.locator("button", has_text="Download CSV").count() == tables > 6
    assert page.locator("th.dt-orderable-asc").count() == page.locator("thead th").count()
