"""What a viewer shows of a field, as plain data, and napari to show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.crops.shards import ShardFormat
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.field_view.find import FoundField
from hcsqc.screens.images.read import UnreadableField, read_field

INSTALL = 'napari is not installed in this environment; run: pip install "napari[pyqt6]"'
PASSED, FLAGGED, NOT_SCORED = "passed", "flagged", "not scored"
# What differs in colour differs in its symbol as well.
LOOK = {FLAGGED: ("#ff8c1a", "square"), PASSED: ("#66ccff", "disc"), NOT_SCORED: ("#999999", "x")}
COMPOSITE_COLOURS = ("red", "green", "blue")
CROPS_ACROSS, GAP = 4, 4  # crops in a row beside the field; pixels between them
MOST_CROPS = 200


@dataclass(frozen=True)
class Layer:
    """A layer: `kind` is the napari method that adds it, `add_image`, `add_points`, ..."""

    kind: str
    data: np.ndarray
    options: dict = field(default_factory=dict)


def field_layers(found: FoundField) -> list[Layer]:
    """Return the channels of a field, its nuclei with their flags, and its crops beside it.

    Raises InputError if the field's images cannot be read.
    """
    shard_format = found.shards.format
    try:
        planes = read_field(
            found.source.folder(found.field["plate"]),
            found.field["image_path"],
            found.field["image_page"],
            found.source.z_projection,
            shard_format.channels,
        ).planes
    except UnreadableField as error:
        raise InputError(
            f"field {found.field['field_id']}: {error}; restore its images in "
            f"{found.source.folder(found.field['plate'])}"
        ) from error
    layers = image_layers(planes, shard_format, found.composite)
    crops = _crops_layer(found, planes[0].shape[1])
    return [*layers, *crops, nuclei_layer(found.cells)]


def image_layers(
    planes: Sequence[np.ndarray], shard_format: ShardFormat, composite: Sequence[str]
) -> list[Layer]:
    """Return a layer per channel; those of the composite are coloured, the others not shown.

    Contrast runs from the background to the knee of the plate's scale, where that is known.
    """
    layers = []
    for name, plane in zip(shard_format.channels, planes, strict=True):
        place = list(composite).index(name) if name in composite else None
        shown = place is not None and place < len(COMPOSITE_COLOURS)
        colour = COMPOSITE_COLOURS[place] if shown and len(composite) > 1 else "gray"  # type: ignore[index]
        limits = tuple(shard_format.scale[name][:2]) if name in shard_format.scale else None
        options = {"name": name, "colormap": colour, "blending": "additive", "visible": shown}
        layers.append(Layer("add_image", plane, options | {"contrast_limits": limits}))
    return layers


def nuclei_layer(cells: pd.DataFrame) -> Layer:
    """Return the nuclei of a field as points (row, column) as large as they are.

    Their text is the score, and of flagged ones the artefact; colour and symbol say what they are.
    """
    flagged = is_flagged(cells)
    states = np.where(cells["score"].isna(), NOT_SCORED, np.where(flagged, FLAGGED, PASSED))
    artefacts = cells["artefact"].astype(object).where(cells["artefact"].notna(), "")
    texts = [
        "" if np.isnan(score) else f"{score:.2f} {artefact}".strip()
        for score, artefact in zip(cells["score"].astype(float), artefacts, strict=True)
    ]
    features = pd.DataFrame(
        {
            "crop_id": cells["crop_id"],
            "state": states,
            "score": cells["score"],
            "artefact": artefacts,
            "text": texts,
        }
    )
    colours = [LOOK[state][0] for state in states]
    return Layer(
        "add_points",
        cells[["Nuclei_Location_Center_Y", "Nuclei_Location_Center_X"]].to_numpy(float),
        {
            "name": "nuclei",
            "features": features,
            "size": 2 * np.sqrt(cells["Nuclei_AreaShape_Area"].to_numpy(float) / np.pi) + 4,
            "symbol": [LOOK[state][1] for state in states],
            "face_color": "transparent",
            "border_color": colours,
            "border_width": 0.08,
            "text": {"string": "{text}", "color": "white", "size": 8, "anchor": "upper_left"},
        },
    )


def _crops_layer(found: FoundField, right_px: int) -> list[Layer]:
    """Return the crops beside the field, highest scores first; nothing if it has none."""
    scored = found.cells[found.cells["score"].notna()]
    scored = scored.sort_values(["score", "crop_id"], ascending=[False, True]).head(MOST_CROPS)
    if scored.empty:
        return []
    rows = found.shards.rows_of(scored["crop_id"])
    crops = found.shards.read_composite(rows, found.composite)
    count, channels, side, _ = crops.shape
    down, step = -(-count // CROPS_ACROSS), side + GAP
    sheet = np.zeros((down * step, CROPS_ACROSS * step, 3), np.uint8)
    for place, crop in enumerate(crops):
        top, left = place // CROPS_ACROSS * step, place % CROPS_ACROSS * step
        if channels == 1:
            sheet[top : top + side, left : left + side] = crop[0][:, :, None]
        for number, plane in enumerate(crop[:3] if channels > 1 else ()):
            sheet[top : top + side, left : left + side, number] = plane
        flagged = bool(scored["flagged"].iloc[place])
        if flagged:
            corner, far = (left, top), (left + side - 1, top + side - 1)
            cv2.rectangle(sheet, corner, far, (255, 140, 26), 2)
    options = {"name": "crops, highest scores first", "rgb": True}
    return [Layer("add_image", sheet, options | {"translate": (0, right_px + 4 * GAP)})]


def show(layers: Sequence[Layer], title: str):
    """Open layers in a new napari viewer and return it; raises InputError without napari."""
    try:
        import napari  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(INSTALL) from error
    viewer = napari.Viewer(title=title)
    for layer in layers:
        getattr(viewer, layer.kind)(layer.data, **layer.options)
    viewer.reset_view()
    return viewer
