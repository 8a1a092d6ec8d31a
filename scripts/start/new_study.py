"""Look at a folder of images or a LoadData table, and write a study of it that runs.

Run this by hand, once per screen. It writes a preview of eight crops and a commented file for
`snakemake --configfile`; it needs no labels, and overwrites no study.
"""

import argparse
import sys
from pathlib import Path

import yaml

from hcsqc.core.errors import InputError
from hcsqc.screens.layouts import LAYOUTS
from hcsqc.start import study_file, survey
from hcsqc.start.find import find_screen

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Read the flags, look at the images, write preview and study."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python scripts/start/new_study.py /data/my_screen --output my_study.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help="folder of images, or a LoadData table")
    parser.add_argument(
        "--output", type=Path, default=Path("my_study.yaml"), help="default: %(default)s"
    )
    parser.add_argument("--name", help="of the screen and the study; default: the folder's")
    parser.add_argument("--layout", choices=LAYOUTS, help="default: found from the files")
    parser.add_argument("--nucleus-channel", metavar="C", help="default: found by name or looks")
    parser.add_argument(
        "--composite",
        nargs="+",
        metavar="C",
        help="channels that encoders see, shown as red, green and blue; default: three of them, "
        "the nuclei last",
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
    study_file.refuse_existing(args.output)
    name = args.name or study_file.name_from(args.path, config)
    study_file.check_name(name, config)
    seen = survey.survey(find_screen(args.path, args.layout), config["crops"])
    print("\n".join(survey.describe(seen)))
    nucleus = nucleus_channel(args, seen, asks)
    composite = (
        survey.checked_channels(seen, args.composite, "--composite")
        if args.composite
        else survey.choose_composite(seen, nucleus)
    )
    print(f"composite: {', '.join(composite)}")
    examples = survey.find_examples(seen, nucleus, config["crops"])
    print(
        f"nuclei:   {examples.nuclei_per_field:.0f} per field, {examples.crops_per_field:.0f} of "
        f"them with a whole crop, by {len(seen.sample)} fields"
    )
    text = study_file.study_text(name, seen, examples, nucleus, composite, args.output, config)
    study_file.check_study(text, config)
    preview = study_file.preview_path(args.output)
    survey.draw_preview(examples, seen.channels, composite, nucleus, preview)
    print(f"preview:  {preview}")
    if asks and input(f"Write {args.output}? [Y/n] ").strip().lower() not in ("", "y", "yes"):
        print("nothing written but the preview")
        return
    study_file.write_study(text, args.output)
    print(f"study:    {args.output}; next: snakemake qc --cores all --configfile {args.output}")


def defaults() -> dict:
    """Return config.yaml."""
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def nucleus_channel(args, seen, asks: bool) -> str:
    """Return the channel of the nuclei: given, found, or asked for."""
    if args.nucleus_channel:
        return survey.checked_channels(seen, [args.nucleus_channel], "--nucleus-channel")[0]
    channel, why = survey.nucleus_channel(seen)
    if channel:
        print(f"nuclei in channel: {channel}, {why}")
        return channel
    if not asks:
        raise InputError(
            "cannot tell which channel shows the nuclei (share of round outlines: "
            f"{why}); name it with --nucleus-channel"
        )
    print(f"Which channel shows the nuclei? Share of round outlines: {why}")
    answer = input("channel: ").strip()
    return survey.checked_channels(seen, [answer], "--nucleus-channel")[0]


if __name__ == "__main__":
    main()
