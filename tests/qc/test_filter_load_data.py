"""A LoadData table without the bad wells and fields, to the letter as it was otherwise."""

import sys

import pandas as pd
import pytest

from hcsqc.core.schema import write_csv
from hcsqc.screens.layouts import index_plate
from hcsqc.screens.layouts.base import Source
from scripts.qc import filter_load_data

TABLE = """FileName_DNA,Image_Metadata_Plate,Image_Metadata_Well,Image_Metadata_Site,Dose
a.tif,007,A1,1,0.50
b.tif,007,A1,2,1e-3
c.tif,007,B02,1,
d.tif,007,b2,2,NA
e.tif,007,C03,1,"1,5"
f.tif,008,A01,1,2
"""


def filtered(tmp_path, monkeypatch, table="table.csv", plate="007", flagged="007") -> str:
    wells = pd.DataFrame(
        {
            "Metadata_Plate": ["007", "007", "007", "008"],
            "Metadata_Well": ["A01", "B02", "C03", "A01"],
            "bad": [False, True, False, True],
        }
    )
    fields = wells.iloc[[0, 0, 2]].assign(Metadata_Site=[1, 2, 1], bad=[True, False, False])
    for name, flags in {"wells": wells, "fields": fields}.items():
        write_csv(flags.replace("007", flagged), tmp_path / f"{name}.csv")
    words = [filter_load_data.__file__, "--table", tmp_path / table, "--plate", plate]
    words += [
        "--channels",
        "DNA",
        "--wells",
        tmp_path / "wells.csv",
        "--fields",
        tmp_path / "fields.csv",
    ]
    words += ["--output", tmp_path / "out.csv", "--record", tmp_path / "run.json"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    filter_load_data.main()
    return (tmp_path / "out.csv").read_text()


def test_bad_wells_and_bad_fields_of_the_plate_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text(TABLE)
    lines = TABLE.splitlines()
    assert filtered(tmp_path, monkeypatch).splitlines() == [lines[0], lines[2], lines[5]]


@pytest.mark.parametrize("name", ["@7", "+x", "=B"])
def test_a_plate_that_looks_like_a_formula_loses_its_bad_wells_too(tmp_path, monkeypatch, name):
    (tmp_path / "table.csv").write_text(TABLE.replace("007", name))
    left = filtered(tmp_path, monkeypatch, plate=name, flagged=name)
    assert [line[:5] for line in left.splitlines()[1:]] == ["b.tif", "e.tif"]


def test_commas_at_the_ends_of_rows_make_no_column(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text(TABLE.replace("\n", ",,\n"))
    lines = TABLE.splitlines()
    assert filtered(tmp_path, monkeypatch).splitlines() == [lines[0], lines[2], lines[5]]


def test_a_parquet_table_is_read_as_well(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text(TABLE)
    table = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    table.to_parquet(tmp_path / "table.parquet")
    assert "b.tif" in filtered(tmp_path, monkeypatch, "table.parquet")


def test_plates_that_parquet_holds_as_numbers_are_found(tmp_path, monkeypatch):
    table = pd.DataFrame(
        {"Metadata_Plate": [7.0, 7.0], "Metadata_Well": ["A01", "B02"], "Metadata_Site": [2, 1]}
    )
    table.to_parquet(tmp_path / "table.pq")
    text = filtered(tmp_path, monkeypatch, "table.pq", "7")
    assert text.splitlines() == [
        "Metadata_Plate,Metadata_Well,Metadata_Site",
        "7.0,A01,2",
        "7.0,B02,1",
    ]


def test_a_plate_without_rows_is_an_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "table.csv").write_text(TABLE)
    with pytest.raises(SystemExit):
        filtered(tmp_path, monkeypatch, plate="009")
    assert "no row of plate 009 in Metadata_Plate; did you mean" in capsys.readouterr().err


def test_a_table_without_wells_is_an_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "table.csv").write_text("FileName_DNA,Metadata_Plate\na.tif,007\n")
    with pytest.raises(SystemExit):
        filtered(tmp_path, monkeypatch)
    assert "Metadata_Well" in capsys.readouterr().err


def test_a_table_that_indexes_also_filters(tmp_path, monkeypatch, capsys):
    lines = ["FileName_DNA,Metadata_Plate,Metadata_CPD_WELL_POSITION,Metadata_Site"] + [
        f"IXMtest_{well}_s{site}_w1AB.tif,007,{well},IXMtest"
        for well in ("A01", "B02", "C03")
        for site in (1, 2)
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    fields, _ = index_plate(Source("loaddata", tmp_path, ("DNA",), table=path), "s", "007")
    assert len(fields) == 6 and "which is not a number" in capsys.readouterr().err
    # A01 site 1 is a bad field, B02 a bad well.
    assert filtered(tmp_path, monkeypatch).splitlines() == [lines[0], *lines[2:3], *lines[5:]]
    assert "warning" not in capsys.readouterr().err  # indexing has said it


def test_texts_that_a_spreadsheet_would_run_are_texts_and_paths_stay_paths(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text(
        "Image_FileName_DNA,PathName_DNA,Metadata_Plate,Metadata_Well,Metadata_Site,Metadata_Compound,Dose\n"
        "=a.tif,-images/x,007,C03,2,=cmd|' /C calc'!A0,-1.50\n"
    )
    assert filtered(tmp_path, monkeypatch).splitlines()[1] == (
        "./=a.tif,./-images/x,007,C03,2,'=cmd|' /C calc'!A0,-1.50"
    )
