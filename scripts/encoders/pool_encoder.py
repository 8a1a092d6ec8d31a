"""Make an encoder with the network of another and other features of it."""

from pathlib import Path
from typing import get_args

from hcsqc.core import cli
from hcsqc.encoders.pooling import Pool, Pooling
from hcsqc.encoders.store import load_encoder, pooled_encoder, save_encoder


def main() -> None:
    """Read the flags and the encoders, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--encoder", type=Path, required=True, help=".safetensors")
    parser.add_argument("--pool", choices=get_args(Pool), required=True)
    parser.add_argument("--region", choices=("window", "cell"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(pool, parser.parse_args())


def pool(args, record) -> None:
    """Make the encoder that the arguments describe."""
    encoder = pooled_encoder(load_encoder(args.encoder), Pooling(args.pool, args.region))
    save_encoder(encoder, args.output)
    record.parameters = dict(encoder.provenance) | {"kind": encoder.kind}
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
