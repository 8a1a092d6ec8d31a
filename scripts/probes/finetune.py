"""Train encoder and linear layer together, draw by draw."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress
from hcsqc.core.schema import write_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.store import check_composite, load_encoder
from hcsqc.probes.finetune import finetune, finetuned_scores
from hcsqc.probes.sgd import SgdSettings
from hcsqc.probes.task import all_predictions, tasks

SCORING_BATCH = 256


def main() -> None:
    """Read the flags, encoder and crops; write the predictions of all draws."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--shift-labels", type=Path, nargs="*", required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--composites", nargs="+", required=True, help="SCREEN:CHANNEL,... in order"
    )
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--shuffle-labels", action="store_true", help="of the training crops")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--choice", type=Path, help="of a search; its settings hold instead")
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, SgdSettings, required=False)
    cli.run(probe, parser.parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe."""
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    settings = settings_of(args)
    record.parameters |= dataclasses.asdict(settings)
    encoder = load_encoder(args.encoder)
    if not encoder.trainable:
        raise InputError(f"{args.encoder}: {encoder.architecture} is measured, not trained")
    pixels = CompositeCrops(args.crops, args.composites)
    for screen, (_, chosen) in pixels.screens.items():
        check_composite(encoder, chosen, f"finetune {screen}")
    label = f"finetune {args.encoder.parent.parent.name} at {args.budget} labels"
    progress = Progress(args.draws * settings.epochs * args.budget, "crops", label)
    predictions = []
    for task in tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels):
        network = finetune(
            encoder,
            pixels.of(task.train_crops),
            task.train_targets,
            settings,
            (args.seed, task.draw),
            lambda count, loss: progress.update(count, loss=loss),
        )
        # Screen by screen, because their crops may differ in size and channels.
        scores = pd.Series(np.nan, index=task.test.index)
        for _, rows in task.test.groupby("screen"):
            crops = pixels.of(rows["crop_id"])
            scores[rows.index] = finetuned_scores(network, encoder, crops, SCORING_BATCH)
        predictions.append(task.predictions(scores.to_numpy()))
    progress.close()
    write_table(all_predictions(predictions), args.output, "predictions")
    record.device = "cuda" if torch.cuda.is_available() else "cpu"


def settings_of(args) -> SgdSettings:
    """Return the settings that were given, or chosen by a search.

    Where the labels did not carry the search's budget, nothing is trained: any settings do.
    """
    if not args.choice:
        given = cli.settings_from(args, SgdSettings)
        missing = [name for name, value in dataclasses.asdict(given).items() if value is None]
        if missing:
            raise InputError(f"neither --choice nor --{missing[0].replace('_', '-')} is given")
        return given
    chosen = json.loads(args.choice.read_text())["chosen"]
    if chosen is None:
        return SgdSettings(1, 1, 0.0, 0.0, 0.0, (), 1.0)
    return SgdSettings(**chosen | {"milestones": tuple(chosen["milestones"])})


class CompositeCrops:
    """Composite crops of several screens, looked up by name."""

    def __init__(self, paths: list[Path], composites: list[str]):
        chosen = dict(text.split(":") for text in composites)
        self.screens = {
            screen: (
                Shards([path for path in paths if path.parent.name == screen]),
                names.split(","),
            )
            for screen, names in chosen.items()
        }

    def of(self, crop_ids) -> np.ndarray:
        """Return crops of one screen as n x C x H x W of uint8."""
        names = list(crop_ids)
        shards, chosen = self.screens[names[0].split("/")[0]]
        return shards.read_composite(shards.rows_of(names), chosen)


if __name__ == "__main__":
    main()
