"""The focus of each plate in absolute terms: how wide the edges of its nuclei are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hcsqc.figures.style import plt
from hcsqc.qc.report.figures import ACCENT, DARK, png
from hcsqc.qc.report.plate_maps import WIDTH_INCHES
from hcsqc.qc.report.words import counted, is_missing, percent

# What `edge_widths` finds at the sharpest possible edge, of discs of 8 to 40 pixels: .9 to 1.4.
SHARPEST_PX = 1.3
HEIGHT_INCHES = 3.0
INSIDE = (0.11, 0.23, 0.80, 0.58)  # left, bottom, width and height of the axes: no layout to find
BINS = 40
# The axis ends beyond the limit, and no later than so many limits.
LEAST_REACH, MOST_REACH = 1.3, 4.0
FIELD_STYLE: dict[str, Any] = {
    "histtype": "step",
    "edgecolor": DARK,
    "linewidth": 1.4,
    "hatch": "////",
}
CELL_STYLE: dict[str, Any] = {"histtype": "stepfilled", "facecolor": "0.8", "edgecolor": "0.45"}


@dataclass(frozen=True)
class FocusScale:
    """The widest edge in focus, and what turns nucleus diameters into pixels and micrometres."""

    focus_edge: float  # typical nucleus diameters
    nucleus_diameter_px: float  # typical, of the images
    pixel_um: float  # side of a pixel of the images; 0 where it is not known

    def lengths(self, edge: float) -> str:
        """Return an edge in pixels of the images, and in micrometres if they are known."""
        pixels = edge * self.nucleus_diameter_px
        return f"{pixels:.1f} px" + (f", {pixels * self.pixel_um:.1f} µm" if self.pixel_um else "")


def focus_text(edges: pd.Series, scale: FocusScale) -> str:
    """Return in numbers how wide the edges are; `edges` are the medians of a plate's fields."""
    known = edges.dropna()
    if known.empty:
        return "Focus: no field has a nucleus whose edge could be measured."
    low, middle, high = known.quantile([0.05, 0.5, 0.95])
    beyond = known > scale.focus_edge
    return (
        f"Focus: edges of nuclei are {middle:.2f} nuclei wide in the median field "
        f"({scale.lengths(middle)}); 90% of the fields have {low:.2f} to {high:.2f} "
        f"({scale.lengths(low)} to {scale.lengths(high)}). Beyond the limit of "
        f"{scale.focus_edge:g} ({scale.lengths(scale.focus_edge)}): {beyond.sum():,} of "
        f"{counted(len(known), 'field')}, {percent(beyond.mean())}."
    )


def edge_reach(edges: pd.Series, scale: FocusScale) -> float:
    """Return where the axes of all plates end, in nucleus diameters; `edges` are of all fields."""
    widest = 0.0 if is_missing(edges.max()) else 1.1 * float(edges.max())
    return float(np.clip(widest, *(scale.focus_edge * np.array([LEAST_REACH, MOST_REACH]))))


def draw_edges(cells: pd.Series, fields: pd.Series, scale: FocusScale, reach: float) -> bytes:
    """Draw the distribution of edges over the cells and the fields of a plate as PNG.

    Both are in typical nucleus diameters; `reach` is the end of the axis, and what lies beyond is
    drawn there. Axes above are in pixels of the images, and in micrometres if they are known.
    """
    figure = plt.figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES))
    axis = figure.add_axes(INSIDE)
    bins = np.linspace(0, reach, BINS + 1).tolist()
    for values, name, style in ((cells, "cells", CELL_STYLE), (fields, "fields", FIELD_STYLE)):
        drawn = values.dropna().clip(upper=reach)
        weights = np.full(len(drawn), 100 / max(len(drawn), 1))
        axis.hist(drawn, bins, weights=weights, label=f"{name} ({len(drawn):,})", **style)
    axis.axvline(scale.focus_edge, color=ACCENT, linewidth=1.6, label="limit")
    axis.axvspan(scale.focus_edge, reach, facecolor=ACCENT, alpha=0.10, zorder=0)
    sharpest = SHARPEST_PX / scale.nucleus_diameter_px
    axis.axvline(sharpest, color="0.4", linestyle=":", label="sharpest possible", zorder=0)
    axis.set_xlim(0, reach)
    axis.set_xlabel("width of the nuclei's edges (nucleus diameters)", fontsize=9)
    axis.set_ylabel("cells, fields (%)", fontsize=9)
    axis.tick_params(labelsize=8)
    _axis_above(axis, 1.0, scale.nucleus_diameter_px, "px")
    if scale.pixel_um:
        _axis_above(axis, 1.16, scale.nucleus_diameter_px * scale.pixel_um, "µm")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="lower center", ncols=4, fontsize=7.5, frameon=False)
    return png(figure, tight=False)


def _axis_above(axis, place: float, factor: float, unit: str) -> None:
    """Draw another axis at a share of the height, in units of which `factor` are a diameter."""
    above = axis.secondary_xaxis(place, functions=(lambda x: x * factor, lambda x: x / factor))
    above.tick_params(labelsize=7, length=2, pad=1)
    axis.annotate(
        unit,
        (1.0, place),
        xycoords="axes fraction",
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8,
    )
