"""Take trained weights from a file, an installed package or the model hub."""

from pathlib import Path

import cli
from hcsqc.encoders import save_encoder, transfer_encoder


def main() -> None:
    """Read the flags, find the weights, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--architecture", required=True, help="timm name, with the weights' tag")
    parser.add_argument("--input-px", type=int, required=True)
    parser.add_argument("--file", help="weights as .safetensors or .pth")
    parser.add_argument("--package", help="installed package that carries weights")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(import_weights, parser.parse_args())


def import_weights(args, record) -> None:
    """Import the encoder that the arguments describe."""
    encoder = transfer_encoder(args.architecture, args.input_px, args.file, args.package)
    save_encoder(encoder, args.output)
    record.parameters = dict(encoder.provenance) | {"kind": "transfer"}
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
