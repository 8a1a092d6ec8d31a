"""From file names and the image CSV to the fields of a plate."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hcsqc.core import config_model
from hcsqc.core.config import CHANNELS
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.screens.layouts import (
    LAYOUTS,
    Source,
    bbbc021,
    bbbc022,
    index_plate,
    list_channels,
    list_plates,
)
from hcsqc.screens.layouts.bbbc import ImageName, parse_name
from tests.conftest import EXAMPLE, ROOT

META = "Image_Metadata_"
FILE_NAMES = {"bbbc022": bbbc022.FILE_NAME, "bbbc021": bbbc021.FILE_NAME}


def source(layout, images, image_csv=None):
    return Source(layout, images, tuple(CHANNELS[layout]), image_csv)


def uuid(number):
    return f"{number:08X}-F77C-4892-86F5-72D0160D4FB2"


def put(path, size=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def make_bbbc022(images, plate="20585", wells=("A01", "A02"), sites=(1, 2)):
    """Make files of one byte per channel number; return them by (well, site, channel)."""
    files = {}
    for well in wells:
        for site in sites:
            for channel in range(1, 6):
                name = f"IXMtest_{well}_s{site}_w{channel}{uuid(len(files))}.tif"
                folder = images / f"BBBC022_v1_images_{plate}w{channel}"
                files[well, site, channel] = put(folder / name, channel)
    return files


def row022(well="A01", plate="20585", role="compound", compound="NIFLUMIC ACID", level="8.858"):
    return {
        "Image_FileName_OrigER": "e.tif",
        META + "ASSAY_WELL_ROLE": role,
        META + "CPD_MMOL_CONC": level,
        META + "CPD_WELL_POSITION": well,
        META + "PlateID": plate,
        META + "SOURCE_COMPOUND_NAME": compound,
        META + "Site": "1",
    }


def row021(well="B02", plate="Week4_27481", compound="taxol", level="0.300000"):
    return {
        META + "Plate_DAPI": plate,
        META + "Well_DAPI": well,
        META + "Compound": compound,
        META + "Concentration": level,
    }


def write_csv(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def index022(tmp_path, rows=None, plate="20585"):
    image_csv = write_csv(tmp_path / "image.csv", rows or [row022()])
    return index_plate(source("bbbc022", tmp_path / "images", image_csv), "BBBC022", plate)


@pytest.mark.parametrize(
    ("layout", "name", "expected"),
    [
        (
            "bbbc022",
            "IXMtest_A01_s1_w164FBEEF7-F77C-4892-86F5-72D0160D4FB2.tif",
            ImageName("A01", 1, "w1"),
        ),
        (
            "bbbc022",
            "IXMtest_P24_s9_w5C1DA9287-9509-42B8-8A21-802601F0C435.tif",
            ImageName("P24", 9, "w5"),
        ),
        (
            "bbbc021",
            "G10_s1_w43CD51CBC-2370-471F-BA01-EE250B14B3C8.tif",
            ImageName("G10", 1, "w4"),
        ),
        (
            "bbbc021",
            "Week1_150607_C10_s1_w29DCB015C-38C2-41D2-A798-2E87A861AF7A.tif",
            ImageName("C10", 1, "w2"),
        ),
        (
            "bbbc021",
            "Week7_7__G10_s1_w1764DD241-DCA8-435B-A37E-11ACB918BCA3.tif",
            ImageName("G10", 1, "w1"),
        ),
        (
            "bbbc021",
            "Week8_4sites_F10_s4_w4FCCE569A-5ADD-4EA9-AC51-E188B8680631.tif",
            ImageName("F10", 4, "w4"),
        ),
    ],
)
def test_real_names_are_placed(layout, name, expected):
    assert parse_name(FILE_NAMES[layout], name) == expected


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("bbbc022", "IXMtest_A01_s1_w664FBEEF7-F77C-4892-86F5-72D0160D4FB2.tif"),
        ("bbbc022", "IXMtest_Q01_s1_w164FBEEF7-F77C-4892-86F5-72D0160D4FB2.tif"),
        ("bbbc022", "IXMtest_A01_s1_w164FBEEF7-F77C-4892-86F5-72D0160D4FB2_thumb.tif"),
        ("bbbc022", "IXMtest_A01_s1_w1.tif"),
        ("bbbc022", "A01_s1_w164FBEEF7-F77C-4892-86F5-72D0160D4FB2.tif"),
        ("bbbc021", "G10_s1_w33CD51CBC-2370-471F-BA01-EE250B14B3C8.tif"),
        ("bbbc021", "XG10_s1_w13CD51CBC-2370-471F-BA01-EE250B14B3C8.tif"),
        ("bbbc021", "Week1_150607_C10_s1_w29DCB015C-38C2-41D2-A798-2E87A861AF7A.tif.part"),
    ],
)
def test_other_names_are_not_placed(layout, name):
    assert parse_name(FILE_NAMES[layout], name) is None


def test_real_fields_of_bbbc022_are_indexed():
    images, image_csv = EXAMPLE / "images", EXAMPLE / "image.csv"
    real = Source("bbbc022", images, ("w1", "w4", "w5"), image_csv)
    fields, strangers = index_plate(real, "BBBC022", "20585")
    assert strangers == [] and fields["problem"].isna().all()
    places = [(f"A0{number}", site) for number in range(1, 5) for site in (1, 2)]
    assert set(places) <= set(zip(fields["well"], fields["site"], strict=True))
    assert fields["compound"][0] == "NIFLUMIC ACID"
    assert fields["concentration_um"][0] == pytest.approx(8.858401198)
    stored = pd.read_csv(image_csv).set_index("Image_FileName_OrigHoechst")
    assert all(Path(paths[0]).name in stored.index for paths in fields["image_path"])
    assert list_plates(real) == ["20585"]


def test_plate_is_listed_by_file_name(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    fields, strangers = index022(tmp_path)
    assert fields["field_id"].tolist() == [
        f"BBBC022/20585/{well}/s{site}" for well in ("A01", "A02") for site in (1, 2)
    ]
    for row in fields.itertuples():
        expected = [files[row.well, row.site, channel] for channel in range(1, 6)]
        assert [tmp_path / "images" / path for path in row.image_path] == expected
        assert row.image_bytes == [1, 2, 3, 4, 5]
        assert row.image_page == [None] * 5
    assert fields["problem"].isna().all() and strangers == []


def test_index_fits_the_table_of_fields(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    files["A01", 1, 3].unlink()
    fields, _ = index022(tmp_path)
    write_table(fields, tmp_path / "fields.parquet", "fields")
    back = read_table(tmp_path / "fields.parquet", "fields")
    assert back["image_path"][0][2] is None
    assert back["problem"].isna().tolist() == [False, True, True, True]


def test_missing_channels_are_listed_as_the_problem(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    files["A02", 1, 2].unlink()
    files["A02", 1, 5].unlink()
    fields, _ = index022(tmp_path)
    row = fields.set_index("field_id").loc["BBBC022/20585/A02/s1"]
    assert row["problem"] == "no image of channel w2; no image of channel w5"
    assert [path is None for path in row["image_path"]] == [False, True, False, False, True]
    assert row["image_bytes"] == [1, None, 3, 4, None]
    assert fields["problem"].isna().sum() == 3


def test_doubled_channel_is_listed_as_the_problem(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    twin = files["A01", 2, 4].name.replace(uuid(8), uuid(999))
    put(files["A01", 2, 4].with_name(twin))
    fields, _ = index022(tmp_path)
    row = fields.set_index("field_id").loc["BBBC022/20585/A01/s2"]
    assert row["problem"] == "2 images of channel w4"
    assert row["image_path"][3] is None


def test_strangers_are_returned_and_other_files_ignored(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    folder = files["A01", 1, 1].parent
    for name in ("notes.txt", "Thumbs.db", "IXMtest_A01.tif", "overview.TIFF"):
        put(folder / name)
    fields, strangers = index022(tmp_path)
    assert len(fields) == 4
    assert strangers == ["IXMtest_A01.tif", "overview.TIFF"]


def test_whole_channel_folder_may_be_missing(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    for (_, _, channel), path in files.items():
        if channel == 5:
            path.unlink()
    files["A01", 1, 5].parent.rmdir()
    fields, _ = index022(tmp_path)
    assert fields["problem"].tolist() == ["no image of channel w5"] * 4


def test_channels_that_were_not_downloaded_may_be_left_out(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    for (_, _, channel), path in files.items():
        if channel in (2, 3):
            path.unlink()
    image_csv = write_csv(tmp_path / "image.csv", [row022()])
    some = Source("bbbc022", tmp_path / "images", ("w1", "w4", "w5"), image_csv)
    fields, _ = index_plate(some, "BBBC022", "20585")
    assert fields["problem"].isna().all()
    assert [len(paths) for paths in fields["image_path"]] == [3] * 4


def test_plate_without_images_is_named_with_its_folders(tmp_path):
    make_bbbc022(tmp_path / "images")
    with pytest.raises(InputError, match="plate 20586 has no images") as error:
        index022(tmp_path, plate="20586")
    message = str(error.value)
    assert str(tmp_path / "images" / "BBBC022_v1_images_20586w1") in message
    assert message.startswith("screen BBBC022: ") and "Correct images of the screen" in message


@pytest.mark.parametrize("folder", ["Week4_27481", "Week4/Week4_27481"])
def test_bbbc021_lies_flat_or_by_week(tmp_path, folder):
    for channel in (1, 2, 4):
        put(tmp_path / "images" / folder / f"B02_s3_w{channel}{uuid(channel)}.tif", channel)
        other = f"Week4/Week4_27481/Week1_150607_C03_s4_w{channel}{uuid(channel)}.tif"
        put(tmp_path / "images" / other, channel)
    image_csv = write_csv(tmp_path / "image.csv", [row021()])
    fields, _ = index_plate(source("bbbc021", tmp_path / "images", image_csv), "mcf", "Week4_27481")
    assert fields["field_id"].tolist() == ["mcf/Week4_27481/B02/s3", "mcf/Week4_27481/C03/s4"]
    assert fields["image_bytes"].tolist() == [[1, 2, 4]] * 2
    assert fields["image_path"][0][2] == f"{folder}/B02_s3_w4{uuid(4)}.tif"


def test_treatments_are_joined_by_plate_and_well(tmp_path):
    make_bbbc022(tmp_path / "images", wells=("A01", "A02", "A03", "B01"))
    rows = [
        row022("A01"),
        row022("A02", role="MOCK", compound="", level=""),
        row022("b01", level="not known"),
        row022("A03", plate="20586", compound="of another plate"),
    ]
    fields, _ = index022(tmp_path, rows)
    by_well = fields[fields["site"] == 1].set_index("well")
    assert by_well["role"].to_dict() | {"A03": None} == {
        "A01": "compound",
        "A02": "mock",
        "A03": None,
        "B01": "compound",
    }
    assert by_well["compound"].isna().to_dict() == {
        "A01": False,
        "A02": True,
        "A03": True,
        "B01": False,
    }
    assert by_well["concentration_um"]["A01"] == 8.858
    assert by_well["concentration_um"][["A02", "A03", "B01"]].isna().all()


def test_treatments_of_bbbc021_know_the_mock(tmp_path):
    for well in ("B02", "B03"):
        put(tmp_path / "images" / "Week4_27481" / f"{well}_s1_w1{uuid(1)}.tif")
    rows = [row021("B02"), row021("B03", compound="DMSO", level="0.000000")]
    image_csv = write_csv(tmp_path / "image.csv", rows)
    fields, _ = index_plate(source("bbbc021", tmp_path / "images", image_csv), "mcf", "Week4_27481")
    assert fields["role"].tolist() == ["compound", "mock"]
    assert fields["compound"].tolist() == ["taxol", "DMSO"]
    assert fields["concentration_um"].tolist() == [0.3, 0.0]


def test_malformed_rows_of_the_csv_are_skipped(tmp_path):
    make_bbbc022(tmp_path / "images")
    image_csv = write_csv(tmp_path / "image.csv", [row022("A01"), row022("A02")])
    lines = image_csv.read_text().splitlines()
    lines.insert(1, lines[1] + ",one,more")
    lines.insert(3, ",".join(lines[1].split(",")[:3]))
    lines.insert(4, "")
    lines[1] = lines[1].replace("NIFLUMIC ACID", "FALSE NAME")
    image_csv.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    fields, _ = index_plate(source("bbbc022", tmp_path / "images", image_csv), "s", "20585")
    assert fields["compound"].tolist() == ["NIFLUMIC ACID"] * 4


@pytest.mark.parametrize(
    ("well", "plate", "end"),
    [
        ("A1", "20585", ""),
        (" a01", "20585.0", ",,"),
        ("A01 ", " 20585", ","),
        ("a001", "20585", ""),
    ],
)
def test_wells_plates_and_commas_at_the_end_are_read_as_elsewhere(tmp_path, well, plate, end):
    make_bbbc022(tmp_path / "images", wells=("A01",))
    image_csv = write_csv(tmp_path / "image.csv", [row022(well, plate)])
    header, line = image_csv.read_text().splitlines()
    image_csv.write_text(f"{header}\n{',' * header.count(',')}\n{line}{end}\n")
    fields, _ = index_plate(source("bbbc022", tmp_path / "images", image_csv), "s", "20585")
    assert fields["compound"].tolist() == ["NIFLUMIC ACID"] * 2


def test_a_csv_without_the_plate_or_with_a_strange_well_is_named(tmp_path):
    make_bbbc022(tmp_path / "images", plate="0042")
    message = (
        r"image.csv: no row of plate 0042 in .*PlateID; .*42; '42' is '0042' without its leading"
    )
    with pytest.raises(InputError, match=message):
        index022(tmp_path, [row022(plate="42")], plate="0042")
    with pytest.raises(
        InputError, match="image.csv: 'north' of plate 0042 in .*not a well such as"
    ):
        index022(tmp_path, [row022("north", plate="0042")], plate="0042")


def test_missing_csv_is_named(tmp_path):
    make_bbbc022(tmp_path / "images")
    with pytest.raises(InputError, match=r"gone.csv: no such image CSV; correct image_csv"):
        index_plate(source("bbbc022", tmp_path / "images", tmp_path / "gone.csv"), "s", "20585")


@pytest.mark.parametrize("column", ["PlateID", "CPD_WELL_POSITION", "ASSAY_WELL_ROLE"])
def test_csv_of_another_screen_is_refused(tmp_path, column):
    make_bbbc022(tmp_path / "images")
    row = {key: value for key, value in row022().items() if key != META + column}
    with pytest.raises(InputError, match=rf"image.csv: no column '{META}{column}'"):
        index022(tmp_path, [row])


@pytest.mark.parametrize("column", ["SOURCE_COMPOUND_NAME", "CPD_MMOL_CONC"])
def test_csv_without_compound_or_concentration_is_refused(tmp_path, column):
    make_bbbc022(tmp_path / "images")
    row = {key: value for key, value in row022().items() if key != META + column}
    with pytest.raises(InputError, match=rf"image.csv: no column '{META}{column}'"):
        index022(tmp_path, [row])


def test_csv_that_is_not_utf8_is_read_or_refused_by_name(tmp_path):
    make_bbbc022(tmp_path / "images")
    image_csv = write_csv(tmp_path / "image.csv", [row022(compound="β-estradiol é")])
    image_csv.write_bytes(image_csv.read_text().replace("β", "b").encode("latin-1"))
    try:
        fields, _ = index_plate(source("bbbc022", tmp_path / "images", image_csv), "s", "20585")
    except InputError as error:
        assert "image.csv" in str(error)
    else:
        assert fields["compound"][0] == "b-estradiol é"


def test_plates_are_listed_from_the_folders(tmp_path):
    for plate in ("20586", "20585"):
        for channel in range(1, 6):
            (tmp_path / "022" / f"BBBC022_v1_images_{plate}w{channel}").mkdir(parents=True)
    (tmp_path / "022" / "BBBC022_v1_images_urls").mkdir()
    assert list_plates(source("bbbc022", tmp_path / "022")) == ["20585", "20586"]
    for folder in ("Week1/Week1_22123", "Week10_40111", "Week1/Week1_22141", "Week2/old"):
        (tmp_path / "021" / folder).mkdir(parents=True)
    plates = ["Week10_40111", "Week1_22123", "Week1_22141"]
    assert list_plates(source("bbbc021", tmp_path / "021")) == plates


def test_linked_plate_folders_are_listed(tmp_path):
    (tmp_path / "scratch" / "Week1_22123").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "Week1_22123").symlink_to(tmp_path / "scratch" / "Week1_22123")
    assert list_plates(source("bbbc021", tmp_path / "images")) == ["Week1_22123"]


@pytest.mark.parametrize("column", ["Plate_DAPI", "Well_DAPI", "Compound", "Concentration"])
def test_csv_of_another_screen_is_refused_for_bbbc021(tmp_path, column):
    put(tmp_path / "images" / "Week4_27481" / f"B02_s1_w1{uuid(1)}.tif")
    row = {key: value for key, value in row021().items() if key != META + column}
    image_csv = write_csv(tmp_path / "image.csv", [row])
    with pytest.raises(InputError, match=rf"image.csv: no column '{META}{column}'"):
        index_plate(source("bbbc021", tmp_path / "images", image_csv), "mcf", "Week4_27481")


def test_plate_in_the_path_of_images_and_csv_is_replaced(tmp_path):
    files = make_bbbc022(tmp_path / "20585" / "images")
    write_csv(tmp_path / "20585.csv", [row022("A01")])
    holding = source("bbbc022", tmp_path / "{plate}" / "images", tmp_path / "{plate}.csv")
    fields, _ = index_plate(holding, "s", "20585")
    assert fields["compound"][0] == "NIFLUMIC ACID"
    path = files["A01", 1, 1].relative_to(tmp_path / "20585" / "images").as_posix()
    assert fields["image_path"][0][0] == path


def test_layouts_are_those_of_the_config():
    assert tuple(LAYOUTS) == config_model.LAYOUTS
    assert set(CHANNELS) == {"bbbc022", "bbbc021"} < set(LAYOUTS)
    assert list_channels(source("bbbc021", Path("anywhere"))) == ["w1", "w2", "w4"]


# The scripts.


def run_script(*words):
    command = [sys.executable, *(str(word) for word in words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_script_warns_of_strangers_problems_and_a_csv_without_rows(tmp_path):
    files = make_bbbc022(tmp_path / "images")
    files["A02", 1, 3].unlink()
    put(files["A01", 1, 1].with_name("overview.tif"))
    image_csv = tmp_path / "image.csv"
    image_csv.write_text(",".join(row022()) + "\n")
    done = run_script(
        *[
            "scripts/screens/index_plate.py",
            "--screen",
            "s",
            "--plate",
            "20585",
            "--layout",
            "bbbc022",
        ],
        *["--images", tmp_path / "images", "--image-csv", image_csv, "--channels"],
        *["w1", "w2", "w3", "w4", "w5", "--output", tmp_path / "fields.parquet"],
        *["--record", tmp_path / "run.json"],
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "warning: 1 image files of plate 20585 do not match the names of layout bbbc022 and are "
        "ignored, first overview.tif",
        "warning: s/20585/A02/s1: no image of channel w3",
        f"warning: 4 of 4 fields have no row in {image_csv}",
    ]
    assert len(read_table(tmp_path / "fields.parquet", "fields")) == 4
    metrics = json.loads((tmp_path / "run.json").read_text())["metrics"]
    assert metrics == {"fields": 4, "fields_with_problem": 1, "strangers": 1}


def test_script_lists_plates_as_yaml(tmp_path):
    make_bbbc022(tmp_path / "images")
    words = ["scripts/screens/list_plates.py", "--layout", "bbbc022", "--images"]
    done = run_script(*words, tmp_path / "images")
    assert done.stdout == 'plates: ["20585"]\n'
    done = run_script(*words, tmp_path / "elsewhere")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"error: no plate of layout bbbc022 at {tmp_path / 'elsewhere'}\n"
