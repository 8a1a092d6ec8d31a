"""Learning curves as a figure: measured points, the fitted curve, and where it leads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.analyses.learning_curves import Curve
from hcsqc.figures.style import KIND_STYLE, METRIC_NAME, plt, save_figure, titled, wrapped
from hcsqc.figures.words import KIND_WORDS

# How far beyond the largest budget the curve is drawn; further, it would be believed too much.
REACH = 1.5
PANELS_PER_ROW = 2
PUSHES = 500  # enough for twenty names in one place
NAME_STEP = 0.042  # of a line of a name at the right, share of the axis' height


def plot_learning_curves(
    points: pd.DataFrame, curves: pd.DataFrame, kinds: Mapping[str, str], path: Path
) -> None:
    """Draw score against labels, a panel per probe, each line named at its right end.

    `points` and `curves` are tables of `learning_curves`, `kinds` the kind of each encoder, which
    decides line and marker. The curve is dashed beyond the largest budget, in a grey field; points
    without a curve stand alone. Probes of one budget have a panel only if no probe has more.
    """
    budgets = points.groupby("probe", sort=False)["budget"].nunique()
    probes = list(budgets.index[budgets > 1]) or list(budgets.index)
    columns = min(len(probes), PANELS_PER_ROW)
    rows = -(-len(probes) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(6.6 * columns, 4.4 * rows), squeeze=False, layout="constrained"
    )
    low, high = 100 * points["low"].min(), 100 * points["high"].max()
    if not np.isfinite(low + high):
        low, high = 100 * points["score"].min(), 100 * points["score"].max()
    margin = max(0.08 * (high - low), 1)
    for axis in axes.flat[len(probes) :]:
        axis.axis("off")
    for axis, probe in zip(axes.flat, probes, strict=False):
        axis.set_ylim(low - margin, high + margin)
        _draw_panel(axis, points[points["probe"] == probe], curves[curves["probe"] == probe], kinds)
        axis.set_title(titled(probe, points.loc[points["probe"] == probe, "draws"].min()))
        axis.set_ylabel(METRIC_NAME)
    _explain_kinds(figure, [kinds[encoder] for encoder in points["encoder"]])
    save_figure(figure, path)


def _draw_panel(axis, points: pd.DataFrame, curves: pd.DataFrame, kinds) -> None:
    budgets = sorted(points["budget"].unique())
    edge = REACH * budgets[-1]
    axis.set_xscale("log")
    axis.set_xlim(budgets[0] / 1.15, edge)
    axis.axvspan(budgets[-1], edge, color="0.93", zorder=0)
    ends = {}
    for place, (encoder, own) in enumerate(points.groupby("encoder", sort=False)):
        own = own.sort_values("budget")
        style, colour = KIND_STYLE[kinds[encoder]], f"C{place}"
        scores = 100 * own["score"].to_numpy()
        axis.plot(own["budget"], scores, ls="", marker=style["marker"], color=colour, ms=5)
        axis.vlines(own["budget"], 100 * own["low"], 100 * own["high"], color=colour, alpha=0.5)
        ends[encoder] = scores[-1], own["budget"].iloc[-1], colour
        row = curves[(curves["encoder"] == encoder) & curves["exponent"].notna()]
        if len(row):
            curve = Curve(*row[["asymptote", "scale", "exponent"]].iloc[0])
            inside = np.geomspace(own["budget"].iloc[0], own["budget"].iloc[-1], 100)
            beyond = np.geomspace(own["budget"].iloc[-1], edge, 20)
            axis.plot(inside, 100 * curve.at(inside), ls=style["linestyle"], color=colour, lw=1.3)
            axis.plot(beyond, 100 * curve.at(beyond), color=colour, lw=1, dashes=(4, 2))
            ends[encoder] = 100 * float(curve.at(edge)), edge, colour
    _name_lines(axis, ends)
    axis.set_xticks(budgets, [str(budget) for budget in budgets])
    axis.minorticks_off()
    axis.set_xlabel("labelled training crops (grey: extrapolated)")
    axis.grid(alpha=0.3)


def _name_lines(axis, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Write each encoder's name at the right, apart from the others, with a line to its curve."""
    bottom, top = axis.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][0])
    wanted = np.array([(ends[name][0] - bottom) / (top - bottom) for name in names])
    lines = np.array([wrapped(name).count("\n") + 1.2 for name in names])
    steps = NAME_STEP * (lines[:-1] + lines[1:]) / 2
    for name, height in zip(names, spread(wanted, steps), strict=True):
        score, budget, colour = ends[name]
        axis.annotate(
            wrapped(name),
            xy=(budget, score),
            xytext=(1.05, height),
            textcoords=axis.transAxes,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def spread(heights: np.ndarray, steps: np.ndarray | float) -> np.ndarray:
    """Return rising heights of which those closer than `steps` are pushed apart, alike both ways.

    `steps` is one for each neighbouring pair, or the same for all.
    """
    moved = np.array(heights, float)
    for _ in range(PUSHES):
        overlap = np.maximum(steps - np.diff(moved), 0) / 2
        moved[:-1] -= overlap
        moved[1:] += overlap
    return moved


def _explain_kinds(figure, kinds) -> None:
    handles = [
        plt.Line2D([], [], color="black", label=KIND_WORDS.get(kind, kind), **KIND_STYLE[kind])
        for kind in dict.fromkeys(kinds)
    ]
    handles.append(plt.Line2D([], [], color="black", dashes=(4, 2), lw=1, label="extrapolated"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
