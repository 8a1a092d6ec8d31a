"""The keys of fields, crops and jobs, and what the paths of results say. Their form is here alone.

A field is `screen/plate/well/s1`, a crop of it `screen/plate/well/s1/x0123y0456` (the centre of its
nucleus, in pixels), a degraded copy `.../x0123y0456/blur`. An encoder's results lie in
`{encoder}/seed{seed}/`, a job's record in `results/{study}/runs/{key}/run.json`.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd


def field_id(screen: str, plate: str, well: str, site: int) -> str:
    """Return the key of a field."""
    return f"{screen}/{plate}/{well}/s{site}"


def crop_id(field: str, x_px: int, y_px: int) -> str:
    """Return the key of the crop around a nucleus of a field."""
    return f"{field}/x{x_px:04d}y{y_px:04d}"


def split_field_id(field_ids: pd.Series) -> pd.DataFrame:
    """Return plate, well and site (a number) of fields, with the same index."""
    place = field_ids.str.extract(r"^[^/]+/(?P<plate>[^/]+)/(?P<well>[^/]+)/s(?P<site>\d+)$")
    return place.astype({"site": int})


def screen_of(key: str) -> str:
    """Return the screen of a field or crop."""
    return key.split("/")[0]


def plate_of(key: str) -> str:
    """Return the plate of a field or crop."""
    return key.split("/")[1]


def within_field(crop: str) -> str:
    """Return what tells a crop from the others of its field: `x0123y0456`."""
    return crop.split("/", 4)[4]


def is_copy(crop: str) -> bool:
    """Return whether a crop of a derived screen is a degraded copy of another."""
    return crop.count("/") > 4


def wells_of(keys: Iterable[str]) -> np.ndarray:
    """Return `plate/well` of fields or crops, as an array of strings."""
    return np.array(["/".join(key.split("/", 3)[1:3]) for key in keys], dtype=str)


def encoder_of(path: Path) -> str:
    """Return the encoder whose result a path below `{encoder}/seed{seed}/` is."""
    found = re.match(r"(?:.*/)?([^/]+)/seed\d+/[^/]", path.as_posix())
    if not found:
        raise ValueError(f"{path} is not below a folder {{encoder}}/seed{{seed}}")
    return found[1]


def job_key(record: Path) -> str:
    """Return a job's key by its record: what follows `runs/`, or else the folder's name."""
    folder = record.parent.as_posix()
    found = re.search(r"(?:^|/)results/[^/]+/runs/(.+)$", folder)
    return found[1] if found else record.parent.name


def stage_of(key: str) -> str:
    """Return the stage of a job: `probes` of `probes/vgg16/seed0/knn/budget25`."""
    return key.split("/")[0]
