"""The files after --configfile, looked at before Snakemake reads them.

Snakemake reads them before the Snakefile, and ends in a traceback, or without the name and the
line, where it cannot. `profiles/default` calls this, because a profile is read before all else.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from hcsqc.core.errors import InputError, in_one_line


def stop_at_unreadable_files(words: Sequence[str]) -> None:
    """Exit with one line if a file after --configfile in a command's words cannot be read.

    Jobs, which Snakemake starts with --mode, get files that have passed.
    """
    try:
        for path in given_files(words) if "--mode" not in words else []:
            check_config_file(path)
    except InputError as error:
        sys.exit(f"error: {error}")
    finally:
        # The Snakefile imports the copy of the project beside it, which may be another.
        for name in [name for name in sys.modules if name.split(".")[0] == "hcsqc"]:
            del sys.modules[name]


def given_files(words: Sequence[str]) -> list[Path]:
    """Return the files after --configfile."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(
        "--configfile", "--configfiles", nargs="*", action="extend", type=Path, default=[]
    )
    return parser.parse_known_args(words)[0].configfile


def check_config_file(path: Path) -> None:
    """Raise InputError if a file is not there, or not YAML or JSON in UTF-8 with keys."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct the name after --configfile") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a file after --configfile") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({in_one_line(error)})") from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content
        found = "in UTF-16" if is_wide else f"not in UTF-8 (line {_line_of(content, error.start)})"
        raise InputError(f"{path}: is {found}; save it as UTF-8") from error
    with suppress(ValueError):
        if isinstance(json.loads(text), dict):
            return
    try:
        top = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error).split())
        raise InputError(
            f"{path}: {where}{problem}; correct the YAML there. A tab "
            "cannot indent, and a text with ': ' or '#' needs quotes"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML ({in_one_line(error)})") from error
    if not isinstance(top, yaml.MappingNode):
        raise InputError(f"{path}: has no keys; write a study as `study:` and so on")


def _line_of(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1
