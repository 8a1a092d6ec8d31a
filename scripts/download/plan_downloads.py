"""Say what is to be fetched, how long that takes and whether there is room; fetch nothing."""

import json
from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import write_json
from hcsqc.download.archives import steps
from hcsqc.download.plan import PlanSettings, announcement, ask, check_room
from hcsqc.download.transfer import TransferSettings


def main() -> None:
    """Read the flags, ask the servers, print and write the plan."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screens", required=True, help="entries of the config, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, TransferSettings)
    cli.add_settings(parser, PlanSettings)
    cli.run(plan, parser.parse_args())


def plan(args, record) -> None:
    """Announce the download that the arguments describe."""
    made = steps(json.loads(args.screens))
    if not made:
        raise InputError(
            "no screen of the study has archives to download; name some as archives of a screen "
            "in the config, see docs/download.md"
        )
    settings = cli.settings_from(args, PlanSettings)
    states = ask(made, cli.settings_from(args, TransferSettings))
    lines, value = announcement(made, states, settings)
    print(*lines, sep="\n", flush=True)
    check_room(value, settings)
    write_json(value, args.output)
    record.metrics = {
        "files": len(states),
        "left_files": sum(not state.is_here for state in states.values()),
        "left_bytes": sum(state.left for state in states.values()),
    }


if __name__ == "__main__":
    main()
