"""Find the weights of a trained network once: in a file, an installed package or the model hub."""

import sys
from pathlib import Path

from hcsqc.core import cli
from hcsqc.encoders.weights import brought_file, find_weights, kept_from_hub, save_weights


def main() -> None:
    """Read the flags, find the weights, keep them."""
    parser = cli.parser(__doc__)
    parser.add_argument("--architecture", required=True, help="timm name, with the weights' tag")
    parser.add_argument("--file", type=Path, help="weights as .safetensors or .pth")
    parser.add_argument("--package", help="installed package that contains weights")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(fetch, parser.parse_args())


def fetch(args, record) -> None:
    """Find the weights that the arguments describe."""
    brought = brought_file(args.architecture)
    file = args.file or (brought if not args.package and brought.exists() else None)
    is_on_hub = not file and not args.package
    weights = kept_from_hub(args.output, args.architecture) if is_on_hub else None
    if weights:
        print(f"{args.output}: unchanged, it is the hub's version", file=sys.stderr)
    else:
        weights = find_weights(args.architecture, file, args.package)
        save_weights(weights, args.output)
    record.parameters = dict(weights.provenance)


if __name__ == "__main__":
    main()
