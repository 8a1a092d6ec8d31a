"""The keys of fields, crops and jobs, and what the paths of results say: read here alone.

A field is `screen/plate/well/s1`, a crop of it `screen/plate/well/s1/x0123y0456` (the centre of its
nucleus, in pixels), a degraded copy `.../x0123y0456/blur`. An encoder's results lie in
`{encoder}/seed{seed}/`, a job's record in `results/{study}/runs/{key}/run.json`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError


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
    """Return what distinguishes a crop within its field: `x0123y0456`."""
    return crop.split("/", 4)[4]


def is_copy(crop: str) -> bool:
    """Return whether a crop of a derived screen is a degraded copy of another."""
    return crop.count("/") > 4


def wells_of(keys: Iterable[str]) -> np.ndarray:
    """Return `plate/well` of fields or crops, as an array of strings."""
    return np.array(["/".join(key.split("/", 3)[1:3]) for key in keys], dtype=str)


def fields_of(crops: Iterable[str]) -> np.ndarray:
    """Return the keys of the fields that crops lie in, as an array of strings."""
    return np.array(["/".join(crop.split("/", 4)[:4]) for crop in crops], dtype=str)


def encoder_of(path: Path) -> str:
    """Return the encoder whose result a path below `{encoder}/seed{seed}/` is; see `seed_of`."""
    return _encoder_and_seed(path)[1]


def seed_of(path: Path) -> int:
    """Return the seed of the result that a path below `{encoder}/seed{seed}/` is.

    A single file of results may be `{encoder}/seed{seed}.csv`. Raises InputError for other paths.
    """
    return int(_encoder_and_seed(path)[2])


def encoder_label(path: Path) -> str:
    """Return what progress lines call an encoder: its name, or its path if it lies elsewhere."""
    try:
        return encoder_of(path)
    except InputError:
        return str(path)


def _encoder_and_seed(path: Path) -> re.Match:
    found = re.match(r"(?:.*/)?([^/]+)/seed(\d+)(?:/[^/]|\.[a-z])", path.as_posix())
    if not found:
        raise InputError(f"{path}: expected a path below a folder {{encoder}}/seed{{seed}}")
    return found


class ProbeJob(NamedTuple):
    """All draws of one probe at one label budget, on the features of one encoder."""

    encoder: str
    seed: int
    probe: str
    budget: int

    @property
    def path(self) -> str:
        """`{encoder}/seed{seed}/{probe}/budget{budget}`, below `predictions/` and others."""
        return f"{self.encoder}/seed{self.seed}/{self.probe}/budget{self.budget}"


def probe_job(path: Path | str) -> ProbeJob:
    """Return the job that predictions belong to, or a record, or a job's key.

    Raises InputError for other paths.
    """
    text = Path(path).as_posix()
    form = r"(?:.*/)?([^/]+)/seed(\d+)/([^/]+)/budget(\d+)(?:\.\w+|/run\.json)?"
    found = re.fullmatch(form, text)
    if not found:
        raise InputError(f"{text}: not of a probe, {{encoder}}/seed{{seed}}/{{probe}}/budget{{n}}")
    return ProbeJob(found[1], int(found[2]), found[3], int(found[4]))


def screen_and_plate(shard: Path) -> tuple[str, str]:
    """Return the screen and plate of `{screen}/{plate}.parquet`, and of the files beside it."""
    return shard.parent.name, re.sub(r"(?:\.(?:nuclei|summary|truth))?\.parquet$", "", shard.name)


def job_key(record: Path) -> str:
    """Return a job's key by its record: what follows `runs/`, or else the folder's name."""
    folder = record.parent.as_posix()
    found = re.search(r"(?:^|/)results/[^/]+/runs/(.+)$", folder)
    return found[1] if found else record.parent.name


def stage_of(key: str) -> str:
    """Return the stage of a job: `probes` of `probes/vgg16/seed0/knn/budget25`."""
    return key.split("/")[0]


def names_of(key: str) -> dict[str, str]:
    """Return what a job's key says, by name: the stage, and of what it is.

    Encoder, seed, probe, budget (both as digits), trial, screen, plate or part of quality control.
    """
    stage, *rest = key.split("/")
    names = {"stage": stage}
    if stage == "search":
        names |= dict(zip(("encoder", "trial"), rest, strict=False))
    elif stage == "qc":
        known = ("screen", "part", "plate") if rest[0] not in ("detector", "model") else ("part",)
        names |= dict(zip(known, rest, strict=False))
    elif stage in ("simulate", "index", "scale", "crops"):
        names |= dict(zip(("screen", "plate"), rest, strict=False))
    elif len(rest) > 1 and rest[1].startswith("seed"):
        names |= {"encoder": rest[0], "seed": rest[1].removeprefix("seed")}
        more = ("probe", "budget") if stage == "probes" else ("screen", "plate")
        names |= dict(zip(more, rest[2:], strict=False))
    if "budget" in names:
        names["budget"] = names["budget"].removeprefix("budget")
    return names
