"""The ranking as figures: all classifiers, and the one that is recommended with what it costs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.analyses.ranking import CELL, NO_VERDICT
from hcsqc.figures.style import METRIC_NAME, plt, save_figure, wrapped

# Filled and hollow, so that the figures read without colour.
ALIKE_STYLE = {"color": "black", "markerfacecolor": "black"}
WORSE_STYLE = {"color": "0.45", "markerfacecolor": "white"}
RECOMMENDED_COLOUR = "#d9e8f6"
ELSEWHERE_STYLE = {"linestyle": "", "marker": "D", "markersize": 6, "color": "#b35900"}
ELSEWHERE_STYLE |= {"markerfacecolor": "none", "label": "on screens that it was not trained on"}
ROW_HEIGHT = 0.36  # inches for an encoder of one or two lines


def plot_ranking(ranked: pd.DataFrame, path: Path) -> None:
    """Draw the rankings given, a panel each: mean scores with their intervals.

    `ranked` holds rows of `ranking.rank`. Encoders that can be distinguished from the best are
    hollow and grey. Where there is no verdict the title says so, and there are no intervals.
    """
    cells = list(ranked.groupby(CELL, sort=False))
    heights = [ROW_HEIGHT * len(rows) + 0.9 for _, rows in cells]
    figure, axes = plt.subplots(
        len(cells),
        1,
        figsize=(8, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axis, (cell, rows) in zip(axes[:, 0], cells, strict=True):
        verdict = str(rows["verdict"].iloc[0])
        untold = verdict.startswith(NO_VERDICT)
        rows = rows.assign(low=np.nan, high=np.nan) if untold else rows
        _draw_scores(axis, rows)
        probe, budget, screen, _ = cell
        title = f"{probe}, {budget} labels, {screen}" + (f" ({verdict})" if untold else "")
        axis.set_title(title, fontsize=10, loc="left")
        axis.tick_params(labelbottom=True)
        axis.set_xlabel(f"{METRIC_NAME}, 95% interval", fontsize=9)
    _explain_fill(figure)
    save_figure(figure, path)


def plot_recommendation(
    options: pd.DataFrame, names: Mapping[str, str], title: str, lost: float, path: Path
) -> None:
    """Draw what each encoder finds, and the time that its features take; the choice is shaded.

    `options` are those of `recommendation.Recommendation`, `names` the encoders' words, `title`
    says under which classifier and budget; at most the share `lost` of good cells is lost.
    Diamonds are means over the other screens.
    """
    if not len(options):
        figure, axis = plt.subplots(figsize=(5, 1.5), layout="constrained")
        axis.axis("off")
        axis.text(0.5, 0.5, "No encoder has a recall.", ha="center")
        save_figure(figure, path)
        return
    rows = options.reset_index(drop=True)
    timed = rows["seconds"].notna().any()
    figure, axes = plt.subplots(
        1,
        2 if timed else 1,
        figsize=(9.5 if timed else 7, ROW_HEIGHT * len(rows) + 1.8),
        squeeze=False,
        sharey=True,
        width_ratios=[2, 1] if timed else None,
        layout="constrained",
    )
    left = axes[0, 0]
    _draw_scores(left, rows.assign(encoder=rows["encoder"].map(lambda name: names.get(name, name))))
    left.set_xlabel(
        f"aberrant cells found (%) where at most {lost:.0%} of the good cells are lost;"
        "\nline: 95% interval"
    )
    more = [plt.Rectangle((0, 0), 1, 1, color=RECOMMENDED_COLOUR, label="recommended")]
    if rows["elsewhere"].notna().any():
        more += left.plot(100 * rows["elsewhere"], rows.index, **ELSEWHERE_STYLE)
    if timed:
        right = axes[0, 1]
        right.barh(rows.index, rows["seconds"], height=0.5, color="0.55", edgecolor="black")
        for place, row in rows.iterrows():
            extra = " + pretraining" if row["pretraining_seconds"] > 0 else ""
            text = "not measured" if pd.isna(row["seconds"]) else f"{row['seconds']:.2g} s{extra}"
            right.text(np.nan_to_num(row["seconds"]), place, f" {text}", va="center", fontsize=8)
        right.set_xlim(0, 1.9 * rows["seconds"].max())
        right.set_xlabel("time of the features\n(s per 1,000 cells)")
        right.grid(alpha=0.3, axis="x")
    for axis in axes[0]:
        for place in rows.index[rows["recommended"]]:
            axis.axhspan(place - 0.45, place + 0.45, color=RECOMMENDED_COLOUR, zorder=0)
    figure.suptitle(title, fontsize=11)
    _explain_fill(figure, *more)
    save_figure(figure, path)


def _draw_scores(axis, rows: pd.DataFrame) -> None:
    """Draw a point and an interval per encoder, the first on top."""
    for place, row in enumerate(rows.itertuples()):
        style = ALIKE_STYLE if row.not_distinguished else WORSE_STYLE
        axis.plot([100 * row.low, 100 * row.high], [place] * 2, color=style["color"], linewidth=1.2)
        axis.plot(100 * row.mean, place, "o", markersize=6, **style)
    axis.set_yticks(range(len(rows)), [wrapped(name) for name in rows["encoder"]], fontsize=9)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(alpha=0.3)


def _explain_fill(figure, *more) -> None:
    handles = [
        plt.Line2D([], [], ls="", marker="o", label=label, **style)
        for label, style in (
            ("highest, or cannot be distinguished from it", ALIKE_STYLE),
            ("lower", WORSE_STYLE),
        )
    ]
    figure.legend(
        handles=[*handles, *more], loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
