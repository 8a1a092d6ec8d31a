"""The guided start: from a folder of images to a study that passes the config's check."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from snakemake.utils import update_config

from hcsqc.core import config as settings
from hcsqc.core.config_check import check_config
from hcsqc.core.errors import InputError
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.layouts import Source, index_plate, list_plates
from hcsqc.start import preview
from hcsqc.start.find import FoundScreen, find_screen
from hcsqc.start.naming_schemes import name_files
from hcsqc.start.outlines import guess_nucleus_channel, round_outlines
from hcsqc.start.study_file import label_counts
from hcsqc.start.survey import choose_composite, evaluation_wells, outlines, root_of, survey
from scripts.start import new_study
from tests.conftest import EXAMPLE, ROOT
from tests.screens.ngff import write_plate

DEFAULTS = yaml.safe_load((ROOT / "config.yaml").read_text())
CROPS = DEFAULTS["crops"]
UUID = "64FBEEF7-F77C-4892-86F5-72D0160D4FB2"
WELLS, SITES = ("B02", "B03", "C02", "C03"), (1, 2)
SIDE = 200


draw_preview, draw_channels = preview.draw_preview, preview.draw_channels


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """Spare most tests the drawing and the reading of config.yaml, longer than all the rest."""
    monkeypatch.setattr(preview, "draw_preview", lambda *_: None)
    monkeypatch.setattr(preview, "draw_channels", lambda *_: None)
    monkeypatch.setattr(new_study, "defaults", lambda: DEFAULTS)


def pixels(channel, number=0, top=4000, radius=13):
    """Return a field: discs on channel 0, long streaks on the others."""
    image = np.full((SIDE, SIDE), 0.02, np.float32)
    rng = np.random.default_rng([channel, number])
    if channel == 0:
        for x, y in ((100, 100), (40, 45), (150, 50), (55, 150), (160, 160)):
            cv2.circle(image, (x, y), radius, 1.0, -1)
    else:
        for start in range(-SIDE, SIDE, 20):
            cv2.line(image, (start, 0), (start + SIDE, SIDE), 1.0, 4 + channel)
    image = cv2.GaussianBlur(image, (0, 0), 1) + rng.uniform(0, 0.02, image.shape)
    return np.rint(np.clip(image, 0, 1) * top).astype(np.uint8 if top < 256 else np.uint16)


def write_images(
    folder, name, channels, plates=("P1",), wells=WELLS, sites=SITES, nucleus=0, **how
):
    """Write a field's images by `name(plate, well, site, channel)`; return their paths."""
    paths, order = [], {channel: number for number, channel in enumerate(channels)}
    for plate in plates:
        for well in wells:
            for site in sites:
                for channel in channels:
                    path = folder / name(plate, well, site, channel)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    shown = (order[channel] - nucleus) % len(channels)
                    tifffile.imwrite(path, pixels(shown, len(paths), **how))
                    paths.append(path)
    return paths


def simple(plate, well, site, channel):
    return f"{plate}/{well}_s{site}_{channel}.tif"


def run(path, output, *words):
    """Run the script as a person does, with nobody at the terminal; return what was printed."""
    command = [
        sys.executable,
        ROOT / "scripts/start/new_study.py",
        path,
        "--output",
        output,
        *words,
    ]
    return subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def written(path, tmp_path, *words):
    """Write the study of `path` without a process of its own; return its text."""
    output = tmp_path / "my_study.yaml"
    parts = dict(zip(words[::2], words[1::2], strict=True))
    args = new_study.argparse.Namespace(
        path=str(path),
        output=output,
        name=parts.get("--name", "mine"),
        layout=parts.get("--layout"),
        pattern=parts.get("--pattern"),
        plates=parts.get("--plates", "").split(),
        source=parts.get("--source"),
        batch=parts.get("--batch"),
        images=parts.get("--images"),
        nucleus_channel=parts.get("--nucleus-channel"),
        composite=parts["--composite"].split() if "--composite" in parts else None,
    )
    new_study.new_study(args, asks=False)
    return output.read_text()


def merged(text):
    """Return config.yaml with the study merged into it as Snakemake does, checked."""
    config, study = copy.deepcopy(DEFAULTS), yaml.safe_load(text)
    update_config(config, study)
    check_config(config)
    return config


def indexed(text, screen="mine"):
    """Return the fields of each plate that the written study lists, by the project's own reader."""
    config = merged(text)
    entry = config["screens"][screen]
    source = Source(
        entry["layout"],
        entry["images"],
        tuple(settings.channels(config, screen)),
        entry.get("image_csv"),
        entry.get("table"),
        entry.get("table_prefix"),
        entry.get("pattern"),
    )
    return {plate: index_plate(source, screen, plate)[0] for plate in entry["plates"]}


def refusal(path, layout=None):
    with pytest.raises(InputError) as caught:
        survey(find_screen(path, layout), CROPS)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Naming schemes: path by plate, well, site and channel; channels; the plates that are found.

LETTERS = " ABCDEFGH"


def numbers(well):
    return LETTERS.index(well[0]), int(well[1:])


SCHEMES = {
    "plain": (
        lambda p, w, s, c: f"{p}/{w}_s{s}_w{c}.tif",
        (1, 2, 3),
        ("w1", "w2", "w3"),
    ),
    "named channels": (
        lambda p, w, s, c: f"{p}/{w}_s{s}_{c}.tif",
        ("DAPI", "GFP"),
        ("DAPI", "GFP"),
    ),
    "channel before site": (
        lambda p, w, s, c: f"{p}/{w}_{c}_f{s:02d}.png",
        ("ch1", "ch2"),
        ("ch1", "ch2"),
    ),
    "plate in the name": (
        lambda p, w, s, c: f"{p}_{w}_s{s}_w{c}{UUID}.tif",
        (1, 2),
        ("w1", "w2"),
    ),
    "ImageXpress": (
        lambda p, w, s, c: f"{p}/2020-01-01/7/TimePoint_1/x_{w}_s{s}_w{c}{UUID}.tif",
        (1, 2),
        ("w1", "w2"),
    ),
    "Opera Phenix": (
        lambda p, w, s, c: (
            f"{p}/Images/r{numbers(w)[0]:02d}c{numbers(w)[1]:02d}f{s:02d}p01-ch{c}sk1fk1fl1.tiff"
        ),
        (1, 2, 4),
        ("ch1", "ch2", "ch4"),
    ),
    "Yokogawa": (
        lambda p, w, s, c: f"{p}/Assay_Plate_{w}_T0001F{s:03d}L01A0{c}Z01C0{c}.tif",
        (1, 2),
        ("C01", "C02"),
    ),
    "Columbus": (
        lambda p, w, s, c: f"{p}/{numbers(w)[0]:03d}{numbers(w)[1]:03d}-{s}-001001{c:03d}.tif",
        (1, 2),
        ("001", "002"),
    ),
    "wells in lower case": (
        lambda p, w, s, c: f"{p}/exp_{w.lower()}_s{s}_w{c}.tif",
        (1, 2),
        ("w1", "w2"),
    ),
    "Gen5": (
        lambda p, w, s, c: f"{p}/{w[0]}{int(w[1:])}_01_1_{s}_{c}_001.tif",
        ("DAPI", "GFP"),
        ("DAPI", "GFP"),
    ),
    "a folder per channel": (
        lambda p, w, s, c: f"{p}/{c}/{w}_s{s}.tif",
        ("FITC 488", "Hoechst"),
        ("FITC", "Hoechst"),
    ),
    "a folder per channel, alike in the first word": (
        lambda p, w, s, c: f"{p}/{c}/{w}_s{s}.tif",
        ("Alexa 488", "Alexa 568", "DAPI 405"),
        ("488", "568", "DAPI"),
    ),
    "a folder per channel by number": (
        lambda p, w, s, c: f"{p}/Channel {c}/{w}_s{s}.tif",
        (1, 2),
        ("1", "2"),
    ),
    "IN Cell": (
        lambda p, w, s, c: f"{p}/{w[0]} - {w[1:]}(fld {s} wv {c} - {c} wix 1).tif",
        ("DAPI", "Cy3"),
        ("Cy3", "DAPI"),
    ),
    "Cellomics": (
        lambda p, w, s, c: f"{p}/MFGTMP_150101_{w}f{s:02d}d{c}.TIF",
        (0, 1),
        ("d0", "d1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("plates", [("P1",), ("P1", "P2")])
def test_naming_scheme_gives_plates_channels_and_fields(tmp_path, scheme, plates):
    name, channels, expected = SCHEMES[scheme]
    names = [
        name(plate, well, site, channel)
        for plate in plates
        for well in WELLS
        for site in SITES
        for channel in channels
    ]
    for path in names:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    found = find_screen(tmp_path)
    assert (found.source.layout, found.source.channels) == ("files", expected)
    assert found.plates == list(plates)
    for plate in plates:
        fields, strangers = index_plate(found.source, "mine", plate)
        assert len(fields) == len(WELLS) * len(SITES) and strangers == []
        assert sorted(set(fields["well"])) == list(WELLS)
        assert fields["problem"].isna().all()
    assert set(plates) <= set(list_plates(found.source))


@pytest.mark.parametrize("given", ["BR7", "BR7/Images"])
def test_folder_of_one_plate_and_well_is_named_after_it(tmp_path, given):
    for channel in (1, 2):
        path = tmp_path / "BR7" / "Images" / f"r02c03f01p01-ch{channel}sk1fk1fl1.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = find_screen(tmp_path / given)
    assert found.plates == ["BR7"]
    assert index_plate(found.source, "mine", "BR7")[0]["well"].tolist() == ["B03"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("B02.tif", ("B02", "1", None)),
        ("b2_s1_w1.tif", ("B02", "1", "w1")),
        ("P01_a01_s1_w1.tif", ("A01", "1", "w1")),
        ("b02_f01_w1.tif", ("B02", "1", "w1")),
        ("b02_c01_s1.tif", ("B02", "1", "c01")),
        ("x_b02_dapi.tif", ("B02", "1", "dapi")),
        ("c1.tif", None),
        ("B7_01_1_3_DAPI_001.tif", ("B07", "3", "DAPI")),
        ("B7_01_2_1_Texas Red_001.tif", ("B07", "1", "Texas")),
        ("P1_F02_s1.tif", ("F02", "1", None)),
        ("B02_C1_s1.tif", ("B02", "1", "C1")),
        ("B02_F1_C2.tif", ("B02", "1", "C2")),
        ("B2_s7.ome.tif", ("B02", "7", None)),
        ("B02_DAPI.tif", ("B02", "1", "DAPI")),
        ("Q99_s1_w1.tif", None),
        ("A01_s1_w1_illumination.tif", None),
    ],
)
def test_short_names_are_told_apart(tmp_path, name, expected):
    if expected is None:
        with pytest.raises(InputError, match="unknown layout"):
            name_files(tmp_path, [name])
        return
    named = name_files(tmp_path, [name])
    assert named.channels == ((expected[2],) if expected[2] else ())
    source = Source("files", named.images, named.channels or ("c1",), pattern=named.pattern)
    target = Path(str(named.images).replace("{plate}", named.plates[0])) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"x")
    fields = index_plate(source, "mine", named.plates[0])[0]
    assert (fields["well"][0], str(fields["site"][0])) == expected[:2]


def test_one_plane_and_time_point_of_many_are_used(tmp_path):
    names = [
        f"P1/r02c02f01p{plane:02d}-ch{channel}sk{time}fk1fl1.tiff"
        for plane in (1, 2, 3)
        for time in (1, 2)
        for channel in (1, 2)
    ]
    named = name_files(tmp_path, names)
    assert "p02-" in named.pattern and "sk1fk1" in named.pattern
    assert named.notes == [
        "3 z planes in separate files: only 02 is used",
        "2 time points in separate files: only 1 is used",
    ]
    folders = [f"P1/TimePoint_{time}/B02_s1_w1.tif" for time in (1, 2, 10)]
    named = name_files(tmp_path, folders)
    assert named.pattern.startswith("TimePoint_1/") and "only TimePoint_1 is used" in named.notes[0]
    steps = [f"P1/TimePoint_{time}/ZStep_{z}/B02_s1_w1.tif" for time in (1, 2) for z in (1, 2, 10)]
    assert name_files(tmp_path, steps).pattern.startswith("TimePoint_1/ZStep_2/")
    for z_name in ("P1/B02_s1_w1_z{}.tif", "P1/B02_s1_z{}_w1.tif"):
        named = name_files(tmp_path, [z_name.format(z) for z in (1, 2, 10)])
        assert named.notes == ["3 z planes in separate files: only 2 is used"]
        assert named.channels == ("w1",)


def test_folders_of_channels_and_of_wells_are_no_plates(tmp_path):
    by_channel = [f"{c}/P7_{w}_s1_{c}.tif" for c in ("DAPI", "GFP") for w in WELLS]
    assert name_files(tmp_path, by_channel).plates == ["P7"]
    by_well = [f"{w}/P7_{w}_s1_{c}.tif" for c in ("DAPI", "GFP") for w in WELLS]
    assert name_files(tmp_path, by_well).plates == ["P7"]
    by_plate = [f"{p}/x_{w}_s1_{c}.tif" for c in "ab" for p, w in (("P1", "B02"), ("P2", "C03"))]
    assert name_files(tmp_path, by_plate).plates == ["P1", "P2"]


VOYAGER = [f"P1/X_B02_T0001F00{site}L01A0{c}Z01C0{c}.tif" for site in (1, 2) for c in (1, 2)]
PLAIN = [f"P1/{well}_s1_w{c}.tif" for well in WELLS for c in (1, 2)]


@pytest.mark.parametrize(
    ("images", "strays"),
    [
        (VOYAGER, [f"P1/SC_BP{c}-45_40x_M10_CH0{c}.tif" for c in range(1, 9)]),
        (VOYAGER, [f"P1/SC_40x_M10_CH0{c}.tif" for c in range(1, 9)] + ["P1/DC_sCMOS #1_CAM1.tif"]),
        (PLAIN, [path.replace(".tif", f"_thumb{UUID}.tif") for path in PLAIN]),
        (PLAIN, [f"overview_{number}.png" for number in range(20)]),
    ],
    ids=["corrections", "corrections alike", "thumbnails", "overviews"],
)
def test_strays_do_not_choose_the_scheme(tmp_path, images, strays):
    named, alone = name_files(tmp_path, images + strays), name_files(tmp_path, images)
    assert (named.scheme, named.pattern) == (alone.scheme, alone.pattern)
    assert (named.plates, named.channels) == (alone.plates, alone.channels)


def test_hidden_files_and_links_that_lead_back_are_nobodys(tmp_path):
    hidden = [path.replace("P1/", "P1/._") for path in PLAIN]
    for path in (*PLAIN, *hidden, "._P1", ".Trash/C07_s1_w1.tif", "P1/.cache/D07_s1_w1.tif"):
        (tmp_path / "s" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / path).write_bytes(b"x")
    (tmp_path / "s" / "P1" / "back").symlink_to(tmp_path / "s")
    found = find_screen(tmp_path / "s")
    assert (found.plates, found.notes, list_plates(found.source)) == (["P1"], [], ["P1"])
    fields, strangers = index_plate(found.source, "mine", "P1")
    assert fields["well"].tolist() == list(WELLS) and strangers == []
    assert fields["problem"].isna().all()


# A pattern of one's own.

OWN = r"img-(?P<well>[A-H]\d\d)-(?P<site>\d)-(?P<channel>\w+)\.tif"


def own(plate, well, site, channel):
    return f"{plate}/img-{well}-{site}-{channel}.tif"


@pytest.mark.parametrize(("given", "pattern"), [("s", rf"(?P<plate>P\d)/{OWN}"), ("s/P1", OWN)])
def test_a_given_pattern_names_plates_and_channels(tmp_path, given, pattern):
    write_images(tmp_path / "s", own, ("DAPI", "GFP"))
    (tmp_path / "s" / "P1" / "other.tif").write_bytes(b"x")
    text = written(tmp_path / given, tmp_path, "--pattern", pattern)
    entry = yaml.safe_load(text)["screens"]["mine"]
    assert (entry["layout"], entry["plates"], entry["pattern"]) == ("files", ["P1"], pattern)
    assert entry["channels"] == ["DAPI", "GFP"]
    assert len(indexed(text)["P1"]) == 8
    assert "images with other names are ignored" in text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "pattern ( is not a regular expression"),
        (r"img-(?P<welll>\w+)", "unknown group 'welll'; did you mean 'well'?"),
        (r"img-(?P<site>\d)", "needs a group (?P<well>...)"),
        (r"(?P<well>[A-H]\d\d)", "it matches 'B02' of P1/img-B02-1-DAPI.tif, but must match the"),
        (r"x(?P<well>\d)", "matches none of 16 images, such as P1/img-B02-1-DAPI.tif"),
        (r".*(?P<well>GFP|DAPI)\.tif", "it has neither a well such as A01"),
        (r".*(?P<well>[A-H]\d\d)-.*", "the same well, site and channel; distinguish them"),
    ],
)
def test_a_pattern_that_does_not_fit_says_why(tmp_path, pattern, message):
    for well in WELLS:
        for site in SITES:
            for channel in ("DAPI", "GFP"):
                path = tmp_path / own("P1", well, site, channel)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        find_screen(tmp_path, None, pattern)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_pattern_is_for_a_folder_of_files(tmp_path):
    (tmp_path / "load_data.csv").write_text("x")
    for path, layout in ((tmp_path / "load_data.csv", None), (tmp_path, "ome_zarr")):
        with pytest.raises(InputError, match="--pattern: describes the file names of layout files"):
            find_screen(path, layout, OWN)


def test_two_files_for_one_channel_are_refused(tmp_path):
    with pytest.raises(InputError, match="are the same channel of the same field"):
        name_files(tmp_path, ["P1/B02_s1_w1.tif", "P1/B02_s1_w1.tiff"])


# Whole studies.


def test_script_says_what_is_wrong_in_one_line(tmp_path):
    done = run(tmp_path / "gone", tmp_path / "my_study.yaml")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"error: {tmp_path}/gone: no such folder or table; give the path of your images\n"
    )


def test_script_writes_a_study_that_runs(tmp_path):
    write_images(tmp_path / "screen", simple, ("DAPI", "GFP", "RFP"), plates=("P1", "P2"))
    output = tmp_path / "new" / "my_study.yaml"
    done = run(tmp_path / "screen", output)
    assert done.returncode == 0, done.stderr
    assert "plates:   2 (P1, P2)" in done.stdout
    assert "images:   200 x 200 px, 12 bit" in done.stdout
    assert "nuclei in channel: DAPI, by its outlines, round and of one size, and by" in done.stdout
    assert "fields:   16, 16 of them with every channel" in done.stdout
    preview = cv2.imread(str(output.with_suffix(".preview.png")))
    assert preview.shape[1] > 2 * preview.shape[0] and preview.std() > 30
    text = output.read_text()
    config = merged(text)
    assert config["study"]["train"] == "screen_degraded" and not config["study"]["smoke_test"]
    screen, derived = config["screens"]["screen"], config["screens"]["screen_degraded"]
    assert screen["labels"] == [] and screen["pretrain_plates"] == []
    assert derived["derived_from"] == "screen" and derived["labels"] == "truth"
    assert derived["pretrain_plates"] == screen["plates"] == ["P1", "P2"]
    assert screen["composite"] == ["GFP", "RFP", "DAPI"]
    assert yaml.safe_load(text)["qc"] == {"screens": ["screen"], "encoder": "cell"}
    assert re.search(r"time:     about \d+ min on \d+ idle cores without a GPU", done.stdout)
    assert {plate: len(fields) for plate, fields in indexed(text, "screen").items()} == {
        "P1": 8,
        "P2": 8,
    }


def test_the_commands_in_the_comments_name_their_target_first(tmp_path):
    write_images(tmp_path / "screen", simple, ("DAPI", "GFP", "RFP"))
    text = written(tmp_path / "screen", tmp_path)
    for target in ("qc", "label_pages"):
        assert f"snakemake {target} --cores all --configfile {tmp_path}/my_study.yaml\n" in text


def test_the_third_step_gives_a_study_that_passes(tmp_path):
    write_images(tmp_path / "screen", simple, ("DAPI", "GFP", "RFP"))
    config = merged(written(tmp_path / "screen", tmp_path))
    config["study"]["train"] = "mine"
    config["screens"]["mine"]["labels"] = ["alice.csv"]
    config["screens"]["mine"]["pretrain_plates"] = config["screens"]["mine"]["plates"]
    check_config(config)


def test_named_plates_are_the_studys_plates(tmp_path):
    write_images(tmp_path / "s", simple, ("DAPI", "GFP", "RFP"), plates=("P1", "P2", "P3"))
    config = merged(written(tmp_path / "s", tmp_path, "--plates", "P3 P1"))
    assert config["screens"]["mine"]["plates"] == ["P1", "P3"]
    assert config["screens"]["mine_degraded"]["plates"] == ["P1", "P3"]
    (tmp_path / "my_study.yaml").unlink()
    with pytest.raises(InputError, match="--plates: .* has no plate P4; there are: P1, P2, P3"):
        written(tmp_path / "s", tmp_path, "--plates", "P4")


def test_a_named_plate_is_no_folder_above_it(tmp_path):
    paths = [f"run/{simple(plate, 'B02', 1, 'w1')}" for plate in ("P1",)]
    assert name_files(tmp_path, paths).plates == ["run"]
    named = name_files(tmp_path, paths, plates_given=["P1"])
    assert (named.plates, named.images) == (["P1"], tmp_path / "run" / "{plate}")


def test_a_whole_bucket_may_be_a_plate():
    named = name_files(folder_at("s3://plate7"), ["B02_s1_w1.tif", "B03_s1_w1.tif"])
    assert (named.plates, str(named.images)) == (["plate7"], "s3://{plate}")
    source = Source("files", named.images, named.channels, pattern=named.pattern)
    assert str(root_of(FoundScreen(source, named.plates, ""))) == "s3://plate7"


def test_an_existing_study_is_never_overwritten(tmp_path):
    write_images(tmp_path / "screen", simple, ("DAPI", "GFP", "RFP"))
    output = tmp_path / "my_study.yaml"
    output.write_text("labels: [precious.csv]")
    message = f"{output}: exists already and was not changed; give another --output"
    with pytest.raises(InputError, match=re.escape(message)):
        written(tmp_path / "screen", tmp_path)
    assert output.read_text() == "labels: [precious.csv]"


def test_same_images_give_the_same_study_and_preview(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "draw_preview", draw_preview)
    write_images(tmp_path / "screen", simple, ("DAPI", "GFP", "RFP"))
    results = []
    for _ in range(2):
        text = written(tmp_path / "screen", tmp_path)
        results.append((text, (tmp_path / "my_study.preview.png").read_bytes()))
        (tmp_path / "my_study.yaml").unlink()
    assert results[0] == results[1]


@pytest.mark.parametrize("plates", [("20585",), ("20585", "20586")])
def test_bbbc022_is_known_by_its_folders_and_csv(tmp_path, plates):
    def name(plate, well, site, channel):
        return f"BBBC022_v1_images_{plate}w{channel}/IXMtest_{well}_s{site}_w{channel}{UUID}.tif"

    write_images(tmp_path / "s", name, (1, 2, 3, 4, 5), plates, sites=(1,))
    columns = ("PlateID", "CPD_WELL_POSITION", "ASSAY_WELL_ROLE", "SOURCE_COMPOUND_NAME",
               "CPD_MMOL_CONC")  # fmt: skip
    row = dict.fromkeys([f"Image_Metadata_{column}" for column in columns], "x")
    assert "BBBC022_v1_image.csv" in refusal(tmp_path / "s")
    pd.DataFrame([row]).to_csv(tmp_path / "s" / "image.csv", index=False)
    text = written(tmp_path / "s", tmp_path)
    entry = yaml.safe_load(text)["screens"]["mine"]
    assert (entry["layout"], entry["plates"]) == ("bbbc022", list(plates))
    assert (entry["nucleus_channel"], entry["composite"]) == ("w1", ["w4", "w5", "w1"])
    assert {len(fields) for fields in indexed(text).values()} == {4}


def test_bbbc021_by_week_is_known(tmp_path):
    def name(plate, well, site, channel):
        return f"Week4/{plate}/Week4_{well}_s{site}_w{channel}{UUID}.tif"

    write_images(tmp_path / "s", name, (1, 2, 4), ("Week4_27481",))
    columns = ("Plate_DAPI", "Well_DAPI", "Compound", "Concentration")
    row = dict.fromkeys([f"Image_Metadata_{column}" for column in columns], "x")
    pd.DataFrame([row]).to_csv(tmp_path / "image.csv", index=False)  # in the folder above
    text = written(tmp_path / "s", tmp_path)
    entry = yaml.safe_load(text)["screens"]["mine"]
    assert (entry["layout"], entry["plates"]) == ("bbbc021", ["Week4_27481"])
    assert entry["composite"] == ["w4", "w2", "w1"]
    assert len(indexed(text)["Week4_27481"]) == 8


def loaddata(paths, folder_of=lambda path: str(path.parent), plate="P1"):
    """Return a LoadData table of images named as `simple` names them."""
    rows = {}
    for path in paths:
        well, site, channel = path.stem.split("_")
        row = rows.setdefault((path.parent, well, site), {})
        row |= {"Metadata_Plate": path.parent.name, "Metadata_Well": well}
        row |= {"Metadata_Site": site[1:], f"FileName_Orig{channel}": path.name}
        row |= {f"PathName_Orig{channel}": folder_of(path)}
    return pd.DataFrame(list(rows.values()))


@pytest.mark.parametrize(
    "folder_of",
    [
        lambda path: str(path.parent),
        lambda path: path.parent.name,
        lambda path: f"s3://bucket/images/{path.parent.name}",
        lambda path: f"D:\\somewhere\\{path.parent.name}",
    ],
)
def test_loaddata_table_is_read_wherever_it_says_the_images_are(tmp_path, folder_of):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER", "AGP"), plates=("P1", "P2"))
    table = tmp_path / "s" / "load_data.csv"
    loaddata(paths, folder_of).to_csv(table, index=False)
    for given in (table, tmp_path / "s"):
        text = written(given, tmp_path)
        entry = yaml.safe_load(text)["screens"]["mine"]
        assert (entry["layout"], entry["plates"]) == ("loaddata", ["P1", "P2"])
        assert entry["channels"] == ["OrigAGP", "OrigDNA", "OrigER"]
        assert entry["composite"] == ["OrigAGP", "OrigER", "OrigDNA"]
        fields = indexed(text)
        assert [len(fields[plate]) for plate in ("P1", "P2")] == [8, 8]
        assert fields["P2"]["problem"].isna().all()
        (tmp_path / "my_study.yaml").unlink()


@pytest.mark.parametrize("secret", ["https://me:hidden@srv.org", "https://srv.org/?sig=hidden"])
def test_a_table_with_a_secret_gets_no_study(tmp_path, secret):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER"))
    loaddata(paths, lambda path: f"{secret}/{path.parent.name}").to_csv(
        tmp_path / "s" / "load_data.csv", index=False
    )
    message = refusal(tmp_path / "s")
    assert "holds a password or signature" in message and "hidden" not in message


def test_a_table_per_plate_beside_one_with_illumination(tmp_path):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER"), plates=("P1", "P2"))
    rows = loaddata(paths)
    for plate, of_plate in rows.groupby("Metadata_Plate"):
        folder = tmp_path / "s" / "tables" / plate
        folder.mkdir(parents=True)
        of_plate.to_csv(folder / "load_data.csv", index=False)
        with_illumination = of_plate.assign(FileName_IllumDNA="i.npy", PathName_IllumDNA="/i")
        with_illumination.to_csv(folder / "load_data_with_illum.csv", index=False)
    found = find_screen(tmp_path / "s")
    assert found.source.table == tmp_path / "s/tables/{plate}/load_data.csv"
    assert found.plates == ["P1", "P2"] and found.source.channels == ("OrigDNA", "OrigER")
    survey(found, CROPS)


@pytest.mark.parametrize("given", ["", "P1.zarr"])
def test_ome_zarr_plate_is_found(tmp_path, given):
    field = np.stack([pixels(1), pixels(0), pixels(2)])
    images = {well: [field] for well in ("A/1", "A/2", "B/1", "B/2")}
    write_plate(tmp_path / "s/P1.zarr", images, labels=("ER", "DNA", "AGP"), axes="cyx", chunk=200)
    text = written(tmp_path / "s" / given, tmp_path)
    entry = yaml.safe_load(text)["screens"]["mine"]
    assert (entry["layout"], entry["plates"]) == ("ome_zarr", ["P1"])
    assert entry["channels"] == ["ER", "DNA", "AGP"] and entry["nucleus_channel"] == "DNA"
    assert len(indexed(text)["P1"]) == 4


def test_pages_of_a_file_are_channels(tmp_path):
    for well in WELLS:
        path = tmp_path / "s" / "P1" / f"{well}_f1.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            path, np.stack([pixels(1), pixels(0), pixels(2)]), photometric="minisblack"
        )
    text = written(tmp_path / "s", tmp_path)
    entry = yaml.safe_load(text)["screens"]["mine"]
    assert entry["channels"] == ["c1", "c2", "c3"] and entry["nucleus_channel"] == "c2"
    assert "Note: the 3 pages of a file are taken as the channels c1, c2, c3." in " ".join(
        line.lstrip("# ") for line in text.splitlines()
    )
    assert len(indexed(text)["P1"]) == 4


def test_z_stacks_are_flattened(tmp_path):
    paths = write_images(tmp_path / "s", simple, ("DAPI", "GFP", "RFP"))
    for path in paths:
        tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 3), photometric="minisblack")
    assert "    z_projection: max\n" in written(tmp_path / "s", tmp_path)


# What images say.


@pytest.mark.parametrize(("top", "bits"), [(250, 8), (4000, 12), (60000, 16)])
def test_bit_depth_and_size_are_found(tmp_path, top, bits):
    write_images(tmp_path, simple, ("DAPI", "GFP"), top=top)
    seen = survey(find_screen(tmp_path), CROPS)
    assert (seen.bits, seen.shape, len(seen.complete)) == (bits, (SIDE, SIDE), 8)


@pytest.mark.parametrize("nucleus", [0, 1, 2])
def test_unnamed_nuclei_are_known_by_their_round_outlines(tmp_path, nucleus):
    channels = ("C01", "C02", "C03")
    write_images(tmp_path, simple, channels, nucleus=nucleus)
    seen = survey(find_screen(tmp_path), CROPS)
    guess = guess_nucleus_channel(outlines(seen))
    assert (guess.channel, guess.warning) == (channels[nucleus], None)
    assert guess.why == "by its outlines, round and of one size"


def test_clear_outlines_decide_against_a_name_with_a_warning(tmp_path, capsys):
    write_images(tmp_path / "s", simple, ("w1", "w2", "w3"), nucleus=1)
    text = written(tmp_path / "s", tmp_path)
    assert yaml.safe_load(text)["screens"]["mine"]["nucleus_channel"] == "w2"
    assert "warning:  w1 has a usual name of the nucleus channel" in capsys.readouterr().out


def test_nuclei_that_cannot_be_told_are_an_error_that_names_the_flag(tmp_path):
    paths = write_images(tmp_path / "s", simple, ("C01", "C02"))
    for path in paths:
        tifffile.imwrite(path, pixels(0))
    with pytest.raises(InputError, match="C01 1.00, C02 1.00.; look at .*.channels.png and set"):
        written(tmp_path / "s", tmp_path)
    text = written(tmp_path / "s", tmp_path, "--nucleus-channel", "C02")
    assert yaml.safe_load(text)["screens"]["mine"]["nucleus_channel"] == "C02"


@pytest.fixture
def at_terminal(tmp_path, monkeypatch):
    """Return how a person at a terminal runs the script with answers; the file that is written."""

    def start(*answers):
        given = iter(answers)

        def answer(_):
            try:
                return next(given)
            except StopIteration as end:
                raise EOFError from end

        output = tmp_path / "my_study.yaml"
        monkeypatch.setattr("builtins.input", answer)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        words = [new_study.__file__, str(tmp_path / "s"), "--output", str(output)]
        monkeypatch.setattr(sys, "argv", words)
        new_study.main()
        assert next(given, None) is None  # no question was left out
        return output

    return start


@pytest.fixture
def in_doubt(tmp_path):
    """Two channels with the same discs, and what their names do not say."""
    for path in write_images(tmp_path / "s", simple, ("C01", "C02")):
        tifffile.imwrite(path, pixels(0))


def test_a_wrong_answer_asks_again(in_doubt, at_terminal, capsys):
    assert not at_terminal("C2", "", "c02", "perhaps", "no").exists()
    out = capsys.readouterr().out
    assert "'C2' is not an answer; did you mean 'C02'? there are: C01, C02" in out
    assert "'perhaps' is not an answer" in out and "only the preview was written" in out
    assert "nucleus_channel: C02" in at_terminal("C02", "Y").read_text()


def test_another_channel_shows_another_preview(in_doubt, at_terminal, monkeypatch):
    shown = []
    monkeypatch.setattr(preview, "draw_preview", lambda *what: shown.append(what[3]))
    assert "nucleus_channel: C01" in at_terminal("C02", "C01", "").read_text()
    assert shown == ["C02", "C01"]


def test_the_question_for_a_channel_shows_all_channels(
    tmp_path, in_doubt, at_terminal, monkeypatch
):
    monkeypatch.setattr(preview, "draw_channels", draw_channels)
    at_terminal("C01", "no")
    picture = cv2.imread(str(tmp_path / "my_study.channels.png"))
    assert picture.std() > 30 and picture.shape[1] > 500


def test_a_channel_without_nuclei_is_asked_for_again(tmp_path, at_terminal):
    for path in write_images(tmp_path / "s", simple, ("DAPI", "GFP")):
        if "DAPI" in path.name:
            tifffile.imwrite(path, np.full((SIDE, SIDE), 80, np.uint16))
    assert "nucleus_channel: GFP" in at_terminal("DAPI", "GFP", "yes").read_text()


def test_a_folder_of_two_schemes_is_asked_about(tmp_path, at_terminal, capsys):
    write_images(tmp_path / "s", simple, ("DAPI", "GFP"))
    write_images(
        tmp_path / "s", lambda p, w, s, c: f"{p}/{w}f{s:02d}_x_{w}f{s:02d}{c}.tif", ("d0",)
    )
    text = at_terminal("3", "1", "yes").read_text()
    assert "channels: [DAPI, GFP]" in text and "images with other names are ignored" in text
    assert "1: well, site and channel, P1/B02_s1_DAPI.tif" in capsys.readouterr().out


def test_a_folder_of_two_tables_is_asked_about(tmp_path, at_terminal):
    rows = loaddata(write_images(tmp_path / "s", simple, ("DNA", "ER")))
    for name in ("a.csv", "b.csv"):
        rows.to_csv(tmp_path / "s" / name, index=False)
    assert f"table: {tmp_path}/s/b.csv" in at_terminal("c", "2", "yes").read_text()


def test_nobody_at_the_terminal_ends_with_one_line(in_doubt, at_terminal):
    with pytest.raises(SystemExit, match="error: nobody answered"):
        at_terminal()


def test_outlines_of_discs_are_round_and_of_streaks_are_not():
    share, diameter = round_outlines(pixels(0))
    assert share > 0.95 and diameter == pytest.approx(27, abs=3)
    assert round_outlines(pixels(1))[0] < 0.1
    sizes = np.zeros((SIDE, SIDE), np.uint16)
    for x, y, radius in ((60, 60, 45), (150, 50, 20), (50, 150, 12), (150, 150, 8)):
        cv2.circle(sizes, (x, y), radius, 1000, -1)
    assert 0.6 < round_outlines(sizes)[0] < 0.85  # round, but only the largest is of the usual size
    assert round_outlines(np.zeros((50, 50), np.uint16)) == (0.0, 0.0)


def test_large_nuclei_give_the_screen_a_diameter(tmp_path):
    write_images(tmp_path / "s", simple, ("DAPI", "GFP", "RFP"), radius=25)
    entry = yaml.safe_load(written(tmp_path / "s", tmp_path))["screens"]["mine"]
    assert entry["nucleus_diameter_px"] == pytest.approx(42, abs=3)
    assert entry["nucleus_smallest_px"] == pytest.approx(80 * (42 / 25) ** 2, rel=0.15)


def test_two_channels_have_an_encoder_that_sees_each(tmp_path):
    write_images(tmp_path / "s", simple, ("DAPI", "GFP"))
    config = merged(written(tmp_path / "s", tmp_path))
    assert config["screens"]["mine"]["composite"] == ["GFP", "DAPI"]
    assert config["encoders"]["efficientnet_lite0"]["channels"] == "each"


def test_composite_is_chosen_or_given(tmp_path):
    write_images(tmp_path / "s", simple, ("ER", "Mito", "DNA", "AGP"))
    seen = survey(find_screen(tmp_path / "s"), CROPS)
    assert choose_composite(seen, "DNA") == ["AGP", "Mito", "DNA"]
    text = written(tmp_path / "s", tmp_path, "--composite", "DNA ER AGP")
    assert yaml.safe_load(text)["screens"]["mine"]["composite"] == ["DNA", "ER", "AGP"]
    (tmp_path / "my_study.yaml").unlink()
    with pytest.raises(InputError, match="--composite: 'mito' is not a channel .* mean 'Mito'"):
        written(tmp_path / "s", tmp_path, "--composite", "mito ER AGP")


# Wells, budgets and names.


def test_a_third_of_the_wells_is_spread_over_the_plate():
    wells = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
    chosen = evaluation_wells(wells)
    assert len(chosen) == len(set(chosen)) == 128 and set(chosen) <= set(wells)
    assert evaluation_wells(wells[::-1]) == chosen
    for row in "ABCDEFGHIJKLMNOP":
        assert 6 <= sum(well[0] == row for well in chosen) <= 10
    for column in range(1, 25):
        assert sum(int(well[1:]) == column for well in chosen) >= 1


@pytest.mark.parametrize(("wells", "expected"), [(3, 2), (4, 3), (7, 6), (12, 6), (30, 10)])
def test_few_wells_leave_one_and_label_the_others(wells, expected):
    assert len(evaluation_wells([f"B{number:02d}" for number in range(1, wells + 1)])) == expected


def test_budgets_follow_the_crops_that_evaluation_wells_hold():
    assert label_counts(10_000, 128, 300) == ([200, 100, 50], 100)
    assert label_counts(290, 3, 300) == ([200, 100, 50], 100)
    assert label_counts(12, 2, 300) == ([10], 10)


@pytest.mark.parametrize(
    ("name", "message"), [("BBBC022", "has a screen BBBC022 already"), ("my screen", "letters")]
)
def test_names_that_cannot_be_are_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=f"--name: .*{message}"):
        written(tmp_path, tmp_path, "--name", name)


def test_odd_names_are_quoted(tmp_path):
    folder = tmp_path / "it's: a # folder"
    write_images(folder, simple, ("DAPI", "off", "1e3"), plates=("007", "yes"))
    text = written(folder, tmp_path)
    assert yaml.safe_load(text)["screens"]["mine"]["plates"] == ["007", "yes"]
    assert {len(fields) for fields in indexed(text).values()} == {8}


# Bad input.


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert refusal(tmp_path).startswith(f"{tmp_path}: no images found; looked for .tif")
    assert "no such folder or table" in refusal(tmp_path / "gone")
    assert "neither a folder nor a CSV" in refusal(tmp_path / "notes.txt")


def test_unknown_layout_shows_what_is_there(tmp_path):
    for name in ("image1.tif", "image2.tif"):
        (tmp_path / name).write_bytes(b"x")
    message = refusal(tmp_path)
    assert "unknown layout" in message and "image1.tif, image2.tif" in message


@pytest.mark.parametrize("other", ["r01c01f01p01-ch1sk1fk1fl1.tiff", "P9.zarr/.zattrs"])
def test_mixed_layouts_are_named(tmp_path, other):
    for name in ("P1/B02_s1_w1.tif", "P1/B02_s2_w1.tif", f"P2/{other}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    message = refusal(tmp_path)
    assert "mixed layouts" in message and "B02_s1_w1.tif" in message
    assert other.split("/")[0] in message


def test_unreadable_images(tmp_path):
    paths = write_images(tmp_path, simple, ("DAPI", "GFP"))
    paths[0].write_bytes(b"II*\0 damaged")
    seen = survey(find_screen(tmp_path), CROPS)
    assert (
        len(seen.sample) == 7 and len(seen.unreadable) == 1 and paths[0].name in seen.unreadable[0]
    )
    for path in paths:
        path.write_bytes(b"")
    assert "none of 8 fields tested can be read; first:" in refusal(tmp_path)
    assert "is empty" in refusal(tmp_path)


def test_csv_that_is_no_loaddata(tmp_path):
    (tmp_path / "cells.csv").write_text("Metadata_Plate,Area\nP1,3\n")
    message = refusal(tmp_path / "cells.csv")
    assert "is not a LoadData table: it has no column Metadata_Well" in message
    (tmp_path / "empty.csv").write_text("")
    assert "cannot be read as a table" in refusal(tmp_path / "empty.csv")
    assert "no images found" in refusal(tmp_path)


def test_loaddata_whose_images_are_gone(tmp_path):
    paths = write_images(tmp_path / "s", simple, ("DNA", "ER"), wells=("B02",), sites=(1,))
    loaddata(paths).to_csv(tmp_path / "load_data.csv", index=False)
    for path in paths:
        path.unlink()
    assert "its images are neither at the listed paths nor below" in refusal(
        tmp_path / "load_data.csv"
    )


def test_plate_without_a_complete_channel_set(tmp_path):
    write_images(tmp_path, simple, ("DAPI", "GFP"), plates=("P1", "P2"))
    for path in (tmp_path / "P2").glob("*_s1_GFP.tif"):
        path.unlink()
    assert len(survey(find_screen(tmp_path), CROPS).complete) == 12
    for path in (tmp_path / "P2").glob("*_s2_DAPI.tif"):
        path.unlink()
    message = refusal(tmp_path)
    assert message.startswith(f"plate P2 of {tmp_path}/{{plate}} has no field with all channels")
    assert "B02 site 1: no image of channel GFP" in message


@pytest.mark.parametrize(
    ("layout", "name"),
    [("bbbc022", "BBBC022_v1_images_1w1/A01_s1_w1.tif"), ("bbbc021", "Week1_22/a01_s1_w1.tif")],
)
def test_published_folders_with_other_files_say_what_was_looked_for(tmp_path, layout, name):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"x")
    message = refusal(tmp_path, layout)
    assert f"no image of layout {layout}: looked for folders like" in message
    assert "that hold files like" in message and ")_s(" in message


@pytest.mark.parametrize("wells", [("B02",), ("B02", "B03")])
def test_one_or_two_wells_are_shown_before_it_is_said_why_no_study_is_written(
    tmp_path, monkeypatch, capsys, wells
):
    shown = []
    monkeypatch.setattr(preview, "draw_preview", lambda examples, *_: shown.append(examples))
    write_images(tmp_path / "s", simple, ("DAPI", "GFP"), wells=wells)
    with pytest.raises(InputError, match=f"of {' and '.join(wells)} only, and a detector needs 3"):
        written(tmp_path / "s", tmp_path)
    assert len(shown) == 1 and "preview:" in capsys.readouterr().out
    assert not (tmp_path / "my_study.yaml").exists()


def test_a_channel_without_nuclei_is_an_error_that_names_the_picture_of_all(tmp_path):
    for path in write_images(tmp_path / "s", simple, ("DAPI", "GFP")):
        tifffile.imwrite(path, np.full((SIDE, SIDE), 7, np.uint16))
    with pytest.raises(
        InputError, match="no nuclei found in channel DAPI of 8 fields .*channels.p"
    ):
        written(tmp_path / "s", tmp_path)


def test_fields_smaller_than_a_window_are_an_error(tmp_path):
    for path in write_images(tmp_path / "s", simple, ("DAPI", "GFP")):
        tifffile.imwrite(path, tifffile.imread(path)[:100, :100])
    with pytest.raises(InputError, match="none has a whole window of 128 px"):
        written(tmp_path / "s", tmp_path)


def test_few_nuclei_are_a_warning_that_says_what_to_try(tmp_path, capsys):
    paths = write_images(tmp_path / "s", simple, ("DAPI", "GFP"))
    written(tmp_path / "s", tmp_path)
    assert "warning:" not in capsys.readouterr().out
    (tmp_path / "my_study.yaml").unlink()
    for path in paths[2:]:
        tifffile.imwrite(path, np.full((SIDE, SIDE), 80, np.uint16))
    written(tmp_path / "s", tmp_path, "--nucleus-channel", "DAPI")
    out = capsys.readouterr().out
    assert "warning:  few nuclei: 0.6 per field, in 1 of 8 fields." in out
    assert "--nucleus-channel" in out and "nucleus_diameter_px" in out


def test_dim_exports_are_warned_of_and_their_nuclei_found(tmp_path, capsys):
    paths = write_images(tmp_path / "s", simple, ("DAPI", "GFP"))
    for path in paths:
        tifffile.imwrite(path, (tifffile.imread(path) // 1024).astype(np.uint8))
    written(tmp_path / "s", tmp_path)
    out = capsys.readouterr().out
    assert "cells are only 3 of 255 grey levels brighter" in out
    assert "nuclei:   5 per field" in out


# Real images.


def test_real_fields_of_bbbc022(tmp_path):
    text = written(EXAMPLE, tmp_path, "--name", "fields")
    entry = yaml.safe_load(text)["screens"]["fields"]
    assert (entry["layout"], entry["nucleus_channel"]) == ("bbbc022", "w1")
    assert "nucleus_diameter_px" not in entry
    assert entry["channels"] == ["w1", "w4", "w5"]  # those that are there
    assert len(indexed(text, "fields")["20585"]) == 8
    seen = survey(find_screen(EXAMPLE), CROPS)
    assert (seen.bits, seen.shape) == (12, (520, 696))
    shares = [
        np.median([round_outlines(planes[channel])[0] for _, planes in seen.planes()])
        for channel in range(3)
    ]
    assert shares[0] > 0.7 and max(shares[1:]) < 0.4


def test_a_file_that_names_its_channels_is_taken_at_its_word(tmp_path):
    """And its planes are neither channels nor mixed: two channels of three planes each."""
    for well in WELLS:
        path = tmp_path / "P1" / f"{well}.ome.tif"
        path.parent.mkdir(exist_ok=True)
        stacks = np.stack([np.stack([pixels(channel)] * 3) for channel in (1, 0)])
        metadata = {"axes": "CZYX", "Channel": {"Name": ["ER", "DNA"]}}
        tifffile.imwrite(path, stacks, ome=True, metadata=metadata, photometric="minisblack")
    found = find_screen(tmp_path, None, r"(?P<plate>P\d)/(?P<well>[A-H]\d\d)\.ome\.tif")
    assert found.source.channels == ("ER", "DNA")
    assert "according to the file, its channels are ER, DNA" in found.notes
    seen = survey(found, CROPS)
    assert seen.z_projection == "max"
