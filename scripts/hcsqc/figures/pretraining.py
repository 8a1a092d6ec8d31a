"""Figures of pretraining: the course of one, and accuracy along the epochs of all."""

from itertools import cycle
from pathlib import Path

import pandas as pd

from hcsqc.figures.style import plt, save_figure

# Marker and dashes of the lines in turn, so that they read without colour.
LINES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1)))]
COURSE = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "feature_std": "spread of features (0: collapsed)",
    "feature_rank": "rank of features (1: collapsed)",
}


def plot_course(curves: pd.DataFrame, title: str, path: Path) -> None:
    """Draw each of `COURSE` against the step, from the curves of a pretraining's record."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
    for axis, (name, label) in zip(axes.flat, COURSE.items(), strict=True):
        axis.plot(curves["step"], curves[name], linewidth=1)
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
        if name.startswith("feature"):
            axis.set_ylim(0, 1.1 * curves[name].max())
    for axis in axes.flat:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("step")
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_epochs(scores: pd.DataFrame, path: Path) -> None:
    """Draw the mean accuracy over draws at each epoch, a line per encoder and seed.

    `scores` is the `epoch_scores` of all encoders; epoch 0 is before any training.
    """
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    several = scores["seed"].nunique() > 1
    lines = scores.groupby(["encoder", "seed"], sort=False)
    for (marker, dashes), ((encoder, seed), rows) in zip(cycle(LINES), lines, strict=False):
        percent = 100 * rows.groupby("epoch")["accuracy"].agg(["mean", "min", "max"])
        label = f"{encoder}, seed {seed}" if several else encoder
        (line,) = axis.plot(percent.index, percent["mean"], marker=marker, ls=dashes, label=label)
        axis.fill_between(
            percent.index, percent["min"], percent["max"], alpha=0.08, color=line.get_color()
        )
    axis.set_xlabel("epochs of pretraining (0: random weights)")
    axis.set_ylabel("kNN accuracy (%)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    save_figure(figure, path)
