"""Normal and abnormal crops of a screen, side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.schema import ARTEFACTS
from hcsqc.crops.shards import Shards
from hcsqc.figures.style import plt, save_figure

CROPS_PER_ROW = 10


def plot_crops(shards: Shards, labels: pd.DataFrame, chosen: Sequence[str], path: Path) -> None:
    """Draw a row of abnormal and a row of normal crops, as the paper's figures 1 and 2.

    Of the `chosen` channels the first three are red, green and blue, two are red and green, and a
    single one is grey. `labels` are rows of the `labels` table, some or none of each label.
    Abnormal ones take turns over the artefacts, named above them where known.
    Raises InputError if a crop is not in the shards or a channel not in the screen.
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
