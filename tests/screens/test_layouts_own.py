"""Plates of any make without code: a LoadData table, a pattern of file names, OME-Zarr plates."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core import patience
from hcsqc.core.errors import InputError
from hcsqc.core.places import parse_well, well_name
from hcsqc.core.schema import read_table, write_table
from hcsqc.screens.images.ngff import distinct_names
from hcsqc.screens.images.read import read_field
from hcsqc.screens.layouts import Source, index_plate, list_channels, list_plates
from hcsqc.screens.layouts.base import files_below
from tests.conftest import ROOT
from tests.screens.ngff import write_group, write_image, write_plate

unhurried = settings(deadline=None)


def put(path, size=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def refusal(source, plate="P1"):
    """Return why a plate is refused: one line that names the screen."""
    with pytest.raises(InputError) as caught:
        index_plate(source, "own", plate)
    message = str(caught.value)
    assert message.startswith("screen own: ") and "\n" not in message
    return message.removeprefix("screen own: ")


def problems(fields):
    return [problem if isinstance(problem, str) else None for problem in fields["problem"]]


def ids(fields):
    return fields["field_id"].tolist()


def pixels(seed, shape=(8, 9)):
    return np.random.default_rng(seed).integers(1, 4000, shape).astype("uint16")


# Wells.


@pytest.mark.parametrize(
    ("text", "well"),
    [("a1", "A01"), ("A01", "A01"), ("A001", "A01"), ("p24", "P24"), ("AF48", "AF48"),
     (" B2 ", "B02"), ("Z9", "Z09"), ("AV72", "AV72"), ("A0", None), ("A73", None), ("AW1", None),
     ("BA1", None), ("1A", None), ("", None), ("A", None), ("A-1", None), ("well 3", None)],
)  # fmt: skip
def test_wells_are_written_in_one_way(text, well):
    assert parse_well(text) == well


@given(row=st.integers(1, 48), column=st.integers(1, 72))
def test_rows_may_be_numbers_or_letters(row, column):
    numbered = well_name(f"{row:02d}", f"{column:03d}")
    assert parse_well(numbered) == numbered
    letters = numbered.rstrip("0123456789")
    assert well_name(letters.lower(), str(column)) == numbered
    # Spreadsheets count so too.
    assert sum(26**i * (ord(c) - 64) for i, c in enumerate(reversed(letters))) == row


# LoadData.

GALLERY = "s3://cellpainting-gallery/cpg0016-jump/source_4/images/"


def gallery_rows(plate="P1", wells=("A01", "B02"), sites=(1, 2), channels=("OrigDNA", "OrigER")):
    """Return rows as the gallery's load_data.csv has them."""
    return [
        {
            "Metadata_Plate": plate,
            "Metadata_Well": well,
            "Metadata_Site": str(site),
            **{f"FileName_{channel}": f"{well}_{site}_{channel}.tiff" for channel in channels},
            **{f"PathName_{channel}": f"{GALLERY}{plate}/Images/" for channel in channels},
        }
        for well in wells
        for site in sites
    ]


def write_rows(path, rows):
    table = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path


def gallery(tmp_path, rows=None, name="load_data.csv", **changes):
    """Write a table and the images of P1; return the screen's source."""
    for row in gallery_rows():
        for channel in ("OrigDNA", "OrigER"):
            put(tmp_path / "images/P1/Images" / row[f"FileName_{channel}"], len(channel))
    table = write_rows(tmp_path / name, gallery_rows() if rows is None else rows)
    source = Source("loaddata", tmp_path / "images", ("OrigDNA", "OrigER"), None, table, GALLERY)
    return replace(source, **changes)


@pytest.mark.parametrize("name", ["load_data.csv", "load_data.csv.gz", "load_data.parquet"])
def test_gallery_table_is_indexed(tmp_path, name):
    other = gallery_rows("P2", wells=("C03",))
    fields, strangers = index_plate(gallery(tmp_path, [*gallery_rows(), *other], name), "own", "P1")
    assert ids(fields) == [f"own/P1/{well}/s{site}" for well in ("A01", "B02") for site in (1, 2)]
    assert fields["image_path"][3] == [
        "P1/Images/B02_2_OrigDNA.tiff",
        "P1/Images/B02_2_OrigER.tiff",
    ]
    assert fields["image_page"][3] == [None, None] and fields["image_bytes"][3] == [7, 6]
    assert fields["problem"].isna().all() and fields["role"].isna().all() and strangers == []
    write_table(fields, tmp_path / "fields.parquet", "fields")
    assert len(read_table(tmp_path / "fields.parquet", "fields")) == 4


def test_columns_that_pandas_took_for_the_index_are_read(tmp_path):
    source = gallery(tmp_path)
    table = tmp_path / "indexed.parquet"
    pd.DataFrame(gallery_rows()).set_index(["Metadata_Plate", "Metadata_Well"]).to_parquet(table)
    fields, _ = index_plate(source, "own", "P1")
    again, _ = index_plate(replace(source, table=table), "own", "P1")
    pd.testing.assert_frame_equal(again, fields)


def test_columns_of_an_exported_image_csv_are_known(tmp_path):
    rows = [{f"Image_{key}": value for key, value in row.items()} for row in gallery_rows()]
    source = gallery(tmp_path, rows)
    fields, _ = index_plate(source, "own", "P1")
    assert len(fields) == 4 and fields["problem"].isna().all()
    assert list_plates(source) == ["P1"] and list_channels(source) == ["OrigDNA", "OrigER"]


@pytest.mark.parametrize("value", ["a1", "A001", "A1"])
def test_wells_and_sites_of_the_table_are_written_in_one_way(tmp_path, value):
    rows = [row | {"Metadata_Well": value, "Metadata_Site": 1.0} for row in gallery_rows()[:1]]
    for name in ("a.csv", "a.parquet"):
        fields, _ = index_plate(gallery(tmp_path, rows, name), "own", "P1")
        assert ids(fields) == ["own/P1/A01/s1"]


def test_numbers_as_plates_are_text(tmp_path):
    rows = [row | {"Metadata_Plate": 20585} for row in gallery_rows()]
    for name in ("a.csv", "a.parquet"):
        source = gallery(tmp_path, rows, name)
        assert list_plates(source) == ["20585"]
        assert len(index_plate(source, "own", "20585")[0]) == 4


def test_paths_may_be_relative_absolute_windows_or_urls(tmp_path):
    images = tmp_path / "images"
    relative = {"PathName_OrigDNA": "P1\\Images", "PathName_OrigER": f"{images}/P1/Images"}
    rows = [row | relative for row in gallery_rows()]
    fields, _ = index_plate(gallery(tmp_path, rows, table_prefix=None), "own", "P1")
    assert fields["problem"].isna().all()
    prefixed = {
        "PathName_OrigDNA": r"D:\screens\P1\Images",
        "PathName_OrigER": "D:/screens/P1/Images/",
    }
    rows = [row | prefixed for row in gallery_rows()]
    fields, _ = index_plate(gallery(tmp_path, rows, table_prefix="D:\\screens"), "own", "P1")
    assert fields["problem"].isna().all()
    rows = [
        {key: value for key, value in row.items() if "Name_" not in key}
        | {"URL_OrigDNA": f"file:{images}/P1/Images/{row['FileName_OrigDNA']}".replace("A", "%41")}
        | {"URL_OrigER": f"{GALLERY}P1/Images/{row['FileName_OrigER']}"}
        for row in gallery_rows()
    ]
    fields, _ = index_plate(gallery(tmp_path, rows), "own", "P1")
    assert fields["problem"].isna().all()


def test_table_without_paths_names_files_below_the_folder(tmp_path):
    rows = [
        {key: value for key, value in row.items() if not key.startswith("PathName")}
        for row in gallery_rows()
    ]
    source = gallery(tmp_path, rows, images=tmp_path / "images/{plate}/Images")
    fields, _ = index_plate(source, "own", "P1")
    assert fields["image_path"][0] == ["A01_1_OrigDNA.tiff", "A01_1_OrigER.tiff"]
    assert fields["problem"].isna().all()


@pytest.mark.parametrize(
    "path", ["/elsewhere/P1", "s3://another/P1", "D:\\P1", "../P1", "s3://cellpainting-gallery2/P1"]
)
def test_path_outside_the_folder_says_what_to_set(tmp_path, path):
    rows = [row | {"PathName_OrigER": path} for row in gallery_rows()]
    for prefix in (None, "s3://cellpainting-gallery"):
        message = refusal(gallery(tmp_path, rows, table_prefix=prefix))
        assert "does not lie below" in message and "set table_prefix of the screen" in message
        assert ("does not start with table_prefix" in message) == (prefix is not None)


@pytest.mark.parametrize("url", ["https://me:hidden@srv.org/P1", "HTTPS://srv.org/P1?sig=hidden"])
def test_a_secret_in_a_path_is_refused_without_repeating_it(tmp_path, url):
    rows = [row | {"PathName_OrigDNA": url} for row in gallery_rows()]
    message = refusal(gallery(tmp_path, rows, table_prefix=url))
    assert "srv.org/P1" in message and "holds a password or signature" in message
    assert "hidden" not in message


def test_missing_file_is_the_fields_problem(tmp_path):
    source = gallery(tmp_path)
    (tmp_path / "images/P1/Images/A01_2_OrigER.tiff").unlink()
    fields, _ = index_plate(source, "own", "P1")
    assert problems(fields) == [
        None,
        "no image of channel OrigER: P1/Images/A01_2_OrigER.tiff",
        None,
        None,
    ]
    assert fields["image_path"][1] == ["P1/Images/A01_2_OrigDNA.tiff", None]
    assert fields["image_bytes"][1] == [7, None]


def test_empty_cells_and_repeated_rows_are_the_fields_problem(tmp_path):
    rows = gallery_rows()
    rows[0]["FileName_OrigER"] = ""
    for name in ("a.csv", "a.parquet"):
        rows[1]["FileName_OrigER"] = None
        fields, _ = index_plate(gallery(tmp_path, [*rows, rows[3]], name), "own", "P1")
        assert problems(fields) == [
            "no image of channel OrigER",
            "no image of channel OrigER",
            None,
            "2 images of channel OrigDNA; 2 images of channel OrigER",
        ]


def test_rows_with_more_cells_than_columns_are_not_shifted(tmp_path):
    source = gallery(tmp_path)
    lines = source.table.read_text().splitlines()
    source.table.write_text("\n".join([lines[0], *(line + ",more,and more" for line in lines[1:])]))
    fields, _ = index_plate(source, "own", "P1")
    assert len(fields) == 4 and fields["problem"].isna().all()


def test_treatments_of_a_table_are_those_of_its_wells(tmp_path):
    treated = {"Metadata_Compound": "Taxol", "Metadata_Role": "Compound"}
    of_well = {"A01": treated | {"Metadata_Concentration_uM": "0.5"}, "B02": {}}
    rows = [row | of_well[row["Metadata_Well"]] for row in gallery_rows()]
    for name in ("a.csv", "a.parquet"):
        fields, _ = index_plate(gallery(tmp_path, rows, name), "own", "P1")
        assert fields["compound"].tolist()[:2] == ["Taxol"] * 2 and fields["role"][1] == "compound"
        assert fields["concentration_um"][0] == 0.5
        assert fields[["role", "compound", "concentration_um"]][2:].isna().all(axis=None)
    rows[1] = rows[1] | {"Metadata_Compound": "DMSO"}
    expected = "row 2 after the header: well A01 has compound, DMSO, 0.5, but compound, Taxol, 0.5"
    assert expected in refusal(gallery(tmp_path, rows))


def test_frames_are_pages_counted_from_0(tmp_path):
    stack = np.stack([pixels(seed) for seed in range(3)])
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/A01.tif", stack, photometric="minisblack")
    row = {"Metadata_Plate": "P1", "Metadata_Well": "A1", "Metadata_Site": 1}
    for frame, channel in enumerate(("DNA", "ER", "AGP")):
        row |= {f"FileName_{channel}": "A01.tif", f"Frame_{channel}": frame, f"Series_{channel}": 0}
    for name in ("a.csv", "a.parquet"):
        table = write_rows(tmp_path / name, [row])
        source = Source("loaddata", tmp_path / "images", ("AGP", "DNA"), None, table)
        fields, _ = index_plate(source, "own", "P1")
        assert fields["image_page"][0] == [2, 0]
        field = read_field(tmp_path / "images", fields["image_path"][0], fields["image_page"][0])
        np.testing.assert_array_equal(field.planes, stack[[2, 0]])
    table = write_rows(tmp_path / "b.csv", [row | {"Series_DNA": 2}])
    fields, _ = index_plate(replace(source, table=table), "own", "P1")
    assert fields["problem"][0].startswith("Series_DNA is 2, but only the first image")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Metadata_Well": "X99"}, "row 2 after the header: Metadata_Well 'X99' is not a well"),
        ({"Metadata_Site": "one"}, "row 2 after the header: Metadata_Site 'one' is not a whole"),
        ({"Frame_OrigER": "x"}, "row 2 after the header: Frame_OrigER 'x' is not a whole number"),
    ],
)
def test_wrong_cell_is_named_by_row_and_column(tmp_path, change, message):
    rows = gallery_rows()
    rows[1] |= change
    rows = [dict.fromkeys(change, "1") | row for row in rows]
    assert message in refusal(gallery(tmp_path, rows))


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ({"File": "a.tif"}, {"File": "a.tif"}, True),
        ({"File": "a.tif", "Frame": "0"}, {"File": "a.tif", "Frame": "0"}, True),
        ({"File": "a.tif", "Frame": "1"}, {"File": "a.tif"}, True),
        ({"File": "a.tif"}, {"File": "./a.tif", "Frame": "1"}, True),
        ({"File": "a.tif", "Frame": "0"}, {"File": "a.tif", "Frame": "1.0"}, False),
        ({"File": "a.tif"}, {"File": "b.tif"}, False),
    ],
)
def test_two_channels_of_one_image_are_refused_with_the_row(tmp_path, first, second, refused):
    row = dict(
        zip(("Metadata_Plate", "Metadata_Well", "Metadata_Site"), ("P1", "A1", "2"), strict=True)
    )
    for channel, told in (("AGP", first), ("Mito", second)):
        row |= {f"FileName_{channel}": told["File"], f"Frame_{channel}": told.get("Frame", "")}
    good = row | {"Metadata_Site": "1", "FileName_AGP": "c.tif", "FileName_Mito": "d.tif"}
    for name in ("a.tif", "b.tif", "c.tif", "d.tif"):
        put(tmp_path / name)
    table = write_rows(tmp_path / "a.csv", [good, row])
    source = Source("loaddata", tmp_path, ("AGP", "Mito"), None, table)
    if refused:
        expected = "row 2 after the header: channels AGP and Mito are one image, a.tif; correct the"
        assert expected in refusal(source)
    else:
        assert problems(index_plate(source, "own", "P1")[0]) == [None, None]


def test_one_image_of_two_fields_is_refused_with_both_rows(tmp_path):
    rows = gallery_rows()
    rows[3]["FileName_OrigER"] = rows[0]["FileName_OrigER"]
    expected = (
        "row 4 after the header: P1/Images/A01_1_OrigER.tiff is an image of A01 site 1 too (r"
    )
    assert expected in refusal(gallery(tmp_path, rows))


def test_a_row_without_a_plate_is_named(tmp_path):
    rows = gallery_rows()
    rows[2]["Metadata_Plate"] = None
    for name in ("a.csv", "a.parquet"):
        message = refusal(gallery(tmp_path, rows, name))
        assert message.endswith("row 3 after the header: Metadata_Plate is empty")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_letters_of_utf_8_are_read_with_and_without_its_mark(tmp_path, encoding):
    rows = [row | {"FileName_OrigER": "é.tif"} for row in gallery_rows()[:1]]
    source = gallery(tmp_path, rows)
    source.table.write_bytes(source.table.read_text(encoding="utf-8").encode(encoding))
    assert problems(index_plate(source, "own", "P1")[0]) == [
        "no image of channel OrigER: P1/Images/é.tif"
    ]


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", "is not in UTF-8"),
        ("cp1252", "is not in UTF-8"),
        ("utf-16", "is in UTF-16"),
        ("utf-16-le", "is in UTF-16"),
    ],
)
def test_another_encoding_is_named_with_what_to_do(tmp_path, encoding, message):
    rows = [row | {"FileName_OrigER": "é.tif"} for row in gallery_rows()]
    source = gallery(tmp_path, rows)
    source.table.write_bytes(source.table.read_text(encoding="utf-8").encode(encoding))
    told = refusal(source)
    assert message in told and "save it as CSV in UTF-8 with commas" in told


def test_semicolons_between_columns_are_named(tmp_path):
    source = gallery(tmp_path)
    source.table.write_text(source.table.read_text().replace(",", ";"))
    assert "has semicolons between the columns; save it as CSV" in refusal(source)


@pytest.mark.parametrize("column", ["Metadata_Plate", "Metadata_Well", "Metadata_Site"])
def test_missing_column_is_named(tmp_path, column):
    rows = [{key: row[key] for key in row if key != column} for row in gallery_rows()]
    for name in ("a.csv", "a.parquet"):
        message = refusal(gallery(tmp_path, rows, name))
        assert f"{name}: no column '{column}'; did you mean 'Metadata_" in message
        assert "Is it a LoadData table?" in message


def test_unknown_channel_and_plate_are_answered_with_near_names(tmp_path):
    message = refusal(gallery(tmp_path, channels=("origdna", "OrigER")))
    assert "plate P1 has no channel 'origdna'; did you mean 'OrigDNA'?" in message
    assert "there are: OrigDNA, OrigER. Correct channels of the screen" in message
    message = refusal(gallery(tmp_path), "P11")
    assert "no row of plate P11 in Metadata_Plate; did you mean 'P1'?" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "gone.csv: no such table; correct table of the screen"),
        ("gone.parquet", None, "gone.parquet: no such table"),
        ("a.csv", b"", "a.csv: cannot be read as CSV"),
        ("a.csv", b"\xff\xfe\x00junk", "a.csv: "),
        ("a.parquet", b"PAR1 no", "a.parquet: cannot be read as Parquet"),
        ("folder.csv", "folder", "folder.csv: cannot be read as CSV"),
    ],
)
def test_table_that_cannot_be_read_is_named(tmp_path, name, content, message):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    source = Source("loaddata", tmp_path, ("DNA",), None, tmp_path / name)
    assert message in refusal(source)


def test_tables_per_plate_are_found_by_their_path(tmp_path):
    for plate in ("P2", "P1"):
        (tmp_path / "tables" / plate).mkdir(parents=True)
        write_rows(tmp_path / "tables" / plate / "load_data.csv", gallery_rows(plate))
    (tmp_path / "tables" / "empty").mkdir()
    source = gallery(tmp_path, table=tmp_path / "tables/{plate}/load_data.csv")
    assert list_plates(source) == ["P1", "P2"]
    assert list_channels(source) == ["OrigDNA", "OrigER"]
    assert len(index_plate(source, "own", "P1")[0]) == 4


# Folders.


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    put(tmp_path / "P1/a/B02.tif")
    scandir = os.scandir

    def refused(path):
        if os.fspath(path).endswith("P1/a"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    source = Source("files", tmp_path / "{plate}", ("c1",), pattern=r".*(?P<well>B02)\.tif")
    expected = f"{tmp_path}/P1/a: permission denied; make it readable for this account"
    assert refusal(source) == expected


def test_links_that_lead_in_circles_end(tmp_path):
    """However many they are: each folder links to all others and to itself."""
    names = [f"f{number}" for number in range(9)]
    for name in names:
        put(tmp_path / "images" / name / f"{name}.tif")
        for other in names:
            (tmp_path / "images" / name / f"to_{other}").symlink_to(tmp_path / "images" / other)
        (tmp_path / "images" / name / "up").symlink_to("..")
        (tmp_path / "images" / name / "far_up").symlink_to(tmp_path)
        (tmp_path / "images" / name / "itself").symlink_to("itself")
    found = list(files_below(tmp_path / "images"))
    real = {f"{name}/{name}.tif" for name in names}
    direct = {f"{a}/to_{b}/{b}.tif" for a in names for b in names if a != b}
    assert real | direct <= set(found) and len(found) == len(set(found)) < 1000


def test_a_link_to_another_disk_is_followed(tmp_path):
    put(tmp_path / "elsewhere/deep/B02.tif")
    (tmp_path / "images").mkdir()
    for name in ("P1", "P2"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/gone").symlink_to(tmp_path / "nowhere")
    assert list(files_below(tmp_path / "images")) == ["gone", "P1/deep/B02.tif", "P2/deep/B02.tif"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("layout", ["files", "bbbc022", "ome_zarr"])
def test_a_plate_that_cannot_be_listed_is_not_gone(tmp_path, monkeypatch, number, layout):
    """Neither as a plate, nor its wells, whatever is asked and whoever asks."""
    put(tmp_path / "P1.zarr/.zgroup")
    monkeypatch.setattr(patience, "WAITS_S", (0.0,))
    for name in ("scandir", "listdir", "stat"):
        real = getattr(os, name)

        def fails(path, *args, _real=real, **kwargs):
            if os.fspath(path).startswith(str(tmp_path)):
                raise OSError(number, os.strerror(number), os.fspath(path))
            return _real(path, *args, **kwargs)

        monkeypatch.setattr(os, name, fails)
    source = Source(layout, tmp_path / "{plate}", ("w1",), pattern=r"(?P<well>B02)\.tif")
    for ask in (
        lambda: list_plates(source),
        lambda: list_plates(replace(source, images=tmp_path, pattern="(?P<plate>)(?P<well>B02)")),
        lambda: index_plate(source, "own", "P1"),
    ):
        with pytest.raises(InputError, match=f"{tmp_path}[^:]*: (permission denied|cannot be re)"):
            ask()


def test_hidden_plates_are_none(tmp_path):
    for name in ("P1.zarr/.zgroup", "._P1.zarr", "P2/B02.tif", "._P2", ".DS_Store"):
        put(tmp_path / name)
    assert list_plates(Source("ome_zarr", tmp_path, ())) == ["P1"]
    source = Source("files", tmp_path / "{plate}", ("c1",), pattern=r"(?P<well>B02)\.tif")
    assert list_plates(source) == ["P1.zarr", "P2"]


# Files by pattern.

IMAGEXPRESS = (
    r"(?:.*/)?(?P<plate>[^/]+)_(?P<well>[A-P]\d\d)_s(?P<site>\d+)"
    r"_w(?P<channel>\d)[0-9A-F-]{36}\.tif"
)
OPERA = (
    r"Images/r(?P<row>\d\d)c(?P<column>\d\d)f(?P<site>\d\d)p01-ch(?P<channel>\d+)sk1fk1fl1\.tiff"
)
YOKOGAWA = (
    r"(?P<plate>[^/]+)/.*_(?P<well>[A-P]\d\d)_T0001F(?P<site>\d{3})"
    r"L01A\d\dZ01C(?P<channel>\d\d)\.tif"
)
UUID = "64FBEEF7-F77C-4892-86F5-72D0160D4FB2"


def own_files(images, pattern, channels, *names):
    for name in names:
        put(images / name, len(name))
    return Source("files", images, channels, pattern=pattern)


def test_imagexpress_is_indexed(tmp_path):
    names = [
        f"2020-01-01/7/TimePoint_1/P1_{well}_s{site}_w{channel}{UUID}.tif"
        for well in ("B02", "A10")
        for site in (1, 2)
        for channel in (1, 2, 3)
    ]
    thumb = f"2020-01-01/7/TimePoint_1/P1_A10_s1_w1_thumb{UUID}.tif"
    source = own_files(tmp_path, IMAGEXPRESS, ("1", "3"), *names, thumb, "2020-01-01/7/P1.HTD")
    fields, strangers = index_plate(source, "own", "P1")
    assert ids(fields) == [f"own/P1/{well}/s{site}" for well in ("A10", "B02") for site in (1, 2)]
    assert fields["image_path"][0] == [names[6], names[8]]
    assert fields["image_bytes"][0] == [len(names[6])] * 2
    assert fields["problem"].isna().all() and strangers == [thumb]
    assert list_plates(source) == ["P1"] and list_channels(source) == ["1", "2", "3"]


def test_opera_phenix_is_indexed(tmp_path):
    names = [
        f"Images/r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
        for row, column in ((1, 2), (16, 24), (32, 1))
        for site in (1, 9)
        for channel in (1, 2)
    ]
    folder = "P1__2020-11-08T18_18_00-Measurement1"
    plane = f"{folder}/Images/r01c02f01p02-ch1sk1fk1fl1.tiff"
    source = own_files(tmp_path, OPERA, ("2", "1"), plane, *(f"{folder}/{name}" for name in names))
    source = replace(source, images=tmp_path / "{plate}")
    fields, strangers = index_plate(source, "own", folder)
    wells = fields["well"].tolist()
    assert wells == ["A02", "A02", "AF01", "AF01", "P24", "P24"]
    assert fields["site"].tolist() == [1, 9] * 3
    assert fields["image_path"][0] == [names[1], names[0]]
    assert strangers == ["Images/r01c02f01p02-ch1sk1fk1fl1.tiff"]
    assert list_plates(source) == [folder] and list_channels(source) == ["1", "2"]


def test_yokogawa_is_indexed(tmp_path):
    names = [
        f"{plate}/AssayPlate_Greiner_B02_T0001F{site:03d}L01A0{channel}Z01C0{channel}.tif"
        for plate in ("P2", "P1")
        for site in (1, 2)
        for channel in (1, 2)
    ]
    correction = "P1/DC_sCMOS_CAM1.tif"
    source = own_files(tmp_path, YOKOGAWA, ("01", "02"), *names, correction)
    fields, strangers = index_plate(source, "own", "P1")
    assert ids(fields) == ["own/P1/B02/s1", "own/P1/B02/s2"]
    assert fields["image_path"][1] == names[6:]
    assert strangers == [correction]
    assert list_plates(source) == ["P1", "P2"] and list_channels(source) == ["01", "02"]


def test_pages_are_the_channels_where_no_group_names_them(tmp_path):
    stack = np.stack([pixels(seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "B02.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "B03.tif", stack[:2], photometric="minisblack")
    source = Source("files", tmp_path, ("DNA", "ER", "AGP"), pattern=r"(?P<well>[A-H]\d\d)\.tif")
    fields, _ = index_plate(source, "own", "P1")
    assert ids(fields) == ["own/P1/B02/s1", "own/P1/B03/s1"]
    assert fields["image_path"][0] == ["B02.tif"] * 3 and fields["image_page"][0] == [None] * 3
    field = read_field(tmp_path, fields["image_path"][0], fields["image_page"][0])
    np.testing.assert_array_equal(field.planes, stack)
    picked = read_field(
        tmp_path, fields["image_path"][0], fields["image_page"][0], None, source.channels, [2, 0]
    )
    np.testing.assert_array_equal(picked.planes, stack[[2, 0]])
    message = "B03.tif: has 2 pages without a description, but 3 channels of the screen"
    with pytest.raises(Exception, match=message):
        read_field(tmp_path, fields["image_path"][1], fields["image_page"][1])
    assert list_channels(replace(source, images=tmp_path / "{plate}")) == []


def test_a_file_with_one_channel_may_be_a_z_stack(tmp_path):
    stack = np.stack([pixels(seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "B02.tif", stack, photometric="minisblack")
    source = Source("files", tmp_path, ("DNA",), pattern=r"(?P<well>[A-H]\d\d)\.tif")
    fields, _ = index_plate(source, "own", "P1")
    assert fields["image_page"][0] == [None]
    field = read_field(tmp_path, fields["image_path"][0], fields["image_page"][0], "max")
    np.testing.assert_array_equal(field.planes[0], stack.max(axis=0))


def test_two_files_for_one_channel_and_a_missing_one_are_the_problem(tmp_path):
    pattern = r"(?:copy/)?(?P<well>\w\d)_(?P<channel>\w+)\.png"
    names = ["A1_a.png", "A1_b.png", "copy/A1_b.png", "A2_a.png"]
    source = own_files(tmp_path, pattern, ("a", "b"), *names)
    fields, _ = index_plate(source, "own", "P1")
    assert problems(fields) == ["2 images of channel b", "no image of channel b"]


def test_strangers_are_images_only_and_sites_may_be_left_out(tmp_path):
    pattern = r"(?P<well>[A-H]\d)(?:_s(?P<site>\d+))?\.ome\.tif"
    names = ["A1.ome.tif", "A2_s3.ome.tif", "A3.tif", "b.png", "c.TIFF", "notes.txt", "Z9.ome.tif"]
    fields, strangers = index_plate(own_files(tmp_path, pattern, ("DNA",), *names), "own", "P1")
    assert ids(fields) == ["own/P1/A01/s1", "own/P1/A02/s3"]
    assert strangers == ["A3.tif", "Z9.ome.tif", "b.png", "c.TIFF"]


def test_a_number_too_large_for_a_site_places_no_image(tmp_path):
    names = "A01_1_a.tif", "A01_20240101123456_a.tif"
    pattern = r"(?P<well>[A-H]\d\d)_(?P<site>\d+)_(?P<channel>\w)\.tif"
    fields, strangers = index_plate(own_files(tmp_path, pattern, ("a",), *names), "own", "P1")
    assert fields["site"].tolist() == [1] and strangers == [names[1]]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "pattern ( is not a regular expression"),
        (r"(?P<channel>\d)\.tif", r"needs a group (?P<well>...), or (?P<row>...) and"),
        (r"(?P<row>\d)\.tif", r"needs a group (?P<well>...), or (?P<row>...) and"),
        (r"(?P<well>.+)_(?P<chanel>\d)\.tif", "unknown group 'chanel'; did you mean 'channel'?"),
        (r"(?P<well>.+)_(?P<z>\d)\.tif", "planes in separate files are not supported (group z)"),
        (
            r"(?P<well>[A-H]\d\d)_(?P<channel>\d)\.png",
            r"no file matches pattern (?P<well>[A-H]\d\d)_(?P<channel>\d)\.png says; files "
            "there: A01_1.tif, A02_1.tif, A03_1.tif and 2 more",
        ),
        (r"(?P<well>nowhere)", "files there: A01_1.tif"),
    ],
)
def test_wrong_pattern_is_shown_with_what_is_there(tmp_path, pattern, message):
    names = [f"A0{number}_1.tif" for number in range(1, 6)]
    assert message in refusal(own_files(tmp_path, pattern, ("1",), *names))


def test_unknown_channel_plate_and_folder_are_named(tmp_path):
    pattern = r"(?P<plate>\w+)/(?P<well>\w\d\d)_(?P<channel>\w+)\.tif"
    source = own_files(tmp_path, pattern, ("DAPI",), "P1/A01_dapi.tif", "P2/A01_dapi.tif")
    assert "has no channel 'DAPI'; did you mean 'dapi'?" in refusal(source)
    assert "no image of plate P3; there are: P1, P2" in refusal(source, "P3")
    gone = replace(source, images=tmp_path / "gone")
    assert refusal(gone) == f"{tmp_path / 'gone'}: no such folder; correct images of the screen"


def test_plates_need_a_name_from_somewhere(tmp_path):
    source = own_files(tmp_path / "P1", r"(?P<well>\w\d\d)\.tif", ("DNA",), "A01.tif")
    with pytest.raises(
        InputError, match="the plates cannot be identified; put {plate} into images"
    ):
        list_plates(source)
    assert list_plates(replace(source, images=tmp_path / "{plate}")) == ["P1"]
    assert list_plates(replace(source, images=tmp_path / "gone" / "{plate}")) == []


def test_folders_with_the_plate_twice_in_their_path_are_listed(tmp_path):
    for name in ("run_P1/P1_images", "run_P2/P2_images", "run_P3/P4_images", "other"):
        (tmp_path / name).mkdir(parents=True)
    source = Source("files", tmp_path / "run_{plate}/{plate}_images", (), pattern="(?P<well>.*)")
    assert list_plates(source) == ["P1", "P2"]


# OME-Zarr.

LABELS = ("DNA", "ER")


def own_zarr(tmp_path, zarr_format=2, name="P1.zarr", **options):
    """Write a plate of two fields in A/1 and one in B/12; return its source and its pixels."""
    images = {
        "B/12": [pixels(3, (2, 8, 9))],
        "A/1": [pixels(1, (2, 8, 9)), pixels(2, (2, 8, 9))],
    }
    options = {"labels": LABELS, "axes": "cyx"} | options
    write_plate(tmp_path / name, images, zarr_format=zarr_format, **options)
    return Source("ome_zarr", tmp_path, ("ER", "DNA")), images


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["P1.zarr", "P1.ome.zarr"])
def test_ome_zarr_plate_is_indexed_and_read(tmp_path, zarr_format, name):
    source, images = own_zarr(tmp_path, zarr_format, name)
    fields, strangers = index_plate(source, "own", "P1")
    assert ids(fields) == ["own/P1/A01/s1", "own/P1/A01/s2", "own/P1/B12/s1"]
    assert fields["image_path"][1] == [f"{name}/A/1/1"] * 2
    assert fields["image_page"].tolist() == [[1, 0]] * 3 and strangers == []
    stored = [path for path in (tmp_path / name / "A/1/1").rglob("*") if path.is_file()]
    assert fields["image_bytes"][1] == [sum(path.stat().st_size for path in stored)] * 2
    assert fields["problem"].isna().all()
    field = read_field(tmp_path, fields["image_path"][1], fields["image_page"][1])
    np.testing.assert_array_equal(field.planes, images["A/1"][1][::-1])
    assert list_plates(source) == ["P1"] and list_channels(source) == ["DNA", "ER"]
    write_table(fields, tmp_path / "fields.parquet", "fields")


def test_the_folder_may_be_the_zarr_itself(tmp_path):
    source, _ = own_zarr(tmp_path, name="run_P1.zarr")
    source = replace(source, images=tmp_path / "run_{plate}.zarr")
    fields, _ = index_plate(source, "own", "P1")
    assert fields["image_path"][0] == ["A/1/0"] * 2
    assert list_plates(source) == ["P1"]


def test_channels_without_labels_are_numbered(tmp_path):
    source, _ = own_zarr(tmp_path, labels=None)
    assert list_channels(source) == ["c0", "c1"]
    fields, _ = index_plate(replace(source, channels=("c1",)), "own", "P1")
    assert fields["image_page"][0] == [1]
    message = refusal(source)
    assert "plate P1 has no channel 'ER'; there are: c0, c1. Correct channels" in message


def test_missing_and_damaged_fields_and_wells_are_their_problem(tmp_path):
    source, _ = own_zarr(tmp_path)
    (tmp_path / "P1.zarr/A/1/0/.zattrs").write_text("{")
    (tmp_path / "P1.zarr/B/12/.zattrs").write_text(json.dumps({"well": {}}))
    write_group(tmp_path / "P1.zarr", {"plate": {"wells": [
        {"path": "A/1"}, {"path": "B/12"}, {"path": "C/3"}]}})  # fmt: skip
    fields, _ = index_plate(source, "own", "P1")
    assert ids(fields) == [f"own/P1/{place}" for place in ("A01/s1", "A01/s2", "B12/s1", "C03/s1")]
    found = problems(fields)
    assert found[0].startswith("P1.zarr/A/1/0: .zattrs is damaged")
    assert found[1] is None
    assert found[2] == "well P1.zarr/B/12: has no NGFF well metadata with images"
    assert found[3].startswith("well P1.zarr/C/3: has no OME-Zarr metadata")
    assert fields["image_path"][0] == [None, None]


def test_field_that_lacks_a_channel_is_its_problem(tmp_path):
    source, _ = own_zarr(tmp_path)
    shutil.rmtree(tmp_path / "P1.zarr/A/1/1")
    write_image(tmp_path / "P1.zarr/A/1/1", pixels(4, (1, 8, 9)), "cyx", ("DNA",))
    fields, _ = index_plate(source, "own", "P1")
    assert problems(fields) == [None, "no image of channel ER", None]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "has no NGFF plate metadata with wells; is it a plate?"),
        ({"plate": []}, "has no NGFF plate metadata with wells"),
        ({"plate": {"wells": [{}]}}, "has no NGFF plate metadata with wells"),
        ({"plate": {"wells": [{"path": "somewhere"}]}}, "'somewhere' is not a well such as A/1"),
        ({"plate": {"wells": []}}, "no field of the plate can be read"),
        ({"plate": {"wells": [{"path": "A/1"}]}}, "first: well P1.zarr/A/1: has no OME-Zarr"),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_damaged_plate_is_refused(tmp_path, metadata, message, zarr_format):
    write_group(tmp_path / "P1.zarr", metadata, zarr_format)
    text = refusal(Source("ome_zarr", tmp_path, LABELS))
    assert "P1.zarr" in text and message in text


@pytest.mark.parametrize("name", ["zarr.json", ".zattrs"])
@pytest.mark.parametrize(
    "content", ["{", "[]", '"text"', '{"attributes": 3}', '{"attributes": {"ome": []}}', "\x00\xff"]
)
def test_metadata_of_any_damage_are_one_line(tmp_path, name, content):
    source, _ = own_zarr(tmp_path)
    (tmp_path / "P1.zarr" / name).write_text(content)
    assert "P1.zarr" in refusal(source)
    write_group(tmp_path / "P2.zarr", {"plate": {"wells": [{"path": "A/1"}]}})
    put(tmp_path / "P2.zarr/A/1" / name).write_text(content)
    assert "P2.zarr" in refusal(source, "P2")


def test_missing_plate_says_where_it_was_looked_for(tmp_path):
    source, _ = own_zarr(tmp_path)
    message = refusal(source, "P2")
    assert f"looked for Zarr groups at {tmp_path}, {tmp_path}/P2.zarr" in message


# The scripts.


def run_script(*words):
    command = [sys.executable, *(str(word) for word in words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_scripts_list_and_index_plates_of_any_make(tmp_path):
    names = [f"P1/r01c01f01p01-ch{channel}sk1fk1fl1.tiff" for channel in (1, 2)]
    own_files(tmp_path, OPERA, (), *(f"images/{name}" for name in names))
    pattern = OPERA.replace("Images/", "")
    words = ["--layout", "files", "--images", tmp_path / "images/{plate}", "--pattern", pattern]
    done = run_script("scripts/screens/list_plates.py", *words)
    assert done.stdout == 'plates: ["P1"]\nchannels: ["1", "2"]\n', done.stderr
    output = ["--output", tmp_path / "fields.parquet", "--record", tmp_path / "run.json"]
    words += ["--screen", "own", "--plate", "P1", *output]
    done = run_script("scripts/screens/index_plate.py", *words, "--channels", "1", "2")
    assert done.returncode == 0 and done.stderr == ""
    assert ids(read_table(tmp_path / "fields.parquet", "fields")) == ["own/P1/A01/s1"]
    done = run_script("scripts/screens/index_plate.py", *words, "--channels", "3")
    assert done.returncode == 1
    assert done.stderr == (
        "error: screen own: plate P1 has no channel '3'; there are: 1, 2. Correct channels of the "
        "screen\n"
    )


def test_script_says_what_a_layout_needs(tmp_path):
    done = run_script(
        "scripts/screens/list_plates.py", "--layout", "loaddata", "--images", tmp_path
    )
    assert done.returncode == 2 and "layout loaddata needs --table" in done.stderr
    words = ["--layout", "loaddata", "--images", tmp_path, "--table", tmp_path / "gone.csv"]
    done = run_script("scripts/screens/list_plates.py", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'gone.csv'}: no such table")


def test_the_same_channel_name_twice_gets_a_number_and_each_is_its_own_plane(tmp_path):
    image = np.stack([pixels(seed) for seed in range(4)])
    labels = ("DAPI", "HOECHST 33342", "DAPI", "DAPI")
    write_plate(tmp_path / "P1.zarr", {"A/1": [image]}, labels=labels, axes="cyx")
    source = Source("ome_zarr", tmp_path, ("DAPI_2", "DAPI", "HOECHST 33342"))
    assert list_channels(source) == ["DAPI", "HOECHST 33342", "DAPI_2", "DAPI_3"]
    fields, _ = index_plate(source, "own", "P1")
    assert problems(fields) == [None] and fields["image_page"][0] == [2, 0, 1]


@given(st.lists(st.sampled_from(["a", "b", "a_2", "a_3", "c0"]), max_size=8))
def test_distinct_names_are_distinct_and_keep_those_that_are(names):
    found = distinct_names(names)
    assert len(set(found)) == len(found) == len(names)
    assert all(
        new == old or new.startswith(f"{old}_") for new, old in zip(found, names, strict=True)
    )
    assert set(names) <= set(found)
