"""Dose response as a heat map whose numbers stand in its cells."""

from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.analyses.dose_response import MISSED, STRENGTHS, is_missed
from hcsqc.figures.style import plt, save_figure

# Shades above this are so dark that black numbers would not be read.
DARK = 0.6


def plot_dose_response(table: pd.DataFrame, path: Path) -> None:
    """Draw the percentage detected, encoders by artefact and strength; a panel per probe.

    `table` has the columns of `dose_response.detection`, encoder and probe, for one threshold;
    a panel is a probe on a screen. Numbers of crops stand below the strengths. Artefacts that are
    missed, as `dose_response.is_missed` says, are bold with an asterisk.
    """
    panels = list(table.groupby(["probe", "screen"], sort=False))
    encoders = list(dict.fromkeys(table["encoder"]))
    widest = max((len(_columns(rows)) for _, rows in panels), default=1)
    figure, axes = plt.subplots(
        max(len(panels), 1),
        1,
        figsize=(2 + 0.42 * widest, max(len(panels), 1) * (1.5 + 0.26 * len(encoders))),
        squeeze=False,
        layout="constrained",
    )
    if not panels:
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "No abnormal crops were tested.", ha="center")
    for axis, ((probe, screen), rows) in zip(axes[:, 0], panels, strict=False):
        _draw_panel(axis, rows, encoders)
        threshold = rows["threshold"].iloc[0]
        axis.set_title(
            f"{probe} on {screen}: % detected at {threshold}; *: 95% interval below {MISSED:.0%}",
            fontsize=9,
            loc="left",
            pad=16,
        )
    save_figure(figure, path)


def _columns(rows: pd.DataFrame) -> list[tuple[str, str]]:
    present = set(zip(rows["artefact"], rows["strength"], strict=True))
    artefacts = sorted(set(rows["artefact"]))
    return [(name, level) for name in artefacts for level in STRENGTHS if (name, level) in present]


def _draw_panel(axis, rows: pd.DataFrame, encoders: list[str]) -> None:
    columns = _columns(rows)
    index = pd.MultiIndex.from_tuples(columns)
    keys = ["artefact", "strength"]
    rows = rows.assign(missed=is_missed(rows))
    values, missed_cells, crops = (
        rows.pivot(index="encoder", columns=keys, values=name).reindex(encoders, columns=index)
        for name in ("detected", "missed", "crops")
    )
    missed_cells = missed_cells.to_numpy(float)  # nan where an encoder has no such cell
    axis.imshow(values.to_numpy(float), cmap="Greys", vmin=0, vmax=1.15, aspect="auto")
    for (row, column), value in np.ndenumerate(values.to_numpy(float)):
        missed = missed_cells[row, column] == 1
        text = "-" if np.isnan(value) else f"{100 * value:.0f}" + ("*" if missed else "")
        axis.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > DARK else "black",
            fontweight="bold" if missed else "normal",
        )
    levels = [f"{level}\n{crops[(artefact, level)].max():.0f}" for artefact, level in columns]
    axis.set_xticks(range(len(columns)), levels, fontsize=6, rotation=0)
    axis.set_yticks(range(len(encoders)), encoders, fontsize=8)
    for artefact in dict.fromkeys(name for name, _ in columns):
        places = [place for place, (name, _) in enumerate(columns) if name == artefact]
        axis.text(np.mean(places), -0.7, artefact, ha="center", va="bottom", fontsize=7)
        axis.axvline(places[-1] + 0.5, color="black", linewidth=0.8)
