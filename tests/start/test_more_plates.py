"""New plates of a folder go into the study's file, and nothing else of it changes."""

import re
import sys

import pytest
import yaml

from hcsqc.core.errors import InputError
from hcsqc.start.more_plates import add_plates, with_plates
from scripts.start import add_plates as command
from tests.conftest import ROOT

STUDY = """\
# Mine.
study: {name: mine, train: pilot_degraded, test: []}   # to learn from
screens:
  pilot:
    layout: files
    images: FOLDER
    pattern: '(?P<plate>[^/]+)/(?P<well>[A-H]\\d+)_s(?P<site>\\d)_(?P<channel>w\\d)\\.tif'
    channels: [w1]
    plates: PLATES
    labelled_plates: ["P1"]
    pretrain_plates: []
    evaluation_wells: [A01]
    nucleus_channel: w1
    composite: [w1]              # DNA
    labels: []
  pilot_degraded:
    derived_from: pilot
    artefacts: simulated
    plates: ["P1"]
    pretrain_plates: ["P1"]
    evaluation_wells: [A01]
    nucleus_channel: w1
    composite: [w1]
    labels: truth
"""
LISTS = {
    "on one line": ('["P1"]  # daily', '["P1", "P2", "0042"]  # daily'),
    "on several lines": ('[\n      "P1",\n      ]', '[\n      "P1", "P2", "0042",\n      ]'),
    "a line each": (
        "\n      - P1   # the first",
        '\n      - P1   # the first\n      - "P2"\n      - "0042"',
    ),
}


def written(tmp_path, plates: str):
    for plate in ("P1", "P2"):
        (tmp_path / "images" / plate).mkdir(parents=True)
        (tmp_path / "images" / plate / "A01_s1_w1.tif").write_bytes(b"")
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.replace("FOLDER", str(tmp_path / "images")).replace("PLATES", plates))
    return study


@pytest.mark.parametrize("kind", LISTS)
def test_plates_are_added_at_the_end_and_all_else_stays_to_the_letter(kind):
    before, after = LISTS[kind]
    text = STUDY.replace("PLATES", before)
    made = with_plates(text, "pilot", ["P2", "0042"], "study.yaml")
    assert made == STUDY.replace("PLATES", after)
    assert yaml.safe_load(made)["screens"]["pilot"]["plates"] == ["P1", "P2", "0042"]


def test_the_command_adds_what_the_folder_holds_once(tmp_path, monkeypatch, capsys):
    study = written(tmp_path, '["P1"]')
    monkeypatch.setattr(sys, "argv", [command.__file__, str(study)])
    command.main()
    found = study.read_text()
    assert 'plates: ["P1", "P2"]\n    labelled_plates: ["P1"]' in found
    # What something is trained on is as before.
    assert 'derived_from: pilot\n    artefacts: simulated\n    plates: ["P1"]' in found
    command.main()
    assert study.read_text() == found
    assert capsys.readouterr().out.splitlines() == ["pilot: P2", "pilot: no new plate"]


def test_what_lies_beside_the_plates_is_skipped_with_the_reason(tmp_path, monkeypatch, capsys):
    study = written(tmp_path, '["P1"]')
    folder = tmp_path / "images"
    study.write_text(
        study.read_text()
        .replace(f"images: {folder}", f"images: {folder}/{{plate}}")
        .replace("(?P<plate>[^/]+)/", "")
    )
    for name in ("@eaDir", "P04 ", ".P05"):  # with images, as of a copy that is under way
        (folder / name).mkdir()
        (folder / name / "A01_s1_w1.tif").write_bytes(b"")
    for name in ("P03.part", "lost+found"):
        (folder / name).mkdir()
    (folder / "P03.part" / "notes.txt").write_text("")
    (folder / "dates.csv").write_text("")
    (found,) = add_plates(study, ROOT / "config.yaml").values()
    assert found.added == ["P2"]
    invalid = "not a valid name of a plate"
    assert found.skipped.pop("@eaDir") == found.skipped.pop("P04 ") == invalid
    assert found.skipped.pop("dates.csv") == f"{folder}/dates.csv: no such folder"
    assert set(found.skipped) == {"P03.part", "lost+found"}
    assert all("no file matches pattern" in reason for reason in found.skipped.values())
    monkeypatch.setattr(sys, "argv", [command.__file__, str(study)])
    command.main()
    none, skipped = capsys.readouterr().out.splitlines()
    assert none == "pilot: no new plate"
    assert skipped.startswith(f"pilot: skipped '@eaDir' ({invalid}), 'P03.part' (")


def test_a_plate_in_the_table_without_any_of_its_images_is_skipped(tmp_path):
    study = written(tmp_path, '["P1"]')
    rows = [f"{plate},A01,1,{plate}/A01_s1_w1.tif" for plate in ("P1", "P2", "P3")]
    table = tmp_path / "table.csv"
    header = "Metadata_Plate,Metadata_Well,Metadata_Site,FileName_w1"
    table.write_text("\n".join([header, *rows]) + "\n")
    text = study.read_text().replace("layout: files", f"layout: loaddata\n    table: {table}")
    study.write_text(re.sub("    pattern: .*\n", "", text))
    (found,) = add_plates(study, ROOT / "config.yaml").values()
    assert found.added == ["P2"]
    assert found.skipped == {"P3": "none of its images is there"}


@pytest.mark.parametrize("kind", LISTS)
def test_line_ends_stay_and_a_link_stays_one(tmp_path, kind):
    study = written(tmp_path, LISTS[kind][0])
    kept = tmp_path / "kept.yaml"
    kept.write_bytes(study.read_bytes().replace(b"\n", b"\r\n"))
    link = tmp_path / "elsewhere" / "study.yaml"
    link.parent.mkdir()
    link.symlink_to("../kept.yaml")
    for path in (study, link):
        (found,) = add_plates(path, ROOT / "config.yaml").values()
        assert found.added == ["P2"]
    assert link.is_symlink()
    assert kept.read_bytes() == study.read_bytes().replace(b"\n", b"\r\n")


def test_a_screen_without_images_of_its_own_is_refused(tmp_path):
    study = written(tmp_path, '["P1"]')
    with pytest.raises(InputError, match="unknown name 'pilot_degraded'"):
        add_plates(study, ROOT / "config.yaml", "pilot_degraded")
    assert yaml.safe_load(study.read_text())["screens"]["pilot"]["plates"] == ["P1"]


def test_a_file_without_a_last_line_end_keeps_its_others():
    text = "screens:\r\n  pilot:\r\n    plates:\r\n    - P1"
    made = with_plates(text, "pilot", ["P2"], "study.yaml")
    assert made == text + '\r\n    - "P2"'


def test_a_list_that_is_empty_is_named():
    with pytest.raises(InputError, match=r"screens.pilot.plates is empty; write the first"):
        with_plates(STUDY.replace("PLATES", "[]"), "pilot", ["P2"], "study.yaml")


def test_a_list_that_the_training_plates_share_does_not_grow():
    text = STUDY.replace("PLATES", '&all ["P1"]')
    text = text.replace(
        'artefacts: simulated\n    plates: ["P1"]', "artefacts: simulated\n    plates: *all"
    )
    with pytest.raises(InputError, match="is shared with another list; write .* and add P2"):
        with_plates(text, "pilot", ["P2"], "study.yaml")
    with pytest.raises(InputError, match="is shared with another list"):
        with_plates(text, "pilot_degraded", ["P2"], "study.yaml")
