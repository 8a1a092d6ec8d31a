"""Channels by role: screens in any order and by any names, missing roles, files, commands."""

import json
from argparse import Namespace
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.places import BLACK, ROLES, by_role, role_by_name
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.crops.training_crops import training_crops
from hcsqc.encoders.given import own_encoder, transfer_encoder
from hcsqc.encoders.measures import measured_encoder
from hcsqc.encoders.models import InputSpec, build_backbone
from hcsqc.encoders.roles import Sight, channels_for, hidden_from, read_roles
from hcsqc.encoders.store import (
    check_composite,
    joined_encoder,
    load_encoder,
    random_encoder,
    save_encoder,
)
from hcsqc.encoders.weights import Weights, save_weights
from hcsqc.features.extract import extract_features
from scripts.encoders import import_encoder
from scripts.features import extract_features as command

TINY = "test_resnet"
COUNT, SIDE = 5, 32
PAINTED = ("DNA", "RNA", "ER", "AGP", "Mito")
SHOWN = dict(zip(("w1", "w3", "w2", "w4", "w5"), PAINTED, strict=True))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (COUNT, 5, SIDE, SIDE), np.uint8)


def shards_of(folder, pixels, channels) -> Shards:
    """Write crops whose channels have these names, in this order."""
    path = folder / "p1.parquet"
    writer = ShardWriter(path, ShardFormat(tuple(channels), SIDE, "uint8", {}))
    rows = np.arange(COUNT)
    names = [f"s/p1/B0{row % 3}/s1/x{row:04d}y0000" for row in rows]
    numbers = {"x_px": rows, "y_px": rows, "nucleus_area_px": 100 + 60 * rows}
    fields = [name.rpartition("/")[0] for name in names]
    writer.add({"crop_id": names, "field_id": fields, **numbers}, pixels)
    writer.close()
    return Shards([path])


def given_weights(channels: int, **options) -> Weights:
    torch.manual_seed(0)
    tensors = build_backbone(TINY, channels).state_dict()
    provenance = {"weights": "file", "file": "made.pth"}
    mean = tuple(0.1 * place for place in range(channels))
    return Weights(TINY, tensors, mean, (0.5,) * channels, provenance, options)


def painted(**missing) -> Sight:
    return Sight(roles=PAINTED, missing_roles=tuple(f"{k}:{v}" for k, v in missing.items()))


def embed(encoder, shards, composite, shown):
    chosen = channels_for(encoder, composite, shown, "screen s")
    rows = np.arange(len(shards))
    return extract_features(encoder, shards, chosen, rows, 4, "float32", "test")[0]


@given(order=st.permutations(range(5)))
def test_each_role_finds_its_channel_in_whatever_order_a_screen_lists_them(order):
    channels = list(SHOWN)
    shown = {channels[place]: SHOWN[channels[place]] for place in order}
    assert by_role(PAINTED, {}, shown, "x") == channels


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(5)))
def test_a_screen_with_permuted_and_renamed_channels_has_the_same_features(
    order, pixels, tmp_path_factory
):
    encoder = transfer_encoder(given_weights(5), SIDE, 5, sight=painted())
    names = list(SHOWN)
    usual = embed(encoder, shards_of(tmp_path_factory.mktemp("a"), pixels, names), ["w1"], SHOWN)
    renamed = {f"ch{place}": SHOWN[names[place]] for place in order}
    other = shards_of(tmp_path_factory.mktemp("b"), pixels[:, list(order)], renamed)
    np.testing.assert_array_equal(embed(encoder, other, ["ch3", "ch0"], renamed), usual)


def test_features_by_role_are_those_of_the_channels_in_the_order_of_the_roles(pixels, tmp_path):
    """Against a network without roles that is shown the channels in this order."""
    shards = shards_of(tmp_path, pixels, sorted(SHOWN))
    by_name = transfer_encoder(given_weights(5), SIDE, 5)
    expected = embed(by_name, shards, ["w1", "w3", "w2", "w4", "w5"], {})
    encoder = transfer_encoder(given_weights(5), SIDE, 5, sight=painted())
    np.testing.assert_array_equal(embed(encoder, shards, ["w4", "w5", "w1"], SHOWN), expected)


def test_a_role_that_no_channel_shows_names_screen_model_role_and_channels():
    encoder = transfer_encoder(given_weights(5), SIDE, 5, sight=painted())
    shown = {"w1": "DNA", "w2": "tubulin", "w4": "actin"}
    with pytest.raises(InputError) as caught:
        channels_for(encoder, ["w1"], shown, "features of bbbc021")
    assert str(caught.value).startswith(
        "features of bbbc021 (test_resnet): no channel shows RNA; its channels are w1 (DNA), "
        "w2 (tubulin), w4 (actin); correct channel_roles of the screen, or say in missing_roles"
    )


def test_two_channels_of_one_role_are_not_guessed_between():
    with pytest.raises(InputError, match="x: a and b show DNA; its channels are a .DNA., b"):
        by_role(["DNA"], {}, {"a": "DNA", "b": "DNA"}, "x")


def test_what_stands_for_a_missing_role_is_said_and_only_there(capsys):
    sight = painted(RNA="zero", ER="tubulin", AGP="actin", Mito="zero", DNA="zero")
    encoder = transfer_encoder(given_weights(5), SIDE, 5, sight=sight)
    shown = {"w1": "DNA", "w2": "tubulin", "w4": "actin"}
    assert channels_for(encoder, ["w1"], shown, "s") == ["w1", BLACK, "w2", "w4", BLACK]
    assert "s (test_resnet): channels by role: DNA: w1, RNA: - (missing_roles)" in (
        capsys.readouterr().err
    )
    assert channels_for(encoder, ["w1"], SHOWN, "s") == list(SHOWN)
    assert "missing_roles" not in capsys.readouterr().err


@pytest.mark.parametrize("normalisation", ["fixed", "per_image_zscore"])
def test_a_role_that_is_zero_is_a_channel_without_light(normalisation, pixels, tmp_path):
    sight = replace(painted(Mito="zero"), normalisation=normalisation)
    encoder = transfer_encoder(given_weights(5), SIDE, 5, sight=sight)
    dark = pixels.copy()
    dark[:, 4] = 0
    expected = embed(encoder, shards_of(tmp_path, dark, SHOWN), ["w1"], SHOWN)
    shown = {**SHOWN, "w5": "other"}
    (tmp_path / "b").mkdir()
    found = embed(encoder, shards_of(tmp_path / "b", pixels, SHOWN), ["w1"], shown)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_each_channel_is_seen_by_a_network_of_one_channel_as_it_is(in_chans, pixels, tmp_path):
    """A network of three sees it as red, green and blue."""
    shards = shards_of(tmp_path, pixels, SHOWN)
    weights = given_weights(in_chans, **({"in_chans": 1} if in_chans == 1 else {}))
    encoder = transfer_encoder(weights, SIDE, 2, "each", sight=Sight(roles=("Mito", "DNA")))
    network = build_backbone(TINY, in_chans).eval()
    network.load_state_dict(weights.tensors)
    mean = np.mean(weights.mean)
    with torch.no_grad():
        expected = [
            network((torch.from_numpy(pixels[:, [place]]) / 255 - mean).div(0.5).repeat(1, n, 1, 1))
            for place in (4, 0)
            for n in [in_chans]
        ]
    found = embed(encoder, shards, ["w4"], SHOWN)
    np.testing.assert_allclose(found, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(embed(again, shards, ["w4"], SHOWN), found)


def test_joined_encoders_each_see_their_own_channels_on_any_screen(pixels, tmp_path):
    shards = shards_of(tmp_path, pixels, SHOWN)
    composite = ("w4", "w5", "w1")
    crops = training_crops(shards.paths, composite, [])
    parts = [
        transfer_encoder(given_weights(5), SIDE, 5, sight=painted()),
        measured_encoder("intensity_and_size", "control", crops, "window"),
        random_encoder(TINY, SIDE, 3, seed=0),
        transfer_encoder(given_weights(3), SIDE, 3, sight=Sight(roles=PAINTED[:3])),
    ]
    encoder = joined_encoder([parts[0], joined_encoder(parts[1:])])
    assert (encoder.channels, len(encoder.parts)) == (5 + 3 + 3, 4)
    found = embed(encoder, shards, composite, SHOWN)
    expected = [embed(part, shards, composite, SHOWN) for part in parts]
    np.testing.assert_array_equal(found, np.hstack(expected))
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(embed(again, shards, composite, SHOWN), found)
    with pytest.raises(InputError, match="is for composites of 11 channels, but this one has 10"):
        check_composite(encoder, channels_for(encoder, composite[:2], SHOWN, "x"), "x")


def test_roles_and_normalisation_are_kept_in_the_file_and_only_if_stated(tmp_path):
    path = tmp_path / "encoder.safetensors"
    sight = replace(painted(AGP="actin"), normalisation="per_image_zscore")
    save_encoder(transfer_encoder(given_weights(5), SIDE, 5, sight=sight), path)
    spec = load_encoder(path).input_spec
    assert (spec.roles, spec.missing_roles) == (PAINTED, {"AGP": "actin"})
    assert spec.normalisation == "per_image_zscore"
    save_encoder(random_encoder(TINY, SIDE, 3, seed=0), path)
    about = json.loads(path.with_suffix(".json").read_text())
    assert set(about["input"]) == {"size_px", "mean", "std", "each_channel"}


@pytest.mark.parametrize(
    "values",
    [
        *({"normalisation": value} for value in ("per_plate", 1, None, [])),
        *({"roles": value} for value in ("DNA", ["DNA"] * 3 + ["ER"], ["DNA", "ER", "cell"], 5)),
        *({"roles": value} for value in ([["DNA"]] * 3, {"DNA": 1}, [None] * 3)),
        *(
            {"roles": ["DNA", "ER", "RNA"], "missing_roles": value}
            for value in ({"Mito": "zero"}, {"ER": "black"}, {"ER": ["RNA"]}, ["ER"], "zero")
        ),
        {"missing_roles": {"ER": "zero"}},
    ],
    ids=str,
)
def test_an_input_that_cannot_be_is_refused_not_used(values, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(random_encoder(TINY, SIDE, 3, seed=0), path)
    about = json.loads(path.with_suffix(".json").read_text())
    del about["content_sha256"]
    about["input"] |= values
    path.with_suffix(".json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="encoder.json: does not describe an encoder") as caught:
        load_encoder(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "role"),
    [("OrigDNA", "DNA"), ("OrigMito", "Mito"), ("agp", "AGP"), ("OrigBrightfield", "brightfield")],
)
def test_names_that_say_what_a_channel_shows_are_understood(name, role):
    assert role_by_name(name) == role
    assert role_by_name(f"x{name}") == "other"


def test_flags_of_roles_are_read_as_they_were_written():
    assert read_roles(["HOECHST 33342:DNA", "w4:AGP"]) == {"HOECHST 33342": "DNA", "w4": "AGP"}
    assert all(":" not in role for role in ROLES)


def test_a_sight_that_cannot_be_is_one_line():
    with pytest.raises(InputError, match="roles are 5, its channels 3"):
        transfer_encoder(given_weights(3), SIDE, 3, sight=painted())
    with pytest.raises(InputError, match="weights are for 3 channels, its roles are 5"):
        transfer_encoder(given_weights(3), SIDE, 5, sight=painted())


def test_means_of_published_weights_are_of_grey_levels_and_not_of_z_scores():
    weights = given_weights(3)
    seen = {
        how: transfer_encoder(weights, SIDE, 3, sight=Sight(normalisation=how)).input_spec
        for how in ("fixed", "per_image_minmax", "per_image_zscore")
    }
    assert seen["fixed"].mean == seen["per_image_minmax"].mean == weights.mean
    assert (seen["per_image_zscore"].mean, seen["per_image_zscore"].std) == ((0,) * 3, (1,) * 3)


@pytest.mark.parametrize("name, warned", [("own", True), ("own_alone", False)])
def test_the_command_warns_of_a_network_that_sees_no_brightness_alone(
    name, warned, tmp_path, capsys
):
    save_weights(given_weights(3), tmp_path / "w.safetensors")
    record = Namespace(parameters={}, metrics={})
    given = {"weights": tmp_path / "w.safetensors", "input_px": SIDE, "channels": 3}
    given |= {"mode": "composite", "pool": "last", "normalisation": "per_image_minmax"}
    given |= {"roles": [], "missing_roles": []}
    output = tmp_path / name / "seed0" / "encoder.safetensors"
    import_encoder.import_weights(Namespace(**given, output=output), record)
    assert ("hides brightness and saturation" in capsys.readouterr().err) is warned
    assert ("warning" in record.parameters) is warned
    assert load_encoder(output).input_spec.normalisation == "per_image_minmax"


def test_only_a_network_without_brightness_is_warned_of(pixels, tmp_path):
    each_image = Sight(normalisation="per_image_minmax")
    network = transfer_encoder(given_weights(3), SIDE, 3, sight=each_image)
    crops = training_crops(shards_of(tmp_path, pixels, SHOWN).paths, ["w1", "w2", "w3"], [])
    measured = measured_encoder("intensity_and_size", "control", crops, "window")
    assert "hides brightness and saturation" in str(hidden_from(network))
    assert hidden_from(joined_encoder([network, measured])) is None
    assert hidden_from(random_encoder(TINY, SIDE, 3, seed=0)) is None


def test_your_own_network_takes_channels_by_role(tmp_path, monkeypatch, pixels):
    (tmp_path / "by_role_net.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    sight = Sight(roles=("Mito", "DNA"))
    encoder = own_encoder("by_role_net:make", SIDE, 2, None, sight)
    found = embed(encoder, shards_of(tmp_path, pixels, SHOWN), ["w2"], SHOWN)
    expected = pixels[:, [4, 0]].mean((2, 3)) / 255
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_command_embeds_by_role_and_records_the_channels(pixels, tmp_path):
    shards = shards_of(tmp_path, pixels, SHOWN)
    encoder = transfer_encoder(given_weights(2), SIDE, 2, sight=Sight(roles=("ER", "DNA")))
    save_encoder(encoder, tmp_path / "e" / "seed0" / "encoder.safetensors")
    record = Namespace(parameters={}, metrics={}, device="")
    arguments = {
        "threads": 1,
        "encoder": tmp_path / "e" / "seed0" / "encoder.safetensors",
        "crops": shards.paths,
        "labels": None,
        "composite": ["w4", "w5", "w1"],
        "channel_roles": [f"{name}:{role}" for name, role in SHOWN.items()],
        "batch_size": 4,
        "precision": "float32",
        "output": tmp_path / "s.parquet",
    }
    command.extract(Namespace(**arguments), record)
    assert record.parameters["channels"] == ["w2", "w1"]
    assert record.metrics["crops"] == COUNT


def test_an_input_says_all_that_a_sight_asked_for():
    sight = replace(painted(RNA="ER"), normalisation="per_image_zscore")
    spec = sight.of(InputSpec(SIDE, (0.0,) * 5, (1.0,) * 5))
    assert InputSpec.from_json(spec.as_json()) == spec
    assert asdict(spec)["missing_roles"] == {"RNA": "ER"}
