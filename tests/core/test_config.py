"""The config's check: good studies pass, wrong ones name key and place, model and code agree."""

import copy
import dataclasses
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from snakemake.utils import update_config

from hcsqc.core import config as settings
from hcsqc.core import config_model
from hcsqc.core.config_check import check_config
from hcsqc.core.config_model import METHODS as METHOD_MODELS
from hcsqc.core.errors import InputError
from hcsqc.crops.cut import CropSettings
from hcsqc.crops.nuclei import NucleusSettings
from hcsqc.encoders.measures import MEASURES
from hcsqc.encoders.registry import resolve_models
from hcsqc.encoders.views import ViewSettings
from hcsqc.labels.groups import GROUPINGS
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.settings import PretrainingSettings
from hcsqc.probes.draws import FEWEST_DRAWS_OF_A_MEAN
from hcsqc.probes.finetune import FinetuneSettings
from hcsqc.probes.finetune_search import FinetuneSearchSettings
from hcsqc.probes.frozen.knn import KnnSettings
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.probes.sgd import SgdSearchSettings, SgdSettings
from hcsqc.report.tables import PAPER_METHODS
from hcsqc.screens.scale import ScaleSettings
from hcsqc.screens.simulate.model import SimulationSettings
from tests.conftest import ROOT

DEFAULTS = yaml.safe_load((ROOT / "config.yaml").read_text())
GENERATED = runpy.run_path(str(ROOT / ".github" / "config_reference.py"))["files"]()
unhurried = hypothesis_settings(deadline=None)  # a busy machine is no failure
PROBE_SETTINGS = {
    "knn": KnnSettings,
    "linear": SgdSettings,
    "linear_search": SgdSearchSettings,
    "logistic": LogisticSettings,
    "finetune": FinetuneSettings,
    "finetune_search": FinetuneSearchSettings,
}


def read(*files: str) -> dict:
    """Return config.yaml with the profiles' files merged into it as Snakemake does."""
    config = copy.deepcopy(DEFAULTS)
    for file in files:
        update_config(config, yaml.safe_load((ROOT / "profiles" / file).read_text()))
    return config


def check(config: dict) -> None:
    check_config(config)


def message(config: dict) -> str:
    """Return what the check says is wrong."""
    with pytest.raises(InputError) as caught:
        check(config)
    text = str(caught.value)
    assert "\n" not in text, "a person reads one line"
    return text


def edited(**changes) -> dict:
    """Return the paper's config with some keys changed: `study__train="x"` sets study.train."""
    config = copy.deepcopy(DEFAULTS)
    for path, value in changes.items():
        *places, key = path.split("__")
        entry = config
        for place in places:
            entry = entry[place]
        entry[key] = value
    return config


def fields(*classes: type) -> set[str]:
    return {field.name for kind in classes for field in dataclasses.fields(kind)}


# The studies that the project ships.


@pytest.mark.parametrize(
    "files",
    [
        (),
        ("demo/study.yaml",),
        ("demo/study.yaml", "demo/full.yaml"),
        ("smoke/study.yaml",),
    ],
    ids=["paper", "demo", "demo-full", "smoke"],
)
def test_the_shipped_studies_pass(files):
    check(read(*files))


def test_a_profile_overrides_single_keys_and_keeps_the_rest():
    config = read("demo/study.yaml")
    assert config["study"]["name"] == "demo"
    assert config["study"]["test_crops"] == DEFAULTS["study"]["test_crops"]
    swav = settings.encoder_settings(config, "swav")
    assert (swav["prototypes"], swav["queue_size"], swav["sinkhorn_epsilon"]) == (100, 256, 0.05)


def test_a_chosen_screen_brings_the_screen_it_is_derived_from():
    config = read("smoke/study.yaml")
    check(config)
    assert settings.chosen_screens(config) == ["degraded", "fields"]
    assert settings.channels(config, "degraded") == ["w1", "w4", "w5"]


# Misspelt keys.


@pytest.mark.parametrize(
    ("path", "where", "wrong", "meant"),
    [
        ("studdy", "top level", "studdy", "study"),
        ("study__encoder", "study", "encoder", "encoders"),
        ("crops__window_pix", "crops", "window_pix", "window_px"),
        ("screens__BBBC022__plate", "screens.BBBC022", "plate", "plates"),
        ("encoders__vgg16__input_pix", "encoders.vgg16", "input_pix", "input_px"),
        ("probes__knn__neighbors", "probes.knn", "neighbors", "neighbours"),
        ("presets__paper__common__epoch", "presets.paper.common", "epoch", "epochs"),
        ("presets__paper__swav__prototype", "presets.paper.swav", "prototype", "prototypes"),
        (
            "presets__solo_learn__vicreg__momentun",
            "presets.solo_learn.vicreg",
            "momentun",
            "momentum",
        ),
        ("tracking__url", "tracking", "url", "uri"),
    ],
)
def test_a_misspelt_key_is_named_with_its_place_and_the_likely_one(path, where, wrong, meant):
    text = message(edited(**{path: 1}))
    assert text == f"config: {where}: unknown key '{wrong}'; did you mean '{meant}'?"


def test_a_misspelt_key_of_a_simulation_is_named():
    config = read("demo/study.yaml")
    config["screens"]["sim022"]["simulate"]["cell_lines"] = "u2os"
    assert message(config) == (
        "config: screens.sim022.simulate: unknown key 'cell_lines'; did you mean 'cell_line'?"
    )


def test_a_key_like_no_other_lists_the_known_ones():
    assert message(edited(features__zzzz=1)).endswith(
        "'zzzz'; known: batch_size, precision, sample, standardised"
    )


@unhurried
@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12))
def test_no_unknown_key_of_the_study_passes(key):
    config = edited(**{"study": DEFAULTS["study"] | {key: 1}})
    if key in DEFAULTS["study"]:
        return  # overrides a known key; other tests hold its type
    assert f"study: unknown key '{key}'" in message(config)


def test_wells_may_be_written_as_everywhere_and_are_then_written_alike():
    config = edited(screens__BBBC022__evaluation_wells=["a1", " B02", "C003 ", "AF48"])
    check(config)
    assert config["screens"]["BBBC022"]["evaluation_wells"] == ["A01", "B02", "C03", "AF48"]


@pytest.mark.parametrize(
    ("wells", "problem"),
    [
        (["A01", "north"], ".1: 'north' is not a well such as A01"),
        (["A73"], ".0: 'A73' is not a well such as A01"),
        (["A1", "A01"], ": ['A1', 'A01'] has non-unique elements"),
    ],
)
def test_what_is_no_evaluation_well_is_named(wells, problem):
    text = message(edited(screens__BBBC022__evaluation_wells=wells))
    assert text == f"config: screens.BBBC022.evaluation_wells{problem}"


NEEDED = {
    key: DEFAULTS["screens"]["BBBC022"][key]
    for key, field in config_model.Screen.model_fields.items()
    if field.is_required()
}
LOADDATA = {
    **NEEDED,
    "layout": "loaddata",
    "images": "i",
    "table": "t.csv",
}


@pytest.mark.parametrize("name", ["HOECHST 33342", "Alexa 488 (conf.)", "µ-tubulin", "1", "a&b"])
def test_a_channel_may_be_called_as_microscopes_call_it(name):
    own = {"channels": [name, "B"], "nucleus_channel": name, "composite": ["B", name, name]}
    check(edited(screens__BBBC022=LOADDATA | own))


@pytest.mark.parametrize("name", ["-rf", " a", "a,b", "a:b", "a/b", "a\\b", "{a}", "a\n", "$a", ""])
def test_a_channel_that_flags_or_paths_could_not_hold_is_refused(name):
    text = message(edited(screens__BBBC022=LOADDATA | {"channels": ["A", name]}))
    assert text == (
        f"config: screens.BBBC022.channels.1: {name!r} begins with - or a space, or holds one of "
        "" + """, : / \\ { } " ' $ `"""
    )


def test_rules_quote_what_may_hold_a_space():
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    used = re.findall(r"\{params\.(?:composites?|shifted|nucleus|wells)[^}]*\}", rules)
    used += re.findall(r"--channels (\{params\.channels[^}]*\}) \{params.screen\}", rules)
    assert len(used) > 15 and all(name.endswith(":q}") for name in used)


def test_evaluation_wells_of_a_simulated_screen_are_simulated():
    config = read("demo/study.yaml")
    config["screens"]["sim022"]["evaluation_wells"][0] = "P24"
    expected = "config: screens.sim022.evaluation_wells: 'P24' is not one of the simulated wells"
    assert message(config).startswith(expected)


@pytest.mark.parametrize("bits", range(8, 17))
def test_a_camera_may_have_any_bits_from_8_to_16(bits):
    check(edited(screens__BBBC022__bits=bits))


@pytest.mark.parametrize(
    ("bits", "problem"),
    [
        (7, "7 is less than the minimum of 8"),
        (17, "17 is greater than the maximum of 16"),
        (12.0, "12.0 is not of type 'integer'"),
        ("14", "'14' is not of type 'integer'"),
        (True, "True is not of type 'integer'"),
    ],
)
def test_other_bits_are_named(bits, problem):
    assert (
        message(edited(screens__BBBC022__bits=bits)) == f"config: screens.BBBC022.bits: {problem}"
    )


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("study__draws", 0, "study.draws: 0 is less than the minimum of 1"),
        ("study__draws", "20", "study.draws: '20' is not of type 'integer'"),
        ("study__budgets", [350, 1], "study.budgets.1: 1 is less than the minimum of 2"),
        ("study__name", "a/b", "study.name: 'a/b' does not match"),
        ("study__encoders", [], "study.encoders: [] should be non-empty"),
        ("study__seeds", [0, 0], "study.seeds: [0, 0] has non-unique elements"),
        ("labels__truth_per_field", 0, "labels.truth_per_field: 0 is less than the minimum of 1"),
        ("labels__truth_per_artefact", 2.5, "labels.truth_per_artefact: 2.5 is not of type 'int"),
        ("labels__truth_trimmed", 1.0, "labels.truth_trimmed: 1.0 is greater than or equal to the"),
        ("labels__truth_trimmed", -0.1, "labels.truth_trimmed: -0.1 is less than the minimum of 0"),
        ("crops__window_px", 127, "crops.window_px: 127 is not a multiple of 2"),
        (
            "evaluation__group_by",
            "compounds",
            "evaluation.group_by: unknown value 'compounds'; did you mean 'compound'?",
        ),
        (
            "probes__finetune__batchnorm",
            "froozen",
            "probes.finetune.batchnorm: unknown value 'froozen'; did you mean 'frozen'?",
        ),
        (
            "probes__finetune_searched__least_steps",
            -1,
            "probes.finetune_searched.least_steps: -1 is less than the minimum of 0",
        ),
        ("probes__finetune__least_steps", 0.5, "probes.finetune.least_steps: 0.5 is not of type"),
        ("probes__linear_paper__batchnorm", "train", "probes.linear_paper: unknown key 'batchnor"),
        ("probes__knn__kind", "svm", "probes.knn.kind: unknown value 'svm'"),
        ("encoders__vgg16__kind", "supervised", "encoders.vgg16.kind: unknown value 'supervised'"),
        ("screens__BBBC022__composite", [], "screens.BBBC022.composite: [] should be non-empty"),
        ("screens__BBBC022__labels", "guess", "screens.BBBC022.labels: 'truth' was expected"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place(path, value, expected):
    assert message(edited(**{path: value})).startswith(f"config: {expected}")


def test_what_is_independent_is_a_well_unless_the_config_says_otherwise():
    assert edited()["evaluation"]["group_by"] == "well"
    allowed = config_model.Evaluation.model_fields["group_by"].annotation
    assert get_args(allowed) == GROUPINGS


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("study", "test"),
        ("probes.knn", "neighbours"),
        ("probes.finetune", "least_steps"),
        ("presets.paper.common", "epochs"),
    ],
)
def test_a_missing_key_is_named_with_its_place(place, key):
    config = copy.deepcopy(DEFAULTS)
    entry = config
    for part in place.split("."):
        entry = entry[part]
    del entry[key]
    assert message(config) == f"config: {place}: '{key}' is missing"


# Names that refer to nothing.


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("study__train", "BBBC22", "study: screens: unknown name 'BBBC22'; did you mean 'BBBC022'"),
        (
            "study__test",
            ["BBC021"],
            "study: screens: unknown name 'BBC021'; did you mean 'BBBC021'",
        ),
        (
            "study__encoders",
            ["simcrl"],
            "study: encoders: unknown name 'simcrl'; did you mean 'simclr'",
        ),
        ("study__not_run", {"vgg61": "no"}, "study: encoders: unknown name 'vgg61'"),
        (
            "study__probes",
            ["linear"],
            "study: probes: unknown name 'linear'; did you mean 'linear_p",
        ),
        (
            "encoders__simclr__preset",
            "papr",
            "encoders.simclr.preset: unknown name 'papr'; did you mean 'paper'",
        ),
        (
            "encoders__simclr__method",
            "simclrr",
            "encoders.simclr.method: unknown value 'simclrr'; did you mean 'simclr'",
        ),
    ],
)
def test_an_unknown_name_is_named_with_the_likely_one(path, value, expected):
    assert message(edited(**{path: value})).startswith(f"config: {expected}")


def test_only_what_the_study_chooses_is_looked_up():
    config = edited(encoders__unused={"kind": "ssl", "method": "swav", "preset": "nothing"})
    check(config)
    config["study"]["encoders"].append("unused")
    assert "unknown name 'nothing'" in message(config)


def test_nuclei_are_as_large_as_their_screen_says_or_else_as_crops_do():
    config = read("smoke/study.yaml")
    config["screens"]["fields"]["nucleus_diameter_px"] = 40
    check(config)
    expected = {"nucleus_diameter_px": 40, "nucleus_smallest_px": 80}
    assert settings.nucleus_size(config, "fields") == expected
    assert settings.nucleus_size(config, "degraded") == expected  # derived from it
    assert settings.nucleus_size(config, "BBBC021")["nucleus_diameter_px"] == 25
    config["screens"]["fields"]["nucleus_diameter_px"] = 1
    assert "screens.fields.nucleus_diameter_px: 1" in message(config)


def test_a_screen_derived_from_nothing_is_named():
    config = read("smoke/study.yaml")
    config["screens"]["degraded"]["derived_from"] = "feilds"
    assert "screens.degraded.derived_from: unknown name 'feilds'; did you mean 'fields'" in message(
        config
    )


def test_a_screen_derived_from_a_derived_one_is_refused():
    config = read("smoke/study.yaml")
    config["screens"]["twice"] = config["screens"]["degraded"] | {"derived_from": "degraded"}
    config["study"]["train"] = "twice"
    assert "screens.twice: 'degraded' is itself derived" in message(config)


def test_an_encoder_both_run_and_not_run_is_refused():
    text = message(edited(study__not_run={"swav": "no time"}))
    assert text == "config: encoder 'swav' is in study.encoders and in study.not_run"


def test_an_override_that_its_method_does_not_have_is_named():
    simclr = {"kind": "ssl", "method": "simclr", "preset": "paper", "temprature": 0.1}
    assert message(edited(encoders__simclr=simclr)) == (
        "config: encoders.simclr: unknown key 'temprature' for method simclr"
        "; did you mean 'temperature'?"
    )
    other = {"kind": "ssl", "method": "simclr", "preset": "paper", "prototypes": 10}
    assert "unknown key 'prototypes' for method simclr" in message(edited(encoders__simclr=other))


# Screens.


def test_the_light_of_a_simulated_screen_is_above_0():
    config = read("demo/study.yaml")
    config["screens"]["sim022"]["simulate"]["light"] = 0
    expected = "config: screens.sim022.simulate.light: 0 is less than or equal to the minimum of 0"
    assert message(config).startswith(expected)


def test_a_real_screen_has_no_truth():
    text = message(edited(screens__BBBC022__labels="truth"))
    assert text.startswith("config: screens.BBBC022.labels: only a simulated or derived screen")


def test_a_real_screen_needs_its_images():
    config = copy.deepcopy(DEFAULTS)
    del config["screens"]["BBBC022"]["images"]
    assert message(config) == "config: screens.BBBC022: 'images' is missing"


@pytest.mark.parametrize("written", ["$HCSQC_NOWHERE/images", "${HCSQC_NOWHERE}/images"])
@pytest.mark.parametrize("key", ["images", "image_csv", "labels"])
def test_an_unset_environment_variable_is_named(key, written, monkeypatch):
    monkeypatch.delenv("HCSQC_NOWHERE", raising=False)
    value = [written] if key == "labels" else written
    assert message(edited(**{f"screens__BBBC022__{key}": value})) == (
        f"config: screens.BBBC022.{key}: environment variable HCSQC_NOWHERE is not set"
    )


def test_environment_variables_are_expanded(monkeypatch):
    monkeypatch.setenv("HCSQC_SOMEWHERE", "/disk")
    config = edited(
        screens__BBBC022__images="$HCSQC_SOMEWHERE/images",
        screens__BBBC022__labels=["${HCSQC_SOMEWHERE}/alice.csv"],
        encoders__vgg16__file="$HCSQC_SOMEWHERE/vgg16.pth",
    )
    check(config)
    assert config["screens"]["BBBC022"]["images"] == "/disk/images"
    assert config["screens"]["BBBC022"]["labels"] == ["/disk/alice.csv"]
    assert config["encoders"]["vgg16"]["file"] == "/disk/vgg16.pth"


@pytest.mark.parametrize("key", ["pretrain_plates", "labelled_plates"])
def test_pretraining_and_labelled_plates_must_be_plates_of_the_screen(key):
    text = message(edited(**{f"screens__BBBC022__{key}": ["20585", "99999"]}))
    assert text == f"config: screens.BBBC022.{key}: '99999' is not one of its plates"


def test_a_channel_that_the_layout_lacks_is_named():
    text = message(edited(screens__BBBC021__composite=["w4", "w3", "w1"]))
    assert text == "config: screens.BBBC021: channel 'w3' is not one of w1, w2, w4"
    assert "channel 'w9'" in message(edited(screens__BBBC022__nucleus_channel="w9"))


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_encoders_that_learn_or_are_random_take_any_number_of_channels(channels):
    config = edited(
        screens__BBBC022__composite=["w1", "w2", "w3", "w4", "w5"][:channels],
        study__test=[],
        study__encoders=["simclr", "random_resnet18"],
    )
    check(config)
    config["study"]["encoders"].append("vgg16")
    assert message(config) == (
        "config: weights of encoder 'vgg16' are for three channels, but "
        f"screens.BBBC022.composite has {channels}; state channels: each or channels: adapted in "
        "encoders.vgg16, list three channels, or leave it out of study.encoders"
    )
    for mode in ("each", "adapted"):
        config["encoders"]["vgg16"]["channels"] = mode
        check(config)


def test_screens_that_are_compared_have_as_many_channels():
    config = edited(screens__BBBC022__composite=["w1", "w2", "w3", "w4", "w5"])
    config["study"]["encoders"] = ["simclr"]
    assert message(config) == (
        "config: screens.BBBC022.composite and screens.BBBC021.composite differ in length, 5 and "
        "3; an encoder sees both screens, list as many channels"
    )


def test_a_derived_screens_own_composite_counts():
    config = read("smoke/study.yaml")
    config["study"]["encoders"] = ["simclr", "random_resnet18"]
    config["screens"]["degraded"]["composite"] = ["w1", "w4", "w5", "w1"]
    check(config)
    config["study"]["encoders"] = ["efficientnet_lite0"]
    assert "screens.degraded.composite has 4" in message(config)


def test_pretraining_without_plates_is_refused_and_given_weights_need_none():
    config = edited(screens__BBBC022__pretrain_plates=[])
    assert "encoder 'simclr' trains on crops" in message(config)
    config["study"]["encoders"] = ["vgg16", "random_resnet18"]
    check(config)


@pytest.mark.parametrize(
    ("layout", "needed", "foreign"),
    [
        ("files", {"pattern": "x", "channels": ["w1"]}, "table"),
        ("loaddata", {"table": "x.csv", "channels": ["w1"]}, "image_csv"),
        ("ome_zarr", {"channels": ["w1"]}, "pattern"),
        ("bbbc021", {"image_csv": "x.csv"}, "table"),
    ],
)
def test_a_layout_needs_its_own_keys_and_refuses_those_of_others(layout, needed, foreign):
    entry = dict(NEEDED)
    entry |= {"layout": layout, "images": "images"}
    text = message(edited(screens__own=entry))
    assert text == f"config: screens.own: '{next(iter(needed))}' is missing"
    check(edited(screens__own=entry | needed))
    text = message(edited(screens__own=entry | needed | {foreign: "x"}))
    assert text.startswith(f"config: screens.own: unknown key '{foreign}'")
    text = message(edited(screens__own=entry | needed | {"layout": layout[:-1]}))
    assert text.startswith(f"config: screens.own.layout: unknown value '{layout[:-1]}'")


def test_channels_of_a_published_screen_are_those_that_it_has():
    config = edited(screens__BBBC022__channels=["w1", "w4", "w5"])
    check(config)
    assert settings.channels(config, "BBBC022") == ["w1", "w4", "w5"]
    text = message(edited(screens__BBBC022__channels=["w1", "w4", "w5", "w9"]))
    assert text == "config: screens.BBBC022.channels: 'w9' is not one of w1, w2, w3, w4, w5"


def own_screen(**changes):
    """Return the config of a study of one screen, with changes of its entry."""
    entry = copy.deepcopy(DEFAULTS["screens"]["BBBC022"])
    for key in ("layout", "image_csv", "images", "archives"):
        entry.pop(key, None)
    config = edited(screens__own=entry | changes)
    config["study"] |= {"train": "own", "test": []}
    return config


def test_plates_of_the_gallery_are_in_its_bucket_unless_said_otherwise():
    gallery = {"layout": "cell_painting_gallery", "project": "cpg0016-jump", "source": "source_4"}
    gallery["channels"] = ["w1", "w2", "w3", "w4", "w5"]
    config = own_screen(**gallery)
    check(config)
    assert config["screens"]["own"]["images"] == "s3://cellpainting-gallery"
    copied = own_screen(**gallery, images="/data/gallery")
    check(copied)
    assert copied["screens"]["own"]["images"] == "/data/gallery"
    assert "project: '../x'" in message(own_screen(**gallery | {"project": "../x"}))


def test_of_images_at_a_url_only_what_is_seen_is_downloaded():
    files = {"layout": "files", "pattern": r"(?P<well>\w+)_(?P<channel>\w+)\.tif"}
    files["channels"] = ["w1", "w2", "w3", "w4", "w5"]
    seen = {"nucleus_channel": "w1", "composite": ["w4", "w5", "w3"]}
    at_url = own_screen(**files, **seen, images="s3://bucket/{plate}")
    check(at_url)
    assert settings.channels(at_url, "own") == ["w1", "w3", "w4", "w5"]
    on_disk = own_screen(**files, **seen, images="/data/{plate}")
    assert settings.channels(on_disk, "own") == files["channels"]
    at_url["encoders"]["painted"] = {"kind": "transfer", "roles": ["DNA", "ER"]}
    assert settings.channels(at_url, "own") == files["channels"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://me:secret@host/a", "holds a password or signature"),
        ("https://host/a?X-Amz-Signature=secret", "holds a password or signature"),
        ("ftp://host/a", "is not a path or a URL of s3://, gs:// or https://"),
        ("s3:///a", "is not a path or a URL of"),
    ],
)
def test_urls_that_cannot_be_or_hold_a_secret_are_refused(url, reason):
    files = {"layout": "files", "pattern": r"(?P<well>\w+)\.tif", "channels": ["w1"]}
    text = message(own_screen(**files, images=url))
    assert text.startswith("config: screens.own.images: ") and reason in text
    assert "secret" not in text
    table = {"layout": "loaddata", "images": "/data", "channels": ["w1"], "table": url}
    text = message(own_screen(**table))
    assert text.startswith("config: screens.own.table: ") and reason in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"qc__detector": "https://me:secret@host/detector"},
        {"screens__BBBC022__labels": ["s3://me:secret@bucket/labels.csv"]},
        {"screens__BBBC022__dates": "https://host/dates.csv?signature=secret"},
        {"encoders__resnet18__file": "https://me:secret@host/weights.safetensors"},
    ],
)
def test_no_path_of_a_study_may_hold_a_secret(changes):
    text = message(edited(**changes))
    place = next(iter(changes)).replace("__", ".")
    assert text.startswith(f"config: {place}: holds a password or signature")
    assert "secret" not in text


def test_the_prefix_of_a_tables_paths_may_hold_no_secret():
    table = {"layout": "loaddata", "images": "/data", "channels": ["w1"], "table": "a.csv"}
    text = message(own_screen(**table, table_prefix="https://me:secret@host/plates"))
    assert text.startswith("config: screens.own.table_prefix: holds a password or signature")


def published(**changes) -> dict:
    """Return the defaults with published flags of BBBC022."""
    entry = {"table": "flags/{plate}.csv", "columns": {"isBlurry": "out of focus"}} | changes
    return edited(screens__BBBC022__published_flags=entry)


@pytest.mark.parametrize(
    ("changes", "place", "reason"),
    [
        ({"table": "https://me:secret@host/a.csv"}, "table", "holds a password or signature"),
        ({"table": "s3://"}, "table", "is not a path or a URL of"),
        ({"table": "{plate}/{site}.csv"}, "table", "contains braces, but only {plate} can"),
        ({"table": "$NOT_SET/a.csv"}, "table", "environment variable NOT_SET is not set"),
        ({"columns": {}}, "columns", "should be non-empty"),
        ({"columns": {"a=b": "blur"}}, "columns", "does not match"),
        ({"columns": {"a": ""}}, "columns.a", "does not match"),
        ({"flags": 1}, "", "unknown key 'flags'"),
    ],
)
def test_published_flags_that_cannot_be_are_refused(changes, place, reason):
    text = message(published(**changes))
    where = f"config: screens.BBBC022.published_flags{'.' * bool(place)}{place}"
    assert text.startswith(where) and reason in text and "secret" not in text


def test_a_table_of_published_flags_may_hold_variables(monkeypatch):
    monkeypatch.setenv("FLAGS", "s3://gallery")
    config = published(table="$FLAGS/{plate}/{plate}.sqlite")
    check(config)
    table = config["screens"]["BBBC022"]["published_flags"]["table"]
    assert table == "s3://gallery/{plate}/{plate}.sqlite"


def numbers(value: object, place: tuple = ()) -> Iterator[tuple]:
    """Yield the place of every number in a config."""
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in inside:
            yield from numbers(part, (*place, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place


NUMBERS = list(numbers(DEFAULTS))


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NUMBERS),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 10**400, -(10**400)]),
)
def test_a_number_that_no_table_holds_is_refused_wherever_it_stands(place, value):
    config = copy.deepcopy(DEFAULTS)
    entry = config
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    text = message(config)
    assert text.startswith(f"config: {'.'.join(map(str, place))}: {str(value)[:60]}")
    assert " is " in text and len(text) < 200


# Names, which become folders, files and flags.

NAMES_OF = {
    "study": lambda name: edited(study__name=name),
    "screen": lambda name: renamed("screens", "BBBC022", name),
    "encoder": lambda name: renamed("encoders", "vgg16", name),
    "probe": lambda name: renamed("probes", "knn", name),
    "plate": lambda name: edited(screens__BBBC022__plates=[name, "20585"]),
    "channel": lambda name: edited(screens__BBBC022__channels=["w1", "w4", "w5", name]),
    "architecture": lambda name: edited(encoders__vgg16__architecture=name),
    "package": lambda name: edited(encoders__vgg16__package=name),
}


def renamed(kind: str, old: str, new: str) -> dict:
    """Return the paper's config with an entry of a catalogue under another name, and chosen so."""
    config = copy.deepcopy(DEFAULTS)
    config[kind][new] = config[kind].pop(old)
    study = config["study"]
    for key in (kind, "train"):
        if isinstance(study.get(key), list):
            study[key] = [new if name == old else name for name in study[key]]
        elif study.get(key) == old:
            study[key] = new
    return config


@pytest.mark.parametrize(
    "name",
    ["-rf", "{x}", "../../x", "a/b", "a\nb", "x\n", "", "..", "--config", "a{", "x" * 300, "\0"],
    ids=ascii,
)
@pytest.mark.parametrize("kind", NAMES_OF)
def test_a_name_that_would_be_something_else_is_refused(kind, name):
    text = message(NAMES_OF[kind](name))
    assert text.startswith("config: ") and len(text) < 300
    if kind not in ("study", "architecture", "package"):
        assert kind in text
    wrong = repr(name)[1:-1][:40]
    assert wrong in text


@pytest.mark.parametrize("name", ["0042", "BR00117010", "Week1_22123", "p 1 (copy)", "it's", "ü"])
def test_plates_have_the_names_that_screens_give_them(name):
    check(edited(screens__BBBC022__plates=[name, *DEFAULTS["screens"]["BBBC022"]["plates"]]))


@unhurried
@given(st.text(max_size=120))
def test_whatever_a_plate_is_called_it_is_one_file_or_one_line(name):
    try:
        check(edited(screens__BBBC022__plates=[name, *DEFAULTS["screens"]["BBBC022"]["plates"]]))
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert Path(name).name == name.strip() and name.isprintable()
        assert not {"{", "}"} & set(name) and not name.startswith(("-", "."))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0042", "34"),
        ("12:30", "750"),
        ("1.0e+3", "1000.0"),
        ("no", "False"),
        ("2024-01-31", "date"),
    ],
)
@pytest.mark.parametrize("place", ["plates", "evaluation_wells", "channels"])
def test_a_name_that_yaml_takes_for_something_else_is_to_be_quoted(place, written, read):
    given = yaml.safe_load(f"[{written}]")
    text = message(edited(**{f"screens__BBBC022__{place}": given}))
    assert text.startswith(f"config: screens.BBBC022.{place}.0: ") and read in text
    assert "quote the name" in text
    check(edited(screens__BBBC022__plates=[written, *DEFAULTS["screens"]["BBBC022"]["plates"]]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("screens__BBBC022__images", "/data/{x}"),
        ("screens__BBBC022__images", "-rf"),
        ("screens__BBBC022__image_csv", "a\nb.csv"),
        ("screens__BBBC022__locations", "{plate}/{site}.csv"),
        ("screens__BBBC022__illumination", "{plate}_{channel.x}.npy"),
        ("screens__BBBC022__labels", ["labels{1}.csv"]),
        ("screens__BBBC022__archives__files", ["{x}.csv"]),
        ("screens__BBBC022__archives__plate", ["{plate}-{x}.zip"]),
        ("encoders__vgg16__file", "w{0}.pth"),
        ("qc__detector", "results/{x}/qc/detector"),
    ],
)
def test_a_path_that_would_be_something_else_is_refused(path, value):
    text = message(edited(**{path: value}))
    assert text.startswith(f"config: {path.replace('__', '.')}: ")
    assert "rename" in text or "write ./ before it" in text


def test_a_study_is_not_called_like_a_folder_of_all_studies():
    assert "study.name: 'weights' is the folder" in message(edited(study__name="weights"))


def test_weights_of_a_file_with_a_long_name_fit_into_a_files_name():
    entry = {"architecture": "resnet18", "file": f"/data/{'x' * 250}.pth"}
    other = entry | {"file": f"/data/{'x' * 249}y.pth"}
    assert len(settings.weights_name(entry)) < 120
    assert settings.weights_name(other) != settings.weights_name(entry)


def test_an_absent_key_is_not_null():
    assert "screens.BBBC022.bits: None is not of type 'integer'" in message(
        edited(screens__BBBC022__bits=None)
    )
    assert "presets.paper.simclr: None is not of type 'object'" in message(
        edited(presets__paper__simclr=None)
    )


def test_a_word_that_is_no_section_is_named():
    assert message(edited(crops="none")) == "config: crops: 'none' is not of type 'object'"
    assert message(edited(probes__knn=5)) == "config: probes.knn: 5 is not of type 'object'"
    screens = {"a/b": DEFAULTS["screens"]["BBBC022"]}
    assert message(edited(screens=screens)).startswith("config: screens: 'a/b' does not match")


@pytest.mark.parametrize("path", GENERATED, ids=str)
def test_the_schema_and_the_reference_are_those_of_the_model(path):
    """If not: `make config`."""
    assert (ROOT / path).read_text() == GENERATED[path]


@pytest.mark.parametrize("files", [(), ("demo/study.yaml",), ("smoke/study.yaml",)])
def test_the_schema_allows_what_the_check_allows(files):
    schema = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(read(*files))) == []
    for path, value in (("study__draws", 0), ("qc__encodr", 1), ("probes__knn__kind", "svm")):
        assert list(validator.iter_errors(edited(**{path: value})))


DERIVED = {
    **NEEDED,
    "derived_from": "BBBC022",
    "artefacts": "simulated",
    "labels": "truth",
}


OF_FILES = {key: value for key, value in LOADDATA.items() if not key.startswith("table")} | {
    "layout": "files",
    "pattern": "(?P<plate>P1)(?P<well>B02)(?P<channel>c)",
    "channels": DEFAULTS["screens"]["BBBC022"]["composite"],
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"study__test": ["BBBC022"]}, "study.test: 'BBBC022' is the training screen"),
        ({"screens__BBBC022__evaluation_wells": []}, "evaluation_wells is empty; test labels come"),
        (
            {"evaluation__group_by": "plate", "screens__BBBC022__plates": ["20585"]}
            | {"screens__BBBC022__pretrain_plates": ["20585"]},
            "group_by is plate, but screens.BBBC022 has one plate with labels, 20585, so that",
        ),
        (
            {"evaluation__group_by": "plate", "screens__BBBC022__labelled_plates": ["20585"]},
            "group_by is plate, but screens.BBBC022 has one plate with labels, 20585, so that",
        ),
        (
            {
                "evaluation__group_by": "compound",
                "screens__own": OF_FILES,
                "study__test": ["own"],
            },
            "evaluation.group_by is compound, but screens.own has the layout files, which names no",
        ),
        ({"probes__knn__budgets": [7]}, "probes.knn.budgets: 7 is not one of study.budgets"),
        (
            {"screens__degraded": DERIVED | {"plates": ["7"]}, "study__train": "degraded"},
            "screens.degraded.plates: '7' is not a plate of BBBC022",
        ),
        (
            {"screens__BBBC022__illumination": "functions/{plat}.npy"},
            "screens.BBBC022.illumination: 'functions/{plat}.npy' contains braces, but only "
            "{plate} and {channel} can be filled in",
        ),
        (
            {"crops__window_um": 60.0, "screens__BBBC022__layout": "bbbc022", "drop": "pixel_um"},
            "screens.BBBC022: crops.window_um needs the size of its pixels, pixel_um",
        ),
        (
            {"screens__BBBC022__images": "images/{plate}"},
            "screens.BBBC022.images: a screen with archives has one folder, without {plate}",
        ),
        ({"qc__encoder": "simcrl"}, "'simcrl' is not one of study.encoders; did you mean 'simclr'"),
        (
            {"screens__degraded": DERIVED, "study__train": "degraded", "qc__screens": ["degraded"]},
            "qc.screens: 'degraded' is derived and has no images of its own to flag; name BBBC022",
        ),
    ],
)
def test_names_that_do_not_agree_are_named(changes, expected):
    config = edited(**{key: value for key, value in changes.items() if key != "drop"})
    if "drop" in changes:
        del config["screens"]["BBBC022"][changes["drop"]]
    assert expected in message(config)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"kind": "pooled", "encoder": "image_quality", "pool": "stages", "region": "cell"},
            "encoders.own.encoder: 'image_quality' has no network whose feature maps",
        ),
        (
            {"kind": "pooled", "encoder": "simcrl", "pool": "stages", "region": "cell"},
            "encoders.own.encoder: unknown name 'simcrl'; did you mean 'simclr'",
        ),
        (
            {"kind": "joined", "encoders": ["simclr", "own"]},
            "encoders.own refers to itself",
        ),
        (
            {"kind": "joined", "encoders": ["simclr", "table"]},
            "encoders.own.encoders: 'table' is a table of features and cannot see other crops",
        ),
        ({"kind": "joined", "encoders": []}, "encoders.own.encoders: [] should be non-empty"),
        (
            {"kind": "pooled", "encoder": "simclr", "pool": "all", "region": "cell"},
            "encoders.own.pool: unknown value 'all'",
        ),
    ],
)
def test_an_encoder_made_of_others_that_cannot_be_is_refused(entry, expected):
    table = {"kind": "transfer", "features": "features/{screen}.parquet"}
    config = edited(encoders__own=entry, encoders__table=table)
    config["study"]["encoders"] = ["simclr", "own"]
    assert expected in message(config)


def test_an_encoder_made_of_others_brings_them_and_has_their_seeds():
    entries = {
        "stages": {"kind": "pooled", "encoder": "swav", "pool": "stages", "region": "cell"},
        "both": {"kind": "joined", "encoders": ["stages", "image_quality"]},
    }
    config = edited(study__encoders=["both", "vgg16"])
    config["encoders"] |= entries
    check(config)
    assert settings.built_encoders(config) == ["swav", "stages", "image_quality", "both", "vgg16"]
    seeded = {name: settings.is_seeded(config, name) for name in settings.built_encoders(config)}
    assert [name for name, one in seeded.items() if one] == ["swav", "stages", "both"]
    assert not settings.probed(config, "both", "finetune_paper")
    assert settings.probed(config, "both", "knn")


# What an encoder and a probe get.


def test_an_encoder_takes_its_own_value_then_the_methods_then_the_presets():
    config = edited(
        encoders__simclr={"kind": "ssl", "method": "simclr", "preset": "paper", "epochs": 9},
    )
    config["presets"]["paper"]["common"]["temperature"] = 0.5  # the method's own stands above
    found = settings.encoder_settings(config, "simclr")
    assert (found["epochs"], found["temperature"], found["batch_size"]) == (9, 0.07, 128)
    config["encoders"]["simclr"]["temperature"] = 0.2
    assert settings.encoder_settings(config, "simclr")["temperature"] == 0.2
    assert settings.encoder_settings(config, "vicreg")["epochs"] == 5


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("study: {}".encode("utf-16"), "'utf-8' codec can't decode byte 0xff"),
        ("study: {name: caf\xe9}".encode("latin-1"), "'utf-8' codec can't decode byte 0xe9"),
        (b"study: {name", "while parsing a flow mapping"),
        (b"", "it has no keys"),
        (None, "Is a directory"),
    ],
)
def test_defaults_that_cannot_be_read_are_named_in_one_line(tmp_path, content, why):
    path = tmp_path / "config.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        settings.read_defaults(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be read as YAML in UTF-8 (") and why in text
    assert "\n" not in text and text.endswith("write your settings into your study's file")


def test_looking_up_an_encoder_changes_no_config():
    config = copy.deepcopy(DEFAULTS)
    settings.encoder_settings(config, "swav")["prototypes"] = 1
    assert config == DEFAULTS


@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_gets_exactly_what_pretraining_reads(method):
    found = settings.encoder_settings(DEFAULTS, method)
    needed = fields(PretrainingSettings, ViewSettings, METHODS[method].Settings)
    assert set(found) == needed | {"kind"}


def test_a_probes_own_budgets_and_draws_stand_above_the_studys():
    config = read("demo/study.yaml")
    assert settings.probe_budgets(config, "finetune") == [25]
    assert settings.probe_draws(config, "finetune") == 3
    assert settings.probe_budgets(config, "knn") == [350, 100, 25, 10]
    assert settings.probe_draws(config, "knn") == 15


@pytest.mark.parametrize("files", [(), ("demo/study.yaml",), ("demo/study.yaml", "demo/full.yaml")])
def test_the_shipped_figures_of_few_labels_are_means_over_three_draws_or_more(files):
    config = read(*files)
    for probe in config["study"]["probes"]:
        assert settings.probe_draws(config, probe) >= FEWEST_DRAWS_OF_A_MEAN


@pytest.mark.parametrize("probe", DEFAULTS["probes"])
def test_a_probe_gets_exactly_what_its_classifier_reads(probe):
    kind = DEFAULTS["probes"][probe]["kind"]
    assert set(settings.probe_settings(DEFAULTS, probe)) == fields(PROBE_SETTINGS[kind])


# The model knows the same keys as the code.


def keys(model: type, *beside: str) -> set[str]:
    """Return the required keys of a section but for some; what may be absent is no setting."""
    return {key for key, field in model.model_fields.items() if field.is_required()} - set(beside)


@pytest.mark.parametrize("method", METHODS)
def test_the_models_method_keys_are_those_of_the_code(method):
    model = METHOD_MODELS[method]
    # The method is chosen by the encoder, not by the preset.
    needed = fields(PretrainingSettings, ViewSettings, METHODS[method].Settings) - {"method"}
    assert keys(model) == set(model.model_fields) == needed


def test_the_models_methods_and_measures_are_those_of_the_code():
    assert list(METHOD_MODELS) == list(METHODS) == list(get_args(config_model.Method))
    assert list(get_args(config_model.Measures)) == list(MEASURES)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"preset": "solo_learn", "epochs": 5}, "warmup_epochs is 10, more than epochs, 5"),
        ({"scale_min": 3.0}, "scale_min is 3.0, above scale_max, 1.2"),
        ({"method": "deepcluster_v2", "epochs": 1}, "learns from the second on"),
        ({"method": "byol", "tau_end": 0.9}, "tau_start is 0.99, above tau_end, 0.9"),
        ({"method": "dino", "tau_start": 1.1}, "tau_start: 1.1 is greater than the maximum of 1"),
        ({"method": "moco_v2_plus", "queue_size": 0}, "queue_size: 0 is less than the minimum"),
        ({"method": "simsiam", "tau_start": 0.9}, "unknown key 'tau_start'"),
        ({"batch_size": 1}, "batch_size: 1 is less than the minimum of 2"),
        ({"serach": {}}, "did you mean 'search'"),
        (
            {"search": {"learning_rate": [1], "weight_decay": [0], "epochs": 2, "crops": 9}},
            "search.crops is 9, less than a batch of 128",
        ),
        (
            {
                "method": "moco_v2_plus",
                "search": {"learning_rate": [1], "weight_decay": [0], "epochs": 2, "crops": 999},
            },
            "search.crops is 999, less than a queue of 65536",
        ),
    ],
)
def test_pretraining_that_could_not_run_is_refused_before_any_crop_is_cut(changes, problem):
    config = edited()
    config["encoders"]["simclr"] = {"kind": "ssl", "method": "simclr", "preset": "paper"} | changes
    assert problem in message(config)


def test_one_epoch_is_enough_where_no_chosen_method_needs_two():
    config = edited(study__encoders=["simclr"])
    config["presets"]["paper"]["common"]["epochs"] = 1
    check(config)
    config["study"]["encoders"].append("deepcluster_v2")
    assert "learns from the second on" in message(config)


def test_an_encoder_that_measures_is_not_fine_tuned():
    assert not settings.probed(DEFAULTS, "image_quality", "finetune_paper")
    assert settings.probed(DEFAULTS, "image_quality", "knn")
    assert settings.probed(DEFAULTS, "random_resnet18", "finetune_paper")


def test_measures_are_of_controls_or_classical_encoders_and_need_no_architecture():
    entry = {"kind": "classical", "measures": "image_quality"}
    check(edited(encoders__mine=entry))
    assert "'measures' is missing" in message(edited(encoders__mine={"kind": "classical"}))
    assert "did you mean 'image_quality'" in message(
        edited(encoders__mine=entry | {"measures": "image_qualities"})
    )
    text = message(edited(encoders__mine=entry | {"input_px": 64}))
    assert "encoders.mine: unknown key 'input_px'" in text
    assert "'architecture' is missing" in message(edited(encoders__mine={"kind": "control"}))


def test_budgets_may_be_the_largest_of_the_study():
    assert settings.probe_budgets(DEFAULTS, "knn_shuffled") == [350]
    assert settings.probe_budgets(edited(study__budgets=[40, 20]), "knn_shuffled") == [40]


@pytest.mark.parametrize("kind", PROBE_SETTINGS)
def test_the_models_probe_keys_are_those_of_the_probes(kind):
    (model,) = {
        member.__origin__
        for member in get_args(get_args(config_model.AnyProbe)[0])
        if kind in get_args(member.__origin__.model_fields["kind"].annotation)
    }
    assert keys(model, "kind") == fields(PROBE_SETTINGS[kind])


def test_the_models_crop_keys_are_those_of_the_code():
    # The rules make the resolution of a screen's crops from window_um and its pixels.
    settings = fields(CropSettings, NucleusSettings, ScaleSettings) - {"crop_px_per_px"}
    assert keys(config_model.Crops) == settings | {"window_um"}


def test_the_models_simulation_keys_are_those_of_the_code():
    assert set(config_model.Simulation.model_fields) == fields(SimulationSettings)
    assert fields(SimulationSettings) - keys(config_model.Simulation) == {"light"}


def test_every_method_of_a_preset_is_one_of_the_code():
    for preset in DEFAULTS["presets"].values():
        assert set(preset) - {"common"} == set(METHODS)


def test_a_methods_values_may_replace_those_of_its_preset():
    check(edited(presets__paper__swav__learning_rate=0.5))
    text = message(edited(presets__paper__swav__learning_rate=0))
    assert text.startswith("config: presets.paper.swav.learning_rate: 0 is less than or equal to")
    assert "'projector_hidden' is missing" in message(edited(presets__paper__simclr={}))


def test_the_solo_learn_preset_is_long_and_has_the_rates_of_its_methods():
    """Of bash_files/pretrain/imagenet-100/*.sh and, for temperature and sizes, its defaults."""
    config = copy.deepcopy(DEFAULTS)
    rates = {"simclr": 0.3, "barlow_twins": 0.3, "vicreg": 0.3, "deepcluster_v2": 0.6, "swav": 0.6}
    for method, rate in rates.items():
        config["encoders"]["own"] = {"kind": "ssl", "method": method, "preset": "solo_learn"}
        found = settings.encoder_settings(config, "own")
        assert (found["optimizer"], found["epochs"], found["momentum"]) == ("lars", 400, 0.9)
        assert found["learning_rate"] * found["batch_size"] / 256 == rate
        assert found["weight_decay"] == (1e-4 if rate == 0.3 else 1e-6)
        assert found["final_rate"] == (0.0 if rate == 0.3 else 0.0006)


@pytest.mark.parametrize(
    ("method", "optimizer", "rate", "decay", "warmup", "tau"),
    [
        ("byol", "lars", 0.5, 1e-5, 10, (0.99, 1.0)),
        ("moco_v2_plus", "sgd", 0.3, 1e-4, 0, (0.99, 0.999)),
        ("simsiam", "sgd", 0.5, 1e-5, 10, (None, None)),
        ("dino", "lars", 0.3, 1e-6, 10, (0.9995, 1.0)),
    ],
)
def test_the_solo_learn_preset_has_the_recipes_of_methods_that_the_paper_did_not_try(
    method, optimizer, rate, decay, warmup, tau
):
    config = edited(encoders__own={"kind": "ssl", "method": method, "preset": "solo_learn"})
    config["study"]["encoders"] = ["own"]
    check(config)
    found = settings.encoder_settings(config, "own")
    assert (found["optimizer"], found["learning_rate"]) == (optimizer, rate)
    assert (found["weight_decay"], found["warmup_epochs"]) == (decay, warmup)
    assert (found.get("tau_start"), found.get("tau_end")) == tau


def test_the_default_study_has_the_papers_methods_only():
    of_study = [
        DEFAULTS["encoders"][name]["method"]
        for name in DEFAULTS["study"]["encoders"]
        if DEFAULTS["encoders"][name]["kind"] == "ssl"
    ]
    assert of_study == list(PAPER_METHODS)
    assert set(METHODS) <= set(DEFAULTS["encoders"])


# What a study does otherwise.

TREES = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


def test_differences_give_key_new_and_old_value():
    base = {"study": {"draws": 20, "name": "a"}, "probes": {"knn": {"neighbours": 5}}}
    config = {
        "study": {"draws": 4, "name": "a", "new": [1]},
        "probes": {"knn": {"neighbours": 7}, "mine": {"kind": "knn"}},
    }
    assert list(settings.differences(config, base)) == [
        ("study.draws", 4, 20),
        ("study.new", [1], None),
        ("probes.knn.neighbours", 7, 5),
        ("probes.mine", {"kind": "knn"}, None),
    ]


@unhurried
@given(
    st.dictionaries(st.sampled_from("abcd"), TREES), st.dictionaries(st.sampled_from("abcd"), TREES)
)
def test_differences_are_none_for_equal_configs_and_rebuild_the_other(config, base):
    assert list(settings.differences(config, config)) == []
    merged = copy.deepcopy(base)
    update_config(merged, copy.deepcopy(config))
    rebuilt = copy.deepcopy(base)
    for key, value, _ in settings.differences(merged, base):
        *places, last = key.split(".")
        entry = rebuilt
        for place in places:
            entry = entry[place]
        entry[last] = value
    assert rebuilt == merged


# Encoders that are given: channels by role, and others beside them.

PAINTED = ["DNA", "RNA", "ER", "AGP", "Mito"]
BY_ROLE = {"kind": "transfer", "architecture": "resnet18", "input_px": 64, "roles": PAINTED}


def with_encoder(**entry) -> dict:
    """Return the paper's config with an encoder `own`, which its study compares."""
    config = edited(encoders__own=BY_ROLE | {"channels": "adapted"} | entry)
    config["study"]["encoders"] = ["own", "resnet18"]
    return config


def test_what_channels_show_is_known_for_published_screens_and_of_their_simulations():
    config = read("demo/study.yaml")
    shown = {name: settings.channel_roles(config, name) for name in ("sim022", "sim021")}
    assert list(shown["sim022"].values()) == ["DNA", "ER", "RNA", "AGP", "Mito"]
    assert shown["sim021"] == {"w1": "DNA", "w2": "tubulin", "w4": "actin"}


def test_what_channels_show_is_what_the_screen_says_or_else_what_their_names_say():
    screens = {
        "jump": {
            "layout": "loaddata",
            "channels": ["OrigDNA", "OrigAGP", "Alexa 568"],
            "channel_roles": {"OrigAGP": "actin"},
        },
        "worse": {"derived_from": "jump"},
    }
    for name in screens:
        shown = settings.channel_roles({"screens": screens}, name)
        assert shown == {"OrigDNA": "DNA", "OrigAGP": "actin", "Alexa 568": "other"}


def test_a_screen_without_a_role_is_named_before_anything_runs():
    assert message(with_encoder()) == (
        "config: encoders.own.roles: screen BBBC021: no channel shows RNA; its channels are "
        "w1 (DNA), w2 (tubulin), w4 (actin); correct channel_roles of the screen, or say in "
        "missing_roles of the encoder what stands for RNA"
    )
    instead = {"RNA": "zero", "ER": "tubulin", "AGP": "actin", "Mito": "zero"}
    check(with_encoder(missing_roles=instead))


def test_a_screen_of_quality_control_needs_the_roles_of_the_detectors_encoder():
    config = with_encoder(roles=["AGP"], missing_roles={"AGP": "actin"}, **{"with": ["resnet18"]})
    other = copy.deepcopy(config["screens"]["BBBC022"])
    other["channel_roles"] = {"w4": "Golgi"}
    config["screens"]["next"] = other
    config["qc"]["screens"] = ["next"]
    check(copy.deepcopy(config))
    config["qc"]["encoder"] = "own"
    assert "encoders.own_alone.roles: screen next: no channel shows actin" in message(config)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"missing_roles": {"actin": "zero"}}, "'actin' is not one of its roles; known: DNA, RNA"),
        ({"missing_roles": {"RNA": "black"}}, "missing_roles.RNA: unknown value 'black'"),
        ({"roles": ["DNA", "Nucleus"]}, "unknown value 'Nucleus'; known: DNA, ER"),
        ({"roles": []}, "encoders.own.roles: [] should be non-empty"),
        (
            {"roles": ["DNA", "DNA"], "channels": "composite"},
            "for three channels, but encoders.own.roles has 2",
        ),
        ({"normalisation": "per_plate"}, "encoders.own.normalisation: unknown value 'per_plate'"),
        ({"pool": "max"}, "encoders.own.pool: unknown value 'max'; known: last, stages, cls"),
        ({"roles": ["DNA"], "with": ["own_too"]}, "encoders.own.encoders: unknown name 'own_too'"),
        ({"roles": ["DNA"], "with": []}, "encoders.own.with: [] should be non-empty"),
        ({"witth": ["x"]}, "unknown key 'witth'; did you mean 'with'?"),
    ],
    ids=str,
)
def test_a_given_network_that_cannot_see_so_is_named(changes, expected):
    assert expected in message(with_encoder(**changes))


def test_roles_of_channels_that_a_screen_lacks_are_named():
    config = with_encoder()
    config["screens"]["BBBC022"]["channel_roles"] = {"w9": "DNA"}
    assert "screens.BBBC022.channel_roles: 'w9' is not one of w1, w2, w3, w4, w5" in message(config)
    config["screens"]["BBBC022"]["channel_roles"] = {"w1": "nuclei"}
    assert "BBBC022.channel_roles.w1: unknown value 'nuclei'" in message(config)


def test_an_encoder_with_others_is_joined_of_its_network_alone_and_these():
    config = with_encoder(roles=["DNA"], **{"with": ["intensity_and_size"]})
    check(config)
    assert config["encoders"]["own"] == {
        "kind": "joined",
        "encoders": ["own_alone", "intensity_and_size"],
    }
    assert config["encoders"]["own_alone"] == BY_ROLE | {"channels": "adapted", "roles": ["DNA"]}
    built = settings.built_encoders(config)
    assert built == ["own_alone", "intensity_and_size", "own", "resnet18"]
    assert settings.asks_for_roles(config, "own") and not settings.asks_for_roles(
        config, "resnet18"
    )
    assert settings.is_trainable(config, "own_alone") and not settings.is_trainable(config, "own")


def test_a_name_that_the_network_alone_needs_is_not_replaced():
    config = with_encoder(roles=["DNA"], **{"with": ["intensity_and_size"]})
    config["encoders"]["own_alone"] = copy.deepcopy(BY_ROLE)
    assert "config: encoders.own_alone: encoders.own has `with`" in message(config)


def test_stages_of_a_given_network_are_not_fine_tuned_and_tokens_are():
    for pool, tuned in (("stages", False), ("cls_mean", True), ("last", True)):
        config = with_encoder(roles=["DNA"], pool=pool)
        check(config)
        assert settings.is_trainable(config, "own") is tuned


def test_the_cell_of_a_class_token_is_refused():
    config = edited(
        encoders__own={"kind": "pooled", "encoder": "simclr", "pool": "cls", "region": "cell"}
    )
    config["study"]["encoders"] = ["own"]
    assert "config: encoders.own.region: the cell is for pool last and stages" in message(config)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "encoders.own: 'architecture' is missing"),
        ({"architecture": "resnet18"}, "encoders.own: 'input_px' is missing"),
        (
            {"architecture": "vit_x", "input_px": 32, "options": {"patchsize": 8}},
            "encoders.own.options: unknown key 'patchsize'; did you mean 'patch_size'?",
        ),
        (
            {"architecture": "vit_x", "input_px": 32, "options": {"patch_size": 0}},
            "encoders.own.options.patch_size: 0 is less than the minimum of 1",
        ),
        (
            {"architecture": "vit_x", "input_px": 32, "options": {"in_chans": 5}},
            "weights of encoder 'own' are for five channels, but screens.BBBC022.composite has 3; "
            "state channels: each or channels: adapted in encoders.own, list five channels, or "
            "leave it out of study.encoders",
        ),
    ],
)
def test_a_network_with_options_is_checked(entry, expected):
    config = edited(encoders__own={"kind": "transfer"} | entry, study__encoders=["own"])
    assert message(config) == f"config: {expected}"


def test_a_registered_model_needs_no_more_than_its_name():
    entry = {"kind": "transfer", "model": "dinov2_small"}
    config = edited(encoders__own=entry, study__encoders=["own"])
    resolve_models(config)
    check(config)
    assert config["encoders"]["own"]["architecture"] == "vit_small_patch14_dinov2.lvd142m"
