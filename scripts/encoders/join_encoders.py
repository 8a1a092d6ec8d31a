"""Make an encoder of several, whose features stand side by side."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.encoders.store import joined_encoder, load_encoder, save_encoder


def main() -> None:
    """Read the flags and the encoders, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--encoders", type=Path, nargs="+", required=True, help=".safetensors")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(join, parser.parse_args())


def join(args, record) -> None:
    """Make the encoder that the arguments describe."""
    encoder = joined_encoder([load_encoder(path) for path in args.encoders])
    save_encoder(encoder, args.output)
    record.parameters = dict(encoder.provenance) | {"kind": encoder.kind}
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
