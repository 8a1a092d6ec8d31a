"""A field opened in a viewer: its layers as plain data, and how the field is found."""

import json
import sys

import numpy as np
import pytest
import yaml

from hcsqc.core.errors import InputError
from hcsqc.core.schema import TABLES, write_table
from hcsqc.qc.field_view.find import FoundField, find_field, read_study
from hcsqc.qc.field_view.layers import INSTALL, LOOK, field_layers, image_layers, nuclei_layer, show
from hcsqc.qc.report.thumbnails import PLACE
from scripts.qc import open_field
from tests.qc.report.test_thumbnails import CHANNELS, CROP_PX, HEIGHT, NUCLEI, RADIUS, WIDTH
from tests.qc.report.test_thumbnails import screen as screen


def of_field(screen, composite=("w2", "w1")) -> FoundField:
    own = (screen.cells[PLACE] == ["p1", "B02", 1]).all(axis=1)
    row = screen.source.fields.iloc[0].to_dict()
    return FoundField(row, screen.cells[own], screen.shards, screen.source, list(composite))


def test_channels_of_the_composite_are_coloured_and_the_others_hidden(screen):
    found = of_field(screen)
    layers = {layer.options["name"]: layer for layer in field_layers(found)}
    assert list(layers) == [*CHANNELS, "crops, highest scores first", "nuclei"]
    told = {n: (layers[n].options["colormap"], layers[n].options["visible"]) for n in CHANNELS}
    assert told == {"w1": ("green", True), "w2": ("red", True), "w3": ("gray", False)}
    assert layers["w1"].data.shape == (HEIGHT, WIDTH) and layers["w1"].data[30, 40] == 900
    assert layers["w1"].options["contrast_limits"] == (0.0, 1000.0)
    alone = image_layers([layers["w1"].data] * 3, screen.shards.format, ["w3"])
    assert [layer.options["colormap"] for layer in alone] == ["gray"] * 3
    assert [layer.options["visible"] for layer in alone] == [False, False, True]


def test_nuclei_lie_in_their_places_with_score_artefact_and_look(screen):
    layer = nuclei_layer(of_field(screen).cells)
    assert layer.kind == "add_points"
    assert layer.data.tolist() == [[y, x] for x, y in NUCLEI]
    np.testing.assert_allclose(layer.options["size"], 2 * RADIUS + 4)
    assert layer.options["features"]["text"].tolist() == ["0.00", "0.90 debris", "0.20", ""]
    states = ["passed", "flagged", "passed", "not scored"]
    assert layer.options["features"]["state"].tolist() == states
    looks = list(zip(layer.options["border_color"], layer.options["symbol"], strict=True))
    assert looks == [LOOK[state] for state in states]


def test_crops_lie_beside_the_field_by_score_and_flagged_ones_are_framed(screen):
    layer = next(lay for lay in field_layers(of_field(screen)) if "crops" in lay.options["name"])
    assert layer.options["translate"][1] > WIDTH
    step = CROP_PX + 4
    assert layer.data[0, 0].tolist() == [255, 140, 26]  # the only flagged crop comes first
    assert layer.data[0, step].tolist() == layer.data[12, step + 12].tolist() != [255, 140, 26]
    red, green, blue = layer.data[12, 12]
    assert (red, green, blue) == (128, 230, 0) or (red, green, blue) == (127, 230, 0)


def test_a_field_without_a_scored_nucleus_has_no_crops(screen):
    found = of_field(screen)
    bare = FoundField(found.field, found.cells.tail(1), found.shards, found.source, ["w1"])
    assert [layer.options["name"] for layer in field_layers(bare)] == [*CHANNELS, "nuclei"]


def test_an_image_that_is_gone_is_one_message(screen, tmp_path):
    found = of_field(screen)
    field = found.field | {"image_path": ["gone.tif"] * 3}
    gone = FoundField(field, found.cells, found.shards, found.source, found.composite)
    with pytest.raises(InputError, match=r"field sim/p1/B02/s1: gone.tif: no such file; restore"):
        field_layers(gone)


def test_without_napari_one_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(InputError, match="pip install") as raised:
        show([], "")
    assert str(raised.value) == INSTALL


class Viewer:
    """What `show` uses of napari's."""

    def __init__(self, title):
        self.title, self.added = title, []

    def __getattr__(self, name):
        return lambda *data, **options: self.added.append((name, options.get("name")))


@pytest.fixture
def study(screen, tmp_path, monkeypatch):
    """The finished results of a study with that plate, and its file."""
    monkeypatch.chdir(tmp_path)
    entry = {"plates": ["p1"], "images": str(screen.folder), "composite": list(CHANNELS)}
    config = {"study": {"name": "mine"}, "screens": {"sim": entry, "other": entry | {"plates": []}}}
    config |= {"qc": {"screens": ["sim", "other"]}}
    results = tmp_path / "results/mine"
    for folder in ("screens/sim", "qc/sim", "crops/sim"):
        (results / folder).mkdir(parents=True)
    (results / "config.json").write_text(json.dumps({"config": config, "changed": []}))
    columns = {"role": None, "compound": None, "concentration_um": np.nan, "problem": None}
    fields = screen.source.fields.assign(**columns, image_bytes=[[1] * 3] * 12)
    write_table(fields, results / "screens/sim/p1.fields.parquet", "fields")
    cells = screen.cells.astype({"Metadata_Site": "int32", "score": float})
    cells = cells.assign(threshold=0.5)[TABLES["cells"].columns.names]
    write_table(cells, results / "qc/sim/cells.parquet", "cells")
    (results / "crops/sim/p1.parquet").symlink_to(screen.shards.paths[0])
    return results, config


def test_a_field_is_found_by_its_results_however_the_well_is_written(study):
    config, results = read_study(study[0], open_field.DEFAULTS)
    found = find_field(config, results, "p1", "b2", 1)
    assert found.field["field_id"] == "sim/p1/B02/s1" and len(found.cells) == 4
    assert len(field_layers(found)) == 5


def test_the_file_of_a_study_is_merged_with_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"study": {"name": "mine"}, "qc": {"screens": "all"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    config, results = read_study(tmp_path / "mine.yaml", open_field.DEFAULTS)
    assert results.as_posix() == "results/mine" and config["study"]["train"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("p11", "B02", 1, None), "plate p11 is in no screen of the study; did you mean 'p1'"),
        (("p1", "B02", 9, None), "plate p1 has no well B02 with site 9"),
        (("p1", "H12", 1, None), "plate p1 has no well H12 with site 1"),
        (("p1", "B02", 1, "simm"), "unknown name 'simm'; did you mean 'sim'"),
        (("p1", "B02", 1, "other"), "snakemake qc"),
    ],
)
def test_what_is_not_there_is_named(study, asked, message):
    config, results = read_study(study[0], open_field.DEFAULTS)
    with pytest.raises(InputError, match=message):
        find_field(config, results, *asked)


def test_a_folder_that_is_no_study_is_told(tmp_path):
    with pytest.raises(InputError, match="has no config.json; give the study's file"):
        read_study(tmp_path, open_field.DEFAULTS)
    with pytest.raises(InputError, match="is not a study"):
        read_study(tmp_path / "gone.yaml", open_field.DEFAULTS)
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="is not a study .it is not a mapping"):
        read_study(tmp_path / "list.yaml", open_field.DEFAULTS)


def test_the_command_opens_the_field(study, monkeypatch, capsys):
    opened = []
    napari = type(sys)("napari")
    napari.Viewer = lambda title: opened.append(Viewer(title)) or opened[-1]
    napari.run = lambda: opened.append("run")
    monkeypatch.setitem(sys.modules, "napari", napari)
    words = ["open_field.py", str(study[0]), "--plate", "p1", "--well", "B02", "--site", "1"]
    monkeypatch.setattr(sys, "argv", words)
    open_field.main()
    viewer, ran = opened
    assert viewer.title == "sim/p1/B02/s1" and ran == "run"
    kinds = [kind for kind, _ in viewer.added]
    assert kinds == ["add_image"] * 4 + ["add_points", "reset_view"]
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(SystemExit):
        open_field.main()
    assert capsys.readouterr().err == f"error: {INSTALL}\n"
