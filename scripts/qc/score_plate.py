"""Score every crop of a plate with a detector, and say how far the plate is from what it knows."""

from pathlib import Path

import numpy as np
import torch

from hcsqc.core import cli
from hcsqc.core.devices import choose_device, device_name
from hcsqc.core.ids import screen_and_plate
from hcsqc.core.schema import features_schema, write_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.features.tables import features_table
from hcsqc.qc.detector import Scaling, check_screen, load_detector
from hcsqc.qc.scoring import call_wide_edges_blurred, score_crops


def main() -> None:
    """Read the flags, detector and crops; write the scores."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--composite", nargs="+", required=True)
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument("--nucleus-channel", required=True)
    parser.add_argument(
        "--nucleus-diameter-px", type=float, required=True, help="typical, of crops"
    )
    parser.add_argument(
        "--focus-edge", type=float, required=True, help="nucleus diameters: wider is out of focus"
    )
    parser.add_argument("--window-um", type=float, required=True, help="0: not resampled")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--sample", type=int, required=True, help="crops whose features are kept")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="of the sample")
    cli.add_settings(parser, Scaling)
    cli.run(score, parser.parse_args())


def score(args, record) -> None:
    """Score the plate that the arguments name."""
    torch.set_num_threads(args.threads)
    detector = load_detector(args.detector)
    shards = Shards([args.crops])
    screen, plate = screen_and_plate(args.crops)
    roles = read_roles(args.channel_roles)
    check_screen(
        detector.about,
        screen,
        args.composite,
        shards.format.size_px,
        args.window_um,
        cli.settings_from(args, Scaling),
        roles,
    )
    label = f"scores {screen} {plate}"
    chosen = channels_for(detector.encoder, args.composite, roles, label)
    sample = np.sort(np.random.default_rng(0).permutation(len(shards))[: args.sample])
    table, features, drift = score_crops(
        detector,
        shards,
        chosen,
        args.nucleus_channel,
        args.batch_size,
        args.precision,
        label,
        sample,
        args.nucleus_diameter_px,
    )
    if detector.about["trained_on"] != "labels":
        table = call_wide_edges_blurred(table, args.focus_edge)
    measured = {"feature_shift": drift.features, "score_shift": drift.scores}
    write_table(table, args.output, "crop_scores", measured)
    crops = table["crop_id"].iloc[sample].tolist()
    write_table(features_table(crops, features), args.features, features_schema(features.shape[1]))
    record.metrics = {"crops": len(table)} | measured
    record.device = device_name(choose_device("auto"))


if __name__ == "__main__":
    main()
