"""Package the detector of a study as an MLflow model, which scores crops without the study."""

from pathlib import Path

import numpy as np

from hcsqc.core import cli
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.qc.detector import load_detector
from hcsqc.qc.detector_files import HELD_OUT
from hcsqc.qc.mlflow_model.model import installed_pins, save_model

EXAMPLE_CROPS = 4


def main() -> None:
    """Read the flags, the detector and the crops of its first labels; write the model."""
    parser = cli.parser(__doc__)
    parser.add_argument("--detector", type=Path, required=True, help="its folder")
    parser.add_argument("--crops", type=Path, nargs="+", required=True, help="of its labels")
    parser.add_argument("--composite", nargs="+", required=True)
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    cli.run(package, parser.parse_args())


def package(args, record) -> None:
    """Write the model that the arguments describe, with a few labelled crops as its example."""
    labels = read_table(args.detector / HELD_OUT, "held_out", ["crop_id"])
    crops = Shards(args.crops)
    rows = crops.rows_of(labels["crop_id"].iloc[:EXAMPLE_CROPS])
    encoder, roles = load_detector(args.detector).encoder, read_roles(args.channel_roles)
    chosen = channels_for(encoder, args.composite, roles, "model of MLflow")
    example = crops.read_composite(rows, chosen)
    areas = crops.index["nucleus_area_px"].iloc[rows].to_numpy(np.float32)
    save_model(args.detector, example, areas, args.output, installed_pins())
    print(f"model of MLflow: {args.output}")


if __name__ == "__main__":
    main()
