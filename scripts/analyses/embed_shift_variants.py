"""Embed the labelled crops of a shift screen under every change of their images."""

from pathlib import Path

import torch

from hcsqc.analyses.shift_images import changed_images, write_variants
from hcsqc.core import cli
from hcsqc.core.devices import choose_device, device_name
from hcsqc.core.ids import encoder_label
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.encoders.store import load_encoder
from hcsqc.features.extract import extract_features


def main() -> None:
    """Read the flags, encoder and crops; write the features of the changed crops."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="embed these")
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument(
        "--most-channels", type=int, required=True, help="permute composites of no more channels"
    )
    parser.add_argument(
        "--pixel-factor", type=float, help="pixel size here over that of the training screen"
    )
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(embed, parser.parse_args())


def embed(args, record) -> None:
    """Embed the crops that the arguments name, once per change."""
    torch.set_num_threads(args.threads)
    encoder = load_encoder(args.encoder)
    shards = Shards(args.crops)
    crop_ids = read_table(args.labels, "labels", ["crop_id"])["crop_id"].tolist()
    rows = shards.rows_of(crop_ids)
    where = f"{encoder_label(args.encoder)} {args.output.stem}"
    composite = channels_for(encoder, args.composite, read_roles(args.channel_roles), where)
    by_role = any(spec.roles for spec in encoder.views.values())
    made, not_made = changed_images(
        shards, composite, args.most_channels, args.pixel_factor, by_role
    )
    variants, precision = {}, "nothing computed"
    for name, (changed, chosen) in made.items():
        label = f"{where}, {name}"
        variants[name], precision = extract_features(
            encoder, changed, chosen, rows, args.batch_size, args.precision, label
        )
    write_variants(crop_ids, variants, encoder.width, not_made, args.output)
    record.metrics = {"crops": len(rows), "variants": len(variants), "width": encoder.width}
    record.device = f"{device_name(choose_device('auto'))}, {precision}"


if __name__ == "__main__":
    main()
