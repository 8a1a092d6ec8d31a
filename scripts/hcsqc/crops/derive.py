"""A derived screen: each real crop, and beside it copies that artefact models have degraded.

A copy lies in the same field and well as its original, so that splits by well keep the two on
one side. Its name ends in the kind of artefact.
"""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.ids import split_field_id
from hcsqc.core.progress import Progress
from hcsqc.crops.focus import edge_widths
from hcsqc.crops.oddness import cell_measures, oddness
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.screens.artefacts import SIMULATED, Optics, degrade
from hcsqc.screens.noise import CameraNoise
from hcsqc.screens.scale import apply_scale, lookup_tables, unscale

# These strike one cell; the others cover the window.
AT_THE_CELL = ("debris", "empty", "dead")
WEAKEST = 0.25


def derive_plate(
    screen: str,
    parent: Path,
    scale: pd.DataFrame,
    knee: float,
    nucleus_channel: str,
    nucleus_diameter_px: float,
    copies: int,
    shard: Path,
    label: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write to `shard` the crops of `parent` and `copies` degraded copies of each.

    Kinds, each another, and strengths are drawn by the crop's name. Returns the crops (as in the
    shard, without pixels) and their `crop_truth`. Raises InputError if there are fewer kinds than
    copies.
    """
    if copies > len(SIMULATED):
        raise InputError(
            f"screen {screen}: copies is {copies}, but there are {len(SIMULATED)} kinds of "
            "simulated artefacts, and each copy has another; lower copies"
        )
    crops = Shards([parent])
    nucleus = crops.format.channels.index(nucleus_channel)
    optics = Optics(
        background=scale["low"].to_numpy(np.float32),
        signal=(scale["high"] - scale["low"]).to_numpy(np.float32),
        top=float(scale["top"].max()),
        nucleus_radius_px=nucleus_diameter_px / 2,
        dna=nucleus,
    )
    noise = CameraNoise(
        optics.background, scale["read_noise"].to_numpy(), scale["shot_noise"].to_numpy()
    )
    tables = lookup_tables(scale, knee, crops.format.dtype)
    writer = ShardWriter(
        shard,
        ShardFormat(
            crops.format.channels, crops.format.size_px, crops.format.dtype, crops.format.scale
        ),
    )
    rows, truth, measures, edges = [crops.index.head(0)], [], [], []
    progress = Progress(len(crops), "crops", label)
    middle = crops.format.size_px / 2
    for place in range(len(crops)):
        original = crops.index.iloc[place]
        pixels = crops.read([place])[0]
        area = float(original["nucleus_area_px"])
        measures.append(cell_measures(pixels, area, optics.nucleus_radius_px))
        edges.append(edge_widths(pixels[[nucleus]])[0] / nucleus_diameter_px)
        field_id = screen + original["field_id"][original["field_id"].index("/") :]
        name = screen + original["crop_id"][original["crop_id"].index("/") :]
        rng = np.random.default_rng(zlib.crc32(original["crop_id"].encode()))
        kinds = [SIMULATED[place] for place in rng.permutation(len(SIMULATED))[:copies]]
        light = unscale(pixels, scale, knee)
        planes, names = [pixels], [name]
        truth.append((name, "none", 0.0))
        for kind in kinds:
            strength = float(rng.uniform(WEAKEST, 1.0))
            centre = (middle, middle) if kind in AT_THE_CELL else None
            levels = degrade(light, kind, strength, rng, optics, centre, noise)
            planes.append(apply_scale(list(np.rint(levels).astype(np.uint16)), tables))
            names.append(f"{name}/{kind}")
            truth.append((names[-1], kind, strength))
        together = pd.DataFrame([original] * len(names)).assign(crop_id=names, field_id=field_id)
        writer.add(together, np.stack(planes))
        rows.append(together)
        progress.update()
    writer.close()
    progress.close()
    table = pd.DataFrame(truth, columns=["crop_id", "artefact", "strength"])
    return (
        pd.concat(rows, ignore_index=True),
        # A copy is as odd and as sharp as its original, which comes before it.
        table.assign(
            oddness=np.repeat(oddness(np.array(measures)), 1 + copies),
            edge=np.repeat(edges, 1 + copies),
        ),
    )


def derived_tables(crops: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the `nuclei` and `summary` tables of a derived plate's crops."""
    nuclei = crops.rename(columns={"nucleus_area_px": "area_px"})[
        ["crop_id", "field_id", "x_px", "y_px", "area_px"]
    ].assign(kept=True, reason=None)
    counts = crops.groupby("field_id").size()
    summary = split_field_id(counts.index.to_series(index=pd.RangeIndex(len(counts)))).assign(
        field_id=counts.index,
        found=counts.to_numpy(),
        kept=counts.to_numpy(),
        dropped=0,
        status="ok",
        reason=None,
        **{
            name: pd.Series([[] for _ in range(len(counts))], dtype=object)
            for name in ("image_digest", "image_bytes", "image_changed_ns")
        },
    )
    return nuclei, summary
