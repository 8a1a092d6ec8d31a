"""The tables that pass between the stages: names, keys, columns, types and units.

Writers refuse anything else, readers check what they get, damage included, and every file carries
the name and version of its producer.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hcsqc import __version__
from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic
from hcsqc.core.parquet import check_sealed, promise_seal, read_parquet, set_seal, write_sealed

LABELS = ("normal", "abnormal")
ARTEFACTS = (
    "blur",
    "saturation",
    "debris",
    "noise",
    "autofluorescence",
    "empty",
    "dead",
    "other",
)
SELECTIONS = ("random", "diverse", "uncertain")
# How a text begins that a spreadsheet program takes for a formula, in wide letters too.
FORMULA = re.compile(r"[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TableSchema:
    """The columns of one table and the ones that together identify a row."""

    keys: tuple[str, ...]
    columns: pa.Schema


def _column(name: str, type_: pa.DataType, about: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"about": about})


def _table(keys: tuple[str, ...], *columns: pa.Field) -> TableSchema:
    return TableSchema(keys, pa.schema(list(columns)))


_CROP_ID = _column("crop_id", pa.string(), "screen/plate/well/s1/x0123y0456: the nucleus' centre")
_FIELD_ID = _column("field_id", pa.string(), "screen/plate/well/s1")
_PLATE = _column("plate", pa.string(), "plate, as the screen names it")
_WELL = _column("well", pa.string(), "row letters and two digits: B02, AF48")
_SITE = _column("site", pa.int32(), "field within the well, from 1")
_X = _column("x_px", pa.int32(), "column of the nucleus' centre, pixels of the source image")
_Y = _column("y_px", pa.int32(), "row of the nucleus' centre, pixels of the source image")
_ENCODER = _column("encoder", pa.string(), "name in the config")
_SEED = _column("seed", pa.int32(), "of pretraining")
_DRAW = _column("draw", pa.int32(), "division of the labelled crops, from 0")
_SCREEN = _column("screen", pa.string(), "name of the screen in the config")
_LABEL = _column("label", pa.string(), "normal or abnormal")
_ARTEFACT = _column("artefact", pa.string(), "kind of artefact; null for normal", nullable=True)
_GROUP = _column("group", pa.string(), "plate/well, compound or plate: evaluation.group_by")
_STRENGTH = _column(
    "strength", pa.float64(), "of a simulated artefact, 0 to 1; null if not known", nullable=True
)

TABLES = {
    "fields": _table(
        ("field_id",),
        _FIELD_ID,
        _PLATE,
        _WELL,
        _SITE,
        _column("role", pa.string(), "compound, mock, ...; null if not known", nullable=True),
        _column("compound", pa.string(), "name; null if not known", nullable=True),
        _column("concentration_um", pa.float64(), "micromolar", nullable=True),
        _column("image_path", pa.list_(pa.string()), "per channel, below the images folder"),
        _column(
            "image_page", pa.list_(pa.int32()), "page of the file, from 0; null: the whole file"
        ),
        _column("image_bytes", pa.list_(pa.int64()), "file size per channel; null if missing"),
        _column("problem", pa.string(), "why the field cannot be cropped", nullable=True),
    ),
    "scale": _table(
        ("channel",),
        _column("channel", pa.string(), "channel of the screen"),
        _column("low", pa.float64(), "grey level that becomes 0: the background"),
        _column("high", pa.float64(), "grey level at the knee"),
        _column("top", pa.float64(), "grey level that becomes the brightest value: saturation"),
        _column("bits", pa.int32(), "bits per pixel, detected from the data"),
        _column("cell", pa.float64(), "grey level of the typical nucleus", nullable=True),
        _column("nuclei", pa.int32(), "nuclei of the sampled fields"),
        _column("found", pa.string(), "what gave high: cells or percentile"),
        _column("read_noise", pa.float64(), "variance of grey levels at low, grey levels squared"),
        _column("shot_noise", pa.float64(), "and what each grey level above low adds to it"),
    ),
    "illumination": _table(
        ("channel",),
        _column("channel", pa.string(), "channel of the screen"),
        _column("rows", pa.int32(), "of the grid"),
        _column("columns", pa.int32(), "of the grid"),
        _column("values", pa.list_(pa.float32()), "relative brightness, row by row; 1 or more"),
    ),
    "nuclei": _table(
        ("crop_id",),
        _CROP_ID,
        _FIELD_ID,
        _X,
        _Y,
        _column("area_px", pa.int32(), "of the nucleus, pixels of the source image"),
        _column("kept", pa.bool_(), "a crop was cut around it"),
        _column("reason", pa.string(), "why not kept; null if kept", nullable=True),
    ),
    "summary": _table(
        ("field_id",),
        _FIELD_ID,
        _PLATE,
        _WELL,
        _SITE,
        _column("found", pa.int32(), "nuclei"),
        _column("kept", pa.int32(), "nuclei cropped"),
        _column("dropped", pa.int32(), "nuclei not cropped"),
        _column("status", pa.string(), "ok, odd (read, but see the reason) or failed"),
        _column("reason", pa.string(), "what is odd, or why it failed; null if ok", nullable=True),
        _column("image_digest", pa.list_(pa.string()), "XXH3, 128 bits, of each channel's file"),
        _column("image_bytes", pa.list_(pa.int64()), "its size when it was read; -1: no file"),
        _column("image_changed_ns", pa.list_(pa.int64()), "when it had last changed by then"),
    ),
    "truth": _table(
        ("plate", "well", "site", "x_px", "y_px"),
        _PLATE,
        _WELL,
        _SITE,
        _X,
        _Y,
        _column("artefact", pa.string(), "none, or the kind planted"),
        _column("strength", pa.float64(), "0 (none) to 1 (strongest)"),
        _column("scope", pa.string(), "cell or field: what the artefact covers"),
        _column(
            "artefact_px",
            pa.int32(),
            "to the nearest pixel that an artefact changed, the larger of columns and rows, "
            "source pixels; null if its field has none",
            nullable=True,
        ),
    ),
    "crop_truth": _table(
        ("crop_id",),
        _CROP_ID,
        _column("artefact", pa.string(), "none, or the kind put into the crop"),
        _column("strength", pa.float64(), "0 (none) to 1 (strongest)"),
        _column(
            "oddness",
            pa.float64(),
            "how far the real crop is from its plate's usual ones, robust standard deviations; "
            "a copy has that of its original",
        ),
        _column(
            "edge",
            pa.float64(),
            "width of the edge of the original's nucleus, typical nucleus diameters",
            nullable=True,
        ),
    ),
    "labels": _table(
        ("crop_id",),
        _CROP_ID,
        _PLATE,
        _WELL,
        _LABEL,
        _ARTEFACT,
        _STRENGTH,
        _column("compound", pa.string(), "of its well; empty: a control, null: not known", True),
        _column("annotator", pa.string(), "who labelled"),
        _column("source", pa.string(), "label file, or truth"),
        _column("selection", pa.string(), "how it was chosen: random, diverse, uncertain"),
    ),
    "splits": _table(
        ("draw", "crop_id"),
        _DRAW,
        _CROP_ID,
        _LABEL,
        _GROUP,
        _column("part", pa.string(), "train or test"),
        _column(
            "rank", pa.int32(), "place in the training list, from 0; null in the test set", True
        ),
    ),
    "predictions": _table(
        ("draw", "screen", "crop_id"),
        _DRAW,
        _SCREEN,
        _CROP_ID,
        _LABEL,
        _GROUP,
        _column("score", pa.float64(), "probability of abnormal"),
    ),
    "scores": _table(
        ("encoder", "seed", "probe", "budget", "draw", "screen", "metric"),
        _ENCODER,
        _SEED,
        _column("probe", pa.string(), "name in the config"),
        _column("budget", pa.int32(), "labelled training crops"),
        _DRAW,
        _SCREEN,
        _column("metric", pa.string(), "one of metrics.METRICS or of metrics.paper_style"),
        _column("value", pa.float64(), "fraction, 0 to 1"),
        _column("n_test", pa.int32(), "test crops"),
    ),
    "replicates": _table(
        ("encoder", "seed", "probe", "budget", "screen", "metric", "replicate"),
        _ENCODER,
        _SEED,
        _column("probe", pa.string(), "name in the config"),
        _column("budget", pa.int32(), "labelled training crops"),
        _SCREEN,
        _column("metric", pa.string(), "one of metrics.METRICS"),
        _column("replicate", pa.int32(), "of the bootstrap over groups and draws, from 0"),
        _column("value", pa.float64(), "mean over draws, fraction, 0 to 1"),
        _column("n_groups", pa.int32(), "groups that the test crops lie in"),
    ),
    "left_out": _table(
        ("encoder", "seed", "probe", "budget", "draw", "screen", "metric", "group"),
        _ENCODER,
        _SEED,
        _column("probe", pa.string(), "name in the config"),
        _column("budget", pa.int32(), "labelled training crops"),
        _DRAW,
        _SCREEN,
        _column("metric", pa.string(), "one of metrics.METRICS"),
        _column("group", pa.string(), "that is left out"),
        _column("value", pa.float64(), "fraction, 0 to 1; null if not defined", nullable=True),
    ),
    "held_out": _table(
        ("crop_id",),
        _CROP_ID,
        _PLATE,
        _WELL,
        _GROUP,
        _LABEL,
        _column("selection", pa.string(), "how it was chosen: random, diverse, uncertain"),
        _column("random", pa.bool_(), "chosen at random whatever its class"),
        _column("score", pa.float64(), "of a model that saw no label of its group", True),
    ),
    "crop_scores": _table(
        ("crop_id",),
        _CROP_ID,
        _column("score", pa.float64(), "of the detector, 0 to 1"),
        _column("artefact", pa.string(), "most likely if it is abnormal", nullable=True),
        _column("focus", pa.float64(), "sharpness of the nucleus channel, log10"),
        _column(
            "edge", pa.float64(), "width of the nucleus' edge, typical nucleus diameters", True
        ),
        _column("saturated", pa.float64(), "share of white pixels in the channel with most"),
    ),
    "cells": _table(
        ("crop_id",),
        _CROP_ID,
        _column("Metadata_Plate", pa.string(), "plate, as the screen names it"),
        _column("Metadata_Well", pa.string(), "row letters and two digits: B02, AF48"),
        _column("Metadata_Site", pa.int32(), "field within the well, from 1"),
        _column("Nuclei_Location_Center_X", pa.float64(), "of the nucleus, source pixels"),
        _column("Nuclei_Location_Center_Y", pa.float64(), "of the nucleus, source pixels"),
        _column("Nuclei_AreaShape_Area", pa.float64(), "of the nucleus, source pixels"),
        _column("score", pa.float64(), "of the detector, 0 to 1; null if not scored", True),
        _column("probability", pa.float64(), "of abnormal at the screen's prevalence", True),
        _column("threshold", pa.float64(), "of the screen"),
        _column("flagged", pa.bool_(), "score above the threshold; null if not scored", True),
        _column("artefact", pa.string(), "most likely, of flagged cells", True),
        _column("focus", pa.float64(), "sharpness of the nucleus channel, log10", True),
        _column(
            "edge", pa.float64(), "width of the nucleus' edge, typical nucleus diameters", True
        ),
        _column("saturated", pa.float64(), "brightest channel's share of saturated pixels", True),
        _column("reason", pa.string(), "why not scored; null if scored", True),
    ),
    # Of CSV files.
    "published_flags": _table(
        ("unit", "flag", "ours"),
        _column("unit", pa.string(), "field; or well, flagged if more than half its fields are"),
        _column("flag", pa.string(), "column of the published table; any of them"),
        _column("words", pa.string(), "what the config says that it means"),
        _column("ours", pa.string(), "bad: for any reason; else kinds of artefact, and checks"),
        _column("score", pa.string(), "of ours, whose AUC is given; of a well the mean"),
        _column("compared", pa.int64(), "units that both sides have, with a published flag"),
        _column("both", pa.int64(), "flagged by both"),
        _column("published_only", pa.int64(), "with the published flag, not flagged by us"),
        _column("ours_only", pa.int64(), "flagged by us, without the published flag"),
        _column("neither", pa.int64(), "flagged by neither"),
        _column("published_share", pa.float64(), "with the published flag, 0 to 1", True),
        _column("ours_share", pa.float64(), "flagged by us, 0 to 1", True),
        *(
            _column(f"{name}{end}", pa.float64(), about + (bound and ": 95% interval"), True)
            for name, about in (
                ("sensitivity", "flagged by us, of those with the published flag"),
                ("precision", "with the published flag, of those that we flag"),
                ("kappa", "Cohen's"),
                ("auc", "area under the ROC curve of our score, of units that have one"),
            )
            for end, bound in (("", ""), ("_low", "low"), ("_high", "high"))
        ),
        _column("scored", pa.int64(), "units that have a score"),
        _column("without_ours", pa.int64(), "units that only the published table has"),
        _column("without_published", pa.int64(), "units that only we have"),
        _column("without_flag", pa.int64(), "fields of both sides whose published flag is empty"),
    ),
    "published_fields": _table(
        ("Metadata_Plate", "Metadata_Well", "Metadata_Site"),
        _column("Metadata_Plate", pa.string(), "plate, as the screen names it"),
        _column("Metadata_Well", pa.string(), "row letters and two digits: B02, AF48"),
        _column("Metadata_Site", pa.int32(), "field within the well, from 1"),
        _column("published", pa.bool_(), "has a published flag; null: not known", True),
        _column("published_flags", pa.string(), "its published flags in words"),
        _column("bad", pa.bool_(), "we flag the field; null: we do not have it", True),
        _column("reason", pa.string(), "why we do", True),
        _column("artefact", pa.string(), "the most common one of its flagged cells", True),
        _column("flagged_share", pa.float64(), "of its scored cells, 0 to 1", True),
        _column("edge", pa.float64(), "width of its nuclei's edges, nucleus diameters", True),
        _column("difference", pa.string(), "which side alone flags it, or has it; else empty"),
    ),
    "epoch_scores": _table(
        ("encoder", "seed", "epoch", "draw"),
        _ENCODER,
        _SEED,
        _column("epoch", pa.int32(), "epochs of pretraining done; 0: random weights"),
        _DRAW,
        _column("accuracy", pa.float64(), "of nearest neighbours on the test set, 0 to 1"),
    ),
}


def features_schema(width: int) -> TableSchema:
    """Return the schema of a table of feature vectors of `width` values, float32."""
    vector = _column("vector", pa.list_(pa.float32(), width), "output of the frozen encoder")
    return _table(("crop_id",), _CROP_ID, vector)


def check_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise InputError if `table`, called `name`, lacks one of the columns."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{name}: column '{missing[0]}' is missing; it needs {', '.join(columns)}")


def write_table(
    rows: pd.DataFrame | pa.Table,
    path: str | Path,
    schema: str | TableSchema,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Write `rows` as Parquet, atomically, if they are exactly what the schema says.

    `metadata` is stored as JSON in the file's key-value metadata.
    Raises ValueError on a missing or unknown column, a wrong type, a null or a repeated key.
    """
    table = _checked(rows, path, TABLES[schema] if isinstance(schema, str) else schema)
    table = table.replace_schema_metadata(file_metadata(metadata))
    with atomic(path) as temporary:
        write_sealed(table, temporary)


def _checked(rows: pd.DataFrame | pa.Table, path: str | Path, schema: TableSchema) -> pa.Table:
    """Return `rows` with the columns and types of a schema; raises ValueError for other rows."""
    names = rows.columns.tolist() if isinstance(rows, pd.DataFrame) else rows.column_names
    expected = schema.columns.names
    if set(names) != set(expected):
        raise ValueError(f"{path}: columns {sorted(names)}, expected {sorted(expected)}")
    if isinstance(rows, pd.DataFrame):
        table = pa.Table.from_pandas(rows[expected], schema.columns, preserve_index=False)
    else:
        table = rows.select(expected).cast(schema.columns)
    for field in schema.columns:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"{path}: null in column '{field.name}'")
    distinct = table.group_by(list(schema.keys)).aggregate([]).num_rows
    if distinct != table.num_rows:
        raise ValueError(f"{path}: {table.num_rows - distinct} repeated keys {schema.keys}")
    return table


def join_tables(
    paths: Sequence[Path], path: Path, schema: str, changed: Callable[[pa.Table], pa.Table]
) -> None:
    """Write tables of one schema and of different keys below each other, each a row group.

    `changed` may replace values of each. Raises InputError if a file is no such table, or damaged.
    """
    columns = TABLES[schema].columns.with_metadata(file_metadata(None))
    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, columns, write_page_checksum=True) as writer:
            for part in paths:
                writer.write_table(changed(_read_table(part, schema)).cast(columns))
            promise_seal(writer)
        set_seal(temporary)


def join_csv(paths: Sequence[Path], path: Path) -> None:
    """Write CSV files of one header below each other, to the letter; raises InputError."""
    header = ""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        for part in paths:
            with open(part, encoding="utf-8", newline="") as rows:
                first = rows.readline()
                if header and first != header:
                    raise InputError(
                        f"{part}: its columns are not those of {paths[0]}; delete both and run "
                        "again"
                    )
                if not header:
                    header = first
                    file.write(first)
                file.write(rows.read())


def write_csv(
    rows: pd.DataFrame,
    path: str | Path,
    digits: str | None = None,
    paths: Sequence[str] = (),
    schema: str | None = None,
) -> None:
    """Write a table as CSV, atomically, so that no spreadsheet program runs a text of it.

    `digits` is the format of its numbers; `paths` are columns as in `for_spreadsheets`. With a
    `schema` it raises ValueError as `write_table` does.
    """
    if schema is not None:
        rows = _checked(rows, path, TABLES[schema]).to_pandas()
    with atomic(path) as temporary:
        for_spreadsheets(rows, paths).to_csv(temporary, index=False, float_format=digits)


def for_spreadsheets(rows: pd.DataFrame, paths: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table without texts that a spreadsheet program would take for a formula.

    They have an apostrophe before them, which such programs show as text. Numbers stay numbers,
    as texts too. `paths` are columns of paths, which stay what they were: they have ./ before them.
    """
    made = rows.copy()
    for place, name in enumerate(rows.columns):
        column = rows.iloc[:, place]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            before = "./" if name in paths else "'"
            texts = column.astype(object).map(partial(_no_formula, before=before))
            made.isetitem(place, texts.array)
    made.columns = [_no_formula(name, "'") for name in rows.columns]
    return made


def as_written(texts: pd.Series) -> pd.Series:
    """Return texts of a CSV of `for_spreadsheets` as they were before it."""
    return texts.str.replace(f"^'(?={FORMULA.pattern})", "", regex=True)


def _no_formula(value: object, before: str) -> object:
    is_formula = isinstance(value, str) and FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"{before}{value}" if is_formula else value


def file_metadata(metadata: Mapping[str, object] | None) -> dict[str, str]:
    """Return the key-value metadata of a file: the producer's, and `metadata` as JSON."""
    stamped = {"producer": "hcsqc", "version": __version__, **(metadata or {})}
    return {f"hcsqc.{key}": json.dumps(value) for key, value in stamped.items()}


def read_metadata(path: str | Path) -> dict[str, object]:
    """Return what `write_table` stored with a file; raises InputError if it is damaged."""
    check_sealed(path)
    stored = pq.read_schema(path).metadata or {}
    return {
        key.decode().removeprefix("hcsqc."): json.loads(value)
        for key, value in stored.items()
        if key.startswith(b"hcsqc.")
    }


def read_table(
    path: str | Path,
    schema: str,
    columns: list[str] | None = None,
    filters: list[tuple] | None = None,
) -> pd.DataFrame:
    """Read a table (or some of its columns or, by `filters`, rows) and check it against its schema.

    Raises InputError if the file is no such table, or damaged.
    """
    table = _read_table(path, schema, filters)
    if columns is not None:
        table = table.select(columns)
    return table.to_pandas()


def _read_table(path: str | Path, schema: str, filters: list[tuple] | None = None) -> pa.Table:
    table = read_parquet(path, ours=True, filters=filters)
    expected = TABLES[schema].columns
    if table.schema.names != expected.names or any(
        table.schema.field(field.name).type != field.type for field in expected
    ):
        raise InputError(
            f"{path}: is not a '{schema}' table (columns {table.schema.names}, "
            f"expected {expected.names}); delete it and run again"
        )
    return table
