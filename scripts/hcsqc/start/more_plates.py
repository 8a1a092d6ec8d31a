"""Plates that a screen's folder holds and its study does not list yet: into the study's file.

The file is edited as text, so that comments and layout stay.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from hcsqc.core.config import channels, lookup
from hcsqc.core.config_model import Name
from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.files import atomic
from hcsqc.qc.field_view.find import read_study
from hcsqc.screens.layouts import index_plate, list_plates
from hcsqc.screens.layouts.base import Source, source_of


@dataclass(frozen=True)
class NewPlates:
    """What lies beside a screen's known plates: new ones, and what is none, with the reason."""

    added: list[str]
    skipped: dict[str, str]


def add_plates(study: Path, defaults: Path, screen: str | None = None) -> dict[str, NewPlates]:
    """Add the new plates of a study's screens to its file; return what was found, by screen.

    Only screens are looked at whose plates the file lists and which have images that were there
    before: not derived or simulated ones; or just `screen`. `defaults` is config.yaml. The plates
    that something is trained on are no others than before. What the config takes for no name of a
    plate, or what holds no image of the screen, is skipped. Raises InputError if the plates cannot
    be listed, or if `screen` is none of these.
    """
    config, _ = read_study(study, defaults)
    text = study.read_bytes().decode("utf-8")  # with its own line ends
    lists = _lists(text, study)
    imaged = {name: config["screens"][name] for name in lists if _has_images(config, name)}
    if screen is not None:
        imaged = {screen: lookup(imaged, screen, f"{study}, screens with images")}
    if not imaged:
        raise InputError(f"{study}: lists the plates of no screen with images; list some there")
    found = {}
    for name, entry in imaged.items():
        found[name] = _new_plates(source_of(entry, channels(config, name)), name, entry["plates"])
        if found[name].added:
            text = with_plates(text, name, found[name].added, study)
    if any(new.added for new in found.values()):
        with atomic(study.resolve()) as temporary:  # a link to the study stays one
            temporary.write_bytes(text.encode("utf-8"))
    return found


def _new_plates(source: Source, screen: str, known: Sequence[str]) -> NewPlates:
    new = [plate for plate in list_plates(source) if plate not in known]
    reasons = {plate: _why_no_plate(source, screen, plate) for plate in new}
    return NewPlates(
        [plate for plate in new if not reasons[plate]],
        {plate: reason for plate, reason in reasons.items() if reason},
    )


def _why_no_plate(source: Source, screen: str, plate: str) -> str:
    """Return why something that is named as plates are is none; empty if it is one."""
    try:
        TypeAdapter(Name).validate_python(plate)
        fields, _ = index_plate(source, screen, plate)
    except ValidationError:
        return "not a valid name of a plate"
    except InputError as error:
        # After the semicolon is what to do if it were a plate of the study.
        return str(error).removeprefix(f"screen {screen}: ").partition(";")[0]
    return "" if fields["image_bytes"].explode().notna().any() else "none of its images is there"


def with_plates(text: str, screen: str, plates: Sequence[str], study: Path) -> str:
    """Return the text of a study's file with more plates at the end of a screen's list.

    Raises InputError if the list is empty, or if more than it would change, as with aliases.
    """
    node = _lists(text, study)[screen]
    if not node.value:
        raise InputError(f"{study}: screens.{screen}.plates is empty; write the first plate there")
    last = node.value[-1]
    start, end = last.start_mark.index, last.end_mark.index
    quoted = [json.dumps(plate, ensure_ascii=False) for plate in plates]
    if node.flow_style:
        made = text[:end] + "".join(f", {plate}" for plate in quoted) + text[end:]
    else:
        # After the line of the last plate, which may end with a comment.
        begin, rest = text.rfind("\n", 0, start) + 1, re.search(r"\r?\n", text[end:])
        newline = rest[0] if rest else "\r\n" if "\r\n" in text else "\n"
        line_end = end + rest.start() if rest else len(text)
        rows = "".join(f"{newline}{text[begin:start]}{plate}" for plate in quoted)
        made = text[:line_end] + rows + text[line_end:]
    expected = yaml.safe_load(text)
    entry = expected["screens"][screen]
    expected["screens"][screen] = entry | {"plates": [*entry["plates"], *plates]}
    if _loaded(made) != expected:
        raise InputError(
            f"{study}: screens.{screen}.plates is shared with another list; write its plates out "
            f"and add {', '.join(plates)}"
        )
    return made


def _has_images(config: Mapping, name: str) -> bool:
    entry = config["screens"][name]
    return "derived_from" not in entry and "simulate" not in entry


def _lists(text: str, study: Path) -> dict[str, yaml.SequenceNode]:
    """Return the list of plates that the file itself has of each screen."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{study}: is no YAML ({in_one_line(error)})") from error
    return {
        name: entry["plates"]
        for name, node in _entries(_entries(root).get("screens")).items()
        if isinstance((entry := _entries(node)).get("plates"), yaml.SequenceNode)
    }


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value}


def _loaded(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
