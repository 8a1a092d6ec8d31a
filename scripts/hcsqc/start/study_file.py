"""The file of a new study: a screen without labels, judged by what simulated artefacts teach."""

import copy
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from hcsqc.core.config import CHANNELS
from hcsqc.core.config_check import check_config
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.start.survey import Examples, Survey, evaluation_wells

NAME = re.compile(r"[A-Za-z0-9_-]+")
# Small ones that ask for no model hub and no GPU.
ENCODERS = ("image_quality", "efficientnet_lite0", "random_resnet18")
PROBES = ("logistic", "knn")
# Budgets to choose from, how many of them, and the shares of the expected labels to count on: wells
# differ in the number of their cells.
BUDGETS, MOST_BUDGETS = (200, 100, 50, 25, 10), 3
COUNTED_ON, TESTING_WELLS, MOST_TEST_CROPS, LEAST_TEST_CROPS = 0.6, 1 / 3, 100, 10
DRAWS = 5
RGB = 3
WIDTH, COMMENT_COLUMN = 110, 37


def check_name(name: str, config: Mapping) -> str:
    """Return the name of a new screen; raises InputError if it cannot be one."""
    if not NAME.fullmatch(name):
        raise InputError(f"--name: '{name}' must be letters, digits, - and _ alone")
    for taken in (name, f"{name}_degraded"):
        if taken in config["screens"]:
            raise InputError(f"--name: config.yaml has a screen {taken} already; choose another")
    return name


def name_from(path: Path, config: Mapping) -> str:
    """Return a name for the screen at a path, one that config.yaml does not have."""
    stem = path.resolve().name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "screen"
    return f"my_{name}" if {name, f"{name}_degraded"} & set(config["screens"]) else name


def label_counts(crops: float, evaluation_wells: int, most: int) -> tuple[list[int], int]:
    """Return budgets and test crops that the truth of a derived screen will carry.

    Of each class it has as many labels as crops in the evaluation wells, `crops`, or at most
    `most`; about a third of these wells test, and the others train.
    """
    tested = max(1, round(TESTING_WELLS * evaluation_wells)) / evaluation_wells
    labels = COUNTED_ON * min(crops, most)
    carried = [n for n in BUDGETS if n <= 2 * labels * (1 - tested)] or [BUDGETS[-1]]
    test_crops = 2 * int(labels * tested)
    return carried[:MOST_BUDGETS], int(np.clip(test_crops, LEAST_TEST_CROPS, MOST_TEST_CROPS))


def study_text(
    name: str,
    seen: Survey,
    examples: Examples,
    nucleus: str,
    composite: Sequence[str],
    output: Path,
    config: Mapping,
) -> str:
    """Return the study as YAML with comments; `config` is that of config.yaml."""
    plates, wells = seen.found.plates, sorted(set(seen.complete["well"]))
    tested = evaluation_wells(wells)
    expected = examples.crops_per_field * seen.complete["well"].isin(tested).sum()
    usual = expected * (1 - config["labels"]["truth_trimmed"])
    budgets, test_crops = label_counts(usual, len(tested), config["labels"]["truth_per_class"])
    colours = "red, green, blue" if len(composite) == RGB else ""
    shared = [
        "    # Spread over the plate; labels that test come from these wells alone.",
        _entry("evaluation_wells", tested, 4),
        _entry("nucleus_channel", nucleus, 4),
        _entry("composite", list(composite), 4, colours),
    ]
    lines = [
        *_header(name, output, seen, examples),
        "",
        "study:",
        _entry("name", name, 2, f"results go to results/{name}"),
        _entry("train", f"{name}_degraded", 2, f"step 3: {name}"),
        _entry("test", [], 2),
        _entry("encoders", list(ENCODERS), 2, "need no model hub and no GPU"),
        _entry("probes", list(PROBES), 2),
        _entry("budgets", budgets, 2, "labelled training crops, half of each class"),
        _entry("test_crops", test_crops, 2, "labelled test crops, half of each class"),
        _entry("draws", DRAWS, 2, "divisions into training and test wells"),
        _entry("smoke_test", False, 2),
        "",
        "screens:",
        f"  {name}:",
        *_images(seen, examples, config),
        _entry("plates", plates, 4),
        _entry("pretrain_plates", [], 4, "step 3: the same as plates"),
        *shared,
        _entry("labels", [], 4, "step 3: the files of your labels, docs/labels.md"),
        "  # The same crops, and beside each a copy with a simulated artefact, its label.",
        f"  {name}_degraded:",
        _entry("derived_from", name, 4),
        _entry("artefacts", "simulated", 4),
        _entry("plates", plates, 4),
        _entry("pretrain_plates", plates, 4),
        *shared,
        _entry("labels", "truth", 4),
        "",
        "qc:",
        _entry("screens", [name], 2, "whose crops, wells and plates get flags"),
    ]
    if len(composite) != RGB:
        lines += [
            "",
            "encoders:                            # ImageNet's weights are for three channels",
            "  efficientnet_lite0: {channels: each}",
        ]
    return "\n".join(lines) + "\n"


def _header(name: str, output: Path, seen: Survey, examples: Examples) -> list[str]:
    """Return the comment that says what was found and what to do next."""
    # Targets stand first: words after --configfile would be further files.
    how = f"--cores all --configfile {output}"
    naming, (rows, columns) = seen.found.naming, seen.shape
    notes = " ".join(f"Note: {note}." for note in seen.found.notes)
    found = textwrap.wrap(
        f"Found: layout {seen.found.source.layout} ({naming}), plates: {len(seen.found.plates)}, "
        f"wells: {len(set(seen.fields['well']))}, fields: {len(seen.fields)} of {columns} x {rows} "
        f"px and {seen.bits} bit, with about {examples.nuclei_per_field:.0f} nuclei each. {notes}",
        WIDTH - 10,
    )
    lines = [
        f"The study of {name}, written by scripts/start/new_study.py; yours to edit.",
        "Defaults that are not here stand in config.yaml.",
        *found,
        "",
        f"Look at {preview_path(output).name} first: are there whole nuclei in the middle, and is",
        "DNA blue? Otherwise correct nucleus_channel, composite or nucleus_diameter_px below.",
        "What to do next, in the project's folder:",
        f"1. snakemake qc {how}",
        "   First flags. As nobody has labels yet, the detector learns from simulated artefacts.",
        f"2. snakemake label_pages {how}",
        "   Writes a page on which you call crops normal or abnormal.",
        f"3. List the labels that you saved under screens.{name}.labels, copy its plates to its",
        f"   pretrain_plates, set study.train: {name}, and do step 1 again.",
    ]
    return [f"# {line}".rstrip() for line in lines]


def _images(seen: Survey, examples: Examples, config: Mapping) -> list[str]:
    """Return the lines of a screen's entry that say where its images are and how they look."""
    source = seen.found.source
    given = {
        "layout": source.layout,
        "images": str(source.images),
        "image_csv": source.image_csv and str(source.image_csv),
        "table": source.table and str(source.table),
        "table_prefix": source.table_prefix,
        "pattern": source.pattern,
        "channels": None if source.layout in CHANNELS else list(source.channels),
        "z_projection": seen.z_projection,
    }
    for key in ("nucleus_diameter_px", "nucleus_smallest_px"):
        value = getattr(examples.nucleus, key)
        given[key] = None if value == config["crops"][key] else value
    return [_entry(key, value, 4) for key, value in given.items() if value is not None]


def check_study(text: str, config: Mapping) -> None:
    """Check a study merged into `config`, that of config.yaml, as Snakemake will.

    Raises InputError as the config's check does.
    """
    merged = copy.deepcopy(dict(config))
    study = yaml.safe_load(text)
    _merge(merged, study)
    check_config(merged)


def write_study(text: str, output: Path) -> None:
    """Write a study's file, atomically; raises InputError if there is one."""
    refuse_existing(output)
    with atomic(output) as temporary:
        temporary.write_text(text)


def refuse_existing(output: Path) -> None:
    """Raise InputError if a file is there already: it may name labels that took days."""
    if output.exists():
        raise InputError(f"{output}: is there already and stays as it is; give another --output")


def preview_path(output: Path) -> Path:
    """Return where the preview of a study lies."""
    return output.with_suffix(".preview.png")


def _entry(key: str, value: object, indent: int, comment: str = "") -> str:
    """Return a key and its value as a line of YAML, or several of a long list."""
    text = _flow(value) if isinstance(value, list) else _scalar(value)
    line = f"{' ' * indent}{key}: {text}"
    if comment:
        return f"{line:<{COMMENT_COLUMN - 1}} # {comment}"
    if not isinstance(value, list):
        return line
    return textwrap.fill(
        line,
        WIDTH,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _flow(values: Sequence) -> str:
    return f"[{', '.join(_scalar(value) for value in values)}]"


def _scalar(value: object) -> str:
    """Return a value as YAML: texts that could be taken for something else in quotes."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value)
    if plain and yaml.safe_load(value) == value:
        return value
    return "'" + value.replace("'", "''") + "'"


def _merge(into: dict, update: Mapping) -> None:
    """Merge as Snakemake merges config files: key by key, lists as a whole."""
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
