"""Embed crops of a screen with one frozen encoder: all, or the labelled and a random sample."""

from pathlib import Path

import numpy as np
import torch

from hcsqc.core import cli
from hcsqc.core.devices import choose_device, device_name
from hcsqc.core.ids import encoder_label
from hcsqc.core.schema import features_schema, read_table, write_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.encoders.store import load_encoder
from hcsqc.features.extract import extract_features
from hcsqc.features.tables import features_table


def main() -> None:
    """Read the flags, encoder and crops; write the features."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--labels", type=Path, help="compute features of these crops only")
    parser.add_argument(
        "--sample", type=int, default=0, help="random crops in addition to the labelled"
    )
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(extract, parser.parse_args())


def extract(args, record) -> None:
    """Embed the crops that the arguments name."""
    torch.set_num_threads(args.threads)
    encoder = load_encoder(args.encoder)
    shards = Shards(args.crops)
    rows = np.arange(len(shards))
    if args.labels:
        labelled = shards.rows_of(read_table(args.labels, "labels", ["crop_id"])["crop_id"])
        sample = np.random.default_rng(0).permutation(len(shards))[: args.sample]
        rows = np.union1d(labelled, sample)
    label = f"features {encoder_label(args.encoder)} {args.output.stem}"
    chosen = channels_for(encoder, args.composite, read_roles(args.channel_roles), label)
    features, precision = extract_features(
        encoder, shards, chosen, rows, args.batch_size, args.precision, label
    )
    table = features_table(shards.index["crop_id"].iloc[rows].tolist(), features)
    write_table(table, args.output, features_schema(encoder.width))
    record.parameters |= {"channels": chosen}
    record.metrics = {"crops": len(rows), "width": encoder.width}
    record.device = f"{device_name(choose_device('auto'))}, {precision}"


if __name__ == "__main__":
    main()
