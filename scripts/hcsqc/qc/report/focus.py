"""The focus of each plate in absolute terms: how wide the edges of its nuclei are."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hcsqc.qc.report.words import counted, is_missing, percent

# What `edge_widths` finds at the sharpest possible edge, of discs of 8 to 40 pixels: .9 to 1.4.
SHARPEST_PX = 1.3
BINS = 40
# The axis ends beyond the limit, and no later than so many limits.
LEAST_REACH, MOST_REACH = 1.3, 4.0


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


def edge_chart(cells: pd.Series, fields: pd.Series, scale: FocusScale, reach: float) -> dict:
    """Return the distribution of edges over cells and fields of a plate, for the page to draw.

    Both are in typical nucleus diameters; `reach` is the end of the axis, and what lies beyond is
    counted there. `bars` are percent of the cells and of the fields by bin; `limit` and `sharpest`
    are percent of the axis; `ticks` have the place in percent, and the length.
    """
    bins = np.linspace(0, reach, BINS + 1)
    shares = [
        100
        * np.histogram(values.dropna().clip(upper=reach), bins)[0]
        / max(int(values.notna().sum()), 1)
        for values in (cells, fields)
    ]
    most = max(1.0, *(share.max() for share in shares))
    length = scale.nucleus_diameter_px * (scale.pixel_um or 1)
    unit = "µm" if scale.pixel_um else "px"
    return {
        "bars": [
            (round(100 * of_cells / most, 1), round(100 * of_fields / most, 1))
            for of_cells, of_fields in zip(*shares, strict=True)
        ],
        "most": most,
        "limit": 100 * scale.focus_edge / reach,
        "sharpest": min(100.0, 100 * SHARPEST_PX / scale.nucleus_diameter_px / reach),
        "ticks": [
            (100 * at, f"{at * reach:.2g}", f"{at * reach * length:.2g} {unit}")
            for at in (0, 0.25, 0.5, 0.75, 1)
        ],
        "text": focus_text(fields, scale),
    }
