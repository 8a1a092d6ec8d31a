"""Make an encoder of the weights of a trained network."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from hcsqc.core import cli
from hcsqc.core.config import ALONE
from hcsqc.core.ids import encoder_of
from hcsqc.encoders.given import CHANNEL_MODES, transfer_encoder
from hcsqc.encoders.pooling import Pool
from hcsqc.encoders.roles import Sight, hidden_from
from hcsqc.encoders.store import save_encoder
from hcsqc.encoders.weights import load_weights


def main() -> None:
    """Read the flags and weights, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="as fetch_weights.py writes")
    parser.add_argument("--input-px", type=int, required=True)
    parser.add_argument("--channels", type=int, required=True, help="of the composites")
    parser.add_argument(
        "--mode", choices=CHANNEL_MODES, required=True, help="how the network sees channels"
    )
    parser.add_argument("--pool", choices=get_args(Pool), default="last")
    cli.add_settings(parser, Sight)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(import_weights, parser.parse_args())


def import_weights(args, record) -> None:
    """Make the encoder that the arguments describe."""
    weights = load_weights(args.weights)
    sight = cli.settings_from(args, Sight)
    encoder = transfer_encoder(weights, args.input_px, args.channels, args.mode, args.pool, sight)
    save_encoder(encoder, args.output)
    record.parameters = dict(encoder.provenance) | {"kind": "transfer"} | asdict(sight)
    hidden = hidden_from(encoder)
    if hidden and not encoder_of(args.output).endswith(ALONE):  # which others complete
        print(f"warning: {args.output}: {hidden}", file=sys.stderr)
        record.parameters["warning"] = hidden
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
