"""Classify by nearest neighbours with the encoders kept along the epochs of a pretraining."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hcsqc.core import cli
from hcsqc.core.ids import encoder_of, seed_of
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.store import load_encoder
from hcsqc.features.extract import extract_features
from hcsqc.labels.splits import largest_budget
from hcsqc.probes.frozen.knn import KnnSettings, knn_draws, knn_scores_by_draw
from hcsqc.probes.metrics import accuracy
from hcsqc.probes.task import ABNORMAL, tasks


def main() -> None:
    """Read the flags, encoders and crops; write the accuracy along the epochs."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--snapshots", type=Path, required=True, help="folder of encoders")
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, KnnSettings)
    cli.run(score, parser.parse_args())


def score(args, record) -> None:
    """Score the encoders that the arguments name, at every epoch on the same draws."""
    torch.set_num_threads(args.threads)
    settings = cli.settings_from(args, KnnSettings)
    shards = Shards(args.crops)
    splits = read_table(args.splits, "splits")
    budget = min(args.budget, largest_budget(splits))
    draws = list(tasks(args.splits, [], args.draws, budget))
    crops = pd.Index(splits["crop_id"].unique())
    rows = shards.rows_of(crops)
    name, seed = encoder_of(args.snapshots), seed_of(args.snapshots)
    scores = []
    for path in sorted(args.snapshots.glob("*.safetensors")):
        encoder = load_encoder(path)
        label = f"epochs {name} seed{seed} {path.stem}"
        features, _ = extract_features(
            encoder, shards, args.composite, rows, args.batch_size, args.precision, label
        )
        predicted = knn_scores_by_draw(features, knn_draws(crops, draws), settings)
        for task, values in zip(draws, predicted, strict=True):
            abnormal = (task.test["label"] == ABNORMAL).to_numpy(int)
            scores.append((encoder.provenance["epoch"], task.draw, accuracy(abnormal, values)))
    table = pd.DataFrame(scores, columns=["epoch", "draw", "accuracy"])
    table["encoder"], table["seed"] = name, seed
    write_table(table.astype({"epoch": np.int32, "draw": np.int32}), args.output, "epoch_scores")
    means = table.groupby("epoch")["accuracy"].mean()
    record.curves = [
        {"step": int(epoch), "knn_accuracy": float(mean)} for epoch, mean in means.items()
    ]


if __name__ == "__main__":
    main()
