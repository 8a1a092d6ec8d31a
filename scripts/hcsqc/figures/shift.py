"""Figures of domain shift: scores by label on both screens, and F1 with each cause undone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.analyses.shift import AS_IT_IS, SAME_SCREEN
from hcsqc.figures.style import plt, save_figure, wrapped
from hcsqc.probes.metrics import THRESHOLD

BINS = np.linspace(0, 1, 21)
PANELS_PER_ROW = 2
TITLE_WIDTH = 60  # characters in a line
# Labels differ in hatching and outline, so that the histograms read without colour.
LABEL_STYLE = {
    "normal": {"histtype": "stepfilled", "facecolor": "0.85", "edgecolor": "0.4"},
    "abnormal": {"histtype": "step", "edgecolor": "black", "hatch": "////", "linewidth": 1.2},
}


def plot_score_histograms(predictions: pd.DataFrame, screens: Sequence[str], path: Path) -> None:
    """Draw the scores of normal and abnormal crops, a row per encoder, a column per screen.

    `predictions` has encoder, screen, label and score (0 to 1, of all draws); `screens` are the
    one trained on and the others. Each label's bars add up to 100 percent.
    """
    encoders = list(dict.fromkeys(predictions["encoder"]))
    figure, axes = plt.subplots(
        len(encoders),
        len(screens),
        figsize=(4.2 * len(screens) + 0.6, 1.9 * len(encoders) + 0.9),
        squeeze=False,
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for of_encoder, encoder in zip(axes, encoders, strict=True):
        for axis, screen in zip(of_encoder, screens, strict=True):
            rows = predictions[predictions["encoder"] == encoder]
            rows = rows[rows["screen"] == screen]
            for label, style in LABEL_STYLE.items():
                scores = rows.loc[rows["label"] == label, "score"]
                weights = np.full(len(scores), 100 / max(len(scores), 1))
                axis.hist(scores, BINS, weights=weights, label=label, **style)
            axis.axvline(THRESHOLD, color="black", linestyle=":", linewidth=1)
            axis.tick_params(labelsize=8, labelbottom=True, labelleft=True)
            axis.set_xlim(0, 1)
            axis.set_title(f"{wrapped(encoder, TITLE_WIDTH)}\n{screen}", fontsize=9)
    figure.supxlabel("score: probability of abnormal (dotted: 0.5)", fontsize=10)
    figure.supylabel("crops of a label (%)", fontsize=10)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, fontsize=9)
    save_figure(figure, path)


def plot_diagnosis(table: pd.DataFrame, path: Path) -> None:
    """Draw the F1 under each condition, a panel per encoder and shift screen.

    `table` is a `DIAGNOSIS` table. A filled circle is the mean over draws and seeds, with the 2.5
    to 97.5 percentiles; a hollow diamond is the probe as it is on the same crops. The dotted line
    is the score on the same screen, the dashed one that on the other as it is.
    """
    rows = table[table["metric"] == "f1"]
    panels = list(rows.groupby(["screen", "encoder"], sort=False))
    conditions = list(dict.fromkeys(rows["condition"]))
    columns = min(PANELS_PER_ROW, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(5.2 * columns, (0.24 * len(conditions) + 1.0) * lines + 0.7),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, ((screen, encoder), panel) in zip(axes.flat, panels, strict=False):
        axis.set_title(f"{wrapped(encoder, TITLE_WIDTH)}\n{screen}", fontsize=9)
        _draw_conditions(axis, panel, conditions)
        axis.set_yticks(np.arange(len(conditions)), conditions, fontsize=8)
        axis.tick_params(labelbottom=True, labelleft=True)
    axes[0][0].invert_yaxis()
    figure.supxlabel("weighted F1 (%)", fontsize=9)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=9)
    save_figure(figure, path)


def _draw_conditions(axis, panel: pd.DataFrame, conditions: Sequence[str]) -> None:
    by_condition = panel.groupby("condition")
    percent = 100 * by_condition["value"].mean().reindex(conditions)
    low = 100 * by_condition["value"].quantile(0.025).reindex(conditions)
    high = 100 * by_condition["value"].quantile(0.975).reindex(conditions)
    reference = 100 * by_condition["reference"].mean().reindex(conditions)
    reference = reference.where(~percent.index.isin([SAME_SCREEN, AS_IT_IS]))
    places = np.arange(len(conditions))
    axis.axvline(percent[SAME_SCREEN], color="0.4", linestyle=":", label=SAME_SCREEN)
    axis.axvline(percent[AS_IT_IS], color="0.4", linestyle="--", label=AS_IT_IS)
    axis.plot(
        reference,
        places,
        "D",
        markerfacecolor="none",
        color="0.4",
        markersize=6,
        linestyle="none",
        label="as it is, on the same crops",
    )
    axis.plot(percent, places, "o", color="black", markersize=4, label="mean over draws")
    axis.hlines(places, low, high, color="black")
    for place, name in enumerate(conditions):
        if np.isnan(percent[name]) and name in by_condition.groups:
            axis.annotate(
                "not tried",
                (0.02, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7,
                style="italic",
            )
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(alpha=0.3)
