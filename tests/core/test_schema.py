"""Tables are contracts: writers refuse what the schema does not say, readers check."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc import __version__
from hcsqc.core.errors import InputError
from hcsqc.core.parquet import write_sealed
from hcsqc.core.schema import (
    TABLES,
    as_written,
    features_schema,
    for_spreadsheets,
    read_metadata,
    read_table,
    write_csv,
    write_table,
)
from tests.conftest import ROOT


def truth(**changes):
    rows = {"crop_id": ["s/p/B02/s1/x0001y0002", "s/p/B02/s1/x0003y0004"]}
    rows |= {"artefact": ["none", "blur"], "strength": [0.0, 0.5], "oddness": [0.7, 0.7]}
    rows |= {"edge": [0.3, 0.3]}
    return pd.DataFrame(rows | changes)


def fields():
    return pd.DataFrame(
        {
            "field_id": ["s/p/B02/s1", "s/p/B02/s2"],
            "plate": "p",
            "well": "B02",
            "site": [1, 2],
            "role": ["mock", None],
            "compound": None,
            "concentration_um": [0.003, np.nan],
            "image_path": [["a.tif", "b.tif"], ["c.tif", None]],
            "image_page": [[None, None], [0, 1]],
            "image_bytes": [[10, 20], [30, None]],
            "problem": [None, "no image of channel w2"],
        }
    )


@pytest.mark.parametrize("name", sorted(TABLES))
def test_keys_are_columns_without_nulls(name):
    table = TABLES[name]
    assert table.keys
    assert not any(table.columns.field(key).nullable for key in table.keys)
    assert all(b"about" in field.metadata for field in table.columns)


def test_table_with_lists_and_nulls_comes_back(tmp_path):
    path = tmp_path / "fields.parquet"
    write_table(fields(), path, "fields")
    back = read_table(path, "fields")
    assert back["image_path"].map(list).tolist() == [["a.tif", "b.tif"], ["c.tif", None]]
    assert back["role"].isna().tolist() == [False, True]
    assert back["concentration_um"].tolist()[0] == 0.003
    plain = ["field_id", "plate", "well", "site"]
    pd.testing.assert_frame_equal(back[plain], fields()[plain], check_dtype=False)
    assert pq.read_schema(path).names == TABLES["fields"].columns.names
    assert pq.read_table(path)["image_bytes"].to_pylist() == [[10, 20], [30, None]]


@pytest.mark.parametrize("form", [lambda rows: rows, pa.Table.from_pandas], ids=["pandas", "arrow"])
def test_columns_are_put_in_the_order_of_the_schema(tmp_path, form):
    path = tmp_path / "truth.parquet"
    write_table(
        form(truth()[["oddness", "strength", "edge", "crop_id", "artefact"]]), path, "crop_truth"
    )
    assert pq.read_schema(path).names == ["crop_id", "artefact", "strength", "oddness", "edge"]
    assert pq.read_schema(path).field("strength").type == pa.float64()
    pd.testing.assert_frame_equal(read_table(path, "crop_truth"), truth())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            truth().drop(columns="strength"),
            r"columns \['artefact', 'crop_id', 'edge', 'oddness'\], expected",
        ),
        (truth(score=1.0), r"'score'"),
        (truth().rename(columns={"strength": "Strength"}), "'Strength'"),
        (truth(strength=["a", "b"]), "strength|as a scalar of type double"),
        (truth(strength=[0.0, None]), "strength"),
        (truth(crop_id=["a", None]), "crop_id"),
        (truth(crop_id="a"), r"1 repeated keys \('crop_id',\)"),
    ],
    ids=["missing", "unknown", "case", "type", "null", "null key", "repeated key"],
)
@pytest.mark.parametrize("form", [lambda rows: rows, pa.Table.from_pandas], ids=["pandas", "arrow"])
def test_writer_refuses_other_rows_and_keeps_the_old_file(tmp_path, rows, message, form):
    path = tmp_path / "truth.parquet"
    write_table(truth(), path, "crop_truth")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        write_table(form(rows), path, "crop_truth")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_writer_refuses_a_fraction_where_a_count_belongs(tmp_path):
    rows = fields().assign(site=[1.0, 1.5])
    with pytest.raises(ValueError, match="truncated converting to int32"):
        write_table(rows, tmp_path / "fields.parquet", "fields")


def test_writer_refuses_numbers_where_text_belongs(tmp_path):
    with pytest.raises((ValueError, TypeError), match="crop_id"):
        write_table(truth(crop_id=[1, 2]), tmp_path / "truth.parquet", "crop_truth")


def test_key_of_several_columns_may_repeat_in_one(tmp_path):
    rows = pd.DataFrame({"draw": [0, 1], "crop_id": "a", "label": "normal", "part": "test"})
    rows["group"] = "p/B02"
    write_table(rows.assign(rank=None), tmp_path / "splits.parquet", "splits")
    with pytest.raises(ValueError, match=r"1 repeated keys \('draw', 'crop_id'\)"):
        write_table(rows.assign(rank=None, draw=0), tmp_path / "splits.parquet", "splits")


def test_metadata_comes_back_with_the_producer(tmp_path):
    path = tmp_path / "truth.parquet"
    stored = {"shape": [520, 696], "name": "é", "nothing": None}
    write_table(truth(), path, "crop_truth", stored)
    assert read_metadata(path) == stored | {"producer": "hcsqc", "version": __version__}


def test_table_without_rows_comes_back_with_its_types(tmp_path):
    path = tmp_path / "fields.parquet"
    write_table(fields().head(0), path, "fields")
    assert len(read_table(path, "fields")) == 0
    assert pq.read_schema(path).types == TABLES["fields"].columns.types


def test_file_is_ordinary_parquet_to_pandas_and_duckdb(tmp_path):
    path = tmp_path / "truth.parquet"
    write_table(truth(), path, "crop_truth")
    pd.testing.assert_frame_equal(pd.read_parquet(path), truth())
    with duckdb.connect() as base:
        rows = base.execute(f"select * from '{path}' order by crop_id").fetchall()
    assert rows == [tuple(row) for row in truth().to_numpy().tolist()]


def test_chosen_columns_are_read_in_their_order(tmp_path):
    path = tmp_path / "truth.parquet"
    write_table(truth(), path, "crop_truth")
    chosen = read_table(path, "crop_truth", ["strength", "crop_id"])
    pd.testing.assert_frame_equal(chosen, truth()[["strength", "crop_id"]])


def test_feature_vectors_have_one_width(tmp_path):
    path = tmp_path / "features.parquet"
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    rows = pd.DataFrame({"crop_id": ["a", "b"], "vector": list(vectors)})
    write_table(rows, path, features_schema(3))
    np.testing.assert_array_equal(np.stack(pd.read_parquet(path)["vector"]), vectors)
    with pytest.raises(ValueError, match="vector"):
        write_table(rows, path, features_schema(4))


def test_reader_names_the_file_that_is_another_table(tmp_path):
    path = tmp_path / "truth.parquet"
    write_table(truth(), path, "crop_truth")
    with pytest.raises(InputError, match=r"truth.parquet: is not a 'fields' table .*delete it"):
        read_table(path, "fields")


def test_reader_refuses_the_right_columns_of_another_type(tmp_path):
    path = tmp_path / "truth.parquet"
    write_sealed(pa.Table.from_pandas(truth().astype({"strength": "float32"})), path)
    with pytest.raises(InputError, match="is not a 'crop_truth' table"):
        read_table(path, "crop_truth")


@pytest.mark.parametrize("kept_share", [0, 0.5, 0.99])
def test_reader_names_a_truncated_file(tmp_path, kept_share):
    path = tmp_path / "truth.parquet"
    write_table(truth(), path, "crop_truth")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept_share)])
    with pytest.raises(InputError, match=r"truth.parquet: cannot be read as Parquet"):
        read_table(path, "crop_truth")


def test_reader_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone.parquet: cannot be read"):
        read_table(tmp_path / "gone.parquet", "crop_truth")


# CSV files, which people open in spreadsheet programs.

STARTS = ["=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff20"]


@settings(deadline=None)
@given(st.lists(st.text("=+-@\t\r\n'ab, \"1.\uff1d"), min_size=1, max_size=5), st.booleans())
def test_no_text_of_a_csv_begins_like_a_formula_and_none_is_lost(texts, categories):
    table = pd.DataFrame({"=name": pd.Series(texts, dtype="category" if categories else object)})
    made = for_spreadsheets(table)
    for text, written in zip(texts, made["'=name"], strict=True):
        is_number = written.strip("+-.").replace(".", "", 1).isdigit()
        assert not written.startswith(tuple(STARTS)) or is_number
        assert written in (text, f"'{text}")
    plain = pd.Series([text for text in texts if not text.startswith("'")], dtype=str)
    kept = for_spreadsheets(plain.to_frame("a"))["a"]
    assert as_written(kept.astype(str)).tolist() == plain.tolist()


def test_numbers_of_a_csv_stay_numbers_and_gaps_stay_gaps(tmp_path):
    table = pd.DataFrame(
        {
            "number": [-0.5, np.nan],
            "whole": pd.array([-1, None], "Int64"),
            "text": ["-1.5e-3", None],
            "flag": [True, False],
            "compound": ["=cmd|' /C calc'!A0", "-(+)-x"],
        }
    )
    write_csv(table, tmp_path / "t.csv", "%.6g")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "number,whole,text,flag,compound",
        "-0.5,-1,-1.5e-3,True,'=cmd|' /C calc'!A0",
        ",,,False,'-(+)-x",
    ]
    assert table["compound"][0].startswith("="), "the table itself is as it was"


def test_columns_of_the_same_name_are_each_written(tmp_path):
    write_csv(pd.DataFrame([["=a", "@b", 1]], columns=["x", "x", "x"]), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "x,x,x\n'=a,'@b,1\n"
    write_csv(pd.DataFrame({"x": pd.Series([], dtype=str)}), tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == "x\n"


def test_every_csv_is_written_by_the_one_writer():
    direct = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "scripts").rglob("*.py")
        if ".to_csv(" in path.read_text(encoding="utf-8") or "csv.writer" in path.read_text("utf-8")
    ]
    assert sorted(direct) == [
        "scripts/hcsqc/core/schema.py",
        "scripts/hcsqc/qc/joining/tables.py",  # the user's own table, whose texts stay
        "scripts/hcsqc/qc/report/answers.py",  # a text in a page, and for_spreadsheets
        "scripts/hcsqc/tracking/runs.py",  # a digest, and for_spreadsheets
    ]
