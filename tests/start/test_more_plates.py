"""New plates of a folder go into the study's file, and nothing else of it changes."""

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


def test_a_screen_without_images_of_its_own_is_refused(tmp_path):
    study = written(tmp_path, '["P1"]')
    with pytest.raises(InputError, match="unknown name 'pilot_degraded'"):
        add_plates(study, ROOT / "config.yaml", "pilot_degraded")
    assert yaml.safe_load(study.read_text())["screens"]["pilot"]["plates"] == ["P1"]


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
