"""Set the threshold of a screen, with the promise that its labels support."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json, write_checked_json
from hcsqc.core.schema import read_table
from hcsqc.labels.groups import GROUPINGS, UNITS, WELL, read_labels
from hcsqc.qc.calibration import calibrate, check_labels_of, held_out_of, moved_text
from hcsqc.qc.detector_files import ABOUT, HELD_OUT
from hcsqc.qc.outdated import FOLDER, put_aside


@dataclass(frozen=True)
class Settings:
    """The share of good cells that may be lost, and how sure that must be."""

    good_cells_lost: float
    confidence: float


def main() -> None:
    """Read the flags, labels and scores; write the threshold."""
    parser = cli.parser(__doc__)
    parser.add_argument("--study", required=True)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--labels", type=Path, nargs="*", required=True, help="all, then random")
    parser.add_argument("--group-by", choices=GROUPINGS, required=True, help="own labels")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="of labelled plates")
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, Settings)
    cli.run(calibrate_screen, parser.parse_args())


def calibrate_screen(args, record) -> None:
    """Calibrate the detector on the screen that the arguments describe."""
    settings = cli.settings_from(args, Settings)
    about = read_checked_json(args.detector / ABOUT)
    check_labels_of(about)
    scores = [read_table(path, "crop_scores", ["crop_id", "score"]) for path in args.scores]
    of_labels = pd.concat(scores) if scores else pd.DataFrame(columns=["crop_id", "score"])
    labels, random = _own_labels(args)
    held_out = read_table(args.detector / HELD_OUT, "held_out")
    fitted = about["labels_normal"] + about["labels_abnormal"]
    share = about["labels_abnormal"] / fitted
    rest = (share, settings.good_cells_lost, settings.confidence)
    unproven = ""
    try:
        usable, unproven = held_out_of(
            args.study, args.screen, about, held_out, labels, random, of_labels
        )
        by_people = not unproven or about["trained_on"] == "labels"
        found = calibrate(usable, *rest, unproven, by_people)
    except InputError as error:
        own = about["screen"] == args.screen and about["study"] == args.study
        if unproven or own or labels is None:
            why = f"screen {args.screen}: {error} (qc.good_cells_lost and qc.confidence)"
            if args.group_by != WELL:
                why += f"; evaluation.group_by counts {UNITS[args.group_by]} as wells"
            if put_aside(args.output.parent, why):
                why += f"; the flags of an earlier run lie in {args.output.parent / FOLDER} now"
            raise InputError(why) from error
        # A threshold of another screen's is better than none, as long as nobody trusts it blindly.
        usable, reason = held_out_of(args.study, args.screen, about, held_out)
        unproven = f"{reason}; of its own labels: {error}"
        by_people = about["trained_on"] == "labels"
        found = calibrate(usable, *rest, unproven, by_people)
    found["units"] = UNITS[args.group_by]
    if found["note"] and not unproven and args.group_by != WELL:
        found["note"] += f" (evaluation.group_by counts {UNITS[args.group_by]} as wells)"
    # The labels of other screens had no part in the choice.
    chosen_here = (about["study"], about["screen"]) == (args.study, args.screen)
    found["encoders_compared"] = len(about.get("candidates", [])) if chosen_here else 0
    write_checked_json(found, args.output)
    if moved := moved_text(args.output.parent, args.screen, found["threshold"]):
        print(moved)
    told = found["note"] or (
        f"at most {found['promised']:.1%} of good cells are lost, {found['confidence']:.0%} sure "
        f"({found['n_normal']} normal labels of {found['wells']} {found['units']})"
    )
    print(f"threshold of {args.screen}: {found['threshold']:.4f}; {told}")
    kept = ("threshold", "bound", "exceeding", "wells", "wells_needed", "supported")
    record.metrics = {name: found[name] for name in kept if found[name] is not None} | {
        "promise": int(found["promise"])
    }


def _own_labels(args) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Return the screen's labels and those of them that were chosen at random, if there are any."""
    if not args.labels:
        return None, None
    labels, random = (read_labels(path, args.group_by) for path in args.labels)
    return labels, random


if __name__ == "__main__":
    main()
