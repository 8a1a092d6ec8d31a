"""Find the weights of a network once: in a file, an installed package or the model hub."""

import json
import sys
from pathlib import Path

from hcsqc.core import cli
from hcsqc.encoders.published import find_published, kept
from hcsqc.encoders.registry import registered
from hcsqc.encoders.weights import brought_file, find_weights, kept_from_hub, save_weights


def main() -> None:
    """Read the flags, find the weights, keep them."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", help="name in the registry of published models")
    parser.add_argument("--architecture", required=True, help="timm name, with the weights' tag")
    parser.add_argument("--options", type=json.loads, default={}, help="of the network, as JSON")
    parser.add_argument("--file", type=Path, help="weights as .safetensors or .pth")
    parser.add_argument("--package", help="installed package that contains weights")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(fetch, parser.parse_args())


def fetch(args, record) -> None:
    """Find the weights that the arguments describe."""
    if args.model:
        weights = _published(args)
    else:
        brought = brought_file(args.architecture)
        file = args.file or (brought if not args.package and brought.exists() else None)
        is_on_hub = not file and not args.package
        known = kept_from_hub(args.output, args.architecture) if is_on_hub else None
        weights = known or find_weights(args.architecture, file, args.package, args.options)
        _keep(weights, args.output, known)
    record.parameters = dict(weights.provenance)


def _published(args):
    """Find the weights of a registered model; say under which terms before they are used."""
    model = registered(args.model)
    # A warning, because it is what the terminal shows of a job.
    print(f"warning: licence of model {model.name}: {model.terms}", file=sys.stderr, flush=True)
    known = None if args.file else kept(args.output, model, args.options)
    weights = known or find_published(model, args.file, args.options)
    _keep(weights, args.output, known)
    return weights


def _keep(weights, output, known) -> None:
    if known:
        print(f"{output}: unchanged, it is the hub's version", file=sys.stderr)
    else:
        save_weights(weights, output)


if __name__ == "__main__":
    main()
