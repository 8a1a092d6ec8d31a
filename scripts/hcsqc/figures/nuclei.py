"""The nuclei of a plate, circled in some of its fields."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.collections import EllipseCollection

from hcsqc.figures.style import plt, save_figure

FIELDS_PER_ROW = 4
# A nucleus without an area, published as a place alone, is drawn so large.
PLACE_DIAMETER_PX = 20
NUCLEUS_COLOURS = {"kept": "#7fff00", "dropped": "#ff9f1c"}


def plot_nuclei(
    fields: Sequence[tuple[str, np.ndarray | str, pd.DataFrame]],
    grey: tuple[float, float],
    path: Path,
) -> None:
    """Draw fields with a circle of its area around each nucleus: green kept, orange dropped.

    A field is its name, its DNA channel (H x W, shown from `grey[0]` to `grey[1]`) or why it
    failed, and its rows of the `nuclei` table.
    """
    rows = -(-len(fields) // FIELDS_PER_ROW)
    columns = min(len(fields), FIELDS_PER_ROW)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image, nuclei) in zip(axes.flat, fields, strict=False):
        if isinstance(image, str):
            axis.set_title(f"{name}: failed", fontsize=8)
            axis.text(0.5, 0.5, image, ha="center", va="center", wrap=True, fontsize=8)
            continue
        kept = nuclei["kept"].sum()
        axis.set_title(f"{name}: {len(nuclei)} nuclei, {kept} kept", fontsize=8)
        axis.imshow(image, cmap="gray", vmin=grey[0], vmax=grey[1])
        limits = axis.get_xlim(), axis.get_ylim()
        _circle(axis, nuclei)
        axis.set(xlim=limits[0], ylim=limits[1])  # published places may lie outside
    save_figure(figure, path)


def _circle(axis, nuclei: pd.DataFrame) -> None:
    diameters = 2 * np.sqrt(nuclei["area_px"] / np.pi)
    diameters = diameters.where(diameters > 0, PLACE_DIAMETER_PX)
    colours = nuclei["kept"].map({True: "kept", False: "dropped"}).map(NUCLEUS_COLOURS)
    axis.add_collection(
        EllipseCollection(
            diameters,
            diameters,
            np.zeros(len(nuclei)),
            units="xy",
            offsets=nuclei[["x_px", "y_px"]].to_numpy(float),
            offset_transform=axis.transData,
            facecolors="none",
            edgecolors=list(colours),
            linewidths=0.8,
        )
    )
