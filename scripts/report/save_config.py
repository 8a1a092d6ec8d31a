"""Keep the resolved config with the results, and what it changes of the paper's study."""

import json
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import write_checked_json


def main() -> None:
    """Read the flags, write the config."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.run(lambda args, record: write_checked_json(args.config, args.output), parser.parse_args())


if __name__ == "__main__":
    main()
