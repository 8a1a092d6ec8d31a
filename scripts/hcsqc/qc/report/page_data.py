"""What the page's script reads, as JSON: plates, wells, fields, scores and the map of features."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from sklearn.decomposition import PCA

from hcsqc.core.errors import InputError
from hcsqc.core.parquet import read_footer
from hcsqc.core.schema import ARTEFACTS
from hcsqc.crops.shards import Shards
from hcsqc.features.tables import read_feature_table
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.report.plate_maps import colour_limits, places
from hcsqc.qc.report.results import Results
from hcsqc.qc.report.words import is_missing

BINS = 50  # of the histogram of scores
DIGITS = 4
PER_WELL = 12  # random crops whose brightness stands for a well's
MOST_POINTS = 2000  # of the map of features
KEYS = ["Metadata_Plate", "Metadata_Well"]


def as_script(data: object) -> Markup:
    """Return data as JSON for a <script> element: nothing in it can end the element.

    Values that are missing or not finite are null.
    """
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [_plain(inner) for inner in value]
    if is_missing(value) or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        rounded = float(f"{value:.{DIGITS}g}")
        return rounded if np.isfinite(rounded) else None
    return str(value)


def measures(results: Results, brightness: pd.DataFrame | None = None) -> list[dict]:
    """Return what a plate map can show: key, name, `values` by row of wells, unit and colour ends.

    The unit is "share" (0 to 1) or a word. `brightness` is what `brightness_of_wells` returns. Ends
    are the same for all plates. A measure without any value is left out.
    """
    wells = results.wells
    index = pd.MultiIndex.from_frame(wells[KEYS])
    edges = results.fields.groupby(KEYS)["edge"].median().reindex(index).to_numpy()
    per_field = wells["nuclei"] / wells["fields"].where(wells["fields"] > 0)
    found = [
        ("flagged", "flagged cells", wells["flagged_share"], "share", True),
        ("focus", "focus (log sharpness)", wells["focus"], "", False),
        ("edge", "width of edges", pd.Series(edges), "nucleus diameters", False),
        ("nuclei", "nuclei found", wells["nuclei"], "", True),
        ("per_field", "nuclei per field", per_field, "", True),
    ]
    if brightness is not None:
        for name in brightness.columns:
            values = pd.Series(brightness[name].reindex(index).to_numpy())
            found.append((f"light {name}", f"intensity: {name}", values, "grey levels", False))
    flagged = results.cells[is_flagged(results.cells)]
    kinds = set(flagged["artefact"].dropna())
    for kind in [*(kind for kind in ARTEFACTS if kind in kinds), *sorted(kinds - {*ARTEFACTS})]:
        counts = flagged[flagged["artefact"] == kind].groupby(KEYS).size().reindex(index).fillna(0)
        share = pd.Series(counts.to_numpy()) / wells["scored"].where(wells["scored"] > 0).to_numpy()
        found.append((f"kind {kind}", f"artefact: {kind}", share, "share", True))
    return [
        {
            "key": key,
            "name": name,
            "unit": unit,
            "values": values.to_numpy(float),
            "ends": colour_limits(values.astype(float), from_zero),
        }
        for key, name, values, unit, from_zero in found
        if np.isfinite(values.to_numpy(float)).any()
    ]


def brightness_of_wells(
    shards: Shards, cells: pd.DataFrame, composite: Sequence[str]
) -> pd.DataFrame:
    """Return the median brightness of random crops of each well, by channel; indexed by KEYS.

    It is the mean grey level, 0 to 255, of a crop as encoders see it, on the plate's scale.
    Raises InputError if a scored cell is not in the shards.
    """
    scored = cells[cells["score"].notna()]
    some = scored.sample(frac=1, random_state=0).groupby(KEYS, sort=False).head(PER_WELL)
    some = some.sort_values("crop_id")
    crops = shards.read_composite(shards.rows_of(some["crop_id"].tolist()), composite)
    means = crops.reshape(len(some), len(composite), -1).mean(axis=2) if len(some) else []
    table = pd.DataFrame(means, columns=list(composite), index=some.index)
    return table.groupby([some[key] for key in KEYS]).median()


def wells_data(results: Results) -> dict:
    """Return the columns of all wells, in their order, with row and column on the plate."""
    wells = results.wells
    found = places(wells["Metadata_Well"])
    plates = list(results.plates["Metadata_Plate"])
    names = ["role", "compound", "concentration_um", "nuclei", "scored", "flagged"]
    names += ["flagged_share", "expected", "artefact", "bad", "reason"]
    return {
        "plate": [plates.index(plate) for plate in wells["Metadata_Plate"]],
        "well": list(wells["Metadata_Well"]),
        "row": found["row"].tolist(),
        "column": found["column"].tolist(),
    } | {name: list(wells[name]) for name in names}


def fields_data(results: Results) -> dict:
    """Return the columns of all fields; `at` is the row of the field's well in `wells_data`."""
    fields = results.fields
    index = pd.MultiIndex.from_frame(results.wells[KEYS])
    names = ["nuclei", "scored", "flagged", "edge", "empty", "out_of_focus", "saturated", "bad"]
    return {
        "at": index.get_indexer(pd.MultiIndex.from_frame(fields[KEYS])).tolist(),
        "site": fields["Metadata_Site"].astype(int).tolist(),
    } | {name: list(fields[name]) for name in [*names, "reason"]}


def score_data(cells: pd.DataFrame, threshold: Mapping, labels: pd.DataFrame | None) -> dict:
    """Return the histogram of scores, and what each other threshold flags and promises.

    `labels`, of the screen, are counted by the same bins. `steps` are those of `threshold.json`,
    each with the number of `flagged` cells.
    """
    scores = np.sort(cells["score"].dropna().to_numpy(float))
    edges = np.linspace(0, 1, BINS + 1)
    histograms = {"cells": np.histogram(scores, edges)[0]}
    if labels is not None and len(labels):
        labelled = cells.loc[cells["crop_id"].isin(labels["crop_id"]), ["crop_id", "score"]]
        known = labels[["crop_id", "label"]].merge(
            labelled.dropna(), on="crop_id", validate="one_to_one"
        )
        for label, of_label in known.groupby("label"):
            histograms[str(label)] = np.histogram(of_label["score"], edges)[0]
    own = threshold.get("threshold")
    steps = [
        # All digits: the count must be that of the table of cells.
        step | {"flagged": len(scores) - int(np.searchsorted(scores, step["threshold"], "right"))}
        for step in threshold.get("others") or []
    ]
    at = [place for place, step in enumerate(steps) if step["threshold"] == own]
    return {
        "histograms": histograms,
        "scored": len(scores),
        "steps": steps,
        "own": at[0] if at else None,
        "threshold": own,
        "confidence": threshold.get("confidence"),
        "promise": bool(threshold.get("promise")),
        "why_not": str(threshold.get("note") or "").removeprefix("No promise: "),
    }


def map_of_features(paths: Sequence[Path], results: Results) -> dict | None:
    """Return points of a sample of crops: x, y, crop_id, plate, compound, flagged and score.

    They are principal components of the features. None without tables; no points if fewer than
    three crops are of these results.
    Raises InputError if a table is none of features, or they are of other crops.
    """
    if not paths:
        return None
    crops, vectors = _read_features(paths)
    sample = pd.DataFrame({"crop_id": crops, "vector": np.arange(len(crops))})
    keys = [*KEYS, "Metadata_Site"]
    own = results.cells["crop_id"].isin(list(crops))
    cells = results.cells.loc[own, ["crop_id", "score", "flagged", "artefact", *keys]]
    sample = sample.merge(cells, on="crop_id", how="inner", validate="one_to_one")
    if len(crops) and not len(sample):
        raise InputError(
            f"{paths[0]}: none of its crops is in cells.parquet; give the features of this screen"
        )
    finite = np.isfinite(vectors[sample["vector"]]).all(axis=1)
    left_out = int((~finite).sum())
    sample = sample[finite]
    if len(sample) > MOST_POINTS:
        sample = sample.sample(MOST_POINTS, random_state=0)
    if len(sample) < 3:
        return {"points": None, "shown": len(sample), "left_out": left_out}
    points, shares = project(vectors[sample["vector"]].astype(np.float64))
    treated = sample.merge(
        results.fields[[*keys, "role", "compound"]], on=keys, how="left", validate="many_to_one"
    )
    return {
        "shown": len(sample),
        "left_out": left_out,
        "shares": shares,
        "points": {
            "x": points[:, 0],
            "y": points[:, 1],
            "crop": treated["crop_id"],
            "plate": treated["Metadata_Plate"],
            "well": treated["Metadata_Well"],
            "compound": treated["compound"].astype(object).where(treated["compound"].notna(), None),
            "flagged": treated["flagged"].astype(object).where(treated["flagged"].notna(), None),
            "score": treated["score"],
            "artefact": treated["artefact"].astype(object).where(treated["artefact"].notna(), None),
        },
    }


def project(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return n x 2 principal components of n x width features, and the variance that each holds.

    Every value must be finite; of fewer than three rows or one column the rest is 0.
    """
    kept = min(2, *vectors.shape)
    fitted = PCA(kept, svd_solver="randomized", random_state=0)
    points = np.zeros((len(vectors), 2))
    shares = np.zeros(2)
    if len(vectors) > 1:
        # Features that do not vary at all leave no variance to divide by.
        with np.errstate(invalid="ignore"):
            points[:, :kept] = fitted.fit_transform(vectors)
            shares[:kept] = np.nan_to_num(fitted.explained_variance_ratio_)
    return points, shares


def _read_features(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    # A plate without a crop has a table without rows.
    paths = [path for path in paths if read_footer(path).num_rows]
    if not paths:
        return np.empty(0, object), np.empty((0, 0), np.float32)
    tables = [read_feature_table(path) for path in paths]
    widths = [vectors.shape[1] for _, vectors in tables]
    for path, width in zip(paths, widths, strict=True):
        if width != widths[0]:
            raise InputError(
                f"{path}: has features of {width} values, but {paths[0]} of {widths[0]}; give "
                "tables of one encoder"
            )
    crops = np.concatenate([np.asarray(crops, object) for crops, _ in tables])
    repeated = pd.Series(crops).duplicated()
    if repeated.any():
        raise InputError(f"crop {crops[repeated.argmax()]} is in more than one table of features")
    return crops, np.concatenate([vectors for _, vectors in tables])
