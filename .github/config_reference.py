"""Write the JSON schema of a config and docs/config.md from the config's models: `make config`.

Values, units and sources are read from config.yaml, whose comments stand beside them.
"""

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from hcsqc.core import config_model as model  # noqa: E402

SCHEMA, PAGE = Path("rules/config.schema.yaml"), Path("docs/config.md")
SCHEMA_HEAD = """\
# What a config may hold, for editors that complete YAML.
# Written by `make config` from scripts/hcsqc/core/config_model.py.
"""
HEAD = """\
# Config

`config.yaml` states every default once, with its unit and source. Your own study is a second file,
merged into it key by key: `snakemake --configfile my_study.yaml`. A list replaces the whole list.
Unknown keys and values beyond their limits are errors; the message names the place. For editors,
`rules/config.schema.yaml` says the same as a JSON schema. "paper 3.2" is a section of Masud, Cohen
et al. 2022; "ours" means that the paper gives no value.

`make config` writes this page from `scripts/hcsqc/core/config_model.py` and `config.yaml`.
"""
WORDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
}
LIMITS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
}
BLANK = re.compile(r"\s+")


def files() -> dict[Path, str]:
    """Return the text of both files, by their paths in the project."""
    schema = untitled(model.Config.model_json_schema())
    text = yaml.safe_dump(schema, sort_keys=False, width=120, default_flow_style=None)
    return {SCHEMA: SCHEMA_HEAD + text, PAGE: page()}


def untitled(schema: Any) -> Any:
    """Return a JSON schema without pydantic's titles, which repeat the keys."""
    if isinstance(schema, list):
        return [untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: untitled(part)
        for key, part in schema.items()
        if not (key == "title" and isinstance(part, str)) and (key, part) != ("default", None)
    }


def page() -> str:
    """Return docs/config.md."""
    text = (ROOT / "config.yaml").read_text()
    values, notes = yaml.safe_load(text), dict(comments(text))
    parts = [HEAD]
    for name, field in model.Config.model_fields.items():
        parts.append(f"## {name}\n")
        if name in SECTIONS:
            parts += SECTIONS[name](values[name], notes)
        else:
            section = field.annotation
            parts += [
                f"{about(section)}\n",
                table(section, {"default": (name, values[name])}, notes),
            ]
    return "\n".join(parts)


def screens(values: Mapping, notes: Mapping) -> Iterator[str]:
    """Yield the tables of screens: what all have, and what some have."""
    yield "A name that you choose, and the keys of the screen. Every screen has:\n"
    yield table(model.Screen, {}, notes)
    yield "Screens of images also have:\n"
    yield table(model.ImagedScreen, {}, notes, model.Screen)
    for layout, section in (
        ("`bbbc022`, `bbbc021`", model.BbbcScreen),
        ("`loaddata`", model.LoadDataScreen),
        ("`cell_painting_gallery`", model.GalleryScreen),
        ("`files`", model.FilesScreen),
        ("`ome_zarr`", model.OmeZarrScreen),
    ):
        yield f"Layout {layout}. {about(section)}\n"
        yield table(section, {}, notes, model.ImagedScreen)
    yield f"`archives`. {about(model.Archives)}\n"
    yield table(model.Archives, {}, notes)
    yield f"`published_flags`. {about(model.PublishedFlags)}\n"
    yield table(model.PublishedFlags, {}, notes)
    yield f"`simulate`. {about(model.Simulation)}\n"
    yield table(model.Simulation, {}, notes)
    yield f"`derived_from`. {about(model.DerivedScreen)}\n"
    yield table(model.DerivedScreen, {}, notes, model.Screen)


def encoders(values: Mapping, notes: Mapping) -> Iterator[str]:
    """Yield the tables of encoders by kind."""
    yield "A name that you choose, and the keys of the encoder. `config.yaml` has:\n"
    yield textwrap.fill(f"{listed(values)}.", 118, break_on_hyphens=False) + "\n"
    for section in (
        model.NetworkEncoder,
        model.ModuleEncoder,
        model.TableEncoder,
        model.PretrainedEncoder,
        model.UntrainedEncoder,
        model.MeasuringControl,
        model.MeasuringEncoder,
        model.PooledEncoder,
        model.JoinedEncoder,
    ):
        yield f"{about(section)}\n"
        yield table(section, {}, notes)
    yield f"`options`. {about(model.NetworkOptions)}\n"
    yield table(model.NetworkOptions, {}, notes)
    yield f"`search`. {about(model.Search)}\n"
    yield table(model.Search, {}, notes)


def presets(values: Mapping, notes: Mapping) -> Iterator[str]:
    """Yield the tables of presets: the common values, then those of each method."""
    yield f"{about(model.Preset)}\n"
    yield "`common`:\n"
    shown = {name: (f"presets.{name}.common", parts["common"]) for name, parts in values.items()}
    yield table(model.Pretraining, shown, notes)
    for method, section in model.METHODS.items():
        yield f"`{method}`:\n"
        shown = {
            name: (f"presets.{name}.{method}", parts[method]) for name, parts in values.items()
        }
        yield table(section, shown, notes, model.Pretraining)


def probes(values: Mapping, notes: Mapping) -> Iterator[str]:
    """Yield the tables of probes by kind, with those of config.yaml as columns."""
    yield "A name that you choose, and the keys of the probe.\n"
    for section in (
        model.KnnProbe,
        model.LogisticProbe,
        model.LinearProbe,
        model.LinearSearchProbe,
        model.FinetuneProbe,
        model.FinetuneSearchProbe,
    ):
        kinds = section.model_json_schema()["properties"]["kind"]
        kinds = kinds.get("enum", [kinds.get("const")])
        yield f"{about(section)}\n"
        shown = {
            name: (f"probes.{name}", entry)
            for name, entry in values.items()
            if entry["kind"] in kinds
        }
        yield table(section, shown, notes)


SECTIONS = {"screens": screens, "encoders": encoders, "presets": presets, "probes": probes}


def table(
    section: type[model.Section],
    shown: Mapping[str, tuple[str, Mapping]],
    notes: Mapping[str, str],
    without: type[model.Section] = model.Section,
) -> str:
    """Return the keys of a section as a table; `shown` are columns of values, with their place."""
    schema = section.model_json_schema()
    rows = [["key", *shown, "allowed", "meaning"]]
    for key, rule in schema["properties"].items():
        if key in without.model_fields:
            continue
        found = [value_of(entry, key) for _, entry in shown.values()]
        said = {name: notes.get(f"{place}.{key}", "") for name, (place, _) in shown.items()}
        needed = key in schema.get("required", []) and not shown
        name = f"`{key}`" + (" (needed)" if needed else "")
        rows.append([name, *found, allowed(rule), meaning(rule.get("description", ""), said)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |\n" for row in rows
    )


def value_of(entry: Mapping, key: str) -> str:
    """Return a value as it is written in config.yaml; nothing for one that is absent."""
    if key not in entry:
        return ""
    text = yaml.safe_dump(entry[key], default_flow_style=True, width=10**6).removesuffix("...\n")
    return f"`{text.strip()}`" if len(text) < 60 else "see `config.yaml`"


def allowed(rule: Mapping) -> str:
    """Return in words what a JSON schema allows."""
    if "$ref" in rule:
        return "further keys, see below"
    options = rule.get("oneOf") or rule.get("anyOf")
    if options:
        return ", or ".join(allowed(option) for option in options)
    if "enum" in rule or "const" in rule:
        return ", ".join(f"`{value}`" for value in rule.get("enum", [rule.get("const")]))
    kind = rule.get("type", "object")
    if kind == "null":
        return "`null`"
    if kind == "object":
        return "keys and values"
    if kind == "array":
        return f"list: {allowed(rule['items'])}"
    limits = [words.format(f"{rule[key]:g}") for key, words in LIMITS.items() if key in rule]
    pattern = [f"like `{rule['pattern']}`"] if "pattern" in rule else []
    return ", ".join([WORDS[kind], *limits, *pattern])


def comments(text: str) -> Iterator[tuple[str, str]]:
    """Yield `(place, comment)` for each value of a YAML file with a comment on its last line."""
    lines = text.splitlines()

    def walk(node: yaml.Node, place: str) -> Iterator[tuple[str, str]]:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            inside = f"{place}.{key.value}" if place else key.value
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from walk(value, inside)
                continue
            rest = lines[value.end_mark.line][value.end_mark.column :]
            if "#" in rest:
                yield inside, rest.split("#", 1)[1].strip()

    yield from walk(yaml.compose(text), "")


def about(section: type[model.Section]) -> str:
    """Return the first paragraph of a model's docstring."""
    return BLANK.sub(" ", (section.__doc__ or "").split("\n\n")[0]).strip()


def meaning(description: str, said: Mapping[str, str]) -> str:
    """Return a key's description and its comments: the first, or each with its column's name."""
    comments = {name: text.replace("<", "&lt;") for name, text in said.items() if text}
    if len(set(comments.values())) > 1:
        notes = [f"{name}: {text}" for name, text in comments.items()]
    else:
        notes = [*comments.values()][:1]
    return "; ".join([description] * bool(description) + notes)


def listed(names: Iterable[str]) -> str:
    """Return names as text."""
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    for path, text in files().items():
        (ROOT / path).write_text(text)
        print(path)
