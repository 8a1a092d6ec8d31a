"""The layout of the Cell Painting Gallery: tables found by its rules, and their known faults."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core.errors import InputError
from hcsqc.screens.images.read import read_field
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.layouts import Source, index_plate, list_channels, list_plates

PROJECT, CHANNELS = "cpg0016-jump", ("OrigDNA", "OrigMito")


def gallery(root, plates=("BR1", "BR2"), batch="2021_04_26_Batch1", ending=".csv", **columns):
    """Make plates in the layout of the bucket; `columns` replace those of every table."""
    for plate in plates:
        images = f"{PROJECT}/source_4/images/{batch}/images/{plate}__2021-Measurement1/Images"
        (root / images).mkdir(parents=True)
        rows = []
        for site in (1, 2, 3):
            row = {"Metadata_Plate": plate, "Metadata_Well": "A01", "Metadata_Site": site}
            for number, channel in enumerate(CHANNELS, 1):
                name = f"r01c01f{site:02d}p01-ch{number}sk1fk1fl1.tiff"
                tifffile.imwrite(root / images / name, np.full((6, 7), site * number, np.uint16))
                row |= {f"FileName_{channel}": name}
                row |= {f"PathName_{channel}": f"s3://cellpainting-gallery/{images}/"}
            rows.append(row)
        table = root / f"{PROJECT}/source_4/workspace/load_data_csv/{batch}/{plate}"
        table.mkdir(parents=True)
        written = pd.DataFrame(rows).assign(**columns)
        if ending == ".parquet":
            written.to_parquet(table / "load_data.parquet")
        else:
            written.to_csv(table / f"load_data{ending}", index=False)
    return root


def source(root, batch=None):
    return Source(
        "cell_painting_gallery", root, CHANNELS, project=PROJECT, source="source_4", batch=batch
    )


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_a_plate_is_found_by_project_and_source(tmp_path, ending):
    root = gallery(tmp_path, ending=ending)
    assert list_plates(source(root)) == ["BR1", "BR2"]
    assert list_channels(source(root)) == sorted(CHANNELS)
    fields, _ = index_plate(source(root), "jump", "BR2")
    assert fields["field_id"].tolist() == [f"jump/BR2/A01/s{site}" for site in (1, 2, 3)]
    assert fields["problem"].isna().all()
    read = read_field(root, fields["image_path"][2])
    assert [int(plane[0, 0]) for plane in read.planes] == [3, 6]


def test_a_plate_in_two_batches_needs_the_batch(tmp_path):
    root = gallery(gallery(tmp_path), batch="Batch2", plates=("BR2",))
    with pytest.raises(InputError, match="plate BR2 has several tables.*state batch"):
        index_plate(source(root), "jump", "BR2")
    fields, _ = index_plate(source(root, "Batch2"), "jump", "BR2")
    assert all("/Batch2/" in path for path in fields["image_path"][0])
    assert len(index_plate(source(root), "jump", "BR1")[0]) == 3


def test_what_is_not_there_is_named(tmp_path):
    root = gallery(tmp_path)
    with pytest.raises(InputError, match="no load_data.csv of plate BR9; .*there are: BR1, BR2"):
        index_plate(source(root), "jump", "BR9")
    with pytest.raises(InputError, match="correct project and source"):
        index_plate(source(root / "nothing"), "jump", "BR1")


def test_sites_that_are_no_numbers_come_from_the_file_names(tmp_path, capsys):
    # cpg0030: plate 20585 has the values `20585/` and `IXMtest`, and its wells in another column.
    root = gallery(tmp_path, plates=("20585",), Metadata_Site=["20585/", "IXMtest", 3])
    table = next(root.rglob("load_data.csv"))
    rows = pd.read_csv(table, dtype=str).rename(
        columns={"Metadata_Well": "Metadata_CPD_WELL_POSITION"}
    )
    rows.to_csv(table, index=False)
    fields, _ = index_plate(source(root), "jump", "20585")
    assert fields["site"].tolist() == [1, 2, 3] and fields["problem"].isna().all()
    warning = capsys.readouterr().err
    assert "2 of 3 rows have a Metadata_Site such as '20585/'" in warning


def test_sites_that_differ_from_the_file_names_are_counted(tmp_path, capsys):
    root = gallery(tmp_path, plates=("BR1",), Metadata_Site=[1, 3, 2])
    index_plate(source(root), "jump", "BR1")
    warning = capsys.readouterr().err
    assert "2 of 3 rows have another Metadata_Site" in warning
    assert "first row 2 after the header: 3, but 2 in the name" in warning


def test_right_tables_are_read_without_a_word(tmp_path, capsys):
    index_plate(source(gallery(tmp_path)), "jump", "BR1")
    assert capsys.readouterr() == ("", "")


def test_agp_and_mito_that_are_one_image_are_refused_if_both_are_used(tmp_path):
    # cpg0012
    root = gallery(tmp_path, plates=("24277",))
    table = next(root.rglob("load_data.csv"))
    rows = pd.read_csv(table)
    rows["FileName_OrigMito"] = rows["FileName_OrigDNA"]
    rows.to_csv(table, index=False)
    with pytest.raises(InputError, match="channels OrigDNA and OrigMito are one image") as caught:
        index_plate(source(root), "cdrp", "24277")
    assert str(table) in str(caught.value)
    alone = Source("cell_painting_gallery", root, ("OrigDNA",), project=PROJECT, source="source_4")
    assert len(index_plate(alone, "cdrp", "24277")[0]) == 3


@pytest.mark.server
def test_a_table_at_a_url_is_named_by_its_url(tmp_path, s3):
    url = s3(gallery(tmp_path, Metadata_Well="nowhere"), "mirror")
    table = f"{url}/{PROJECT}/source_4/workspace/load_data_csv/2021_04_26_Batch1/BR1/load_data.csv"
    with pytest.raises(InputError) as caught:
        index_plate(source(url), "jump", "BR1")
    assert str(caught.value).startswith(f"screen jump: {table}: row 1 after the header")


@pytest.mark.server
def test_plates_are_read_from_the_bucket(tmp_path, s3):
    url = s3(gallery(tmp_path, ending=".parquet"), "bucket")
    assert folder_at(str(url)) == url and list_plates(source(url)) == ["BR1", "BR2"]
    fields, _ = index_plate(source(url), "jump", "BR1")
    read = read_field(url, fields["image_path"][1])
    assert [int(plane[0, 0]) for plane in read.planes] == [2, 4]
