"""What the figures share: matplotlib without a screen, styles, panels and how they are saved."""

import textwrap
from pathlib import Path

import matplotlib

# Figures take pyplot from here: it must find the backend chosen.
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

from hcsqc.core.files import atomic
from hcsqc.probes.draws import few_draws

# matplotlib's ten and four more: studies compare more than ten encoders.
COLOURS = [*matplotlib.colormaps["tab10"].colors, "black", "darkkhaki", "navy", "salmon"]
plt.rcParams["axes.prop_cycle"] = cycler(color=COLOURS)
PANELS_PER_ROW = 2
# Kinds of encoder differ in line and marker, so that the figures read without colour.
KIND_STYLE = {
    "transfer": {"linestyle": "-", "marker": "o"},
    "ssl": {"linestyle": "--", "marker": "s"},
    "control": {"linestyle": ":", "marker": "x"},
    "classical": {"linestyle": "-.", "marker": "^"},
    "pooled": {"linestyle": (0, (5, 1)), "marker": "D"},
    "joined": {"linestyle": (0, (3, 1, 1, 1)), "marker": "*"},
}
# Characters of a name beside an axis before it takes another line.
NAME_WIDTH = 34
METRIC = "f1"
METRIC_NAME = "weighted F1 (%)"


def panels(count: int, height: float, width: float = 5.2) -> tuple[plt.Figure, np.ndarray]:
    """Return a figure and its `count` panels, which share both axes, a few in a row.

    `height` and `width` are of a panel, in inches. Every panel has the numbers of both axes.
    """
    columns = min(count, PANELS_PER_ROW)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        sharey=True,
        sharex=True,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    for axis in axes.flat[:count]:
        axis.tick_params(labelbottom=True, labelleft=True)
    return figure, axes.flat[:count]


def titled(probe: str, draws: int) -> str:
    """Return a panel's title: the probe, and how many draws it is of where they are no mean."""
    few = few_draws(int(draws))
    return f"{probe} ({few}: no mean)" if few else probe


def wrapped(name: str, width: int = NAME_WIDTH) -> str:
    """Return a name over several lines, for the side of an axis."""
    return "\n".join(textwrap.wrap(name, width)) or name


def save_figure(figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
