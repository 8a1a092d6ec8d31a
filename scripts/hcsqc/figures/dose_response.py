"""Dose response as a heat map whose numbers stand in its cells."""

from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.analyses.dose_response import ALL, MISSED, STRENGTHS, is_missed
from hcsqc.figures.heat_colours import MISSED_MARK, colours
from hcsqc.figures.style import plt, save_figure, wrapped

CELL_WIDTH, ROW_HEIGHT = 0.46, 0.36  # inches


def plot_dose_response(table: pd.DataFrame, path: Path) -> None:
    """Draw the percentage detected, encoders by artefact and strength; a panel per probe.

    `table` has the columns of `dose_response.detection`, encoder and probe, for one threshold;
    a panel is a probe on a screen. Numbers of crops stand below the strengths. Artefacts that are
    missed, as `dose_response.is_missed` says, are bold with a mark.
    """
    panels = list(table[table["strength"] != ALL].groupby(["probe", "screen"], sort=False))
    sizes = [(len(_columns(rows)), rows["encoder"].nunique()) for _, rows in panels]
    heights = [1.3 + ROW_HEIGHT * encoders for _, encoders in sizes] or [1.5]
    figure, axes = plt.subplots(
        len(heights),
        1,
        figsize=(
            3.4 + CELL_WIDTH * max((columns for columns, _ in sizes), default=4),
            sum(heights),
        ),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    if not panels:
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "No abnormal crops were tested.", ha="center")
    for axis, ((probe, screen), rows) in zip(axes[:, 0], panels, strict=False):
        _draw_panel(axis, rows)
        threshold = rows["threshold"].iloc[0]
        axis.set_title(
            f"{probe} on {screen}: % found at {threshold}; {MISSED_MARK}: 95% interval below "
            f"{MISSED:.0%}",
            fontsize=10,
            loc="left",
            pad=20,
        )
    save_figure(figure, path)


def _columns(rows: pd.DataFrame) -> list[tuple[str, str]]:
    present = set(zip(rows["artefact"], rows["strength"], strict=True))
    artefacts = sorted(set(rows["artefact"]))
    return [(name, level) for name in artefacts for level in STRENGTHS if (name, level) in present]


def _draw_panel(axis, rows: pd.DataFrame) -> None:
    columns = _columns(rows)
    encoders = list(dict.fromkeys(rows["encoder"]))
    cells = rows.assign(missed=is_missed(rows)).set_index(["encoder", "artefact", "strength"])
    for row, encoder in enumerate(encoders):
        for column, (artefact, level) in enumerate(columns):
            key = (encoder, artefact, level)
            share = cells.at[key, "detected"] if key in cells.index else np.nan
            missed = not np.isnan(share) and bool(cells.at[key, "missed"])
            background, colour = ("white", "black") if np.isnan(share) else colours(share)
            axis.add_patch(
                plt.Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=background, edgecolor="0.8"
                )
            )
            axis.text(
                column,
                row,
                "-" if np.isnan(share) else f"{100 * share:.0f}" + MISSED_MARK * missed,
                ha="center",
                va="center",
                fontsize=8.5,
                color=colour,
                fontweight="bold" if missed else "normal",
            )
    crops = rows.groupby(["artefact", "strength"])["crops"].max()
    levels = [f"{level}\n{crops[(artefact, level)]:.0f}" for artefact, level in columns]
    axis.set_xticks(range(len(columns)), levels, fontsize=7)
    axis.set_yticks(range(len(encoders)), [wrapped(name) for name in encoders], fontsize=9)
    axis.set_xlim(-0.5, len(columns) - 0.5)
    axis.set_ylim(len(encoders) - 0.5, -0.5)
    for artefact in dict.fromkeys(name for name, _ in columns):
        places = [place for place, (name, _) in enumerate(columns) if name == artefact]
        axis.text(np.mean(places), -0.6, artefact, ha="center", va="bottom", fontsize=8.5)
        axis.axvline(places[-1] + 0.5, color="black", linewidth=0.8)
