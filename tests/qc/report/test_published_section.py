"""The page's section of published flags: what it says, its links, and that it escapes."""

import pandas as pd
import pytest

from hcsqc.core.schema import write_csv
from hcsqc.qc.agreement.published import compare, field_table, joined_fields
from hcsqc.qc.report.published import read_agreement
from hcsqc.qc.report.results import read_results
from tests.qc.report.made_screen import EVIL, Reader, make_folder, render

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
COLUMNS = {"isBlurry": "out of focus", "isOdd": EVIL}


def agreement(folder, tmp_path):
    """Return the agreement of a made screen with flags that differ from ours in two fields."""
    results = read_results(folder)
    fields = results.fields
    flags = fields[PLACE].assign(isBlurry=fields["out_of_focus"].astype("boolean"), isOdd=False)
    flags["isOdd"] = flags["isOdd"].astype("boolean")
    flags.loc[0, "isOdd"] = True
    flags.loc[fields.index[fields["bad"]][0], "isBlurry"] = False
    flags = pd.concat([flags.iloc[:-1], flags.iloc[-1:].assign(Metadata_Site=9)])
    joined = joined_fields(flags, COLUMNS, fields, results.cells)
    for name, table in (
        ("flags", compare(joined, COLUMNS, 50)),
        ("fields", field_table(joined, COLUMNS)),
    ):
        write_csv(table, tmp_path / f"{name}.csv", "%.6g", schema=f"published_{name}")
    return read_agreement(tmp_path / "flags.csv", tmp_path / "fields.csv")


@pytest.fixture(scope="module")
def made(screen, tmp_path_factory):
    return agreement(screen["folder"], tmp_path_factory.mktemp("agreement"))


def test_the_section_says_how_far_both_sides_agree(screen, made):
    page = render(screen["folder"], screen["shards"], published=made)
    text = Reader(page).text
    row = made.flags[(made.flags["flag"] == "any of them") & (made.flags["unit"] == "field")].iloc[
        0
    ]
    assert row["published_only"] == row["ours_only"] == 1 and row["compared"] == 47
    both = row["both"]
    assert f"Of 47 fields, {both + 1} have a published flag, {both + 1} are bad here, and" in text
    assert f"{100 * both / (both + 1):.1f}% (95% interval" in text
    assert "Not compared: 1 field that only the published table has, 1 field that only" in text
    assert "2 fields that one side alone flags" in text
    assert EVIL in text and EVIL not in page


def test_a_screen_without_published_flags_has_no_such_section(screen):
    assert "published" not in screen["page"].lower().split('<script type="application/json"')[0]


def test_fields_that_differ_lead_to_their_plates(screen, made):
    page = render(screen["folder"], screen["shards"], published=made)
    part = page[page.index('id="published"') :]
    assert 'href="report/p1.html#well=B02"' in part and "ours only" in part
    assert 'id="published"' not in render(screen["folder"], screen["shards"], "p1", published=made)


def test_the_page_of_a_single_plate_opens_its_wells(screen, tmp_path):
    cells = screen["cells"][screen["cells"]["Metadata_Plate"] == "p1"]
    folder = make_folder(tmp_path / "one", cells, 2)
    page = render(folder, screen["shards"], published=agreement(folder, tmp_path))
    assert (
        '<a href="#why" data-well="0" data-site="1">B02</a>' in page[page.index('id="published"') :]
    )
