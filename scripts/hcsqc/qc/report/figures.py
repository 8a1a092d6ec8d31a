"""Figures of a screen's quality control: scores, drift, edge effect and the map of features.

All are returned as PNG. What differs in colour differs in marker, hatching or words as well.
"""

import io
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from numpy.typing import ArrayLike
from scipy.stats import binomtest, t
from sklearn.decomposition import PCA

from hcsqc.figures.style import plt
from hcsqc.qc.prevalence import SHOWN

DPI = 140
SIZE_INCHES = (6.4, 3.7)
BINS = np.linspace(0, 1, 41)
LONGEST_NAME = 22  # characters of a plate's name on an axis
MOST_TICKS = 40
MOST_IN_LEGEND = 14
MARKERS = "o^sDvP*X"
DARK, ACCENT, PALE = "#1b1f23", "#b35900", "#8b98a5"
LABEL_STYLE = {
    "normal": {"histtype": "step", "edgecolor": DARK, "linestyle": "--", "linewidth": 1.4},
    "abnormal": {"histtype": "step", "edgecolor": ACCENT, "hatch": "////", "linewidth": 1.4},
}


def png(figure, tight: bool = True) -> bytes:
    """Return a figure as PNG and close it; `tight` leaves no margin around what is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight" if tight else None)
    plt.close(figure)
    return buffer.getvalue()


def rates(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return by `by`: scored, flagged, clusters, share, low and high, of rows that are clusters.

    A row of `table` is a well or field with `scored` and `flagged` cells. Cells of one are alike,
    so the 95% interval is that of a ratio of cluster totals (Cochran 1977, 6.3) with Student's t,
    and never narrower than Wilson's for independent cells. One cluster has no interval: NaN.
    """
    rows = []
    for key, group in table[table["scored"] > 0].groupby(by):
        scored, flagged = group["scored"].to_numpy(float), group["flagged"].to_numpy(float)
        count, share = len(group), flagged.sum() / scored.sum()
        low = high = np.nan
        if count > 1:
            errors = ((flagged - share * scored) ** 2).sum() * count / (count - 1)
            reach = t.ppf((1 + SHOWN) / 2, count - 1) * np.sqrt(errors) / scored.sum()
            wilson = binomtest(int(flagged.sum()), int(scored.sum())).proportion_ci(SHOWN, "wilson")
            low = max(0.0, min(share - reach, wilson.low))
            high = min(1.0, max(share + reach, wilson.high))
        rows.append((key, int(scored.sum()), int(flagged.sum()), count, share, low, high))
    names = [by, "scored", "flagged", "clusters", "share", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def plot_scores(scores: pd.Series, threshold: float | None, labels: pd.DataFrame | None) -> bytes:
    """Draw the histogram of all scores (0 to 1) and where the threshold lies.

    `labels` has score and label of the crops that are labelled, drawn below, if there are any.
    """
    labels = None if labels is None or not len(labels) else labels
    figure, axes = plt.subplots(
        1 if labels is None else 2,
        1,
        figsize=SIZE_INCHES if labels is None else (SIZE_INCHES[0], 1.3 * SIZE_INCHES[1]),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    above = axes[0][0]
    above.hist(scores, BINS, color="0.75", edgecolor="0.35", linewidth=0.6)
    above.set_yscale("log")
    above.set_ylabel("cells (log)")
    if labels is not None:
        below = axes[1][0]
        for label, style in LABEL_STYLE.items():
            own = labels.loc[labels["label"] == label, "score"]
            below.hist(own, BINS, label=f"{label} ({len(own):,})", **style)
        below.set_ylabel("labelled crops")
        below.legend(fontsize=8, loc="upper center")
    axes[-1][0].set_xlabel("score of the detector (1: surely abnormal)")
    for axis in axes.flat:
        axis.set_xlim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
        if threshold is not None and np.isfinite(threshold):
            axis.axvline(threshold, color=ACCENT, linewidth=1.6)
            axis.axvspan(threshold, 1, facecolor=ACCENT, alpha=0.10, zorder=0)
    if threshold is not None and np.isfinite(threshold):
        side = {"ha": "left"} if threshold < 0.6 else {"ha": "right"}
        above.annotate(
            f"threshold {threshold:.3g}\nflagged above it",
            (threshold, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(6 if threshold < 0.6 else -6, 0),
            textcoords="offset points",
            va="top",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
            **side,
        )
    return png(figure)


def plot_rates(
    table: pd.DataFrame,
    ticks: Sequence[str],
    xlabel: str,
    overall: float,
    special: ArrayLike | None = None,
    special_name: str = "",
    joined: bool = False,
) -> bytes:
    """Draw shares of flagged cells (0 to 1) with intervals, one for each tick, in order.

    Names among `ticks` are as `plain` returns them.
    `table` has share, low and high; `overall` is the share of the screen, a dashed line. Those
    that are `special` are filled diamonds instead of circles. `joined` draws a line through all.
    """
    figure, axis = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    places = np.arange(len(table))
    share, low, high = (100 * table[name].to_numpy(float) for name in ("share", "low", "high"))
    marked = np.zeros(len(table), bool) if special is None else np.asarray(special, bool)
    if joined:
        axis.plot(places, share, color=PALE, linewidth=1, zorder=1)
    axis.vlines(places, low, high, color=DARK, linewidth=1.4, zorder=2)
    for chosen, marker, face, name in (
        (~marked, "o", "white", None),
        (marked, "D", ACCENT, special_name),
    ):
        if chosen.any():
            axis.plot(
                places[chosen],
                share[chosen],
                marker,
                markersize=7,
                markerfacecolor=face,
                markeredgecolor=DARK,
                label=name,
                zorder=3,
            )
    if np.isfinite(overall):
        axis.axhline(
            100 * overall, color="0.4", linestyle="--", linewidth=1, label="whole screen", zorder=0
        )
    _ticks(axis, ticks)
    axis.set_xlabel(xlabel)
    axis.set_ylabel("flagged cells (%)")
    top = np.nanmax([*share, *high, 0.0, 100 * overall if np.isfinite(overall) else 0.0])
    axis.set_ylim(0, min(105, 1.12 * top) if top > 0 else 5)
    axis.set_xlim(-0.6, max(len(table), 1) - 0.4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    return png(figure)


def plot_shift(plates: pd.DataFrame, ticks: Sequence[str]) -> bytes:
    """Draw the shift of each plate's features and scores, in order; warned ones are diamonds.

    `ticks` are the names to draw, as `plain` returns them.
    """
    figure, axes = plt.subplots(2, 1, figsize=SIZE_INCHES, sharex=True, layout="constrained")
    warned = plates["warning"].fillna("").ne("").to_numpy()
    for axis, column, marker in zip(axes, ("feature_shift", "score_shift"), "s^", strict=True):
        values = plates[column].to_numpy(float)
        places = np.arange(len(values))
        axis.plot(places, values, color=PALE, linewidth=1, zorder=1)
        for chosen, shape, face in ((~warned, marker, "white"), (warned, "D", ACCENT)):
            axis.plot(
                places[chosen],
                values[chosen],
                shape,
                markersize=6,
                markerfacecolor=face,
                markeredgecolor=DARK,
                zorder=2,
            )
        axis.set_ylabel({"feature_shift": "features", "score_shift": "scores"}[column])
        axis.margins(y=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    _ticks(axes[1], ticks)
    axes[1].set_xlim(-0.6, max(len(plates), 1) - 0.4)
    axes[1].set_xlabel("plate, in order (filled diamond: with a warning)")
    return png(figure)


def _ticks(axis, names: Sequence[str]) -> None:
    step = -(-len(names) // MOST_TICKS)
    shown = list(names[::step]) if step else []
    crowded = sum(max(map(len, name.split("\n"))) for name in shown) > 75
    axis.set_xticks(
        range(0, len(names), step or 1),
        shown,
        rotation=60 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
        fontsize=7 if crowded else 8,
    )


def plain(name: object) -> str:
    """Return a name to be drawn as it is: shortened if long, and no `$` starts a formula."""
    text = " ".join(str(name).split(" "))
    if len(text) > LONGEST_NAME:
        text = text[: LONGEST_NAME - 1] + "…"
    return text.replace("$", r"\$")


def project(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return n x 2 principal components of n x width features, and the variance that each holds.

    Every value must be finite; of fewer than three rows or one column the rest is 0.
    """
    kept = min(2, *vectors.shape)
    fitted = PCA(kept, svd_solver="randomized", random_state=0)
    points = np.zeros((len(vectors), 2))
    shares = np.zeros(2)
    if len(vectors) > 1:
        # Features that do not vary at all leave no variance to divide by.
        with np.errstate(invalid="ignore"):
            points[:, :kept] = fitted.fit_transform(vectors)
            shares[:kept] = np.nan_to_num(fitted.explained_variance_ratio_)
    return points, shares


def plot_map(
    points: np.ndarray,
    shares: np.ndarray,
    groups: pd.Categorical,
    title: str,
    stands_out: str | None = None,
    backdrop: Collection[str] = (),
) -> bytes:
    """Draw n x 2 points, each of a group: its own marker and colour, the largest group lowest.

    `shares` is the variance that the components hold; the categories of `groups`, in the order of
    the points, are the legend. The one that `stands_out` is drawn last, the others pale; those of
    the `backdrop` are pale and lowest.
    """
    figure, axis = plt.subplots(figsize=(4.4, 4.5), layout="constrained")
    names = list(groups.categories)
    colours = list(colormaps["viridis"](np.linspace(0, 0.8, len(names))))
    for place, name in enumerate(names):
        if name == stands_out:
            colours[place] = ACCENT
        elif stands_out is not None or name in backdrop:
            colours[place] = PALE
    size = float(np.clip(12000 / max(len(points), 1), 9, 40))
    counts = np.bincount(groups.codes, minlength=len(names))
    order = sorted(
        range(len(names)),
        key=lambda place: (
            names[place] == stands_out,
            names[place] not in backdrop,
            -counts[place],
        ),
    )
    handles: dict[int, Artist] = {}
    for place in order:
        x, y = points[groups.codes == place].T
        handles[place] = axis.scatter(
            x,
            y,
            s=size,
            marker=MARKERS[place % len(MARKERS)],
            color=colours[place],
            edgecolor=DARK if names[place] == stands_out else "white",
            linewidth=0.4,
            alpha=0.9,
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(f"1st component ({100 * shares[0]:.0f}% of variance)")
    axis.set_ylabel(f"2nd component ({100 * shares[1]:.0f}%)")
    axis.set_title(title, fontsize=11, loc="left")
    listed = list(range(len(names)))[:MOST_IN_LEGEND]
    words = [f"{plain(names[place])} ({counts[place]:,})" for place in listed]
    if len(names) > MOST_IN_LEGEND:
        handles[-1] = plt.Line2D([], [], linestyle="none")
        listed, words = [*listed, -1], [*words, f"and {len(names) - MOST_IN_LEGEND} more"]
    figure.legend(
        [handles[place] for place in listed],
        words,
        loc="outside lower left",
        ncols=2,
        fontsize=8,
        frameon=False,
        markerscale=float(np.sqrt(40 / size)),
    )
    return png(figure)
