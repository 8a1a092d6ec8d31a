"""Embed the labelled crops of a screen, and a fixed random sample, with one frozen encoder."""

from pathlib import Path

import numpy as np
import torch

import cli
from hcsqc.encoders import load_encoder
from hcsqc.feature_tables import features_table
from hcsqc.features import extract_features
from hcsqc.schema import features_schema, read_table, write_table
from hcsqc.shards import Shards


def main() -> None:
    """Read the flags, encoder and crops; write the features."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--sample", type=int, required=True, help="random crops for maps")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(extract, parser.parse_args())


def extract(args, record) -> None:
    """Embed the crops that the arguments name."""
    torch.set_num_threads(args.threads)
    encoder = load_encoder(args.encoder)
    shards = Shards(args.crops)
    labelled = shards.rows_of(read_table(args.labels, "labels", ["crop_id"])["crop_id"])
    rng = np.random.default_rng(0)
    sample = rng.permutation(len(shards))[: args.sample]
    rows = np.union1d(labelled, sample)
    label = f"features {args.encoder.parent.parent.name} {args.output.stem}"
    features = extract_features(encoder, shards, args.composite, rows, args.batch_size, label)
    table = features_table(shards.index["crop_id"].iloc[rows].tolist(), features)
    write_table(table, args.output, features_schema(encoder.width))
    record.metrics = {"crops": len(rows), "width": encoder.width}
    record.device = "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
