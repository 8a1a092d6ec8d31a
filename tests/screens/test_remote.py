"""Images at a URL give what the same images on disk give, whatever their server does meanwhile."""

import gc
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile

from hcsqc.core.errors import InputError
from hcsqc.screens.images import local_copies, remote
from hcsqc.screens.images.planes import UnreadableField
from hcsqc.screens.images.read import read_field
from hcsqc.screens.images.remote import RemoteFolder, ahead, folder_at
from hcsqc.screens.layouts import Source, base, index_plate, list_plates
from hcsqc.screens.refresh import other_images
from tests.crops.test_crops import crop, make_plate, planes
from tests.screens.conftest import forget_all
from tests.screens.image_server import files_app, serving
from tests.screens.ngff import write_plate

# They start servers.
pytestmark = pytest.mark.server
CHANNELS = ("DNA", "ER")


def write_loaddata(tmp_path, sites=3, start=""):
    """Write the images of a plate and its LoadData table, whose paths begin with `start`."""
    rows = []
    for site in range(1, sites + 1):
        row = {"Metadata_Plate": "P1", "Metadata_Well": "B02", "Metadata_Site": site}
        for index, channel in enumerate(CHANNELS):
            name = f"s{site} w{index}.tif"
            (tmp_path / "images" / "P1").mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * site + index).integers(0, 4000, (20, 30))
            tifffile.imwrite(tmp_path / "images" / "P1" / name, pixels.astype(np.uint16))
            row |= {f"PathName_{channel}": f"{start}P1/", f"FileName_{channel}": name}
        rows.append(row)
    pd.DataFrame(rows).to_csv(tmp_path / "load_data.csv", index=False)
    return tmp_path / "images"


def read_all(images, table):
    """Index a plate and read all its fields."""
    source = Source("loaddata", images, CHANNELS, table=table)
    fields, strangers = index_plate(source, "own", "P1")
    assert not strangers
    read = [
        read_field(images, row.image_path, row.image_page)
        for row in ahead(fields.itertuples(), images)
    ]
    return fields, read


def check_alike(found, expected):
    (fields, read), (on_disk, read_on_disk) = found, expected
    pd.testing.assert_frame_equal(fields, on_disk)
    for one, other in zip(read, read_on_disk, strict=True):
        assert one.digests == other.digests
        assert [size for size, _ in one.stamps] == [size for size, _ in other.stamps]
        assert all(map(np.array_equal, one.planes, other.planes))


def test_loaddata_with_urls_reads_what_is_on_disk(tmp_path, s3, faults):
    local = write_loaddata(tmp_path, start="s3://gallery/loaddata/")
    found = read_all(s3(local, "loaddata"), tmp_path / "load_data.csv")
    write_loaddata(tmp_path)  # the same images, by paths below their folder
    check_alike(found, read_all(local, tmp_path / "load_data.csv"))
    assert faults.signed == 0  # anonymous without credentials
    gets = {path: n for (method, path), n in faults.asked.items() if path.endswith(".tif")}
    assert len(gets) == 6 and set(gets.values()) == {1}  # each image is asked for once


def test_a_server_that_is_busy_or_breaks_off_costs_nothing(tmp_path, s3, faults):
    local = write_loaddata(tmp_path)
    images = s3(local, "faulty")
    faults.busy = {"s1 w0": 2, "s2 w1": 3}
    faults.broken = {"s3 w0": 2, "s1 w1": 1}
    found = read_all(images, tmp_path / "load_data.csv")
    check_alike(found, read_all(local, tmp_path / "load_data.csv"))
    assert not any(faults.busy.values()) and not any(faults.broken.values())


def test_refused_access_is_said_with_the_remedy(tmp_path, s3, faults):
    images = s3(write_loaddata(tmp_path), "private")
    faults.forbidden = ("s2 w0",)
    with pytest.raises(InputError, match="s2 w0.tif: its server refuses access; .*credentials"):
        read_all(images, tmp_path / "load_data.csv")


def test_credentials_of_the_environment_sign_requests(tmp_path, s3, faults, monkeypatch):
    images = s3(write_loaddata(tmp_path), "signed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    read_all(images, tmp_path / "load_data.csv")
    assert faults.signed == sum(faults.asked.values()) > 0


def test_an_image_that_is_not_there_is_the_fields_problem(tmp_path, s3):
    images = s3(write_loaddata(tmp_path), "missing")
    table = pd.read_csv(tmp_path / "load_data.csv")
    table.loc[1, "FileName_ER"] = "gone.tif"
    table.to_csv(tmp_path / "load_data.csv", index=False)
    source = Source("loaddata", images, CHANNELS, table=tmp_path / "load_data.csv")
    fields, _ = index_plate(source, "own", "P1")
    assert fields["problem"].tolist()[1] == "no image of channel ER: P1/gone.tif"
    assert fields["problem"].isna().tolist() == [True, False, True]
    with pytest.raises(UnreadableField, match=r"^P1/gone.tif: no such file$"):
        read_field(images, ["P1/gone.tif"])


def test_patterns_and_plates_are_found_in_a_bucket(tmp_path, s3):
    for plate in ("P1", "P2"):
        for well in ("A01", "B02"):
            path = tmp_path / "plates" / f"plate_{plate}" / f"{well}_DNA.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, np.full((4, 4), 7, np.uint16))
    images = s3(tmp_path / "plates", "patterns") / "plate_{plate}"
    source = Source("files", images, ("DNA",), pattern=r"(?P<well>[A-Z]\d+)_(?P<channel>\w+)\.tif")
    assert list_plates(source) == ["P1", "P2"]
    fields, strangers = index_plate(source, "own", "P2")
    assert fields["field_id"].tolist() == ["own/P2/A01/s1", "own/P2/B02/s1"] and not strangers


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr_at_a_url_gives_the_same_planes(tmp_path, s3, faults, zarr_format):
    images = [np.random.default_rng(n).integers(0, 999, (2, 1, 40, 40), np.uint16) for n in (1, 2)]
    folder = tmp_path / "plates"
    write_plate(folder / "P1.zarr", {"A/1": images}, CHANNELS, zarr_format, axes="czyx", chunk=16)
    url = s3(folder, f"zarr{zarr_format}")
    read = {}
    for place in (folder, url):
        fields, _ = index_plate(Source("ome_zarr", place, CHANNELS), "own", "P1")
        row = next(fields.itertuples())
        faults.asked.clear()
        read[place] = fields, [read_field(place, row.image_path, row.image_page, only=[1])]
    check_alike(read[url], read[folder])
    assert np.array_equal(read[url][1][0].planes[0], images[0][1, 0])
    # Nine chunks of the channel that is read, none of the other.
    chunks = [path for _, path in faults.asked if "A/1/0/0/" in path and path[-1].isdigit()]
    assert len(chunks) == 9


def test_a_web_server_serves_images_that_a_table_lists(tmp_path, faults):
    local = write_loaddata(tmp_path)
    with serving(faults.wrap(files_app(local))) as url:
        found = read_all(folder_at(url), tmp_path / "load_data.csv")
        source = Source("files", folder_at(url), CHANNELS, pattern=r"(?P<well>\w+)\.tif")
        with pytest.raises(InputError, match="cannot be asked which images it has; list them"):
            index_plate(source, "own", "P1")
    check_alike(found, read_all(local, tmp_path / "load_data.csv"))


def test_a_server_that_does_not_answer_ends_the_job_with_one_line(tmp_path, faults, monkeypatch):
    monkeypatch.setattr(remote, "RETRIES", 1)
    with serving(files_app(tmp_path)) as url:
        pass  # nobody listens there any more
    with pytest.raises(
        InputError, match="a.tif: its server does not give it .*; run again when it responds"
    ) as caught:
        read_field(folder_at(url), ["a.tif"])
    assert "\n" not in str(caught.value)


def test_crops_of_a_plate_at_a_url_are_those_of_the_same_plate_on_disk(tmp_path, s3, faults):
    plate = make_plate(tmp_path / "images", [planes(site) for site in range(12)])
    faults.busy = {"s3w1": 1}
    at_url = replace(plate, images=s3(tmp_path / "images", "crops"))
    faults.slow = True
    nuclei, summary = crop(at_url, tmp_path / "url.parquet", threads=2)
    expected_nuclei, expected = crop(plate, tmp_path / "disk.parquet", threads=2)
    pd.testing.assert_frame_equal(nuclei, expected_nuclei)
    times = "image_changed_ns"
    pd.testing.assert_frame_equal(summary.drop(columns=times), expected.drop(columns=times))
    assert (tmp_path / "url.parquet").read_bytes() == (tmp_path / "disk.parquet").read_bytes()
    assert faults.at_once > 4  # more downloads than there are threads
    gets = [n for (method, path), n in faults.asked.items() if method == "GET" and "tif" in path]
    assert sorted(gets) == [1] * (len(gets) - 1) + [2]  # the second time of the busy one


def test_images_that_nobody_reads_hold_nothing_up(tmp_path, s3, faults, monkeypatch):
    monkeypatch.setenv(remote.CONNECTIONS, "1")
    images = s3(write_loaddata(tmp_path, sites=12), "unread")
    source = Source("loaddata", images, CHANNELS, table=tmp_path / "load_data.csv")
    fields, _ = index_plate(source, "own", "P1")
    fields.loc[::3, "problem"] = "no image of channel ER"
    # Of every other field the first channel is damaged, so that the second is not read.
    broken = b"II*\0 no image"
    for number in range(1, 12, 2):
        (tmp_path / "bad" / "P1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / "P1" / f"s{number + 1} w0.tif").write_bytes(broken)
    s3(tmp_path / "bad", "unread")
    read = failed = 0
    for row in ahead(fields.itertuples(), images):
        if isinstance(row.problem, str):
            continue
        try:
            read += len(read_field(images, row.image_path).planes) == 2
        except UnreadableField:
            failed += 1
    assert (read, failed) == (4, 4)
    assert not remote._downloads().begun


def test_refresh_reads_only_what_the_server_says_has_changed(tmp_path, s3):
    local = write_loaddata(tmp_path)
    images = s3(local, "refresh")
    fields, read = read_all(images, tmp_path / "load_data.csv")
    summary = pd.DataFrame(
        {
            "field_id": fields["field_id"],
            "image_digest": [field.digests for field in read],
            "image_bytes": [[size for size, _ in field.stamps] for field in read],
            "image_changed_ns": [[changed for _, changed in field.stamps] for field in read],
        }
    )

    def look_again():
        forget_all()
        return other_images(fields, summary, images, None, CHANNELS, {}, 2, lambda: None)

    assert look_again() == ({}, {}, 0)
    (tmp_path / "new" / "P1").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "new" / "P1" / "s2 w1.tif", np.zeros((40, 30), np.uint16))
    s3(tmp_path / "new", "refresh")
    assert look_again() == ({"own/P1/B02/s2": "other pixels"}, {}, 1)


def test_copies_save_the_second_download_and_stay_below_their_limit(
    tmp_path, s3, faults, monkeypatch
):
    local = write_loaddata(tmp_path, sites=8)
    images = s3(local, "copies")
    monkeypatch.setenv(local_copies.FOLDER, str(tmp_path / "copies"))
    monkeypatch.setenv(local_copies.GIB, "1")
    read_all(images, tmp_path / "load_data.csv")
    forget_all()
    faults.asked.clear()
    found = read_all(images, tmp_path / "load_data.csv")
    check_alike(found, read_all(local, tmp_path / "load_data.csv"))
    assert not any(path.endswith(".tif") for _, path in faults.asked)
    # A damaged copy is downloaded again.
    damaged = next(path for path in (tmp_path / "copies").rglob("*") if path.is_file())
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    forget_all()
    check_alike(read_all(images, tmp_path / "load_data.csv"), found)
    assert sum(path.endswith(".tif") for _, path in faults.asked) == 1


def test_the_oldest_copies_go_first(tmp_path):
    copies = local_copies.LocalCopies(tmp_path, most_bytes=1000)
    for number in range(20):
        copies.keep(f"s3://b/{number}", (100, number), bytes([number]) * 100)
        stored = [path for path in tmp_path.rglob("*") if path.is_file()]
        for path in stored:
            if path.stat().st_mtime > 1e6:
                os.utime(path, (number, number))
    assert sum(path.stat().st_size for path in stored) <= 1000
    assert copies.read("s3://b/19", (100, 19)) == bytes([19]) * 100
    assert copies.read("s3://b/0", (100, 0)) is None
    assert copies.read("s3://b/19", (100, 18)) is None  # another time: another file


def test_copies_of_a_while_are_deleted_after_it(tmp_path, s3, faults):
    images = s3(write_loaddata(tmp_path), "while")
    with local_copies.meanwhile():
        folder = os.environ[local_copies.FOLDER]
        digests = [read_field(images, ["P1/s1 w0.tif"]).digests for _ in range(3)]
        assert os.path.isdir(folder)
    assert digests == [digests[0]] * 3 and not os.path.exists(folder)
    assert local_copies.FOLDER not in os.environ and local_copies.GIB not in os.environ
    assert faults.asked["GET", "/gallery/while/P1/s1 w0.tif"] == 1


def test_a_folder_of_copies_that_is_deleted_is_not_made_again(tmp_path, faults):
    with local_copies.meanwhile():
        copies = local_copies.from_environment()
        copies.keep("s3://b/1", (1, 1), b"1")
        assert copies.read("s3://b/1", (1, 1)) == b"1"
    copies.keep("s3://b/2", (1, 1), b"2")  # a download that was under way
    assert not copies.folder.exists()


def test_there_is_nothing_in_a_bucket_that_does_not_exist(s3, faults):
    place = folder_at("s3://no-such-bucket/a")
    assert not remote.exists(place)
    assert not remote.exists(place.parent)
    asked = sum(faults.asked.values())
    for ask in (
        remote.names_in,
        remote.all_below,
        remote.remote_stamp,
        lambda folder: remote.stamps_at_once([folder]),
        lambda folder: list(base.files_below(folder)),
        base.folders_below,
    ):
        with pytest.raises(InputError, match="there is no such bucket; correct the URL"):
            ask(place)
    assert sum(faults.asked.values()) == asked + 6  # none is asked again


def test_a_bucket_itself_can_be_asked_for(tmp_path, s3):
    bucket = s3(write_loaddata(tmp_path), "asked").parent
    assert str(bucket) == "s3://gallery" and remote.exists(bucket)
    assert remote.stamps_at_once([bucket]) == [remote.remote_stamp(bucket)] != [remote.ABSENT]


def test_a_refused_list_is_said_with_the_remedy_and_not_asked_for_again(tmp_path, s3, faults):
    images = s3(write_loaddata(tmp_path), "unlisted")
    faults.forbidden = ("/gallery",)
    for ask in (remote.names_in, remote.all_below, remote.remote_stamp):
        faults.asked.clear()
        with pytest.raises(InputError, match="its server refuses access; .*set credentials"):
            ask(images / "P1")
        assert sum(faults.asked.values()) == 1
        forget_all()


def test_tables_that_are_asked_for_at_once_all_stay(monkeypatch):
    def slow(**given):
        time.sleep(0.05)
        return made(**given)

    made = tempfile.TemporaryDirectory
    monkeypatch.setattr(base.tempfile, "TemporaryDirectory", slow)
    monkeypatch.setattr(base, "read_remote", lambda table: (table.name.encode(), (1, 1)))
    tables = [folder_at(f"s3://bucket/{number}.csv") for number in range(8)]
    base._temporary.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(base._downloaded, tables))
    gc.collect()
    assert [path.read_text() for path in paths] == [table.name for table in tables]
    forget_all()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://me:secret@host/a", "holds a user or password"),
        ("https://host/a?X-Amz-Signature=1", "has a query"),
        ("s3:///a", "names no bucket"),
    ],
)
def test_urls_with_a_secret_are_refused_without_repeating_it(url, reason):
    with pytest.raises(InputError, match=reason) as caught:
        folder_at(url)
    assert "secret" not in str(caught.value) and "Signature=" not in str(caught.value)


def test_a_folder_at_a_url_can_be_joined_and_compared():
    folder = folder_at("S3://bucket/a/")
    assert folder.depth == 1 and folder.parent.depth == 0
    assert folder == RemoteFolder("s3://bucket/a") and folder / "" == folder
    assert str(folder / "b" / "c.tif") == "s3://bucket/a/b/c.tif"
    assert (folder / "b" / "c.tif").relative_to(folder).as_posix() == "b/c.tif"
    with pytest.raises(ValueError, match="not below"):
        folder.relative_to(folder / "b")
