"""Encoders of one's own: a network by import path, and a table of features."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from hcsqc.core.config import named_networks
from hcsqc.core.errors import InputError
from hcsqc.core.files import CONTENT_DIGEST
from hcsqc.core.schema import write_table
from hcsqc.encoders.given import own_encoder
from hcsqc.encoders.models import build_backbone, check_name
from hcsqc.encoders.store import load_encoder, random_encoder, save_encoder
from hcsqc.features.tables import features_of, read_feature_table
from hcsqc.probes.task import read_features
from scripts.encoders import describe_features
from scripts.features import import_features

MODULE = """
import torch

class Means(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.full((2,), 3.0))

    def forward(self, x):
        return self.gain * x.mean(dim=(2, 3))[:, :2]

def make():
    return Means()

class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.ModuleDict({"inner": Means()})

    def forward(self, x):
        return self.net["inner"](x)

def wrapped():
    made = Wrapped()
    made.net.inner = made.net["inner"]
    return made

def number():
    return 5

def flat():
    return torch.nn.Flatten(0)

def three():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 16), torch.nn.Flatten())
"""


@pytest.fixture
def nets(tmp_path, monkeypatch, request):
    """Write a module where the workflow would run; return its name, another in each test."""
    name = f"nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HCSQC_NETWORKS", f"{name}:make")
    return name


def test_a_network_of_ones_own_is_an_encoder_and_is_read_back(nets, tmp_path):
    encoder = own_encoder(f"{nets}:make", 16, 3, None)
    assert (encoder.width, encoder.trainable, encoder.kind) == (2, True, "transfer")
    assert encoder.input_spec.mean == (0.0, 0.0, 0.0), "pixels from 0 to 1, as they are"
    with torch.no_grad():
        encoder.backbone.gain.copy_(torch.tensor([1.0, 2.0]))
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    images = torch.rand(2, 3, 16, 16)
    expected = images.mean(dim=(2, 3))[:, :2] * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(read.backbone(images).detach(), expected)


@pytest.mark.parametrize("how", ["plain", "pooled", "joined"])
def test_a_network_that_the_config_does_not_name_is_not_even_imported(nets, how, tmp_path):
    save_encoder(random_encoder("test_resnet", 32, 3, seed=0), tmp_path / "encoder.safetensors")
    (tmp_path / f"{nets}.py").write_text("open('it_ran', 'w')\n")
    about = json.loads((tmp_path / "encoder.json").read_text())
    del about[CONTENT_DIGEST]
    theirs = about | {"architecture": f"{nets}:other"}
    if how == "pooled":
        theirs |= {"trainable": False, "pooling": {"pool": "stages", "region": "cell"}}
    if how == "joined":
        theirs = about | {"parts": [about, theirs]}
    (tmp_path / "encoder.json").write_text(json.dumps(theirs))
    with pytest.raises(InputError, match=f"encoder.json: '{nets}:other' is custom code"):
        load_encoder(tmp_path / "encoder.safetensors")
    assert nets not in sys.modules and not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("build", [build_backbone, check_name])
def test_only_an_encoder_by_module_imports_one(nets, build, tmp_path):
    (tmp_path / f"{nets}.py").write_text("open('it_ran', 'w')\n")
    with pytest.raises(InputError, match="timm knows no network"):
        build(f"{nets}:make", *([3] if build is build_backbone else []))
    with pytest.raises(InputError, match="timm knows no network"):
        random_encoder(f"{nets}:make", 32, 3, seed=0)
    assert not (tmp_path / "it_ran").exists()


def test_the_networks_that_may_run_are_those_of_all_encoders_of_the_config():
    mine = {"kind": "transfer", "module": "my_nets:make", "input_px": 32}
    config = {"encoders": {"a": mine, "b": {"kind": "control"}, "c": mine | {"module": "b:c"}}}
    assert named_networks(config) == ["b:c", "my_nets:make"]


def test_a_network_of_ones_own_takes_weights_from_a_file(nets, tmp_path):
    save_file({"gain": torch.tensor([7.0, 8.0])}, tmp_path / "w.safetensors")
    encoder = own_encoder(f"{nets}:make", 16, 3, tmp_path / "w.safetensors")
    assert encoder.backbone.gain.tolist() == [7, 8]
    assert encoder.provenance["file"] == "w.safetensors" and len(encoder.provenance["sha256"]) == 64
    save_file({"other": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match="has no tensor 'gain'"):
        own_encoder(f"{nets}:make", 16, 3, tmp_path / "wrong.safetensors")


@pytest.mark.parametrize("prefix", ["", "net.", "module.", "state_dict.module.encoder_q."])
def test_a_network_keeps_the_prefix_that_its_own_parameters_share(nets, prefix, tmp_path):
    gain = torch.tensor([7.0, 8.0])
    torch.save({f"{prefix}net.inner.gain": gain, "projector.weight": gain}, tmp_path / "w.pth")
    encoder = own_encoder(f"{nets}:wrapped", 16, 3, tmp_path / "w.pth")
    assert encoder.backbone.net.inner.gain.tolist() == [7, 8]


def test_names_that_are_not_the_networks_are_shown_beside_its_own(nets, tmp_path):
    save_file({"gain": torch.ones(2), "x.y": torch.ones(2)}, tmp_path / "w.safetensors")
    message = (
        "has no tensor 'net.inner.gain'.* It begins with gain, x.y; the network begins with net"
    )
    with pytest.raises(InputError, match=message):
        own_encoder(f"{nets}:wrapped", 16, 3, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("function", "channels", "message"),
    [
        ("nothing", 3, r"expected a function nothing\(\) in nets_\d+.py, where Snakemake runs"),
        ("number", 3, "returns int, not an nn.Module"),
        ("flat", 3, r"returns \(1536,\) for 2 crops, expected 2 x width"),
        ("three", 1, r"fails on crops \(2, 1, 16, 16\)"),
    ],
)
def test_a_module_that_is_no_encoder_is_said_to_be_none(nets, function, channels, message):
    with pytest.raises(InputError, match=message):
        own_encoder(f"{nets}:{function}", 16, channels, None)


def test_a_module_that_is_not_there_is_named(nets):
    with pytest.raises(InputError, match="encoder module no_such:make: cannot be built"):
        own_encoder("no_such:make", 16, 3, None)


# Tables of features.

CROPS = [f"s/p1/B02/s1/x{n:04d}y0000" for n in range(4)]
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def table(path, form, crops=CROPS, vectors=VECTORS):
    if form == "vector":
        rows = pd.DataFrame({"crop_id": crops, "vector": list(vectors)})
    else:
        rows = pd.DataFrame(vectors).add_prefix("feature")
        rows.insert(1, "crop_id", crops)
    rows.to_parquet(path)
    return path


@pytest.mark.parametrize("form", ["vector", "columns"])
def test_a_table_of_features_is_read_in_either_form_and_joined_by_crop(form, tmp_path):
    crops, vectors = read_feature_table(table(tmp_path / "t.parquet", form))
    np.testing.assert_array_equal(vectors, VECTORS)
    found = features_of(tmp_path / "t.parquet", crops, vectors, [CROPS[2], CROPS[0]])
    np.testing.assert_array_equal(found, VECTORS[[2, 0]])


def test_a_table_that_holds_no_features_is_said_to_hold_none(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"id": [1]}).to_parquet(path)
    with pytest.raises(InputError, match="has no column crop_id; it has id"):
        read_feature_table(path)
    table(path, "vector", crops=[CROPS[0]] * 4)
    with pytest.raises(InputError, match=f"lists crop {CROPS[0]} more than once"):
        read_feature_table(path)
    pd.DataFrame({"crop_id": CROPS[:2], "vector": [[1.0], [1.0, 2.0]]}).to_parquet(path)
    with pytest.raises(InputError, match="not numbers, as many for every crop"):
        read_feature_table(path)
    pd.DataFrame({"crop_id": CROPS[:2], "name": ["a", "b"]}).to_parquet(path)
    with pytest.raises(InputError, match="not numbers"):
        read_feature_table(path)
    path.write_text("crop_id,a\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_feature_table(path)


@pytest.mark.parametrize("form", ["vector", "columns"])
def test_a_table_that_is_cut_short_or_changed_is_read_or_refused_in_one_line(form, tmp_path):
    path = table(tmp_path / "t.parquet", form)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        short = whole[:place]
        changed = whole[:place] + bytes([whole[place] ^ 0xB5]) + whole[place + 1 :]
        for content in (short, changed):
            path.write_bytes(content)
            try:
                read_feature_table(path)
            except InputError as error:
                assert "\n" not in str(error)
            else:
                assert content is changed


def test_crops_without_finite_features_are_named(tmp_path):
    vectors = VECTORS.copy()
    vectors[1, 2] = np.nan
    crops, found = read_feature_table(table(tmp_path / "t.parquet", "vector", vectors=vectors))
    with pytest.raises(InputError, match=f"features of crop {CROPS[1]} are not finite"):
        features_of(tmp_path / "t.parquet", crops, found, CROPS)
    with pytest.raises(InputError, match="lacks 1 labelled crops, first s/p9"):
        features_of(tmp_path / "t.parquet", crops, found, ["s/p9/A01/s1/x0000y0000"])


def test_the_commands_write_what_probes_read(tmp_path, monkeypatch):
    source = table(tmp_path / "t.parquet", "columns")
    labels = pd.DataFrame({"crop_id": CROPS[:2], "plate": "p1", "well": "B02", "label": "normal"})
    labels = labels.assign(
        artefact=None, strength=np.nan, annotator="a", source="f.csv", compound=""
    )
    write_table(labels.assign(selection="random"), tmp_path / "labels.parquet", "labels")
    shared = ["--table", str(source), "--record", str(tmp_path / "run.json")]
    out = tmp_path / "features.parquet"
    words = [*shared, "--labels", str(tmp_path / "labels.parquet"), "--output", str(out)]
    monkeypatch.setattr(sys, "argv", [import_features.__file__, *words])
    import_features.main()
    crops, vectors = read_features([out])
    assert crops.tolist() == CROPS[:2]
    np.testing.assert_array_equal(vectors, VECTORS[:2])
    about = tmp_path / "encoder.json"
    monkeypatch.setattr(sys, "argv", [describe_features.__file__, *shared, "--output", str(about)])
    describe_features.main()
    described = json.loads(about.read_text())
    assert (described["width"], described["trainable"]) == (3, False)
