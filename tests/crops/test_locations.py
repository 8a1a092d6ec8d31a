"""Published nuclei: the tables that others write, and what is wrong with some."""

import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.crops.locations import read_locations

CELLPROFILER = pd.DataFrame(
    {
        "Metadata_Plate": ["BR1", "BR1", "BR1", "BR2"],
        "Metadata_Well": ["A1", "A01", "b12", "A01"],
        "Metadata_Site": [1, 1, 2, 1],
        "Nuclei_Location_Center_X": [10.4, 99.6, 5, 7],
        "Nuclei_Location_Center_Y": [20, 30.2, 6, 8],
        "Nuclei_AreaShape_Area": [210, 305.4, 80, 90],
    }
)


def places(found):
    return {
        place: list(zip(nuclei.x_px.tolist(), nuclei.y_px.tolist(), strict=True))
        for place, nuclei in found.items()
    }


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_cellprofiler_s_table_is_read_by_plate_well_and_site(tmp_path, ending):
    path = tmp_path / f"nuclei.{ending}"
    if ending == "csv":
        CELLPROFILER.to_csv(path, index=False)
    else:
        CELLPROFILER.to_parquet(path)
    found = read_locations(path, "BR1")
    assert places(found) == {("A01", 1): [(10, 20), (100, 30)], ("B12", 2): [(5, 6)]}
    assert found["A01", 1].area_px.tolist() == [210, 305]


def test_other_names_without_plate_and_area_do_as_well(tmp_path):
    path = tmp_path / "nuclei.csv"
    pd.DataFrame({"well": ["C03"], "site": [4], "x_px": [11], "y_px": [12]}).to_csv(path)
    found = read_locations(path, "any")
    assert places(found) == {("C03", 4): [(11, 12)]}
    assert found["C03", 4].area_px.tolist() == [0]


def test_a_column_that_pandas_took_for_the_index_is_read(tmp_path):
    CELLPROFILER.set_index("Metadata_Plate").to_parquet(tmp_path / "nuclei.parquet")
    assert places(read_locations(tmp_path / "nuclei.parquet", "BR2")) == {("A01", 1): [(7, 8)]}


def test_a_nucleus_without_an_area_has_none(tmp_path):
    CELLPROFILER.assign(Nuclei_AreaShape_Area=None).to_csv(tmp_path / "nuclei.csv")
    found = read_locations(tmp_path / "nuclei.csv", "BR1")
    assert found["A01", 1].area_px.tolist() == [0, 0]


def test_a_centre_that_is_listed_twice_counts_once(tmp_path):
    path = tmp_path / "nuclei.csv"
    pd.concat([CELLPROFILER, CELLPROFILER]).to_csv(path, index=False)
    assert places(read_locations(path, "BR2")) == {("A01", 1): [(7, 8)]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Metadata_Site": None}, "has no column Metadata_Site or"),
        ({"Nuclei_Location_Center_X": None}, "has no column Nuclei_Location_Center_X or"),
        ({"Metadata_Plate": "other"}, "lists no nucleus of plate BR1"),
        ({"Nuclei_Location_Center_Y": "north"}, "Nuclei_Location_Center_Y is 'north', which is no"),
        (
            {"Nuclei_Location_Center_X": 1e12},
            "Center_X is '1000000000000.0', which is not a usable number",
        ),
        (
            {"Nuclei_AreaShape_Area": "large"},
            "AreaShape_Area is 'large', which is not a usable number",
        ),
        ({"Metadata_Site": 1.5}, "Metadata_Site is '1.5', which is not a whole number"),
        ({"Metadata_Well": ""}, "Metadata_Well is empty"),
        ({"Metadata_Well": "north"}, "Metadata_Well is 'north', which is not a well"),
    ],
)
def test_bad_table_is_named(tmp_path, change, message):
    path = tmp_path / "nuclei.csv"
    (name,) = change
    table = CELLPROFILER.drop(columns=name)
    if change[name] is not None:
        table[name] = change[name]
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"nuclei.csv: .*{message}"):
        read_locations(path, "BR1")


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.csv: no such table of nuclei; correct locations"):
        read_locations(tmp_path / "gone.csv", "BR1")


@pytest.mark.parametrize("name", ["text.parquet", "empty.csv"])
def test_what_is_no_table_is_named(tmp_path, name):
    (tmp_path / name).write_text("" if name.startswith("empty") else "hello")
    with pytest.raises(InputError, match=f"{name}: cannot be read as a table of nuclei"):
        read_locations(tmp_path / name, "BR1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "plate,well,site,x_px,y_px\nBR1,A1,1,10,5,20,6\n",
            "row 1 has more values than columns",
        ),
        ("plate;well;site;x_px;y_px\nBR1;A1;1;10,5;20,6\n", "has semicolons between the columns"),
        ("plate,well,site,x_px,y_px\n,A1,1,10,20\n", "row 1: plate is empty"),
        ("plate,well,site,x_px,y_px\n\n,,,,\nBR1,A1,1,nan,20\n", "row 3: x_px is 'nan', which is"),
        ("plate,well,site,x_px,y_px\nBR1,A1,1,,20\n", "row 1: x_px is empty"),
        (
            "plate,well,site,x_px,y_px\nBR1,A1,1,-inf,20\n",
            "row 1: x_px is '-inf', which is",
        ),
        ("plate,well,site,x_px,y_px\nBR2,A1,1,1,2\n", "no nucleus of plate BR1; it has BR2; list"),
        (
            "plate,well,site,x_px,y_px\n",
            "no nucleus of plate BR1; list them, or take the plate out",
        ),
    ],
)
def test_a_row_that_cannot_be_placed_is_named(tmp_path, content, message):
    (tmp_path / "nuclei.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_locations(tmp_path / "nuclei.csv", "BR1")


def test_blank_rows_and_commas_at_the_ends_say_nothing(tmp_path):
    text = "\n,,,,\nplate,well,site,x_px,y_px,\n\n,,,,,\nBR1,A1,1,10,20,,\n  ,,,,,\n".lstrip("\n,")
    (tmp_path / "nuclei.csv").write_text(text, encoding="utf-8-sig")
    assert places(read_locations(tmp_path / "nuclei.csv", "BR1")) == {("A01", 1): [(10, 20)]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    text = "plate,well,site,x_px,y_px\né,A1,1,10,20\n"
    (tmp_path / "nuclei.csv").write_text(text, encoding=encoding)
    with pytest.raises(InputError, match=r"cannot be read as a table of nuclei: is .*UTF.*save it"):
        read_locations(tmp_path / "nuclei.csv", "BR1")
