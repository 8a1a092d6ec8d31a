"""Look at a folder of images or a LoadData table, and write a study of it that runs.

Run this yourself, once per screen. It writes a preview of eight crops and a commented file for
`snakemake --configfile`; it needs no labels, and overwrites no study. The images may be at a URL,
or be a published set that is known by its name.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from hcsqc.core import config as settings
from hcsqc.core.errors import InputError
from hcsqc.screens.images import local_copies
from hcsqc.screens.images.remote import folder_at, is_remote
from hcsqc.screens.layouts.base import one_of
from hcsqc.start import known_sets, outlines, preview, study_file, survey
from hcsqc.start.find import FOUND_LAYOUTS, find_screen
from hcsqc.start.naming_schemes import InDoubt

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = "my_study.yaml"
EXAMPLES = """examples:
  python scripts/start/new_study.py /data/my_screen --output my_study.yaml
  python scripts/start/new_study.py s3://bucket/my_screen --output my_study.yaml
  python scripts/start/new_study.py bbbc022 --plates 20585
"""
YES, NO = "<yes>", "<no>"  # no channel is called so


def main() -> None:
    """Read the flags, look at the images, write preview and study."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"{EXAMPLES}\nwell-known sets of the Cell Painting Gallery, all CC0:\n"
        + known_sets.listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", help="folder of images or LoadData table, each also as a URL; or a well-known set"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default: {OUTPUT}, or the name of a well-known set"
    )
    parser.add_argument("--name", help="of the screen and the study; default: the folder's")
    parser.add_argument("--layout", choices=FOUND_LAYOUTS, help="default: found from the files")
    parser.add_argument(
        "--pattern",
        metavar="REGEX",
        help="names of the files, if no known scheme fits: a regular expression for the path "
        "below the folder, with groups well, site and channel (docs/screens.md)",
    )
    parser.add_argument(
        "--nucleus-channel",
        metavar="C",
        help="default: the channel with round outlines of one size",
    )
    parser.add_argument(
        "--composite",
        nargs="+",
        metavar="C",
        help="channels that encoders see, shown as red, green and blue; default: three of them, "
        "the nuclei last",
    )
    parser.add_argument("--plates", nargs="+", metavar="P", default=[], help="default: all found")
    for_sets = parser.add_argument_group("of a well-known set")
    for_sets.add_argument("--source", help="such as source_8 of jump; default: see docs/start.md")
    for_sets.add_argument("--batch", help="default: the one that has the plates")
    for_sets.add_argument(
        "--images", metavar="PLACE", help="folder or URL of a copy of the Cell Painting Gallery"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    args = parser.parse_args()
    try:
        new_study(args, asks=sys.stdin.isatty() and not args.yes)
    except InputError as error:
        sys.exit(f"error: {error}")


def new_study(args, asks: bool) -> None:
    """Write the study that the arguments describe; raises InputError."""
    config = defaults()
    known = known_sets.set_called(args.path)
    args.output = args.output or Path(f"{known.name}.yaml" if known else OUTPUT)
    study_file.refuse_existing(args.output)
    given = known.name if known else study_file.name_from(folder_at(args.path), config)
    name = study_file.check_name(args.name or given, config)
    found = found_set(args, known) if known else found_screen(args, asks)
    with local_copies.meanwhile() if is_remote(found.source.images) else nullcontext():
        write_study(args, asks, name, survey.survey(found, config["crops"]), config)


def write_study(args, asks: bool, name: str, seen, config) -> None:
    """Describe what was seen, draw the preview, and write the study."""
    print("\n".join(survey.describe(seen)))
    if args.composite:
        survey.checked_channels(seen, args.composite, "--composite")
    nucleus = nucleus_channel(args, seen, asks)
    while True:
        nucleus, composite, examples = look(args, seen, nucleus, config, asks)
        survey.check_wells(seen)
        text = study_file.study_text(name, seen, examples, nucleus, composite, args.output, config)
        study_file.check_study(text, config)
        answer = answered_write(args.output, seen, nucleus) if asks else YES
        if answer in (YES, NO):
            break
        nucleus = answer
    if answer == NO:
        print("only the preview was written")
        return
    study_file.write_study(text, args.output)
    print(f"study:    {args.output}; next: snakemake qc --cores all --configfile {args.output}")
    minutes, cores = study_file.expected_minutes(seen, examples, config)
    print(f"time:     about {minutes} min on {cores} idle cores without a GPU")
    if is_remote(seen.found.source.images):
        size = study_file.download_size(seen, nucleus, composite)
        print(f"download: {survey.in_units(size)}, not counted in this time")


def look(args, seen, nucleus: str, config, asks: bool):
    """Draw the preview and say what it shows; a channel without nuclei is asked for again.

    Returns the nucleus channel, the composite and the examples; raises InputError.
    """
    while True:
        try:
            examples = preview.find_examples(seen, nucleus, config["crops"])
            break
        except preview.NoNuclei as error:
            channels = draw_channels(args, seen)
            if not asks or len(seen.channels) == 1:
                raise InputError(f"{error}; all channels: {channels}") from error
            print(f"warning:  {error}")
            nucleus = asked_channel(seen)
    composite = args.composite or seen.found.composite or survey.choose_composite(seen, nucleus)
    print(f"composite: {', '.join(composite)}")
    print(
        f"nuclei:   {examples.nuclei_per_field:.0f} per field, {examples.crops_per_field:.0f} of "
        f"them with a whole crop, by {examples.fields} fields"
    )
    warning = preview.few_nuclei(examples, nucleus)
    if warning:
        print(f"warning:  {warning}")
    path = study_file.preview_path(args.output)
    preview.draw_preview(examples, seen.channels, composite, nucleus, path)
    print(f"preview:  {path}")
    return nucleus, composite, examples


def defaults() -> dict:
    """Return config.yaml."""
    return settings.read_defaults(ROOT / "config.yaml")


def found_set(args, known):
    """Return what is found of the plates of a well-known set."""
    if args.layout or args.pattern:
        raise InputError(f"--layout, --pattern: the layout of {known.name} is known; omit them")
    return known_sets.find_set(known, args.plates, args.images, args.source, args.batch)


def found_screen(args, asks: bool):
    """Return what is found at the path; asks which of several layouts, schemes or tables it is."""
    for flag in ("source", "batch", "images"):
        if getattr(args, flag) is not None:
            raise InputError(f"--{flag}: is for well-known sets; give the path of your images only")
    given = {name: getattr(args, name) for name in ("path", "layout", "pattern", "plates")}
    while True:
        try:
            return find_screen(**given)
        except InDoubt as doubt:
            if not asks:
                raise
            print(doubt)
            ways = {str(number): way for number, way in enumerate(doubt.choices, start=1)}
            print("\n".join(f"  {number}: {way}" for number, way in ways.items()))
            given |= doubt.choices[asked("which one? ", ways)]


def nucleus_channel(args, seen, asks: bool) -> str:
    """Return the nucleus channel: given, found, or asked for."""
    if args.nucleus_channel:
        return survey.checked_channels(seen, [args.nucleus_channel], "--nucleus-channel")[0]
    if seen.found.nucleus:
        print(f"nuclei in channel: {seen.found.nucleus}, as published")
        return seen.found.nucleus
    shares = survey.outlines(seen)
    guess = outlines.guess_nucleus_channel(shares)
    shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    if guess.channel:
        print(f"nuclei in channel: {guess.channel}, {guess.why} ({shown})")
        if guess.warning:
            print(f"warning:  {guess.warning}")
        return guess.channel
    channels = draw_channels(args, seen, shares)
    if not asks:
        raise InputError(
            f"cannot decide which channel shows the nuclei: {guess.why} (share of light in round "
            f"outlines of one size: {shown}); look at {channels} and set --nucleus-channel"
        )
    print(f"Which channel shows the nuclei? {guess.why} ({shown})")
    return asked_channel(seen)


def draw_channels(args, seen, shares=None) -> Path:
    """Draw some fields in each channel, and say where."""
    path = args.output.with_suffix(".channels.png")
    preview.draw_channels(seen, shares or survey.outlines(seen), path)
    print(f"channels: {path}; look at it")
    return path


def asked_channel(seen) -> str:
    """Return the channel that a person names."""
    return asked("nucleus channel: ", {name: name for name in seen.channels})


def answered_write(output: Path, seen, nucleus: str) -> str:
    """Return YES or NO, whether the study is to be written, or another channel of the nuclei."""
    others = {name: name for name in seen.channels if name != nucleus}
    instead = f", or the nucleus channel if it is not {nucleus}" if others else ""
    words = {"": YES, "y": YES, "yes": YES, "n": NO, "no": NO}
    return asked(f"Write {output}? [Y/n{instead}] ", others | words)


def asked(question: str, answers: dict[str, str]) -> str:
    """Ask until an answer is one of `answers`, and return what it means; raises InputError."""
    known = {word.lower(): meaning for word, meaning in answers.items()} | answers
    while True:
        try:
            answer = input(question).strip()
        except EOFError as error:
            raise InputError(
                "nobody answered; answer with a flag and --yes (see --help)"
            ) from error
        meaning = known.get(answer, known.get(answer.lower()))
        if meaning is not None:
            return meaning
        print(f"'{answer}' is not an answer; {one_of(answer, filter(None, answers))}")


if __name__ == "__main__":
    main()
