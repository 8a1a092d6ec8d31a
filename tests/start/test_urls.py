"""The guided start of images at a URL writes the study that the same images on disk would get."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from hcsqc.core.errors import InputError
from hcsqc.screens.layouts import index_plate
from hcsqc.start import preview
from hcsqc.start.find import find_screen
from hcsqc.start.folder import GivenFolder
from scripts.qc import filter_load_data
from scripts.start import new_study
from tests.conftest import Project
from tests.screens.image_server import files_app, serving
from tests.screens.ngff import write_plate
from tests.start import made_sets
from tests.start.test_new_study import (
    DEFAULTS,
    UUID,
    indexed,
    loaddata,
    pixels,
    simple,
    write_images,
    written,
)

# They start servers.
pytestmark = pytest.mark.server
CHANNELS = ("DAPI", "GFP", "RFP")


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """Spare most tests the drawing and the reading of config.yaml."""
    monkeypatch.setattr(preview, "draw_preview", lambda *_: None)
    monkeypatch.setattr(new_study, "defaults", lambda: DEFAULTS)


def entry_of(text):
    return yaml.safe_load(text)["screens"]["mine"]


def gets(faults, part):
    return {
        path: n for (method, path), n in faults.asked.items() if method == "GET" and part in path
    }


def test_a_bucket_gets_the_study_of_the_same_folder(tmp_path, s3, faults, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mykey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mysecret")
    write_images(tmp_path / "s", simple, CHANNELS, plates=("P1", "P2"))
    url = s3(tmp_path / "s", "whole")
    text = written(url, tmp_path)
    out = capsys.readouterr().out
    assert f"listing:  {url}\n          48 files in 3 folders\n" in out
    assert re.search(r"reading:  24 images of 8 fields, 1\.\d MB", out)
    assert re.search(r"download: 3\.\d MB, not counted in this time", out)
    (tmp_path / "my_study.yaml").unlink()
    on_disk = entry_of(written(tmp_path / "s", tmp_path))
    assert on_disk.pop("images") == f"{tmp_path}/s/{{plate}}"
    at_url = entry_of(text)
    assert at_url.pop("images") == f"{url}/{{plate}}"
    assert at_url == on_disk
    assert [len(fields) for fields in indexed(text).values()] == [8, 8]
    # Each image is downloaded once, although it is read for range, outlines and preview.
    assert len(gets(faults, ".tif")) == 24 and set(gets(faults, ".tif").values()) == {1}
    assert faults.signed and "mysecret" not in text + out and "mykey" not in text + out


def test_named_plates_spare_the_listing_of_others(tmp_path, s3, faults):
    write_images(
        tmp_path / "s",
        lambda plate, *rest: f"run/{simple(plate, *rest)}",
        CHANNELS,
        plates=("P1", "P2", "P3"),
        sites=(1,),
    )
    url = s3(tmp_path / "s", "some")
    found = find_screen(url, plates=["P2"])
    assert (str(found.source.images), found.plates) == (f"{url}/run/{{plate}}", ["P2"])
    lists = sum(faults.asked.values())
    assert lists == 5  # of the folder, of run, of P2, and the first files of P1 and P3
    with pytest.raises(InputError, match="--plates: .* has no plate P9; there are: P1, P2, P3"):
        find_screen(url, plates=["P2", "P9"])


def test_named_plates_keep_the_tables_beside_them(tmp_path, s3):
    paths = write_images(tmp_path / "s", simple, CHANNELS, plates=("P1", "P2", "P3"))
    (tmp_path / "s" / "tables").mkdir()
    rows = loaddata(paths, lambda path: path.parent.name)
    rows.to_csv(tmp_path / "s/tables/load_data.csv", index=False)
    for place in (tmp_path / "s", s3(tmp_path / "s", "tables")):
        found = find_screen(place, plates=["P1", "P2"])
        assert (found.source.layout, found.plates) == ("loaddata", ["P1", "P2"])
        assert str(found.source.table) == f"{place}/tables/load_data.csv"
        folder = GivenFolder(place, plates=["P1", "P2"])
        assert not any(image.startswith("P3") for image in folder.images)


@pytest.mark.parametrize("table", ["local", "in the bucket", "in the folder"])
def test_a_loaddata_table_with_urls_is_read(tmp_path, s3, faults, table):
    paths = write_images(tmp_path / "s" / "images", simple, ("DNA", "ER", "AGP"))
    rows = loaddata(paths, lambda path: f"s3://gallery/{table[-6:]}/images/{path.parent.name}/")
    (tmp_path / "local").mkdir()
    for folder in ("s", "local"):
        rows.to_csv(tmp_path / folder / "load_data.csv", index=False)
    url = s3(tmp_path / "s", table[-6:])
    local = tmp_path / "local" / "load_data.csv"
    given = {"local": local, "in the bucket": url / "load_data.csv", "in the folder": url}[table]
    text = written(given, tmp_path)
    entry = entry_of(text)
    assert entry["table"] == str(local if table == "local" else url / "load_data.csv")
    assert entry["images"] == f"{url}/images/P1" and entry["layout"] == "loaddata"
    assert entry["composite"] == ["OrigAGP", "OrigER", "OrigDNA"]
    assert indexed(text)["P1"]["problem"].isna().tolist() == [True] * 8
    assert faults.signed == 0


@pytest.mark.dag
def test_the_study_of_a_table_at_a_url_can_be_planned_and_its_table_filtered(
    tmp_path, s3, monkeypatch
):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER", "AGP"))
    loaddata(paths, lambda path: path.parent.name).to_csv(tmp_path / "s/load_data.csv", index=False)
    url = s3(tmp_path / "s", "planned")
    written(url / "load_data.csv", tmp_path)
    project = Project(tmp_path / "project")
    done = project.run(
        "--dry-run", "qc", "--cores", "1", "--configfile", tmp_path / "my_study.yaml"
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "filter_load_data" in done.stdout
    bad = pd.DataFrame({"Metadata_Plate": ["P1"], "Metadata_Well": ["B02"], "bad": [True]})
    bad.to_csv(tmp_path / "wells.csv", index=False)
    bad.assign(Metadata_Site=1, bad=False).to_csv(tmp_path / "fields.csv", index=False)
    words = [filter_load_data.__file__, "--table", url / "load_data.csv", "--plate", "P1"]
    words += ["--channels", "DNA", "ER", "AGP"]
    for name, file in (("wells", "wells.csv"), ("fields", "fields.csv"), ("output", "out.csv")):
        words += [f"--{name}", tmp_path / file]
    words += ["--record", tmp_path / "run.json"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    filter_load_data.main()
    assert set(pd.read_csv(tmp_path / "out.csv")["Metadata_Well"]) == {"B03", "C02", "C03"}


def test_a_table_of_relative_paths_stands_for_its_own_folder(tmp_path, s3):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER"))
    rows = loaddata(paths, lambda path: f"./{path.parent.name}")
    rows.to_csv(tmp_path / "s/LoadData.csv", index=False)
    url = s3(tmp_path / "s", "relative")
    text = written(url / "LoadData.csv", tmp_path)
    assert entry_of(text)["images"] == str(url) and len(indexed(text)["P1"]) == 8


def test_paths_that_leave_the_folder_of_their_table_are_found_below_the_one_above(tmp_path, s3):
    paths = write_images(tmp_path / "s" / "images", simple, ("DNA", "ER"))
    (tmp_path / "s" / "tables").mkdir()
    rows = loaddata(paths, lambda path: f"../images/{path.parent.name}")
    rows.to_csv(tmp_path / "s/tables/load_data.csv", index=False)
    for place in (tmp_path / "s", s3(tmp_path / "s", "beside")):
        found = find_screen(place)
        assert (found.source.images, found.source.table_prefix) == (place, "..")
        assert len(index_plate(found.source, "own", "P1")[0]) == 8


def test_a_web_server_needs_a_table(tmp_path, faults):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER"))
    with serving(faults.wrap(files_app(tmp_path / "s"))) as url:
        rows = loaddata(paths, lambda path: f"{url}/{path.parent.name}")
        rows.to_csv(tmp_path / "s" / "load_data.csv", index=False)
        text = written(f"{url}/load_data.csv", tmp_path)
        assert entry_of(text)["images"] == f"{url}/P1" and len(indexed(text)["P1"]) == 8
        with pytest.raises(InputError, match="a web server cannot be asked which images it has"):
            find_screen(url)
        elsewhere = loaddata(paths, lambda path: f"{url}/elsewhere")
        elsewhere.to_csv(tmp_path / "s" / "moved.csv", index=False)
        with pytest.raises(InputError, match="moved.csv: its images are neither at the listed pat"):
            find_screen(f"{url}/moved.csv")


@pytest.mark.parametrize("prefix", ["bbbc", ""])
def test_bbbc022_in_a_bucket_is_known_by_its_folders_and_csv(tmp_path, s3, prefix):
    def name(plate, well, site, channel):
        return f"BBBC022_v1_images_{plate}w{channel}/IXMtest_{well}_s{site}_w{channel}{UUID}.tif"

    write_images(tmp_path / "s", name, (1, 4, 5), ("20585",), sites=(1,))
    columns = ("PlateID", "CPD_WELL_POSITION", "ASSAY_WELL_ROLE", "SOURCE_COMPOUND_NAME",
               "CPD_MMOL_CONC")  # fmt: skip
    row = dict.fromkeys([f"Image_Metadata_{column}" for column in columns], "x")
    rows = [row | {f"Image_Metadata_{columns[0]}": "20585", f"Image_Metadata_{columns[1]}": "B02"}]
    pd.DataFrame(rows).to_csv(tmp_path / "s" / "BBBC022_v1_image.csv", index=False)
    url = s3(tmp_path / "s", prefix, "bbbc")
    text = written(url, tmp_path)
    entry = entry_of(text)
    assert (entry["layout"], entry["image_csv"]) == ("bbbc022", f"{url}/BBBC022_v1_image.csv")
    fields = indexed(text)["20585"].set_index("well")
    assert fields.loc["B02", "compound"] == "x" and len(fields) == 4


def test_bbbc022_in_a_bucket_without_its_csv_says_so(tmp_path, s3):
    name = f"BBBC022_v1_images_1w1/IXMtest_B02_s1_w1{UUID}.tif"
    write_images(tmp_path / "s", lambda *_: name, (1,), ("1",), sites=(1,))
    with pytest.raises(InputError, match="but no CSV there or in the folder above has the col"):
        find_screen(s3(tmp_path / "s", "", "without-csv"))


def test_a_source_directly_in_a_bucket_is_not_taken_for_the_gallerys(tmp_path, s3):
    made_sets.jump(tmp_path / "g")
    for table in (tmp_path / "g").rglob("*.csv"):
        table.write_text(table.read_text().replace("s3://cellpainting-gallery/cpg0016-jump/", "/"))
    url = s3(tmp_path / "g/cpg0016-jump", "", "proj") / "source_4"
    found = find_screen(url)
    assert (found.source.layout, found.plates) == ("loaddata", ["BR00117035"])
    assert str(found.source.images).startswith("s3://proj")
    with pytest.raises(InputError, match="is no source of the Cell Painting Gallery"):
        find_screen(url, "cell_painting_gallery")


@pytest.mark.parametrize("given", ["", "P1.zarr"])
def test_an_ome_zarr_plate_in_a_bucket_is_found_without_listing_its_chunks(
    tmp_path, s3, faults, given
):
    field = np.stack([pixels(1), pixels(0), pixels(2)])
    images = {well: [field] for well in ("A/1", "A/2", "B/1", "B/2")}
    write_plate(tmp_path / "s/P1.zarr", images, labels=("ER", "DNA", "AGP"), axes="cyx", chunk=200)
    url = s3(tmp_path / "s", "zarr")
    found = find_screen(url / given)
    assert not any("/A/1/0/0" in path for path in gets(faults, "prefix"))
    assert (str(found.source.images), found.source.layout) == (str(url), "ome_zarr")
    text = written(url / given, tmp_path)
    assert entry_of(text)["channels"] == ["ER", "DNA", "AGP"] and len(indexed(text)["P1"]) == 4


def test_a_source_of_the_gallery_is_known_and_needs_plates(tmp_path, s3, faults):
    made_sets.jump(tmp_path / "g")
    url = s3(tmp_path / "g", "copy")
    source = url / "cpg0016-jump/source_4"
    with pytest.raises(InputError, match=f"give one of its sources, such as {source}, with --plat"):
        find_screen(url)
    with pytest.raises(InputError, match="has 1 plates; choose some by --plates.* BR00117035"):
        find_screen(source)
    faults.asked.clear()
    text = written(source, tmp_path, "--plates", "BR00117035")
    entry = entry_of(text)
    assert (entry["project"], entry["source"]) == ("cpg0016-jump", "source_4")
    assert entry["images"] == str(url) and entry["nucleus_channel"] == "OrigDNA"


def test_what_is_not_there_is_said_in_one_line(tmp_path, s3):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.txt").write_text("x")
    url = s3(tmp_path / "s", "empty")
    for place, message in (
        ("s3://no-such-bucket/x", "there is no such bucket; correct the URL"),
        (url, "no images found"),
        (url / "gone", "no images found"),
        (url / "gone.csv", "no such table; correct its URL"),
        ("https://me:secret@host/x", "holds a user or password"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            written(place, tmp_path)
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
