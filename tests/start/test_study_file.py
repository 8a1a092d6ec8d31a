"""The file of a new study: whatever things are called, its YAML says what was found."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hcsqc.screens.layouts import Source
from hcsqc.start.estimate import Work, minutes_to_flags
from hcsqc.start.find import FoundScreen
from hcsqc.start.study_file import WIDTH, as_yaml, study_text

CONFIG = {
    "labels": {"truth_trimmed": 0.1},
    "crops": {"nucleus_diameter_px": 25, "nucleus_smallest_px": 80},
}
ODD = [
    *("0042", "on", "1e3", "1_000", "0x1F", "12:30", "~", "null", ".5", "-", "", " a ", "a  # b"),
    *("it's", 'say "so"', "{plate}", "[a, b]", "a: b", "a, b", "*a", "&a", "!a", "%a", "@a", "# a"),
    *("C:\\images\\new", "two\nlines", "a\ttab", "\x07", "\x85", "\u2028", "\ufeff", "\udc80"),
    *("µm", "細胞", "😀", "a" * 200, "a b " * 60),
]
texts = st.one_of(st.sampled_from(ODD), st.text())


def study(
    name="mine", plates=("P1",), composite=("a", "b", "c"), text="x", output="my.yaml", crops=50.0
):
    """Return the study of a screen of three fields per plate, where everything is called `text`."""
    source = Source("files", Path("/", text), tuple(composite), pattern=text)
    rows = [(plate, well) for plate in plates for well in ("B02", "B03", "C02")]
    fields = pd.DataFrame(rows, columns=["plate", "well"], dtype=object).assign(problem=None)
    seen = SimpleNamespace(
        found=FoundScreen(source, list(plates), text, [text]),
        fields=fields,
        complete=fields,
        shape=(520, 696),
        bits=16,
        z_projection=None,
    )
    nucleus = SimpleNamespace(nucleus_diameter_px=40, nucleus_smallest_px=200)
    examples = SimpleNamespace(crops_per_field=crops, nuclei_per_field=60.0, nucleus=nucleus)
    return study_text(name, seen, examples, composite[-1], composite, Path(output), CONFIG)


@given(texts)
def test_any_text_comes_back_from_one_line(text):
    line = as_yaml(text)
    assert len(line.splitlines()) == 1
    assert yaml.safe_load(line) == text
    assert yaml.safe_load(f"key: {line} # comment") == {"key": text}


@given(st.lists(st.one_of(texts, st.integers(), st.booleans()), max_size=40))
@example(ODD)
def test_any_list_comes_back(values):
    assert yaml.safe_load(f"a:\n  b:\n    key: {as_yaml(values)} # comment") == {
        "a": {"b": {"key": values}}
    }


@pytest.mark.parametrize("text", ["0042", "on", "1e3", "0o17", "12:30", "a: b"])
def test_what_any_reader_could_take_for_something_else_is_quoted(text):
    assert as_yaml(text) == f"'{text}'"


def test_plain_names_and_paths_stay_plain():
    assert as_yaml(["DAPI", "/data/P1.zarr", 5, False]) == "[DAPI, /data/P1.zarr, 5, false]"


@settings(max_examples=50, deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_study_names_its_screen_whatever_it_is_called(text, names):
    path = text.replace("\0", "")
    written = study(plates=names, composite=names, text=path, output=f"{path}.yaml")
    entry, derived = yaml.safe_load(written)["screens"].values()
    assert entry["images"] == str(Path("/", path)) and entry["pattern"] == path
    assert entry["plates"] == derived["plates"] == derived["pretrain_plates"] == names
    assert entry["channels"] == entry["composite"] == derived["composite"] == names
    assert entry["nucleus_channel"] == names[-1]


@pytest.mark.parametrize("name", ["0042", "on", "1e3", "-"])
def test_a_study_keeps_a_name_that_looks_like_something_else(name):
    config = yaml.safe_load(study(name))
    assert list(config["screens"]) == [name, f"{name}_degraded"]
    assert config["study"]["name"] == name and config["qc"]["screens"] == [name]


def test_a_study_degrades_a_few_plates_and_more_copies_of_few_crops():
    plates = [f"plate_{number:05d}" for number in range(100)]
    degraded = yaml.safe_load(study("big", plates=plates))["screens"]["big_degraded"]
    assert degraded["plates"] == ["plate_00000", "plate_00033", "plate_00066", "plate_00099"]
    assert degraded["pretrain_plates"] == degraded["plates"]
    assert yaml.safe_load(study("small"))["screens"]["small_degraded"]["copies"] == 3
    assert "copies" not in yaml.safe_load(study("large", crops=900.0))["screens"]["large_degraded"]


def test_of_few_crops_every_one_and_most_copies_may_be_labels():
    few, crops_per_field = yaml.safe_load(study("small", crops=100.0)), 100
    originals, labels = 3 * crops_per_field, few["labels"]
    copies = few["screens"]["small_degraded"]["copies"] * originals
    assert labels["truth_per_class"] > originals
    assert labels["truth_per_class"] + labels["truth_random"] > copies


def test_budgets_count_on_the_degraded_plates_alone():
    few, many = ([f"P{number}" for number in range(plates)] for plates in (4, 40))
    first, second = (
        yaml.safe_load(study(plates=plates, crops=10.0))["study"] for plates in (few, many)
    )
    assert (first["budgets"], first["test_crops"]) == (second["budgets"], second["test_crops"])
    assert first["budgets"][0] < yaml.safe_load(study(crops=900.0))["study"]["budgets"][0]


def test_time_grows_with_crops_and_copies_and_shrinks_with_cores():
    work = Work(fields=384, crops=50_000, originals=50_000, degraded=50_000, labels=1200)
    assert minutes_to_flags(work, 2) == 17  # (192 + 1500 + 200 + 36) / 2 + 25 seconds
    assert minutes_to_flags(work, 8) == 5
    few = Work(fields=3, crops=100, originals=100, degraded=300, labels=100_000)
    assert minutes_to_flags(few, 1) == 1  # no more labels than crops


def test_comments_are_aligned_and_long_lists_wrapped():
    lines = study(plates=[f"plate_{number:05d}" for number in range(100)]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    beside = [line for line in lines if " # " in line.lstrip(" #") and "encoders" not in line]
    assert len(beside) > 8 and {line.index(" # ") for line in beside} == {36}
