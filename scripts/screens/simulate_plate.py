"""Write a plate of simulated images, laid out as the real ones, and its truth."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.schema import write_table
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.plate import simulate_plate


def main() -> None:
    """Read the flags, simulate, write the truth."""
    parser = cli.parser(__doc__)
    parser.add_argument("--plate", required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder to write below")
    parser.add_argument("--image-csv", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    cli.add_settings(parser, SimulationSettings)
    cli.run(simulate, parser.parse_args())


def simulate(args, record) -> None:
    """Simulate the plate that the arguments describe."""
    settings = cli.settings_from(args, SimulationSettings)
    label = f"simulate {args.plate}"
    truth = simulate_plate(settings, args.plate, args.images, args.image_csv, label)
    write_table(truth, args.truth, "truth")
    planted = (truth["artefact"] != "none").mean() if len(truth) else 0.0
    record.metrics = {"cells": len(truth), "planted_share": float(planted)}


if __name__ == "__main__":
    main()
