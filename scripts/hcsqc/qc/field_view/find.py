"""Where everything about a field lies: its images, crops and flags, found by the study."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from hcsqc.core import config as settings
from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.places import parse_well
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.registry import resolve_models
from hcsqc.qc.field_view.images import FieldSource
from hcsqc.screens.images.remote import folder_at

PLACE = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]


@dataclass(frozen=True)
class FoundField:
    """A field of a finished quality control: its row of `fields`, its cells, and the crops."""

    field: Mapping
    cells: pd.DataFrame  # those of the field, from the table `cells`
    shards: Shards  # of its plate
    source: FieldSource
    composite: list[str]


def read_study(path: Path, defaults: Path) -> tuple[dict, Path]:
    """Return the config of a study and the folder of its results.

    `path` is the study's file, on top of the file `defaults`, or the folder of its results, where
    config.json is the config. Raises InputError if it is neither.
    """
    try:
        if path.is_dir():
            kept = path / "config.json"
            if not kept.exists():
                raise InputError(
                    f"{path}: has no config.json; give the study's file instead of this folder"
                )
            found = json.loads(kept.read_text(encoding="utf-8"))
            return found.get("config", found), path
        config = yaml.safe_load(defaults.read_text(encoding="utf-8"))
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(given, Mapping):
            raise ValueError("it is not a mapping")
        config = _merged(config, given)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: is not a study ({in_one_line(error)}); give its YAML file or results/<study>"
        ) from error
    resolve_models(config)
    settings.join_with(config)
    settings.expand_paths(config)
    return config, Path("results") / str(config["study"]["name"])


def find_field(
    config: Mapping, results: Path, plate: str, well: str, site: int, screen: str | None = None
) -> FoundField:
    """Return a field of a study; without `screen` the one screen that has the plate.

    Raises InputError if screen, plate, well or site are not there, or nothing is flagged yet.
    """
    screens = settings.qc_screens(config)
    having = [name for name in screens if plate in config["screens"][name]["plates"]]
    if screen is not None:
        settings.lookup({name: config["screens"][name] for name in screens}, screen, "--screen")
        having = [screen]
    if len(having) != 1:
        known = [p for name in screens for p in config["screens"][name]["plates"]]
        raise InputError(
            f"plate {plate} is in {', '.join(having)}; add --screen"
            if having
            else f"plate {plate} is in no screen of the study{settings.near(plate, known)}"
        )
    name = having[0]
    entry = config["screens"][name]
    table = results / "screens" / name / f"{plate}.fields.parquet"
    flags = results / "qc" / name / "cells.parquet"
    for needed in (table, flags):
        if not needed.exists():
            raise InputError(f"{needed}: does not exist; run snakemake qc with this study first")
    fields = read_table(table, "fields")
    asked = parse_well(well) or well
    rows = fields[(fields["well"] == asked) & (fields["site"] == site)]
    if rows.empty:
        raise InputError(f"plate {plate} has no well {asked} with site {site}; see {table}")
    images = entry.get("images")
    if "simulate" in entry:
        images = str(results / "simulated" / name / "images")
    cells = read_table(flags, "cells")
    own = (cells[PLACE] == [plate, asked, site]).all(axis=1)
    return FoundField(
        rows.iloc[0].to_dict(),
        cells[own].reset_index(drop=True),
        Shards([results / "crops" / name / f"{plate}.parquet"]),
        FieldSource(fields, folder_at(images), entry.get("z_projection")),
        list(entry["composite"]),
    )


def _merged(below: Mapping, above: Mapping) -> dict:
    """Return a config with another on top, merged key by key as Snakemake does."""
    merged = deepcopy(dict(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
