"""The ranking as a figure: scores with intervals, and bars over those that cannot be told apart."""

from pathlib import Path

import pandas as pd

from hcsqc.analyses.ranking import CELL, NO_VERDICT, groups
from hcsqc.figures.style import METRIC_NAME, plt, save_figure

BAR_STEP = 0.03  # between bars, share of the axis


def plot_ranking(ranked: pd.DataFrame, pairs: pd.DataFrame, path: Path) -> None:
    """Draw the rankings given, a panel each, as critical-difference diagrams by score.

    `ranked` holds rows of `ranking.rank`, `pairs` those of `ranking.compare_encoders`. Where there
    is no verdict the title says so, and there are neither intervals nor bars.
    """
    cells = list(ranked.groupby(CELL, sort=False))
    tallest = max(len(rows) for _, rows in cells)
    figure, axes = plt.subplots(
        len(cells),
        1,
        figsize=(8, len(cells) * (1.2 + 0.24 * tallest)),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axis, (cell, rows) in zip(axes[:, 0], cells, strict=True):
        order = rows["encoder"].tolist()
        places = range(len(order))
        axis.plot(100 * rows["mean"], places, "ko", markersize=4)
        verdict = rows["verdict"].iloc[0]
        untold = verdict.startswith(NO_VERDICT)
        if not untold:
            axis.hlines(places, 100 * rows["low"], 100 * rows["high"], color="0.5", linewidth=1)
        own = pairs[(pairs[CELL] == list(cell)).all(axis=1)]
        for count, run in enumerate([] if untold else groups(own, order)):
            at = 1.02 + BAR_STEP * count
            ends = [order.index(run[0]) - 0.2, order.index(run[-1]) + 0.2]
            axis.plot(
                [at, at],
                ends,
                color="black",
                linewidth=3,
                clip_on=False,
                transform=axis.get_yaxis_transform(),
            )
        axis.set_yticks(places, order)
        axis.invert_yaxis()
        axis.grid(alpha=0.3)
        probe, budget, screen, _ = cell
        title = f"{probe}, {budget} labels, {screen}" + (f" ({verdict})" if untold else "")
        axis.set_title(title, fontsize=9, loc="left")
    axes[-1, 0].set_xlabel(
        f"{METRIC_NAME}, 95% interval; bars join encoders that cannot be told apart", fontsize=9
    )
    save_figure(figure, path)
