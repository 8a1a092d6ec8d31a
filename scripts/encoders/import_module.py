"""Make an encoder of a your own network."""

import sys
from dataclasses import asdict
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.config import ALONE
from hcsqc.core.ids import encoder_of
from hcsqc.encoders.given import own_encoder
from hcsqc.encoders.roles import Sight, hidden_from
from hcsqc.encoders.store import save_encoder


def main() -> None:
    """Read the flags, make the network, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--module", required=True, help="module:function that returns it")
    parser.add_argument("--input-px", type=int, required=True)
    parser.add_argument("--channels", type=int, required=True, help="of the composites")
    parser.add_argument("--file", type=Path, help="its weights as .safetensors or .pth")
    cli.add_settings(parser, Sight)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(make, parser.parse_args())


def make(args, record) -> None:
    """Make the encoder that the arguments describe."""
    sight = cli.settings_from(args, Sight)
    encoder = own_encoder(args.module, args.input_px, args.channels, args.file, sight)
    save_encoder(encoder, args.output)
    record.parameters = dict(encoder.provenance) | {"kind": "transfer"} | asdict(sight)
    hidden = hidden_from(encoder)
    if hidden and not encoder_of(args.output).endswith(ALONE):  # which others complete
        print(f"warning: {args.output}: {hidden}", file=sys.stderr)
        record.parameters["warning"] = hidden
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
