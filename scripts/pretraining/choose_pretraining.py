"""Choose the trial of a search by the rank of its features, which needs no label.

It runs when the outputs of all trials are in place, and so removes their checkpoints.
"""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import read_checked_json, write_checked_json
from hcsqc.pretraining import checkpoint_folder
from hcsqc.pretraining.search import CRITERION, choose_trial


def main() -> None:
    """Read the flags and the trials' records, write the choice."""
    parser = cli.parser(__doc__)
    parser.add_argument("--trials", type=Path, nargs="+", required=True, help="run.json of each")
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="removed")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(choose, parser.parse_args())


def choose(args, record) -> None:
    """Choose among the trials that the arguments name."""
    choice = choose_trial([read_checked_json(path) for path in args.trials])
    write_checked_json(choice, args.output)
    record.parameters = choice["chosen"] | {"criterion": CRITERION, "trials": len(args.trials)}
    record.curves = [{"step": step, **trial} for step, trial in enumerate(choice["trials"])]
    print(f"search: of {len(args.trials)} trials by {CRITERION}: {choice['chosen']}")
    for folder in args.checkpoints:
        checkpoint_folder.remove(folder)


if __name__ == "__main__":
    main()
