"""Published flags are read from CSV, Parquet and SQLite alike, on disk and at a URL."""

import re
import sqlite3
from contextlib import closing
from math import ceil

import apsw
import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.qc.agreement.published_tables import read_published
from hcsqc.qc.agreement.sqlite_table import BLOCK_BYTES
from tests.conftest import ROOT

FLAGS = ["Image_Metadata_QCFlag_isBlurry", "Image_Metadata_QCFlag_isSaturated"]
PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
OURS = pd.DataFrame(
    [("1001", well, site) for well in ("A01", "B02") for site in (1, 2)], columns=PLACE
)


def rows(prefix="Image_Metadata_", plate=1001) -> pd.DataFrame:
    """Return flags as CellProfiler's databases have them: wells a01, whole and broken numbers."""
    return pd.DataFrame(
        {
            "ImageNumber": [1, 2, 3, 4, 5],
            f"{prefix}Plate": [plate] * 4 + [9999],
            f"{prefix}Well": ["a01", "a01", "b02", "b02", "no well"],
            f"{prefix}Site": [1, 2, 1, 2, 1],
            FLAGS[0]: [1.0, 0.0, 0.0, np.nan, 7],
            FLAGS[1]: [0, 0, 1, 1, 0],
        }
    )


def write(table: pd.DataFrame, path, cells=0):
    """Write a table in the format of a path's name; `cells` are rows of another table of SQLite."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".sqlite":
        with sqlite3.connect(path) as base:
            names = ", ".join('"' + name.replace('"', '""') + '"' for name in table)
            base.execute(f"create table Image ({names})")
            base.execute("create table Cells (number, vector)")
            marks = ", ".join("?" * len(table.columns))
            for number, row in enumerate(table.astype(object).where(table.notna(), None).values):
                base.execute(f"insert into Image values ({marks})", list(row))
                some = [(number, b"x" * 3000)] * (cells // len(table))  # beside its image
                base.executemany("insert into Cells values (?, ?)", some)
        base.close()
    else:
        table.to_csv(path, index=False)
    return path


def read(template, plates=("1001",), ours=OURS, flags=FLAGS):
    return read_published(str(template), plates, flags, ours)


def check(found):
    assert found.fields[PLACE].to_numpy().tolist() == OURS.to_numpy().tolist()
    assert [None if pd.isna(flag) else flag for flag in found.fields[FLAGS[0]]] == [
        True, False, False, None,
    ]  # fmt: skip
    assert found.fields[FLAGS[1]].tolist() == [False, False, True, True]


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.parquet", "f.sqlite"])
def test_every_format_gives_the_same_flags(tmp_path, name):
    found = read(write(rows(), tmp_path / name))
    check(found)
    assert found.bytes_read == 0


@pytest.mark.parametrize("prefix", ["Image_Metadata_", "Metadata_", ""])
def test_columns_of_places_have_a_prefix_or_none(tmp_path, prefix):
    check(read(write(rows(prefix), tmp_path / "f.csv")))


def test_a_table_per_plate_is_read_for_each(tmp_path):
    for plate in (1001, 1002):
        write(rows(plate=plate), tmp_path / f"{plate}.sqlite")
    found = read(tmp_path / "{plate}.sqlite", ["1001", "1002"])
    assert found.fields["Metadata_Plate"].value_counts().to_dict() == {"1001": 4, "1002": 4}


@pytest.mark.parametrize(
    ("flag", "read_as"),
    [("1", True), ("0", False), ("true", True), ("False", False), ("1.0", True), ("", None)]
    + [("nan", None), ("NaN", None), ("NULL", None), ("None", None)],
)
@pytest.mark.parametrize("name", ["f.csv", "f.sqlite"])
def test_flags_are_numbers_or_words(tmp_path, name, flag, read_as):
    table = rows().astype({FLAGS[0]: object})
    table.loc[0, FLAGS[0]] = flag
    found = read(write(table, tmp_path / name)).fields[FLAGS[0]]
    assert (None if pd.isna(found[0]) else bool(found[0])) == read_as


@pytest.mark.parametrize("missing", [None, "", "nan", "NULL"])
@pytest.mark.parametrize("column", ["Image_Metadata_Well", "Image_Metadata_Site"])
@pytest.mark.parametrize("name", ["f.csv", "f.sqlite", "f.parquet"])
def test_rows_without_a_well_or_a_site_are_left_out_and_counted(tmp_path, name, column, missing):
    nowhere = rows().astype(object).iloc[[0, 1, 4]].assign(**{column: missing})
    table = pd.concat([nowhere, rows().astype(object)])
    if name == "f.parquet":  # which has a type for each column
        table["Image_Metadata_Site"] = table["Image_Metadata_Site"].astype("string")
    found = read(write(table, tmp_path / name))
    check(found)
    assert found.without_place == 2  # the third is of another plate


def test_a_wrong_well_after_rows_without_one_is_told_with_its_own_number(tmp_path):
    table = rows().astype(object)
    table.loc[[0, 2], "Image_Metadata_Well"] = [None, "x"]
    with pytest.raises(InputError, match="row 3: Image_Metadata_Well is 'x', not a well"):
        read(write(table, tmp_path / "f.csv"))


def other_table(path):
    with sqlite3.connect(path) as base:
        base.execute("create table Cells (a)")
    base.close()


def test_a_database_without_the_table_names_those_that_there_are(tmp_path):
    other_table(tmp_path / "f.sqlite")
    with pytest.raises(InputError, match="f.sqlite: has no table Image; it has Cells$"):
        read(tmp_path / "f.sqlite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="Image_Metadata_Well"), "has no column of the well: Image_Meta"),
        (
            lambda t: t.drop(columns=FLAGS[0]),
            f"has no column {FLAGS[0]}; it has {FLAGS[1]}; correct published_flags.columns",
        ),
        (lambda t: t.assign(**{FLAGS[1]: 2}), f"row 1: {FLAGS[1]} is '2', neither 0, 1, true"),
        (lambda t: t.assign(Image_Metadata_Well="x"), "row 1: Image_Metadata_Well is 'x', not a w"),
        (lambda t: t.assign(Image_Metadata_Site="s1"), "row 1: Image_Metadata_Site is 's1', not a"),
        (lambda t: pd.concat([t, t.head(1)]), "field 1001 A01 1 is listed twice; keep one row"),
        (
            lambda t: t.assign(Image_Metadata_Plate="01001"),
            "no row is of a field of the screen; the first row is of plate, well, site "
            "'01001 A01 1', the first field of the screen is '1001 A01 1': use the same names; "
            "'1001' is '01001' without its leading zeros",
        ),
        (
            lambda t: t.head(0),
            "has no row with a well and a site; give a table with a row",
        ),
    ],
    ids=["place", "flag", "value", "well", "site", "twice", "spelling", "empty"],
)
@pytest.mark.parametrize("name", ["f.csv", "f.sqlite"])
def test_wrong_tables_are_refused_in_one_line(tmp_path, name, change, message):
    path = write(change(rows()), tmp_path / name)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["f.csv", "f.sqlite", "f.parquet"])
def test_a_missing_table_is_said_with_the_key_to_correct(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: no such table of published flags; correct pub"):
        read(tmp_path / name)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "f.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match=r"f.sqlite: cannot be read as SQLite \([^;]*\)$"):
        read(tmp_path / "f.sqlite")


def in_wal(path):
    """Write a database whose last flag is only in the `-wal` beside it; return what holds it."""
    with sqlite3.connect(write(rows(), path)) as base:
        base.execute("pragma journal_mode=wal")
    base.execute("pragma wal_autocheckpoint=0")
    base.execute(f"update Image set {FLAGS[0]} = 1 where ImageNumber = 4")
    base.commit()
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    return base


def test_what_is_still_in_the_wal_beside_a_database_counts(tmp_path):
    with closing(in_wal(tmp_path / "f.sqlite")):
        assert read(tmp_path / "f.sqlite").fields[FLAGS[0]].tolist() == [True, False, False, True]


def test_a_database_whose_wal_cannot_be_read_is_told_with_what_to_do(tmp_path):
    in_wal(tmp_path / "f.sqlite").close()
    (tmp_path / "f.sqlite-wal").mkdir()
    with pytest.raises(InputError, match="f.sqlite: cannot be read as SQLite .*; close the prog"):
        read(tmp_path / "f.sqlite")


def test_a_database_that_a_program_is_writing_is_told_with_what_to_do(tmp_path):
    with closing(apsw.Connection(str(write(rows(), tmp_path / "f.sqlite")))) as base:
        base.execute("begin exclusive")
        base.execute("create table Other (a)")  # the journal is beside the file from now on
        with pytest.raises(InputError, match="f.sqlite: .*locked.*; close the program") as error:
            read(tmp_path / "f.sqlite")
    assert "\n" not in str(error.value)


def test_names_of_columns_are_no_sql(tmp_path):
    evil = 'x" from Image; drop table Image; --'
    path = write(rows().rename(columns={FLAGS[0]: evil}), tmp_path / "f.sqlite")
    assert read(path, flags=[evil]).fields[evil][0]


@pytest.mark.server
@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.parquet", "f.sqlite"])
def test_a_table_at_a_url_gives_the_same_flags(tmp_path, s3, name):
    path = write(rows(), tmp_path / name)
    found = read(f"{s3(tmp_path, 'flags').url}/{name}")
    check(found)
    assert 0 < found.bytes_read <= path.stat().st_size


@pytest.mark.server
def test_of_a_database_at_a_url_only_the_pages_of_its_images_are_read(tmp_path, s3, faults):
    path = write(rows(), tmp_path / "f.sqlite", cells=10_000)
    size = path.stat().st_size
    assert size > 30_000_000
    found = read(f"{s3(tmp_path, 'large').url}/f.sqlite")
    check(found)
    sent = sum(count for place, count in faults.sent.items() if place.endswith("f.sqlite"))
    assert sent == found.bytes_read <= 8 * BLOCK_BYTES < size / 50


@pytest.mark.server
def test_databases_of_several_plates_are_read_at_the_same_time(tmp_path, s3, faults):
    plates = [str(plate) for plate in range(1001, 1013)]
    for plate in plates:
        write(rows(plate=int(plate)), tmp_path / f"{plate}.sqlite", cells=500)
    url = s3(tmp_path, "plates").url
    faults.slow = True
    found = read(f"{url}/{{plate}}.sqlite", plates)
    assert found.fields["Metadata_Plate"].value_counts().to_dict() == dict.fromkeys(plates, 4)
    assert faults.at_once > 4


@pytest.mark.server
def test_a_server_that_refuses_or_has_no_such_file_is_said(tmp_path, s3, faults):
    write(rows(), tmp_path / "f.sqlite")
    url = s3(tmp_path, "refused").url
    with pytest.raises(InputError, match="refused/g.sqlite: no such table of published flags"):
        read(f"{url}/g.sqlite")
    faults.forbidden = ("f.sqlite",)
    with pytest.raises(InputError, match="refused/f.sqlite: its server refuses access"):
        read(f"{url}/f.sqlite")


@pytest.mark.server
def test_a_server_that_breaks_off_is_asked_again(tmp_path, s3, faults):
    write(rows(), tmp_path / "f.sqlite")
    url = s3(tmp_path, "breaks").url
    faults.busy, faults.broken = {"f.sqlite": 2}, {"f.sqlite": 1}
    check(read(f"{url}/f.sqlite"))


@pytest.mark.parametrize(("plates", "minutes", "mb"), [(1, 31, 2010), (406, 166, 6060)])
def test_a_comparison_may_take_longer_and_more_memory_the_more_plates_and_attempts(
    plates, minutes, mb
):
    common = (ROOT / "rules/common.smk").read_text()
    names = {"ceil": ceil, "screen_entry": lambda wildcards: {"plates": [""] * plates}}
    exec(re.search(r"def growing.*?(?=def pick)", common, re.DOTALL)[0], names)
    rule = (ROOT / "rules/qc.smk").read_text().split("rule compare_published_flags")[1]
    for resource, amount in (("runtime", minutes), ("mem_mb", mb)):
        needed = eval(re.search(rf"{resource}=(.*),\n", rule)[1], names)
        assert [needed(None, attempt) for attempt in (1, 2)] == [amount, 2 * amount]
