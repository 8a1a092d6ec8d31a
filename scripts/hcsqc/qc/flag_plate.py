"""A plate flagged from a notebook, by the detector and threshold of a study that has run.

The stages are those of the workflow, in one process and without files that stay.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

import hcsqc
from hcsqc.core import config as lookups
from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.cut import CropSettings, Plate, crop_plate
from hcsqc.crops.locations import read_locations
from hcsqc.crops.nuclei import Nuclei, NucleusSettings, nuclei_shown
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for
from hcsqc.qc.calibration import PREVALENCE, THRESHOLD, read_threshold
from hcsqc.qc.detector import Detector, Scaling, check_screen, load_detector
from hcsqc.qc.field_view.find import read_study
from hcsqc.qc.flags import FlagSettings
from hcsqc.qc.scoring import call_wide_edges_blurred, score_crops
from hcsqc.qc.screen_flags import DriftSettings, ScoredScreen, ScreenFlags, flag_screen
from hcsqc.screens.layouts import index_plate
from hcsqc.screens.layouts.base import of_plate, source_of
from hcsqc.screens.scale import PlateImages, ScaleSettings, measure_scale

DEFAULTS = Path(hcsqc.__path__[0]).parents[1] / "config.yaml"
Settings = TypeVar("Settings")


def flag_plate(
    study: str | Path,
    plate: str,
    images: str | Path | None = None,
    screen: str | None = None,
    threads: int = 1,
) -> ScreenFlags:
    """Return the flags of a plate: the tables `cells`, `fields`, `wells` and `plates`.

    `study` is the file of a study for which `snakemake qc` has run, or the folder of its results if
    that holds config.json. The plate need not be one of its plates, but must be imaged as those of
    `screen` are (without: the study's only screen with flags). Compounds are compared within it.
    `images` is the plate's folder or URL; without: where the screen's entry says. Paths in the
    study are relative to the working folder, as for Snakemake.
    Raises InputError if the study has no flags yet or the plate cannot be read.
    """
    config, results = read_study(Path(study), DEFAULTS)
    name = _screen(config, screen)
    entry = config["screens"][name] | ({"images": str(images)} if images is not None else {})
    if "simulate" in entry and images is None:
        simulated = results / "simulated" / name
        entry |= {"images": str(simulated / "images")}
        entry |= {"image_csv": str(simulated / f"{plate}.image.csv")}
    folder = results / "qc"
    for file in (folder / name / THRESHOLD, folder / name / PREVALENCE):
        if not file.exists():
            raise InputError(f"{file}: is not there; run snakemake qc with this study first")
    detector = load_detector(Path(config["qc"]["detector"] or folder / "detector"))
    channels = lookups.channels(config, name)
    fields, _ = index_plate(source_of(entry, channels), name, plate)
    scored = _score(config, entry, name, fields, plate, detector, channels, threads)
    flags = flag_screen(
        scored,
        read_threshold(folder / name),
        detector.about,
        entry["composite"],
        _settings(FlagSettings, config["qc"]),
        _settings(DriftSettings, config["qc"]),
    )
    return dataclasses.replace(flags, cells=_of_schema(flags.cells, "cells"))


def _screen(config: Mapping, asked: str | None) -> str:
    names = lookups.qc_screens(config)
    if asked is None and len(names) == 1:
        return names[0]
    if asked not in names:
        raise InputError(f"the study flags the screens {', '.join(names)}; choose one as screen")
    return asked


def _settings(kind: type[Settings], *sections: Mapping) -> Settings:
    """Return settings from the sections of the config that have their keys."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {key: value for section in sections for key, value in section.items()}
    return kind(**{name: values[name] for name in names})


def _score(
    config: Mapping,
    entry: Mapping,
    name: str,
    fields: pd.DataFrame,
    plate: str,
    detector: Detector,
    channels: list[str],
    threads: int,
) -> ScoredScreen:
    """Return the tables of a plate that flags are made from."""
    crops, features = config["crops"], config["features"]
    size = lookups.nucleus_size(config, name)
    nucleus = _settings(NucleusSettings, crops, size)
    images = PlateImages(
        plate,
        of_plate(entry["images"], plate),
        channels,
        entry.get("z_projection"),
        entry.get("bits"),
        entry.get("illumination"),
    )
    shown = nuclei_shown(
        entry["nucleus_channel"], size["nucleus_diameter_px"], size["nucleus_smallest_px"]
    )
    scale, shape, illumination = measure_scale(
        fields, images, _settings(ScaleSettings, crops), shown
    )
    per_px = lookups.crop_px_per_px(config, name)
    cropping = _settings(CropSettings, crops, {"crop_px_per_px": per_px})
    roles = lookups.channel_roles(config, name)
    check_screen(
        detector.about,
        name,
        entry["composite"],
        crops["window_px"],
        crops["window_um"] or 0.0,
        _settings(Scaling, crops),
        roles,
    )
    chosen = channels_for(detector.encoder, entry["composite"], roles, f"plate {plate}")
    source = Plate(
        fields,
        images.folder,
        channels,
        entry["nucleus_channel"],
        scale,
        shape,
        images.z_projection,
        illumination,
        _published_nuclei(entry, plate),
    )
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / f"{plate}.parquet"
        nuclei, summary, _ = crop_plate(source, cropping, nucleus, shard, threads, f"crop {plate}")
        table, _, drift = score_crops(
            detector,
            Shards([shard]),
            chosen,
            entry["nucleus_channel"],
            features["batch_size"],
            features["precision"],
            f"scores {plate}",
            np.empty(0, int),
            size["nucleus_diameter_px"] * per_px,
        )
    if detector.about["trained_on"] != "labels":
        table = call_wide_edges_blurred(table, config["qc"]["focus_edge"])
    shifts = pd.DataFrame(
        {
            "Metadata_Plate": [plate],
            "feature_shift": drift.features,
            "score_shift": drift.scores,
        }
    )
    return ScoredScreen(
        _of_schema(table, "crop_scores"),
        _of_schema(nuclei, "nuclei"),
        _of_schema(summary, "summary"),
        _of_schema(fields, "fields"),
        shifts,
        {plate: scale},
    )


def _published_nuclei(entry: Mapping, plate: str) -> dict[tuple[str, int], Nuclei] | None:
    if not entry.get("locations"):
        return None
    return read_locations(Path(entry["locations"].replace("{plate}", plate)), plate)


def _of_schema(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table with the types that it would have if it were written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write_table(table, path, name)
        return read_table(path, name)
