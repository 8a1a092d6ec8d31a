"""Fine-tuning draw by draw: the crops of all screens, the settings, the predictions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json
from hcsqc.core.ids import screen_and_plate, screen_of
from hcsqc.crops.shards import Shards
from hcsqc.encoders.store import Encoder, check_composite
from hcsqc.probes.finetune import FROZEN, FinetuneSettings, finetune, finetuned_scores
from hcsqc.probes.task import Task, all_predictions

SCORING_BATCH = 256


class CompositeCrops:
    """Composite crops of several screens, looked up by name."""

    def __init__(self, paths: Sequence[Path], composites: Mapping[str, Sequence[str]]):
        """Open the shards, {screen}/{plate}.parquet, of each screen of `composites`.

        `composites` lists the channels of each, in order. Raises InputError if a screen has no
        shard, or shards that differ.
        """
        own = {
            screen: [path for path in paths if screen_and_plate(path)[0] == screen]
            for screen in composites
        }
        self.screens = {screen: (Shards(own[screen]), composites[screen]) for screen in composites}

    def check(self, encoder: Encoder) -> None:
        """Raise InputError if a screen's composite is not one for the encoder."""
        for screen, (_, chosen) in self.screens.items():
            check_composite(encoder, chosen, f"finetune {screen}")

    def of(self, crop_ids: Iterable[str]) -> np.ndarray:
        """Return crops of one screen as n x C x H x W of uint8."""
        names = list(crop_ids)
        shards, chosen = self.screens[screen_of(names[0])]
        return shards.read_composite(shards.rows_of(names), chosen)


def check_trainable(encoder: Encoder, path: Path) -> None:
    """Raise InputError, naming its file, if an encoder has nothing to train."""
    if not encoder.trainable:
        raise InputError(f"{path}: {encoder.architecture} has measures, which cannot be trained")


def chosen_settings(choice: Path) -> FinetuneSettings:
    """Read the settings that a search has chosen.

    If there were too few labels for the search's budget, nothing is trained: any settings do.
    """
    chosen = read_checked_json(choice)["chosen"]
    if chosen is None:
        return FinetuneSettings(1, 1, 0.0, 0.0, 0.0, (), 1.0, FROZEN, 0)
    return FinetuneSettings(**chosen | {"milestones": tuple(chosen["milestones"])})


def finetuned_predictions(
    encoder: Encoder,
    pixels: CompositeCrops,
    draws: Iterable[Task],
    settings: FinetuneSettings,
    seed: int,
    on_batch: Callable[[int, float], None],
) -> pd.DataFrame:
    """Return the `predictions` of all draws, the encoder trained again in each.

    `on_batch` and errors are those of `finetune`. Without draws there are no rows.
    """
    predictions = []
    for task in draws:
        network = finetune(
            encoder,
            pixels.of(task.train_crops),
            task.train_targets,
            settings,
            (seed, task.draw),
            on_batch,
        )
        predictions.append(task.predictions(_scores(network, encoder, pixels, task.test)))
    return all_predictions(predictions)


def _scores(
    network: nn.Module, encoder: Encoder, pixels: CompositeCrops, test: pd.DataFrame
) -> np.ndarray:
    """Return the probability of abnormal of each row of a task's test crops."""
    scores = pd.Series(np.nan, index=test.index)
    # Screen by screen, because their crops may differ in size and channels.
    for _, rows in test.groupby("screen"):
        crops = pixels.of(rows["crop_id"])
        scores[rows.index] = finetuned_scores(network, encoder, crops, SCORING_BATCH)
    return scores.to_numpy()
