"""Figures: nuclei of a plate, normal and abnormal crops, score against budget and under shift."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import EllipseCollection

from hcsqc.core.files import atomic
from hcsqc.core.schema import ARTEFACTS
from hcsqc.crops.shards import Shards

CROPS_PER_ROW = 10
FIELDS_PER_ROW = 4
PANELS_PER_ROW = 3
# A nucleus without an area, published as a place alone, is drawn so large.
PLACE_DIAMETER_PX = 20
NUCLEUS_COLOURS = {"kept": "#7fff00", "dropped": "#ff9f1c"}
# Kinds of encoder differ in line and marker, so that the figures read without colour.
KIND_STYLE = {
    "transfer": {"linestyle": "-", "marker": "o"},
    "ssl": {"linestyle": "--", "marker": "s"},
    "control": {"linestyle": ":", "marker": "x"},
    "classical": {"linestyle": "-.", "marker": "^"},
}
METRIC = "f1"
METRIC_NAME = "weighted F1 (%)"


def plot_nuclei(
    fields: Sequence[tuple[str, np.ndarray | str, pd.DataFrame]],
    grey: tuple[float, float],
    path: Path,
) -> None:
    """Draw fields with a circle of its area around each nucleus: green kept, orange dropped.

    A field is its name, its DNA channel (H x W, shown from `grey[0]` to `grey[1]`) or why it
    failed, and its rows of the `nuclei` table.
    """
    rows = -(-len(fields) // FIELDS_PER_ROW)
    columns = min(len(fields), FIELDS_PER_ROW)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image, nuclei) in zip(axes.flat, fields, strict=False):
        if isinstance(image, str):
            axis.set_title(f"{name}: failed", fontsize=8)
            axis.text(0.5, 0.5, image, ha="center", va="center", wrap=True, fontsize=8)
            continue
        kept = nuclei["kept"].sum()
        axis.set_title(f"{name}: {len(nuclei)} nuclei, {kept} kept", fontsize=8)
        axis.imshow(image, cmap="gray", vmin=grey[0], vmax=grey[1])
        limits = axis.get_xlim(), axis.get_ylim()
        diameters = 2 * np.sqrt(nuclei["area_px"] / np.pi)
        diameters = diameters.where(diameters > 0, PLACE_DIAMETER_PX)
        colours = nuclei["kept"].map({True: "kept", False: "dropped"}).map(NUCLEUS_COLOURS)
        axis.add_collection(
            EllipseCollection(
                diameters,
                diameters,
                np.zeros(len(nuclei)),
                units="xy",
                offsets=nuclei[["x_px", "y_px"]].to_numpy(float),
                offset_transform=axis.transData,
                facecolors="none",
                edgecolors=list(colours),
                linewidths=0.8,
            )
        )
        axis.set(xlim=limits[0], ylim=limits[1])  # published places may lie outside
    save_figure(figure, path)


def plot_crops(shards: Shards, labels: pd.DataFrame, chosen: Sequence[str], path: Path) -> None:
    """Draw a row of abnormal and a row of normal crops, as the paper's figures 1 and 2.

    Of the `chosen` channels the first three are red, green and blue, two are red and green, and a
    single one is grey.
    Abnormal ones take turns over the artefacts, named above them where known.
    """
    abnormal = labels[labels["label"] == "abnormal"].copy()
    kinds = abnormal["artefact"].fillna("other")
    abnormal["turn"] = kinds.groupby(kinds).cumcount()
    abnormal["kind"] = kinds.map({kind: place for place, kind in enumerate(ARTEFACTS)})
    abnormal = abnormal.sort_values(["turn", "kind"]).head(CROPS_PER_ROW)
    normal = labels[labels["label"] == "normal"].head(CROPS_PER_ROW)
    figure, axes = plt.subplots(
        2, CROPS_PER_ROW, figsize=(1.3 * CROPS_PER_ROW, 3.1), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, crops, name in ((axes[0], abnormal, "abnormal"), (axes[1], normal, "normal")):
        images = _pictures(shards.read_composite(shards.rows_of(crops["crop_id"]), chosen))
        titles = crops["artefact"].where(crops["artefact"].notna(), name)
        for axis, image, title in zip(row, images, titles, strict=False):
            axis.imshow(image)
            axis.set_title(title, fontsize=8)
    save_figure(figure, path)


def _pictures(crops: np.ndarray) -> np.ndarray:
    """Return n x C x H x W crops as n x H x W x 3: red, green and blue."""
    channels = crops.shape[1]
    if channels == 1:
        crops = np.repeat(crops, 3, axis=1)
    elif channels == 2:
        crops = np.concatenate([crops, np.zeros_like(crops[:, :1])], axis=1)
    return crops[:, :3].transpose(0, 2, 3, 1)


def plot_budgets(table: pd.DataFrame, path: Path) -> None:
    """Draw score against label budget, a panel per probe, a line per encoder (table 2)."""
    rows = table[(table["metric"] == METRIC) & (table["status"] == "run")]
    probes = list(dict.fromkeys(rows["probe"]))
    figure, axes = _panels(len(probes), 4.4)
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
        axis.set_title(probe)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(METRIC_NAME)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8)
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
    figure, axes = _panels(len(probes), 4.0)
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
        axis.set_yticks(np.arange(len(encoders)), encoders)
        axis.set_title(probe)
        axis.set_xlabel(METRIC_NAME)
        axis.grid(alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8)
    save_figure(figure, path)


def _panels(count: int, height: float) -> tuple[plt.Figure, np.ndarray]:
    """Return a figure and its panels, which share both axes, a few in a row."""
    columns = min(count, PANELS_PER_ROW)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(4.6 * columns, height * rows),
        squeeze=False,
        sharey=True,
        sharex=True,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    for axis in axes.flat[max(count - columns, 0) : count]:  # nothing below has their labels
        axis.tick_params(labelbottom=True)
    return figure, axes.flat[:count]


def save_figure(figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
