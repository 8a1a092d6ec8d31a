"""Tables of features keyed by crop_id: as the stages write them, and your own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.parquet import read_parquet
from hcsqc.core.schema import features_schema


def features_table(crop_ids: Sequence[str], features: np.ndarray) -> pa.Table:
    """Return crop_ids and features as a table to write with `features_schema(width)`."""
    schema = features_schema(features.shape[1]).columns
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    return pa.table([pa.array(crop_ids), vectors], names=schema.names)


def read_feature_table(path: Path) -> tuple[pd.Index, np.ndarray]:
    """Return crop_ids and the n x width float32 vectors of a your own table.

    It has `crop_id` and either `vector`, a list of numbers as long in every row, or numbers in all
    other columns. Raises InputError if it has not, or repeats a crop.
    """
    table = read_parquet(path)
    try:
        names = table.column_names
        crops = pd.Index(table["crop_id"].to_pylist() if "crop_id" in names else [])
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: its texts are damaged ({in_one_line(error)})") from error
    if "crop_id" not in names:
        raise InputError(f"{path}: has no column crop_id; it has {', '.join(names)}")
    if crops.has_duplicates:
        raise InputError(f"{path}: lists crop {crops[crops.duplicated()][0]} more than once")
    try:
        if "vector" in names:
            vectors = np.array(table["vector"].to_pylist(), np.float32)
        else:
            vectors = table.drop_columns("crop_id").to_pandas(ignore_metadata=True)
            vectors = vectors.to_numpy(np.float32)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: features are not numbers, as many for every crop ({in_one_line(error)})"
        ) from error
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise InputError(f"{path}: features of shape {vectors.shape}, expected crops x width")
    return crops, vectors


def features_of(
    path: Path, crops: pd.Index, vectors: np.ndarray, wanted: Sequence[str]
) -> np.ndarray:
    """Return the vectors of the crops that are wanted, in their order.

    Raises InputError naming the first that is missing, or whose features are not finite.
    """
    rows = crops.get_indexer(wanted)
    if (rows < 0).any():
        missing = [crop for crop, row in zip(wanted, rows, strict=True) if row < 0]
        raise InputError(f"{path}: lacks {len(missing)} labelled crops, first {missing[0]}")
    found = vectors[rows]
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        raise InputError(f"{path}: the features of crop {wanted[bad.argmax()]} are not finite")
    return found
