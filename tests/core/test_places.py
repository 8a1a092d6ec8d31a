"""Plates, wells and sites have one parser, and every reader that meets them uses it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.given_tables import each, plates_among
from hcsqc.core.places import (
    as_text,
    match_plate,
    parse_plate,
    parse_well,
    well_name,
    whole_number,
    why_other,
)
from hcsqc.crops.locations import read_locations
from hcsqc.labels.match import FILE_COLUMNS, place_labels, read_label_file
from hcsqc.qc.flags import without_bad_wells
from hcsqc.qc.profiles import with_flags
from hcsqc.screens.layouts import Source, index_plate
from tests.labels.made_labels import nuclei_at

unhurried = settings(deadline=None, max_examples=40)
spaces = st.sampled_from(["", " ", "  ", "\t", "\N{NO-BREAK SPACE}"])


@st.composite
def spellings_of_wells(draw):
    """A well, and a way that people and programs write it."""
    row, column = draw(st.integers(1, 48)), draw(st.integers(1, 72))
    well = well_name(str(row), str(column))
    letters = well.rstrip("0123456789")
    written = draw(st.sampled_from([letters, letters.lower()]))
    digits = str(column).zfill(draw(st.integers(1, 3)))
    return well, draw(spaces) + written + digits + draw(spaces)


@st.composite
def spellings_of_plates(draw):
    """A plate of digits, perhaps with zeros at its start, and how tables hold it."""
    number = draw(st.integers(0, 2**40))
    ways = [str(number), f"{number}.0", f" {number} ", number, float(number), np.int64(number)]
    ways += [f"{number}.", np.float64(number), str(number).encode()]
    return str(number), draw(st.sampled_from(ways))


@given(spellings_of_wells())
def test_every_spelling_of_a_well_is_that_well(case):
    well, spelling = case
    assert parse_well(spelling) == well == parse_well(well)


@given(spellings_of_plates())
def test_every_spelling_of_a_plate_of_digits_is_that_plate(case):
    plate, spelling = case
    assert parse_plate(spelling) == plate and match_plate(spelling, [plate, "other"]) == plate
    assert match_plate(spelling, ["0" + plate, plate + "0"]) is None


@given(st.text(min_size=1).filter(lambda text: text == text.strip()))
def test_a_plate_of_any_name_is_itself(name):
    assert match_plate(f" {name} ", [name]) == name and as_text(name) == name


@given(number=st.integers(0, 2**31 - 1))
def test_every_spelling_of_a_whole_number_is_that_number(number):
    for spelling in (number, float(number), str(number), f"{number}.0", f" {number} "):
        assert whole_number(spelling) == number


@pytest.mark.parametrize("value", ["", None, np.nan, pd.NA, "x", "1.5", 1.5, -1, "-1", 2**31, "s1"])
def test_what_is_no_site_is_none(value):
    assert whole_number(value) is None


@pytest.mark.parametrize("value", ["", None, np.nan, pd.NaT, "A", "1A", "A0", "north", 7, "A٣"])
def test_what_is_no_well_is_none(value):
    assert parse_well(value) is None


def test_missing_values_are_read_as_such_and_stay_in_their_rows():
    values = pd.Series([42.0, np.nan, 7.0], index=[5, 3, 9])
    found = plates_among(values, ["42", "0007"])
    assert found.index.tolist() == [5, 3, 9] and found.tolist() == ["42", None, None]
    assert each(pd.Series(["a1", None]), parse_well).tolist() == ["A01", None]


@pytest.mark.parametrize(
    ("given_plate", "known", "reason"),
    [
        ("42", "0042", "'42' is '0042' without its leading zeros, which spreadsheet"),
        ("42.0", "0042", "'42' is '0042' without its leading zeros"),
        ("0042", "42", "'42' is '0042' without its leading zeros"),
        ("1.00E+11", "100000000001", "'1.00E+11' is a number that a spreadsheet program shortened"),
        ("br1", "BR1", "'br1' and 'BR1' differ in capital letters"),
        ("P1", "P2", ""),
        ("", "0", ""),
    ],
)
def test_why_a_plate_is_another_is_named(given_plate, known, reason):
    assert reason in why_other(["zz", given_plate], ["yy", known])
    assert bool(reason) == bool(why_other([given_plate], [known]))


# Every door


def placed_label(folder, plate, well, site):
    line = f'"{plate}","{well}",{site},50,100,normal,,al,random,,'
    path = folder / "labels.csv"
    path.write_text(",".join(FILE_COLUMNS) + f",,\n,,,,,,,,,,\n\n{line}\n")
    nuclei = nuclei_at(("A01", 50, 100, True), plate="42")
    return place_labels(read_label_file(path), nuclei, 5)[0]["crop_id"].tolist()


def located(folder, plate, well, site):
    path = folder / "nuclei.csv"
    header = "Metadata_Plate,Metadata_Well,Metadata_Site,Location_Center_X,Location_Center_Y"
    path.write_text(f'{header}\n,,,,\n\n"{plate}","{well}",{site},50,100,,\n')
    return [f"s/42/{well}/s{site}/x0050y0100" for well, site in read_locations(path, "42")]


def indexed(folder, plate, well, site):
    path = folder / "load_data.csv"
    header = "FileName_DNA,Metadata_Plate,Metadata_Well,Metadata_Site"
    path.write_text(f'{header}\n,,,\n\na.tif,"{plate}","{well}",{site},,\n')
    (folder / "a.tif").write_text("x")
    fields, _ = index_plate(Source("loaddata", folder, ("DNA",), table=path), "s", "42")
    return [f"{field}/x0050y0100" for field in fields["field_id"]]


CELLS = pd.DataFrame(
    {
        "Metadata_Plate": ["42"],
        "Metadata_Well": ["A01"],
        "Metadata_Site": np.int32([1]),
        "Nuclei_Location_Center_X": [50.0],
        "Nuclei_Location_Center_Y": [100.0],
        "score": [0.7],
        "probability": [0.7],
        "flagged": [True],
        "artefact": ["blur"],
    }
)


def profiles_of(*places):
    """Return profiles of (plate, well, site, x, y)."""
    return pd.DataFrame(places, columns=list(CELLS)[:5])


def joined(folder, plate, well, site):
    found = with_flags(profiles_of((plate, well, site, 51, 100)), CELLS, 5)
    return ["s/42/A01/s1/x0050y0100"] * int(found["score"].eq(0.7).sum())


def filtered(folder, plate, well, site):
    table = profiles_of((plate, well, site, 50, 100))
    flags = CELLS[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]].assign(bad=True)
    return ["s/42/A01/s1/x0050y0100"] * (1 - len(without_bad_wells(table, flags)))


DOORS = (placed_label, located, indexed, joined, filtered)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("plate", "well", "site"),
    [
        ("42", "A01", "1"),
        ("42.0", "A1", "1.0"),
        (" 42", "a01", "01"),
        ("42 ", " A01", "1"),
        ("42.0", "A01 ", "1"),
        ("42", "A001", "1.0"),
    ],
)
def test_every_door_reads_a_place_alike(tmp_path, door, plate, well, site):
    assert door(tmp_path, plate, well, site) == ["s/42/A01/s1/x0050y0100"]


def test_plates_that_parquet_holds_as_numbers_are_found(tmp_path):
    table = pd.DataFrame({"plate": [42.0, 42.0], "well": ["A01", "A1"], "site": [1, 1]})
    table = table.assign(x_px=[10.0, 20.0], y_px=[10.0, 20.0])
    table.to_parquet(tmp_path / "a.parquet")
    found = read_locations(tmp_path / "a.parquet", "42")
    assert found["A01", 1].x_px.tolist() == [10, 20]
    table.assign(plate=None).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="b.parquet: row 1: plate is empty"):
        read_locations(tmp_path / "b.parquet", "42")


LOST = "'42' is '0042' without its leading zeros, which spreadsheet programs remove"


def test_zeros_that_a_spreadsheet_took_away_are_the_reason(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(",".join(FILE_COLUMNS) + "\n42,A01,1,50,100,normal,,al,random\n")
    _, lost = place_labels(
        read_label_file(path), nuclei_at(("A01", 50, 100, True), plate="0042"), 5
    )
    why = f"no nucleus of plate '42'; labelled plates: 0042; {LOST}: keep plates as text"
    assert lost["reason"].tolist() == [why]
    place = {"plate": ["42"], "well": ["A01"], "site": ["1"], "x_px": ["5"], "y_px": ["5"]}
    pd.DataFrame(place).to_csv(tmp_path / "nuclei.csv")
    with pytest.raises(InputError, match=f"lists no nucleus of plate 0042; it has 42; {LOST}"):
        read_locations(tmp_path / "nuclei.csv", "0042")
    table = tmp_path / "load_data.csv"
    table.write_text("FileName_DNA,Metadata_Plate,Metadata_Well,Metadata_Site\na.tif,42,A01,1\n")
    with pytest.raises(InputError, match=f"no row of plate 0042.*{LOST}"):
        index_plate(Source("loaddata", tmp_path, ("DNA",), table=table), "s", "0042")
    with pytest.raises(InputError, match=f"of plate, well, site 42 A01 1, the first cell.*{LOST}"):
        with_flags(profiles_of((42, "A01", 1, 5, 5)), CELLS.assign(Metadata_Plate="0042"), 5)


@pytest.mark.parametrize("gap", [np.nan, np.inf, None, "", "north"])
def test_a_profile_without_a_centre_has_no_flag_and_the_others_theirs(gap):
    rows = [("42", "A01", 1, gap, 100), ("42", "A1", 1, 50, 100), ("42", "A01", 1, 50, gap)]
    found = with_flags(profiles_of(*rows, (None, None, None, 50, 100)), CELLS, 5)
    assert found["score"].fillna(-1).tolist() == [-1, 0.7, -1, -1]
    assert found["artefact"].fillna("none").tolist() == ["none", "blur", "none", "none"]


@unhurried
@given(spelling=spellings_of_plates(), well=spellings_of_wells())
def test_profiles_are_joined_however_they_spell_their_place(spelling, well):
    cells = CELLS.assign(Metadata_Plate=spelling[0], Metadata_Well=well[0])
    found = with_flags(profiles_of((spelling[1], well[1], 1, 50, 100)), cells, 5)
    assert found["score"].tolist() == [0.7]
