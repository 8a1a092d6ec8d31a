"""Every kind of file that one job leaves to another: made in a folder, and read back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from hcsqc.core.files import read_checked_json, write_checked_json
from hcsqc.core.schema import (
    TABLES,
    TableSchema,
    features_schema,
    read_metadata,
    read_table,
    write_table,
)
from hcsqc.crops.resume import PartialPlate
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.store import load_encoder, random_encoder, save_encoder
from hcsqc.encoders.weights import Weights, load_weights, save_weights
from hcsqc.features.tables import features_table
from hcsqc.pretraining.checkpoints import Checkpoints
from hcsqc.probes.task import read_features
from hcsqc.qc.detector import load_detector, save_detector
from tests.qc.test_detector import detector_of, labels_of

ROWS = 300
FORMAT = ShardFormat(("w1", "w2"), 24, "uint8", {"w1": [1.0, 2.0, 3.0], "w2": [1.5, 2.5, 3.5]})

# Write the files of a kind into a folder, and read them: what is read can be compared.
Make = Callable[[Path], None]
Read = Callable[[Path], object]


def rows_of(schema: TableSchema, count: int = ROWS) -> pa.Table:
    """Return made rows that fit a schema."""
    rng = np.random.default_rng(0)

    def value(type_: pa.DataType, name: str, row: int):
        if pa.types.is_list(type_):
            return [value(type_.value_type, name, row) for _ in range(2)]
        if pa.types.is_string(type_):
            return f"{name} {row}"
        if pa.types.is_boolean(type_):
            return bool(rng.random() < 0.5)
        return float(rng.random()) if pa.types.is_floating(type_) else row

    columns = [
        pa.array(
            [
                None
                if field.nullable and rng.random() < 0.2
                else value(field.type, field.name, row)
                for row in range(count)
            ],
            field.type,
        )
        for field in schema.columns
    ]
    return pa.Table.from_arrays(columns, schema=schema.columns)


def _table(name: str) -> tuple[Make, Read]:
    def make(folder: Path) -> None:
        write_table(rows_of(TABLES[name]), folder / "t.parquet", name, {"shape": [1, 2]})

    def read(folder: Path) -> object:
        rows = read_table(folder / "t.parquet", name)
        return rows.to_json(double_precision=15), read_metadata(folder / "t.parquet")

    return make, read


def _make_features(folder: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(ROWS, 16)).astype(np.float32)
    table = features_table([f"crop {row}" for row in range(ROWS)], vectors)
    write_table(table, folder / "f.parquet", features_schema(16))


def _read_features(folder: Path) -> object:
    crops, matrix = read_features([folder / "f.parquet"])
    return crops.tolist(), matrix.tobytes()


def made_crops() -> tuple[pd.DataFrame, np.ndarray]:
    """Return crops of FORMAT and what a shard says of them."""
    numbers = np.arange(ROWS)
    names = [f"s/p/B02/s1/x{number:04d}y0001" for number in numbers]
    about = {"crop_id": names, "field_id": "s/p/B02/s1", "x_px": numbers, "y_px": 1}
    pixels = np.random.default_rng(0).integers(0, 255, (ROWS, *FORMAT.shape), np.uint8)
    return pd.DataFrame(about | {"nucleus_area_px": 100 + numbers}), pixels


def _make_shard(folder: Path) -> None:
    writer = ShardWriter(folder / "s.parquet", FORMAT)
    writer.add(*made_crops())
    writer.close()


def _read_shard(folder: Path) -> object:
    crops = Shards([folder / "s.parquet"])
    return crops.format, crops.index.to_json(), crops.read(np.arange(len(crops))).tobytes()


def _tensors(encoder) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in encoder.backbone.state_dict().items()}


def _read_encoder(folder: Path) -> object:
    encoder = load_encoder(folder / "encoder.safetensors")
    about = encoder.kind, encoder.width, encoder.input_spec, encoder.pooling, encoder.provenance
    return about, _tensors(encoder)


def _make_weights(folder: Path) -> None:
    tensors = random_encoder("test_resnet", 32, 3, seed=0).backbone.state_dict()
    weights = Weights("test_resnet", tensors, (0.5,) * 3, (0.25,) * 3, {"weights": "hub"})
    save_weights(weights, folder / "w.safetensors")


def _read_weights(folder: Path) -> object:
    found = load_weights(folder / "w.safetensors")
    tensors = {name: value.numpy().tobytes() for name, value in found.tensors.items()}
    return found.architecture, found.mean, found.std, found.provenance, tensors


def _read_detector(folder: Path) -> object:
    found = load_detector(folder)
    _, features = labels_of(60)
    numbers = {name: values.tobytes() for name, values in found.reference.items()}
    return found.about, numbers, found.scores(features).tobytes(), _tensors(found.encoder)


CHOICE = {
    "chosen": {"learning_rate": 0.1, "milestones": [1, 2]},
    "note": "w\u00e4hlt",
    "share": 1e-3,
}


def _read_json(folder: Path) -> object:
    found = read_checked_json(folder / "choice.json")
    return [found[key] for key in CHOICE]  # the digest's own key may be damaged


def _state(step: int) -> dict:
    values = torch.arange(20_000, dtype=torch.float32) * step
    return {"step": step, "weights": {"a": values}, "curves": [{"loss": step / 3}]}


def _checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(folder, {"seed": 0}, "pretrain")


def _make_checkpoints(folder: Path) -> None:
    for step in (1, 2):
        _checkpoints(folder).save(_state(step))


def _read_checkpoints(folder: Path) -> object:
    """Return the state of the newest checkpoint that can be read."""
    state = _checkpoints(folder).load()
    return state and (state["step"], state["weights"]["a"].tolist(), state["curves"])


def _make_partial(folder: Path) -> None:
    """Leave what a killed job leaves that has cropped two of three fields."""
    partial = PartialPlate(folder / "p.parquet", FORMAT, "plate")
    _crop_fields(partial, 0, 2)
    partial.stop()


def _read_partial(folder: Path) -> object:
    """Crop what is left, or all; the result is the same."""
    partial = PartialPlate(folder / "p.parquet", FORMAT, "plate")
    _crop_fields(partial, partial.fields, 3)
    nuclei, summary = partial.tables()
    partial.finish()
    crops = Shards([folder / "p.parquet"])
    tables = nuclei.to_json(), summary.to_json(), crops.index.to_json()
    return *tables, crops.read(np.arange(len(crops))).tobytes()


def _crop_fields(partial: PartialPlate, begin: int, end: int) -> None:
    about, pixels = made_crops()
    for field in range(begin, end):
        own = slice(field * 100, field * 100 + 100)
        nuclei = about[own].rename(columns={"nucleus_area_px": "area_px"})
        nuclei = nuclei.assign(field_id=f"s/p/B02/s{field}", kept=True, reason=None)
        summary = {"field_id": f"s/p/B02/s{field}", "plate": "p", "well": "B02", "site": field}
        summary |= {"found": 100, "kept": 100, "dropped": 0, "status": "ok", "reason": None}
        summary |= {"image_digest": ["digest"], "image_bytes": [1], "image_changed_ns": [1]}
        partial.add(summary, nuclei.to_dict("list"), pixels[own])
        partial.checkpoint()


KINDS: dict[str, tuple[Make, Read]] = {
    **{f"table {name}": _table(name) for name in TABLES},
    "features": (_make_features, _read_features),
    "shard": (_make_shard, _read_shard),
    "encoder": (
        lambda folder: save_encoder(
            random_encoder("test_resnet", 32, 3, seed=0), folder / "encoder.safetensors"
        ),
        _read_encoder,
    ),
    "weights": (_make_weights, _read_weights),
    "detector": (
        lambda folder: save_detector(detector_of(*labels_of(60)), folder),
        _read_detector,
    ),
    "json": (
        lambda folder: write_checked_json(CHOICE, folder / "choice.json"),
        _read_json,
    ),
    "checkpoints": (_make_checkpoints, _read_checkpoints),
    "partial plate": (_make_partial, _read_partial),
}
# What is damaged of these is left out, and the job goes on with what is whole.
HEALING = {"checkpoints", "partial plate"}
