"""Scores of the encoders against label budget, and under domain shift."""

from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.figures.style import (
    KIND_STYLE,
    METRIC,
    METRIC_NAME,
    panels,
    plt,
    save_figure,
    titled,
    wrapped,
)


def plot_budgets(table: pd.DataFrame, path: Path) -> None:
    """Draw score against label budget, a panel per probe, a line per encoder (table 2).

    Probes of one budget have a panel only if no probe has more.
    """
    rows = table[(table["metric"] == METRIC) & (table["status"] == "run")]
    several = rows.groupby("probe")["budget"].nunique() > 1
    probes = [name for name in dict.fromkeys(rows["probe"]) if several[name] or not several.any()]
    figure, axes = panels(len(probes), 4.4)
    for axis, probe in zip(axes, probes, strict=True):
        for encoder, line in rows[rows["probe"] == probe].groupby("encoder", sort=False):
            line = line.sort_values("budget")
            style = KIND_STYLE[line["kind"].iloc[0]]
            (drawn,) = axis.plot(line["budget"], line["percent"], label=encoder, **style)
            if line["low"].notna().any():
                axis.fill_between(
                    line["budget"], line["low"], line["high"], alpha=0.08, color=drawn.get_color()
                )
        axis.set_xscale("log")
        budgets = sorted(rows["budget"].unique())
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.minorticks_off()
        axis.set_xlabel("labelled training crops")
        axis.set_title(titled(probe, rows.loc[rows["probe"] == probe, "draws"].min()))
        axis.grid(alpha=0.3)
        axis.set_ylabel(METRIC_NAME)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9)
    save_figure(figure, path)


def plot_shift(trained: pd.DataFrame, shifted: pd.DataFrame, path: Path) -> None:
    """Draw each encoder's score on its own screen and on the others, a panel per probe.

    `trained` is table 2, `shifted` table 3.
    """
    shifted = shifted[(shifted["metric"] == METRIC) & (shifted["status"] == "run")]
    trained = trained[(trained["metric"] == METRIC) & (trained["status"] == "run")]
    probes = list(dict.fromkeys(shifted["probe"]))
    if not probes:
        figure, axis = plt.subplots(figsize=(5, 1.5), layout="constrained")
        axis.axis("off")
        axis.text(0.5, 0.5, "This study tests on no other screen.", ha="center")
        save_figure(figure, path)
        return
    # The panels share their rows, and not every probe is for every encoder.
    encoders = list(dict.fromkeys(shifted["encoder"]))[::-1]
    figure, axes = panels(len(probes), 1.2 + 0.34 * len(encoders), 6.2)
    for axis, probe in zip(axes, probes, strict=True):
        there = shifted[shifted["probe"] == probe]
        here = trained[(trained["probe"] == probe) & (trained["budget"] == there["budget"].max())]
        for rows, marker in ((here, "o"), *((g, "D") for _, g in there.groupby("screen"))):
            rows = rows.set_index("encoder").reindex(encoders)
            places = np.arange(len(encoders))
            axis.plot(rows["percent"], places, marker, label=rows["screen"].dropna().iloc[0])
            axis.hlines(
                places, rows["low"], rows["high"], alpha=0.5, color=axis.lines[-1].get_color()
            )
        axis.set_yticks(np.arange(len(encoders)), [wrapped(name) for name in encoders], fontsize=9)
        axis.set_title(titled(probe, there["draws"].min()))
        axis.set_xlabel(METRIC_NAME)
        axis.grid(alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9)
    save_figure(figure, path)
