"""The file of a new study: a screen without labels, judged by what simulated artefacts teach."""

import copy
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
import yaml

from hcsqc.core.config import CHANNELS, GALLERY
from hcsqc.core.config_check import check_config
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.encoders.registry import resolve_models
from hcsqc.screens.images.remote import Folder, is_remote
from hcsqc.screens.layouts import Source
from hcsqc.start.estimate import Work, minutes_to_flags
from hcsqc.start.preview import Examples
from hcsqc.start.survey import Survey, evaluation_wells, images_of

DATA_FILES = ("study.yaml.j2",)
TEMPLATE = Path(__file__).with_name(DATA_FILES[0])
NAME = re.compile(r"[A-Za-z0-9_-]+")
# Budgets to choose from, how many of them, and the shares of the expected labels to count on: wells
# differ in the number of their cells.
BUDGETS, MOST_BUDGETS = (200, 100, 50, 25, 10), 3
COUNTED_ON, TESTING_WELLS, MOST_TEST_CROPS, LEAST_TEST_CROPS = 0.6, 1 / 3, 100, 10
# Degraded copies of each crop, where there are fewer crops than that; and of how many plates.
COPIES, FEW_CROPS, MOST_DEGRADED_PLATES = 3, 2000, 4
# Most labels of each class and each kind of artefact, and at random. With config.yaml's, which suit
# screens with a truth, the choice among the copies of a small screen decides more of the AUC; more
# than these change nothing there, and take longer to fit.
LABELS_PER_CLASS, LABELS_PER_ARTEFACT, LABELS_AT_RANDOM = 600, 100, 600
# Texts that no reader of YAML takes for a number, as some take 1e3.
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
# Of a long list, which stands below a screen: where it ends, begins at the latest and goes on.
WIDTH, FIRST_COLUMN, NEXT_COLUMN = 110, 22, 6


def check_name(name: str, config: Mapping) -> str:
    """Return the name of a new screen; raises InputError if it cannot be one."""
    if not NAME.fullmatch(name):
        raise InputError(f"--name: '{name}' must consist of letters, digits, - and _")
    for taken in (name, f"{name}_degraded"):
        if taken in config["screens"]:
            raise InputError(f"--name: config.yaml has a screen {taken} already; choose another")
    return name


def name_from(path: Folder, config: Mapping) -> str:
    """Return a name for the screen at a path, one that config.yaml does not have."""
    whole = path.resolve() if isinstance(path, Path) else path
    stem = whole.name.split(".")[0]
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
    wells = sorted(set(seen.complete["well"]))
    tested = evaluation_wells(wells)
    degraded_plates = _spread(seen.found.plates, MOST_DEGRADED_PLATES)
    # Labels are those of the derived screen, and so of its plates alone.
    labelled = seen.complete["well"].isin(tested) & seen.complete["plate"].isin(degraded_plates)
    expected = examples.crops_per_field * labelled.sum()
    usual = expected * (1 - config["labels"]["truth_trimmed"])
    budgets, test_crops = label_counts(usual, len(tested), LABELS_PER_CLASS)
    minutes, cores = expected_minutes(seen, examples, config)
    colours = ("red", "green", "blue") if len(composite) > 1 else ("grey",)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": as_yaml, "comment": _comment}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=name,
        derived=f"{name}_degraded",
        output=output,
        preview=preview_path(output).name,
        naming=seen.found.naming,
        notes=seen.found.notes,
        wells=len(set(seen.fields["well"])),
        fields=len(seen.fields),
        rows=seen.shape[0],
        columns=seen.shape[1],
        bits=seen.bits,
        remote=is_remote(seen.found.source.images),
        nuclei=round(examples.nuclei_per_field),
        budgets=budgets,
        test_crops=test_crops,
        images=_images(seen, examples, config),
        plates=seen.found.plates,
        degraded_plates=degraded_plates,
        copies=_copies(seen, examples),
        per_class=LABELS_PER_CLASS,
        per_artefact=LABELS_PER_ARTEFACT,
        at_random=LABELS_AT_RANDOM,
        minutes=minutes,
        cores=cores,
        evaluation_wells=tested,
        nucleus=nucleus,
        composite=list(composite),
        colours=", ".join(colours[: len(composite)]),
    )


def expected_minutes(seen: Survey, examples: Examples, config: Mapping) -> tuple[int, int]:
    """Return in about how many minutes first flags are there, and on how many cores."""
    plates = _spread(seen.found.plates, MOST_DEGRADED_PLATES)
    originals = examples.crops_per_field * seen.complete["plate"].isin(plates).sum()
    work = Work(
        fields=len(seen.complete),
        crops=_crops(seen, examples),
        originals=originals,
        degraded=_copies(seen, examples) * originals,
        labels=2 * (LABELS_PER_CLASS + LABELS_AT_RANDOM),
    )
    cores = len(os.sched_getaffinity(0))
    return minutes_to_flags(work, cores), cores


def _crops(seen: Survey, examples: Examples) -> float:
    return examples.crops_per_field * len(seen.complete)


def _copies(seen: Survey, examples: Examples) -> int:
    """Return how many degraded copies of each crop the derived screen holds."""
    return COPIES if _crops(seen, examples) < FEW_CROPS else 1


def _spread(names: Sequence[str], most: int) -> list[str]:
    """Return at most so many of the names, evenly over them."""
    places = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    return [names[place] for place in places]


def as_yaml(value: object, width: int = 0) -> str:
    """Return a value as YAML, at least `width` wide: it is read back as it was.

    A list may take several lines, nothing else does.
    """
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_scalar(key)}: {_scalar(entry)}" for key, entry in value.items())
        return f"{{{pairs}}}".ljust(width)
    if not isinstance(value, list):
        return _scalar(value).ljust(width)
    # Spaces inside a text are no places to break a line.
    items = ", ".join(_scalar(item).replace(" ", "\0") for item in value)
    lines = textwrap.fill(
        f"[{items}]",
        WIDTH,
        initial_indent=" " * FIRST_COLUMN,
        subsequent_indent=" " * NEXT_COLUMN,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.lstrip().replace("\0", " ").ljust(width)


def _scalar(value: object) -> str:
    """Return a value as YAML on one line: texts that could be something else in quotes."""
    style = None
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        style = "'" if value.isprintable() else '"'
    # As an item of a list, because a comma or a brace may be plain elsewhere.
    text = yaml.safe_dump(
        [value],
        default_style=style,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
    )
    return text[1:-2]


def _comment(value: object) -> str:
    """Return a text that cannot end the comment that it stands in."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def _images(seen: Survey, examples: Examples, config: Mapping) -> dict[str, object]:
    """Return what a screen's entry says of where its images are and how they look."""
    source = seen.found.source
    published = tuple(CHANNELS.get(source.layout, ()))
    given = {
        "layout": source.layout,
        "project": source.project,
        "source": source.source,
        "batch": source.batch,
        "images": None if _is_usual(source) else str(source.images),
        "image_csv": source.image_csv and str(source.image_csv),
        "table": source.table and str(source.table),
        "table_prefix": source.table_prefix,
        "pattern": source.pattern,
        "channels": None if source.channels == published else list(source.channels),
        "z_projection": seen.z_projection,
    } | seen.found.entry
    for key in ("nucleus_diameter_px", "nucleus_smallest_px"):
        value = getattr(examples.nucleus, key)
        given[key] = None if value == config["crops"][key] else value
    return {key: value for key, value in given.items() if value is not None}


def _is_usual(source: Source) -> bool:
    return source.layout == "cell_painting_gallery" and str(source.images) == GALLERY


def download_size(seen: Survey, nucleus: str, composite: Sequence[str]) -> int:
    """Return the size of the images of a study in bytes: only channels that are used count."""
    used = [seen.channels.index(name) for name in {nucleus, *composite}]
    return images_of(seen.complete, used)[1]


def check_study(text: str, config: Mapping) -> None:
    """Check a study merged into `config`, that of config.yaml, as Snakemake will.

    Raises InputError as the config's check does.
    """
    merged = copy.deepcopy(dict(config))
    study = yaml.safe_load(text)
    _merge(merged, study)
    resolve_models(merged)
    check_config(merged)


def write_study(text: str, output: Path) -> None:
    """Write a study's file, atomically; raises InputError if there is one."""
    refuse_existing(output)
    with atomic(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def refuse_existing(output: Path) -> None:
    """Raise InputError if a file is there already: it may name labels that took days."""
    if output.exists():
        raise InputError(f"{output}: exists already and was not changed; give another --output")


def preview_path(output: Path) -> Path:
    """Return where the preview of a study lies."""
    return output.with_suffix(".preview.png")


def _merge(into: dict, update: Mapping) -> None:
    """Merge as Snakemake merges config files: key by key, lists as a whole."""
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
