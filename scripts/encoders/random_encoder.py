"""Write an encoder with random weights: the control that shows what training gives."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.encoders.store import random_encoder, save_encoder


def main() -> None:
    """Read the flags, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--input-px", type=int, required=True)
    parser.add_argument("--channels", type=int, required=True, help="of the composites")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(make, parser.parse_args())


def make(args, record) -> None:
    """Make the encoder that the arguments describe."""
    encoder = random_encoder(args.architecture, args.input_px, args.channels, args.seed)
    save_encoder(encoder, args.output)
    record.parameters = {"kind": "control"}
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
