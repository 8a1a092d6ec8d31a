"""Well-known sets by name: their table, and studies of plates made in their published forms."""

import re
import shutil

import pandas as pd
import pytest
import yaml

from benchmarks.real import agreed_labels
from hcsqc.core.errors import InputError
from hcsqc.screens.layouts import index_plate
from hcsqc.start import preview
from hcsqc.start.known_sets import NUCLEUS, ROLES, find_set, known_sets, set_called
from scripts.start import new_study
from tests.conftest import EXAMPLE, Project
from tests.start import made_sets
from tests.start.test_new_study import DEFAULTS, merged, written

PLATES = {"bbbc022": "20585", "jump": "BR00117035", "cpg0012": "24277"}


@pytest.fixture
def without_waiting(monkeypatch):
    """Spare tests the drawing and the reading of config.yaml."""
    monkeypatch.setattr(preview, "draw_preview", lambda *_: None)
    monkeypatch.setattr(new_study, "defaults", lambda: DEFAULTS)


@pytest.mark.parametrize("known", known_sets().values(), ids=str)
def test_the_table_says_of_each_set_what_a_study_needs(known):
    assert known.licence == "CC0" and re.search(r", doi 10\.\d{4}/\S+$", known.citation)
    assert known.composite[-1] == NUCLEUS and len(set(known.composite)) == 3
    assert set(known.composite) | set(known.left_out) <= set(ROLES)
    assert not set(known.composite) & set(known.left_out)
    assert all(value is None or 0.1 < value < 2 for value in known.pixel_um.values())
    assert known.usual_source in known.pixel_um and known.project.startswith("cpg00")


def test_a_word_that_is_neither_path_nor_set_names_the_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        "no well-known set of this name; did you mean 'jump'? there are: bbbc022, cpg0012, jump"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        set_called("jmp")
    assert set_called("jump").project == "cpg0016-jump"
    assert set_called("s3://jump") is None and set_called("./jump") is None
    (tmp_path / "jump").mkdir()
    assert set_called("jump") is None  # a folder of yours


def test_what_a_set_does_not_have_is_named_with_what_it_has(tmp_path):
    made_sets.jump(tmp_path)
    known = known_sets()["jump"]
    with pytest.raises(InputError, match="--source: jump has no 'source_12'; did you mean 'source"):
        find_set(known, ["BR00117035"], str(tmp_path), "source_12")
    with pytest.raises(
        InputError, match="source_4, has 1 plates; choose some by --plates, such as"
    ):
        find_set(known, [], str(tmp_path))
    with pytest.raises(InputError, match="no load_data.csv of plate BR00117036; did you mean 'BR0"):
        find_set(known, ["BR00117036"], str(tmp_path))
    with pytest.raises(InputError, match="source_8/.*no such folder; correct project and source"):
        find_set(known, ["BR00117035"], str(tmp_path), "source_8")


def test_flags_are_for_sets_or_for_paths(tmp_path, without_waiting):
    with pytest.raises(InputError, match="--source: is for well-known sets"):
        written(tmp_path, tmp_path, "--source", "source_4")
    with pytest.raises(InputError, match="the layout of jump is known; omit them"):
        written("jump", tmp_path, "--layout", "files")


def test_a_copy_on_disk_with_another_source(tmp_path, without_waiting):
    made_sets.jump(tmp_path / "g", source="source_8")
    words = ("--plates", "BR00117035", "--source", "source_8", "--images", str(tmp_path / "g"))
    entry = yaml.safe_load(written("jump", tmp_path, *words))["screens"]["mine"]
    assert entry["images"] == f"{tmp_path}/g"
    assert (entry["source"], entry["pixel_um"]) == ("source_8", 0.7032)


EXPECTED = {
    "bbbc022": {
        "project": "cpg0030-gustafsdottir-cellpainting",
        "source": "broad",
        "channels": ["OrigER", "OrigHoechst", "OrigMito", "OrigPh_golgi", "OrigSyto"],
        "channel_roles": {"OrigHoechst": "DNA", "OrigPh_golgi": "AGP", "OrigSyto": "RNA"},
        "nucleus_channel": "OrigHoechst",
        "composite": ["OrigPh_golgi", "OrigMito", "OrigHoechst"],
        "pixel_um": 0.656,
    },
    "jump": {
        "project": "cpg0016-jump",
        "source": "source_4",
        "channels": ["OrigAGP", "OrigDNA", "OrigER", "OrigMito", "OrigRNA"],
        "nucleus_channel": "OrigDNA",
        "composite": ["OrigAGP", "OrigMito", "OrigDNA"],
        "pixel_um": 0.597976,
    },
    "cpg0012": {
        "project": "cpg0012-wawer-bioactivecompoundprofiling",
        "source": "broad",
        "batch": "CDRP",
        "channels": ["OrigDNA", "OrigER", "OrigMito", "OrigRNA"],
        "nucleus_channel": "OrigDNA",
        "composite": ["OrigMito", "OrigER", "OrigDNA"],
        "published_flags": {
            "table": "s3://gallery/sets/cpg0012/cpg0012-wawer-bioactivecompoundprofiling/broad/"
            "workspace/backend/CDRP/{plate}/{plate}.sqlite",
            "columns": {
                "Image_Metadata_QCFlag_isBlurry": "out of focus",
                "Image_Metadata_QCFlag_isSaturated": "saturated or debris",
            },
        },
    },
}


def test_a_copy_without_the_published_flags_gets_a_study_without_them(tmp_path):
    made_sets.cpg0012(tmp_path)
    known, images = known_sets()["cpg0012"], f"{tmp_path}/"
    flags = find_set(known, ["24277"], images).entry["published_flags"]
    assert flags["table"] == f"{tmp_path}/{known.published_flags['table']}"
    next(tmp_path.rglob("*.sqlite")).unlink()
    found = find_set(known, ["24277"], images)
    assert "published_flags" not in found.entry
    assert re.search("without the published flags: .*/24277.sqlite", "".join(found.notes))


@pytest.mark.server
@pytest.mark.parametrize("name", PLATES)
def test_a_set_by_name_gets_a_study(tmp_path, s3, faults, without_waiting, name):
    getattr(made_sets, name)(tmp_path / "g")
    url = s3(tmp_path / "g", f"sets/{name}")
    text = written(name, tmp_path, "--plates", PLATES[name], "--images", f"{url}/")
    entry = yaml.safe_load(text)["screens"]["mine"]
    assert entry["layout"] == "cell_painting_gallery" and entry["images"] == str(url)
    assert entry["plates"] == [PLATES[name]]
    assert {key: entry[key] for key in EXPECTED[name]} == EXPECTED[name]
    assert "pixel_um" in EXPECTED[name] or "pixel_um" not in entry
    assert "# Note: licence: CC0; cite " in text and "doi 10." in text
    config = merged(text)
    assert config["screens"]["mine"]["images"] == str(url)
    found = find_set(known_sets()[name], [PLATES[name]], str(url))
    fields, _ = index_plate(found.source, "mine", PLATES[name])
    assert len(fields) == 8 and fields["problem"].isna().all()
    assert faults.signed == 0


def test_a_study_of_the_gallery_itself_names_no_images(tmp_path, monkeypatch, without_waiting):
    made_sets.jump(tmp_path / "g")
    monkeypatch.setattr("hcsqc.start.known_sets.GALLERY", str(tmp_path / "g"))
    monkeypatch.setattr("hcsqc.start.study_file.GALLERY", str(tmp_path / "g"))
    text = written("jump", tmp_path, "--plates", "BR00117035")
    assert "images" not in yaml.safe_load(text)["screens"]["mine"]
    assert merged(text)["screens"]["mine"]["images"] == "s3://cellpainting-gallery"


def published(root):
    """Lay out the eight real fields of the project as the gallery lays out those of BBBC022."""
    stains = {"w1": "OrigHoechst", "w4": "OrigPh_golgi", "w5": "OrigMito"}
    project, rows = root / "cpg0030-gustafsdottir-cellpainting/broad", {}
    for path in sorted(EXAMPLE.rglob("*.tif")):
        folder = project / "images/BBBC022/images" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
        _, well, site, channel = path.stem[:18].split("_")
        fields = rows.setdefault(
            (well, site), {"Metadata_Plate": "20585", "Metadata_Site": "20585/"}
        )
        below = (folder / path.name).relative_to(root).as_posix()
        fields["Metadata_CPD_WELL_POSITION"] = well
        fields[f"URL_{stains[channel[:2]]}"] = f"{made_sets.BUCKET}/{below}"
    table = project / "workspace/load_data_csv/BBBC022/20585"
    table.mkdir(parents=True)
    pd.DataFrame(list(rows.values())).to_csv(table / "load_data.csv", index=False)
    return root


@pytest.mark.server
@pytest.mark.dag
@pytest.mark.long
def test_the_study_of_a_set_crops_its_real_fields_and_goes_on_to_flags(tmp_path, s3):
    url = s3(published(tmp_path / "g"), "real")
    written("bbbc022", tmp_path, "--plates", "20585", "--images", str(url), "--name", "real")
    project = Project(tmp_path / "project")
    study = ("--cores", "2", "--configfile", tmp_path / "my_study.yaml")
    crops = "results/real/crops/real/20585.parquet"
    done = project.run(crops, *study)
    assert done.returncode == 0, done.stdout[-6000:]
    found = pd.read_parquet(project.folder / crops, columns=["crop_id"])
    places = found.assign(place=found["crop_id"].str.partition("/")[2]).merge(agreed_labels())
    assert len(places) == 382  # those of the same images on disk
    planned = project.run("qc", "--dry-run", *study)
    assert planned.returncode == 0 and "make_qc_report" in planned.stdout
